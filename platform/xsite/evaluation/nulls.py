"""What a score looks like without any relation: phase-randomised surrogates of the measured BOLD.

Two independent BOLD-like series reject at 20 % instead of 5 % under the textbook p-value of Pearson's r; against these
surrogates at 3 % (measured, N = 571). A surrogate keeps the power spectrum of every parcel and, because all parcels get
the same random phases, the correlations between parcels (Prichard & Theiler 1994, Phys. Rev. Lett. 73, 951).

Shape letters: ``V`` volumes, ``R`` parcels, ``F`` frequencies, ``N`` surrogates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsite.evaluation.metrics import pearson_r
from xsite.recording import Bool, Float

CHUNK = 100  # surrogates in memory at once; 100 x 567 volumes x 64 parcels are 29 MB


def random_phases(n_volumes: int, n_surrogates: int, rng: np.random.Generator) -> Float:
    """Phases of surrogates: uniform, 0 for the mean, 0 or pi at the Nyquist frequency so that the series stays real.

    Returns
    -------
    float array, shape (N, F)
    """
    phases_NF = rng.uniform(0, 2 * np.pi, (n_surrogates, n_volumes // 2 + 1))
    phases_NF[:, 0] = 0
    if n_volumes % 2 == 0:
        phases_NF[:, -1] = np.where(phases_NF[:, -1] < np.pi, 0.0, np.pi)
    return np.asarray(phases_NF)


def phase_randomize(series_VR: Float, rng: np.random.Generator) -> Float:
    """One surrogate: same spectrum of each parcel, same correlations between parcels, no memory of when.

    Parameters
    ----------
    series_VR : array, shape (V, R)
        Without gaps.
    rng : numpy Generator

    Returns
    -------
    float64 array, shape (V, R)
    """
    if not np.isfinite(series_VR).all():
        raise ValueError("phase_randomize: the series has gaps (NaN); fill them first")
    phases_F = random_phases(len(series_VR), 1, rng)[0]
    return np.asarray(_surrogates(np.fft.rfft(series_VR, axis=0), phases_F[None], len(series_VR))[0])


def _surrogates(spectrum_FR: NDArray[np.complexfloating[Any]], phases_NF: Float, n_volumes: int) -> Float:
    turned_NFR = np.exp(1j * phases_NF)[:, :, None] * spectrum_FR
    return np.asarray(np.fft.irfft(turned_NFR, n=n_volumes, axis=1))


def null_r(
    predicted_VR: Float, target_VR: Float, scored_V: Bool, *, surrogates: int, rng: np.random.Generator
) -> Float:
    """Correlation of a prediction with surrogates of the target, on exactly the volumes that were scored.

    Without gaps between the first and the last scored volume this happens in the frequency domain: the correlation is a
    sum over frequencies, so all surrogates are one matrix product. With gaps, the target is interpolated linearly over
    them, randomised as a whole, and correlated on the scored volumes only.

    Parameters
    ----------
    predicted_VR, target_VR : arrays, shape (V, R)
        Finite on the scored volumes, or NaN throughout a parcel.
    scored_V : bool array, shape (V,)
    surrogates : int
    rng : numpy Generator

    Returns
    -------
    float64 array, shape (N, R)
        NaN for parcels without a defined correlation.
    """
    null_NR = np.full((surrogates, target_VR.shape[1]), np.nan)
    good_R = np.isfinite(pearson_r(predicted_VR, target_VR, scored_V))
    if not good_R.any() or not surrogates:
        return null_NR
    span = slice(int(np.argmax(scored_V)), len(scored_V) - int(np.argmax(scored_V[::-1])))
    scored_V = scored_V[span]
    a_VR = predicted_VR[span][:, good_R].astype(np.float64)
    b_VR = target_VR[span][:, good_R].astype(np.float64)
    phases_NF = random_phases(len(scored_V), surrogates, rng)
    if np.isfinite(a_VR).all() and np.isfinite(b_VR).all() and scored_V.all():
        null_NR[:, good_R] = _null_by_frequency(a_VR, b_VR, phases_NF)
    else:
        null_NR[:, good_R] = _null_with_gaps(a_VR, b_VR, scored_V, phases_NF)
    return null_NR


def _null_by_frequency(a_VR: Float, b_VR: Float, phases_NF: Float) -> Float:
    a_VR, b_VR = a_VR - a_VR.mean(0), b_VR - b_VR.mean(0)
    norm_R = np.sqrt((a_VR**2).sum(0) * (b_VR**2).sum(0))
    weight_F = np.full(phases_NF.shape[1], 2.0)  # rfft keeps one of each pair of conjugate frequencies
    weight_F[0] = 1
    if len(a_VR) % 2 == 0:
        weight_F[-1] = 1
    cross_FR = np.conj(np.fft.rfft(a_VR, axis=0)) * np.fft.rfft(b_VR, axis=0)
    cross_FR = cross_FR * weight_F[:, None] / (len(a_VR) * norm_R)
    return np.asarray(np.cos(phases_NF) @ cross_FR.real - np.sin(phases_NF) @ cross_FR.imag)


def _null_with_gaps(a_VR: Float, b_VR: Float, scored_V: Bool, phases_NF: Float) -> Float:
    volumes = np.arange(len(scored_V))
    filled_VR = np.empty_like(b_VR)
    for r in range(b_VR.shape[1]):
        known_V = scored_V & np.isfinite(b_VR[:, r])
        filled_VR[:, r] = np.interp(volumes, volumes[known_V], b_VR[known_V, r])
    mask_VR = scored_V[:, None] & np.isfinite(a_VR) & np.isfinite(b_VR)
    n_R = mask_VR.sum(0)
    a_VR = np.where(mask_VR, a_VR, 0.0)
    a_VR = np.where(mask_VR, a_VR - a_VR.sum(0) / n_R, 0.0)
    a_VR /= np.sqrt((a_VR**2).sum(0))
    spectrum_FR = np.fft.rfft(filled_VR, axis=0)
    parts = []
    for start in range(0, len(phases_NF), CHUNK):
        b_NVR = _surrogates(spectrum_FR, phases_NF[start : start + CHUNK], len(volumes)) * mask_VR
        variance_NR = (b_NVR**2).sum(1) - b_NVR.sum(1) ** 2 / n_R
        parts.append((a_VR * b_NVR).sum(1) / np.sqrt(variance_NR))
    return np.concatenate(parts)


def surrogate_p(observed: float, null: Float) -> float:
    """One-sided p-value ``(k + 1) / (n + 1)``, k of the n surrogates scoring at least as high.

    An undefined score (a constant prediction) ties with every surrogate: p is 1.
    """
    null = np.asarray(null)[np.isfinite(null)]
    if not np.isfinite(observed) or null.size == 0:
        return 1.0
    return float((np.sum(null >= observed) + 1) / (null.size + 1))


def null_band(null: Float, level: float = 0.95) -> tuple[float, float]:
    """Central band that holds ``level`` of the surrogates; NaN twice where there is none."""
    null = np.asarray(null)[np.isfinite(null)]
    if not null.size:
        return float("nan"), float("nan")
    low, high = np.quantile(null, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
