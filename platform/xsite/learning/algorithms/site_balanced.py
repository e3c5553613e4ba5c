"""Site-balanced ERM: every site's mean error counts alike, however many windows it has.

Source: the uniform weights of Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021, arXiv
2007.01434 (their ERM draws equally many samples of every domain); group-balanced weights in Idrissi, Arjovsky, Pezeshki
and Lopez-Paz, Simple data balancing achieves competitive worst-group-accuracy, CLeaR 2022, arXiv 2110.14503.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from xsite.learning.algorithms.sites import averaged_over_ranks, site_risks


class SiteBalanced(nn.Module):
    """Mean over the sites in the batch of their masked mean squared error.

    Under DDP the sites are those of all ranks together: exactly the gradient of one process with the whole batch.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR``.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.n_sites = model, 1

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Learn how many training sites there are."""
        del batch
        self.n_sites = n_sites

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch, and ``risk``, the error over all windows alike."""
        risks = site_risks(self.model(batch), target_BR, mask_BR, batch.site_B, self.n_sites)
        return {"loss": averaged_over_ranks(risks.mean()), "risk": risks.pooled}
