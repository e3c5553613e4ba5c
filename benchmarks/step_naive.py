"""NeuroBOLT as a reader of its description would first write it: the yardstick of :mod:`benchmarks.step`.

One STFT per channel and scale in a Python loop, softmax attention with its whole matrix, plain AdamW. It computes with
the very parameters of a :class:`neurobolt.NeuroBOLT`, so that both can be compared number by number; padded channels
are not supported. Written from the description alone (NeurIPS 2024), not from anybody's source.
Shape letters: ``B`` windows, ``C`` channels, ``T`` samples, ``N`` tokens, ``D`` width, ``H`` heads.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from neurobolt.batch import Batch
from neurobolt.model import NeuroBOLT


class NaiveNeuroBOLT(nn.Module):
    """The published architecture step by step, on a copy of ``model`` (efficient attention, no cls token)."""

    def __init__(self, model: NeuroBOLT) -> None:
        super().__init__()
        self.twin = copy.deepcopy(model)

    def forward(self, batch: Batch) -> Tensor:
        """BOLD (B, R)."""
        config = self.twin.config
        eeg_BCT = batch.eeg_BCT
        if config.remove_mean:
            eeg_BCT = eeg_BCT - eeg_BCT.mean(-1, keepdim=True)
        eeg_BCT = eeg_BCT / config.eeg_unit
        z_BD = self._spatiotemporal(eeg_BCT, batch.ch_index_BC) + self.spectral(eeg_BCT, batch.ch_index_BC)
        bold_BR: Tensor = self.twin.output(functional.gelu(z_BD) if config.gelu_head else z_BD)
        return bold_BR

    def _spatiotemporal(self, eeg_BCT: Tensor, ch_index_BC: Tensor) -> Tensor:
        space: Any = self.twin.spatiotemporal
        b, c, _ = eeg_BCT.shape
        n_patches, encoder = space.n_patches, space.encoder
        x = eeg_BCT.reshape(b, 1, c * n_patches, space.patch_size)
        for convolution, norm in ((encoder.conv1, encoder.norm1), (encoder.conv2, encoder.norm2)):
            x = functional.gelu(functional.group_norm(convolution(x), norm.num_groups, norm.weight, norm.bias))
        norm = encoder.norm3
        x = functional.gelu(functional.group_norm(encoder.conv3(x), norm.num_groups, norm.weight, norm.bias))
        x = x.permute(0, 2, 3, 1).reshape(b, c * n_patches, -1)
        place = space.spatial_embedding[0, space.rows[ch_index_BC]].repeat_interleave(n_patches, 1)
        x = x + place + space.temporal_embedding.repeat(1, c, 1)
        cls = (space.cls_token + space.spatial_embedding[:, :1]).expand(b, -1, -1)
        x = space.dropout(torch.cat((cls, x), 1))
        for block in space.blocks:
            x = x + block.drop_path(block.gamma_1 * _softmax_attention(block.attention, block.norm1(x)))
            x = x + block.drop_path(block.gamma_2 * block.mlp(block.norm2(x)))
        r_BD: Tensor = space.norm(x[:, 1:].mean(1))
        return r_BD

    def spectral(self, eeg_BCT: Tensor, ch_index_BC: Tensor) -> Tensor:
        """Scaled EEG to the spectral representation (B, D), one channel after the other."""
        spectral: Any = self.twin.spectral
        channels = []
        for channel in range(eeg_BCT.shape[1]):
            code = spectral.channel_tokens(ch_index_BC[:, channel]).unsqueeze(1) + spectral.position_FD
            for window, project, mix in zip(spectral.windows, spectral.projections, spectral.mixers, strict=True):
                taper = torch.ones(window, device=eeg_BCT.device)
                spectrum = torch.stft(
                    eeg_BCT[:, channel], window, window, window=taper, center=False, return_complex=True
                )
                code = code + mix(project(spectrum.abs().transpose(1, 2)).transpose(1, 2)).transpose(1, 2)
            channels.append(spectral.dropout(code))
        x = torch.cat(channels, 1)
        for block in spectral.blocks:
            x = x + _factorised_attention(block.attention, block.norm1(x))
            x = x + block.mlp(block.norm2(x))
        r_BD: Tensor = x.mean(1)
        return r_BD


def _softmax_attention(attention: Any, x_BND: Tensor) -> Tensor:
    b, n, d = x_BND.shape
    heads = attention.n_heads
    q, k, v = attention.qkv(x_BND).reshape(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    q, k = attention.q_norm(q) * (d // heads) ** -0.5, attention.k_norm(k)
    weight_BHNN = (q @ k.transpose(-2, -1)).softmax(-1)
    y = (weight_BHNN.to(v.dtype) @ v).transpose(1, 2).reshape(b, n, d)
    out: Tensor = attention.dropout(attention.proj(y))
    return out


def _factorised_attention(attention: Any, x_BND: Tensor) -> Tensor:
    b, n, d = x_BND.shape
    heads = attention.n_heads

    def split(y_BND: Tensor) -> Tensor:
        return y_BND.reshape(b, n, heads, d // heads).transpose(1, 2)

    q = split(attention.to_q(x_BND)).softmax(-1) * (d // heads) ** -0.5
    k, v = split(attention.to_k(x_BND)).softmax(-2), split(attention.to_v(x_BND))
    y = q.to(v.dtype) @ (k.to(v.dtype).transpose(-2, -1) @ v)
    out: Tensor = attention.dropout(attention.to_out(y.transpose(1, 2).reshape(b, n, d)))
    return out
