"""Lagged log band power: the features of the ridge baseline.

Shape letters: ``C`` channels, ``T`` samples, ``V`` volumes, ``W`` volumes with a window, ``L`` lags, ``P`` features.
"""

# ruff: noqa: N802  (properties named like the arrays they stand for)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]

BANDS: dict[str, tuple[float, float]] = {
    "delta": (1, 4),
    "theta": (4, 8),
    "alpha": (8, 13),
    "beta": (13, 30),
    "gamma": (30, 45),
}
"""Hz, lower edge inclusive, upper exclusive."""

_FLOOR = 1e-6  # square microvolt; a silent channel then has a constant, not an infinite, logarithm
_CHUNK = 64  # volumes transformed at once: 64 x 26 channels x 16 s are 21 MB


class BaselineRecording(Protocol):
    """What a baseline reads of a recording; all recordings of one fit hold the same channels in the same order."""

    @property
    def eeg_CT(self) -> Float:
        """Microvolt, shape (C, T)."""
        ...

    @property
    def eeg_valid_T(self) -> Bool:
        """False where samples must not be used."""
        ...

    @property
    def volume_onsets_V(self) -> Float:
        """Seconds from the first EEG sample."""
        ...

    @property
    def volume_valid_V(self) -> Bool:
        """False for volumes that must be neither trained on nor scored."""
        ...

    @property
    def sfreq(self) -> float:
        """Hz."""
        ...

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Names of the C channels; may be empty for models that do not ask where a channel lies."""
        ...


@dataclass(frozen=True, eq=False)
class EegRecording:
    """The smallest :class:`BaselineRecording`; shapes and units as there."""

    eeg_CT: Float
    eeg_valid_T: Bool
    volume_onsets_V: Float
    volume_valid_V: Bool
    sfreq: float
    ch_names: tuple[str, ...] = ()


def window_stops(recording: BaselineRecording, window_s: float) -> tuple[NDArray[np.int64], Bool]:
    """Last sample (exclusive) of each volume's window, and which volumes have a whole, valid window; shapes (V,)."""
    n_times = recording.eeg_CT.shape[1]
    stop_V = np.round(np.asarray(recording.volume_onsets_V) * recording.sfreq).astype(np.int64)
    start_V = stop_V - round(window_s * recording.sfreq)
    bad_before_T = np.concatenate(([0], np.cumsum(~recording.eeg_valid_T)))
    inside_V = (start_V >= 0) & (stop_V <= n_times)
    first, last = np.clip(start_V, 0, n_times), np.clip(stop_V, 0, n_times)
    clean_V = bad_before_T[last] == bad_before_T[first]
    return stop_V, inside_V & clean_V & np.asarray(recording.volume_valid_V, dtype=bool)


def lagged_band_power(recording: BaselineRecording, *, window_s: float, bin_s: float) -> tuple[Float, Bool]:
    """Log power of every channel and band in each bin of the window before a volume.

    Each bin is demeaned, tapered (Hann) and transformed; the power of a band is the mean over its frequencies.

    Parameters
    ----------
    recording : BaselineRecording
    window_s, bin_s : float
        Seconds; the bins lie side by side and end at the volume.

    Returns
    -------
    float32 array, shape (W, C x bands x L)
        Natural logarithm of square microvolt; the last lag is the bin that ends at the volume.
    bool array, shape (V,)
        Volumes that have a window, W of them.
    """
    stop_V, seen_V = window_stops(recording, window_s)
    n_bin, n_lags = round(bin_s * recording.sfreq), round(window_s / bin_s)
    taper = np.hanning(n_bin + 1)[:-1].astype(np.float32)
    freqs = np.fft.rfftfreq(n_bin, 1 / recording.sfreq)
    pick = [(freqs >= low) & (freqs < high) for low, high in BANDS.values()]
    pool = np.stack([p / p.sum() for p in pick], 1).astype(np.float32)
    eeg_CT = np.asarray(recording.eeg_CT)
    chunks = []
    for stops in _chunks(stop_V[seen_V]):
        samples = (stops[:, None] + np.arange(-n_lags * n_bin, 0)).ravel()
        bins = eeg_CT[:, samples].astype(np.float32).reshape(len(eeg_CT), len(stops), n_lags, n_bin)
        bins = (bins - bins.mean(-1, keepdims=True)) * taper
        spectrum = np.fft.rfft(bins)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) / n_bin @ pool
        chunks.append(np.log(power + _FLOOR).transpose(1, 0, 3, 2).reshape(len(stops), -1))
    n_features = len(eeg_CT) * len(BANDS) * n_lags
    return np.concatenate(chunks) if chunks else np.empty((0, n_features), np.float32), seen_V


def _chunks(stops: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [stops[i : i + _CHUNK] for i in range(0, len(stops), _CHUNK)]


def standardise(features_WP: Float) -> Float:
    """Z-score every feature over one recording; a constant feature becomes 0."""
    if len(features_WP) == 0:
        return features_WP
    centred = features_WP - features_WP.mean(0)
    spread = centred.std(0)
    z_WP: Float = centred / np.where(spread > 1e-6, spread, 1)
    return z_WP
