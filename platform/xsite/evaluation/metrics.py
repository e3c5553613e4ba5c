"""Scores of one recording, one value per parcel.

Shape letters: ``V`` volumes, ``R`` parcels. A score is NaN where it is not defined: fewer than three usable volumes, or
a series that does not move.
"""

from __future__ import annotations

import numpy as np

from xsite.recording import Bool, Float

# float32 resolves 1.2e-7 of a value: a series that moves less than this share of its size is rounding, not signal
CONSTANT = 1e-6
MIN_VOLUMES = 3


def usable(valid_V: Bool, *series: Float) -> Bool:
    """Volumes that count, per parcel: valid, and finite in all series.

    Parameters
    ----------
    valid_V : bool array, shape (V,)
    *series : arrays, shape (V, R)

    Returns
    -------
    bool array, shape (V, R)
    """
    mask_VR = np.broadcast_to(np.asarray(valid_V, bool)[:, None], series[0].shape).copy()
    for values_VR in series:
        if values_VR.shape != mask_VR.shape:
            raise ValueError(f"series have shapes {[s.shape for s in series]}, valid volumes {np.shape(valid_V)}")
        mask_VR &= np.isfinite(values_VR)
    return mask_VR


def _centred(values_VR: Float, mask_VR: Bool) -> Float:
    """Mean-free over the usable volumes, 0 elsewhere; NaN throughout for parcels that do not move."""
    kept_VR = np.where(mask_VR, values_VR, 0.0).astype(np.float64)
    n_R = mask_VR.sum(0)
    centred_VR = np.where(mask_VR, kept_VR - kept_VR.sum(0) / np.maximum(n_R, 1), 0.0)
    still_R = np.abs(centred_VR).max(0, initial=0.0) <= CONSTANT * np.abs(kept_VR).max(0, initial=0.0)
    return np.where((n_R < MIN_VOLUMES) | still_R, np.nan, centred_VR)


def _correlate(a_VR: Float, b_VR: Float, mask_VR: Bool) -> Float:
    a_VR, b_VR = _centred(a_VR, mask_VR), _centred(b_VR, mask_VR)
    norm_R = np.sqrt((a_VR**2).sum(0) * (b_VR**2).sum(0))
    return np.asarray(np.clip((a_VR * b_VR).sum(0) / norm_R, -1, 1))


def pearson_r(a_VR: Float, b_VR: Float, valid_V: Bool) -> Float:
    """Pearson correlation over the usable volumes, per parcel.

    Parameters
    ----------
    a_VR, b_VR : arrays, shape (V, R)
        NaN where missing.
    valid_V : bool array, shape (V,)

    Returns
    -------
    float64 array, shape (R,)
        NaN where a series is constant or fewer than three volumes are usable.
    """
    return _correlate(a_VR, b_VR, usable(valid_V, a_VR, b_VR))


def mse(predicted_VR: Float, measured_VR: Float, valid_V: Bool) -> Float:
    """Mean squared error over the usable volumes, per parcel; NaN where there is none.

    Parameters
    ----------
    predicted_VR, measured_VR : arrays, shape (V, R)
    valid_V : bool array, shape (V,)

    Returns
    -------
    float64 array, shape (R,)
    """
    mask_VR = usable(valid_V, predicted_VR, measured_VR)
    error_VR = np.where(mask_VR, predicted_VR, 0.0).astype(np.float64) - np.where(mask_VR, measured_VR, 0.0)
    n_R = mask_VR.sum(0)
    return np.asarray(np.where(n_R > 0, (error_VR**2).sum(0) / np.maximum(n_R, 1), np.nan))


def partial_r(predicted_VR: Float, measured_VR: Float, given_V: Float, valid_V: Bool) -> Float:
    """Correlation of prediction and measurement once a third series is known, such as the global signal.

    Parameters
    ----------
    predicted_VR, measured_VR : arrays, shape (V, R)
    given_V : array, shape (V,)
        In the state of the target (same low-pass), else it explains less than it could.
    valid_V : bool array, shape (V,)

    Returns
    -------
    float64 array, shape (R,)
        NaN where one of the three does not move, or where ``given_V`` explains one of the others wholly.
    """
    given_VR = np.broadcast_to(np.asarray(given_V)[:, None], measured_VR.shape)
    mask_VR = usable(valid_V, predicted_VR, measured_VR, given_VR)
    r_R = _correlate(predicted_VR, measured_VR, mask_VR)
    r_predicted_R = _correlate(predicted_VR, given_VR, mask_VR)
    r_measured_R = _correlate(measured_VR, given_VR, mask_VR)
    left_R = (1 - r_predicted_R**2) * (1 - r_measured_R**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        partial_R = (r_R - r_predicted_R * r_measured_R) / np.sqrt(left_R)
    return np.asarray(np.where(left_R > 1e-9, np.clip(partial_R, -1, 1), np.nan))
