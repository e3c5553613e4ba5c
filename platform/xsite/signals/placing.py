"""From marker clock and first volume to one trigger per volume, each step of it recorded as a repair."""

from __future__ import annotations

import numpy as np

from xsite.errors import AlignmentError
from xsite.recording import Bool, Float
from xsite.signals.clock import MAX_EXTRA, Clock, Int, Repair
from xsite.signals.origin_facts import Facts, Origin

DRIFT_PPM = 20.0  # unsynchronised amplifier and scanner clocks; below it a 20-minute scan slips by less than 25 ms


def outside(clock: Clock, facts: Facts, origin: Origin) -> list[Repair]:
    """Markers that are no volumes of the image: dummies and a few extra ones.

    Raises
    ------
    AlignmentError
        There are more of them than a scan stopped by hand leaves.
    """
    before = int((clock.ticks < origin.shift).sum())
    after = int((clock.ticks >= origin.shift + facts.n_volumes).sum())
    dummies = min(before, facts.dummy_volumes)
    extra = before - dummies
    if max(extra, after) > MAX_EXTRA:
        raise AlignmentError(
            f"{facts.source}: {extra} volume marker(s) before the first volume and {after} after the last are more "
            f"than the {MAX_EXTRA} that are repaired; markers {clock.spacing:.4f} s apart from {clock.markers[0]:.3f} "
            f"to {clock.markers[-1]:.3f} s. Is volume_marker a heartbeat, or were volumes removed from the image?"
        )
    found = []
    if dummies:
        words = f"{dummies} dummy marker(s) before the first volume dropped: the site's dummy_volumes"
        found.append(Repair("dummies-dropped", dummies, words))
    for n, where in ((extra, "before the first volume"), (after, "after the last volume")):
        if n:
            found.append(Repair("extra-dropped", n, f"{n} marker(s) {where} ignored: shown by the {origin.by}"))
    if origin.by == "site" and facts.first_onset is not None:
        off = float(clock.times(np.array([origin.shift], dtype=np.int64))[0]) - facts.first_onset
        found.append(Repair("cropped", 1, f"first volume {off:+.3f} s from the start that the site publishes"))
    return found


def place_volumes(clock: Clock, ticks: Int, confirmed: bool) -> tuple[Float, Bool, list[Repair]]:
    """Trigger of each volume: its marker, or the fitted clock where that is certain.

    Parameters
    ----------
    clock : Clock
    ticks : int64 array, shape (V,)
        Tick of each volume of the image.
    confirmed : bool
        Whether evidence shows the first volume: one or two volumes beyond the train are then filled as well.

    Returns
    -------
    triggers : float64 array, shape (V,)
    valid : bool array, shape (V,)
    repairs : list of Repair
    """
    triggers = clock.times(ticks)
    place = np.searchsorted(clock.ticks, ticks).clip(0, len(clock.ticks) - 1)
    marked = clock.ticks[place] == ticks
    triggers[marked] = clock.markers[place][marked]
    valid = (ticks >= clock.ticks[0]) & (ticks <= clock.ticks[-1])
    broken = clock.in_broken_hole(ticks)
    repairs = _gaps(valid & ~marked, broken)
    for where, words in (
        (ticks < clock.ticks[0], "before the first marker"),
        (ticks > clock.ticks[-1], "after the last marker"),
    ):
        n = int(where.sum())
        if n and confirmed and n <= MAX_EXTRA:
            valid |= where
            repairs.append(Repair("filled", n, f"{n} volume(s) {words} filled on the fitted clock"))
        elif n:
            repairs.append(Repair("left-out", n, f"{n} volume(s) {words} marked invalid"))
    return triggers, np.asarray(valid & ~broken), repairs


def _gaps(missing: Bool, broken: Bool) -> list[Repair]:
    """Volumes inside the train without a marker: filled, or invalid in a hole that broke the clock."""
    repairs = []
    for which in (missing & ~broken, missing & broken):
        if not which.any():
            continue
        numbers = np.flatnonzero(which) + 1
        more = f" (and {len(numbers) - 1} more up to volume {numbers[-1]})" if len(numbers) > 1 else ""
        words = f"marker of volume {numbers[0]}{more} is missing and "
        if broken[which].any():
            words += "lies in a hole whose two sides do not keep one clock: invalid"
            repairs.append(Repair("left-out", len(numbers), words))
        else:
            repairs.append(Repair("filled", len(numbers), words + "was filled on the fitted clock"))
    return repairs


def drift(clock: Clock, facts: Facts) -> list[Repair]:
    """A clock drift that is larger than usual and than its own error."""
    ppm = (clock.spacing / facts.t_r - 1) * 1e6
    # the slope of N markers with this jitter is known to sd * sqrt(12) / N**1.5 seconds per tick
    error = float(np.std(clock.residual)) * 12**0.5 / len(clock.markers) ** 1.5 / facts.t_r * 1e6
    if abs(ppm) <= DRIFT_PPM + 3 * error:
        return []
    words = f"the EEG clock drifts by {ppm:+.0f} ppm against a TR of {facts.t_r:g} s: fitted"
    return [Repair("drift-fitted", len(clock.markers), words)]
