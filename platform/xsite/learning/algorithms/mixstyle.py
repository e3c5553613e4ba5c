"""MixStyle across sites: a window keeps its course in time and gets channel amplitudes between those of two sites.

Source: Zhou, Yang, Qiao and Xiang, Domain generalization with MixStyle, ICLR 2021, arXiv 2104.02008.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, number, partners, pooled_risk


class MixStyle(nn.Module):
    """ERM on windows whose mean and standard deviation per channel are mixed with those of a window of another site.

    The paper mixes them between early layers of a network; here it is done on the EEG itself, because any model must
    do, and the style of a site is there: gain, cap, impedances. Targets stay. Partners as in mixup; drawn rank by rank,
    so under DDP the equality with one process holds in expectation only.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    alpha : float
        Of Beta(alpha, alpha), from which the share of the own style is drawn.
    p : float
        Chance that a window is changed; 0 is ERM.
    """

    def __init__(self, model: nn.Module, alpha: float = 0.1, p: float = 0.5) -> None:
        super().__init__()
        self.model, self.alpha, self.p = model, number("alpha", alpha, 1e-3), number("p", p, 0, 1)

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, and the share of windows that were ``mixed``."""
        with torch.no_grad():
            partner_B = partners(batch.site_B, batch.ch_index_BC)
            mixed_B = partner_B != torch.arange(len(partner_B), device=partner_B.device)
            mixed_B &= torch.rand(len(partner_B), device=partner_B.device) < self.p
            eeg_BCT = torch.where(mixed_B[:, None, None], self._styled(batch.eeg_BCT, partner_B), batch.eeg_BCT)
        risk = pooled_risk(self.model(batch._replace(eeg_BCT=eeg_BCT)), target_BR, mask_BR)
        return {"loss": averaged_over_ranks(risk), "mixed": mixed_B.float().mean()}

    def _styled(self, eeg_BCT: Tensor, partner_B: Tensor) -> Tensor:
        alpha = torch.tensor(self.alpha, device=eeg_BCT.device)
        own_B11 = torch.distributions.Beta(alpha, alpha).sample((len(eeg_BCT), 1, 1))
        deviation_BC1, mean_BC1 = torch.std_mean(eeg_BCT, -1, keepdim=True)
        standard_BCT = (eeg_BCT - mean_BC1) / deviation_BC1.clamp(min=1e-3)  # microvolt: below, the channel is flat
        style_BC1 = torch.lerp(deviation_BC1[partner_B], deviation_BC1, own_B11)
        return standard_BCT * style_BC1 + torch.lerp(mean_BC1[partner_B], mean_BC1, own_B11)
