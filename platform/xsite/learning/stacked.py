"""Many trainings at once: K folds, seeds or parcels of one architecture in one process, step by step together.

Each model keeps its own windows, batches, schedule, clipping, validation, best epoch and early stopping, exactly as in
:func:`xsite.learning.loop.fit`; only the arithmetic is shared (:mod:`xsite.learning.parameter_stack`). The results are
those of separate runs up to the order of float32 sums. Dropout is drawn from (seed, epoch) of each model, whoever is
stacked beside it and wherever it was interrupted: on a CPU what a separate run draws, on a GPU other numbers
(:mod:`xsite.learning.lane_random`).
Shapes: ``K`` models, ``B`` batch, ``R`` parcels.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from xsite.data.window_source import Gathered, on_device
from xsite.experiment_parts import Optim
from xsite.learning.algorithms.erm import ERM
from xsite.learning.alike import UnstackableError
from xsite.learning.lane import Lane, of_lane
from xsite.learning.loop import FitResult, Metrics, Windows, no_windows
from xsite.learning.parameter_stack import ParameterStack
from xsite.learning.seeds import mixed_seed, seed_everything
from xsite.learning.state import TrainingState, cpu_state
from xsite.learning.throughput import COUNTED_WINDOWS, Arithmetic, Clock, forget_peak_memory, peak_memory

OnStackedEpoch = Callable[[int, Metrics, Callable[[], TrainingState]], None]
OnDone = Callable[[int, FitResult], None]
CPU = torch.device("cpu")


def fit_stacked(
    algorithms: Sequence[nn.Module],
    trains: Sequence[Windows],
    vals: Sequence[Windows | None],
    optim: Optim,
    *,
    seeds: Sequence[int],
    on_epoch: OnStackedEpoch | None = None,
    on_done: OnDone | None = None,
    resumes: Sequence[TrainingState | None] | None = None,
    n_epochs: Sequence[int | None] | None = None,
    device: torch.device | str = "cpu",
) -> list[FitResult]:
    """Train K algorithms of one architecture together; the k-th result is that of ``fit`` for the k-th arguments.

    Parameters
    ----------
    algorithms : sequence of nn.Module
        ``forward(batch, target_BR, mask_BR) -> {"loss": ...}``, each holding its ``model``; nothing in it may depend on
        the *values* of a tensor on the host (``torch.vmap`` refuses that).
    trains, vals : sequences of Windows
        Of any, also unequal, lengths; ``vals[k]`` is None for a model that keeps its last weights.
    seeds : sequence of int
        Of the batches, as ``seed`` of ``fit``.
    on_epoch : callable, optional
        ``(k, metrics, state)`` after every epoch of every model; the k-th module then holds its current weights.
    on_done : callable, optional
        ``(k, result)`` as soon as the k-th model has stopped; the others go on.
    resumes : sequence of TrainingState or None, optional
        States of epoch boundaries, of stacked or separate runs; they need not be of the same epoch.
    n_epochs : sequence of int or None, optional
        Stop a model after so many epochs, on the schedule of ``optim.epochs``.

    Raises
    ------
    UnstackableError
        The algorithms differ in architecture, do what cannot be stacked (:func:`why_alone`), or ``optim.compile`` is
        set. Nothing has been trained then.
    RecipeError
        There is nothing to train on, or a loss stops being a number.
    """
    for index, (algorithm, train) in enumerate(zip(algorithms, trains, strict=True)):
        if not len(train):
            raise of_lane(index, no_windows(algorithm))
    for algorithm in algorithms:
        if reason := _known_to_be_alone(algorithm, optim):
            raise UnstackableError(f"{reason}: set scale.stack to 1")
    n = len(algorithms)
    states, stops = resumes or [None] * n, n_epochs or [None] * n
    stack = ParameterStack(algorithms, optim, torch.device(device))
    forget_peak_memory(stack.device)
    lanes = [
        Lane(k, algorithm, train, val, seed, state, stop, optim)
        for k, (algorithm, train, val, seed, state, stop) in enumerate(
            zip(algorithms, trains, vals, seeds, states, stops, strict=True)
        )
    ]
    for lane, state in zip(lanes, states, strict=True):
        if state is not None:
            lane.algorithm.load_state_dict(state.algorithm)
            stack.read(lane.index, state.optimizer)
    _Run(lanes, stack, on_epoch, on_done).until_done()
    return [lane.result for lane in lanes]


def why_alone(algorithm: nn.Module, gathered: Gathered, optim: Optim) -> str:
    """Why a training must run by itself through ``fit``; empty if it can be stacked.

    Parameters
    ----------
    algorithm : nn.Module
        A copy of it is run once, on the CPU, forward and backward; its weights and the random state stay.
    gathered : tuple
        Batch, target and mask of a few windows.
    """
    if reason := _known_to_be_alone(algorithm, optim):
        return reason
    few = on_device(gathered, CPU)
    try:
        stack = ParameterStack([copy.deepcopy(algorithm)], optim, CPU)
        for _, arrays in _stacked([few]):
            stack.train_step([0], *arrays, [optim.lr])
            stack.squared_errors([0], *arrays)
    except UnstackableError as error:
        return str(error.__cause__).split("\n")[0]
    return ""


def _known_to_be_alone(algorithm: nn.Module, optim: Optim) -> str:
    """The stack calls no hooks, and its optimiser knows the parameters of the models only."""
    if not isinstance(algorithm, ERM):
        return f"algorithm {type(algorithm).__name__} cannot be stacked, only ERM can"
    return "optim.compile: a stack is not compiled" if optim.compile else ""


class _Run:
    """All lanes under way; a lane that has ended leaves the stack."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        stack: ParameterStack,
        on_epoch: OnStackedEpoch | None,
        on_done: OnDone | None,
    ) -> None:
        self.lanes, self.stack, self.on_epoch, self.on_done = list(lanes), stack, on_epoch, on_done
        first = lanes[0]  # what one window costs is the same for all
        few = on_device(first.train.gather(np.arange(min(len(first.train), COUNTED_WINDOWS))), stack.device)
        self.arithmetic = Arithmetic(first.algorithm, few, stack.device, stack.optim.precision)

    def until_done(self) -> None:
        self._drop_ended()
        while self.lanes:
            self._epoch()
            self._drop_ended()

    def _drop_ended(self) -> None:
        for row in reversed(range(len(self.lanes))):
            if self.lanes[row].ended:
                self.stack.drop(row)
                lane = self.lanes.pop(row)
                if self.on_done is not None:
                    self.on_done(lane.index, lane.result)

    def _epoch(self) -> None:
        """The next epoch of every lane, whichever that is."""
        started = time.perf_counter()
        seed_everything(*(part for lane in self.lanes for part in (lane.seed, lane.state.epoch)))
        for row, lane in enumerate(self.lanes):
            self.stack.seed(row, mixed_seed(lane.seed, lane.state.epoch, 0))  # as fit seeds the epochs of its rank 0
        rows, errors = [*self._train()], self._validate()
        shared = {"seconds": time.perf_counter() - started, "stacked": float(len(self.lanes))}
        shared |= peak_memory(self.stack.device)
        concluded = []
        for row, (lane, metrics, error) in enumerate(zip(self.lanes, rows, errors, strict=True)):
            self.stack.write_back(row)
            validated = {} if lane.val is None else {"val_loss": error}
            concluded.append(lane.conclude({**metrics, **validated, **shared}))
        if self.on_epoch is not None:
            for row, (lane, metrics) in enumerate(zip(self.lanes, concluded, strict=True)):
                self.on_epoch(lane.index, metrics, partial(self._snapshot, row))

    def _snapshot(self, row: int) -> TrainingState:
        lane = self.lanes[row]
        tensors = {"algorithm": cpu_state(lane.algorithm), "optimizer": self.stack.optimizer_tensors(row)}
        return TrainingState(**{**vars(lane.state), **tensors})

    def _train(self) -> Iterator[Metrics]:
        device = self.stack.device
        clock = Clock(device)
        losses: list[list[Tensor]] = [[] for _ in self.lanes]
        n_windows = [0] * len(self.lanes)
        for gathered in zip_longest(*(lane.batches(device) for lane in self.lanes)):
            clock.data_arrived()
            for rows, (batch, target_KBR, mask_KBR) in _stacked(gathered):
                rates = [self.lanes[row].lr for row in rows]
                loss_K = self.stack.train_step(rows, batch, target_KBR, mask_KBR, rates)
                for row, loss in zip(rows, loss_K, strict=True):
                    losses[row].append(loss)
                    n_windows[row] += target_KBR.shape[1]
            clock.step_done()
        together = clock.metrics(sum(n_windows))
        speed = {**together, **self.arithmetic.metrics(together["windows_per_s"])}
        for lane, own, n in zip(self.lanes, losses, n_windows, strict=True):
            train_loss = float(torch.stack(own).double().sum()) / len(own)
            share = {"lane_windows_per_s": together["windows_per_s"] * n / sum(n_windows)}
            yield {"train_loss": train_loss, "lr": lane.lr, **speed, **share}

    def _validate(self) -> list[float]:
        """Masked mean squared error of every lane; NaN without validation."""
        device = self.stack.device
        sums_K2 = torch.zeros(len(self.lanes), 2, dtype=torch.float64, device=device)
        for gathered in zip_longest(*(lane.validation(device) for lane in self.lanes)):
            for rows, arrays in _stacked(gathered):
                sums_K2[rows] += self.stack.squared_errors(rows, *arrays)
        return [total / count if count else math.nan for total, count in sums_K2.tolist()]


def _stacked(gathered: Sequence[Gathered | None]) -> Iterator[tuple[list[int], Gathered]]:
    """Rows whose batches have equal shapes, and these batches on top of each other.

    A lane whose epoch is over is None. Where batches differ (a site with more channels, fewer windows than a batch)
    there are several groups, down to one model alone: slower, but nothing is padded and nothing changes.
    """
    groups: dict[Any, list[int]] = {}
    for row, arrays in enumerate(gathered):
        if arrays is not None:
            batch, target_BR, _ = arrays
            facts = tuple(part.shape if isinstance(part, Tensor) else part for part in batch)
            groups.setdefault((facts, target_BR.shape), []).append(row)
    for rows in groups.values():
        chosen = [cast("Gathered", gathered[row]) for row in rows]
        parts = zip(*(batch for batch, _, _ in chosen), strict=True)
        stacked = [torch.stack(part) if isinstance(part[0], Tensor) else part[0] for part in parts]
        batch = type(chosen[0][0])(*stacked)
        yield rows, (batch, torch.stack([a[1] for a in chosen]), torch.stack([a[2] for a in chosen]))
