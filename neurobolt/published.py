"""Checkpoints as the authors publish them: read, written back, and refused when they are something else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neurobolt.channels import VU_NAMES, vocabulary_index
from neurobolt.config import NeuroBOLTConfig
from neurobolt.labram_weights import STUDENT, branch_name, load_labram, read_state
from neurobolt.model import NeuroBOLT
from neurobolt.spectral import sinusoid
from neurobolt.storage import differences

# our name -> published name, first match wins; names that no rule changes are the same in both
_RULES: tuple[tuple[str, str], ...] = (
    (r"^output\.", "head."),
    (r"^spectral\.projections\.(\d+)\.", r"mss_module.patch_embedding.\1.projection."),
    (r"^spectral\.mixers\.(\d+)\.", r"mss_module.ts_embedding.\1.projection."),
    (r"^spectral\.blocks\.(\d+)\.attention\.", r"mss_module.transformer.layers.layers.\1.0.fn."),
    (r"^spectral\.blocks\.(\d+)\.norm1\.", r"mss_module.transformer.layers.layers.\1.0.norm."),
    (r"^spectral\.blocks\.(\d+)\.norm2\.", r"mss_module.transformer.layers.layers.\1.1.norm."),
    (r"^spectral\.blocks\.(\d+)\.mlp\.fc(\d)\.", r"mss_module.transformer.layers.layers.\1.1.fn.fn.w\2."),
    (r"^spectral\.", "mss_module."),
)
_SPACE = "spatiotemporal."
_INDEX = "mss_module.index"
_TOKENS = "mss_module.channel_tokens.weight"
_POSITION = "mss_module.positional_encoding.pe"
_N_POSITIONS = 1000


def published_name(name: str) -> str:
    """Name of one of our parameters in a published checkpoint.

    Examples
    --------
    >>> published_name("spatiotemporal.blocks.3.attention.qkv.weight")
    'blocks.3.attn.qkv.weight'
    """
    if name.startswith(_SPACE):
        return branch_name(name.removeprefix(_SPACE))
    for pattern, replacement in _RULES:
        renamed, n = re.subn(pattern, replacement, name)
        if n:
            return renamed
    return name


def to_published(model: NeuroBOLT, *, ch_names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """State dict in the published layout, buffers included; :func:`load_published` reads it back exactly.

    Parameters
    ----------
    model : NeuroBOLT
    ch_names : sequence of str, optional
        Order of the channel tokens, which the layout itself does not say; the model's own by default. ``VU_NAMES`` is
        that of the published checkpoints: a model trained on the same electrodes may hold them in another order.

    Raises
    ------
    ValueError
        Other electrodes than the model's own.
    """
    state = {published_name(name): tensor.detach().clone() for name, tensor in model.state_dict().items()}
    if ch_names is not None:
        order = vocabulary_index(ch_names, model.ch_names)
        if len(order) != len(model.ch_names):
            raise ValueError(f"{len(order)} names for the {len(model.ch_names)} channels {' '.join(model.ch_names)}")
        state[_TOKENS] = state[_TOKENS][order]
    state[_INDEX] = torch.arange(len(model.ch_names))
    state[_POSITION] = sinusoid(_N_POSITIONS, model.config.dim).unsqueeze(0)
    return state


def load_published(
    source: str | Path | Mapping[str, Any],
    *,
    ch_names: Sequence[str] = VU_NAMES,
    gelu_head: bool = True,
) -> NeuroBOLT:
    """Build the ``released`` model from a published checkpoint, in evaluation mode.

    A LaBraM checkpoint (names under ``student.``) fills the spatiotemporal branch; the rest starts fresh.

    Parameters
    ----------
    source : path or mapping of str to tensor
        A ``.pth`` or ``.safetensors`` file, or a state dict; the weights may lie under the key ``model``. Pickles are
        read with ``weights_only`` and one allowed class, ``argparse.Namespace``.
    ch_names : sequence of str
        Channels in the order of the checkpoint's channel tokens.
    gelu_head : bool
        Off for checkpoints trained with the releases of January and February 2025, which had no GELU before the head.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a checkpoint, one that holds code, or one of another layout: the message lists what differs.
    """
    state, name = read_state(source)
    if any(key.startswith(STUDENT) for key in state):
        model = NeuroBOLT(NeuroBOLTConfig.preset("released", ch_names=tuple(ch_names), gelu_head=gelu_head))
        return load_labram(model, state, source_name=name).eval()
    n_outputs = max(1, len(state["head.weight"])) if "head.weight" in state and state["head.weight"].ndim else 1
    config = NeuroBOLTConfig.preset("released", ch_names=tuple(ch_names), n_outputs=n_outputs, gelu_head=gelu_head)
    model = NeuroBOLT(config)
    ours = to_published(model)
    expected = {key: tuple(tensor.shape) for key, tensor in ours.items()}
    constant = {key: ours[key] for key in (_INDEX, _POSITION)}
    problems = differences(expected, {**constant, **state}) or _other_constants(constant, state)
    if problems:
        raise ValueError(f"{name}: not a published NeuroBOLT checkpoint for {len(ch_names)} channels: {problems}")
    model.load_state_dict({key: state[published_name(key)] for key in model.state_dict()})
    return model.eval()


def _other_constants(constant: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Words for buffers that hold other numbers than this model computes with; empty if they are the same."""
    other = []
    for key, value in constant.items():  # loosely: the phase of step 999 is coarse in float32
        if key in state and not torch.allclose(state[key].double(), value.double(), rtol=0, atol=1e-2):
            other.append(key)
    return f"other values in {', '.join(other)}: its channel tokens or steps stand in another order" if other else ""
