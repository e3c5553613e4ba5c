"""When what happened in a study, over all its sessions: ``timeline.jsonl``, and what share of the time was training.

One line per event, appended and never rewritten: a study that was stopped and resumed keeps the lines of every session.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xsite.runtime.study import StudyFolder

FILE = "timeline.jsonl"
KEPT = ("label", "purpose", "epoch", "resumed", "skipped", "stage", "places")


class Timeline:
    """Appends events to the study's log.

    Parameters
    ----------
    folder : StudyFolder
    """

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.session = time.time()

    def note(self, event: Mapping[str, Any]) -> None:
        """Append one event with the time of now and the session it belongs to."""
        row = {"session": self.session, "time": time.time(), "kind": event["kind"]}
        row |= {name: event[name] for name in KEPT if name in event}
        if "metrics" in event:
            row["seconds"] = event["metrics"].get("seconds")
        self.folder.append(FILE, "\n" + json.dumps(row))  # the break first: a line cut short by a crash spoils no other


def read_timeline(folder: str | Path) -> pd.DataFrame:
    """Events of all sessions, in order; empty where there is no log. A line cut short by a crash is left out.

    Returns
    -------
    DataFrame
        ``session, time`` (seconds since 1970), ``kind`` and what the event says; ``seconds`` of an epoch include its
        validation, and the errors at watched sites.
    """
    path = Path(folder) / FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return pd.DataFrame(list(_rows(lines)), columns=["session", "time", "kind", *KEPT, "seconds"])


@dataclass(frozen=True)
class SessionTime:
    """What became of the time of one session.

    Parameters
    ----------
    wall_s : float
        From the plan to the last event.
    warm_s : float
        From the first training's start to the last one's end: starting Ray and its workers, and the scoring after the
        last training, are not in it.
    training_s : float
        Seconds of all epochs, validation included, summed over trainings.
    places : int
        Trainings that ran at a time.
    n_trainings, n_epochs : int
        Trainings that ended, and epochs that were trained, in this session.
    """

    wall_s: float
    warm_s: float
    training_s: float
    places: int
    n_trainings: int
    n_epochs: int

    @property
    def overhead(self) -> float:
        """Share of the places' warm time in which no epoch was running; NaN before anything was trained."""
        room = self.places * self.warm_s
        return 1 - self.training_s / room if room > 0 else float("nan")


def session_times(timeline: pd.DataFrame) -> list[SessionTime]:
    """One entry per session of the log.

    Parameters
    ----------
    timeline : DataFrame
        As from :func:`read_timeline`. Of stacked trainings each one's epochs are counted, so ``places`` has to count
        every lane.
    """
    return [_session(rows) for _, rows in timeline.groupby("session", sort=True)]


def _session(rows: pd.DataFrame) -> SessionTime:
    times, kinds = rows["time"], rows["kind"]
    epochs = rows[kinds == "epoch"]
    ended = rows[(kinds == "fold_done") & rows["skipped"].ne(other=True)]
    started = times[kinds == "fold_started"]
    last = max(times[epochs.index.union(ended.index)], default=0.0)
    return SessionTime(
        wall_s=float(times.max() - times.min()),
        warm_s=float(last - started.min()) if len(started) and last else 0.0,
        training_s=float(epochs["seconds"].sum()),
        places=int(rows["places"].max()) if rows["places"].notna().any() else 1,
        n_trainings=len(ended),
        n_epochs=len(epochs),
    )


def _rows(lines: list[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # empty, or cut short
            continue
