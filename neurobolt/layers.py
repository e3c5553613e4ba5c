"""Parts that both branches use: feed-forward, stochastic depth, masked mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Linear, GELU, Linear, dropout."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Token by token."""
        y: Tensor = self.dropout(self.fc2(nn.functional.gelu(self.fc1(x_BND))))
        return y


class DropPath(nn.Module):
    """Stochastic depth: in training, a residual is left out for whole windows with probability ``p``."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x_BND: Tensor) -> Tensor:
        """Scale the residuals that are kept by 1 / (1 - p)."""
        if not self.training or self.p == 0:
            return x_BND
        keep_B = torch.rand(x_BND.shape[0], 1, 1, device=x_BND.device) >= self.p
        return x_BND * keep_B.to(x_BND.dtype) / (1 - self.p)


def mean_over_tokens(x_BND: Tensor, valid_BN: Tensor | None) -> Tensor:
    """Mean over tokens; those that are not valid take no part. ``None`` means that all are valid."""
    if valid_BN is None:
        return x_BND.mean(1)
    weight_BN1 = valid_BN.unsqueeze(-1).to(x_BND.dtype)
    return (x_BND * weight_BN1).sum(1) / weight_BN1.sum(1).clamp(min=1)
