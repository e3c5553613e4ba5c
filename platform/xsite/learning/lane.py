"""One model among many that train together: what it reads, where it stands, and how its epochs end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch import nn

from xsite.data.sampling import batches, epoch_indices, n_batches
from xsite.data.window_source import Gathered, on_device
from xsite.errors import RecipeError
from xsite.experiment_parts import Optim
from xsite.learning.epoch_end import bad_train_loss, bad_val_loss, bad_weights, concluded, untrained
from xsite.learning.loop import VALIDATION_BATCH, FitResult, Metrics, Windows
from xsite.learning.schedule import learning_rate
from xsite.learning.state import TrainingState


class StackedError(RecipeError):
    """What :func:`~xsite.learning.loop.fit` would have raised for one model; ``index`` says for which."""

    index = 0


def of_lane(index: int, message: str) -> StackedError:
    """What went wrong with the training at this place among the arguments of ``fit_stacked``."""
    error = StackedError(message)
    error.index = index
    return error


class Lane:
    """One model's training: what it reads, where it stands."""

    def __init__(
        self,
        index: int,
        algorithm: nn.Module,
        train: Windows,
        val: Windows | None,
        seed: int,
        state: TrainingState | None,
        n_epochs: int | None,
        optim: Optim,
    ) -> None:
        self.index, self.algorithm, self.train, self.val, self.seed = index, algorithm, train, val, seed
        self.optim, self.n_epochs = optim, n_epochs or optim.epochs
        self.state = state or untrained(self.model)
        n = min(len(train), optim.windows_per_epoch or len(train))
        self.steps_per_epoch = n_batches(n, optim.batch_size)
        self.lr = 0.0

    @property
    def model(self) -> nn.Module:
        """The model inside the algorithm."""
        return cast("nn.Module", self.algorithm.model)

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or validation has not improved for ``patience`` epochs."""
        patience, stale = self.optim.patience, self.state.epoch - self.state.best_epoch
        return self.state.epoch >= self.n_epochs or (
            patience is not None and self.val is not None and stale >= patience
        )

    @property
    def result(self) -> FitResult:
        """As :func:`~xsite.learning.loop.fit` returns it."""
        return FitResult(self.state.best_epoch, self.state.history, self.state.best)

    def batches(self, device: torch.device) -> Iterator[Gathered]:
        """Batches of the next epoch, and the learning rate of each in ``lr``."""
        epoch, optim = self.state.epoch, self.optim
        indices = epoch_indices(len(self.train), seed=self.seed, epoch=epoch, windows_per_epoch=optim.windows_per_epoch)
        for step, index_B in enumerate(batches(indices, optim.batch_size), start=epoch * self.steps_per_epoch):
            self.lr = learning_rate(step, optim=optim, steps_per_epoch=self.steps_per_epoch)
            yield on_device(self.train.gather(index_B), device)

    def validation(self, device: torch.device) -> Iterator[Gathered]:
        """Every validation window once."""
        val, size = self.val, max(VALIDATION_BATCH, self.optim.batch_size)
        every = np.arange(0 if val is None else len(val))
        for start in range(0, len(every), size):
            yield on_device(cast("Windows", val).gather(every[start : start + size]), device)

    def conclude(self, metrics: Metrics) -> Metrics:
        """Take an epoch in: keep the weights, which the module holds by now, if they are the best."""
        epoch = self.state.epoch + 1
        problem = bad_train_loss(metrics["train_loss"], epoch, self.optim)
        if self.val is not None:
            problem = problem or bad_val_loss(metrics["val_loss"], epoch, len(self.val))
        else:
            problem = problem or bad_weights(self.model, epoch, self.optim)
        if problem:
            raise of_lane(self.index, problem)
        metrics = {"epoch": epoch, **metrics}
        self.state = concluded(self.state, metrics, self.model)
        return metrics
