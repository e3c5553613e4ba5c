"""The oracle: how well the noise-free BOLD itself would score against the measured target.

It is the ceiling of every model, on the same path from image to target that the models' targets take.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xsite.data.harmonize import strict_target
from xsite.errors import RecordingError
from xsite.recording import Bool, Float, Recording


def oracle_r(recording: Recording, low_pass: float = 0.15) -> NDArray[np.float64]:
    """Pearson R of truth and measured BOLD per parcel over the valid volumes, shape (R,).

    Raises
    ------
    RecordingError
        The recording has no truth: it is no phantom.
    """
    if recording.truth is None:
        raise RecordingError(f"{recording.key}: has no noise-free BOLD; only phantom recordings have an oracle")
    return series_r(recording.truth, recording.bold, recording.t_r, recording.volume_valid, low_pass)


def series_r(
    truth_VR: Float, measured_VR: Float, t_r: float, valid_V: Bool | None = None, low_pass: float = 0.15
) -> NDArray[np.float64]:
    """Pearson R per parcel of two series, both taken through the target path; NaN for a parcel without coverage."""
    usable_V = np.ones(len(truth_VR), bool) if valid_V is None else np.asarray(valid_V, bool)
    one_R = np.ones(truth_VR.shape[1])  # a scale changes no correlation
    pair = [
        strict_target(series, t_r, usable_V, one_R, low_pass, valid_V=usable_V)[usable_V].astype(float)
        for series in (truth_VR, measured_VR)
    ]
    a_VR, b_VR = (series - series.mean(0) for series in pair)
    with np.errstate(invalid="ignore"):
        return np.asarray((a_VR * b_VR).sum(0) / np.sqrt((a_VR**2).sum(0) * (b_VR**2).sum(0)))
