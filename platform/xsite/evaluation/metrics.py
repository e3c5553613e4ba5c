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


def r2_about_zero(predicted_VR: Float, measured_VR: Float, valid_V: Bool) -> Float:
    """Share of the measured energy that the prediction explains, ``1 - SSE / SS``, per parcel.

    About zero, not about the recording's own mean: the target is centred before anybody sees it, and "predict zero" is
    what a model must beat. Unlike Pearson's r it pays for a wrong size: a prediction worse than zero is negative.

    Parameters
    ----------
    predicted_VR, measured_VR : arrays, shape (V, R)
    valid_V : bool array, shape (V,)

    Returns
    -------
    float64 array, shape (R,)
        0 for a prediction of zero; NaN where nothing was measured, or the measurement is zero throughout.
    """
    mask_VR = usable(valid_V, predicted_VR, measured_VR)
    measured_VR = np.where(mask_VR, measured_VR, 0.0).astype(np.float64)
    error_VR = np.where(mask_VR, predicted_VR, 0.0) - measured_VR
    energy_R = (measured_VR**2).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(energy_R > 0, 1 - (error_VR**2).sum(0) / energy_R, np.nan))


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


def connectivity_similarity(predicted_VR: Float, measured_VR: Float, valid_V: Bool) -> float:
    """Correlation between the parcels' functional connectivity as predicted and as measured, over pairs of parcels.

    Pairs are Fisher-transformed correlations. A model that says one time course for all parcels has a connectivity of
    1 everywhere and therefore no similarity (NaN), whatever its R.

    Parameters
    ----------
    predicted_VR, measured_VR : arrays, shape (V, R)
    valid_V : bool array, shape (V,)
        Only volumes usable in every parcel that was measured count.

    Returns
    -------
    float
        NaN for fewer than three parcels that move in both.
    """
    mask_VR = usable(valid_V, predicted_VR, measured_VR)
    known_R = mask_VR.any(0)
    rows_V = mask_VR[:, known_R].all(1)
    if known_R.sum() < 3 or rows_V.sum() < MIN_VOLUMES:
        return float("nan")
    series = [x_VR[rows_V][:, known_R].astype(np.float64) for x_VR in (predicted_VR, measured_VR)]
    everywhere_VR = np.ones_like(series[0], dtype=bool)
    moving_R = np.all([np.isfinite(_centred(x_VR, everywhere_VR)).all(0) for x_VR in series], axis=0)
    if moving_R.sum() < 3:
        return float("nan")
    upper = np.triu_indices(int(moving_R.sum()), 1)
    r = [np.asarray(np.corrcoef(x_VR[:, moving_R].T))[upper] for x_VR in series]
    z = [np.arctanh(np.clip(pairs, -1 + 1e-6, 1 - 1e-6)) for pairs in r]
    # connectivity that hardly differs between pairs is one number, and its pattern is rounding
    if any(pairs.std() <= 1e-4 for pairs in z):
        return float("nan")
    return float(np.corrcoef(z[0], z[1])[0, 1])


def best_lag(
    predicted_VR: Float, measured_VR: Float, valid_V: Bool, t_r: float, *, max_lag_s: float = 12.0
) -> tuple[Float, Float]:
    """Shift of the prediction at which it correlates best with the measurement, in whole volumes.

    A prediction that is right but late (a wrong haemodynamic delay, a wrong trigger) has a low R and a high R at its
    best lag. The best of many lags is above 0 by chance too; compare it with other models, not with 0.

    Parameters
    ----------
    predicted_VR, measured_VR : arrays, shape (V, R)
    valid_V : bool array, shape (V,)
    t_r : float
        Seconds.
    max_lag_s : float
        Largest shift either way, seconds.

    Returns
    -------
    lag_s, r : float64 arrays, shape (R,)
        Seconds by which the prediction comes too late (negative: too early), and the correlation there; NaN where no
        correlation is defined. Among equals the smallest shift wins.
    """
    steps = min(int(max_lag_s / t_r + 1e-9), max(len(valid_V) - MIN_VOLUMES, 0))
    lags_L = np.array(sorted(range(-steps, steps + 1), key=abs))
    r_LR = np.empty((len(lags_L), measured_VR.shape[1]))
    for i, lag in enumerate(lags_L):
        late, early = slice(max(lag, 0), len(valid_V) + min(lag, 0)), slice(max(-lag, 0), len(valid_V) - max(lag, 0))
        mask_VR = usable(valid_V[early], predicted_VR[late], measured_VR[early])
        r_LR[i] = _correlate(predicted_VR[late], measured_VR[early], mask_VR)
    known_R = np.isfinite(r_LR).any(0)
    best_R = np.where(np.isfinite(r_LR), r_LR, -np.inf).argmax(0)
    lag_R = np.where(known_R, lags_L[best_R] * t_r, np.nan)
    return lag_R, np.where(known_R, r_LR[best_R, np.arange(len(best_R))], np.nan)
