"""Which marker is the first volume: what the artifact in the EEG shows, what the protocol shows, what the count allows.

A regular train looks the same after its first trigger was lost and one too many came at the end. Only something that
is not the train can tell: whole gradient artifacts from the first to the last volume, or a task event known in scan
time. What the count alone suggests is used, but it is never called confirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from xsite.errors import AlignmentError
from xsite.recording import Float
from xsite.signals.clock import MAX_EXTRA, Clock, fit_clock
from xsite.signals.origin_count import origin_from_count, side_by_sidecar
from xsite.signals.origin_facts import PROTOCOL_FRACTION, By, Facts, Origin
from xsite.signals.scan_evidence import ScanEvidence

FILLED = "markers fill the whole EEG, as a heartbeat of this period would"
HONEST_PPM = 300.0  # a header's TR rounded to the millisecond; a train further off is trusted by its phase alone
PARTIAL = (0.1, 0.9)  # of a TR: a volume cut off by hand; nearer to a whole one it may be drift


@dataclass(frozen=True)
class _Seen:
    """What one kind of evidence says: a shift (or none), whether it is beyond doubt, and the words for it."""

    shift: int | None = None
    certain: bool = False
    words: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    by_word: bool = False


def find_origin(
    clock: Clock, facts: Facts, evidence: ScanEvidence, decoys: Mapping[str, Float], phase_known: bool
) -> Origin:
    """Tick of the first volume.

    Raises
    ------
    AlignmentError
        Markers too many or too few, and neither evidence nor site nor EEG tells at which end.
    """
    found = _origin(clock, facts, evidence, decoys)
    phase = () if phase_known else ("nothing shows which slice is the first of a volume",)
    doubts = (*found.doubts, *phase, *_interrupted(clock, facts, found.shift))
    return replace(found, doubts=tuple(dict.fromkeys(doubts)))


def _origin(clock: Clock, facts: Facts, evidence: ScanEvidence, decoys: Mapping[str, Float]) -> Origin:
    artifact = _from_artifact(clock, facts, evidence)
    protocol = _from_protocol(clock, facts, evidence)
    rivals = _rivals(clock, facts, decoys)
    words, doubts = artifact.words + protocol.words, artifact.doubts
    if artifact.shift is not None and artifact.certain:
        if protocol.shift not in (None, artifact.shift):
            doubts += (f"artifact and protocol disagree by {abs((protocol.shift or 0) - artifact.shift)} volume(s)",)
        return Origin(artifact.shift, "artifact", doubts, words)
    if protocol.shift is not None:
        if artifact.shift not in (None, protocol.shift):
            doubts += (f"artifact and protocol disagree by {abs((artifact.shift or 0) - protocol.shift)} volume(s)",)
        filled = (FILLED,) if _fills(clock, facts) else ()
        return Origin(protocol.shift, "protocol", doubts + protocol.doubts + filled + rivals, words)
    if artifact.shift is not None:
        by: By = "site" if artifact.by_word else "count"
        return Origin(artifact.shift, by, doubts + protocol.doubts + rivals, words)
    counted = origin_from_count(clock, facts)
    return Origin(counted.shift, counted.by, counted.doubts + doubts + protocol.doubts + rivals, words + counted.words)


def _from_artifact(clock: Clock, facts: Facts, evidence: ScanEvidence) -> _Seen:
    onset, end = evidence.artifact_onset, evidence.artifact_end
    if onset is None and end is None:
        return _Seen()
    doubts: tuple[str, ...] = ()
    first = last = None
    if onset is not None:
        tick = clock.tick_at(onset)
        first, off = round(tick), (tick - round(tick)) * clock.spacing
        if abs(off) > evidence.resolution:
            doubts += (f"the gradient artifact begins {off * 1e3:+.0f} ms off the markers: are they volume triggers?",)
    if end is not None:
        last, doubt = _end_tick(clock, facts, end, evidence.resolution)
        doubts += doubt
    if first is not None and last is not None and clock.ticks[0] < first and clock.ticks[-1] >= last:
        doubts += ("markers run before and after the gradient artifact, as a heartbeat does",)
    if first is None or last is None:
        shift = first + facts.dummy_volumes if first is not None else (last or 0) - facts.n_volumes
        words = "the EEG shows only one end of the gradient artifact: " + _when(evidence)
        return _Seen(shift, False, (words,), doubts)
    surplus = last - first - facts.dummy_volumes - facts.n_volumes
    words = f"{_when(evidence)}: {last - first} whole volumes"
    if surplus == 0:
        return _Seen(first + facts.dummy_volumes, not doubts, (words,), doubts)
    if 0 < surplus <= MAX_EXTRA:
        by_word = {"end": first + facts.dummy_volumes, "start": first + facts.dummy_volumes + surplus}
        side, contrary = side_by_sidecar(facts, surplus)
        words += f", {surplus} more than the image and its dummies"
        words += f"; the sidecar says that {surplus} were discarded before the image" if side else ""
        chosen = by_word.get(facts.extra_markers or side or "")
        return _Seen(chosen, False, (words,), doubts + contrary, by_word=True)
    doubts += (f"the gradient artifact holds {last - first} volumes, the image {facts.n_volumes}",)
    return _Seen(None, False, (words,), doubts)


def _end_tick(clock: Clock, facts: Facts, end: float, resolution: float) -> tuple[int, tuple[str, ...]]:
    """Tick after the last whole volume; a volume that was cut off by hand does not count."""
    tick = clock.tick_at(end)
    if abs(tick - round(tick)) * clock.spacing <= 2 * resolution:
        return round(tick), ()
    part = tick - np.floor(tick)
    if PARTIAL[0] <= part <= PARTIAL[1] and abs(clock.spacing / facts.t_r - 1) < 50e-6:
        return int(np.floor(tick)), ()
    off = (tick - round(tick)) * clock.spacing
    return round(tick), (f"the gradient artifact ends {off * 1e3:+.0f} ms off the markers' clock",)


def _when(evidence: ScanEvidence) -> str:
    parts = [("begins", evidence.artifact_onset), ("ends", evidence.artifact_end)]
    return "gradient artifact " + ", ".join(f"{word} at {time:.3f} s" for word, time in parts if time is not None)


def _from_protocol(clock: Clock, facts: Facts, evidence: ScanEvidence) -> _Seen:
    if evidence.protocol_onset is None:
        return _Seen()
    tick = clock.tick_at(evidence.protocol_onset)
    words = (f"protocol marker puts the first volume at {evidence.protocol_onset:.3f} s",)
    if abs(tick - round(tick)) > PROTOCOL_FRACTION:
        return _Seen(None, False, words, (f"the protocol lies between two markers (tick {tick:.2f})",))
    doubts: tuple[str, ...] = ()
    ppm = (clock.spacing / facts.t_r - 1) * 1e6
    if abs(ppm) > HONEST_PPM:
        doubts = (f"the markers are {ppm:+.0f} ppm off the TR",)
    if len(clock.offsets) > 1:
        doubts += ("the markers' clock jumps inside the train, after the protocol was looked at",)
    short = facts.n_volumes + round(tick) - clock.span
    if short > MAX_EXTRA and facts.eeg_duration - clock.markers[-1] > 2 * clock.spacing:
        doubts += (f"the last {short} markers are missing although the EEG runs on: was it paused?",)
    return _Seen(round(tick), not doubts, words, doubts)


def _fills(clock: Clock, facts: Facts) -> bool:
    """A heartbeat of this period would look alike: only the artifact's phase would tell them apart."""
    room = (MAX_EXTRA + 1.5) * clock.spacing
    return bool(clock.markers[0] < room and facts.eeg_duration - clock.markers[-1] < room)


def _interrupted(clock: Clock, facts: Facts, shift: int) -> tuple[str, ...]:
    """The EEG stood still inside the scan, whatever shows where that begins: later times may be off by the pause."""
    first, last = clock.times(np.array([shift, shift + facts.n_volumes - 1], dtype=np.int64))
    begin, end = min(first, clock.markers[0]), max(last, clock.markers[-1])
    inside = [f"{time:.3f} s" for time in facts.breaks if begin < time < end]
    return (f"the EEG was interrupted inside the scan, at {', '.join(inside)}",) if inside else ()


def _rivals(clock: Clock, facts: Facts, decoys: Mapping[str, Float]) -> tuple[str, ...]:
    doubts = []
    for name, times in decoys.items():
        if _is_rival(clock, facts, np.sort(np.asarray(times, dtype=np.float64))):
            doubts.append(f"the {len(times)} markers {name!r} keep the TR with another phase: which ones are volumes?")
    return tuple(doubts)


def _is_rival(clock: Clock, facts: Facts, times: Float) -> bool:
    if abs(len(times) - facts.n_volumes - facts.dummy_volumes) > MAX_EXTRA or len(times) < 3:
        return False
    try:
        fit_clock(times, facts.t_r, "")
    except AlignmentError:
        return False
    nearest = np.abs(times[:, None] - clock.markers[None, :]).min(axis=1)
    return float(np.median(nearest)) > 0.005
