"""Adapters: a few numbers beside every linear layer of a finished model, learnt while its own weights stay as they are.

Low-rank updates (LoRA; Hu et al. 2021, arXiv 2106.09685): a weight W becomes W + U D, with U (n_out, rank) zero at the
start and D (rank, n_in) random, so that the start is the model itself, bit for bit. They are parametrizations of the
weights and not layers around layers: any model holds them, and once merged it is the plain model again, with the same
names of weights, that every checkpoint, server and export knows.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xsite.errors import RecipeError

RANK = 4
"""Of an update at most; Hu et al. found 1 to 8 enough (their table 6)."""


class LowRank(nn.Module):
    """Adds an update of low rank to a weight; zero until it has learnt.

    Parameters
    ----------
    n_out, n_in : int
        Shape of the weight.
    rank : int
    generator : torch.Generator
        Of the random half, which has the spread that keeps its output as large as its input (SD 1 / sqrt(n_in)).
    """

    def __init__(self, n_out: int, n_in: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.up_OK = nn.Parameter(torch.zeros(n_out, rank))
        self.down_KI = nn.Parameter(torch.randn(rank, n_in, generator=generator) / n_in**0.5)

    def forward(self, weight_OI: Tensor) -> Tensor:
        """The weight that the layer works with."""
        return weight_OI + self.up_OK @ self.down_KI


def adaptable_layers(model: nn.Module, head: Collection[int]) -> list[nn.Linear]:
    """Linear layers outside the head.

    Parameters
    ----------
    head : collection of int
        ``id`` of the head's parameters: these train as they are.

    Raises
    ------
    RecipeError
        There is none.
    """
    found = [m for m in model.modules() if isinstance(m, nn.Linear) and id(m.weight) not in head]
    if not found:
        raise RecipeError(
            f"part adapters: {type(model).__name__} has no linear layer outside its head, so there is nothing to "
            "adapt; use the parts head, norms or all"
        )
    return found


def add_adapters(model: nn.Module, head: Collection[int], *, seed: int, rank: int = RANK) -> list[nn.Parameter]:
    """Put adapters on all linear layers outside the head, in place; returns what is new.

    A small layer gets a smaller rank: never more numbers than its weight has.

    Raises
    ------
    RecipeError
        The model has no such layer.
    """
    generator = torch.Generator().manual_seed(seed)
    added: list[nn.Parameter] = []
    for layer in adaptable_layers(model, head):
        n_out, n_in = layer.weight.shape
        own = max(1, min(rank, n_out * n_in // (n_out + n_in)))
        adapter = LowRank(n_out, n_in, own, generator).to(layer.weight)
        parametrize.register_parametrization(layer, "weight", adapter)
        added += adapter.parameters()
    return added


def merge_adapters(model: nn.Module) -> nn.Module:
    """The plain model with the updates inside its weights, in place; predictions stay what they were."""
    for layer in list(model.modules()):
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return model
