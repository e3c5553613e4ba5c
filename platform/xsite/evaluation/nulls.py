"""What a score looks like without any relation: surrogates of the measured BOLD, phase-randomised or shifted.

Two independent BOLD-like series reject at 15 to 38 % instead of 5 % under the textbook p-value of Pearson's r, the more
the slower they are; against these surrogates at 4 to 7 % (measured, N = 150 to 567). A phase-randomised surrogate keeps
the power spectrum of every parcel and, because all parcels get the same random phases, the correlations between parcels
(Prichard & Theiler 1994, Phys. Rev. Lett. 73, 951). The other kind shifts the measured BOLD in a circle, all parcels by
the same time: it keeps every amplitude and every nonlinearity, but a scan has only about as many different shifts as it
has volumes, and the seam where end meets beginning is a jump. Both take the series to be stationary: two series that
drift through a session in the same direction pass for related under either (docs/real_ds003574.md shows one).

Shape letters: ``V`` volumes, ``R`` parcels, ``F`` frequencies, ``N`` surrogates.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from xsite.evaluation.metrics import pearson_r
from xsite.recording import Bool, Float

Kind = Literal["phase", "shift"]
KINDS: tuple[Kind, ...] = get_args(Kind)

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


def random_shifts(n_volumes: int, n_surrogates: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Circular shifts in volumes, every one but 0 as likely.

    Short shifts stay in although their surrogates resemble the scan: without them the observation is compared with
    fewer relatives than every surrogate has, and unrelated slow series are found related. Leaving out a tenth of the
    scan either way rejected 13 % of unrelated pairs at 5 % nominal (150 volumes, AR(1) of .97), all shifts reject 7 %.

    Returns
    -------
    int array, shape (N,)
    """
    return rng.integers(1, max(n_volumes, 2), n_surrogates)


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
    predicted_VR: Float,
    target_VR: Float,
    scored_V: Bool,
    *,
    surrogates: int,
    rng: np.random.Generator,
    kind: Kind = "phase",
) -> Float:
    """Correlation of a prediction with surrogates of the target, on exactly the volumes that were scored.

    Without gaps between the first and the last scored volume this happens in the frequency domain: the correlation is a
    sum over frequencies, so all surrogates are one matrix product (``shift``: one inverse transform). With gaps, the
    target is interpolated linearly over them, randomised as a whole, and correlated on the scored volumes only.

    Parameters
    ----------
    predicted_VR, target_VR : arrays, shape (V, R)
        Finite on the scored volumes, or NaN throughout a parcel.
    scored_V : bool array, shape (V,)
    surrogates : int
    rng : numpy Generator
    kind : {"phase", "shift"}

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
    mask_VR = scored_V[:, None] & np.isfinite(a_VR) & np.isfinite(b_VR)
    if kind == "shift":
        null_NR[:, good_R] = _null_by_shift(a_VR, b_VR, mask_VR)[random_shifts(len(scored_V), surrogates, rng)]
    elif mask_VR.all():
        null_NR[:, good_R] = _null_by_frequency(a_VR, b_VR, random_phases(len(scored_V), surrogates, rng))
    else:
        null_NR[:, good_R] = _null_with_gaps(a_VR, b_VR, mask_VR, random_phases(len(scored_V), surrogates, rng))
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


def _null_by_shift(a_VR: Float, b_VR: Float, mask_VR: Bool) -> Float:
    """Correlation at every circular shift of ``b``, (V, R): sums over the scored volumes are circular convolutions."""
    unit_VR, filled_VR = _unit_and_filled(a_VR, b_VR, mask_VR)
    filled_VR -= filled_VR.mean(0)  # near 0, so that the difference of squares below does not cancel
    weight_FR, size = np.fft.rfft(mask_VR.astype(float), axis=0), len(a_VR)
    b_FR, square_FR = np.fft.rfft(filled_VR, axis=0), np.fft.rfft(filled_VR**2, axis=0)
    pairs = ((np.fft.rfft(unit_VR, axis=0), b_FR), (weight_FR, b_FR), (weight_FR, square_FR))
    product_VR, sum_VR, energy_VR = (np.fft.irfft(x * np.conj(y), n=size, axis=0) for x, y in pairs)
    variance_VR = energy_VR - sum_VR**2 / mask_VR.sum(0)
    return np.asarray(product_VR / np.sqrt(np.maximum(variance_VR, 1e-12 * energy_VR.max(0))))


def _unit_and_filled(a_VR: Float, b_VR: Float, mask_VR: Bool) -> tuple[Float, Float]:
    """``a`` free of its mean and of norm 1 on the mask, 0 elsewhere; ``b`` interpolated linearly over its gaps."""
    volumes, filled_VR = np.arange(len(mask_VR)), b_VR.copy()
    for r in np.flatnonzero(~mask_VR.all(0)):
        known_V = mask_VR[:, r]
        filled_VR[:, r] = np.interp(volumes, volumes[known_V], b_VR[known_V, r])
    a_VR = np.where(mask_VR, a_VR, 0.0)
    a_VR = np.where(mask_VR, a_VR - a_VR.sum(0) / mask_VR.sum(0), 0.0)
    return a_VR / np.sqrt((a_VR**2).sum(0)), filled_VR


def _null_with_gaps(a_VR: Float, b_VR: Float, mask_VR: Bool, phases_NF: Float) -> Float:
    unit_VR, filled_VR = _unit_and_filled(a_VR, b_VR, mask_VR)
    spectrum_FR = np.fft.rfft(filled_VR, axis=0)
    parts = []
    for start in range(0, len(phases_NF), CHUNK):
        b_NVR = _surrogates(spectrum_FR, phases_NF[start : start + CHUNK], len(mask_VR)) * mask_VR
        variance_NR = (b_NVR**2).sum(1) - b_NVR.sum(1) ** 2 / mask_VR.sum(0)
        parts.append((unit_VR * b_NVR).sum(1) / np.sqrt(variance_NR))
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
