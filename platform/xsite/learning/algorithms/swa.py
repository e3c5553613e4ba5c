"""SWA: the mean of the weights of the last epochs.

Source: Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, Averaging weights leads to wider optima and better
generalization, UAI 2018, arXiv 1803.05407.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, pooled_risk


class SWA(nn.Module):
    """ERM whose model holds, at the end of late epochs, the mean weights of these epochs.

    The mean is what is validated, kept and watched; the next epoch goes on from where training stood. The learning rate
    follows the recipe's schedule (the paper keeps it high). Buffers, such as those of batch normalisation, are averaged
    like weights. Exact under DDP.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    start : float
        Share of ``optim.epochs`` after which averaging begins; 1 averages nothing: ERM.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, start: float = 0.5) -> None:
        super().__init__()
        self.model, self.start, self.averages = model, number("start", start, 0, 1), False
        self.other = copy.deepcopy(model).requires_grad_(False)  # the mean; while the model holds that, its weights
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch."""
        return {"loss": averaged_over_ranks(pooled_risk(self.model(batch), target_BR, mask_BR))}

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Go on from the weights as they were trained."""
        self.averages = epoch >= self.start * n_epochs
        if self.n_averaged > 0:
            exchange(self.model, self.other)

    def end_epoch(self, error: Callable[[], float] | None) -> None:
        """Take the epoch in, and let the model hold the mean."""
        del error
        if self.averages:
            self.n_averaged += 1
            approach(self.other, self.model, 1 / float(self.n_averaged))
            exchange(self.model, self.other)


@torch.no_grad()
def exchange(a: nn.Module, b: nn.Module) -> None:
    """Swap the weights and floating buffers of two alike models, in place, so that optimiser and DDP keep theirs."""
    for mine, theirs in _pairs(a, b):
        kept = mine.clone()
        mine.copy_(theirs)
        theirs.copy_(kept)


@torch.no_grad()
def approach(mean: nn.Module, model: nn.Module, share: float) -> None:
    """Move ``mean`` towards ``model`` by that share of the way; 1 copies."""
    for there, here in _pairs(mean, model):
        there.lerp_(here, share)


def _pairs(a: nn.Module, b: nn.Module) -> list[tuple[Tensor, Tensor]]:
    both = zip(chain(a.parameters(), a.buffers()), chain(b.parameters(), b.buffers()), strict=True)
    return [(mine, theirs) for mine, theirs in both if mine.is_floating_point()]
