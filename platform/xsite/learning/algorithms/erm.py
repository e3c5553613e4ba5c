"""Empirical risk minimisation: all windows of all sites count alike."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def squared_error(predicted_BR: Tensor, target_BR: Tensor, mask_BR: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squared errors over the entries that count, and how many these are.

    A masked target may be NaN: it is replaced before the subtraction, because ``NaN * 0`` would poison the gradient.
    """
    target_BR = torch.where(mask_BR, target_BR, 0.0)
    error_BR = torch.where(mask_BR, predicted_BR.float() - target_BR, 0.0)
    return error_BR.square().sum(), mask_BR.sum()


class ERM(nn.Module):
    """Masked mean squared error.

    On several ranks the sum is divided by the *global* count, times the number of ranks: DDP then averages the
    gradients to exactly the gradient of one process with the whole batch, however unevenly the masks fall.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch; ``mask_BR`` is False where the target does not count."""
        total, count = squared_error(self.model(batch), target_BR, mask_BR)
        count = count.double()
        n_ranks = 1
        if self.training and dist.is_available() and dist.is_initialized():
            n_ranks = dist.get_world_size()
        if n_ranks > 1:
            dist.all_reduce(count)
        return {"loss": total * n_ranks / count.clamp(min=1).float()}
