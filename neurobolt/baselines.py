"""Closed-form rivals: zero, the training mean, and ridge regression on lagged band power.

All have ``fit(recordings, targets)``, ``predict(recording)`` and ``state()`` / ``from_state`` as plain arrays.
Shape letters: ``V`` volumes, ``W`` volumes with a window, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobolt.band_power import BaselineRecording, EegRecording, Float, check_pairs, window_stops
from neurobolt.ridge import Ridge

__all__ = ["BaselineRecording", "EegRecording", "Mean", "Ridge", "Zero"]

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
        recordings: Sequence[BaselineRecording],
        targets: Sequence[Float],
        *,
        val_recordings: Sequence[BaselineRecording] | None = None,
        val_targets: Sequence[Float] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> Mean:
        """Average the targets (V, R) over volumes that have a window; NaN is left out, a parcel without values gets 0.

        Validation recordings and groups are accepted, as by :class:`Ridge`, and not used.
        """
        del val_recordings, val_targets, groups
        check_pairs(recordings, targets)
        total, count = 0.0, 0.0
        for recording, target_VR in zip(recordings, targets, strict=True):
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
        recordings: Sequence[BaselineRecording],
        targets: Sequence[Float],
        *,
        val_recordings: Sequence[BaselineRecording] | None = None,
        val_targets: Sequence[Float] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> Zero:
        """Learn the number of parcels."""
        del val_recordings, val_targets, groups
        check_pairs(recordings, targets)
        self.bold_R = np.zeros(targets[0].shape[1], np.float32)
        return self
