"""Learning rate per step, and AdamW's parameter groups."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn

from xsite.experiment_parts import Optim


def learning_rate(step: int, *, optim: Optim, steps_per_epoch: int) -> float:
    """Linear warm-up, then a cosine down to ``min_lr`` at the last step of ``optim.epochs``.

    The warm-up starts at ``optim.warmup_from``; without it, at the first of as many equal steps as it is long.

    Parameters
    ----------
    step : int
        Optimiser step, from 0.
    """
    n_steps = optim.epochs * steps_per_epoch
    n_warmup = min(round(optim.warmup_epochs * steps_per_epoch), max(n_steps - 1, 0))
    if step < n_warmup and optim.warmup_from is not None:
        return optim.warmup_from + (optim.lr - optim.warmup_from) * step / n_warmup
    if step < n_warmup:
        return optim.lr * (step + 1) / n_warmup
    done = min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup - 1))
    return optim.min_lr + (optim.lr - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * done))


def build_optimizer(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW over the model's own parameter groups (``lr_scale`` of a group survives the schedule)."""
    if hasattr(model, "param_groups"):
        groups = cast(Any, model).param_groups(optim.lr, optim.weight_decay, optim.layer_decay)
    else:
        groups = _two_groups(model, optim)
    for group in groups:
        group["lr_scale"] = group.get("lr", optim.lr) / optim.lr
    kinds = {p.device.type for group in groups for p in group["params"] if p.is_floating_point()}
    fused = kinds <= {"cpu", "cuda"}  # one pass over each parameter instead of a dozen
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def _two_groups(model: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """No weight decay for biases and norms."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": optim.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
