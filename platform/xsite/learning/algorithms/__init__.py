"""Algorithms: how a batch of several sites becomes one loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from xsite.errors import RecipeError
from xsite.learning.algorithms.erm import ERM

ALGORITHMS: dict[str, Callable[..., nn.Module]] = {"erm": ERM}


def build_algorithm(name: str, options: dict[str, Any], model: nn.Module) -> nn.Module:
    """Wrap ``model`` into the algorithm of that name.

    Raises
    ------
    RecipeError
        Unknown name or option.
    """
    if name not in ALGORITHMS:
        raise RecipeError(f"algorithm.name is {name!r}, expected one of {sorted(ALGORITHMS)}")
    try:
        return ALGORITHMS[name](model, **options)
    except TypeError as error:
        raise RecipeError(f"algorithm.options {sorted(options)} do not fit {name!r}: {error}") from error


__all__ = ["ALGORITHMS", "ERM", "build_algorithm"]
