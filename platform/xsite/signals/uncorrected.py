"""What gradient removal leaves: holes between runs of volumes, and artifacts of other sequences beside the scan.

GRAPPA reference scans, shims and field maps have no triggers and no likeness to the volumes. They stay in the data and
are told by their size.

Letters: ``C`` channels, ``T`` samples, ``P`` pieces of 0.1 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xsite.recording import Bool, Float
from xsite.signals.volume_train import VolumeTrain

LOUD = 4.0  # times the corrected scan: muscles reach 2 or 3 in all channels at once, artifacts 20 and more
LEAST = 1e-3  # of the uncorrected scan: where the EEG itself is next to nothing
PIECE_S = 0.1
_CHANS = 8
_REFERENCE_S = 2.0
_READ = 1 << 18  # samples read at once


def valid_after_removal(raw: Any, corrected: Any, picks: Sequence[int], train: VolumeTrain) -> Bool:
    """False in holes between runs of volumes, and where what is left uncorrected is loud.

    Parameters
    ----------
    raw, corrected : object with ``get_data(picks, start, stop)``
        Before and after.
    picks : sequence of int
        Corrected channels; a few of them are looked at.
    train : VolumeTrain
    """
    valid_T = np.ones(int(raw.n_times), dtype=bool)
    some = [picks[i] for i in np.unique(np.linspace(0, len(picks) - 1, _CHANS).astype(int))]
    size = max(2, int(PIECE_S * raw.info["sfreq"]))
    limit = _limit(raw, corrected, some, train, size)
    for start, stop in uncovered(train, 0, len(valid_T)):
        for lo in range(start, stop, _READ):
            hi = min(stop, lo + _READ)
            edges = lo + np.linspace(0, hi - lo, max(1, round((hi - lo) / size)) + 1).astype(int)
            if hi - lo > size // 10:
                loud_P = _loudness(raw.get_data(some, lo, hi), edges - lo) > limit
                valid_T[lo:hi] &= ~np.repeat(loud_P, np.diff(edges))
    kept = [run for run in train.runs if run.corrected]
    for first, stop in zip(
        [train.runs[0].first, *(run.stop for run in kept)],
        [*(run.first for run in kept), train.runs[-1].stop],
        strict=True,
    ):
        valid_T[first:stop] = False  # nothing between the first and the last trigger, unless it is a run's own
    return valid_T


def uncovered(train: VolumeTrain, start: int, stop: int) -> list[tuple[int, int]]:
    """Stretches of ``start`` to ``stop`` that hold no volume."""
    begins = np.clip(np.concatenate([[start], train.stops_V]), start, stop)
    ends = np.clip(np.concatenate([train.firsts_V, [stop]]), start, stop)
    return [(int(begin), int(end)) for begin, end in zip(begins, ends, strict=True) if begin < end]


def run_steps(train: VolumeTrain, sfreq: float) -> list[dict[str, Any]]:
    """Runs in words for the provenance."""
    return [
        {
            "start_s": round(run.first / sfreq, 3),
            "stop_s": round(run.stop / sfreq, 3),
            "n_volumes": run.n_volumes,
            "corrected": run.corrected,
        }
        for run in train.runs
    ]


def _limit(raw: Any, corrected: Any, some: Sequence[int], train: VolumeTrain, size: int) -> float:
    """Loudness that nothing but an artifact reaches, from some seconds in the middle of the scan."""
    rows = train.longest
    n = max(1, int(np.ceil(_REFERENCE_S * raw.info["sfreq"] / train.spacing)))
    middle = rows[max(0, (len(rows) - n) // 2) :][:n]
    start, stop = int(train.starts_V[middle[0]]), int(train.starts_V[middle[-1]]) + train.spacing
    edges = np.linspace(0, stop - start, max(1, round((stop - start) / size)) + 1).astype(int)
    after, before = (float(np.median(_loudness(data.get_data(some, start, stop), edges))) for data in (corrected, raw))
    return max(LOUD * after, LEAST * before)


def _loudness(data_CT: Float, edges: Any) -> Float:
    """Median over channels of the RMS of first differences, by piece, shape (P,)."""
    power_CT = np.diff(data_CT, axis=1, append=data_CT[:, -1:]) ** 2
    return np.asarray(np.sqrt(np.median(np.add.reduceat(power_CT, edges[:-1], axis=1) / np.diff(edges), axis=0)))
