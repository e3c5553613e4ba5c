"""Spatiotemporal branch: LaBraM's patch encoder and transformer.

Shape letters: ``B`` windows, ``C`` channels, ``P`` patches per channel, ``N`` tokens (1 + C x P), ``D`` width,
``K`` convolution channels, ``L`` samples left of a patch. Source: NeuroBOLT (NeurIPS 2024), LaBraM (ICLR 2024, MIT).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neurobolt.channels import N_ROWS, spatial_rows
from neurobolt.config import NeuroBOLTConfig
from neurobolt.layers import DropPath, FeedForward, mean_over_tokens

EPS = 1e-6  # of every LayerNorm in this branch; the spectral branch has 1e-5


class MaskedGroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics run over all patches of all channels of a window, padding left out.

    Pretrained weights depend on this scope: one loud electrode changes the scale of all others.
    """

    def forward(self, x_BKNL: Tensor, valid_BN: Tensor | None = None) -> Tensor:
        """Normalise; ``valid_BN`` is ``None`` when nothing is padded."""
        if valid_BN is None:
            return super().forward(x_BKNL)
        b, k, n, length = x_BKNL.shape
        x = x_BKNL.float().reshape(b, self.num_groups, k // self.num_groups, n, length)
        weight = valid_BN[:, None, None, :, None].to(x.dtype)
        count = weight.sum((2, 3, 4), keepdim=True) * (k // self.num_groups) * length
        mean = (x * weight).sum((2, 3, 4), keepdim=True) / count
        var = ((x - mean).square() * weight).sum((2, 3, 4), keepdim=True) / count
        y = ((x - mean) * torch.rsqrt(var + self.eps)).reshape(b, k, n, length)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


class TemporalEncoder(nn.Module):
    """Three convolutions along time, each with GroupNorm and GELU: a patch becomes a token."""

    def __init__(self, config: NeuroBOLTConfig) -> None:
        super().__init__()
        k, groups, width = config.conv_channels, config.conv_groups, config.conv_kernel
        self.conv1 = nn.Conv2d(1, k, (1, width), (1, config.conv_stride), (0, width // 2))
        self.norm1 = MaskedGroupNorm(groups, k)
        self.conv2 = nn.Conv2d(k, k, (1, 3), padding=(0, 1))
        self.norm2 = MaskedGroupNorm(groups, k)
        self.conv3 = nn.Conv2d(k, k, (1, 3), padding=(0, 1))
        self.norm3 = MaskedGroupNorm(groups, k)

    def forward(self, patch_BNT: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Patches (B, C x P, samples) to tokens (B, C x P, D), features ordered by time, then convolution channel."""
        x = nn.functional.gelu(self.norm1(self.conv1(patch_BNT.unsqueeze(1)), valid_BN))
        x = nn.functional.gelu(self.norm2(self.conv2(x), valid_BN))
        x_BKNL = nn.functional.gelu(self.norm3(self.conv3(x), valid_BN))
        tokens_BND: Tensor = x_BKNL.permute(0, 2, 3, 1).flatten(2)
        return tokens_BND


class Attention(nn.Module):
    """Softmax attention with normalised queries and keys."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_norm = nn.LayerNorm(dim // n_heads, eps=EPS)
        self.k_norm = nn.LayerNorm(dim // n_heads, eps=EPS)
        self.proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Every token attends to every valid token."""
        b, n, d = x_BND.shape
        q, k, v = self.qkv(x_BND).reshape(b, n, 3, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        mask = None if valid_BN is None else valid_BN[:, None, None, :]
        q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)  # autocast runs LayerNorm in float32
        whole = v.device.type == "cpu" and v.dtype == torch.bfloat16 and v.requires_grad
        y = _whole_matrix_attention(q, k, v, mask) if whole else _fused_attention(q, k, v, mask)
        out: Tensor = self.dropout(self.proj(y.transpose(1, 2).reshape(b, n, d)))
        return out


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _whole_matrix_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The same, keeping the softmax for the backward pass.

    torch's fused bfloat16 kernel for CPUs recomputes in float32 blocks: forward and backward of 8 windows, 10 heads and
    417 tokens of 20 features take 156 ms there and 93 ms here (one core); in float32 it is the other way round, 87 ms
    against 215 ms.
    """
    with torch.autocast(v.device.type, enabled=False):  # it would run the softmax, 55 MB of it, in float32
        score_BHNN = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        if mask is not None:
            score_BHNN = score_BHNN.masked_fill(~mask, -torch.inf)
        y: Tensor = score_BHNN.softmax(-1) @ v
    return y


class Block(nn.Module):
    """Pre-norm transformer block with scaled residuals."""

    def __init__(self, config: NeuroBOLTConfig, drop_path: float) -> None:
        super().__init__()
        dim = config.dim
        self.gamma_1 = nn.Parameter(torch.full((dim,), config.layer_scale))
        self.gamma_2 = nn.Parameter(torch.full((dim,), config.layer_scale))
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attention = Attention(dim, config.n_heads, config.dropout)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = FeedForward(dim, config.mlp_ratio * dim, config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Attention, then feed-forward."""
        x_BND = x_BND + self.drop_path(self.gamma_1 * self.attention(self.norm1(x_BND), valid_BN))
        out: Tensor = x_BND + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x_BND)))
        return out


class Spatiotemporal(nn.Module):
    """One-second patches of every channel as tokens of one transformer; their mean is the representation."""

    rows: Tensor

    def __init__(self, config: NeuroBOLTConfig) -> None:
        super().__init__()
        self.patch_size, self.n_patches = config.patch_size, config.n_patches
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.spatial_embedding = nn.Parameter(torch.zeros(1, N_ROWS, config.dim))
        self.temporal_embedding = nn.Parameter(torch.zeros(1, config.n_patches, config.dim))
        self.encoder = TemporalEncoder(config)
        self.dropout = nn.Dropout(config.dropout)
        rates = torch.linspace(0, config.drop_path, config.depth).tolist()
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.dim, eps=EPS)
        self.register_buffer("rows", torch.tensor(spatial_rows(config.ch_names)), persistent=False)

    def tokens(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BN: Tensor | None) -> Tensor:
        """Embedded tokens (B, 1 + C x P, D): cls first, then patch by patch within channel by channel."""
        b, c, _ = eeg_BCT.shape
        patch_BND = self.encoder(eeg_BCT.reshape(b, c * self.n_patches, self.patch_size), valid_BN)
        place_BCD = self.spatial_embedding[0, self.rows[ch_index_BC.clamp(min=0)]]
        code_BCPD = place_BCD.unsqueeze(2) + self.temporal_embedding.unsqueeze(1)
        patch_BND = patch_BND + code_BCPD.flatten(1, 2)
        cls_B1D = (self.cls_token + self.spatial_embedding[:, :1]).expand(b, -1, -1)
        tokens_BND: Tensor = self.dropout(torch.cat((cls_B1D, patch_BND), 1))
        return tokens_BND

    def forward(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor | None) -> Tensor:
        """Scaled EEG to r_st (B, D)."""
        valid_BP = None if valid_BC is None else valid_BC.repeat_interleave(self.n_patches, 1)
        x_BND = self.tokens(eeg_BCT, ch_index_BC, valid_BP)
        valid_BN = None if valid_BP is None else nn.functional.pad(valid_BP, (1, 0), value=True)
        for block in self.blocks:
            x_BND = block(x_BND, valid_BN)
        r_BD: Tensor = self.norm(mean_over_tokens(x_BND[:, 1:], valid_BP))
        return r_BD
