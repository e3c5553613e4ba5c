"""Volume markers against volumes: an audit that repairs what is certain, says what it did, and refuses the rest.

Nothing is ever cut silently: a volume without a marker stays in the recording and is marked invalid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xsite.errors import AlignmentError
from xsite.recording import Bool, Float

Verdict = Literal["ok", "repaired", "unverified", "rejected"]
Side = Literal["start", "end"]

T_R_TOLERANCE = 0.005  # a clock drift is tens of ppm; 0.5 % off is another event or another sequence
MAX_EXTRA = 2  # a scan stopped by hand sends one or two markers whose volumes are never reconstructed
MIN_FRACTION = 0.5  # below half of the volumes the train says nothing about the rest


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
    evidence : tuple of str
        What was found and done, in words with numbers.
    t_r_found : float
        Repetition time on the EEG clock in seconds; NaN where unverified.
    jitter_ms : float
        Standard deviation of the markers around the fitted clock in milliseconds; NaN where unverified.
    triggers : float64 array, shape (V,)
        The volume triggers themselves (``volume_onsets`` without the start time).
    """

    volume_onsets: Float
    volume_valid: Bool
    verdict: Verdict
    evidence: tuple[str, ...]
    t_r_found: float
    jitter_ms: float
    triggers: Float


@dataclass(frozen=True, eq=False)
class _Clock:
    """Marker times as ``first + spacing * tick``."""

    ticks: NDArray[np.int64]
    first: float
    spacing: float
    residual: Float


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
) -> Alignment:
    """Bring a train of volume markers and the volumes of an image together.

    Accepted: as many markers as volumes; one marker missing inside the train (filled on the fitted clock); one or two
    extra markers, or too few (their volumes become invalid), if the files or the site say at which end. A guess would
    shift the whole recording by a volume, and nobody would notice.

    Parameters
    ----------
    marker_onsets : array
        Volume markers in seconds from the first EEG sample, in any order.
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
        Where markers are too many or too few, as the site knows it; else the EEG has to show it.

    Raises
    ------
    AlignmentError
        No marker, a train that is not the repetition time, more than two extra markers, fewer markers than half of
        the volumes, gaps or irregular markers, markers outside the EEG, extra or missing markers at an unknown end.
    """
    given = np.sort(np.asarray(marker_onsets, dtype=np.float64).ravel())
    _check_input(given, n_volumes, t_r, start_time, eeg_duration, source, found_markers)
    markers, clock, repairs = _fit_train(given, n_volumes, t_r, eeg_duration, source, extra_markers)
    n_missing = n_volumes - 1 - int(clock.ticks[-1])
    if n_missing > 0:
        side = missing_markers or _end_shown(markers, n_missing, t_r, eeg_duration, source)
        clock = _shifted(clock, n_missing) if side == "start" else clock
        where = "before the first" if side == "start" else "after the last"
        repairs.append(
            f"{n_missing} volume(s) {where} marker marked invalid ("
            + ("the site's missing_markers" if missing_markers else "the EEG ends with the markers")
            + f"); EEG runs on for {eeg_duration - markers[-1]:.3f} s after the last marker"
        )
    triggers = np.asarray(clock.first + clock.spacing * np.arange(n_volumes), dtype=np.float64)
    np.put(triggers, clock.ticks, markers)
    missing_inside = np.setdiff1d(np.arange(clock.ticks[0], clock.ticks[-1]), clock.ticks)
    if len(missing_inside):
        repairs.append(f"marker of volume {missing_inside[0] + 1} is missing and was filled on the fitted clock")
    valid = (np.arange(n_volumes) >= clock.ticks[0]) & (np.arange(n_volumes) <= clock.ticks[-1])
    onsets = triggers + start_time
    beyond = valid & (onsets > eeg_duration)
    if beyond.any():
        repairs.append(f"{int(beyond.sum())} volume(s) lie after the end of the EEG ({eeg_duration:.3f} s): invalid")
    found = f"{np.size(marker_onsets)} volume markers, {n_volumes} volumes in {source}"
    return Alignment(
        volume_onsets=onsets,
        volume_valid=valid & ~beyond,
        verdict="repaired" if repairs else "ok",
        evidence=(found, *repairs, _clock_words(clock, markers, t_r, eeg_duration)),
        t_r_found=clock.spacing,
        jitter_ms=float(np.std(clock.residual) * 1e3),
        triggers=triggers,
    )


def _fit_train(
    markers: Float, n_volumes: int, t_r: float, eeg_duration: float, source: str, known: Side | None
) -> tuple[Float, _Clock, list[str]]:
    """Drop markers beyond the volumes, if they are few and their end is known, and fit the clock to the others."""
    repairs = []
    extra = len(markers) - n_volumes
    if extra > MAX_EXTRA:
        raise AlignmentError(
            f"{source}: {len(markers)} volume markers but only {n_volumes} volumes ({extra} more), "
            f"{np.median(np.diff(markers)):.4f} s apart at a TR of {t_r:g} s; at most {MAX_EXTRA} extra markers "
            "are repaired. Were dummy volumes removed from the image, or is volume_marker another event?"
        )
    if extra > 0:
        side, why = _extra_side(markers, extra, t_r, eeg_duration, source, known)
        repairs.append(_ignored(extra, side, why))
        markers = markers[:n_volumes] if side == "end" else markers[extra:]
    clock = _fit_clock(markers, t_r, source)
    beyond = int(clock.ticks[-1]) + 1 - n_volumes
    if beyond > 0:  # a gap inside and an extra marker cancel in the count
        n_after = int((clock.ticks >= n_volumes).sum())
        side, why = _extra_side(markers, n_after, t_r, eeg_duration, source, known)
        inside = clock.ticks < n_volumes if side == "end" else clock.ticks >= beyond
        repairs.append(_ignored(int((~inside).sum()), side, why))
        markers = markers[inside]
        clock = _fit_clock(markers, t_r, source)
    return markers, clock, repairs


def _ignored(n_markers: int, side: Side, why: str) -> str:
    where = "after the last volume" if side == "end" else "before the first volume"
    return f"{n_markers} marker(s) {where} ignored: {why}"


def _extra_side(
    markers: Float, n_extra: int, t_r: float, eeg_duration: float, source: str, known: Side | None
) -> tuple[Side, str]:
    """End of the train at which the extra markers are, and how that is known."""
    if known is not None:
        return known, "the site's extra_markers"
    without_last, without_first = (_is_train(part, t_r) for part in (markers[:-n_extra], markers[n_extra:]))
    if without_last and not without_first:
        return "end", "they do not keep the repetition time"
    if without_first and not without_last:
        return "start", "they do not keep the repetition time"
    room = eeg_duration - markers[-n_extra]
    if room < t_r:
        return "end", f"the EEG ends {room:.3f} s after the first of them, less than a volume"
    raise AlignmentError(
        f"{source}: {n_extra} volume marker(s) more than volumes, and nothing tells whether the first or the last ones "
        f"are extra (the EEG runs on for {eeg_duration - markers[-1]:.3f} s). Write into the site file `extra_markers: "
        "end` if scans were stopped by hand, or `extra_markers: start` if dummy scans are not in the image"
    )


def _is_train(markers: Float, t_r: float) -> bool:
    try:
        _fit_clock(markers, t_r, "")
    except AlignmentError:
        return False
    return True


def _shifted(clock: _Clock, n_ticks: int) -> _Clock:
    """Count ``n_ticks`` volumes before the first marker, on the fitted clock."""
    return replace(clock, ticks=clock.ticks + n_ticks, first=clock.first - n_ticks * clock.spacing)


def _clock_words(clock: _Clock, markers: Float, t_r: float, eeg_duration: float) -> str:
    return (
        f"fitted TR {clock.spacing:.6f} s, {(clock.spacing / t_r - 1) * 1e6:+.0f} ppm from {t_r:g} s; "
        f"jitter {np.std(clock.residual) * 1e3:.3f} ms (SD), {np.abs(clock.residual).max() * 1e3:.3f} ms (max); "
        f"first marker {markers[0]:.4f} s after EEG start, last one {eeg_duration - markers[-1]:.4f} s before EEG end"
    )


def align_without_markers(
    *, n_volumes: int, t_r: float, start_time: float, eeg_duration: float, source: str, first_onset: float = 0.0
) -> Alignment:
    """Take a published start of the scan on trust, for sites whose EEG has no volume markers.

    Parameters
    ----------
    first_onset : float
        Trigger of the first volume in seconds from the first EEG sample.

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
    if not valid.all():
        evidence.append(f"{int((~valid).sum())} of {n_volumes} volumes lie outside the EEG: invalid")
    return Alignment(onsets, valid, "unverified", tuple(evidence), float("nan"), float("nan"), triggers)


def _check_input(
    markers: Float,
    n_volumes: int,
    t_r: float,
    start_time: float,
    eeg_duration: float,
    source: str,
    found_markers: Mapping[str, int] | None,
) -> None:
    if not len(markers):
        seen = "" if found_markers is None else f"; markers in the file: {_listing(found_markers)}"
        raise AlignmentError(f"{source}: no volume marker found{seen}. Set the site's volume_marker to the right name.")
    if not np.isfinite(markers).all():
        raise AlignmentError(f"{source}: volume marker onsets hold NaN or infinity")
    if not 0 <= start_time <= t_r:
        raise AlignmentError(
            f"{source}: start time {start_time:g} s is not inside one TR of {t_r:g} s; volumes may have been dropped "
            "from the image, or the sidecar's StartTime is in milliseconds"
        )
    outside = (markers < -1e-6) | (markers > eeg_duration)
    if outside.any():
        raise AlignmentError(
            f"{source}: {int(outside.sum())} of {len(markers)} volume markers lie outside the EEG (0 to "
            f"{eeg_duration:.3f} s; markers {markers[0]:.3f} to {markers[-1]:.3f} s); is the file truncated?"
        )
    if len(markers) < max(2, MIN_FRACTION * n_volumes):
        raise AlignmentError(
            f"{source}: {len(markers)} volume marker(s) for {n_volumes} volumes; at least half are needed"
            + ("" if found_markers is None else f"; markers in the file: {_listing(found_markers)}")
        )


def _listing(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} x{count}" for name, count in sorted(found.items())) or "none"


def _fit_clock(markers: Float, t_r: float, source: str) -> _Clock:
    """Fit ``first + spacing * tick`` robustly; one tick may lack its marker."""
    steps = np.diff(markers)
    median = float(np.median(steps))
    # judged before ticks are counted; quantised markers at short TR need more room here than the fitted spacing below
    if not 0.95 * t_r < median < 1.05 * t_r:
        raise AlignmentError(_spacing_message(source, median, len(markers), t_r))
    counts = np.rint(steps / median).astype(np.int64)
    ticks = np.concatenate([[0], np.cumsum(counts)])
    half = max(1, len(markers) // 2)
    lags = np.maximum(ticks[half:] - ticks[:-half], 1)
    spacing = float(np.median((markers[half:] - markers[:-half]) / lags))
    if abs(spacing / t_r - 1) > T_R_TOLERANCE:
        raise AlignmentError(_spacing_message(source, spacing, len(markers), t_r))
    first = float(np.median(markers - spacing * ticks))
    residual = markers - spacing * ticks - first
    _check_train(markers, counts, residual, spacing, source)
    return _Clock(ticks, first, spacing, residual)


def _spacing_message(source: str, spacing: float, n_markers: int, t_r: float) -> str:
    return (
        f"{source}: the {n_markers} volume markers are {spacing:.4f} s apart (median) but the TR is {t_r:g} s; "
        "they may be slice triggers or another event: check the site's volume_marker and t_r"
    )


def _check_train(markers: Float, counts: Float, residual: Float, spacing: float, source: str) -> None:
    if (counts < 1).any():
        at = int(np.argmax(counts < 1))
        raise AlignmentError(
            f"{source}: markers {at + 1} and {at + 2} are only {markers[at + 1] - markers[at]:.4f} s apart at a TR of "
            f"{spacing:.4f} s: an extra marker inside the train cannot be told from the true one"
        )
    missing = int((counts - 1).sum())
    if missing > 1:
        at = int(np.argmax(counts))
        raise AlignmentError(
            f"{source}: {missing} markers are missing inside the train (longest gap "
            f"{markers[at + 1] - markers[at]:.2f} s after marker {at + 1}, {markers[at]:.2f} s); only one "
            "can be filled safely"
        )
    tolerance = max(0.02, 0.02 * spacing)
    worst = int(np.argmax(np.abs(residual)))
    if abs(residual[worst]) > tolerance:
        raise AlignmentError(
            f"{source}: marker {worst + 1} at {markers[worst]:.3f} s is {residual[worst] * 1e3:+.1f} ms off the fitted "
            f"clock (TR {spacing:.4f} s, tolerance {tolerance * 1e3:.0f} ms): the train is irregular"
        )


def _end_shown(markers: Float, n_missing: int, t_r: float, eeg_duration: float, source: str) -> Side:
    """Missing markers are the last ones only where the EEG ends as well: else a shift would go unnoticed."""
    room_before, room_after = markers[0], eeg_duration - markers[-1]
    if room_after > (n_missing + 0.5) * t_r:
        raise AlignmentError(
            f"{source}: {n_missing} marker(s) fewer than volumes; EEG starts {room_before:.3f} s before the first "
            f"one and runs on for {room_after:.3f} s after the last, so that the first or the last volumes may be the "
            "ones without marker. Write `missing_markers: start` or `missing_markers: end` into the site file"
        )
    return "end"
