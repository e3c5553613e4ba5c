"""Figures that know about frequencies: coherence of prediction and measurement, and how many samples a scan is worth.

Shape letters: ``V`` volumes, ``R`` parcels, ``F`` frequencies, ``K`` lags.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import signal

from xsite.evaluation.metrics import MIN_VOLUMES, pearson_r, usable
from xsite.recording import Bool, Float

BAND_HZ = 0.15
"""Upper edge of the band that the target is low-passed to (neurobolt.md, section 2)."""
HANN_OVERLAP = 1 / 36
"""Squared correlation of neighbouring half-overlapping Hann segments (Welch 1967, IEEE Trans. Audio 15, 70)."""


def interpolated(series_VR: Float, known_VR: Bool) -> Float:
    """The series with gaps filled linearly, per parcel; parcels without any known volume stay NaN.

    Returns
    -------
    float64 array, shape (V, R)
    """
    filled_VR = np.where(known_VR, series_VR, np.nan).astype(np.float64)
    volumes = np.arange(len(filled_VR))
    for r in np.flatnonzero(~known_VR.all(0) & known_VR.any(0)):
        known_V = known_VR[:, r]
        filled_VR[:, r] = np.interp(volumes, volumes[known_V], filled_VR[known_V, r])
    return filled_VR


def coherence(
    predicted_VR: Float,
    measured_VR: Float,
    valid_V: Bool,
    t_r: float,
    *,
    band_hz: float = BAND_HZ,
    segment_s: float = 120.0,
) -> tuple[Float, float]:
    """Mean magnitude-squared coherence above 0 and up to ``band_hz``, and what chance would give.

    Welch's method: Hann segments that overlap by half, each free of its mean. Coherence forgives a delay and a wrong
    sign, both of which R punishes, and it is never negative: without any relation it is ``1 / (independent segments)``.

    Parameters
    ----------
    predicted_VR, measured_VR : arrays, shape (V, R)
        Gaps are interpolated linearly; volumes before the first and after the last usable one are cut off.
    valid_V : bool array, shape (V,)
    t_r : float
        Seconds.
    band_hz : float
        Hz.
    segment_s : float
        Length of a segment in seconds; a shorter recording is cut into four.

    Returns
    -------
    coherence : float64 array, shape (R,)
        NaN where a series does not move or the recording holds fewer than two segments of eight volumes.
    chance : float
        Expected value for unrelated series; NaN likewise.
    """
    mask_VR = usable(valid_V, predicted_VR, measured_VR)
    good_R = np.isfinite(pearson_r(predicted_VR, measured_VR, valid_V))
    result_R = np.full(measured_VR.shape[1], np.nan)
    scored_V = np.asarray(mask_VR.any(1))
    first, last = int(np.argmax(scored_V)), len(scored_V) - int(np.argmax(scored_V[::-1]))
    n_segment = min(round(segment_s / t_r), (last - first) * 2 // 5)  # half-overlapping: 2.5 lengths hold four
    if not good_R.any() or n_segment < 8:
        return result_R, math.nan
    inside = slice(first, last)
    a_VR, b_VR = (interpolated(x[inside][:, good_R], mask_VR[inside][:, good_R]) for x in (predicted_VR, measured_VR))
    overlap = n_segment // 2
    frequency_F, coherence_FR = signal.coherence(a_VR, b_VR, 1 / t_r, "hann", n_segment, overlap, axis=0)
    in_band_F = (frequency_F > 0) & (frequency_F <= band_hz)
    if not in_band_F.any():
        return result_R, math.nan
    result_R[good_R] = coherence_FR[in_band_F].mean(0)
    k = (last - first - overlap) // (n_segment - overlap)
    return result_R, (1 + 2 * HANN_OVERLAP * (k - 1) / k) / k


def _autocorrelation(series_VR: Float, mask_VR: Bool, n_lags: int) -> Float:
    """Autocorrelation at lags 1 to ``n_lags``, shape (K, R), from the pairs of volumes that are both known."""
    kept_VR = np.where(mask_VR, series_VR, 0.0).astype(np.float64)
    n_R = np.maximum(mask_VR.sum(0), 1)
    kept_VR = np.where(mask_VR, kept_VR - kept_VR.sum(0) / n_R, 0.0)
    size = 2 * len(kept_VR)
    sums_VR, pairs_VR = (
        np.fft.irfft(np.abs(np.fft.rfft(x, size, axis=0)) ** 2, size, axis=0)[: n_lags + 1]
        for x in (kept_VR, mask_VR.astype(float))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance_KR = sums_VR / np.maximum(np.round(pairs_VR), 1)
        return np.asarray(np.clip(covariance_KR[1:] / covariance_KR[0], -1, 1))


def effective_n(predicted_VR: Float, measured_VR: Float, valid_V: Bool) -> Float:
    """How many independent volumes the correlation of two smooth series is worth, per parcel.

    ``N / (1 + 2 sum_k (1 - k/N) rho_a(k) rho_b(k))`` (Bayley & Hammersley 1946, J. R. Stat. Soc. B 8, 184), with the
    autocorrelations tapered to 0 by a Tukey window over ``2 sqrt(N)`` lags, lest their noise be summed up (the
    tapering of Afyouni, Smith & Nichols 2019, NeuroImage 199, 609). A scan of 567 volumes, low-passed at .15 Hz, is
    worth 100 to 240.

    Parameters
    ----------
    predicted_VR, measured_VR : arrays, shape (V, R)
    valid_V : bool array, shape (V,)

    Returns
    -------
    float64 array, shape (R,)
        Between 2 and the number of usable volumes; NaN where no correlation is defined.
    """
    mask_VR = usable(valid_V, predicted_VR, measured_VR)
    good_R = np.isfinite(pearson_r(predicted_VR, measured_VR, valid_V))
    n_R = mask_VR.sum(0)
    result_R = np.full(len(n_R), np.nan)
    if not good_R.any():
        return result_R
    mask_VR, n_R = mask_VR[:, good_R], n_R[good_R].astype(float)
    n_lags = min(int(2 * math.sqrt(len(valid_V))), len(valid_V) - MIN_VOLUMES)
    lags_K1 = np.arange(1, n_lags + 1)[:, None]
    taper_K1 = 0.5 * (1 + np.cos(np.pi * lags_K1 / (n_lags + 1)))
    rho_a, rho_b = (_autocorrelation(x[:, good_R], mask_VR, n_lags) * taper_K1 for x in (predicted_VR, measured_VR))
    inflation_R = 1 + 2 * (np.maximum(1 - lags_K1 / n_R, 0) * rho_a * rho_b).sum(0)
    result_R[good_R] = np.clip(n_R / np.maximum(inflation_R, 1e-9), 2, n_R)
    return result_R
