"""IRM: one and the same head should be the best for every site.

Source: Arjovsky, Bottou, Gulrajani and Lopez-Paz, Invariant risk minimization, 2019, arXiv 1907.02893 (IRMv1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, site_risks, whole


class IRM(nn.Module):
    """ERM plus, averaged over sites, the squared slope of a site's error in a factor on the prediction, at factor 1.

    For a squared error the slope is 2 mean((prediction - target) prediction), so no second differentiation is needed.
    The square of a batch's slope is biased upwards, most for sites with few windows in the batch; the paper's estimate
    from two halves is not, but is not exact under DDP, as this is.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    weight : float
        Of the penalty; 0 is ERM.
    from_epoch : int
        Epochs before the penalty counts: a model that predicts zero has none, and would stay there.
    """

    strength: Tensor

    def __init__(self, model: nn.Module, weight: float = 1.0, from_epoch: int = 1) -> None:
        super().__init__()
        self.model, self.n_sites = model, 1
        self.weight, self.from_epoch = number("weight", weight), whole("from_epoch", from_epoch)
        self.register_buffer("strength", torch.zeros(()), persistent=False)  # a tensor: a float would recompile
        self.start_epoch(0, 1)

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Learn how many training sites there are."""
        del batch
        self.n_sites = n_sites

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Switch the penalty on or off."""
        del n_epochs
        self.strength.fill_(self.weight if epoch >= self.from_epoch else 0.0)

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, ``risk`` without the penalty, and ``penalty`` without its weight."""
        risks = site_risks(self.model(batch), target_BR, mask_BR, batch.site_B, self.n_sites)
        penalty = (2 * risks.slope_S).square().sum() / risks.present_S.sum().clamp(min=1) * risks.several()
        loss = risks.pooled + self.strength * penalty
        return {"loss": averaged_over_ranks(loss), "risk": risks.pooled, "penalty": penalty}
