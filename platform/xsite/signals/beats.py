"""Heart beats from an ECG, or from the pulse artifact in the EEG itself where there is no ECG.

Two passes: peaks of the squared slope give a first shape of the beat; its matched filter, sign and all, then finds the
beats that the first pass missed or took twice. Letters: ``C`` channels, ``T`` samples, ``B`` beats.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, find_peaks, sosfiltfilt

from xsite.errors import ChannelError
from xsite.recording import Float

ECG_HZ = (5.0, 30.0)  # below: the T wave, which a magnetic field makes as high as the R peak
PULSE_HZ = (1.0, 12.0)
LONGEST_RATE = 130.0  # beats per minute; twins closer than this are one beat
RATE_RANGE = (35.0, 130.0)
SURROGATES = ("TP10", "TP9", "FT10", "FT9", "P8", "P7", "T8", "T7")


def beats_from_ecg(ecg_T: Float, sfreq: float, *, source: str = "EEG") -> Float:
    """R peaks in seconds.

    Parameters
    ----------
    ecg_T : array, shape (T,)
        Any unit and sign, without gradient artifact.
    sfreq : float
    source : str
        File name for messages.

    Raises
    ------
    ChannelError
        Flat, or no regular heart beat (35 to 130 per minute) in it.
    """
    return _beats(_band(ecg_T, sfreq, ECG_HZ), sfreq, half_s=0.06, source=f"{source}: the ECG")


def beats_from_eeg(eeg_CT: Float, ch_names: tuple[str, ...], sfreq: float, *, source: str = "EEG") -> tuple[Float, str]:
    """Beats in seconds from the pulse artifact, which comes about 0.2 s after the R peak, and what they were found in.

    The difference of the two sides of the head (``TP10`` - ``TP9`` where they exist), on which the artifact has
    opposite signs, or the first principal component of all channels: the more regular one.

    Raises
    ------
    ChannelError
        No regular heart beat in either.
    """
    slow_CT = np.stack([_band(channel_T, sfreq, PULSE_HZ) for channel_T in eeg_CT])
    candidates: dict[str, Float] = {}
    found = [name for name in SURROGATES if name in ch_names]
    for right, left in zip(SURROGATES[::2], SURROGATES[1::2], strict=True):
        if right in found and left in found:
            pair = f"{right} - {left}"
            candidates[pair] = slow_CT[ch_names.index(right)] - slow_CT[ch_names.index(left)]
            break
    _, vectors = np.linalg.eigh(slow_CT @ slow_CT.T)
    candidates["first principal component"] = vectors[:, -1] @ slow_CT
    best: tuple[float, Float, str] | None = None
    problems = []
    for name, signal_T in candidates.items():
        try:
            beats = _beats(signal_T, sfreq, half_s=0.25, source=f"{source}: {name}")
        except ChannelError as error:
            problems.append(str(error))
            continue
        spread = float(np.std(np.diff(beats)) / np.mean(np.diff(beats)))
        if best is None or spread < best[0]:
            best = spread, beats, name
    if best is None:
        raise ChannelError("; ".join(problems))
    return best[1], best[2]


def _band(signal_T: Float, sfreq: float, band: tuple[float, float]) -> Float:
    high = min(band[1], 0.45 * sfreq)
    sos = butter(2, (band[0], high), "bandpass", fs=sfreq, output="sos")
    return np.asarray(sosfiltfilt(sos, np.asarray(signal_T, dtype=np.float64)))


def _beats(signal_T: Float, sfreq: float, half_s: float, source: str) -> Float:
    spread = 1.4826 * float(np.median(np.abs(signal_T - np.median(signal_T))))
    if not np.isfinite(spread) or spread == 0:
        raise ChannelError(f"{source} is flat or not a number: no heart beats in it")
    clipped_T = np.clip(signal_T, -20 * spread, 20 * spread)  # movements must not set the scale
    apart = int(60 / LONGEST_RATE * sfreq)
    energy_T = np.convolve(np.gradient(clipped_T) ** 2, np.hanning(max(3, int(0.12 * sfreq))), mode="same")
    peaks, _ = find_peaks(energy_T, distance=apart, height=_threshold(energy_T, apart))
    half = max(2, int(half_s * sfreq))
    for _ in range(3):
        peaks = peaks[(peaks >= 2 * half) & (peaks < len(signal_T) - 2 * half)]
        if len(peaks) < 5:
            raise ChannelError(f"{source} shows {len(peaks)} heart beats in {len(signal_T) / sfreq:.0f} s")
        shape_T = _aligned_shape(clipped_T, peaks, half)
        match_T = np.correlate(clipped_T, shape_T - shape_T.mean(), mode="same")
        peaks, _ = find_peaks(match_T, distance=apart, height=_threshold(match_T, apart))
    if len(peaks) < 5:
        raise ChannelError(f"{source} shows {len(peaks)} heart beats in {len(signal_T) / sfreq:.0f} s")
    offset = int(np.argmax(np.abs(shape_T))) - half  # the match peaks at the middle of the shape, not at its top
    beats = (peaks + offset) / sfreq
    rate = 60 / float(np.median(np.diff(beats)))
    if not RATE_RANGE[0] <= rate <= RATE_RANGE[1]:
        raise ChannelError(f"{source} beats at {rate:.0f} per minute, outside {RATE_RANGE[0]:g} to {RATE_RANGE[1]:g}")
    return np.asarray(beats[(beats >= 0) & (beats < len(signal_T) / sfreq)])


def _threshold(signal_T: Float, apart: int) -> float:
    """Half of the usual height of a beat: the median of the highest values of stretches that hold one at least."""
    stretch = 4 * apart
    n = max(1, len(signal_T) // stretch)
    return 0.4 * float(np.median([part.max() for part in np.array_split(signal_T, n)]))


def _aligned_shape(signal_T: Float, peaks: Float, half: int) -> Float:
    """Mean beat; each is moved to where it fits the mean best, twice, because first peaks jitter."""
    centres = np.asarray(peaks).astype(int)
    shape_T = np.median([signal_T[peak - half : peak + half + 1] for peak in centres], axis=0)
    for _ in range(2):
        moved = []
        for peak in centres:
            near_T = signal_T[max(0, peak - 2 * half) : peak + 2 * half + 1]
            if len(near_T) < 4 * half + 1:
                continue
            lag = int(np.argmax(np.correlate(near_T, shape_T, mode="valid"))) - half
            if half <= peak + lag < len(signal_T) - half:
                moved.append(signal_T[peak + lag - half : peak + lag + half + 1])
        shape_T = np.mean(moved, axis=0)
    return np.asarray(shape_T)
