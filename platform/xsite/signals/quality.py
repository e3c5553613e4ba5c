"""Quality figures of one recording: plain floats for the manifest, each with its unit in its name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.signal import welch

from xsite.recording import Bool, Float
from xsite.signals.align import Alignment
from xsite.signals.bold import RawParcels

MAX_CHANS, MAX_SAMPLES = 16, 60_000  # spread evenly: medians of more channels and samples cost seconds and say the same


def line_noise_ratio(eeg_CT: Float, sfreq: float, line_freq: float) -> float:
    """Spectral density at the line frequency over that of its neighbourhood, median over channels; 1 is clean.

    ``line_freq`` +/- 1 Hz against 3 to 6 Hz away on both sides; NaN where the rate is too low to tell.
    """
    if line_freq + 6 > sfreq / 2 or eeg_CT.shape[1] < 2 * sfreq:
        return float("nan")
    some_CT = eeg_CT[:: max(1, len(eeg_CT) // MAX_CHANS)]
    freqs, density_CF = welch(some_CT, fs=sfreq, nperseg=int(2 * sfreq), axis=1)
    away = np.abs(freqs - line_freq)
    peak_C = density_CF[:, away <= 1].mean(1)
    floor_C = density_CF[:, (away >= 3) & (away <= 6)].mean(1)
    return float(np.median(peak_C / np.where(floor_C > 0, floor_C, np.inf)))


def robust_sd(eeg_CT: Float) -> Float:
    """Standard deviation of each channel from its median absolute deviation, shape (C,)."""
    some_CT = eeg_CT[:, :: max(1, eeg_CT.shape[1] // MAX_SAMPLES)]
    centre_C1 = np.median(some_CT, axis=1, keepdims=True)
    return np.asarray(1.4826 * np.median(np.abs(some_CT - centre_C1), axis=1))


def quality_figures(
    *,
    eeg_CT: Float,
    eeg_valid_T: Bool,
    sfreq: float,
    line_freq: float,
    bold_VR: Float,
    volume_valid_V: Bool,
    fd_V: Float | None = None,
    alignment: Alignment | None = None,
    parcels: RawParcels | None = None,
    n_flat: int = 0,
    artifacts: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Figures of one recording; a figure that is not known is left out, so that all values are finite.

    Parameters
    ----------
    eeg_CT, eeg_valid_T, sfreq, line_freq
        Cleaned EEG in microvolt.
    bold_VR, volume_valid_V
        Cleaned parcels in percent signal change.
    fd_V : array, optional
        Framewise displacement in mm.
    alignment, parcels : optional
        From :func:`xsite.signals.align.align` and :func:`xsite.signals.bold.image_to_parcels`.
    n_flat : int
        Channels dropped because they were flat.
    artifacts : mapping of str to float, optional
        Figures of artifact removal (:func:`xsite.signals.artifact_figures.step_figures`).
    """
    usable_CT = eeg_CT[:, eeg_valid_T] if eeg_valid_T.any() else eeg_CT
    sd_C = robust_sd(usable_CT)
    covered_R = np.isfinite(bold_VR).all(0)
    figures = {
        "eeg_robust_sd_uv": float(np.median(sd_C)),
        "eeg_worst_sd_ratio": float(sd_C.max() / max(float(np.median(sd_C)), 1e-12)),
        "eeg_line_noise_ratio": line_noise_ratio(usable_CT, sfreq, line_freq),
        "eeg_valid_fraction": float(eeg_valid_T.mean()),
        "eeg_flat_channels": float(n_flat),
        "bold_valid_fraction": float(volume_valid_V.mean()),
        "bold_parcel_sd_percent": _median(np.std(bold_VR[:, covered_R], axis=0)),
        "bold_parcel_coverage_fraction": float(covered_R.mean()),
    }
    if parcels is not None:
        figures["bold_tsnr"] = parcels.tsnr
        figures["bold_mean_dvars_percent"] = float(parcels.dvars_V[1:].mean())
        figures["bold_min_coverage"] = float(parcels.coverage_R.min())
    if fd_V is not None and np.isfinite(fd_V).any():
        figures["mean_fd_mm"] = float(np.nanmean(fd_V))
    if alignment is not None:
        figures["alignment_jitter_ms"] = alignment.jitter_ms
        figures["t_r_found_s"] = alignment.t_r_found
    figures.update(artifacts or {})
    return {name: float(value) for name, value in figures.items() if np.isfinite(value)}


def _median(values: Float) -> float:
    return float(np.median(values)) if values.size else float("nan")
