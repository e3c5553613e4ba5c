"""Mixup across sites: windows and targets between those of two sites.

Source: Zhang, Cisse, Dauphin and Lopez-Paz, mixup: beyond empirical risk minimization, ICLR 2018, arXiv 1710.09412;
between domains: Wang, Li and Kot, Heterogeneous domain generalization via domain mixup, ICASSP 2020, arXiv 2009.05448.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, partners, pooled_risk


class Mixup(nn.Module):
    """ERM on ``lam * own + (1 - lam) * partner``, EEG and target alike, lam ~ Beta(alpha, alpha) window by window.

    The partner is a random window of another site in this rank's batch with the same channels; a window without one
    stays as it is (``mixed`` is the share of the others). A parcel counts where both windows have it. Pairs and lam are
    drawn rank by rank, so under DDP the equality with one process holds in expectation only.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    alpha : float
        0 is ERM, 1 draws lam evenly.
    """

    def __init__(self, model: nn.Module, alpha: float = 0.2) -> None:
        super().__init__()
        self.model, self.alpha = model, number("alpha", alpha)

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, and the share of windows that were ``mixed``."""
        with torch.no_grad():
            partner_B = partners(batch.site_B, batch.ch_index_BC)
            own_B1 = self._draw(partner_B)[:, None]
            eeg_BCT = torch.lerp(batch.eeg_BCT[partner_B], batch.eeg_BCT, own_B1[:, :, None])
            target_BR = torch.where(mask_BR, target_BR, 0.0)
            target_BR = torch.lerp(target_BR[partner_B], target_BR, own_B1)
            mask_BR = mask_BR & (mask_BR[partner_B] | (own_B1 == 1))
        risk = pooled_risk(self.model(batch._replace(eeg_BCT=eeg_BCT)), target_BR, mask_BR)
        return {"loss": averaged_over_ranks(risk), "mixed": (own_B1 < 1).float().mean()}

    def _draw(self, partner_B: Tensor) -> Tensor:
        if self.alpha == 0:
            return torch.ones(len(partner_B), device=partner_B.device)
        alpha = torch.tensor(self.alpha, device=partner_B.device)
        own_B = torch.distributions.Beta(alpha, alpha).sample((len(partner_B),))
        return torch.where(partner_B == torch.arange(len(partner_B), device=partner_B.device), 1.0, own_B)
