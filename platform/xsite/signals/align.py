"""Volume markers against volumes: an audit that repairs what is certain, says what it did, and refuses the rest.

Nothing is ever cut silently: a volume without a marker stays in the recording and is marked invalid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xsite.errors import AlignmentError
from xsite.recording import Bool, Float

Verdict = Literal["ok", "repaired", "unverified", "rejected"]

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
) -> Alignment:
    """Bring a train of volume markers and the volumes of an image together.

    Accepted: as many markers as volumes; one or two extra markers at the end; markers that stop early (the volumes
    after the last marker become invalid); one marker missing inside the train (filled on the fitted clock).

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

    Raises
    ------
    AlignmentError
        No marker, a train that is not the repetition time, more than two extra markers, fewer markers than half of
        the volumes, gaps or irregular markers, markers outside the EEG.
    """
    given = np.sort(np.asarray(marker_onsets, dtype=np.float64).ravel())
    _check_input(given, n_volumes, t_r, start_time, eeg_duration, source, found_markers)
    markers, clock, repairs = _fit_train(given, n_volumes, t_r, source)
    triggers = np.asarray(clock.first + clock.spacing * np.arange(n_volumes), dtype=np.float64)
    np.put(triggers, clock.ticks, markers)
    missing_inside = np.setdiff1d(np.arange(clock.ticks[-1]), clock.ticks)
    if len(missing_inside):
        repairs.append(f"marker of volume {missing_inside[0] + 1} is missing and was filled on the fitted clock")
    valid = np.arange(n_volumes) <= clock.ticks[-1]
    if not valid.all():
        _check_end(markers, int((~valid).sum()), t_r, eeg_duration, source)
        repairs.append(
            f"{int((~valid).sum())} volume(s) after the last marker (volume {int(valid.sum())}) marked invalid; "
            f"EEG runs on for {eeg_duration - markers[-1]:.3f} s after it"
        )
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


def _fit_train(markers: Float, n_volumes: int, t_r: float, source: str) -> tuple[Float, _Clock, list[str]]:
    """Drop markers after the last volume, if they are few, and fit the clock to the others."""
    repairs = []
    extra = len(markers) - n_volumes
    if extra > MAX_EXTRA:
        raise AlignmentError(
            f"{source}: {len(markers)} volume markers but only {n_volumes} volumes ({extra} more), "
            f"{np.median(np.diff(markers)):.4f} s apart at a TR of {t_r:g} s; at most {MAX_EXTRA} extra markers at the "
            "end are repaired. Were dummy volumes removed from the image, or is volume_marker another event?"
        )
    if extra > 0:
        repairs.append(f"{extra} marker(s) after the last volume ignored; the first marker is taken as volume 1")
        markers = markers[:n_volumes]
    clock = _fit_clock(markers, t_r, source)
    inside = clock.ticks < n_volumes
    if not inside.all():  # a gap inside and an extra marker at the end cancel in the count
        repairs.append(f"{int((~inside).sum())} marker(s) after the last volume ignored")
        markers = markers[inside]
        clock = _fit_clock(markers, t_r, source)
    return markers, clock, repairs


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


def _check_end(markers: Float, n_missing: int, t_r: float, eeg_duration: float, source: str) -> None:
    """Refuse when the missing markers may as well be the first ones: a shift by one TR would go unnoticed."""
    room_before, room_after = markers[0], eeg_duration - markers[-1]
    if room_before < t_r and room_after > (n_missing + 0.5) * t_r:
        raise AlignmentError(
            f"{source}: {n_missing} marker(s) fewer than volumes, EEG starts only {room_before:.3f} s before the first "
            f"marker and runs on for {room_after:.3f} s after the last: the first volumes may be the ones without "
            "marker. Read this recording with a site reader that knows its first volume."
        )
