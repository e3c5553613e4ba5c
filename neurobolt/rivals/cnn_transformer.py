"""CNN-Transformer: one CNN for the spectrograms of consecutive segments, a transformer over the segments.

Shape letters: ``B`` windows, ``V`` channels of the vocabulary, ``T`` samples, ``S`` segments, ``D`` width.
Source: Peh, Yao and Dauwels, Transformer convolutional neural networks for automated artifact detection in scalp EEG,
EMBC 2022; sizes as in the comparisons of BIOT (2023) and NeuroBOLT (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from neurobolt.cards import ModelCard
from neurobolt.rivals.base import Rival, in_slots
from neurobolt.rivals.config import RivalConfig
from neurobolt.rivals.encoder import EncoderBlock
from neurobolt.rivals.frames import SpectrogramCNN
from neurobolt.spectral import sinusoid


@dataclass(frozen=True)
class CNNTransformerConfig(RivalConfig):
    """Sizes of the CNN-Transformer.

    Parameters
    ----------
    n_segments : int
        Consecutive segments of the window, one token each.
    widths : tuple of int
        Feature maps of the residual blocks; the last is the width of the transformer.
    n_fft, hop : int
        Samples of a frame and between frames.
    depth, n_heads, hidden : int
        Encoder layers, heads and width of the feed-forward parts.
    dropout : float
        Residual blocks and encoder layers.
    """

    model: ClassVar[str] = "cnn-transformer"

    n_segments: int = 5
    widths: tuple[int, ...] = (32, 64, 128, 256)
    n_fft: int = 200
    hop: int = 10
    depth: int = 4
    n_heads: int = 4
    hidden: int = 256
    dropout: float = 0.2

    def checks(self) -> dict[str, bool]:
        """Segments divide the window, heads the width; a frame fits into a segment."""
        return {
            "widths is empty": len(self.widths) > 0,
            f"a window of {self.n_times} samples is not made of {self.n_segments} segments": self.n_segments > 0
            and self.n_times % self.n_segments == 0,
            f"a frame of {self.n_fft} samples, hop {self.hop}, does not fit into a segment": self.hop > 0
            and self.n_fft * self.n_segments <= self.n_times,
            f"width {self.widths[-1:]} is odd or cannot be divided among {self.n_heads} heads": all(
                w % self.n_heads == 0 and w % 2 == 0 for w in self.widths[-1:]
            ),
        }


class CNNTransformer(Rival):
    """Channels sit in fixed slots of the vocabulary, absent ones zero."""

    config_class = CNNTransformerConfig
    position_SD: Tensor

    def __init__(self, config: CNNTransformerConfig) -> None:
        super().__init__(config)
        dim = config.widths[-1]
        self.cnn = SpectrogramCNN(len(config.ch_names), config.widths, config.n_fft, config.hop, config.dropout)
        block = partial(EncoderBlock, dim, config.n_heads, config.hidden, config.dropout)
        self.blocks = nn.ModuleList(block() for _ in range(config.depth))
        self.output = nn.Linear(dim, config.n_outputs)
        self.register_buffer("position_SD", sinusoid(config.n_segments, dim), persistent=False)

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """Mean over the segments (B, D)."""
        del valid_BC
        eeg_BVT = in_slots(eeg_BCT, ch_index_BC, len(self.ch_names))
        b, v, t = eeg_BVT.shape
        s: int = self.config.n_segments
        segment_BVT = eeg_BVT.reshape(b, v, s, t // s).transpose(1, 2).flatten(0, 1)
        x_BSD = self.cnn(segment_BVT).unflatten(0, (b, s)) + self.position_SD
        for block in self.blocks:
            x_BSD = block(x_BSD)
        z_BD: Tensor = x_BSD.mean(1)
        return z_BD

    def head(self, z_BD: Tensor) -> Tensor:
        """ELU and linear."""
        bold_BR: Tensor = self.output(nn.functional.elu(z_BD))
        return bold_BR


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {
        "n_segments": 8,
        "widths": (16, 32, 64),
        "hop": 50,
        "depth": 2,
        "hidden": 128,
        "dropout": 0.1,
    },
}

CARD = ModelCard(
    name="CNN-Transformer",
    paper="Peh, Yao and Dauwels, Transformer convolutional neural networks for automated artifact detection in scalp "
    "EEG, EMBC 2022",
    year=2022,
    licence_of_the_idea="MIT (as a baseline of BIOT)",
    differs=(
        "channels sit in fixed slots of the vocabulary, absent ones zero",
        "details that no description gives (segments side by side, the CNN of FFCL, pre-norm layers, ELU before the "
        "head) were chosen; they meet the published number of parameters within 1 %",
        "`small`: eight segments of 2 s, three narrower blocks, hop 50, two encoder layers of width 64",
    ),
)
