"""ST-Transformer: attention between channels, strided convolutions, attention over time.

Shape letters: ``B`` windows, ``V`` channels of the vocabulary, ``T`` samples, ``P`` pooled samples, ``N`` tokens,
``D`` width. Source: Song, Jia, Yang and Xie, Transformer-based spatial-temporal feature learning for EEG decoding,
arXiv 2106.11170 (2021); sizes as in the comparisons of BIOT (2023) and NeuroBOLT (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurobolt.cards import ModelCard
from neurobolt.rivals.base import Rival, in_slots
from neurobolt.rivals.config import RivalConfig
from neurobolt.rivals.encoder import EncoderBlock
from neurobolt.spectral import sinusoid


@dataclass(frozen=True)
class STTransformerConfig(RivalConfig):
    """Sizes of the ST-Transformer.

    Parameters
    ----------
    pool : int
        Samples averaged before channels are compared.
    conv_width, dim : int
        Feature maps of the first convolution; of the second, which is the width of the transformer.
    kernel, stride : int
        Of both convolutions.
    depth, n_heads, mlp_ratio : int
        Layers, heads; hidden width of the feed-forward parts over ``dim``.
    dropout : float
        Everywhere.
    gelu_conv : bool
        GELU after both convolutions (without it they are one linear filter).
    positions : bool
        Add a sinusoidal code of time to the tokens.
    """

    model: ClassVar[str] = "st-transformer"

    pool: int = 100
    conv_width: int = 64
    dim: int = 256
    kernel: int = 15
    stride: int = 8
    depth: int = 3
    n_heads: int = 8
    mlp_ratio: int = 4
    dropout: float = 0.5
    gelu_conv: bool = False
    positions: bool = False

    def checks(self) -> dict[str, bool]:
        """Pools divide the window, heads the width."""
        return {
            f"a window of {self.n_times} samples is not made of pools of {self.pool}": self.pool > 0
            and self.n_times % self.pool == 0,
            f"dim {self.dim} is odd or cannot be divided among {self.n_heads} heads": self.dim % self.n_heads == 0
            and self.dim % 2 == 0,
            f"stride is {self.stride}": self.stride > 0,
        }

    @property
    def n_tokens(self) -> int:
        """Tokens that two strided convolutions leave of a window."""
        length = self.n_times
        for _ in range(2):
            length = (length + 2 * (self.kernel // 2) - self.kernel) // self.stride + 1
        return length


class ChannelAttention(nn.Module):
    """Every channel becomes a mixture of all, weighted by how alike their courses are after pooling over time."""

    def __init__(self, n_chans: int, n_pooled: int, pool: int, dropout: float) -> None:
        super().__init__()
        self.pool, self.scale = pool, n_pooled**-0.5
        self.to_q = nn.Sequential(nn.Linear(n_chans, n_chans), nn.LayerNorm(n_chans))
        self.to_k = nn.Sequential(nn.Linear(n_chans, n_chans), nn.LayerNorm(n_chans))
        self.proj = nn.Sequential(nn.Linear(n_chans, n_chans), nn.LayerNorm(n_chans))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BVT: Tensor) -> Tensor:
        """Mixed channels (B, V, T)."""
        x_BTV = x_BVT.transpose(1, 2)
        b, _, v = x_BTV.shape
        q_BPV = self.to_q(x_BTV).reshape(b, -1, self.pool, v).mean(2)
        k_BPV = self.to_k(x_BTV).reshape(b, -1, self.pool, v).mean(2)
        weight_BVV = self.dropout((q_BPV.transpose(1, 2) @ k_BPV * self.scale).softmax(-1))
        mixed_BTV = x_BTV @ weight_BVV.transpose(1, 2).to(x_BTV.dtype)
        out_BVT: Tensor = self.dropout(self.proj(mixed_BTV)).transpose(1, 2)
        return out_BVT


class STTransformer(Rival):
    """Channels sit in fixed slots of the vocabulary, absent ones zero."""

    config_class = STTransformerConfig
    position_ND: Tensor

    def __init__(self, config: STTransformerConfig) -> None:
        super().__init__(config)
        v, pad = len(config.ch_names), config.kernel // 2
        self.norm_T = nn.LayerNorm(config.n_times)
        self.channels = ChannelAttention(v, config.n_times // config.pool, config.pool, config.dropout)
        self.conv1 = nn.Conv1d(v, config.conv_width, config.kernel, config.stride, pad)
        self.conv2 = nn.Conv1d(config.conv_width, config.dim, config.kernel, config.stride, pad)
        block = partial(EncoderBlock, config.dim, config.n_heads, config.mlp_ratio * config.dim, config.dropout)
        self.blocks = nn.ModuleList(block() for _ in range(config.depth))
        self.output = nn.Linear(config.dim, config.n_outputs)
        code = sinusoid(config.n_tokens, config.dim) if config.positions else torch.zeros(1, 1)
        self.register_buffer("position_ND", code, persistent=False)

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """Mean over the tokens (B, D)."""
        del valid_BC
        x_BVT = self.norm_T(in_slots(eeg_BCT, ch_index_BC, len(self.ch_names)))
        x_BVT = x_BVT + self.channels(x_BVT)
        bent = nn.functional.gelu if self.config.gelu_conv else nn.Identity()
        x_BND = bent(self.conv2(bent(self.conv1(x_BVT)))).transpose(1, 2) + self.position_ND
        for block in self.blocks:
            x_BND = block(x_BND)
        z_BD: Tensor = x_BND.mean(1)
        return z_BD


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {
        "conv_width": 32,
        "dim": 64,
        "depth": 2,
        "n_heads": 4,
        "mlp_ratio": 2,
        "dropout": 0.1,
        "gelu_conv": True,
        "positions": True,
    },
}

CARD = ModelCard(
    name="ST-Transformer",
    paper="Song, Jia, Yang and Xie, Transformer-based spatial-temporal feature learning for EEG decoding, arXiv "
    "2106.11170 (2021)",
    year=2021,
    licence_of_the_idea="MIT (as a baseline of BIOT)",
    differs=(
        "channels sit in fixed slots of the vocabulary, absent ones zero",
        "64 maps between the two convolutions and depth 3 are chosen so that the published number of parameters is met "
        "within 1 %; no description gives them",
        "LayerNorm over time takes each channel's loudness away, as in the description",
        "`small`: width 64, two layers, GELU after the convolutions, a sinusoidal code of time, dropout 0.1",
    ),
)
