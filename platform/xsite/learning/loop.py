"""The training loop: AdamW, cosine with warm-up, clipping, early stopping on the masked validation error.

Plain PyTorch: on several ranks the caller has initialised ``torch.distributed`` and passes ``wrap`` (DDP). Every epoch
is reseeded from (seed, epoch, rank), so a run that goes on from an epoch boundary ends with bitwise the same weights on
a CPU. Shapes: ``B`` batch, ``R`` parcels.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from xsite.data.sampling import batches, epoch_indices, n_batches
from xsite.data.window_source import on_device
from xsite.errors import RecipeError
from xsite.experiment_parts import Optim
from xsite.learning.algorithms.erm import squared_error
from xsite.learning.epoch_end import bad_train_loss, bad_val_loss, bad_weights, concluded, untrained
from xsite.learning.hooks import Averaging, KnowsSites, Stepping, Timed, own_parameters
from xsite.learning.schedule import build_optimizer, learning_rate, set_learning_rate
from xsite.learning.seeds import seed_everything
from xsite.learning.state import TrainingState, cpu_state, optimizer_tensors, restore_optimizer
from xsite.learning.throughput import COUNTED_WINDOWS, Arithmetic, Clock, forget_peak_memory, peak_memory

VALIDATION_BATCH = 64
"""Windows at once where nothing is learnt: small training batches would only make it slower."""

Metrics = dict[str, float]
OnEpoch = Callable[[Metrics, Callable[[], TrainingState]], None]


class Windows(Protocol):
    """What the loop needs of a :class:`xsite.data.window_source.WindowSource`."""

    def __len__(self) -> int: ...

    def gather(self, index_B: Any) -> tuple[Any, Tensor, Tensor]:
        """Batch, target and mask of the windows ``index_B``."""
        ...


@dataclass(frozen=True)
class FitResult:
    """Outcome of one training.

    Parameters
    ----------
    best_epoch : int
        Epochs completed when ``best_state`` was kept, from 1.
    history : list of dict
        One row per epoch: ``epoch, train_loss``, ``train_<name>`` of every further scalar of the algorithm,
        ``val_loss, lr, seconds, windows_per_s, step_s_p50, step_s_p95, data_wait_fraction, gflop_per_s, peak_fraction,
        peak_rss_mb``, on a GPU also ``peak_cuda_mb`` (:mod:`xsite.learning.throughput`). In a stack these are figures
        of the whole stack; ``stacked`` says of how many models, ``lane_windows_per_s`` is this model's share.
    best_state : mapping of name to tensor
        Weights of the model (not of the algorithm around it), on the CPU.
    """

    best_epoch: int
    history: list[Metrics]
    best_state: Mapping[str, Tensor]


def fit(
    algorithm: nn.Module,
    train: Windows,
    val: Windows | None,
    optim: Optim,
    *,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    on_epoch: OnEpoch | None = None,
    resume: TrainingState | None = None,
    n_epochs: int | None = None,
    device: torch.device | str = "cpu",
) -> FitResult:
    """Train ``algorithm`` (which holds ``model``) and keep the weights with the lowest validation error.

    Parameters
    ----------
    val : Windows, optional
        None for a final model without validation: no early stopping, the last weights are kept.
    wrap : callable, optional
        Wraps the algorithm for several ranks (DDP).
    on_epoch : callable, optional
        Called on every rank after every epoch with its metrics and a function that returns the state to go on from.
    resume : TrainingState, optional
        State of an epoch boundary of the same experiment.
    n_epochs : int, optional
        Stop after so many epochs, on the learning-rate schedule of ``optim.epochs``.

    Raises
    ------
    RecipeError
        There is nothing to train on, or the loss stops being a number.
    """
    if not len(train):
        raise RecipeError(no_windows(algorithm))
    run = _Run(algorithm, train, val, optim, seed, rank, world_size, torch.device(device), wrap, resume)
    for epoch in range(run.state.epoch, n_epochs or optim.epochs):
        if run.exhausted:
            break
        metrics = run.epoch(epoch)
        if on_epoch is not None:
            on_epoch(metrics, run.snapshot)
    return FitResult(run.state.best_epoch, run.state.history, run.state.best)


def no_windows(algorithm: nn.Module) -> str:
    """What to say where no recording is long enough for the model's window."""
    window_s = getattr(algorithm.model, "window_s", None)
    length = "" if window_s is None else f" of {float(window_s):g} s"
    return f"the training recordings hold no complete EEG window{length}: check volume_onsets and eeg_valid"


class _Run:
    """One training under way; ``state`` always describes the last epoch boundary (its tensors lazily)."""

    def __init__(
        self,
        algorithm: nn.Module,
        train: Windows,
        val: Windows | None,
        optim: Optim,
        seed: int,
        rank: int,
        world_size: int,
        device: torch.device,
        wrap: Callable[[nn.Module], nn.Module] | None,
        resume: TrainingState | None,
    ) -> None:
        few = on_device(train.gather(np.arange(min(len(train), COUNTED_WINDOWS))), device)
        self.algorithm, self.train, self.val, self.optim = algorithm.to(device), train, val, optim
        forget_peak_memory(device)
        if isinstance(algorithm, KnowsSites):
            seed_everything(seed)  # its own parameters are the same on every rank and after every restart
            algorithm.prepare(len(getattr(train, "sites", ("",))), few[0])
        self.model = cast("nn.Module", algorithm.model)
        self.seed, self.rank, self.world_size, self.device = seed, rank, world_size, device
        self.optimizer = build_optimizer(self.model, optim)
        if own := list(own_parameters(algorithm)):
            self.optimizer.add_param_group({"params": own, "weight_decay": 0.0, "lr_scale": 1.0})
        self.state = resume or untrained(self.model)
        if resume is not None:
            algorithm.load_state_dict(resume.algorithm)
            restore_optimizer(self.optimizer, resume.optimizer)
        self.arithmetic = Arithmetic(algorithm, few, self.device, optim.precision)
        self.wrapped = wrap(algorithm) if wrap else algorithm
        if optim.compile:
            self.wrapped = compiled(self.wrapped)
        n = min(len(train), optim.windows_per_epoch or len(train))
        self.steps_per_epoch = n_batches(n, optim.batch_size)

    @property
    def exhausted(self) -> bool:
        """Whether validation has not improved for ``patience`` epochs."""
        patience = self.optim.patience
        return patience is not None and self.val is not None and self.state.epoch - self.state.best_epoch >= patience

    def snapshot(self) -> TrainingState:
        """State of this epoch boundary, with tensors."""
        tensors = {"algorithm": cpu_state(self.algorithm), "optimizer": optimizer_tensors(self.optimizer)}
        return TrainingState(**{**vars(self.state), **tensors})

    def epoch(self, epoch: int) -> Metrics:
        """Train one epoch, validate, and keep the weights if they are the best."""
        started = time.perf_counter()
        seed_everything(self.seed, epoch, self.rank)
        if isinstance(self.algorithm, Timed):
            self.algorithm.start_epoch(epoch, self.optim.epochs)
        metrics = self._train(epoch)
        if isinstance(self.algorithm, Averaging):
            self.algorithm.end_epoch(None if self.val is None else partial(self._validate, self.val))
        if problem := bad_train_loss(metrics["train_loss"], epoch + 1, self.optim):
            raise RecipeError(problem)
        if self.val is not None:
            metrics["val_loss"] = self._validate(self.val)
            if problem := bad_val_loss(metrics["val_loss"], epoch + 1, len(self.val)):
                raise RecipeError(problem)
        elif problem := bad_weights(self.model, epoch + 1, self.optim):
            raise RecipeError(problem)
        metrics["seconds"] = time.perf_counter() - started
        metrics = {"epoch": epoch + 1, **metrics, **peak_memory(self.device)}
        self.state = concluded(self.state, metrics, self.model)
        return metrics

    def _train(self, epoch: int) -> Metrics:
        self.wrapped.train()
        indices = epoch_indices(
            len(self.train), seed=self.seed, epoch=epoch, windows_per_epoch=self.optim.windows_per_epoch
        )
        clock = Clock(self.device)
        scalars: list[dict[str, Tensor]] = []  # on the device until the epoch is over: reading waits for the step
        n_windows, step = 0, epoch * self.steps_per_epoch
        for index_B in batches(indices, self.optim.batch_size, self.rank, self.world_size):
            arrays = on_device(self.train.gather(index_B), self.device)
            clock.data_arrived()
            set_learning_rate(
                self.optimizer, learning_rate(step, optim=self.optim, steps_per_epoch=self.steps_per_epoch)
            )
            scalars.append(self._step(*arrays))
            clock.step_done()
            n_windows, step = n_windows + len(index_B), step + 1
        sums = torch.stack([torch.stack([row[name] for row in scalars]).double().sum() for name in scalars[0]])
        means = (_sum_over_ranks(sums, self.world_size) / (self.world_size * len(scalars))).tolist()
        logged = dict(zip(scalars[0], means, strict=True))
        seen = _sum_over_ranks(torch.tensor(float(n_windows), dtype=torch.float64), self.world_size)
        speed = clock.metrics(float(seen))
        return {
            "train_loss": logged.pop("loss"),
            **{f"train_{name}": value for name, value in logged.items()},
            "lr": self.optimizer.param_groups[-1]["lr"] / self.optimizer.param_groups[-1]["lr_scale"],
            **speed,
            **self.arithmetic.metrics(speed["windows_per_s"], self.world_size),
        }

    def _step(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.optim.precision == "bfloat16"):
            scalars: dict[str, Tensor] = self.wrapped(batch, target_BR, mask_BR)
        scalars["loss"].backward()  # type: ignore[no-untyped-call]
        if self.optim.clip is not None:
            nn.utils.clip_grad_norm_(self.algorithm.parameters(), self.optim.clip)
        self.optimizer.step()
        if isinstance(self.algorithm, Stepping):
            self.algorithm.step_done()
        return {name: value.detach() for name, value in scalars.items()}

    @torch.no_grad()
    def _validate(self, val: Windows) -> float:
        """Masked mean squared error over every validation window once, whatever the number of ranks."""
        self.algorithm.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        mine = np.arange(len(val))[self.rank :: self.world_size]
        size = max(VALIDATION_BATCH, self.optim.batch_size // self.world_size)
        for start in range(0, len(mine), size):
            batch, target_BR, mask_BR = on_device(val.gather(mine[start : start + size]), self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.optim.precision == "bfloat16"):
                predicted_BR = self.model(batch)
            sums += torch.stack(squared_error(predicted_BR, target_BR, mask_BR)).double()
        total, count = _sum_over_ranks(sums, self.world_size).tolist()
        return total / count if count else math.nan


def compiled(algorithm: nn.Module) -> nn.Module:
    """``algorithm`` compiled for its one batch shape.

    Raises
    ------
    RecipeError
        There is no C++ compiler, which torch needs for it.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise RecipeError(f"optim.compile needs a C++ compiler and {compiler} is not installed: set compile to false")
    return cast("nn.Module", torch.compile(algorithm, dynamic=False))


def _sum_over_ranks(value: Tensor, world_size: int) -> Tensor:
    if world_size > 1:
        if dist.get_backend() == "nccl":
            value = value.cuda()
        dist.all_reduce(value)
    return value.cpu()
