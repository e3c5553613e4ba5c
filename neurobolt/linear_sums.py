"""Linear fits from sums over rows: read once, kept small, added up across processes.

Shape letters: ``W`` volumes with a window, ``R`` parcels, ``P`` features.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence, Sized
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobolt.band_power import BaselineRecording, Bool, Float

N_FOLDS = 5
TRAIN, VAL = 0, -1
"""Fold labels where recordings for validation are given."""


@dataclass
class Sums:
    """Sufficient statistics of a linear fit: counts, sums and products over rows."""

    n: float
    x_P: Float
    y_R: Float
    xx_PP: Float
    xy_PR: Float
    yy_R: Float

    @classmethod
    def zero(cls, n_features: int, n_parcels: int) -> Sums:
        """Of no rows."""
        p, r = n_features, n_parcels
        return cls(0.0, np.zeros(p), np.zeros(r), np.zeros((p, p)), np.zeros((p, r)), np.zeros(r))

    def add(self, x_WP: Float, y_WR: Float) -> None:
        """Take in rows without missing values."""
        self.n += len(x_WP)
        self.x_P += x_WP.sum(0, dtype=np.float64)
        self.y_R += y_WR.sum(0, dtype=np.float64)
        self.xx_PP += x_WP.T @ x_WP
        self.xy_PR += x_WP.T @ y_WR.astype(x_WP.dtype)
        self.yy_R += np.square(y_WR, dtype=np.float64).sum(0)

    def combined(self, other: Sums, sign: int = 1) -> Sums:
        """Sums of both (or, with -1, of the rows that the other does not hold)."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Sums(*(a + sign * b for a, b in pairs))

    def parcels(self, columns: NDArray[np.int64]) -> Sums:
        """The same rows with some of the parcels; shares nothing with this one."""
        return Sums(
            self.n, self.x_P.copy(), self.y_R[columns], self.xx_PP.copy(), self.xy_PR[:, columns], self.yy_R[columns]
        )

    def solve(self, alpha: float) -> tuple[Float, Float]:
        """Weights (P, R) and intercept (R,) at a ridge strength of ``alpha`` per row."""
        x, y = self.x_P / self.n, self.y_R / self.n
        gram = self.xx_PP - self.n * np.outer(x, x)
        gram[np.diag_indices_from(gram)] += alpha * self.n
        weight_PR = np.linalg.solve(gram, self.xy_PR - self.n * np.outer(x, y))
        return weight_PR, y - x @ weight_PR

    def squared_error(self, weight_PR: Float, bias_R: Float) -> Float:
        """Sum of squared errors (R,) of a linear prediction of these rows, without seeing the rows again."""
        explained = np.einsum("pr,pr->r", weight_PR, self.xx_PP @ weight_PR)
        offset = 2 * bias_R * (self.x_P @ weight_PR - self.y_R) + self.n * bias_R**2
        error_R: Float = self.yy_R - 2 * np.einsum("pr,pr->r", weight_PR, self.xy_PR) + explained + offset
        return error_R


@dataclass
class ParcelSums:
    """Sums by fold, for parcels that may miss different values.

    Parcels that have missed the same values so far share their sums (usually all of them do); a recording that tells
    them apart splits them. So nothing needs to be known beforehand, and memory grows with the number of different
    patterns, not with recordings.
    """

    n_parcels: int
    kinds: list[tuple[NDArray[np.int64], dict[int, Sums]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kinds = self.kinds or [(np.arange(self.n_parcels), {})]

    def add(self, x_WP: Float, y_WR: Float, fold: int) -> None:
        """Take in one recording's rows, NaN in ``y_WR`` where a value is missing."""
        finite_WR = np.isfinite(y_WR)
        self._split([finite_WR[:, r].tobytes() for r in range(self.n_parcels)])
        for columns, by_fold in self.kinds:
            sums = by_fold.setdefault(fold, Sums.zero(x_WP.shape[1], len(columns)))
            here_W = finite_WR[:, columns[0]]
            sums.add(x_WP[here_W], y_WR[here_W][:, columns])

    def merged(self, other: ParcelSums) -> ParcelSums:
        """Both together, as if one process had read all recordings.

        Raises
        ------
        ValueError
            Other parcels or other features.
        """
        if (self.n_parcels, self.n_features) != (other.n_parcels, other.n_features):
            raise ValueError(
                f"sums of {self.n_features} features and {self.n_parcels} parcels cannot be added to sums of "
                f"{other.n_features} and {other.n_parcels}: a baseline needs the same channels and parcels everywhere"
            )
        mine, theirs = deepcopy(self), deepcopy(other)
        mine._split(theirs.labels())
        theirs._split(mine.labels())
        found = {columns.tobytes(): by_fold for columns, by_fold in theirs.kinds}
        for columns, by_fold in mine.kinds:
            for fold, sums in found[columns.tobytes()].items():
                by_fold[fold] = by_fold[fold].combined(sums) if fold in by_fold else sums
        return mine

    def labels(self) -> list[int]:
        """Number of the kind of each parcel."""
        label_R = np.empty(self.n_parcels, np.int64)
        for number, (columns, _) in enumerate(self.kinds):
            label_R[columns] = number
        return [int(number) for number in label_R]

    @property
    def n_features(self) -> int:
        """Columns of the features; 0 while nothing has been added."""
        return next((len(sums.x_P) for _, by_fold in self.kinds for sums in by_fold.values()), 0)

    @property
    def folds(self) -> list[int]:
        """Labels seen so far."""
        return sorted({fold for _, by_fold in self.kinds for fold in by_fold})

    def _split(self, labels: Sequence[Hashable]) -> None:
        split = []
        for columns, by_fold in self.kinds:
            parts: dict[Hashable, list[int]] = {}
            for place, r in enumerate(columns):
                parts.setdefault(labels[r], []).append(place)
            for places in parts.values():
                kept = by_fold if len(parts) == 1 else {f: s.parcels(np.array(places)) for f, s in by_fold.items()}
                split.append((columns[places], kept))
        self.kinds = split


def sum_up(
    features: Callable[[BaselineRecording], tuple[Float, Bool]],
    recordings: Iterable[BaselineRecording],
    targets: Iterable[Float],
    folds: Iterable[int],
) -> ParcelSums:
    """Sums of some recordings, one in memory at a time: the map step; :meth:`ParcelSums.merged` is the reduce step.

    Parameters
    ----------
    features : callable
        Recording to features (W, P) and which volumes have a window (V,).
    recordings, targets, folds : iterables
        Generators will do; the last says for each recording ``TRAIN`` or ``VAL``, or the number of its fold.

    Raises
    ------
    ValueError
        No recording, or recordings and targets that do not fit together.
    """
    found: ParcelSums | None = None
    for (recording, target_VR), fold in zip(pairs(recordings, targets), folds, strict=False):
        x_WP, seen_V = features(recording)
        found = found or ParcelSums(target_VR.shape[1])
        found.add(x_WP, target_VR[seen_V], fold)
    if found is None:
        raise ValueError(_uneven(0, 0))
    return found


def added(parts: Iterable[Sums]) -> Sums:
    """All of them together."""
    first, *rest = parts
    whole = first
    for part in rest:
        whole = whole.combined(part)
    return whole


def deal(groups: Iterable[Hashable]) -> Iterator[int]:
    """Deal groups to at most five folds, in the order of their first recording; one fold number per recording."""
    order: dict[Hashable, int] = {}
    for group in groups:
        yield order.setdefault(group, len(order)) % N_FOLDS


def pairs(
    recordings: Iterable[BaselineRecording], targets: Iterable[Float]
) -> Iterator[tuple[BaselineRecording, Float]]:
    """Recordings with their targets (V, R), one at a time; refuses with a ``ValueError`` those that do not fit.

    What can be counted is counted before anything is read; streams are checked as they come.
    """
    counts = _length(recordings), _length(targets)
    if None not in counts and (counts[0] != counts[1] or not counts[0]):
        raise ValueError(_uneven(*counts))
    return _checked(iter(recordings), iter(targets))


def _checked(
    recordings: Iterator[BaselineRecording], targets: Iterator[Float]
) -> Iterator[tuple[BaselineRecording, Float]]:
    n_chans, n_parcels, number = -1, -1, 0
    for recording in recordings:
        target_VR = next(targets, None)
        if target_VR is None:
            raise ValueError(_uneven(f"more than {number}", number))
        n_volumes = len(recording.volume_onsets_V)
        n_parcels = target_VR.shape[-1] if n_parcels < 0 else n_parcels
        if target_VR.shape != (n_volumes, n_parcels):
            raise ValueError(
                f"target {number} has shape {target_VR.shape}, expected ({n_volumes} volumes, {n_parcels} parcels)"
            )
        n_chans = recording.eeg_CT.shape[0] if n_chans < 0 else n_chans
        if recording.eeg_CT.shape[0] != n_chans:
            raise ValueError(
                f"recording {number} has {recording.eeg_CT.shape[0]} channels, the first {n_chans}: "
                "a baseline needs the same channels in the same order everywhere"
            )
        yield recording, target_VR
        number += 1
    if next(targets, None) is not None or not number:
        raise ValueError(_uneven(number, f"more than {number}" if number else 0))


def is_empty(items: Iterable[Any]) -> bool:
    """Whether there is known to be nothing; a generator is not known to be empty."""
    return _length(items) == 0


def _length(items: Any) -> int | None:
    return len(items) if isinstance(items, Sized) else None


def _uneven(n_recordings: Any, n_targets: Any) -> str:
    return f"{n_recordings} recordings and {n_targets} targets: give as many of both, at least one"
