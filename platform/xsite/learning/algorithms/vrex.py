"""V-REx: the error should be the same at every site.

Source: Krueger, Caballero, Jacobsen, Zhang, Binas, Zhang, Le Priol and Courville, Out-of-distribution generalization
via risk extrapolation, ICML 2021, arXiv 2003.00688 (equation 8).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, site_risks, spread, whole


class VREx(nn.Module):
    """ERM plus the variance of the sites' errors. Exact under DDP.

    The error is ERM's, over all windows alike (the paper's counts sites alike), so that weight 0 is ERM.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    weight : float
        Of the variance.
    from_epoch : int
        Epochs before the penalty counts; the paper's penalty sets in late, on a model that predicts something.
    """

    strength: Tensor

    def __init__(self, model: nn.Module, weight: float = 10.0, from_epoch: int = 1) -> None:
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
        n = risks.present_S.sum().clamp(min=1)
        variance = spread(risks.risk_S[:, None], risks.present_S) * (n - 1) / (2 * n)
        loss = risks.pooled + self.strength * variance
        return {"loss": averaged_over_ranks(loss), "risk": risks.pooled, "penalty": variance}
