"""When things happen in a phantom run: volume triggers, markers as the site shows them, and the length of the EEG."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xsite.phantom.like.plan import EventTable, LikeRun, LikeSite, TriggerFault
from xsite.recording import Float

Markers = list[tuple[float, str]]
MAX_LEAD_S = 32.0
"""Longest EEG before the scan of a run that was shortened: real subjects wait for up to ten minutes."""

UNPAIRED_VOLUMES = 6


def shortened(run: LikeRun, max_volumes: int | None) -> LikeRun:
    """The same run with fewer volumes, and no more EEG around them than a short one needs."""
    if max_volumes is None:
        return run
    around = MAX_LEAD_S
    if not run.paired:  # only its header is looked at
        max_volumes, around = min(max_volumes, UNPAIRED_VOLUMES), 1.0
    max_volumes = min(max_volumes, run.n_volumes)
    tail_s = min(run.tail_s, around) if run.paired else float(np.clip(run.tail_s, -around, around))
    kept = run.kept
    if kept is not None:  # the same number of volumes stays off at either end
        kept = (kept[0], max_volumes - (run.n_volumes - kept[1]))
    return replace(run, n_volumes=max_volumes, kept=kept, lead_s=min(run.lead_s, around), tail_s=tail_s)


def volume_triggers(like: LikeSite, run: LikeRun) -> Float:
    """Trigger of every volume in seconds from the first EEG sample, shape (V,); the first one falls on a sample.

    An EEG that was cut after the scan had begun has a negative lead, and triggers before its first sample.
    """
    first = round(run.lead_s * like.rate) / like.rate
    return np.asarray(first + np.arange(run.n_volumes) * like.site.t_r)


def eeg_duration(like: LikeSite, run: LikeRun) -> float:
    """Seconds of EEG, a whole number of samples (whole seconds in EDF files)."""
    wanted = volume_triggers(like, run)[-1] + like.site.t_r + run.tail_s if run.n_volumes else run.lead_s + run.tail_s
    if like.eeg_format == "edf":
        return float(np.floor(wanted))
    return round(wanted * like.rate) / like.rate


def damaged(triggers_V: Float, fault: TriggerFault, t_r: float, rng: np.random.Generator) -> Float:
    """Volume markers as the file shows them: the triggers with one real-world fault."""
    middle, n = len(triggers_V) // 2, len(triggers_V)
    if fault == "irregular":
        return np.asarray((triggers_V + rng.uniform(-0.1, 0.1, n) * t_r)[rng.random(n) > 0.25])
    hole = np.arange(middle - n // 10, middle + n // 10)
    found = {
        "": triggers_V,
        "none": triggers_V[:0],
        "first-missing": triggers_V[1:],
        "one-missing": np.delete(triggers_V, middle),
        "last-missing": triggers_V[:-1],
        "four-missing": triggers_V[4:],
        "hole": np.delete(triggers_V, hole),
        "extra-start": np.r_[triggers_V[0] - t_r, triggers_V],
        "extra-end": np.r_[triggers_V, triggers_V[-1] + t_r],
    }
    return np.asarray(found[fault])


def run_markers(like: LikeSite, run: LikeRun, rng: np.random.Generator, *, in_file: bool | None = None) -> Markers:
    """All markers in order of time, within the EEG.

    Parameters
    ----------
    in_file : bool, optional
        Only those that stand in the EEG file (or, False, only those that stand in the events table alone).
    """
    triggers, duration = volume_triggers(like, run), eeg_duration(like, run)
    shown = damaged(triggers, run.triggers, like.site.t_r, rng)
    first = triggers[0] if len(triggers) else 0.0
    found: Markers = [] if in_file is False else [(first + onset, text) for onset, text in run.protocol]
    for train in like.trains:
        if in_file is not None and (train.in_file and run.markers_in_file) != in_file:
            continue
        if train.per == "clock":
            onsets = np.arange(train.phase_s, duration, train.every_s)
        else:
            steps = np.arange(train.count) * like.site.t_r / train.count
            onsets = (shown[:, None] + steps + train.phase_s).ravel()
        found += [(float(onset), train.text) for onset in onsets]
    last = duration - 0.5 / like.rate
    return sorted((onset, text) for onset, text in found if -0.5 / like.rate <= onset < last)


def event_rows(table: EventTable, markers: Markers, protocol: set[str]) -> dict[str, list[str]]:
    """Columns of the site's events table, markers in order of time.

    Parameters
    ----------
    protocol : set of str
        Descriptions of protocol markers: the first of them is the origin where the table says so.
    """
    origin = 0.0
    if table.origin == "protocol":
        origin = next((onset for onset, text in markers if text in protocol), 0.0)
    rows: dict[str, list[str]] = {column: [] for column in table.columns}
    for onset, text in markers:
        shown = max(onset - origin, 0.0)
        number = {"s": f"{shown:.4f}", "ms": f"{1e3 * shown:.1f}", "samples": str(round(shown * table.sfreq))}
        for column in table.columns:
            cell = {"onset": number[table.unit], "duration": "n/a", "sample": str(round(onset * table.sfreq))}
            rows[column].append(cell.get(column, text.rpartition("/")[2]))
    return rows
