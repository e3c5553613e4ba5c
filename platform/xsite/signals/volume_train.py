"""Where the scanner's volumes lie in the EEG: whole and cut ones, those without trigger, and their sub-sample phase.

Letters: ``V`` volumes (rows of the train), ``C`` channels, ``S`` samples of one volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from xsite.errors import AlignmentError
from xsite.recording import Bool, Float

PAD = 96  # samples on both sides of a volume that are tapered away when it is shifted by a part of a sample
_BLOCKS = 8  # parts of a volume that are judged one by one where the artifact ends between two triggers
_STRONGEST = 3


@dataclass(frozen=True)
class Run:
    """Triggers without a hole between them, from the first sample of the first volume to the end of the last one."""

    first: int
    stop: int
    n_volumes: int
    corrected: bool


@dataclass(frozen=True, eq=False)
class VolumeTrain:
    """Stretches of EEG that hold one volume's artifact each, in order.

    Parameters
    ----------
    starts_V : int array
        Sample at which the volume starts; negative where the EEG starts inside a volume.
    stops_V : int array
        First sample that is not corrected any more; never after the next start or the end of the EEG.
    firsts_V : int array
        First corrected sample; later than the start where only the volume's end holds the artifact.
    phase_V : float array
        What is left of the volume's true start after rounding to ``starts_V``, in samples; zeros on an even grid.
    whole_V : bool array
        The volumes that have a trigger and lie wholly inside: only they form templates.
    spacing : int
        Samples of one volume.
    run_V : int array
        Run of triggers that the volume belongs to: templates never cross the hole between two.
    runs : tuple of Run, those too short for a template as well
    """

    starts_V: NDArray[np.int64]
    stops_V: NDArray[np.int64]
    firsts_V: NDArray[np.int64]
    phase_V: Float
    whole_V: Bool
    spacing: int
    run_V: NDArray[np.int64]
    runs: tuple[Run, ...] = ()

    @property
    def even(self) -> bool:
        """Whether all volumes have the same length in samples, so that no sub-sample shift is needed."""
        return not self.phase_V.any()

    @property
    def sources(self) -> NDArray[np.int64]:
        """Rows that may form templates."""
        return np.flatnonzero(self.whole_V)

    def sources_of(self, row: int) -> NDArray[np.int64]:
        """Rows that may form templates of this one: those on its side of every hole."""
        return np.flatnonzero(self.whole_V & (self.run_V == self.run_V[row]))

    @property
    def longest(self) -> NDArray[np.int64]:
        """Rows of the longest run that may form templates: the stretch to take figures from."""
        return np.flatnonzero(self.whole_V & (self.run_V == np.bincount(self.run_V[self.whole_V]).argmax()))

    def __len__(self) -> int:
        return len(self.starts_V)


def one_run(
    raw: Any, exact: Float, *, spacing: int, limits: tuple[int, int], picks: Sequence[int], tolerance: int, source: str
) -> VolumeTrain:
    """Find the stretches of artifact from triggers on one clock, and from the data where they end before it does.

    Volumes before the first trigger (dummy scans) and after the last one (a scan stopped by hand, an EEG that ends
    inside a volume) are found by their likeness to the nearest volumes, between the samples ``limits``.

    Raises
    ------
    AlignmentError
        Distances of triggers (``exact``, in samples) differ, and stray from an even clock, by more than the tolerance.
    """
    sfreq, n_times = float(raw.info["sfreq"]), int(raw.n_times)
    onsets = np.rint(exact).astype(np.int64)
    whole = (onsets >= 0) & (onsets + spacing <= n_times)
    _check(onsets[whole], tolerance, sfreq, source)
    phase: Float = np.zeros(len(onsets))
    period = float(spacing)
    if len(set(np.diff(onsets[whole]).tolist())) > 1:
        onsets, phase, period = _exact_onsets(raw, exact, whole, spacing, picks)
    stops = np.minimum(onsets + spacing + tolerance, np.append(onsets[1:], min(limits[1], onsets[-1] + spacing)))
    train = VolumeTrain(onsets, stops, np.maximum(onsets, limits[0]), phase, whole, spacing, np.zeros(len(onsets), int))
    return _extended(raw, train, period, picks, limits)


def _check(events: NDArray[np.int64], tolerance: int, sfreq: float, source: str) -> None:
    worst = int(np.abs(np.diff(events) - np.median(np.diff(events))).max())
    index = np.arange(len(events))
    off_clock = np.abs(events - np.polyval(np.polyfit(index, events, 1), index)).max()
    if worst > tolerance and off_clock > tolerance:  # jitter around an even clock is no fault of the scanner
        raise AlignmentError(
            f"{source}: volume triggers deviate by up to {worst} samples at {sfreq:g} Hz; gradient removal "
            f"takes {tolerance}. The EEG clock was not synchronised with the scanner, or markers were set by software"
        )


def strongest(raw: Any, picks: Sequence[int], start: int, stop: int) -> list[int]:
    """The few channels in which the artifact is largest: first differences are least disturbed by the EEG."""
    data_CT = np.diff(raw.get_data(picks=list(picks), start=start, stop=stop), axis=1)
    order = np.argsort(-np.einsum("ct,ct->c", data_CT, data_CT))
    return [int(picks[i]) for i in order[:_STRONGEST]]


def _exact_onsets(
    raw: Any, exact: Float, whole: Bool, spacing: int, picks: Sequence[int]
) -> tuple[NDArray[np.int64], Float, float]:
    """Onsets between samples: the scanner's clock is even, so a line through the triggers, then refined on the data.

    Gauss-Newton on the mean artifact: a volume that is late by ``d`` differs from it by ``-d`` times its derivative.
    """
    index = np.arange(len(exact))
    period, first = np.polyfit(index[whole], exact[whole], 1)
    times = first + period * index
    best = strongest(raw, picks, int(max(0, times[0])), int(max(0, times[0])) + spacing)
    inner = slice(PAD, PAD + spacing)
    rows = np.flatnonzero(whole)
    for _ in range(3):
        starts = np.rint(times[rows]).astype(np.int64)
        parts = [segment(raw, best, int(start), spacing) for start in starts]
        aligned_VCN = np.stack([shift(part, p) for part, p in zip(parts, times[rows] - starts, strict=True)])
        mean_CN = aligned_VCN.mean(0)
        slope_CN = np.gradient(mean_CN, axis=1)[:, inner]
        late_V = -np.einsum("vcn,cn->v", (aligned_VCN - mean_CN)[:, :, inner], slope_CN) / np.sum(slope_CN**2)
        times[rows] += np.clip(late_V, -1, 1)
    period, first = np.polyfit(rows, times[rows], 1)
    times[~whole] = (first + period * index)[~whole]
    starts = np.rint(times).astype(np.int64)
    return starts, times - starts, float(period)


def segment(raw: Any, picks: Sequence[int], start: int, spacing: int) -> Float:
    """One volume with ``PAD`` samples around it, shape (C, S + 2 PAD); the ends of the file are repeated."""
    lo, hi = max(0, start - PAD), min(int(raw.n_times), start + spacing + PAD)
    data_CN = raw.get_data(picks=list(picks), start=lo, stop=hi)
    return np.pad(data_CN, ((0, 0), (lo - (start - PAD), start + spacing + PAD - hi)), mode="edge")


def tapered_spectrum(data_CN: Float) -> tuple[Any, Float]:
    """Spectrum of segments whose ends are brought to zero, and its angular frequencies per sample.

    Without its straight line and with tapered ends a segment is periodic: a shift then rings nowhere.
    """
    n = data_CN.shape[-1]
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(PAD // 2) + 0.5) / (PAD // 2))
    window = np.concatenate([ramp, np.ones(n - 2 * len(ramp)), ramp[::-1]])
    ends = data_CN[..., :1], data_CN[..., -1:]
    line = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, n)
    n_fft = next_fast_len(n, real=True)
    return rfft((data_CN - line) * window, n_fft, axis=-1), 2 * np.pi * np.arange(n_fft // 2 + 1) / n_fft


def shift(data_CN: Float, earlier: float) -> Float:
    """Move segments ``earlier`` samples towards their start (a part of a sample, by linear phase)."""
    spectrum_CF, omega_F = tapered_spectrum(data_CN)
    n = data_CN.shape[-1]
    return np.asarray(
        irfft(spectrum_CF * np.exp(1j * omega_F * earlier), next_fast_len(n, real=True), axis=-1)[..., :n]
    )


def _extended(
    raw: Any, train: VolumeTrain, period: float, picks: Sequence[int], limits: tuple[int, int]
) -> VolumeTrain:
    """Add the stretches before the first and after the last trigger that hold the artifact too."""
    rows, size = train.sources, train.spacing
    best = strongest(raw, picks, int(train.starts_V[rows[0]]), int(train.starts_V[rows[0]]) + size)
    added: list[tuple[float, int, int]] = []
    for side, near in ((-1, rows[:4]), (1, rows[-4:])):
        parts = [raw.get_data(best, int(train.starts_V[row]), int(train.starts_V[row]) + size) for row in near]
        template_CS = np.diff(np.mean(parts, axis=0), axis=1)
        outer = 0 if side < 0 else -1
        time = float(train.starts_V[outer] + train.phase_V[outer])
        while True:
            time += side * period
            start = int(np.rint(time))
            lo, hi = max(limits[0], start), min(limits[1], start + size)
            if hi - lo < 2:
                break
            data_CT = np.diff(raw.get_data(best, lo, hi), axis=1)
            first, stop = _explained(data_CT, template_CS, lo - start, side)
            if stop > first:
                added.append((time, start + first, min(hi, start + stop)))
            if stop - first < hi - lo or hi - lo < size:
                break
    return _with_rows(train, added)


def _explained(data_CT: Float, template_CS: Float, offset: int, side: int) -> tuple[int, int]:
    """Part of a volume that the template explains, from the side of the scan outwards; samples from its start.

    A block is explained if less than a quarter of the template's energy is left after subtraction; blocks without
    artifact (pauses between slices) say nothing and are passed.
    """
    size = template_CS.shape[1] + 1
    edges = np.linspace(0, size, _BLOCKS + 1).astype(int)
    floor = np.sum(template_CS**2) / _BLOCKS / 20
    end = offset + data_CT.shape[1]
    reached = size if side < 0 else 0
    blocks = range(_BLOCKS - 1, -1, -1) if side < 0 else range(_BLOCKS)
    for block in blocks:
        lo, hi = max(int(edges[block]), offset), min(int(edges[block + 1]), end)
        if hi - lo < 2:
            continue
        expected = template_CS[:, lo:hi]
        energy = float(np.sum(expected**2))
        if energy > floor * (hi - lo) / (size / _BLOCKS):
            if np.sum((data_CT[:, lo - offset : hi - offset] - expected) ** 2) > 0.25 * energy:
                break
            reached = max(int(edges[block]), offset) if side < 0 else min(int(edges[block + 1]), end + 1)
    return (reached, size) if side < 0 else (0, reached)


def _with_rows(train: VolumeTrain, added: list[tuple[float, int, int]]) -> VolumeTrain:
    if not added:
        return train
    times, firsts, stops = (np.array(column) for column in zip(*added, strict=True))
    starts = np.rint(times).astype(np.int64)
    phase = np.zeros(len(times)) if train.even else times - starts
    order = np.argsort(np.concatenate([train.starts_V, starts]), kind="stable")
    merged = VolumeTrain(
        np.concatenate([train.starts_V, starts])[order],
        np.concatenate([train.stops_V, stops.astype(np.int64)])[order],
        np.concatenate([train.firsts_V, firsts.astype(np.int64)])[order],
        np.concatenate([train.phase_V, phase])[order],
        np.concatenate([train.whole_V, np.zeros(len(times), bool)])[order],
        train.spacing,
        np.zeros(len(order), int),
    )
    merged.stops_V[:-1] = np.minimum(merged.stops_V[:-1], merged.starts_V[1:])
    return merged
