"""Spectral branch: magnitude spectra at several scales, summed per channel, mixed by linear attention.

Shape letters: ``B`` windows, ``C`` channels, ``F`` time steps per channel (``n_frames``), ``N`` tokens (C x F),
``D`` width, ``H`` heads, ``E`` features of a head, ``S`` frames of one scale.
Source: NeuroBOLT (NeurIPS 2024), BIOT (NeurIPS 2023, MIT).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from neurobolt.config import NeuroBOLTConfig
from neurobolt.layers import FeedForward, mean_over_tokens


def stft_magnitude(eeg_BCT: Tensor, window: int) -> Tensor:
    """Magnitude spectra of rectangular windows side by side: (B, C, T) to (B, C, T / window, window / 2 + 1).

    The windows neither overlap nor taper, so reshape and rfft equal an STFT, over all channels in one call.

    Examples
    --------
    >>> stft_magnitude(torch.zeros(1, 26, 3200), 100).shape
    torch.Size([1, 26, 32, 51])
    """
    b, c, t = eeg_BCT.shape
    spectrum: Tensor = torch.fft.rfft(eeg_BCT.reshape(b, c, t // window, window))
    if eeg_BCT.requires_grad:
        return torch.abs(spectrum)  # its gradient is defined at zero
    return torch.sqrt(spectrum.real.square() + spectrum.imag.square())  # the same, 2.2 times as fast on a CPU


def sinusoid(n_steps: int, dim: int) -> Tensor:
    """Position code (n_steps, dim): sine on even, cosine on odd features, base 10000 (Vaswani 2017)."""
    step_F1 = torch.arange(n_steps, dtype=torch.float32).unsqueeze(1)
    rate_E = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
    return torch.stack((torch.sin(step_F1 * rate_E), torch.cos(step_F1 * rate_E)), -1).flatten(1)


class EfficientAttention(nn.Module):
    """Linear attention: softmax of the queries over features, of the keys over tokens (Shen 2021)."""

    def __init__(self, config: NeuroBOLTConfig) -> None:
        super().__init__()
        dim = config.dim
        self.n_heads = config.spectral_heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(dim, dim, bias=False)
        self.to_v = nn.Linear(dim, dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(config.spectral_dropout)

    def heads(self, qkv_BNX: Tensor) -> Tensor:
        """(B, N, 3 D) to (3, B, H, N, E)."""
        b, n, _ = qkv_BNX.shape
        return qkv_BNX.reshape(b, n, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)

    def forward(self, x_BND: Tensor, ch_index_BC: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Cost grows with the number of tokens, not with its square."""
        # one product for all three; the weights stay apart, as in published checkpoints
        weight = torch.cat((self.to_q.weight, self.to_k.weight, self.to_v.weight))
        q, k, v = self.heads(nn.functional.linear(x_BND, weight))
        y_BHNE = self.mix(q, k, v, ch_index_BC, valid_BN)
        out: Tensor = self.dropout(self.to_out(y_BHNE.transpose(1, 2).flatten(2)))
        return out

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ch_index_BC: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Queries, keys and values (B, H, N, E) to the mixed values."""
        del ch_index_BC  # only the low-rank form looks at the channels
        if valid_BN is not None:
            k = k.masked_fill(~valid_BN[:, None, :, None], -torch.inf)
        context_BHEE = k.softmax(2).transpose(2, 3).to(v.dtype) @ v
        y_BHNE: Tensor = (q.softmax(-1) * q.shape[-1] ** -0.5).to(v.dtype) @ context_BHEE
        return y_BHNE


class LinformerAttention(EfficientAttention):
    """Softmax attention to a few weighted sums of the tokens, as in the paper's equation (Wang 2020).

    The weights belong to (channel, time step), not to a token's place in the batch: order and padding change nothing.
    """

    def __init__(self, config: NeuroBOLTConfig) -> None:
        super().__init__(config)
        shape = (len(config.ch_names), config.n_frames, config.linformer_rank)
        spread = (len(config.ch_names) * config.n_frames) ** -0.5
        self.low_rank_k = nn.Parameter(torch.randn(shape) * spread)
        self.low_rank_v = nn.Parameter(torch.randn(shape) * spread)
        extra = config.linformer_rank if config.spectral_cls else 0
        self.cls_row = nn.Parameter(torch.randn(2, extra) * spread) if extra else None

    def mix(self, q: Tensor, k: Tensor, v: Tensor, ch_index_BC: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Shorten keys and values to ``linformer_rank`` rows, then softmax attention."""
        k = self._shorten(k, 0, ch_index_BC, valid_BN)
        v = self._shorten(v, 1, ch_index_BC, valid_BN)
        return nn.functional.scaled_dot_product_attention(q, k, v)

    def _shorten(self, x_BHNE: Tensor, which: int, ch_index_BC: Tensor, valid_BN: Tensor | None) -> Tensor:
        table = (self.low_rank_k, self.low_rank_v)[which]
        weight_BNR = table[ch_index_BC.clamp(min=0)].flatten(1, 2)
        if self.cls_row is not None:
            cls_B1R = self.cls_row[which].expand(len(weight_BNR), 1, -1)
            weight_BNR = torch.cat((cls_B1R, weight_BNR), 1)
        if valid_BN is not None:
            weight_BNR = weight_BNR * valid_BN.unsqueeze(-1)
        return weight_BNR.transpose(1, 2).unsqueeze(1).to(x_BHNE.dtype) @ x_BHNE


class SpectralBlock(nn.Module):
    """Pre-norm layer; its feed-forward part has no dropout."""

    def __init__(self, config: NeuroBOLTConfig) -> None:
        super().__init__()
        kinds = {"efficient": EfficientAttention, "linformer": LinformerAttention}
        self.norm1 = nn.LayerNorm(config.dim)
        self.attention = kinds[config.spectral_attention](config)
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = FeedForward(config.dim, config.mlp_ratio * config.dim, 0.0)

    def forward(self, x_BND: Tensor, ch_index_BC: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Attention, then feed-forward."""
        x_BND = x_BND + self.attention(self.norm1(x_BND), ch_index_BC, valid_BN)
        out: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return out


class Spectral(nn.Module):
    """Spectra at all scales become ``n_frames`` tokens per channel; the mean over tokens is the representation."""

    position_FD: Tensor

    def __init__(self, config: NeuroBOLTConfig) -> None:
        super().__init__()
        self.windows = [round(scale * config.sfreq) for scale in config.scales_s]
        self.n_frames = config.n_frames
        self.projections = nn.ModuleList(nn.Linear(w // 2 + 1, config.dim) for w in self.windows)
        self.mixers = nn.ModuleList(nn.Linear(config.n_times // w, config.n_frames) for w in self.windows)
        self.channel_tokens = nn.Embedding(len(config.ch_names), config.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim)) if config.spectral_cls else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(SpectralBlock(config) for _ in range(config.spectral_depth))
        self.register_buffer("position_FD", sinusoid(config.n_frames, config.dim), persistent=False)

    def tokens(self, eeg_BCT: Tensor, ch_index_BC: Tensor) -> Tensor:
        """Embedded tokens (B, C x F, D), time step by time step within channel by channel; a cls token first if any."""
        code_BCFD = self.channel_tokens(ch_index_BC.clamp(min=0)).unsqueeze(2) + self.position_FD
        for window, project, mix in zip(self.windows, self.projections, self.mixers, strict=True):
            spectrum_BCSD = project(stft_magnitude(eeg_BCT, window))
            code_BCFD = code_BCFD + mix(spectrum_BCSD.transpose(2, 3)).transpose(2, 3)
        x_BND = self.dropout(code_BCFD.flatten(1, 2))
        if self.cls_token is not None:
            x_BND = torch.cat((self.cls_token.expand(len(x_BND), -1, -1), x_BND), 1)
        tokens_BND: Tensor = x_BND
        return tokens_BND

    def forward(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor | None) -> Tensor:
        """Scaled EEG to r_sp (B, D)."""
        x_BND = self.tokens(eeg_BCT, ch_index_BC)
        n_cls = 0 if self.cls_token is None else 1
        valid_BN = None if valid_BC is None else valid_BC.repeat_interleave(self.n_frames, 1)
        seen_BN = None if valid_BN is None else nn.functional.pad(valid_BN, (n_cls, 0), value=True)
        for block in self.blocks:
            x_BND = block(x_BND, ch_index_BC, seen_BN)
        return mean_over_tokens(x_BND[:, n_cls:], valid_BN)
