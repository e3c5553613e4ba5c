"""Pulse (ballistocardiogram) artifact: averages of neighbouring beats, or MNE's optimal basis set.

Done at the rate of the shared format, after gradient removal: the artifact lies below 20 Hz, and 200 Hz costs 25 times
less than 5 kHz. Letters: ``C`` channels, ``T`` samples, ``B`` beats, ``N`` samples of a beat.
"""

from __future__ import annotations

from typing import Any, Literal

import mne
import numpy as np

from xsite.errors import ChannelError
from xsite.recording import Float
from xsite.signals.artifact_figures import ALPHA_HZ, band_power

PulseMethod = Literal["aas", "pca-obs"]
DELAY_S = 0.21  # from the R peak to the middle of the artifact (Allen et al. 1998, NeuroImage 8:229)
NEIGHBOURS = 20
N_COMPONENTS = 4
MIN_BEATS = 10


def remove_pulse(
    eeg_CT: Float,
    beats: Float,
    sfreq: float,
    *,
    method: PulseMethod,
    delay_s: float = DELAY_S,
    neighbours: int = NEIGHBOURS,
    source: str = "EEG",
) -> tuple[Float, dict[str, Any]]:
    """Subtract the pulse artifact.

    Parameters
    ----------
    eeg_CT : array, shape (C, T)
        Microvolt.
    beats : array, shape (B,)
        R peaks in seconds (or pulse peaks, with ``delay_s=0``).
    sfreq : float
    method : {"aas", "pca-obs"}
        "aas": mean of the neighbouring beats. "pca-obs": :func:`mne.preprocessing.apply_pca_obs`, mean beat and four
        principal components, fitted to each beat: follows a changing artifact, but where alpha is strong it becomes a
        component and most of it goes (0.15 of its power was kept in a simulation); read ``alpha_kept``.
    delay_s : float
        From the beat to the middle of the artifact.
    neighbours : int
        Beats that form an average.
    source : str
        File name for messages.

    Returns
    -------
    eeg_CT : float32 array
        A new array.
    step : dict
        Parameters; beat-locked amplitude before and after (microvolt, median over channels); alpha power kept.

    Raises
    ------
    ChannelError
        Too few beats.
    """
    beats = np.sort(np.asarray(beats, dtype=np.float64))
    if len(beats) < MIN_BEATS:
        raise ChannelError(f"{source}: {len(beats)} heart beats; pulse correction needs at least {MIN_BEATS}")
    data_CT = np.asarray(eeg_CT, dtype=np.float64)
    if method == "aas":
        clean_CT = _averages(data_CT, beats + delay_s, sfreq, min(neighbours, len(beats) - 1))
    else:
        clean_CT = _basis_set(data_CT, beats + delay_s, sfreq)
    before, after = (locked_amplitude(x_CT, beats + delay_s, sfreq) for x_CT in (data_CT, clean_CT))
    kept_C = band_power(clean_CT, sfreq, ALPHA_HZ) / np.maximum(band_power(data_CT, sfreq, ALPHA_HZ), 1e-30)
    step = {
        "step": "pulse artifact removal",
        "method": "average of neighbouring beats" if method == "aas" else f"PCA-OBS, mne {mne.__version__}",
        "n_beats": len(beats),
        "beats_per_minute": 60 / float(np.median(np.diff(beats))),
        "delay_s": delay_s,
        "locked_before_uv": before,
        "locked_after_uv": after,
        "alpha_kept": float(np.median(kept_C)),
    }
    return clean_CT.astype(np.float32), step


def locked_amplitude(data_CT: Float, centres: Float, sfreq: float) -> float:
    """Standard deviation of the mean beat in microvolt, median over channels: what is locked to the heart."""
    half = int(np.median(np.diff(centres)) * sfreq / 2)
    middles = np.rint(centres * sfreq).astype(int)
    middles = middles[(middles >= half) & (middles < data_CT.shape[1] - half)]
    if len(middles) == 0:
        return float("nan")
    mean_CN = np.zeros((len(data_CT), 2 * half))
    for middle in middles:
        mean_CN += data_CT[:, middle - half : middle + half]
    return float(np.median((mean_CN / len(middles)).std(1)))


def _averages(data_CT: Float, centres: Float, sfreq: float, n: int) -> Float:
    """Template: mean of the nearest other beats, each around its own mean; ends where the next beat's begins."""
    gaps = np.diff(centres)
    half = int(np.ceil(0.6 * np.median(gaps) * sfreq))
    middles = np.rint(centres * sfreq).astype(int)
    n_times = data_CT.shape[1]
    padded_CT = np.pad(data_CT, ((0, 0), (half, half)), mode="edge")
    borders = np.rint((centres[1:] + centres[:-1]) / 2 * sfreq).astype(int)
    lows = np.maximum(np.concatenate([[0], borders]), middles - half)
    highs = np.minimum(np.concatenate([borders, [n_times]]), middles + half)
    inside = np.flatnonzero((middles >= 0) & (middles < n_times))
    whole = inside[(middles[inside] >= half) & (middles[inside] + half <= n_times)]
    clean_CT = data_CT.copy()
    total_CN: Float = np.zeros((len(data_CT), 2 * half))
    held = (0, 0)
    for beat in inside:
        place = int(np.searchsorted(whole, beat))
        first = min(max(0, place - n // 2), max(0, len(whole) - n - 1))
        window = (first, min(first + n + 1, len(whole)))
        total_CN = _moved(total_CN, held, window, padded_CT, middles[whole], half)
        held = window
        own = window[0] <= place < window[1] and whole[place] == beat
        others_CN = total_CN - _beat(padded_CT, middles[beat], half) if own else total_CN
        template_CN = others_CN / max(1, window[1] - window[0] - own)
        lo, hi = max(0, lows[beat]), min(n_times, highs[beat])
        part_CN = template_CN[:, lo - middles[beat] + half : hi - middles[beat] + half]
        clean_CT[:, lo:hi] -= _ramped(part_CN, int(0.04 * sfreq))
    return clean_CT


def _beat(padded_CT: Float, middle: int, half: int) -> Float:
    part_CN = padded_CT[:, middle : middle + 2 * half]
    return np.asarray(part_CN - part_CN.mean(1, keepdims=True))


def _moved(
    total_CN: Float, held: tuple[int, int], window: tuple[int, int], padded_CT: Float, middles: Any, half: int
) -> Float:
    """Running sum over the beats of a window: only those that come in or go out are touched."""
    for index in range(held[0], min(held[1], window[0])):
        total_CN = total_CN - _beat(padded_CT, middles[index], half)
    for index in range(max(held[1], window[0]), window[1]):
        total_CN = total_CN + _beat(padded_CT, middles[index], half)
    return total_CN


def _ramped(part_CN: Float, n_ramp: int) -> Float:
    """Fade both ends in, so that subtraction makes no steps."""
    n_ramp = min(n_ramp, part_CN.shape[1] // 2)
    ramp = np.ones(part_CN.shape[1])
    if n_ramp:
        ramp[:n_ramp] = (np.arange(n_ramp) + 0.5) / n_ramp
        ramp[-n_ramp:] = ramp[:n_ramp][::-1]
    return part_CN * ramp


def _basis_set(data_CT: Float, centres: Float, sfreq: float) -> Float:
    info = mne.create_info(len(data_CT), sfreq, "eeg")
    raw = mne.io.RawArray(data_CT * 1e-6, info, verbose="error")
    inside = centres[(centres >= 0) & (centres < (data_CT.shape[1] - 1) / sfreq)]
    means_C1 = data_CT.mean(1, keepdims=True)  # MNE's takes the mean away
    mne.preprocessing.apply_pca_obs(
        raw, list(raw.ch_names), qrs_times=inside, n_components=N_COMPONENTS, copy=False, verbose="error"
    )
    return np.asarray(raw.get_data() * 1e6 + means_C1)
