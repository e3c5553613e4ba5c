"""A pre-norm transformer layer for tokens that are never padded. Shapes: ``B`` windows, ``N`` tokens, ``D`` width."""

from __future__ import annotations

from torch import Tensor, nn

from neurobolt.layers import FeedForward


class EncoderBlock(nn.Module):
    """Softmax attention and feed-forward, each after LayerNorm and beside a residual."""

    def __init__(self, dim: int, n_heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = FeedForward(dim, hidden, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Attention, then feed-forward."""
        b, n, d = x_BND.shape
        qkv = self.qkv(self.norm1(x_BND)).reshape(b, n, 3, self.n_heads, d // self.n_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y_BHNE = nn.functional.scaled_dot_product_attention(q, k, v)
        x_BND = x_BND + self.dropout(self.proj(y_BHNE.transpose(1, 2).reshape(b, n, d)))
        out_BND: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return out_BND
