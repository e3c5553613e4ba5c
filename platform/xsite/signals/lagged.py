"""EEG band power against BOLD at a range of lags: the simplest sign that the two were recorded together.

Letters: ``B`` bands, ``T`` samples, ``P`` points of the power series, ``V`` volumes, ``L`` lags, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xsite.recording import Float, Recording

BANDS: dict[str, tuple[float, float]] = {
    "delta": (1.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 12.0),
    "beta": (13.0, 30.0),
}
LAGS_S = np.arange(-10.0, 20.5, 0.5)
WINDOW_S = 2.0
MIN_VOLUMES = 30


def band_power(recording: Recording, bands: Sequence[tuple[float, float]]) -> tuple[Float, Float]:
    """Log power of each band, mean over channels, in consecutive windows of 2 s; NaN where the EEG is not valid.

    Returns
    -------
    times_P : array
        Middle of each window in seconds from the first sample.
    power_BP : array
    """
    n = round(WINDOW_S * recording.sfreq)
    n_windows = recording.eeg.shape[1] // n
    freqs = np.fft.rfftfreq(n, 1 / recording.sfreq)
    power_BP = np.zeros((len(bands), n_windows))
    for channel_T in recording.eeg:
        cut_PN = channel_T[: n_windows * n].reshape(n_windows, n).astype(np.float64)
        density_PF = np.abs(np.fft.rfft((cut_PN - cut_PN.mean(1, keepdims=True)) * np.hanning(n), axis=1)) ** 2
        for b, (low, high) in enumerate(bands):
            inside = density_PF[:, (freqs >= low) & (freqs <= high)].mean(1)
            power_BP[b] += np.log(np.maximum(inside, 1e-12)) / len(recording.eeg)
    valid_P = recording.eeg_valid[: n_windows * n].reshape(n_windows, n).all(1)
    power_BP[:, ~valid_P] = np.nan
    return (np.arange(n_windows) + 0.5) * WINDOW_S, power_BP


def lagged_correlation(times_P: Float, power_P: Float, recording: Recording, lags_s: Float = LAGS_S) -> Float:
    """Pearson correlation of a power series with every parcel; positive lags: the BOLD follows the EEG.

    Returns
    -------
    array, shape (R, L)
        NaN for parcels that are missing, and lags with fewer than 30 common volumes.
    """
    known_P = np.isfinite(power_P)
    found_RL = np.full((recording.bold.shape[1], len(lags_s)), np.nan)
    covered_R = np.isfinite(recording.bold).all(0)
    if known_P.sum() < 2 or not covered_R.any():
        return found_RL
    step = float(times_P[1] - times_P[0])
    for column, lag in enumerate(lags_s):
        wanted_V = recording.volume_onsets - lag
        power_V = np.interp(wanted_V, times_P[known_P], power_P[known_P])
        nearest_V = np.clip(np.rint((wanted_V - times_P[0]) / step).astype(int), 0, len(times_P) - 1)
        inside_V = (wanted_V >= times_P[0]) & (wanted_V <= times_P[-1]) & known_P[nearest_V] & recording.volume_valid
        if inside_V.sum() < MIN_VOLUMES:
            continue
        x_V = power_V[inside_V] - power_V[inside_V].mean()
        y_VR = recording.bold[inside_V][:, covered_R] - recording.bold[inside_V][:, covered_R].mean(0)
        size_R = np.sqrt((x_V**2).sum() * (y_VR**2).sum(0))
        found_RL[covered_R, column] = x_V @ y_VR / np.where(size_R > 0, size_R, np.nan)
    return found_RL


def chance_band(recording: Recording, times_P: Float, power_P: Float) -> float:
    """Half width of the 95 % band of a correlation by chance, of two series that are each smooth in time.

    Bartlett's effective number of samples, from the autocorrelations of the power series and of the mean parcel.
    """
    valid = recording.volume_valid
    bold_V = np.nan_to_num(np.where(np.isfinite(recording.bold), recording.bold, 0).mean(1))[valid]
    known = np.isfinite(power_P)
    if known.sum() < MIN_VOLUMES or valid.sum() < MIN_VOLUMES:
        return float("nan")
    power_V = np.interp(recording.volume_onsets[valid], times_P[known], power_P[known])
    n = len(bold_V)
    reach = min(n // 4, 40)
    both = _autocorrelation(bold_V, reach) * _autocorrelation(power_V, reach)
    weights = 1 - np.arange(1, reach + 1) / n
    n_effective = n / max(1.0, 1 + 2 * float((weights * both).sum()))
    return float(1.96 / np.sqrt(max(n_effective, 4.0)))


def _autocorrelation(series: Float, reach: int) -> Float:
    centred = series - series.mean()
    total = float((centred**2).sum()) or 1.0
    return np.array([float((centred[k:] * centred[:-k]).sum()) / total for k in range(1, reach + 1)])
