"""The settings of the published trainings: what the paper's text says, and what the released code does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainingSwitches:
    """Optimiser and input of the published trainings; the paper's text and the released code differ in four of them.

    ``jobs/recipes/paper.yaml`` and ``released.yaml`` say the same to the platform (a test compares them).

    Parameters
    ----------
    lr, min_lr, weight_decay, layer_decay : float
        Peak and last learning rate of the cosine; AdamW's decay; factor from one layer to the next below it.
    batch_size : int
        Between subjects; within a scan it is 16.
    betas : tuple of float
        AdamW.
    epochs : int
    warmup_epochs : int
    warmup_from : float
        Learning rate at which the linear warm-up starts.
    high_pass : float, optional
        Hz; ``None`` for none (the released loader between subjects filters, the one within a scan does not).
    """

    betas: tuple[float, float]
    epochs: int
    warmup_epochs: int
    warmup_from: float
    high_pass: float | None
    lr: float = 3e-4
    min_lr: float = 1e-6
    weight_decay: float = 0.05
    layer_decay: float = 0.65
    batch_size: int = 64

    @classmethod
    def preset(cls, name: Literal["paper", "released"], *, within_scan: bool = False) -> TrainingSwitches:
        """Settings of the paper's text, or of the released code; between subjects, or within one scan."""
        batch_size = 16 if within_scan or name == "released" else 64
        if name == "paper":
            return cls((0.9, 0.99), 30, 5, 1e-6, None, batch_size=batch_size)
        return cls((0.9, 0.999), 20, 5, 0.0, None if within_scan else 0.5, batch_size=batch_size)
