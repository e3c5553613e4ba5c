"""Which of an EEG's markers looks like the volumes? Counts and spacings against the image, for who must choose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from xsite.data.files import read_tsv
from xsite.data.inheritance import events_path, marker_labels
from xsite.errors import FormatError
from xsite.recording import Float

Likeness = Literal["volumes", "volumes?", "slices", "clock", "event"]
NEAR = 2  # markers more or fewer than volumes: repaired by the alignment audit
SPACING = 0.01
REGULAR = 0.8  # share of steps that keep the usual one; a hole or two do not make a train irregular
MIN_TRAIN = 10
MAX_SLICES = 200
ORDER: tuple[Likeness, ...] = ("volumes", "volumes?", "slices", "clock", "event")


@dataclass(frozen=True)
class MarkerLook:
    """One kind of marker beside the image.

    Parameters
    ----------
    name : str
        As the file spells it.
    count : int
    spacing : float
        Median step in seconds; NaN below two markers.
    likeness : {"volumes", "volumes?", "slices", "clock", "event"}
        "volumes?" keeps the repetition time, but counts otherwise; "clock" is regular and neither.
    words : str
        Why, with numbers.
    per_volume : int
        Markers per volume, more than 1 for slices.
    place : str
        ``file``, or the name of the events table.
    unit, unit_sfreq : str, float or None
        What the table's onsets are (``events_unit`` and ``events_sfreq`` of a site).
    """

    name: str
    count: int
    spacing: float
    likeness: Likeness
    words: str
    per_volume: int = 1
    place: str = "file"
    unit: Literal["s", "ms", "samples"] = "s"
    unit_sfreq: float | None = None


def look_at(trains: Mapping[str, Float], n_volumes: int, t_r: float) -> list[MarkerLook]:
    """Judge every kind of marker, the likeliest volume markers first.

    Parameters
    ----------
    trains : mapping of str to array
        Onsets in seconds (:func:`xsite.data.markers.marker_trains`).
    n_volumes : int
        Of the image.
    t_r : float
        Repetition time in seconds.
    """
    return ranked([_look(name, np.sort(times), n_volumes, t_r) for name, times in trains.items()], n_volumes)


def ranked(looks: list[MarkerLook], n_volumes: int) -> list[MarkerLook]:
    """Order by likeness, then by how near the count is to the image's volumes."""
    return sorted(
        looks, key=lambda look: (ORDER.index(look.likeness), abs(look.count / look.per_volume - n_volumes), look.name)
    )


def _look(name: str, times: Float, n_volumes: int, t_r: float) -> MarkerLook:
    count = len(times)
    steps = np.diff(times)
    spacing = float(np.median(steps)) if len(steps) else float("nan")
    if count < MIN_TRAIN or not spacing > 0 or (np.abs(steps / spacing - 1) < 0.02).mean() < REGULAR:
        return MarkerLook(name, count, spacing, "event", f"{count}, no regular train")
    every = f"{count}, every {spacing:.4g} s"
    if abs(spacing / t_r - 1) < SPACING:
        if abs(count - n_volumes) <= NEAR:
            return MarkerLook(name, count, spacing, "volumes", f"{every}: the TR, and {n_volumes} volumes in the image")
        return MarkerLook(
            name, count, spacing, "volumes?", f"{every}: the TR, but the image has {n_volumes} volumes, not {count}"
        )
    per = round(t_r / spacing)
    if 2 <= per <= MAX_SLICES and abs(per * spacing / t_r - 1) < SPACING and abs(count / per - n_volumes) <= NEAR:
        return MarkerLook(
            name, count, spacing, "slices", f"{every}: {per} per TR, as for {n_volumes} volumes of {per}", per
        )
    return MarkerLook(name, count, spacing, "clock", f"{every}: regular, but neither the TR nor a part of it")


def look_at_events(eeg: Path, sfreq: float, n_volumes: int, t_r: float) -> list[MarkerLook]:
    """Judge the markers of an EEG's ``events.tsv``, with onsets taken for seconds, milliseconds or samples.

    A unit other than seconds is believed only where it makes a train of volumes (or slices).
    """
    path = events_path(eeg)
    if path is None:
        return []
    try:
        onset = pd.to_numeric(read_tsv(path)["onset"], errors="coerce").to_numpy(dtype=float)
        labels = np.array(marker_labels(path), dtype=object)
    except (FormatError, KeyError):
        return []
    known = np.isfinite(onset) & (labels != "")
    written = {str(name): onset[known & (labels == name)] for name in dict.fromkeys(labels[known].tolist())}
    units: list[tuple[Literal["s", "ms", "samples"], float]] = [("s", 1.0), ("ms", 1e3), ("samples", sfreq)]
    units += [("samples", rate) for rate in (5000.0, 1000.0) if rate != sfreq]
    first: list[MarkerLook] = []
    for unit, rate in units:
        looks = look_at({name: times / rate for name, times in written.items()}, n_volumes, t_r)
        own = rate if unit == "samples" and rate != sfreq else None
        placed = [
            MarkerLook(o.name, o.count, o.spacing, o.likeness, o.words, o.per_volume, path.name, unit, own)
            for o in looks
        ]
        first = first or placed
        if placed and placed[0].likeness in ("volumes", "slices"):
            return placed
    return first
