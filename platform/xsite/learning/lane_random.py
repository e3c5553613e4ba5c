"""Dropout of stacked models: each draws from a generator of its own, whoever is stacked beside it.

On a CPU these are the numbers that a separate training draws (from the global generator, seeded alike), where the
activations lie in their usual order in memory. On a GPU they are others, because a fused kernel draws there.
Shapes: ``K`` models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812  (the name it has everywhere)
from torch import Tensor
from torch.overrides import TorchFunctionMode

Draw = Callable[[], Tensor]
Fill = Callable[[Tensor, torch.Generator], Any]
_FACTORIES: dict[Any, Fill] = {
    torch.rand: lambda row, generator: row.uniform_(generator=generator),
    torch.randn: lambda row, generator: row.normal_(generator=generator),
}
_LIKE = {torch.rand_like: torch.rand, torch.randn_like: torch.randn}
# dimensions from this one on are dropped as a whole
_DROPOUTS: dict[Any, int | None] = {F.dropout: None, F.dropout1d: 2, F.dropout2d: 2, F.dropout3d: 2}


class LaneRandom(TorchFunctionMode):
    """Within ``torch.vmap(..., randomness="error")``: dropout, ``rand`` and ``randn`` draw lane by lane.

    Other random operations stay an error: they would draw from one stream for all.

    Parameters
    ----------
    lane : Tensor
        Any scalar of this lane, mapped by ``vmap``: it makes the draws differ between lanes.
    generators : sequence of torch.Generator
        One per mapped model, in order.
    """

    def __init__(self, lane: Tensor, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.lane, self.generators = lane, generators

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _DROPOUTS:
            return self._dropout(func, *args, **kwargs)
        if kwargs.get("generator") is None and (func in _FACTORIES or func in _LIKE):
            if func in _LIKE:
                like, *_ = args
                kwargs = {"dtype": like.dtype, "device": like.device, **kwargs}
                func, args = _LIKE[func], (like.shape,)
            kwargs.pop("generator", None)
            size = args[0] if args and not isinstance(args[0], int) else args
            return self._drawn(torch.Size(kwargs.pop("size", size)), _FACTORIES[func], **kwargs)
        return func(*args, **kwargs)

    def _dropout(self, func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return x
        whole = _DROPOUTS[func]
        size = x.shape if whole is None else (*x.shape[:whole], *(1 for _ in x.shape[whole:]))

        def fill(row: Tensor, generator: torch.Generator) -> None:
            row.bernoulli_(1 - p, generator=generator).div_(max(1 - p, 1e-12))

        kept = self._drawn(torch.Size(size), fill, dtype=x.dtype, device=x.device)
        return x.mul_(kept) if inplace else x * kept

    def _drawn(self, size: torch.Size, fill: Fill, **kwargs: Any) -> Tensor:
        draw = partial(_rows, self.generators, size, fill, kwargs)
        return cast("Tensor", _OwnDraw.apply(self.lane, draw))  # type: ignore[no-untyped-call]


def _rows(generators: Sequence[torch.Generator], size: torch.Size, fill: Fill, kwargs: dict[str, Any]) -> Tensor:
    rows = torch.empty(len(generators), *size, **kwargs)
    for row, generator in zip(rows, generators, strict=True):
        fill(row, generator)
    return rows


class _OwnDraw(torch.autograd.Function):
    """The one public way to see all lanes at once from within ``vmap``."""

    @staticmethod
    def forward(lane: Tensor, draw: Draw) -> Tensor:
        """One lane alone."""
        return draw()[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing flows back through random numbers."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, lane: Tensor, draw: Draw) -> tuple[Tensor, int]:
        """All lanes, along the first dimension."""
        return draw(), 0
