"""Spectrograms and the small residual CNN that several rivals share.

Shape letters: ``B`` windows, ``C`` channels, ``T`` samples, ``F`` frames, ``Q`` frequencies, ``K`` feature maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def n_frames(n_times: int, n_fft: int, hop: int) -> int:
    """Frames that fit whole into ``n_times`` samples.

    Examples
    --------
    >>> n_frames(3200, 200, 100)
    31
    """
    return (n_times - n_fft) // hop + 1


def spectrogram(eeg_BCT: Tensor, n_fft: int, hop: int) -> Tensor:
    """Magnitudes of rectangular frames: (B, C, T) to (B, C, F, n_fft / 2 + 1).

    Examples
    --------
    >>> spectrogram(torch.zeros(1, 26, 3200), 200, 100).shape
    torch.Size([1, 26, 31, 101])
    """
    spectrum = torch.fft.rfft(eeg_BCT.unfold(-1, n_fft, hop))
    if eeg_BCT.requires_grad:
        return torch.abs(spectrum)  # its gradient is defined at zero
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square())


def log_scaled(magnitude: Tensor) -> Tensor:
    """log(1 + magnitude): loud frames count less."""
    return torch.log1p(magnitude)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a strided one, then max-pooling and dropout; each side shrinks to a quarter."""

    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.norm3 = nn.BatchNorm2d(n_out)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BKQF: Tensor) -> Tensor:
        """Feature maps (B, K, Q, F) to (B, K', Q / 4, F / 4)."""
        x_BKQF = _two_wide(x_BKQF)
        y = nn.functional.elu(self.norm1(self.conv1(x_BKQF)))
        y = self.norm2(self.conv2(y)) + self.norm3(self.shortcut(x_BKQF))
        out: Tensor = self.dropout(self.pool(nn.functional.elu(y)))
        return out


def _two_wide(x_BKQF: Tensor) -> Tensor:
    """A zero row or column more where there is one only, which the strided convolutions would have padded anyway.

    oneDNN's bfloat16 weight gradient of such a convolution reads memory that nobody wrote (torch 2.13 on a CPU: wrong
    or NaN in 10 of 10 trials at 7 x 1, in none at 7 x 2).
    """
    short_q, short_f = (int(size == 1) for size in x_BKQF.shape[2:])
    return nn.functional.pad(x_BKQF, (0, short_f, 0, short_q)) if short_q or short_f else x_BKQF


class SpectrogramCNN(nn.Module):
    """Residual blocks on the spectrograms of all channels; what is left of frequency and time is averaged.

    At 101 frequencies and up to 256 frames four blocks leave one cell, so that there is nothing to average.
    """

    def __init__(self, n_chans: int, widths: Sequence[int], n_fft: int, hop: int, dropout: float) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        sizes = [n_chans, *widths]
        self.blocks = nn.Sequential(*(ResidualBlock(a, b, dropout) for a, b in pairwise(sizes)))

    def forward(self, eeg_BVT: Tensor) -> Tensor:
        """EEG in fixed slots (B, V, T) to (B, K)."""
        spectrum_BVFQ = spectrogram(eeg_BVT, self.n_fft, self.hop)
        x_BKQF: Tensor = self.blocks(spectrum_BVFQ.transpose(2, 3))
        return x_BKQF.mean((2, 3))
