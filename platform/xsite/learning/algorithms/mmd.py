"""MMD: features of all sites should have the same distribution.

Source: Gretton, Borgwardt, Rasch, Schoelkopf and Smola, A kernel two-sample test, J. Mach. Learn. Res. 13, 723, 2012,
arXiv 0805.2368; as a penalty between training domains: Li, Pan, Wang and Kot, Domain generalization with adversarial
feature learning, CVPR 2018.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, gathered, number, one_hot, pooled_risk, two_part

WIDTHS = (0.25, 1.0, 4.0)
"""Squared widths of the Gaussian kernels, in units of the batch's mean squared distance."""


class MMD(nn.Module):
    """ERM plus the squared maximum mean discrepancy of the features, averaged over pairs of sites.

    Exact under DDP: the features of all ranks are compared with each other.

    Parameters
    ----------
    model : nn.Module
        With ``features`` and ``head``.
    weight : float
        Of the penalty; 0 is ERM.
    """

    def __init__(self, model: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.model, self.n_sites = two_part(model, "mmd"), 1
        self.weight = number("weight", weight)

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Learn how many training sites there are."""
        del batch
        self.n_sites = n_sites

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, ``risk`` without the penalty, and ``penalty`` without its weight."""
        z_BD = self.model.features(batch)
        risk = pooled_risk(self.model.head(z_BD), target_BR, mask_BR)
        penalty = mean_discrepancy(gathered(z_BD.float()), gathered(batch.site_B), self.n_sites)
        return {"loss": averaged_over_ranks(risk + self.weight * penalty), "risk": risk, "penalty": penalty}


def mean_discrepancy(z_ND: Tensor, site_N: Tensor, n_sites: int) -> Tensor:
    """Squared MMD (biased estimate) averaged over pairs of the sites present; 0 for fewer than two."""
    with torch.autocast(z_ND.device.type, enabled=False):
        square_N = z_ND.square().sum(1)
        distance_NN = (square_N[:, None] + square_N[None] - 2 * z_ND @ z_ND.T).clamp(min=0)
        scale = distance_NN.detach().mean().clamp(min=1e-12)
        kernel_NN = torch.stack([(-distance_NN / (2 * width * scale)).exp() for width in WIDTHS]).mean(0)
        own_NS = one_hot(site_N, n_sites)
        n_S = own_NS.sum(0)
        share_NS = own_NS / n_S.clamp(min=1)
        inner_SS = share_NS.T @ kernel_NN @ share_NS
    within_S, present_S = inner_SS.diagonal(), (n_S > 0).float()
    pair_SS = present_S[:, None] * present_S[None] * (1 - torch.eye(n_sites, device=z_ND.device))
    discrepancy_SS = within_S[:, None] + within_S[None] - 2 * inner_SS
    return (pair_SS * discrepancy_SS).sum() / pair_SS.sum().clamp(min=1)
