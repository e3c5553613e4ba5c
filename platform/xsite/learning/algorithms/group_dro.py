"""GroupDRO: the sites with the largest error weigh most.

Source: Sagawa, Koh, Hashimoto and Liang, Distributionally robust neural networks for group shifts, ICLR 2020, arXiv
1911.08731 (algorithm 1).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, site_risks


class GroupDRO(nn.Module):
    """Errors of the sites, weighted by weights that grow exponentially with the error.

    The weights are renormalised over the sites in the batch, so that a batch without some site is not a quieter one.
    They are kept as logarithms in a buffer, which a training state saves. Exact under DDP.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    step_size : float
        Added to a site's log weight per step and unit of error; 0 is site-balanced ERM.
    """

    log_weight_S: Tensor

    def __init__(self, model: nn.Module, step_size: float = 0.01) -> None:
        super().__init__()
        self.model, self.step_size = model, number("step_size", step_size)
        self.register_buffer("log_weight_S", torch.zeros(1))

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Begin with equal weights."""
        self.log_weight_S = torch.zeros(n_sites, device=batch.eeg_BCT.device)

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, ``risk`` over all windows alike, and ``largest_weight`` of any site."""
        risks = site_risks(self.model(batch), target_BR, mask_BR, batch.site_B, len(self.log_weight_S))
        with torch.no_grad():
            log_weight_S = torch.log_softmax(self.log_weight_S + self.step_size * risks.risk_S, 0)
            weight_S = log_weight_S.exp() * risks.present_S
            weight_S = weight_S / weight_S.sum().clamp(min=1e-12)
            if self.training:
                self.log_weight_S.copy_(log_weight_S)
        loss = (weight_S * risks.risk_S).sum()
        return {"loss": averaged_over_ranks(loss), "risk": risks.pooled, "largest_weight": log_weight_S.exp().max()}
