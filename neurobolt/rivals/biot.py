"""BIOT: spectra of every channel as tokens of a linear transformer.

Shape letters: ``B`` windows, ``C`` channels, ``T`` samples, ``F`` frames, ``D`` width, ``N`` tokens (C x F).
Source: Yang, Westover and Sun, BIOT: Biosignal transformer for cross-data learning in the wild, NeurIPS 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from neurobolt.batch import Batch
from neurobolt.cards import ModelCard
from neurobolt.config import NeuroBOLTConfig
from neurobolt.layers import mean_over_tokens
from neurobolt.rivals.base import Rival, may_be_padded
from neurobolt.rivals.config import RivalConfig
from neurobolt.rivals.frames import log_scaled, n_frames, spectrogram
from neurobolt.spectral import SpectralBlock, sinusoid


@dataclass(frozen=True)
class BIOTConfig(RivalConfig):
    """Sizes of BIOT; the defaults are those of NeuroBOLT's comparison (width 200).

    Parameters
    ----------
    dim, depth, n_heads, mlp_ratio : int
        Width, layers, heads; hidden width of the feed-forward parts over ``dim``.
    n_fft, hop : int
        Samples of a frame and between frames.
    dropout : float
        Tokens and output of the attention.
    log_magnitude : bool
        log(1 + magnitude) in place of the magnitude.
    """

    model: ClassVar[str] = "biot"

    dim: int = 200
    depth: int = 4
    n_heads: int = 8
    mlp_ratio: int = 4
    n_fft: int = 200
    hop: int = 100
    dropout: float = 0.2
    log_magnitude: bool = False

    def checks(self) -> dict[str, bool]:
        """Heads divide the width; a frame fits into the window."""
        return {
            f"dim {self.dim} cannot be divided among {self.n_heads} heads": self.dim % self.n_heads == 0,
            f"dim {self.dim} is odd": self.dim % 2 == 0,
            f"a frame of {self.n_fft} samples, hop {self.hop}, does not fit into {self.n_times}": self.hop > 0
            and self.n_fft <= self.n_times,
        }

    def blocks(self) -> NeuroBOLTConfig:
        """What a block of the spectral branch reads; the spatiotemporal sizes are placeholders that fit together."""
        return NeuroBOLTConfig(
            ch_names=self.ch_names,
            dim=self.dim,
            window_s=self.window_s,
            sfreq=self.sfreq,
            scales_s=(self.window_s,),
            patch_size=self.n_times,
            conv_stride=2 * self.n_times,
            conv_channels=self.dim,
            conv_groups=1,
            n_heads=1,
            spectral_heads=self.n_heads,
            spectral_dropout=self.dropout,
            mlp_ratio=self.mlp_ratio,
        )


class BIOT(Rival):
    """Magnitude spectra + channel token + position code, linear attention, mean over tokens, ELU, linear head."""

    config_class = BIOTConfig
    undecayed = ("channel_tokens.weight",)
    position_FD: Tensor

    def __init__(self, config: BIOTConfig) -> None:
        super().__init__(config)
        frames = n_frames(config.n_times, config.n_fft, config.hop)
        self.project = nn.Linear(config.n_fft // 2 + 1, config.dim)
        self.channel_tokens = nn.Embedding(len(config.ch_names), config.dim)
        self.dropout = nn.Dropout(config.dropout)
        blocks = config.blocks()
        self.blocks = nn.ModuleList(SpectralBlock(blocks) for _ in range(config.depth))
        self.output = nn.Linear(config.dim, config.n_outputs)
        self.register_buffer("position_FD", sinusoid(frames, config.dim), persistent=False)

    def tokens(self, eeg_BCT: Tensor, ch_index_BC: Tensor) -> Tensor:
        """Embedded tokens (B, C x F, D), frame by frame within channel by channel."""
        spectrum = spectrogram(eeg_BCT, self.config.n_fft, self.config.hop)
        if self.config.log_magnitude:
            spectrum = log_scaled(spectrum)
        code_BCFD = self.channel_tokens(ch_index_BC.clamp(min=0)).unsqueeze(2) + self.position_FD
        tokens_BND: Tensor = self.dropout((self.project(spectrum) + code_BCFD).flatten(1, 2))
        return tokens_BND

    def features(self, batch: Batch) -> Tensor:
        """Mean over the tokens of real channels (B, D); no masks where the batch says that nothing is padded."""
        eeg_BCT, ch_index_BC, valid_BC = self.scaled(batch)
        return self.encode(eeg_BCT, ch_index_BC, valid_BC if may_be_padded(batch) else None)

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor | None) -> Tensor:
        """Mean over the tokens of real channels (B, D)."""
        x_BND = self.tokens(eeg_BCT, ch_index_BC)
        valid_BN = None if valid_BC is None else valid_BC.repeat_interleave(self.position_FD.shape[0], 1)
        for block in self.blocks:
            x_BND = block(x_BND, ch_index_BC, valid_BN)
        return mean_over_tokens(x_BND, valid_BN)

    def head(self, z_BD: Tensor) -> Tensor:
        """ELU and linear."""
        bold_BR: Tensor = self.output(nn.functional.elu(z_BD))
        return bold_BR


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "original": {"dim": 256},
    "small": {"dim": 48, "depth": 2, "n_heads": 4, "mlp_ratio": 2, "hop": 200, "dropout": 0.1},
}

CARD = ModelCard(
    name="BIOT",
    paper="Yang, Westover and Sun, BIOT: Biosignal transformer for cross-data learning in the wild, NeurIPS 2023",
    year=2023,
    licence_of_the_idea="MIT",
    differs=(
        "the linear attention is the efficient form of Shen (2021), with pre-norm layers",
        "no pre-training; signals in units of 100 microvolt instead of each channel's own 95th percentile",
        "padding takes no part in attention and pooling",
        "width 200 as in NeuroBOLT's comparison (`original`: 256); `small`: width 48, two layers, frames side by side",
    ),
)
