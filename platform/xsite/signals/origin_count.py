"""Which marker is the first volume, from the site's word and from how many markers there are.

The simplest explanation of a count is used, but it is never called confirmed (:mod:`xsite.signals.origin`).
"""

from __future__ import annotations

import numpy as np

from xsite.errors import AlignmentError
from xsite.signals.clock import Clock
from xsite.signals.origin_facts import PROTOCOL_FRACTION, By, Facts, Origin, Side


def origin_from_count(clock: Clock, facts: Facts) -> Origin:
    """The site's word, or the simplest explanation of how many markers there are."""
    extra = clock.span - facts.dummy_volumes - facts.n_volumes
    if facts.first_onset is not None:
        exact = clock.tick_at(facts.first_onset)
        tick = round(exact)
        doubts: tuple[str, ...] = ()
        words = (f"the site's scan_start puts the first volume at {facts.first_onset:.3f} s",)
        if abs(exact - tick) > PROTOCOL_FRACTION:
            doubts = (f"scan_start lies between two markers (tick {exact:.2f})",)
        if extra or tick == facts.dummy_volumes:
            return Origin(tick, "site", doubts, words)
        doubts += (f"scan_start is {tick - facts.dummy_volumes:+d} volume(s) off a train of the right count",)
        return Origin(facts.dummy_volumes, "count", doubts, words)
    if extra == 0:
        return Origin(facts.dummy_volumes, "count", (), (f"as many markers as volumes; {_room(clock, facts)}",))
    side, by, why = _extra_side(clock, facts, extra) if extra > 0 else _missing_side(clock, facts, -extra)
    contrary = side_by_sidecar(facts, extra)[1]
    return Origin(facts.dummy_volumes + (extra if side == "start" else 0), by, contrary, (why,))


def side_by_sidecar(facts: Facts, extra: int) -> tuple[Side | None, tuple[str, ...]]:
    """Whether volumes that were discarded before the image explain what is too many; a doubt where they do not."""
    if extra <= 0 or facts.discarded in (0, facts.dummy_volumes):
        return None, ()
    told = f"the sidecar says that {facts.discarded} volume(s) were discarded before the image, but "
    if facts.dummy_volumes:
        return None, (told + f"the site's dummy_volumes is {facts.dummy_volumes}",)
    if extra != facts.discarded:
        return None, (told + f"{extra} are too many",)
    return ("start", ()) if facts.extra_markers != "end" else (None, (told + "the site's extra_markers says end",))


def _room(clock: Clock, facts: Facts) -> str:
    before, after = clock.markers[0], facts.eeg_duration - clock.markers[-1] - clock.spacing
    return f"EEG begins {before:.3f} s before the first marker and ends {after:.3f} s after the last volume"


def _extra_side(clock: Clock, facts: Facts, extra: int) -> tuple[Side, By, str]:
    if facts.extra_markers is not None:
        return facts.extra_markers, "site", f"{extra} marker(s) too many: the site's extra_markers"
    last = facts.eeg_duration - float(clock.times(np.array([clock.span - extra]))[0])
    if side_by_sidecar(facts, extra)[0]:
        ended = " (as likely the last ones: the EEG ends with them)" if last < facts.t_r else ""
        by: By = "count" if ended else "site"
        return "start", by, f"{extra} extra marker(s): the sidecar says as many were discarded before the image{ended}"
    if last < facts.t_r:
        return "end", "count", f"the EEG ends {last:.3f} s after the first marker too many, less than a volume"
    raise AlignmentError(
        f"{facts.source}: {extra} volume marker(s) more than volumes, and nothing tells whether the first or the last"
        f" ones are extra (the EEG runs on for {facts.eeg_duration - clock.markers[-1]:.3f} s). Write into the site "
        "file `extra_markers: end` if scans were stopped by hand, or `extra_markers: start` if dummy scans are not in "
        "the image"
    )


def _missing_side(clock: Clock, facts: Facts, missing: int) -> tuple[Side, By, str]:
    """Missing markers are the last ones only where the EEG ends as well: else a shift would go unnoticed."""
    before, after = clock.markers[0], facts.eeg_duration - clock.markers[-1]
    if facts.missing_markers is not None:
        return facts.missing_markers, "site", f"{missing} marker(s) too few: the site's missing_markers"
    if after <= (missing + 0.5) * facts.t_r:
        return "end", "count", f"the EEG ends with the markers, {after:.3f} s after the last one"
    raise AlignmentError(
        f"{facts.source}: {missing} marker(s) fewer than volumes; EEG starts {before:.3f} s before the first one and "
        f"runs on for {after:.3f} s after the last, so that the first or the last volumes may be the ones without "
        "marker. Write `missing_markers: start` or `missing_markers: end` into the site file"
        + (f"; it says dummy_volumes: {facts.dummy_volumes}, do those have markers?" if facts.dummy_volumes else "")
    )
