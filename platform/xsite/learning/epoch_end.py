"""The end of an epoch, of one training or of many at once: what is no number is refused, the best weights are kept."""

from __future__ import annotations

import math

import torch
from torch import nn

from xsite.experiment_parts import Optim
from xsite.learning.state import TrainingState, cpu_state


def untrained(model: nn.Module) -> TrainingState:
    """State before the first epoch; the optimiser has none yet."""
    return TrainingState(0, {}, {}, cpu_state(model), 0, math.inf, [])


def concluded(state: TrainingState, metrics: dict[str, float], model: nn.Module) -> TrainingState:
    """State after one more epoch, without the tensors of algorithm and optimiser.

    Parameters
    ----------
    state : TrainingState
        Of the epoch boundary before.
    metrics : dict
        Becomes the row of the history, the very object: who is called after the epoch may add to it. Without
        ``val_loss`` nothing selects, and the last weights are kept.
    model : nn.Module
        Holds the weights that the epoch ended with.
    """
    epoch, loss = state.epoch + 1, metrics.get("val_loss", metrics["train_loss"])
    better = "val_loss" not in metrics or loss < state.best_loss or epoch == 1
    kept = (cpu_state(model), epoch, loss) if better else (state.best, state.best_epoch, state.best_loss)
    return TrainingState(epoch, {}, {}, *kept, [*state.history, metrics])


def bad_train_loss(loss: float, epoch: int, optim: Optim) -> str:
    """What to say where the training loss is no number; empty where it is one."""
    if math.isfinite(loss):
        return ""
    return (
        f"the training loss is {loss} in epoch {epoch}: lower optim.lr (now {optim.lr}), set optim.clip (now "
        f"{optim.clip}) or use precision float32"
    )


def bad_val_loss(loss: float, epoch: int, n_windows: int) -> str:
    """What to say where the validation error is no number; empty where it is one."""
    if math.isfinite(loss):
        return ""
    return (
        f"epoch {epoch}: the validation error is {loss} over {n_windows} windows: without windows, choose other folds; "
        "with windows, lower optim.lr or set optim.clip"
    )


def bad_weights(model: nn.Module, epoch: int, optim: Optim) -> str:
    """What to say where an epoch without validation leaves weights that are no numbers; empty where all are.

    The loss is taken before a step, so the last step of an epoch shows in the weights alone.
    """
    if all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters()):
        return ""
    return (
        f"epoch {epoch} ended with weights that are no numbers: lower optim.lr (now {optim.lr}), set optim.clip (now "
        f"{optim.clip}) or use precision float32"
    )
