"""What a correction took away and what it left: power at the artifact's harmonics, alpha between them.

Letters: ``C`` channels, ``T`` samples, ``F`` frequencies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xsite.recording import Bool, Float
from xsite.signals.volume_train import VolumeTrain

ALPHA_HZ = (8.0, 12.0)
BAND_HZ = (1.0, 100.0)  # what the shared format keeps
N_STRONGEST = 10
MAX_VOLUMES = 16
MIN_LEAD_S = 4.0


def gradient_figures(raw: Any, corrected: Any, picks: Sequence[int], train: VolumeTrain) -> dict[str, float]:
    """Figures of gradient removal from consecutive volumes in the middle of the scan, medians over channels.

    Returns
    -------
    dict of str to float
        ``rms_before_uv``, ``rms_after_uv``: broad-band. ``harmonics_before_db``, ``harmonics_after_db``: power at the
        ten strongest multiples of the volume frequency below 100 Hz over the uncorrected EEG between them.
        ``alpha_kept``: alpha power after over before (1.125 where eight neighbours form a template: their own alpha
        comes in); ``alpha_to_lead_in``: the same after
        correction over that of the artifact-free EEG before the scan, where there is enough of it (brains change
        their alpha: read it as an order of magnitude). Figures that cannot be told are left out.
    """
    rows = train.longest
    middle = rows[max(0, len(rows) // 2 - MAX_VOLUMES // 2) :][:MAX_VOLUMES]
    start, stop = int(train.starts_V[middle[0]]), int(train.starts_V[middle[-1]]) + train.spacing
    sfreq = float(raw.info["sfreq"])
    before_CT = 1e6 * raw.get_data(list(picks), start, stop)
    after_CT = 1e6 * corrected.get_data(list(picks), start, stop)
    freqs_F, before_CF = _spectrum(before_CT, sfreq)
    _, after_CF = _spectrum(after_CT, sfreq)
    figures = {
        "rms_before_uv": float(np.median(before_CT.std(1))),
        "rms_after_uv": float(np.median(after_CT.std(1))),
        **harmonic_figures(freqs_F, before_CF, after_CF, len(middle) * sfreq / (stop - start)),
    }
    lead = int(train.firsts_V[0])
    n_lead = min(lead, stop - start)
    if n_lead >= MIN_LEAD_S * sfreq:
        rest_C = band_power(1e6 * raw.get_data(list(picks), lead - n_lead, lead), sfreq, ALPHA_HZ)
        alpha = (freqs_F >= ALPHA_HZ[0]) & (freqs_F <= ALPHA_HZ[1])
        figures["alpha_to_lead_in"] = _median_ratio(after_CF[:, alpha].mean(1), rest_C)
    return {name: value for name, value in figures.items() if np.isfinite(value)}


def step_figures(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The figures of a recording's processing steps as quality figures, named after the artifact."""
    prefixes = {"gradient removal": "gradient", "loop regression": "loops", "pulse artifact removal": "pulse"}
    kept = ("_db", "_uv", "alpha_kept", "alpha_to_lead_in", "variance_removed", "beats_per_minute")
    return {
        f"{prefixes[step['step']]}_{name}": float(value)
        for step in steps
        if step["step"] in prefixes
        for name, value in step.items()
        if name.endswith(kept) and isinstance(value, int | float)
    }


def harmonic_figures(freqs_F: Float, before_CF: Float, after_CF: Float, base_hz: float) -> dict[str, float]:
    """Power at multiples of ``base_hz`` over the floor between them in dB, and the share of alpha power kept.

    Before correction alpha can be told between the harmonics only; after it, all of the band counts, because
    templates of neighbours dig holes at the harmonics and add as much between them.
    """
    peaks, between = _masks(freqs_F, base_hz, BAND_HZ)
    floor_C = before_CF[:, between].mean(1)
    order = np.argsort(-np.median(before_CF[:, peaks], axis=0))[:N_STRONGEST]
    alpha = (freqs_F >= ALPHA_HZ[0]) & (freqs_F <= ALPHA_HZ[1])
    figures = {
        "harmonics_before_db": _db(before_CF[:, peaks][:, order].mean(1), floor_C),
        "harmonics_after_db": _db(after_CF[:, peaks][:, order].mean(1), floor_C),
    }
    if (alpha & between).any():
        figures["alpha_kept"] = _median_ratio(after_CF[:, alpha].mean(1), before_CF[:, alpha & between].mean(1))
    return figures


def band_power(data_CT: Float, sfreq: float, band: tuple[float, float]) -> Float:
    """Mean spectral density of a band, shape (C,)."""
    freqs_F, density_CF = _spectrum(data_CT, sfreq)
    return np.asarray(density_CF[:, (freqs_F >= band[0]) & (freqs_F <= band[1])].mean(1))


def _spectrum(data_CT: Float, sfreq: float) -> tuple[Float, Float]:
    """Hann periodogram: a periodic artifact stays within two bins of its harmonics."""
    n = data_CT.shape[1]
    window_T = np.hanning(n)
    density_CF = np.abs(np.fft.rfft((data_CT - data_CT.mean(1, keepdims=True)) * window_T, axis=1)) ** 2
    return np.fft.rfftfreq(n, 1 / sfreq), density_CF / (sfreq * np.sum(window_T**2))


def _masks(freqs_F: Float, base_hz: float, band: tuple[float, float]) -> tuple[Bool, Bool]:
    inside = (freqs_F >= band[0]) & (freqs_F <= band[1])
    bins = np.abs(freqs_F - base_hz * np.rint(freqs_F / base_hz)) / freqs_F[1]
    return inside & (bins < 0.6), inside & (bins > 2.5)


def _db(power_C: Float, floor_C: Float) -> float:
    return 10 * float(np.log10(np.median(power_C / np.where(floor_C > 0, floor_C, np.inf)) or np.nan))


def _median_ratio(after_C: Float, before_C: Float) -> float:
    return float(np.median(after_C / np.where(before_C > 0, before_C, np.nan)))
