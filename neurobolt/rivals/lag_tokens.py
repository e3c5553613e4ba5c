"""Lag x channel x frequency tokens of log power with a small attention readout, in the manner of MEL (2026).

Written from a one-sentence description (tokens, small readout); everything else is ours.
Shape letters: ``B`` windows, ``C`` channels, ``L`` lags, ``F`` bands, ``N`` tokens, ``D`` width, ``Q`` queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurobolt.cards import ModelCard
from neurobolt.rivals.base import Rival
from neurobolt.rivals.config import RivalConfig

_FLOOR = 1e-6  # square microvolt: a silent bin has a logarithm


@dataclass(frozen=True)
class LagTokensConfig(RivalConfig):
    """Sizes of tokens and readout.

    Parameters
    ----------
    bin_s : float
        Seconds of a lag; the bins lie side by side and end at the volume.
    edges_hz : tuple of float
        Band edges, lower inclusive.
    dim, n_queries, n_heads : int
        Width of a token; learned queries that read the tokens; heads of the attention.
    dropout : float
        Of the tokens' values before they are read, and of what was read.
    """

    model: ClassVar[str] = "lag-tokens"

    bin_s: float = 2.0
    edges_hz: tuple[float, ...] = (1.0, 4.0, 8.0, 13.0, 30.0, 45.0)
    dim: int = 64
    n_queries: int = 8
    n_heads: int = 4
    dropout: float = 0.1

    def checks(self) -> dict[str, bool]:
        """Bins divide the window, bands hold frequencies, heads divide the width."""
        n_bin = self.bin_s * self.sfreq
        step = 1 / self.bin_s
        return {
            f"bins of {self.bin_s} s do not divide a window of {self.window_s} s": n_bin == int(n_bin)
            and int(n_bin) > 0
            and self.n_times % int(n_bin) == 0,
            f"band edges {self.edges_hz} Hz are not increasing, or closer than the {step:g} Hz that bins resolve": len(
                self.edges_hz
            )
            > 1
            and all(high - low >= step for low, high in pairwise(self.edges_hz)),
            f"band edges {self.edges_hz} Hz exceed half of {self.sfreq} Hz": max(self.edges_hz) <= self.sfreq / 2,
            f"dim {self.dim} cannot be divided among {self.n_heads} heads": self.dim % self.n_heads == 0,
        }

    @property
    def n_lags(self) -> int:
        """Bins of a window."""
        return round(self.window_s / self.bin_s)

    @property
    def n_bands(self) -> int:
        """Bands between the edges."""
        return len(self.edges_hz) - 1


class LagTokens(Rival):
    """One token per lag, channel and band; learned queries attend to all of them; GELU and linear head.

    A token is its log power times a direction, plus an offset, both read off the sum of learned codes of its lag,
    channel and band; so a query can pick, say, occipital alpha 6 s before the volume, and weigh it by its power.
    """

    config_class = LagTokensConfig
    undecayed = ("codes_L", "codes_C", "codes_F")
    taper_T: Tensor
    pool_HF: Tensor

    def __init__(self, config: LagTokensConfig) -> None:
        super().__init__(config)
        n_bin = round(config.bin_s * config.sfreq)
        hz = torch.fft.rfftfreq(n_bin, 1 / config.sfreq)
        pick = torch.stack([(hz >= low) & (hz < high) for low, high in pairwise(config.edges_hz)], 1).float()
        self.register_buffer("taper_T", torch.hann_window(n_bin), persistent=False)
        self.register_buffer("pool_HF", pick / pick.sum(0), persistent=False)
        self.level_F = nn.Parameter(torch.linspace(2.0, -2.0, config.n_bands))
        dim = config.dim
        self.codes_L = nn.Parameter(torch.randn(config.n_lags, dim))
        self.codes_C = nn.Parameter(torch.randn(len(config.ch_names), dim))
        self.codes_F = nn.Parameter(torch.randn(config.n_bands, dim))
        self.key = nn.Linear(dim, dim)
        self.offset = nn.Linear(dim, dim)
        self.direction = nn.Linear(dim, dim)
        self.queries_QD = nn.Parameter(torch.randn(config.n_queries, dim))
        self.dropout = nn.Dropout(config.dropout)
        self.norm = nn.LayerNorm(config.n_queries * dim)
        self.output = nn.Linear(config.n_queries * dim, config.n_outputs)

    def log_power(self, eeg_BCT: Tensor) -> Tensor:
        """Log power (B, C, L, F) of every bin and band, square microvolt; bins are demeaned and tapered."""
        bins = eeg_BCT.reshape(*eeg_BCT.shape[:2], self.config.n_lags, -1) * self.config.eeg_unit
        spectrum = torch.fft.rfft((bins - bins.mean(-1, keepdim=True)) * self.taper_T)
        power = (spectrum.real.square() + spectrum.imag.square()) / self.taper_T.numel()
        return torch.log(power @ self.pool_HF + _FLOOR)

    def tokens(self, eeg_BCT: Tensor, ch_index_BC: Tensor) -> Tensor:
        """Log power in its code's direction, plus the code's offset, (B, N, D); N is channel x lag x band."""
        x_BCLF = self.log_power(eeg_BCT) - self.level_F
        place_LFD = self.codes_L.unsqueeze(1) + self.codes_F
        code_VLFD = self.codes_C[:, None, None] + place_LFD  # once for the vocabulary, then picked per window
        index_BC = ch_index_BC.clamp(min=0)
        direction, offset = self.direction(code_VLFD)[index_BC], self.offset(code_VLFD)[index_BC]
        tokens_BND: Tensor = (x_BCLF.unsqueeze(-1) * direction + offset).flatten(1, 3)
        return tokens_BND

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """What the queries read, normalised, (B, Q x D)."""
        tokens_BND = self.tokens(eeg_BCT, ch_index_BC)
        key_BHND, value_BHND = self._heads(self.key(tokens_BND)), self._heads(self.dropout(tokens_BND))
        query_HQD = self._heads(self.queries_QD.unsqueeze(0))[0]
        valid_BN = valid_BC.repeat_interleave(self.config.n_lags * self.config.n_bands, 1)
        # written out, because torch's fused attention has no rule under vmap; eight queries make it small
        score_BHQN = query_HQD @ key_BHND.transpose(-1, -2) / math.sqrt(key_BHND.shape[-1])
        score_BHQN = score_BHQN.masked_fill(~valid_BN[:, None, None], -math.inf)
        read_BHQD = torch.softmax(score_BHQN, -1) @ value_BHND
        z_BD: Tensor = self.norm(read_BHQD.transpose(1, 2).flatten(1))
        return z_BD

    def _heads(self, x_BND: Tensor) -> Tensor:
        return x_BND.reshape(*x_BND.shape[:2], self.config.n_heads, -1).transpose(1, 2)

    def head(self, z_BD: Tensor) -> Tensor:
        """GELU, dropout and linear."""
        bold_BR: Tensor = self.output(self.dropout(nn.functional.gelu(z_BD)))
        return bold_BR


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"dim": 32, "n_queries": 8, "n_heads": 4},
}

CARD = ModelCard(
    name="Lag tokens",
    paper="In the manner of MEL (arXiv 2608.29304, 2026): lag x channel x frequency tokens with a small readout",
    year=2026,
    licence_of_the_idea="no code known",
    differs=(
        "MEL's sizes, bands, lags and readout are not known to us: this is our reading of its one-sentence description,"
        " so `published` means the described structure, not published sizes",
        "eight lags of 2 s within the 16 s window, five classical bands, codes of lag, channel and band that add up",
        "log power with one learned offset per band; no statistics of the recording",
        "`small`: width 32",
    ),
)
