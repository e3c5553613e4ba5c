"""Triggers with holes: each run of volumes between two holes keeps its own clock and its own templates.

The scanner or the amplifier stopped in a hole; what comes after it may be at any phase to what came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xsite.errors import AlignmentError
from xsite.recording import Float
from xsite.signals.volume_train import Run, VolumeTrain, one_run

HOLE = 1.4  # volumes from trigger to trigger: at the next one but one half a volume may have been lost


def volume_train(
    raw: Any, triggers: Float, *, picks: Sequence[int], t_r: float, n_least: int, tolerance: int, source: str
) -> VolumeTrain:
    """Find the stretches of artifact of all runs of triggers that hold ``n_least`` whole volumes.

    Raises
    ------
    AlignmentError
        Half of the volumes or more lie in runs with too few whole volumes, or triggers jitter inside a run.
    """
    sfreq, n_times = float(raw.info["sfreq"]), int(raw.n_times)
    exact = np.sort(np.asarray(triggers, dtype=np.float64)) * sfreq
    onsets = np.rint(exact)
    spacing = int(np.rint(np.median(np.diff(onsets)))) if len(onsets) > 1 else int(np.rint(t_r * sfreq))
    exact = exact[(onsets + spacing > 0) & (onsets < n_times)]
    parts = np.split(exact, np.flatnonzero(np.diff(exact) > HOLE * spacing) + 1)
    whole = [int(((np.rint(part) >= 0) & (np.rint(part) + spacing <= n_times)).sum()) for part in parts]
    enough = [n >= n_least for n in whole]
    if 2 * sum(n for n, kept in zip(whole, enough, strict=True) if kept) <= sum(whole):
        pieces = "" if len(parts) == 1 else f", in {len(parts)} runs with holes between them"
        raise AlignmentError(
            f"{source}: gradient removal needs at least {n_least} whole volumes, the EEG holds {max(whole)}"
            + (f" of {sum(whole)}{pieces}" if pieces else "")
        )
    runs = tuple(_run(part, spacing, n_times, kept) for part, kept in zip(parts, enough, strict=True))
    trains: list[VolumeTrain] = []
    reached = 0
    kept_parts = [part for part, kept in zip(parts, enough, strict=True) if kept]
    for number, part in enumerate(kept_parts):
        after = int(np.rint(kept_parts[number + 1][0])) if number + 1 < len(kept_parts) else n_times
        train = one_run(
            raw, part, spacing=spacing, limits=(reached, after), picks=picks, tolerance=tolerance, source=source
        )
        reached = int(train.stops_V[-1])
        trains.append(replace(train, run_V=train.run_V + number))
    return _joined(trains, runs)


def _run(part: Float, spacing: int, n_times: int, corrected: bool) -> Run:
    first, stop = int(np.rint(part[0])), int(np.rint(part[-1])) + spacing
    return Run(max(0, first), min(n_times, stop), len(part), corrected)


def _joined(trains: list[VolumeTrain], runs: tuple[Run, ...]) -> VolumeTrain:
    columns = ("starts_V", "stops_V", "firsts_V", "phase_V", "whole_V")
    joined = {name: np.concatenate([getattr(train, name) for train in trains]) for name in columns}
    return VolumeTrain(
        **joined, spacing=trains[0].spacing, run_V=np.concatenate([train.run_V for train in trains]), runs=runs
    )
