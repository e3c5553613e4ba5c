"""What an algorithm may ask of the training loop beyond its loss: four optional methods, each called if it is there.

Whatever must survive an interruption lies in parameters and buffers: the loop saves and restores those of the whole
algorithm. Anything else must follow from the arguments given here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast, runtime_checkable

from torch import nn


@runtime_checkable
class KnowsSites(Protocol):
    """It needs the number of training sites, or has parameters of its own."""

    def prepare(self, n_sites: int, batch: Any) -> None:
        """Before the optimiser is built; ``batch`` holds a few windows on the device of the training."""
        ...


@runtime_checkable
class Timed(Protocol):
    """It changes as training goes on."""

    def start_epoch(self, epoch: int, n_epochs: int) -> None:
        """Before the first step of ``epoch`` (from 0) of ``optim.epochs``."""
        ...


@runtime_checkable
class Stepping(Protocol):
    """It looks at the weights after every step."""

    def step_done(self) -> None:
        """After the optimiser has stepped."""
        ...


@runtime_checkable
class Averaging(Protocol):
    """It decides which weights are validated and kept."""

    def end_epoch(self, error: Callable[[], float] | None) -> None:
        """After the last step of an epoch: the model's weights from here on are validated, kept and watched.

        ``start_epoch`` puts back those that training goes on from. ``error()`` validates the model as it is at the
        moment (on all ranks together); None where nothing validates.
        """
        ...


HOOKS = (KnowsSites, Timed, Stepping, Averaging)


def has_hooks(algorithm: nn.Module) -> bool:
    """Whether the loop must call anything but its ``forward``."""
    return any(isinstance(algorithm, hook) for hook in HOOKS)


def own_parameters(algorithm: nn.Module) -> Iterator[nn.Parameter]:
    """Trained parameters of the algorithm that are not its model's."""
    of_the_model = {id(p) for p in cast("nn.Module", algorithm.model).parameters()}
    return (p for p in algorithm.parameters() if p.requires_grad and id(p) not in of_the_model)
