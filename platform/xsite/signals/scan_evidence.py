"""What shows the scan apart from its markers: first and last gradient artifact in raw EEG, a task event in scan time.

The artifact is found without reading the whole file: windows of one TR are probed across the recording, the change
from quiet to loud and back is bisected, and only its surroundings are read at full rate. Loud counts as artifact only
if it repeats with the TR.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xsite.recording import Bool, Float

N_CHANNELS = 5
N_PROBES = 24
LOUDER = 4.0  # steps from sample to sample: an artifact of millivolts is a hundred times brain and mains
REPEATS = 0.5  # least correlation of one TR with the next
BIN_S = 0.004  # grain of onset and end
RESOLUTION_S = 0.025  # how well the artifact's onset gives the volume's: scanners trigger milliseconds before it


@dataclass(frozen=True)
class ScanEvidence:
    """Times of the scan on the EEG clock, in seconds from the first sample; ``None`` where nothing shows them.

    Parameters
    ----------
    artifact_onset, artifact_end : float, optional
        Begin of the first volume with a gradient artifact (dummy scans included), end of the last one.
    protocol_onset : float, optional
        Trigger of the first volume of the image, counted from a task marker.
    resolution : float
        How far the artifact's onset may lie from its volume's trigger.
    """

    artifact_onset: float | None = None
    artifact_end: float | None = None
    protocol_onset: float | None = None
    resolution: float = RESOLUTION_S


def scan_evidence(
    raw: Any,
    t_r: float,
    markers: Float | None = None,
    *,
    protocol_first: float | None = None,
    protocol_offset: float | None = None,
    artifact: bool = True,
) -> ScanEvidence:
    """Look for the first and the last volume of the scan in the EEG, independently of when the markers say they were.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        Volt, not necessarily loaded; read in small pieces from a few channels.
    t_r : float
        Repetition time in seconds.
    markers : array, optional
        Volume markers; only their spacing is used, as the TR on the EEG clock.
    protocol_first : float, optional
        First occurrence of the protocol marker, in seconds from the first EEG sample.
    protocol_offset : float, optional
        Seconds from the trigger of the first volume to that occurrence.
    artifact : bool
        Whether to look for the artifact (not in EEG that was corrected).
    """
    protocol = None
    if protocol_first is not None and protocol_offset is not None:
        protocol = protocol_first - protocol_offset
    onset, end = _artifact(_Signal(raw), _spacing(t_r, markers)) if artifact else (None, None)
    return ScanEvidence(onset, end, protocol)


def _spacing(t_r: float, markers: Float | None) -> float:
    if markers is None or len(markers) < 3:
        return t_r
    steps = np.diff(np.sort(np.asarray(markers, dtype=np.float64)))
    near = steps[np.abs(steps / t_r - 1) < 0.01]
    return float(near.mean()) if len(near) else t_r


class _Signal:
    """Sample-to-sample steps of a few channels, read piece by piece."""

    def __init__(self, raw: Any) -> None:
        kinds = np.array(raw.get_channel_types())
        eeg = np.flatnonzero(kinds == "eeg")
        eeg = eeg if len(eeg) else np.arange(len(kinds))
        self.picks = eeg[np.unique(np.linspace(0, len(eeg) - 1, N_CHANNELS).round().astype(int))]
        self.raw, self.sfreq, self.n_times = raw, float(raw.info["sfreq"]), int(raw.n_times)
        self.duration = self.n_times / self.sfreq

    def differences(self, start_s: float, length_s: float) -> Float:
        """Differences of neighbouring samples from ``start_s`` on, shape (C, T)."""
        start = int(np.clip(round(start_s * self.sfreq), 0, self.n_times - 2))
        stop = int(np.clip(start + round(length_s * self.sfreq) + 1, start + 2, self.n_times))
        return np.diff(self.raw.get_data(picks=self.picks, start=start, stop=stop))

    def loudness(self, start_s: float, length_s: float) -> float:
        """Median over channels of the RMS step, in volt."""
        return float(np.median(np.sqrt((self.differences(start_s, length_s) ** 2).mean(axis=1))))


def _artifact(signal: _Signal, t_r: float) -> tuple[float | None, float | None]:
    if signal.duration < 6 * t_r:
        return None, None
    starts = np.linspace(0, signal.duration - t_r, N_PROBES)
    levels = np.array([signal.loudness(start, t_r) for start in starts])
    loud = _loud(levels)
    if loud is None:
        return None, None
    first, last = _longest(loud)
    quiet, noisy = float(np.median(levels[~loud])), float(np.median(levels[loud]))
    middle = (starts[first] + starts[last]) / 2
    if not _repeats(signal, middle, t_r):
        return None, None
    limit = float(np.sqrt(quiet * noisy))
    onset = end = None
    if first > 0:
        rough = _bisect(signal, starts[first - 1], starts[first], t_r, limit)
        onset = _edge(signal, rough, t_r, middle, rising=True)
    if last < N_PROBES - 1:
        rough = _bisect(signal, starts[last + 1], starts[last], t_r, limit)
        end = _edge(signal, rough + t_r, t_r, middle, rising=False)
        end = None if end is None else _whole(signal, onset, end, t_r, middle)
    return onset, end


def _loud(levels: Float) -> Bool | None:
    """Windows with artifact; ``None`` where they do not stand out (none has it, or all have)."""
    order = np.sort(np.maximum(levels, 1e-12))
    cut = int(np.argmax(order[1:] / order[:-1]))
    if order[cut + 1] / order[cut] < 1.5 or np.median(order[cut + 1 :]) / np.median(order[: cut + 1]) < LOUDER:
        return None
    return np.asarray(levels > np.sqrt(order[cut] * order[cut + 1]))


def _longest(loud: Bool) -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    longest = int(np.argmax(runs[:, 1] - runs[:, 0]))
    return int(runs[longest, 0]), int(runs[longest, 1]) - 1


def _repeats(signal: _Signal, middle: float, t_r: float) -> bool:
    n = round(t_r * signal.sfreq)
    steps_CT = signal.differences(middle - t_r, 2.2 * t_r)
    best = 0.0
    for shift in range(-2, 3):  # the two clocks need not share a sample grid
        lag = n + shift
        width = min(n, steps_CT.shape[1] - lag)
        pairs = zip(steps_CT[:, :width], steps_CT[:, lag : lag + width], strict=True)
        best = max(best, float(np.median([np.corrcoef(one, two)[0, 1] for one, two in pairs])))
    return best >= REPEATS


def _bisect(signal: _Signal, quiet: float, noisy: float, t_r: float, limit: float) -> float:
    """Start of a window at the change between a quiet and a noisy one, to a quarter of a TR."""
    while abs(noisy - quiet) > t_r / 4:
        half = (quiet + noisy) / 2
        if signal.loudness(half, t_r) > limit:
            noisy = half
        else:
            quiet = half
    return noisy


def _energy(signal: _Signal, start_s: float, length_s: float) -> tuple[float, Float]:
    """Time of the first bin, and mean squared step per bin (median over channels)."""
    start_s = max(0.0, start_s)
    width = max(1, round(BIN_S * signal.sfreq))
    steps_CT = signal.differences(start_s, length_s)
    n_bins = steps_CT.shape[1] // width
    binned = (steps_CT[:, : n_bins * width] ** 2).reshape(len(steps_CT), n_bins, width).mean(axis=2)
    return round(start_s * signal.sfreq) / signal.sfreq, np.median(binned, axis=0)


def _edge(signal: _Signal, rough: float, t_r: float, middle: float, *, rising: bool) -> float | None:
    """First (last) moment at which the artifact is on; ``None`` where the quiet side is not in the file."""
    begin, energy_B = _energy(signal, rough - 2 * t_r, 4 * t_r)
    _, inside_B = _energy(signal, middle, t_r)
    seconds = max(1, round(BIN_S * signal.sfreq)) / signal.sfreq
    n = round(t_r / seconds)
    energy_B = energy_B if rising else energy_B[::-1]
    full, quiet = float(inside_B.mean()), float(np.median(energy_B[: max(1, n // 2)]))
    if quiet > 0.25 * full:
        return None
    on_B = energy_B > max(6 * quiet, 0.02 * full)
    usual = float((inside_B > max(6 * quiet, 0.02 * full)).mean())
    following = np.concatenate([[0.0], np.cumsum(energy_B)])
    short, long = max(2, n // 10), n
    active = np.concatenate([[0], np.cumsum(on_B)])
    for at in np.flatnonzero(on_B).tolist():
        stop, near = min(at + long, len(energy_B)), min(at + short, len(energy_B))
        lasting = (following[stop] - following[at]) / (stop - at) > 0.5 * full
        if lasting and (active[near] - active[at]) / (near - at) > 0.3 * usual:
            return float(begin + (at if rising else len(energy_B) - at) * seconds)
    return None


def _whole(signal: _Signal, onset: float | None, end: float, t_r: float, middle: float) -> float:
    """Add the silent rest of a volume whose slices do not fill the TR; a volume that was cut off stays as it is."""
    if onset is None:
        return end
    start = onset + np.floor((middle - onset) / t_r) * t_r
    begin, energy_B = _energy(signal, start, 2 * t_r)
    seconds = max(1, round(BIN_S * signal.sfreq)) / signal.sfreq
    n = round(t_r / seconds)
    on_B = energy_B[:n] > 0.02 * float(energy_B.mean())
    silent = t_r - (int(np.flatnonzero(on_B)[-1]) + 1) * seconds - (begin - start)
    complete = abs((end + silent - onset) / t_r - np.rint((end + silent - onset) / t_r)) * t_r
    return float(end + silent) if complete < max(2 * RESOLUTION_S, 0.02 * t_r) else end
