"""CORAL: features of all sites should have the same covariance (and mean).

Source: Sun and Saenko, Deep CORAL: correlation alignment for deep domain adaptation, ECCV 2016 workshops, arXiv
1607.01719 (equation 1); between all pairs of training sites, means included, as in Gulrajani and Lopez-Paz, ICLR 2021,
arXiv 2007.01434.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, pooled_risk, site_moments, spread, two_part


class CORAL(nn.Module):
    """ERM plus the distance between the sites' feature moments, averaged over pairs of sites. Exact under DDP.

    Parameters
    ----------
    model : nn.Module
        With ``features`` and ``head``.
    weight : float
        Of the penalty; 0 is ERM.
    means : bool
        Whether means are brought together too.
    """

    def __init__(self, model: nn.Module, weight: float = 1.0, means: bool = True) -> None:
        super().__init__()
        self.model, self.n_sites = two_part(model, "coral"), 1
        self.weight, self.means = number("weight", weight), bool(means)

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Learn how many training sites there are."""
        del batch
        self.n_sites = n_sites

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, ``risk`` without the penalty, and ``penalty`` without its weight."""
        z_BD = self.model.features(batch)
        risk = pooled_risk(self.model.head(z_BD), target_BR, mask_BR)
        n_S, mean_SD, cov_SDD = site_moments(z_BD, batch.site_B, self.n_sites)
        d = z_BD.shape[1]
        penalty = spread(cov_SDD.flatten(1), (n_S > 1).float()) / (4 * d**2)  # one window has no covariance
        if self.means:
            penalty = penalty + spread(mean_SD, (n_S > 0).float()) / d
        return {"loss": averaged_over_ranks(risk + self.weight * penalty), "risk": risk, "penalty": penalty}
