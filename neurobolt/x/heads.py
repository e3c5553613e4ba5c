"""From lags of representations to parcels. Shape letters: ``B`` windows, ``L`` lags, ``E`` width, ``R`` parcels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_LOOSENESS = 0.1  # a kernel's weights are about 0.2: at a network's learning rate they would forget where they began


def double_gamma(lags_s: Sequence[float]) -> Tensor:
    """Canonical haemodynamic response at lags in seconds, unit sum of squares, shape (L,).

    Gamma densities of shape 6 and 16 and scale 1 s, the second subtracted at a sixth (Friston et al. 1998,
    NeuroImage 7:30-40): peak near 5 s, undershoot near 15 s.
    """
    t = torch.tensor(lags_s, dtype=torch.float64).clamp(min=1e-9)
    bumps = [torch.exp((shape - 1) * t.log() - t - torch.lgamma(torch.tensor(shape))) for shape in (6.0, 16.0)]
    response = bumps[0] - bumps[1] / 6
    return (response / response.square().sum().sqrt()).float()


class HaemodynamicHead(nn.Module):
    """Each parcel has an embedding that reads a lag's representation, and a kernel that weighs the lags.

    Nothing but these rows knows of parcels: another parcellation needs new rows only.

    Parameters
    ----------
    n_outputs, embed_dim : int
    lags_s : sequence of float
    """

    response_L: Tensor

    def __init__(self, n_outputs: int, embed_dim: int, lags_s: Sequence[float]) -> None:
        super().__init__()
        self.n_lags = len(lags_s)
        self.parcel_embedding = nn.Parameter(torch.randn(n_outputs, embed_dim) / embed_dim**0.5)
        self.deviation_RL = nn.Parameter(torch.zeros(n_outputs, self.n_lags))
        self.register_buffer("response_L", double_gamma(lags_s), persistent=False)
        self.bias_R = nn.Parameter(torch.zeros(n_outputs))

    def kernel(self) -> Tensor:
        """Weight of each lag (R, L); weight decay pulls it back to the canonical response, not to zero."""
        return self.response_L + _LOOSENESS * self.deviation_RL

    def forward(self, z_BD: Tensor) -> Tensor:
        """BOLD (B, R) of representations (B, L x E)."""
        lag_BLR = z_BD.reshape(len(z_BD), self.n_lags, -1) @ self.parcel_embedding.T
        bold_BR: Tensor = (lag_BLR * self.kernel().T).sum(1) + self.bias_R
        return bold_BR


class FreeHead(nn.Linear):
    """A free weight per parcel, lag and dimension."""

    def __init__(self, n_outputs: int, embed_dim: int, n_lags: int) -> None:
        super().__init__(n_lags * embed_dim, n_outputs)
        nn.init.normal_(self.weight, std=1 / (n_lags * embed_dim) ** 0.5)
        nn.init.zeros_(self.bias)
