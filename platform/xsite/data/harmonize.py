"""Choices of the experiment, made at load time: how targets are filtered and scaled; channels are in ``montages``.

Shapes: ``V`` volumes, ``R`` parcels. NaN parcels stay NaN; NaN or invalid volumes inside a scan are bridged by straight
lines before the filter sees them, and are NaN again in the result.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from xsite.data.montages import HarmonizedEeg, common_channels, harmonize, harmonize_eeg
from xsite.recording import Bool, Float

__all__ = [
    "HarmonizedEeg",
    "common_channels",
    "harmonize",
    "harmonize_eeg",
    "paper_target",
    "strict_target",
    "target_scale",
]

ORDER = 5
PERCENTILE = 95
ROUNDING = 1e-10
"""Share of a series' largest value below which what the filter leaves is rounding: the parcel does not move."""


def paper_target(
    series_VR: Float, t_r: float, low_pass: float | None = 0.15, *, valid_V: Bool | None = None
) -> NDArray[np.float32]:
    """Target of the NeuroBOLT paper: filter, mean and scale see every volume of the scan.

    Zero-phase 5th-order Butterworth low-pass over all rows, demean, divide by the 95th percentile of the absolute
    value over the scan. All rows are returned; rows without a window fall away where windows are cut.

    Parameters
    ----------
    series_VR : float array, shape (V, R)
        Parcel series in any unit; a parcel without coverage is NaN throughout.
    t_r : float
        Repetition time in seconds.
    low_pass : float or None
        Hz; at or above the Nyquist frequency nothing is filtered.
    valid_V : bool array, shape (V,), optional
        Volumes to use; the others are NaN in the result.

    Returns
    -------
    float32 array, shape (V, R)

    References
    ----------
    Li et al., NeuroBOLT, NeurIPS 2024 (arXiv 2410.05341), section on data.
    """
    whole_V = np.ones(len(series_VR), dtype=bool)
    return strict_target(series_VR, t_r, whole_V, low_pass=low_pass, valid_V=valid_V)


def strict_target(
    series_VR: Float,
    t_r: float,
    train_V: Bool,
    scale_R: Float | None = None,
    low_pass: float | None = 0.15,
    *,
    valid_V: Bool | None = None,
) -> NDArray[np.float32]:
    """Target whose filter, mean and scale never see the test part.

    Each contiguous stretch of ``train_V`` is filtered by itself; mean and scale come from the training volumes. A
    recording of a held-out site has no training part: pass the median of the training recordings' scales as
    ``scale_R``, never its own. Its own temporal mean is removed all the same, because the shared format is detrended
    within each recording already; no correlation depends on it.

    Parameters
    ----------
    series_VR : float array, shape (V, R)
    t_r : float
        Repetition time in seconds.
    train_V : bool array, shape (V,)
        Volumes whose statistics may be used.
    scale_R : float array, shape (R,), optional
        Divisor per parcel; needed where ``train_V`` is False throughout, and used wherever it is given.
    low_pass : float or None
        Hz; at or above the Nyquist frequency nothing is filtered.
    valid_V : bool array, shape (V,), optional
        Volumes to use; the others are NaN in the result.

    Returns
    -------
    float32 array, shape (V, R)

    Raises
    ------
    ValueError
        Neither a training volume nor ``scale_R`` is given, or shapes do not fit.
    """
    series_VR, train_V = _masked(series_VR, valid_V), np.asarray(train_V, dtype=bool)
    if train_V.shape != series_VR.shape[:1]:
        raise ValueError(f"train_V has shape {train_V.shape}, the series has {len(series_VR)} volumes")
    if scale_R is None and not train_V.any():
        raise ValueError("a recording without training volumes needs scale_R (the training recordings' median scale)")
    edges = np.flatnonzero(np.diff(train_V)) + 1
    filtered_VR = np.concatenate([_filtered(part, t_r, low_pass) for part in np.split(series_VR, edges)])
    filtered_VR = filtered_VR - _column_mean(filtered_VR[train_V] if train_V.any() else filtered_VR)
    divisor_R = _percentile(filtered_VR[train_V]) if scale_R is None else np.asarray(scale_R, dtype=np.float64)
    if divisor_R.shape != series_VR.shape[1:]:
        raise ValueError(f"scale_R has shape {divisor_R.shape}, the series has {series_VR.shape[1]} parcels")
    # a parcel that does not move has no scale of its own: NaN, as one without coverage; at a given scale it is zero
    least_R = ROUNDING * _largest(series_VR)
    filtered_VR = np.where((_largest(filtered_VR) <= least_R) & np.isfinite(filtered_VR), 0.0, filtered_VR)
    moves_R = divisor_R > (least_R if scale_R is None else 0)
    return (filtered_VR / np.where(moves_R, divisor_R, np.nan)).astype(np.float32)


def target_scale(
    series_VR: Float, t_r: float, low_pass: float | None = 0.15, *, valid_V: Bool | None = None
) -> NDArray[np.float64]:
    """95th percentile of the absolute low-passed, demeaned series, per parcel: shape (R,).

    NaN without coverage, or where the parcel never moves: such a recording has no say in a median over recordings.
    """
    series_VR = _masked(series_VR, valid_V)
    filtered_VR = _filtered(series_VR, t_r, low_pass)
    scale_R = _percentile(filtered_VR - _column_mean(filtered_VR))
    return np.where(scale_R > ROUNDING * _largest(series_VR), scale_R, np.nan)


def _masked(series_VR: Float, valid_V: Bool | None) -> NDArray[np.float64]:
    masked_VR = np.array(series_VR, dtype=np.float64)
    if masked_VR.ndim != 2:
        raise ValueError(f"a target is made from a (volumes, parcels) array, found shape {masked_VR.shape}")
    if valid_V is not None:
        masked_VR[~np.asarray(valid_V, dtype=bool)] = np.nan
    return masked_VR


def _filtered(series_VR: NDArray[np.float64], t_r: float, low_pass: float | None) -> NDArray[np.float64]:
    """Low-pass one contiguous stretch; gaps are bridged for the filter and put back as NaN."""
    if low_pass is None or low_pass >= 0.5 / t_r:
        return series_VR
    sos = butter(ORDER, low_pass, fs=1 / t_r, output="sos")
    result_VR = np.full_like(series_VR, np.nan)
    patterns, which_R = np.unique(np.isfinite(series_VR), axis=1, return_inverse=True)
    for index, finite_V in enumerate(patterns.T):  # one pattern, unless parcels have gaps of their own
        rows = np.flatnonzero(finite_V)
        if rows.size == 0:
            continue
        columns = np.flatnonzero(which_R.ravel() == index)
        span = np.arange(rows[0], rows[-1] + 1)
        bridged_VR = np.stack([np.interp(span, rows, series_VR[rows, r]) for r in columns], axis=1)
        smooth_VR = sosfiltfilt(sos, bridged_VR, axis=0, padlen=min(3 * 6, len(span) - 1))  # 18, SciPy's own default
        result_VR[np.ix_(rows, columns)] = smooth_VR[rows - rows[0]]
    return result_VR


def _column_mean(series_VR: NDArray[np.float64]) -> NDArray[np.float64]:
    finite_VR = np.isfinite(series_VR)
    total_R = np.where(finite_VR, series_VR, 0).sum(0)
    return cast("NDArray[np.float64]", np.divide(total_R, np.where(finite_VR.any(0), finite_VR.sum(0), np.nan)))


def _largest(series_VR: NDArray[np.float64]) -> NDArray[np.float64]:
    return cast("NDArray[np.float64]", np.where(np.isfinite(series_VR), np.abs(series_VR), 0.0).max(0, initial=0.0))


def _percentile(series_VR: NDArray[np.float64]) -> NDArray[np.float64]:
    covered_R = np.isfinite(series_VR).any(0)
    scale_R = np.full(series_VR.shape[1], np.nan)
    if covered_R.any():
        scale_R[covered_R] = np.nanpercentile(np.abs(series_VR[:, covered_R]), PERCENTILE, axis=0)
    return scale_R
