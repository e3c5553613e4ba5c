"""What a recording's page shows of the source files and the store does not keep: a few kB per recording.

Letters: ``C`` channels, ``T`` samples, ``V`` volumes, ``F`` frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.signal import welch

from xsite.recording import Float
from xsite.signals.align import Alignment

STRETCH_S = 60.0
STEP_HZ = 0.5
MAX_HZ = 100.0  # Nyquist frequency of the shared format
MAX_CHANS = 8
BESIDE = 50  # markers before the first and after the last volume that are shown
NEAR = 0.25  # of a TR: a marker farther from the clock belongs to no volume


def marker_summary(markers: Float, alignment: Alignment) -> dict[str, Any]:
    """Every volume marker against the fitted clock of the volumes.

    Parameters
    ----------
    markers : array
        Volume (or slice) markers in seconds from the first EEG sample.
    alignment : Alignment

    Returns
    -------
    dict
        ``n``: markers in the file. ``first``: number of the first marked volume, 0 being the first of the image (dummy
        scans are negative). ``residual_ms``: one per volume from there on, marker minus clock; None without a marker.
    """
    spacing = alignment.t_r_found
    if not len(markers) or not np.isfinite(spacing):
        return {"n": len(markers)}
    numbers_V = np.arange(len(alignment.triggers))
    origin = float(np.median(alignment.triggers - spacing * numbers_V))
    place = (np.sort(markers) - origin) / spacing
    number = np.rint(place).astype(int)
    near = (number >= -BESIDE) & (number < len(numbers_V) + BESIDE)
    place, number = place[near], number[near]
    if not len(number):
        return {"n": len(markers)}
    first, last = int(number.min()), int(number.max())
    residual_V = np.full(last - first + 1, np.nan)
    for tick, off in zip(number - first, (place - number) * spacing, strict=True):
        if abs(off) < NEAR * spacing and not abs(residual_V[tick]) <= abs(off):  # of slice markers, the nearest
            residual_V[tick] = off
    rounded = [None if np.isnan(value) else round(1e3 * float(value), 3) + 0.0 for value in residual_V]
    return {"n": len(markers), "first": first, "residual_ms": rounded}


def stretch(n_times: int, sfreq: float) -> tuple[int, int]:
    """Samples of the minute in the middle of a recording, half-open."""
    length = min(n_times, round(STRETCH_S * sfreq))
    first = (n_times - length) // 2
    return first, first + length


def spectrum_db(eeg_CT: Float, sfreq: float) -> Float:
    """Median spectral density of the channels in dB re 1 uV^2/Hz at 0.5, 1, ... 100 Hz (or half the rate), (F,)."""
    n_window = min(round(sfreq / STEP_HZ), eeg_CT.shape[1])
    freqs_F, density_CF = welch(eeg_CT, fs=sfreq, nperseg=n_window, axis=1)
    wanted_F = np.arange(STEP_HZ, min(MAX_HZ, sfreq / 2) + STEP_HZ / 2, STEP_HZ)
    median_F = np.median(10 * np.log10(np.maximum(density_CF, 1e-12)), axis=0)
    return np.asarray(np.interp(wanted_F, freqs_F, median_F))


def published_spectrum(raw: Any, file_names: Sequence[str], ch_names: Sequence[str], factor: float) -> dict[str, Any]:
    """Spectrum of the EEG as it lies in the file, before anything was removed from it.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Not necessarily loaded: one minute of a few channels is read.
    file_names, ch_names : sequence of str
        The EEG channels' names in the file, and canonical.
    factor : float
        From the file's unit to the one it means.

    Returns
    -------
    dict
        ``ch_names`` whose median is taken, ``density_db`` at multiples of ``step_hz``.
    """
    if not file_names:
        return {}
    rows = sorted({round(row) for row in np.linspace(0, len(file_names) - 1, MAX_CHANS).tolist()})
    sfreq = float(raw.info["sfreq"])
    first, stop = stretch(int(raw.n_times), sfreq)
    eeg_CT = 1e6 * factor * raw.get_data(picks=[file_names[row] for row in rows], start=first, stop=stop)
    return {
        "ch_names": [ch_names[row] for row in rows],
        "step_hz": STEP_HZ,
        "density_db": spectrum_db(eeg_CT, sfreq).round(2).tolist(),
    }
