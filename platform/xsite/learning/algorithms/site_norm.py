"""Site-conditional normalisation: the head meets features whose first two moments are the same for every site.

Source: Li, Wang, Shi, Liu and Hou, Revisiting batch normalization for practical domain adaptation (AdaBN), ICLR 2017
workshops, arXiv 1603.04779; one set of statistics per domain in training: Chang, You, Seo, Kwak and Han,
Domain-specific batch normalization for unsupervised domain adaptation, CVPR 2019, arXiv 1906.03950.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import (
    averaged_over_ranks,
    n_features,
    number,
    pooled_risk,
    site_moments,
    two_part,
)


class SiteNorm(nn.Module):
    """ERM on features that are moved and scaled from their site's running moments to the pooled ones.

    ``z -> pooled mean + pooled deviation * (z - site mean) / site deviation``. An unseen site has no moments of its
    own: the model alone, which is what is validated and kept, takes it as coming from the pool (``data.adapt:
    features`` brings a recording's own to the pool's instead, with all its unlabelled EEG). Moments are held in
    differentiation (running averages over batches of all ranks): exact under DDP.

    Parameters
    ----------
    model : nn.Module
        With ``features`` and ``head``.
    momentum : float
        Share of the newest batch in the running moments.
    """

    n_seen_S: Tensor
    mean_SD: Tensor
    square_SD: Tensor

    def __init__(self, model: nn.Module, momentum: float = 0.1) -> None:
        super().__init__()
        self.model, self.momentum = two_part(model, "site-norm"), number("momentum", momentum, 1e-6, 1)
        for name in ("n_seen_S", "mean_SD", "square_SD"):
            self.register_buffer(name, torch.zeros(0))

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Begin without moments of any site."""
        device, width = batch.eeg_BCT.device, n_features(self.model, batch)
        self.n_seen_S = torch.zeros(n_sites, device=device)
        self.mean_SD = torch.zeros(n_sites, width, device=device)
        self.square_SD = torch.zeros_like(self.mean_SD)

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, and ``moved``: squared distance of a site's mean from the pooled one, in variances."""
        z_BD = self.model.features(batch).float()
        if self.training:
            self._observe(z_BD.detach(), batch.site_B)
        pooled_mean_D, pooled_square_D = self.pooled()
        mean_BD, square_BD = self.mean_SD[batch.site_B], self.square_SD[batch.site_B]
        risk = pooled_risk(
            self.model.head(_moved(z_BD, mean_BD, square_BD, pooled_mean_D, pooled_square_D)), target_BR, mask_BR
        )
        away_SD = (self.mean_SD - pooled_mean_D).square() / pooled_square_D.clamp(min=1e-12)
        moved = (away_SD.mean(1) * self._seen()).sum() / self._seen().sum().clamp(min=1)
        return {"loss": averaged_over_ranks(risk), "moved": moved}

    @torch.no_grad()
    def _observe(self, z_BD: Tensor, site_B: Tensor) -> None:
        n_S, mean_SD, cov_SDD = site_moments(z_BD, site_B, len(self.n_seen_S))
        new_S1 = torch.where(self.n_seen_S > 0, self.momentum, 1.0)[:, None] * (n_S > 1)[:, None]
        self.mean_SD.lerp_(mean_SD, new_S1)
        self.square_SD.lerp_(cov_SDD.diagonal(dim1=1, dim2=2), new_S1)
        self.n_seen_S += n_S > 1

    def _seen(self) -> Tensor:
        return (self.n_seen_S > 0).float()

    def pooled(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and variance (D,) over the training sites seen so far, each site alike."""
        share_S1 = (self._seen() / self._seen().sum().clamp(min=1))[:, None]
        return (self.mean_SD * share_S1).sum(0), (self.square_SD * share_S1).sum(0)


def _moved(z: Tensor, mean: Tensor, square: Tensor, to_mean: Tensor, to_square: Tensor) -> Tensor:
    """From one mean and variance to another; a site without moments stays where it is."""
    known = square > 0
    ratio = torch.where(known, to_square.clamp(min=1e-12) / square.clamp(min=1e-12), 1.0).sqrt()
    return torch.where(known, to_mean + (z - mean) * ratio, z)
