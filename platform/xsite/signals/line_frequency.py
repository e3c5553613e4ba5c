"""The mains frequency as the EEG itself shows it: a peak at 50 or 60 Hz, or the hole that a notch filter left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xsite.recording import Float
from xsite.signals.quality import line_noise_ratio

CANDIDATES = (50.0, 60.0)
N_CHANNELS = 8
LOOK_S = 30.0
MIN_S = 4.0
CLEAR = 1.5  # how much more one of the two must stand out than the other


@dataclass(frozen=True)
class LineFrequency:
    """What the spectrum says.

    Parameters
    ----------
    freq : float, optional
        50 or 60 Hz; ``None`` where neither stands out.
    words : str
        With the ratios that it rests on.
    """

    freq: float | None
    words: str


def measured_line_frequency(raw: Any, scan: tuple[float, float] | None = None) -> LineFrequency:
    """Measure the mains frequency in a few EEG channels, outside of the scan where there is enough EEG.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    scan : (float, float), optional
        First and last volume trigger in seconds from the first sample: harmonics of the gradient artifact look like
        mains.
    """
    sfreq, duration = float(raw.info["sfreq"]), raw.n_times / float(raw.info["sfreq"])
    start, stop = _stretch(duration, scan)
    kinds = np.array(raw.get_channel_types())
    eeg = np.flatnonzero(kinds == "eeg")
    picks = eeg[:: max(1, len(eeg) // N_CHANNELS)][:N_CHANNELS]
    if not len(picks) or stop - start < MIN_S:
        return LineFrequency(None, "too little EEG to measure it")
    eeg_CT: Float = raw.get_data(picks=picks, start=int(start * sfreq), stop=int(stop * sfreq)) * 1e6
    ratios = [line_noise_ratio(eeg_CT, sfreq, freq) for freq in CANDIDATES]
    if not np.isfinite(ratios).all():
        return LineFrequency(None, f"the sampling rate of {sfreq:g} Hz is too low to measure it")
    said = ", ".join(f"{freq:g} Hz {ratio:.2g} times" for freq, ratio in zip(CANDIDATES, ratios, strict=True))
    words = f"power beside its neighbourhood from {start:.0f} to {stop:.0f} s: {said}"
    peaks = np.array(ratios)
    holes = 1 / np.maximum(peaks, 1e-9)
    for standing, what in ((peaks, ""), (holes, ", notched out")):
        order = np.argsort(standing)[::-1]
        if standing[order[0]] > CLEAR and standing[order[0]] > CLEAR * standing[order[1]]:
            return LineFrequency(CANDIDATES[int(order[0])], words + what)
    return LineFrequency(None, words)


def _stretch(duration: float, scan: tuple[float, float] | None) -> tuple[float, float]:
    """Seconds to look at: before the scan, after it, or in the middle."""
    if scan is not None and scan[0] >= MIN_S:
        return max(0.0, scan[0] - LOOK_S), scan[0]
    if scan is not None and duration - scan[1] >= MIN_S + 4:
        return scan[1] + 4, min(duration, scan[1] + 4 + LOOK_S)
    middle = duration / 2
    return max(0.0, middle - LOOK_S / 2), min(duration, middle + LOOK_S / 2)
