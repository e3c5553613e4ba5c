"""BEIRA-style: learned spatial sources, learned band-pass and envelope filters, a convolutional encoder.

Written from the published description only; BEIRA's own code has no licence and was not looked at.
Shape letters: ``B`` windows, ``C`` channels, ``V`` channels of the vocabulary, ``S`` sources, ``T`` samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurobolt.cards import ModelCard
from neurobolt.rivals.base import Rival, in_slots
from neurobolt.rivals.config import RivalConfig


@dataclass(frozen=True)
class BEIRAConfig(RivalConfig):
    """Sizes of the encoder; the defaults are the published ones as far as they are known.

    Parameters
    ----------
    n_sources : int
        Spatial sources; each has its own band-pass and its own envelope filter.
    filter_length : int
        Samples of both filters.
    channels : int
        Width of the encoder.
    kernels, strides : tuple of int
        Convolutions and max-pools of the encoder.
    dropout : float
    decimate : int
        Samples averaged into one before anything else (BEIRA's own recordings have 100 Hz).
    log_envelope : bool
        log(1 + envelope) in place of the envelope.
    """

    model: ClassVar[str] = "beira"

    n_sources: int = 16
    filter_length: int = 51
    channels: int = 128
    kernels: tuple[int, ...] = (5, 5, 3)
    strides: tuple[int, ...] = (8, 8, 4)
    dropout: float = 0.3
    decimate: int = 1
    log_envelope: bool = False

    def checks(self) -> dict[str, bool]:
        """The window survives the pools; filters and kernels have a middle."""
        return {
            f"{len(self.kernels)} kernels for {len(self.strides)} strides": len(self.kernels) == len(self.strides),
            f"kernels {self.kernels} and filter_length {self.filter_length} are not all odd": all(
                k % 2 for k in (*self.kernels, self.filter_length)
            ),
            f"decimate {self.decimate} does not divide {self.n_times} samples": self.decimate >= 1
            and self.n_times % self.decimate == 0,
            f"nothing is left of {self.n_times} samples after strides {self.strides}": self.n_codes >= 1,
        }

    @property
    def n_codes(self) -> int:
        """Time steps of the code."""
        left = self.n_times // self.decimate
        for stride in self.strides:
            left //= stride
        return left


class _Filters(nn.Module):
    """Spatial unmixing, band-pass, rectification and envelope: sources (B, S, T)."""

    def __init__(self, config: BEIRAConfig) -> None:
        super().__init__()
        n, length = config.n_sources, config.filter_length
        self.unmix = nn.Conv1d(len(config.ch_names), n, 1, bias=False)
        self.norm = nn.BatchNorm1d(n)
        self.band_pass = nn.Conv1d(n, n, length, padding=length // 2, groups=n, bias=False)
        self.band_norm = nn.BatchNorm1d(n)
        self.envelope = nn.Conv1d(n, n, length, padding=length // 2, groups=n)
        self.log_envelope = config.log_envelope

    def forward(self, eeg_BVT: Tensor) -> Tensor:
        sources_BST = self.norm(self.unmix(eeg_BVT))
        power_BST = torch.relu(self.band_norm(self.band_pass(sources_BST)))
        envelope_BST: Tensor = self.envelope(power_BST)
        return torch.log1p(torch.relu(envelope_BST)) if self.log_envelope else envelope_BST


class BEIRA(Rival):
    """Filters, convolutions with LayerNorm, GELU, dropout and max-pools; the flattened code feeds a linear head."""

    config_class = BEIRAConfig

    def __init__(self, config: BEIRAConfig) -> None:
        super().__init__(config)
        self.filters = _Filters(config)
        self.lift = nn.Conv1d(config.n_sources, config.channels, 1)
        layers: list[nn.Module] = []
        for kernel, stride in zip(config.kernels, config.strides, strict=True):
            layers += [
                nn.Conv1d(config.channels, config.channels, kernel, padding=kernel // 2),
                nn.GroupNorm(1, config.channels),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.MaxPool1d(stride),
            ]
        self.encoder = nn.Sequential(*layers)
        self.output = nn.Linear(config.channels * config.n_codes, config.n_outputs)

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """Flattened code (B, channels x time steps); absent channels are zero in their slots."""
        eeg_BVT = in_slots(eeg_BCT, ch_index_BC, len(self.ch_names))
        if self.config.decimate > 1:
            eeg_BVT = nn.functional.avg_pool1d(eeg_BVT, self.config.decimate)
        code: Tensor = self.encoder(self.lift(self.filters(eeg_BVT)))
        return code.flatten(1)


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"n_sources": 16, "channels": 24, "dropout": 0.1, "decimate": 2, "filter_length": 25},
}

CARD = ModelCard(
    name="BEIRA-style",
    paper="Kovalev, Mikheev and Ossadtchi, fMRI from EEG is only Deep Learning away: the use of interpretable DL to"
    " unravel EEG-fMRI relationships, arXiv 2211.02024 (2022)",
    year=2022,
    licence_of_the_idea="none published (code without a licence; not looked at)",
    differs=(
        "encoder and linear head only, as in NeuroBOLT's comparison; one model for all parcels instead of one each",
        "no fixed 6 s delay: the 16 s window ends at the volume",
        "the encoder is three convolutions (5, 5, 3) behind a 1 x 1 one; how the published 128 channels are distributed"
        " and over which axes its LayerNorm runs is not known (here: channels and time together)",
        "`small`: 24 channels, filters of 25 samples at 100 Hz",
    ),
)
