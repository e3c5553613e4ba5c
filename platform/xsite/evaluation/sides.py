"""Who stands on which side of one training: sides of folds, sides of inner runs, and both as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from xsite.errors import FoldError
from xsite.evaluation.folds import ENTITIES, Fold, Segments
from xsite.experiment import Experiment
from xsite.experiment_parts import Selection
from xsite.recording import RecordingKey

NESTED: Selection = "leave-one-site-out-val"
Keys = tuple[RecordingKey, ...]


@dataclass(frozen=True)
class Sides:
    """Who trains, who stops the training, and whose error is only noted (and read by a rule that selects later)."""

    train: Keys
    val: Keys = ()
    watch: tuple[tuple[str, Keys], ...] = ()
    segments: Segments | None = None

    @property
    def keys(self) -> Keys:
        """Recordings that decide the weights."""
        return (*self.train, *self.val)


def fold_sides(experiment: Experiment, folds: Sequence[Fold]) -> dict[str, Sides]:
    """Sides of the folds: rules that select elsewhere need no validation subjects, and let them train.

    Raises
    ------
    FoldError
        Such a rule, and folds that cut recordings.
    """
    if experiment.select_on == "train-site-val":
        return {fold.held_out: Sides(fold.train, fold.val, segments=fold.segments) for fold in folds}
    if cut := [fold.held_out for fold in folds if fold.segments is not None]:
        raise FoldError(f"select_on {experiment.select_on} needs whole recordings; {cut[0]!r} cuts one: train-site-val")
    return {fold.held_out: Sides(tuple(sorted((*fold.train, *fold.val)))) for fold in folds}


def inner_sides(folds: Sequence[Fold], groups: Sequence[Fold]) -> dict[str, Sides]:
    """Inner runs: each trains without two held-out groups and is watched at both, one run for both.

    Raises
    ------
    FoldError
        Fewer than three groups, or the groups overlap, so that leaving two out is not the same from both sides.
    """
    if len(groups) < 3:
        names = ", ".join(fold.held_out for fold in groups)
        raise FoldError(f"select_on {NESTED} needs three held-out groups or more, to train on one; there are: {names}")
    wanted = {fold.held_out for fold in folds}
    found: dict[str, Sides] = {}
    for a, b in combinations(sorted(groups, key=lambda fold: fold.held_out), 2):
        if not wanted & {a.held_out, b.held_out}:
            continue
        without_a, without_b = ({*fold.train, *fold.val} - {*other.test} for fold, other in ((a, b), (b, a)))
        if without_a != without_b or not without_a or {*a.test} & {*b.test}:
            raise FoldError(
                f"select_on {NESTED}: the folds {a.held_out!r} and {b.held_out!r} do not train on one another's test "
                "side, so no run can be inner fold of both; use a leave-one-out scheme, or select_on train-site-val"
            )
        watch = ((a.held_out, a.test), (b.held_out, b.test))
        found[f"{a.held_out}+{b.held_out}"] = Sides(tuple(sorted(without_a)), (), watch)
    return found


def sides_to_dict(sides: Sides) -> dict[str, Any]:
    """Plain data for ``plan.json``."""
    watch = {label: _rows(keys) for label, keys in sides.watch}
    plain = {"train": _rows(sides.train), "val": _rows(sides.val), "watch": watch}
    return plain | {"segments": segments_to_dict(sides.segments)}


def sides_from_dict(content: Mapping[str, Any]) -> Sides:
    """Inverse of :func:`sides_to_dict`."""
    watch = tuple((label, _keys(rows)) for label, rows in content["watch"].items())
    segments = content["segments"] and {
        side: {RecordingKey(*row): (int(start), int(stop)) for row, start, stop in spans}
        for side, spans in content["segments"].items()
    }
    return Sides(_keys(content["train"]), _keys(content["val"]), watch, segments)


def segments_to_dict(segments: Segments | None) -> dict[str, list[Any]] | None:
    """Spans of volumes per side as plain data; also what hashes of runs are made of."""
    if segments is None:
        return None
    return {side: sorted([*_rows([key]), *span] for key, span in spans.items()) for side, spans in segments.items()}


def _rows(keys: Iterable[RecordingKey]) -> list[list[str]]:
    return [[getattr(key, name) for name in ENTITIES] for key in keys]


def _keys(rows: Iterable[Sequence[str]]) -> Keys:
    return tuple(RecordingKey(*row) for row in rows)
