"""Slice triggers to volume triggers: the first slice of each volume, though some slices lost their trigger."""

from __future__ import annotations

import numpy as np

from xsite.errors import AlignmentError
from xsite.recording import Float
from xsite.signals.clock import Repair, fit_clock
from xsite.signals.scan_evidence import RESOLUTION_S


def group_slices(
    markers: Float,
    n_slices: int,
    t_r: float,
    source: str,
    *,
    sfreq: float | None = None,
    anchor: float | None = None,
    resolution: float = RESOLUTION_S,
) -> tuple[Float, Repair, bool]:
    """Volume triggers of a train of slice triggers.

    Where a pause ends each volume, the pause shows the first slice. Where slices fill the TR evenly, nothing in the
    train does: the slice at ``anchor`` is taken where the anchor can tell slices apart, else the first marker.

    Parameters
    ----------
    markers : array
        Slice triggers in seconds, rising.
    n_slices : int
        Triggers per volume.
    t_r : float
        Repetition time in seconds.
    source : str
        File name for messages.
    sfreq : float, optional
        EEG sampling frequency in Hz.
    anchor : float, optional
        When the first volume begins, as the EEG shows it.
    resolution : float
        Seconds that the anchor may lie off its slice's trigger.

    Returns
    -------
    volumes : float64 array
        First slice triggers; a volume whose first slice has no trigger is absent.
    repair : Repair
    phase_known : bool
        Whether the train (or the anchor) shows which slice is the first of a volume.

    Raises
    ------
    AlignmentError
        The spacing does not fit so many triggers per volume.
    """
    if len(markers) < 3 * n_slices:
        raise AlignmentError(f"{source}: {len(markers)} slice triggers are less than three volumes of {n_slices}")
    steps = np.diff(markers)
    step = float(steps[steps < 1.5 * np.median(steps)].mean())
    pause = t_r - (n_slices - 1) * step
    if not 0.5 * step < pause:
        raise AlignmentError(
            f"{source}: triggers {step:.4f} s apart do not fit triggers_per_volume {n_slices} at a TR of {t_r:g} s; "
            f"{t_r / step:.1f} would fit"
        )
    if pause > 1.5 * step:
        volumes, known = _by_pause(markers, step, pause, t_r, source), True
        how = f"a pause of {pause:.3f} s ends each volume"
    else:
        volumes, known = _evenly(markers, n_slices, t_r, source, sfreq, anchor, resolution)
        how = "slices fill the TR; the first volume begins with the " + ("artifact" if known else "first marker")
    words = f"{len(markers)} slice triggers grouped to {len(volumes)} volumes of {n_slices}: {how}"
    return volumes, Repair("slices-grouped", len(markers), words), known


def _evenly(
    markers: Float,
    n_slices: int,
    t_r: float,
    source: str,
    sfreq: float | None,
    anchor: float | None,
    resolution: float,
) -> tuple[Float, bool]:
    """An anchor coarser than the slices only confirms the first marker, if EEG before it and whole volumes say so."""
    clock = fit_clock(markers, t_r / n_slices, source, sfreq)
    first, known = 0, False
    if anchor is not None and clock.spacing > 2 * resolution:
        tick = clock.tick_at(anchor)
        known = abs(tick - round(tick)) * clock.spacing <= resolution
        first = round(tick) if known else 0
    elif anchor is not None:
        quiet_before, whole = markers[0] > 2 * clock.spacing, clock.span % n_slices == 0
        known = bool(quiet_before and whole and abs(markers[0] - anchor) <= resolution)
    return markers[(clock.ticks - first) % n_slices == 0], known


def _by_pause(markers: Float, step: float, pause: float, t_r: float, source: str) -> Float:
    """Follow the volumes forwards and backwards from one whose first slice is certain."""
    begins = markers[1:][np.diff(markers) > (step + pause) / 2]  # a lost slice inside makes a false one: outvoted below
    near = min(step, pause - step) / 2

    def at(times: Float, when: float) -> float | None:
        place = int(np.argmin(np.abs(times - when)))
        return float(times[place]) if abs(times[place] - when) < near else None

    votes = [sum(at(begins, begin + k * t_r) is not None for k in (-2, -1, 1, 2)) for begin in begins]
    if not votes or max(votes) < 2:
        raise AlignmentError(f"{source}: no pause of {pause:.3f} s that comes back with the TR of {t_r:g} s")
    seed = float(begins[int(np.argmax(votes))])
    volumes = [seed]
    for direction in (-1, 1):
        now = seed + direction * t_r
        while markers[0] - near < now < markers[-1] + near:
            found = at(markers, now)
            volumes += [] if found is None else [found]
            now = (now if found is None else found) + direction * t_r
    return np.sort(np.asarray(volumes, dtype=np.float64))
