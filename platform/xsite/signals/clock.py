"""Trains of markers as clocks: duplicates merged, slices grouped to volumes, ``offset + spacing * tick`` fitted.

A tick without a marker is a gap. Across a hole of several ticks the clock is trusted only if both sides keep one phase.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xsite.errors import AlignmentError
from xsite.recording import Float

Int = NDArray[np.int64]
RepairKind = Literal[
    "merged",
    "slices-grouped",
    "dummies-dropped",
    "extra-dropped",
    "filled",
    "left-out",
    "drift-fitted",
    "cropped",
    "onset-unit",
]

T_R_TOLERANCE = 0.005  # a clock drift is tens of ppm; 0.5 % off is another event or another sequence
MAX_EXTRA = 2  # a scan stopped by hand sends one or two markers whose volumes are never reconstructed
MERGE_S = 0.005  # a bouncing trigger line comes back within milliseconds, no sequence does
HOLE = 3  # a step of this many ticks: the two sides are compared before the volumes between them are believed
PHASE_LIMIT = 0.25  # of a TR; beyond it nobody can say how many volumes a hole holds


@dataclass(frozen=True)
class Repair:
    """One thing that was put right: what, how many markers or volumes, and why it was certain enough."""

    kind: RepairKind
    n: int
    evidence: str


@dataclass(frozen=True, eq=False)
class Clock:
    """Marker times as ``offset + spacing * tick``, with one offset for each group of markers that keep one phase.

    Parameters
    ----------
    markers : float64 array, shape (N,)
        Seconds from the first EEG sample, rising.
    ticks : int64 array, shape (N,)
        Tick of each marker; the first is 0.
    spacing : float
        Seconds per tick.
    offsets : float64 array, shape (G,)
        Time of tick 0 for each group.
    starts : int64 array, shape (G,)
        First tick of each group.
    residual : float64 array, shape (N,)
        Marker minus clock in seconds.
    """

    markers: Float
    ticks: Int
    spacing: float
    offsets: Float
    starts: Int
    residual: Float

    @property
    def span(self) -> int:
        """Ticks from the first to the last marker, both included."""
        return int(self.ticks[-1]) + 1

    def times(self, ticks: Int) -> Float:
        """Seconds of some ticks on the fitted clock, beyond the markers as well."""
        group = np.clip(np.searchsorted(self.starts, ticks, side="right") - 1, 0, None)
        return np.asarray(self.offsets[group] + self.spacing * ticks, dtype=np.float64)

    def tick_at(self, time: float) -> float:
        """Tick, with its fraction, at a time of the EEG."""
        begins = self.offsets + self.spacing * (self.starts - 0.5)
        group = max(0, int(np.searchsorted(begins, time, side="right")) - 1)
        return float((time - self.offsets[group]) / self.spacing)

    def in_broken_hole(self, ticks: Int) -> NDArray[np.bool_]:
        """Ticks between two markers whose clocks do not agree."""
        inside = np.zeros(len(ticks), dtype=bool)
        for start in self.starts[1:]:
            last_before = self.ticks[self.ticks < start][-1]
            inside |= (ticks > last_before) & (ticks < start)
        return inside


def merge_duplicates(markers: Float, spacing: float, sfreq: float | None) -> tuple[Float, list[Repair]]:
    """Keep the first of markers that repeat one trigger within a few milliseconds (or one sample)."""
    limit = min(max(MERGE_S, 1.5 / sfreq if sfreq else 0.0), 0.1 * spacing)
    again = np.diff(markers, prepend=-np.inf) <= limit
    if not again.any():
        return markers, []
    words = f"{int(again.sum())} marker(s) repeat another one within {limit * 1e3:.1f} ms: the first of each is kept"
    return markers[~again], [Repair("merged", int(again.sum()), words)]


def fit_clock(markers: Float, t_r: float, source: str, sfreq: float | None = None) -> Clock:
    """Fit the clock of a train of volume markers, robustly.

    Raises
    ------
    AlignmentError
        The markers are not the repetition time apart, or a hole's two sides cannot be brought together.
    """
    median = float(np.median(np.diff(markers)))
    # judged before ticks are counted; quantised markers at short TR need more room here than the fitted spacing below
    if not 0.95 * t_r < median < 1.05 * t_r:
        raise AlignmentError(_spacing_message(source, median, len(markers), t_r))
    counts = np.rint(np.diff(markers) / median).astype(np.int64)
    segment = np.concatenate([[0], np.cumsum(counts >= HOLE)])
    spacing = _half_lag_spacing(markers, counts, segment)
    if abs(spacing / t_r - 1) > T_R_TOLERANCE:
        raise AlignmentError(_spacing_message(source, spacing, len(markers), t_r))
    ticks = np.concatenate([[0], np.cumsum(np.rint(np.diff(markers) / spacing).astype(np.int64))])
    spacing, offsets, residual = _line(markers, ticks, segment, spacing)
    group = _joined(markers, ticks, segment, spacing, offsets, residual, source, sfreq)
    spacing, offsets, residual = _line(markers, ticks, group, spacing)
    starts = np.array([ticks[group == g][0] for g in range(len(offsets))], dtype=np.int64)
    return Clock(markers, ticks, spacing, offsets, starts, residual)


def _half_lag_spacing(markers: Float, counts: Int, segment: Int) -> float:
    """Median spacing over half of each segment: one stray marker or a hole does not move it."""
    ticks = np.concatenate([[0], np.cumsum(counts)])
    found = []
    for part in range(int(segment[-1]) + 1):
        time, tick = markers[segment == part], ticks[segment == part]
        half = max(1, len(time) // 2)
        found.append((time[half:] - time[:-half]) / np.maximum(tick[half:] - tick[:-half], 1))
    return float(np.median(np.concatenate(found)))


def tolerance(spacing: float) -> float:
    """Seconds that a marker may be off its clock."""
    return max(0.02, 0.02 * spacing)


def _line(markers: Float, ticks: Int, group: Int, spacing: float) -> tuple[float, Float, Float]:
    """Common slope and one offset per group: medians first, then least squares over what lies near them."""
    n_groups = int(group[-1]) + 1
    members = [group == g for g in range(n_groups)]
    rest = markers - spacing * ticks
    offsets = np.array([np.median(rest[m]) for m in members])
    near = np.abs(rest - offsets[group]) <= tolerance(spacing)
    centred_x, centred_y = np.zeros(len(ticks)), np.zeros(len(ticks))
    for m in members:
        if (m & near).any():
            centred_x[m] = ticks[m] - ticks[m & near].mean()
            centred_y[m] = markers[m] - markers[m & near].mean()
    weight = float((centred_x[near] ** 2).sum())
    if near.sum() > n_groups + 1 and weight > 0:
        spacing = float((centred_x[near] * centred_y[near]).sum() / weight)
        rest = markers - spacing * ticks
        offsets = np.array([rest[m & near].mean() if (m & near).any() else np.median(rest[m]) for m in members])
    return spacing, offsets, np.asarray(rest - offsets[group], dtype=np.float64)


def _joined(
    markers: Float,
    ticks: Int,
    segment: Int,
    spacing: float,
    offsets: Float,
    residual: Float,
    source: str,
    sfreq: float | None,
) -> Int:
    """Segments that keep one phase, within what jitter and the slope's own error allow, become one group."""
    group = np.zeros(len(offsets), dtype=np.int64)
    near = np.abs(residual) <= tolerance(spacing)
    sd = max(float(np.std(residual[near])) if near.any() else 0.0, 1 / (sfreq or 5000.0))
    centres = np.array([ticks[segment == part].mean() for part in range(len(offsets))])
    lever = float(((ticks - centres[segment]) ** 2).sum())
    sizes = np.bincount(segment)
    for part in range(1, len(offsets)):
        phase = float(offsets[part] - offsets[part - 1])
        spread = 1 / sizes[part] + 1 / sizes[part - 1] + (centres[part] - centres[part - 1]) ** 2 / max(lever, 1e-9)
        allowed = sd * (1 + 4 * float(np.sqrt(spread)))
        if abs(phase) > PHASE_LIMIT * spacing or allowed > PHASE_LIMIT * spacing:
            before, after = markers[segment == part - 1][-1], markers[segment == part][0]
            raise AlignmentError(
                f"{source}: hole of {after - before:.2f} s in the volume markers after {before:.2f} s; the clocks of "
                f"its two sides are {phase * 1e3:+.1f} ms apart (they are known to {allowed * 1e3:.1f} ms), so that "
                "nobody can say how many volumes it holds. Was the scan or the EEG interrupted?"
            )
        group[part] = group[part - 1] + int(abs(phase) > allowed)
    return np.asarray(group[segment])


def _spacing_message(source: str, spacing: float, n_markers: int, t_r: float) -> str:
    return (
        f"{source}: the {n_markers} volume markers are {spacing:.4f} s apart (median) but the TR is {t_r:g} s; "
        "they may be slice triggers or another event: check the site's volume_marker and t_r"
    )


def fit_train(markers: Float, t_r: float, source: str, sfreq: float | None) -> tuple[Clock, list[Repair]]:
    """Fit the clock, drop one or two strays at the ends that do not keep it, and refuse an irregular train.

    Raises
    ------
    AlignmentError
        Markers inside the train that do not keep the clock, or two for one volume.
    """
    clock = fit_clock(markers, t_r, source, sfreq)
    off = np.abs(clock.residual) > tolerance(clock.spacing)
    repairs = []
    if off.any() and not off.all():
        first, last = int(np.argmin(off)), len(off) - 1 - int(np.argmin(off[::-1]))
        n_before, n_after = first, len(off) - 1 - last
        if 0 < n_before + n_after <= MAX_EXTRA and not off[first : last + 1].any():
            where = [(n_before, "before the first volume"), (n_after, "after the last volume")]
            words = [f"{n} marker(s) {place} ignored: they do not keep the repetition time" for n, place in where if n]
            repairs = [Repair("extra-dropped", n_before + n_after, "; ".join(words))]
            clock = fit_clock(markers[first : last + 1], t_r, source, sfreq)
    _check_train(clock, source)
    return clock, repairs


def _check_train(clock: Clock, source: str) -> None:
    markers, spacing = clock.markers, clock.spacing
    close = np.diff(clock.ticks) < 1
    if close.any():
        at = int(np.argmax(close))
        raise AlignmentError(
            f"{source}: markers {at + 1} and {at + 2} are only {markers[at + 1] - markers[at]:.4f} s apart at a TR of "
            f"{spacing:.4f} s: an extra marker inside the train cannot be told from the true one"
        )
    worst = int(np.argmax(np.abs(clock.residual)))
    if abs(clock.residual[worst]) > tolerance(spacing):
        raise AlignmentError(
            f"{source}: marker {worst + 1} at {markers[worst]:.3f} s is {clock.residual[worst] * 1e3:+.1f} ms off the "
            f"fitted clock (TR {spacing:.4f} s, tolerance {tolerance(spacing) * 1e3:.0f} ms): the train is irregular"
        )
