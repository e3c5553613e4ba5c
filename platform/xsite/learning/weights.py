"""Hashes of a model's weights: what a training started from, and what it made of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn


def weight_hashes(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, str]:
    """First 12 hexadecimal digits of the SHA-256 of every tensor of ``state`` that ``model`` trains.

    Constant tensors (biases at 0, gains at 1) are left out: they start alike everywhere and say nothing.

    Returns
    -------
    dict of parameter name to str
    """
    hashes = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or name not in state:
            continue
        value = state[name].detach().cpu().contiguous()
        if value.numel() > 1 and bool((value != value.flatten()[0]).any()):
            hashes[name] = hashlib.sha256(value.float().numpy().tobytes()).hexdigest()[:12]
    return hashes
