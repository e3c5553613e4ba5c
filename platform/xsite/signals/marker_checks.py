"""Markers that cannot be the volumes of an image at all: refused before any clock is fitted, with what to do."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xsite.errors import AlignmentError
from xsite.recording import Float
from xsite.signals.clock import MAX_EXTRA
from xsite.signals.origin_facts import Facts

MIN_FRACTION = 0.5  # below half of the volumes the train says nothing about the rest


def check_input(
    markers: Float,
    start_time: float,
    t_r: float,
    eeg_duration: float,
    source: str,
    found_markers: Mapping[str, int] | None,
) -> None:
    """Refuse what is no train on the EEG's time axis, and a start time outside of its volume.

    Raises
    ------
    AlignmentError
        No marker, one that is not finite, markers outside the EEG, or a start time that is not inside one TR.
    """
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
            f"{eeg_duration:.3f} s; markers {markers[0]:.3f} to {markers[-1]:.3f} s); is the file truncated, or are "
            "the onsets samples or milliseconds (the site's events_unit)?"
        )


def check_count(markers: Float, facts: Facts, found_markers: Mapping[str, int] | None) -> None:
    """Refuse a train with far fewer markers than volumes, or more extra ones than a stopped scan leaves.

    Raises
    ------
    AlignmentError
        Fewer markers than half of the volumes, or more than two extra ones.
    """
    wanted = facts.n_volumes + facts.dummy_volumes
    if len(markers) < max(2, MIN_FRACTION * facts.n_volumes):
        raise AlignmentError(
            f"{facts.source}: {len(markers)} volume marker(s) for {facts.n_volumes} volumes; at least half are needed"
            + ("" if found_markers is None else f"; markers in the file: {_listing(found_markers)}")
        )
    if (extra := len(markers) - wanted) > MAX_EXTRA:
        raise AlignmentError(
            f"{facts.source}: {len(markers)} volume markers but only {facts.n_volumes} volumes ({extra} more), "
            f"{np.median(np.diff(markers)):.4f} s apart at a TR of {facts.t_r:g} s; at most {MAX_EXTRA} extra markers "
            "are repaired. Were dummy volumes removed from the image, or is volume_marker another event?"
            + (f" The sidecar says that {facts.discarded} were discarded: dummy_volumes?" if facts.discarded else "")
        )


def _listing(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name!r} x{count}" for name, count in sorted(found.items())) or "none"
