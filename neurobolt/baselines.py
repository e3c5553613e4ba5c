"""Closed-form rivals: zero, the training mean, ridge regression on lagged band power, and a vigilance index.

All have ``fit(recordings, targets)``, which reads each recording once and takes generators, ``predict(recording)``, and
``state()`` / ``from_state`` as plain arrays.
Shape letters: ``V`` volumes, ``W`` volumes with a window, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobolt.band_power import BaselineRecording, EegRecording, Float, window_stops
from neurobolt.linear_sums import pairs
from neurobolt.ridge import Ridge
from neurobolt.vigilance import Vigilance

__all__ = ["BaselineRecording", "EegRecording", "Mean", "Ridge", "Vigilance", "Zero"]

WINDOW_S = 16.0


def _constant(recording: BaselineRecording, bold_R: Float, window_s: float) -> Float:
    _, seen_V = window_stops(recording, window_s)
    return np.where(seen_V[:, None], bold_R.astype(np.float32), np.float32(np.nan))


class Mean:
    """Each parcel's mean over the training volumes, whatever the EEG.

    Parameters
    ----------
    window_s : float
        Seconds of EEG that a volume needs before it, so that all models are scored on the same volumes.
    """

    def __init__(self, *, window_s: float = WINDOW_S) -> None:
        self.window_s = window_s
        self.bold_R: Float = np.empty(0, np.float32)

    def fit(
        self,
        recordings: Iterable[BaselineRecording],
        targets: Iterable[Float],
        *,
        val_recordings: Iterable[BaselineRecording] | None = None,
        val_targets: Iterable[Float] | None = None,
        groups: Iterable[Hashable] | None = None,
    ) -> Mean:
        """Average the targets (V, R) over volumes that have a window; NaN is left out, a parcel without values gets 0.

        Validation recordings and groups are accepted, as by :class:`Ridge`, and not used.
        """
        del val_recordings, val_targets, groups
        total, count = 0.0, 0.0
        for recording, target_VR in pairs(recordings, targets):
            _, seen_V = window_stops(recording, self.window_s)
            seen_WR = np.asarray(target_VR[seen_V], np.float64)
            total = total + np.nansum(seen_WR, 0)
            count = count + np.isfinite(seen_WR).sum(0)
        self.bold_R = (total / np.maximum(count, 1)).astype(np.float32)
        return self

    def predict(self, recording: BaselineRecording) -> Float:
        """(V, R), NaN for volumes without a window."""
        return _constant(recording, self.bold_R, self.window_s)

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that :meth:`from_state` needs."""
        return {"bold_R": self.bold_R, "window_s": np.array(self.window_s)}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Mean:
        """Inverse of :meth:`state`."""
        model = cls(window_s=float(state["window_s"]))
        model.bold_R = np.asarray(state["bold_R"])
        return model


class Zero(Mean):
    """Zero for every parcel: the score of saying nothing."""

    def fit(
        self,
        recordings: Iterable[BaselineRecording],
        targets: Iterable[Float],
        *,
        val_recordings: Iterable[BaselineRecording] | None = None,
        val_targets: Iterable[Float] | None = None,
        groups: Iterable[Hashable] | None = None,
    ) -> Zero:
        """Learn the number of parcels."""
        del val_recordings, val_targets, groups
        _, target_VR = next(pairs(recordings, targets))
        self.bold_R = np.zeros(target_VR.shape[1], np.float32)
        return self
