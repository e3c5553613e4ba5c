"""Markers of an EEG file: those that match a name, all trains, those of ``events.tsv`` in whatever unit it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from xsite.data.files import numbers, read_tsv
from xsite.errors import AlignmentError, FormatError
from xsite.recording import Bool, Float
from xsite.site import RecordingFiles, Site

LABELS = ("trial_type", "value", "stim_type", "category")
NOTES = "xsite_reading_notes"
BREAK = re.compile(r"(.*/)?\s*(new\s+segment(/.*)?|((bad|edge)[ _])?boundary|bad_acq_skip)\s*", re.IGNORECASE)
BREAK_GUARD_S = 0.25  # a mark so near to the first sample says where the file begins, and no more


def marker_onsets(raw: Any, marker: str) -> Float:
    """Onsets in seconds from the first sample of the annotations that match ``marker``.

    ``Response/R128`` and ``R128`` match each other; runs of blanks count as one.
    """
    onsets: Float = np.asarray(raw.annotations.onset[matching(raw.annotations, marker)], dtype=float)
    return onsets - float(raw.first_time)


def matching(annotations: Any, marker: str) -> Bool:
    """Which annotations match a marker's name."""
    return np.array([same(str(name), marker) for name in annotations.description], dtype=bool)


def same(found: str, wanted: str) -> bool:
    """Whether two spellings name one marker."""
    found, wanted = " ".join(found.split()), " ".join(wanted.split())
    if "/" in found and "/" in wanted:
        return found == wanted
    return found.rpartition("/")[2] == wanted.rpartition("/")[2]


def marker_trains(raw: Any) -> dict[str, Float]:
    """Onsets of every marker of the file by description, in seconds from the first sample."""
    names = np.array([str(name) for name in raw.annotations.description], dtype=object)
    onsets = np.asarray(raw.annotations.onset, dtype=float) - float(raw.first_time)
    return {name: onsets[names == name] for name in dict.fromkeys(names.tolist())}


def time_breaks(raw: Any) -> tuple[float, ...]:
    """Seconds at which the recording was paused or cut, as BrainVision, EEGLAB and MNE mark it inside a file."""
    found = sorted(
        {time for name, times in marker_trains(raw).items() if BREAK.fullmatch(name) for time in times.tolist()}
    )
    return tuple(time for time in found if time > BREAK_GUARD_S)


def is_known(name: str, site: Site) -> bool:
    """Whether the site says what this marker is: its volume marker, a task marker, or a known decoy."""
    named = (site.volume_marker, site.protocol_marker, site.scan_marker, *site.decoys)
    return any(known is not None and same(name, known) for known in named)


def first_marker(raw: Any, marker: str | None) -> float | None:
    """Seconds from the first sample to the first such marker; ``None`` where there is none."""
    onsets = np.zeros(0) if marker is None else marker_onsets(raw, marker)
    return float(onsets.min()) if len(onsets) else None


def published_start(raw: Any, site: Site, files: RecordingFiles) -> float | None:
    """First volume's trigger in EEG seconds by the site's explicit policy; ``None`` where it has none.

    Raises
    ------
    AlignmentError
        The EEG has neither volume markers nor what a policy would need.
    """
    if site.scan_start is None:
        if site.volume_marker is None:
            raise AlignmentError(
                f"{files.eeg}: site {site.name!r} has no volume_marker and no policy for EEG without markers. Write "
                "into the site file `volume_marker`, or `scan_start`: seconds from the first EEG sample (or from the "
                "first `scan_marker`) to the first volume"
            )
        return None
    if site.scan_marker is None:
        return site.scan_start
    counted_from = first_marker(raw, site.scan_marker)
    if counted_from is None:
        if site.volume_marker is not None and len(marker_onsets(raw, site.volume_marker)):
            return None
        raise AlignmentError(
            f"{files.eeg}: no marker {site.scan_marker!r}, from which the site counts scan_start; markers in the file: "
            + (", ".join(f"{name!r} x{len(times)}" for name, times in marker_trains(raw).items()) or "none")
        )
    return counted_from + site.scan_start


def reading_notes(raw: Any) -> tuple[str, ...]:
    """What a reader put right in the markers' times, in words."""
    temp = raw.info.get("temp")
    return tuple(temp.get(NOTES, ())) if isinstance(temp, dict) else ()


def note(raw: Any, words: str) -> None:
    """Leave words for the alignment's record; a site's own reader may do so too."""
    raw.info["temp"] = {NOTES: (*reading_notes(raw), words)}


def add_events(raw: Any, path: Path, site: Site) -> None:
    """Append the rows of an ``events.tsv`` whose markers the file itself lacks, in seconds from the first sample.

    Raises
    ------
    FormatError
        There is no column ``onset``, or its unit is not what the site says.
    """
    table = read_tsv(path)
    if "onset" not in table:
        raise FormatError(f"{path}: no column 'onset' (found {list(table.columns)})")
    written = numbers(table, ["onset"], path)["onset"].to_numpy(dtype=float)
    sfreq = float(raw.info["sfreq"])
    rate = {"s": 1.0, "ms": 1000.0, "samples": site.events_sfreq or sfreq}[site.events_unit]
    onset = written / rate
    label = np.full(len(table), "", dtype=object)
    for column in LABELS:
        if column in table:
            values = table[column].str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True).fillna("")
            label = np.where(label == "", values.to_numpy(dtype=object), label)
    in_file = list(dict.fromkeys(map(str, raw.annotations.description)))
    absent = {name: not any(same(found, str(name)) for found in in_file) for name in dict.fromkeys(label)}
    known = np.isfinite(onset) & (label != "") & np.array([absent[name] for name in label], dtype=bool)
    use = known & (onset >= 0) & (onset <= raw.times[-1])
    wanted = np.array([site.volume_marker is not None and same(str(name), site.volume_marker) for name in label])
    _check_unit(written[known & wanted], use[known & wanted], float(raw.times[-1]), sfreq, path, site)
    if site.events_unit != "s":
        unit = f"samples at {rate:g} Hz" if site.events_unit == "samples" else "milliseconds"
        note(raw, f"{path.name}: onsets are {unit}, not seconds: {int(use.sum())} converted")
    raw.annotations.append(onset[use], np.zeros(int(use.sum())), label[use].astype(str))


def _check_unit(written: Float, inside: Bool, end: float, sfreq: float, path: Path, site: Site) -> None:
    """Most volume markers after the end of the EEG: another unit, not a scan without EEG."""
    if not len(written) or inside.mean() >= 0.5:
        return
    step = float(np.median(np.diff(np.sort(written)))) if len(written) > 1 else float("nan")
    rates = {"ms": 1000.0, f"samples at {sfreq:g} Hz": sfreq, "samples at 5000 Hz": 5000.0, "s": 1.0}
    fits = [unit for unit, rate in rates.items() if abs(step / rate / site.t_r * site.triggers_per_volume - 1) < 0.01]
    hint = f"; a step of {step:g} is the TR in {' or '.join(fits)}" if fits else ""
    raise FormatError(
        f"{path}: {int((~inside).sum())} of {len(written)} volume markers lie outside the EEG (0 to {end:.1f} s) if "
        f"onsets are {site.events_unit}{hint}. Set the site's events_unit ('s', 'ms' or 'samples', with events_sfreq)"
    )
