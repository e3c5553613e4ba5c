"""Where the first volume lies among the markers: what is known before looking, and how the answer is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["start", "end"]
By = Literal["artifact", "protocol", "site", "count"]

PROTOCOL_FRACTION = 0.3  # of a TR that a protocol event may lie off a volume and still name it


@dataclass(frozen=True)
class Facts:
    """What does not change while one recording is aligned."""

    n_volumes: int
    t_r: float
    eeg_duration: float
    source: str
    dummy_volumes: int = 0
    extra_markers: Side | None = None
    missing_markers: Side | None = None
    first_onset: float | None = None
    breaks: tuple[float, ...] = ()
    discarded: int = 0


@dataclass(frozen=True)
class Origin:
    """Tick of the first volume, and how it is known.

    Parameters
    ----------
    shift : int
        Tick of the marker clock at which the first volume of the image begins.
    by : {"artifact", "protocol", "site", "count"}
        ``artifact`` and ``protocol`` confirm; ``site`` is its published word; ``count`` is the simplest explanation.
    doubts : tuple of str
        What speaks against the train or against this shift.
    words : tuple of str
        What was found.
    """

    shift: int
    by: By
    doubts: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
