"""DANN: a discriminator tells the sites from the features, and the features learn to deceive it.

Source: Ganin, Ustinova, Ajakan, Germain, Larochelle, Laviolette, Marchand and Lempitsky, Domain-adversarial training of
neural networks, J. Mach. Learn. Res. 17(59), 2016, arXiv 1505.07818.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from xsite.learning.algorithms.sites import (
    averaged_over_ranks,
    n_features,
    number,
    one_hot,
    pooled_risk,
    sum_over_ranks,
    two_part,
    whole,
)


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_BD: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(strength)
        return z_BD.view_as(z_BD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength * grads[0], None


class DANN(nn.Module):
    """ERM, and a discriminator of the training sites behind a reversed gradient. Exact under DDP.

    The discriminator learns at full rate; the model meets its reversed gradient times ``weight`` and the paper's factor
    2 / (1 + exp(-10 p)) - 1, which rises from 0 as the share ``p`` of the epochs passes.

    Parameters
    ----------
    model : nn.Module
        With ``features`` and ``head``.
    weight : float
        Of the reversed gradient; 0 is ERM for the model.
    hidden : int
        Width of the discriminator's hidden layer.
    """

    strength: Tensor

    def __init__(self, model: nn.Module, weight: float = 0.1, hidden: int = 64) -> None:
        super().__init__()
        self.model, self.n_sites = two_part(model, "dann"), 1
        self.weight, self.hidden = number("weight", weight), whole("hidden", hidden, 1)
        self.discriminator = nn.Sequential()
        self.register_buffer("strength", torch.zeros(()), persistent=False)

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Build the discriminator for so many sites."""
        width, self.n_sites = n_features(self.model, batch), n_sites
        layers = nn.LayerNorm(width), nn.Linear(width, self.hidden), nn.GELU(), nn.Linear(self.hidden, n_sites)
        self.discriminator = nn.Sequential(*layers).to(batch.eeg_BCT.device)

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Reverse more strongly as training goes on."""
        self.strength.fill_(self.weight * (2 / (1 + math.exp(-10 * epoch / n_epochs)) - 1))

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, ``risk`` without the discriminator, and the discriminator's ``accuracy``."""
        z_BD = self.model.features(batch)
        risk = pooled_risk(self.model.head(z_BD), target_BR, mask_BR)
        reversed_BD: Tensor = _Reversal.apply(z_BD, self.strength)  # type: ignore[no-untyped-call]
        logit_BS = self.discriminator(reversed_BD).float()
        n_S = sum_over_ranks(one_hot(batch.site_B, self.n_sites).sum(0))
        several = ((n_S > 0).sum() > 1).float()
        entropy = sum_over_ranks(cross_entropy(logit_BS, batch.site_B, reduction="sum")) / n_S.sum() * several
        right = sum_over_ranks((logit_BS.detach().argmax(1) == batch.site_B).float().sum())
        return {"loss": averaged_over_ranks(risk + entropy), "risk": risk, "accuracy": right / n_S.sum()}
