"""SWAD: the mean of the weights of all steps in the valley of the validation curve.

Source: Cha, Chun, Lee, Cho, Park, Lee and Park, SWAD: domain generalization by seeking flat minima, NeurIPS 2021, arXiv
2102.08604.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, pooled_risk
from xsite.learning.algorithms.swa import approach, exchange


class SWAD(nn.Module):
    """ERM whose model holds, after every epoch, the mean of the steps since the validation curve's lowest epoch.

    An epoch's own mean is validated: the lowest so far begins the mean anew, one up to ``tolerance`` times the lowest
    joins it, one above is left out (the paper decides every hundred steps, with patience of a few). Without validation
    the mean begins after ``start``. It is the mean that is validated, kept and watched. Exact under DDP.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    tolerance : float
        From 1; validation errors of this task lie near 1, so the paper's 1.3 would let everything in.
    start : float
        Share of ``optim.epochs`` before the mean begins where nothing validates.
    """

    n_epochs: Tensor
    lowest: Tensor

    def __init__(self, model: nn.Module, tolerance: float = 1.05, start: float = 0.5) -> None:
        super().__init__()
        self.model, self.n_steps, self.late = model, 0, False
        self.tolerance, self.start = number("tolerance", tolerance, 1), number("start", start, 0, 1)
        self.other = copy.deepcopy(model).requires_grad_(False)  # this epoch's mean; between epochs the trained weights
        self.mean = copy.deepcopy(model).requires_grad_(False)
        self.register_buffer("n_epochs", torch.zeros((), dtype=torch.int64))
        self.register_buffer("lowest", torch.tensor(math.inf, dtype=torch.float64))

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch."""
        return {"loss": averaged_over_ranks(pooled_risk(self.model(batch), target_BR, mask_BR))}

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Go on from the weights as they were trained."""
        self.late, self.n_steps = epoch >= self.start * n_epochs, 0
        if self.n_epochs > 0:
            exchange(self.model, self.other)

    def step_done(self) -> None:
        """Take a step into the epoch's mean."""
        self.n_steps += 1
        approach(self.other, self.model, 1 / self.n_steps)

    def end_epoch(self, error: Callable[[], float] | None) -> None:
        """Begin the mean anew, let the epoch join, or leave it out; the model then holds the mean."""
        exchange(self.model, self.other)
        loss = error() if error is not None else math.nan
        anew = loss < self.lowest if error is not None else not self.late
        if anew or self.n_epochs == 0:
            self.n_epochs.fill_(1)
            approach(self.mean, self.model, 1.0)
        elif not loss > self.tolerance * self.lowest:
            self.n_epochs += 1
            approach(self.mean, self.model, 1 / float(self.n_epochs))
        self.lowest.fill_(min(float(self.lowest), loss) if math.isfinite(loss) else float(self.lowest))
        approach(self.model, self.mean, 1.0)
