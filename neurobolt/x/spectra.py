"""Short-time Fourier features, and what a whole recording says of them.

Shape letters: ``B`` windows, ``C`` channels, ``T`` samples, ``L`` bins (lags), ``N`` Fourier frequencies, ``M`` their
real and imaginary parts, ``F`` bands, ``K`` spatial filters,
``S`` statistics of a channel.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from neurobolt.x.config import NeuroBOLTXConfig

_FLOOR = 1e-6  # square of the model's unit; a silent channel then has a constant, not an infinite, logarithm
_CHUNK = 256  # bins of a recording transformed at once


class Statistics(NamedTuple):
    """What the features are compared with.

    Parameters
    ----------
    mean_BCF, spread_BCF : tensors
        Mean and standard deviation over bins of each channel's features.
    cross_BCFC : tensor
        Mean cross-spectrum (real part) of every pair of channels in each band.
    """

    mean_BCF: Tensor
    spread_BCF: Tensor
    cross_BCFC: Tensor

    def packed(self) -> Tensor:
        """One tensor (B, C, S), as a batch carries it."""
        return torch.cat([self.mean_BCF, self.spread_BCF, self.cross_BCFC.flatten(2)], -1)


def unpacked(statistics_BCS: Tensor, n_features: int, n_bands: int) -> Statistics:
    """Inverse of :meth:`Statistics.packed`."""
    n_cross = statistics_BCS.shape[2] - 2 * n_features
    mean_BCF, spread_BCF, cross = torch.split(statistics_BCS, [n_features, n_features, n_cross], -1)
    return Statistics(mean_BCF, spread_BCF, cross.reshape(*cross.shape[:2], n_bands, -1))


class Spectra(nn.Module):
    """Cross-spectra of short bins, and power features made of them; nothing here is learned."""

    scale_N: Tensor

    def __init__(self, config: NeuroBOLTXConfig) -> None:
        super().__init__()
        self.n_bin, self.hop = round(config.bin_s * config.sfreq), round(config.hop_s * config.sfreq)
        self.log_power = config.log_power
        hz = torch.fft.rfftfreq(self.n_bin, 1 / config.sfreq)
        edges = config.band_edges_hz
        self.first, self.stop = int((hz < edges[0]).sum()), int((hz < edges[-1]).sum())
        self.n_hz = [int(((hz >= low) & (hz < high)).sum()) for low, high in pairwise(edges)]
        share = torch.cat(
            [torch.full((n,), 1 / (n * self.n_bin) ** 0.5) for n in self.n_hz]
        )  # a band's power is a mean
        self.register_buffer("scale_N", share / config.eeg_unit, persistent=False)

    def forward(self, eeg_BCT: Tensor) -> Tensor:
        """Real part of the cross-spectrum in each band and bin (B, F, L, C, C), in squares of the model's unit.

        The Hann taper is applied to Fourier coefficients, where it is a sum of three neighbours; a bin's mean then
        reaches the two lowest frequencies only, which no band holds.
        """
        raw_BCLN = torch.fft.rfft(eeg_BCT.unfold(-1, self.n_bin, self.hop))[..., self.first - 1 : self.stop + 1]
        tapered_BCLN = raw_BCLN[..., 1:-1] / 2 - (raw_BCLN[..., :-2] + raw_BCLN[..., 2:]) / 4
        parts_BLCN2 = torch.view_as_real(tapered_BCLN * self.scale_N).transpose(1, 2)
        bands = []
        for part in torch.split(parts_BLCN2, self.n_hz, dim=3):
            flat_BLCM = part.flatten(3)
            bands.append(flat_BLCM @ flat_BLCM.transpose(2, 3))
        return torch.stack(bands, 1)

    def power(self, cross_BFLCC: Tensor) -> Tensor:
        """Power of each channel (B, C, L, F)."""
        return cross_BFLCC.diagonal(dim1=3, dim2=4).permute(0, 3, 2, 1)

    def filtered_power(self, cross_BFLCC: Tensor, filters_BFCK: Tensor) -> Tensor:
        """Power of spatially filtered EEG (B, K, L, F): every band has filters of its own."""
        b, f, n_lags, c, _ = cross_BFLCC.shape
        half_BFLCK = (cross_BFLCC.reshape(b, f, n_lags * c, c) @ filters_BFCK).reshape(b, f, n_lags, c, -1)
        power_BKLF: Tensor = (half_BFLCK * filters_BFCK.unsqueeze(2)).sum(3).permute(0, 3, 2, 1)
        return power_BKLF

    def features(self, power_BCLF: Tensor) -> Tensor:
        """Logarithm (or root) of band power (B, C, L, F)."""
        return torch.log(power_BCLF + _FLOOR) if self.log_power else torch.sqrt(power_BCLF + _FLOOR)

    def of_windows(self, cross_BFLCC: Tensor, *, together: bool) -> Statistics:
        """Statistics of each window by itself, or of all windows of a batch taken as one recording."""
        feature_BCLF = self.features(self.power(cross_BFLCC))
        cross_BCFC = cross_BFLCC.mean(2).transpose(1, 2)
        if not together:
            return Statistics(feature_BCLF.mean(2), feature_BCLF.std(2, correction=0), cross_BCFC)
        pooled = [feature_BCLF.mean((0, 2)), feature_BCLF.std((0, 2), correction=0), cross_BCFC.mean(0)]
        return Statistics(*(value.expand(len(feature_BCLF), *value.shape) for value in pooled))

    def of_recording(self, eeg_CT: Tensor, valid_T: Tensor) -> Statistics:
        """Statistics of one recording (B = 1) over all its bins without an invalid sample."""
        n_chans, n_features = len(eeg_CT), len(self.n_hz)
        neutral_CF = eeg_CT.new_zeros(1, n_chans, n_features)
        cross_CFC = eeg_CT.new_zeros(n_chans, len(self.n_hz), n_chans)
        good_L = valid_T.unfold(0, self.n_bin, self.hop).all(-1) if len(valid_T) >= self.n_bin else valid_T[:0]
        if int(good_L.sum()) < 2:  # nothing to compare with: as if every bin were average
            return Statistics(neutral_CF, neutral_CF + 1, cross_CFC[None])
        powers = []
        for first in range(0, len(good_L), _CHUNK):
            good = good_L[first : first + _CHUNK]
            piece_CT = eeg_CT[:, first * self.hop : (first + len(good) - 1) * self.hop + self.n_bin]
            cross = self(piece_CT[None])
            powers.append(self.power(cross)[0])
            cross_CFC += cross[0, :, good].sum(1).transpose(0, 1)
        feature_CLF = self.features(torch.cat(powers, 1)[None])[0][:, good_L]
        mean_CF, spread_CF = feature_CLF.mean(1), feature_CLF.std(1, correction=0)
        return Statistics(mean_CF[None], spread_CF[None], cross_CFC[None] / good_L.sum())
