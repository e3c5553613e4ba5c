"""Volume markers against volumes: an audit that repairs what is certain, says what it did, and refuses the rest.

``ok`` and ``repaired`` mean that something beside the train (gradient artifact, protocol, or for ``repaired`` the
site's published word) shows which marker is the first volume. A train alone, however regular, is ``unverified``.
Nothing is ever cut silently: a volume without a trustworthy time stays in the recording and is marked invalid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xsite.errors import AlignmentError
from xsite.recording import Bool, Float
from xsite.signals.clock import Clock, Repair, fit_train, merge_duplicates
from xsite.signals.marker_checks import check_count, check_input
from xsite.signals.origin import find_origin
from xsite.signals.origin_facts import Facts, Origin, Side
from xsite.signals.placing import drift, outside, place_volumes
from xsite.signals.scan_evidence import ScanEvidence
from xsite.signals.slices import group_slices

__all__ = ["Alignment", "Repair", "ScanEvidence", "Verdict", "align", "align_without_markers"]

Verdict = Literal["ok", "repaired", "unverified", "rejected"]

CONFIDENCE = {"artifact": 0.99, "protocol": 0.95, "site": 0.8, "count": 0.6}


@dataclass(frozen=True, eq=False)
class Alignment:
    """When each volume was acquired on the EEG clock, and how sure that is.

    Parameters
    ----------
    volume_onsets : float64 array, shape (V,)
        Seconds from the first EEG sample: volume trigger + start time, one per volume of the image.
    volume_valid : bool array, shape (V,)
        False for volumes whose time is not covered by markers or by the EEG.
    verdict : {"ok", "repaired", "unverified", "rejected"}
        ``unverified`` is usable, but nothing beside the markers shows which of them is the first volume.
    evidence : tuple of str
        What was found and done, in words with numbers.
    t_r_found : float
        Repetition time on the EEG clock in seconds; NaN where there are no markers.
    jitter_ms : float
        Standard deviation of the markers around the fitted clock in milliseconds; NaN where there are no markers.
    triggers : float64 array, shape (V,)
        The volume triggers themselves (``volume_onsets`` without the start time).
    repairs : tuple of Repair
        What was put right, in order.
    confidence : float
        Between 0 and 1; its reason is the last line of ``evidence``.
    """

    volume_onsets: Float
    volume_valid: Bool
    verdict: Verdict
    evidence: tuple[str, ...]
    t_r_found: float
    jitter_ms: float
    triggers: Float
    repairs: tuple[Repair, ...] = ()
    confidence: float = 0.0


def align(
    marker_onsets: Float,
    *,
    n_volumes: int,
    t_r: float,
    start_time: float,
    eeg_duration: float,
    source: str,
    found_markers: Mapping[str, int] | None = None,
    extra_markers: Side | None = None,
    missing_markers: Side | None = None,
    triggers_per_volume: int = 1,
    dummy_volumes: int = 0,
    sfreq: float | None = None,
    decoys: Mapping[str, Float] | None = None,
    evidence: ScanEvidence | None = None,
    first_onset: float | None = None,
    repairs: Sequence[Repair] = (),
    breaks: Sequence[float] = (),
    discarded: int = 0,
) -> Alignment:
    """Bring a train of volume markers and the volumes of an image together.

    Parameters
    ----------
    marker_onsets : array
        Volume (or slice) markers in seconds from the first EEG sample, in any order.
    n_volumes : int
        Volumes of the image.
    t_r, start_time : float
        Repetition time and slice-timing reference (``StartTime``) in seconds.
    eeg_duration : float
        Seconds of EEG.
    source : str
        File name for messages.
    found_markers : mapping of str to int, optional
        All markers of the file and their counts, for the message when no volume marker was found.
    extra_markers, missing_markers : {"start", "end"}, optional
        Where a train that is longer (shorter) than the image differs from it, as the site knows.
    triggers_per_volume : int
        Slice triggers per volume; 1 for volume triggers.
    dummy_volumes : int
        Markers before the first volume of the image.
    sfreq : float, optional
        EEG sampling frequency in Hz: the grain of the markers.
    decoys : mapping of str to array, optional
        Onsets of other markers of the file; one that keeps the TR as well casts doubt on the train.
    evidence : ScanEvidence, optional
        What the EEG itself and the protocol show of the scan.
    first_onset : float, optional
        The site's published start of the first volume in EEG seconds (``scan_start``).
    repairs : sequence of Repair
        What the reader put right before, to be recorded with the others.
    breaks : sequence of float, optional
        Where the EEG was paused or cut, in seconds; one inside the scan casts doubt on every time after it.
    discarded : int
        Volumes left out before the first one of the image, by its sidecar; the EEG may have their markers.

    Raises
    ------
    AlignmentError
        No marker, a train that is not the repetition time, more than two extra markers, fewer markers than half of
        the volumes, irregular markers, markers outside the EEG, extra or missing markers at an unknown end.
    """
    given = np.sort(np.asarray(marker_onsets, dtype=np.float64).ravel())
    check_input(given, start_time, t_r, eeg_duration, source, found_markers)
    facts = Facts(
        n_volumes,
        t_r,
        eeg_duration,
        source,
        dummy_volumes,
        extra_markers,
        missing_markers,
        first_onset,
        tuple(breaks),
        discarded,
    )
    seen = evidence or ScanEvidence()
    train, merged = merge_duplicates(given, t_r / triggers_per_volume, sfreq)
    done, phase_known = [*repairs, *merged], True
    if triggers_per_volume > 1:
        train, repair, phase_known = group_slices(
            train,
            triggers_per_volume,
            t_r,
            source,
            sfreq=sfreq,
            anchor=seen.artifact_onset,
            resolution=seen.resolution,
        )
        done.append(repair)
    check_count(train, facts, found_markers)
    clock, strays = fit_train(train, t_r, source, sfreq)
    origin = find_origin(clock, facts, seen, decoys or {}, phase_known)
    found = f"{np.size(marker_onsets)} volume markers, {n_volumes} volumes in {source}"
    return _result(clock, facts, origin, [*done, *strays], start_time, found)


def _result(
    clock: Clock, facts: Facts, origin: Origin, repairs: list[Repair], start_time: float, found: str
) -> Alignment:
    confirmed = origin.by in ("artifact", "protocol") and not origin.doubts
    ticks = origin.shift + np.arange(facts.n_volumes)
    repairs = repairs + outside(clock, facts, origin)
    triggers, valid, filled = place_volumes(clock, ticks, confirmed)
    onsets = triggers + start_time
    beyond = valid & ((onsets > facts.eeg_duration) | (onsets < 0))
    repairs += filled + drift(clock, facts)
    if beyond.any():
        words = f"{int(beyond.sum())} volume(s) lie after the end of the EEG ({facts.eeg_duration:.3f} s): invalid"
        repairs.append(Repair("left-out", int(beyond.sum()), words))
    if not (valid & ~beyond).any():
        raise AlignmentError(f"{facts.source}: not one of {facts.n_volumes} volumes has a marker inside the EEG")
    verdict, confidence, reason = _verdict(origin, confirmed, repairs, clock, facts)
    return Alignment(
        volume_onsets=onsets,
        volume_valid=valid & ~beyond,
        verdict=verdict,
        evidence=(
            found,
            *(repair.evidence for repair in repairs),
            *origin.words,
            *origin.doubts,
            _clock_words(clock, facts),
            reason,
        ),
        t_r_found=clock.spacing,
        jitter_ms=float(np.std(clock.residual) * 1e3),
        triggers=triggers,
        repairs=tuple(repairs),
        confidence=confidence,
    )


def _verdict(
    origin: Origin, confirmed: bool, repairs: list[Repair], clock: Clock, facts: Facts
) -> tuple[Verdict, float, str]:
    if confirmed:
        shown = f"confidence {CONFIDENCE[origin.by]:g}: the {origin.by} shows the first volume"
        return ("repaired" if repairs else "ok"), CONFIDENCE[origin.by], shown
    if origin.by == "site" and not origin.doubts:
        return "repaired", CONFIDENCE["site"], f"confidence {CONFIDENCE['site']:g}: on the word of the site"
    if origin.doubts and origin.by != "count":
        return "unverified", 0.2, f"confidence 0.2: {origin.doubts[0]}"
    closed = int(clock.markers[0] < facts.t_r) + int(facts.eeg_duration - clock.markers[-1] < 2 * facts.t_r)
    confidence = round(CONFIDENCE["count"] + 0.1 * closed - (0.3 if origin.doubts else 0.0), 2)
    reason = "the markers count right, but nothing beside them shows which one is the first volume"
    return "unverified", confidence, f"confidence {confidence:g}: {reason}"


def _clock_words(clock: Clock, facts: Facts) -> str:
    return (
        f"fitted TR {clock.spacing:.6f} s, {(clock.spacing / facts.t_r - 1) * 1e6:+.0f} ppm from {facts.t_r:g} s; "
        f"jitter {np.std(clock.residual) * 1e3:.3f} ms (SD), {np.abs(clock.residual).max() * 1e3:.3f} ms (max); "
        f"first marker {clock.markers[0]:.4f} s after EEG start, last one "
        f"{facts.eeg_duration - clock.markers[-1]:.4f} s before EEG end"
    )


def align_without_markers(
    *,
    n_volumes: int,
    t_r: float,
    start_time: float,
    eeg_duration: float,
    source: str,
    first_onset: float = 0.0,
    repairs: Sequence[Repair] = (),
) -> Alignment:
    """Take a published start of the scan on trust, for sites whose EEG has no volume markers.

    Parameters
    ----------
    first_onset : float
        Trigger of the first volume in seconds from the first EEG sample.
    repairs : sequence of Repair
        What the reader put right before.

    Raises
    ------
    AlignmentError
        Not even one volume lies inside the EEG.
    """
    triggers = first_onset + t_r * np.arange(n_volumes)
    onsets = triggers + start_time
    valid = (onsets >= 0) & (onsets <= eeg_duration)
    if not valid.any():
        raise AlignmentError(f"{source}: no volume inside the {eeg_duration:.1f} s of EEG (first at {onsets[0]} s)")
    evidence = [f"no volume marker; first volume taken at {first_onset:g} s, TR {t_r:g} s as published"]
    done = [*repairs, Repair("cropped", 1, evidence[0])]
    if not valid.all():
        n_outside = int((~valid).sum())
        evidence.append(f"{n_outside} of {n_volumes} volumes lie outside the EEG: invalid")
        done.append(Repair("left-out", n_outside, evidence[-1]))
    evidence.append("confidence 0.3: the start of the scan is a policy, nothing in the EEG shows it")
    nan = float("nan")
    return Alignment(onsets, valid, "unverified", tuple(evidence), nan, nan, triggers, tuple(done), 0.3)
