"""Targets of a fold: who is scaled by what. Shapes: ``V`` volumes, ``R`` parcels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsite.data.harmonize import paper_target, strict_target
from xsite.errors import FoldError
from xsite.evaluation.controls import other_subjects_target
from xsite.evaluation.folds import Segments
from xsite.recording import Bool, Float, Recording, RecordingKey

Target = NDArray[np.float32]


@dataclass(frozen=True)
class TargetSpec:
    """How BOLD becomes the target of one fold.

    Parameters
    ----------
    kind : {"paper", "strict"}
    low_pass : float
        Hz.
    scale_R : tuple of float, length R
        Median over the fold's training recordings of their own scale, NaN where none covers the parcel. ``strict``
        divides validation and test recordings by it.
    segments : mapping, optional
        :attr:`xsite.evaluation.folds.Fold.segments`: volumes of each side, where recordings stand on all three. Each
        side's target is NaN outside its own volumes, and its mean and scale are those of the training volumes.
    """

    kind: str
    low_pass: float
    scale_R: tuple[float, ...]
    segments: Segments | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``; a parcel without scale becomes None, since JSON knows no NaN."""
        scale = [None if math.isnan(value) else value for value in self.scale_R]
        content = {"kind": self.kind, "low_pass": self.low_pass, "scale_R": scale}
        if self.segments is None:
            return content
        listed = {side: [[*astuple(k), *span] for k, span in spans.items()] for side, spans in self.segments.items()}
        return {**content, "segments": listed}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TargetSpec:
        """Read what :meth:`to_dict` wrote."""
        scale = tuple(math.nan if value is None else float(value) for value in content["scale_R"])
        listed = content.get("segments")
        segments = None
        if listed is not None:
            segments = {
                side: {RecordingKey(*map(str, row[:-2])): (int(row[-2]), int(row[-1])) for row in rows}
                for side, rows in listed.items()
            }
        return cls(str(content["kind"]), float(content["low_pass"]), scale, segments)


def median_scale(scales_R: Sequence[Float]) -> tuple[float, ...]:
    """Median over recordings of the scale of each parcel; NaN where no recording covers it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a parcel that no recording covers
        return tuple(np.nanmedian(np.stack(list(scales_R)), axis=0).tolist())


def training_target(recording: Recording, spec: TargetSpec) -> Target:
    """Target of a recording that trains: scaled by its own volumes, of its training part where it has parts."""
    if spec.segments is not None:
        return _part_target(recording, spec, "train", recording.bold)
    return paper_target(recording.bold, recording.t_r, spec.low_pass, valid_V=recording.volume_valid)


def unseen_target(
    recording: Recording, spec: TargetSpec, series_VR: Float | None = None, *, side: str = "test"
) -> Target:
    """Target of a recording that does not train; ``strict`` never looks at its own scale.

    Parameters
    ----------
    series_VR : array, shape (V, R), optional
        Takes the place of the measured BOLD (the phantom's truth, say).
    side : {"val", "test"}
        Which volumes, where recordings have parts.
    """
    series_VR = recording.bold if series_VR is None else series_VR
    if spec.segments is not None:
        return _part_target(recording, spec, side, series_VR)
    valid_V = recording.volume_valid
    if spec.kind == "paper":
        return paper_target(series_VR, recording.t_r, spec.low_pass, valid_V=valid_V)
    nobody_V = np.zeros(recording.n_volumes, dtype=bool)
    scale_R = np.asarray(spec.scale_R)
    return strict_target(series_VR, recording.t_r, nobody_V, scale_R, spec.low_pass, valid_V=valid_V)


def _part_target(recording: Recording, spec: TargetSpec, side: str, series_VR: Float) -> Target:
    """Target of one part of a recording; ``strict`` filters it without the other parts, ``paper`` with all of them."""
    train_V, own_V = _volumes(recording, spec, "train"), _volumes(recording, spec, side)
    if spec.kind == "paper":
        target_VR = paper_target(series_VR, recording.t_r, spec.low_pass, valid_V=recording.volume_valid)
    else:
        valid_V = recording.volume_valid & (train_V | own_V)
        target_VR = strict_target(series_VR, recording.t_r, train_V, None, spec.low_pass, valid_V=valid_V)
    return np.where(own_V[:, None], target_VR, np.float32(np.nan))


def _volumes(recording: Recording, spec: TargetSpec, side: str) -> Bool:
    start, stop = (spec.segments or {})[side][recording.key]
    place_V = np.arange(recording.n_volumes)
    return (place_V >= start) & (place_V < stop)


def without_test_part(recording: Recording, spec: TargetSpec) -> Recording:
    """The recording as a training process may have it: the BOLD of its test volumes is gone, where it has parts.

    ``paper`` then has no whole scan to take its statistics from: such targets are made before this is called.
    """
    if spec.segments is None:
        return recording
    hidden_V = _volumes(recording, spec, "test")
    bold_VR, global_V = recording.bold.copy(), recording.global_signal.copy()
    bold_VR[hidden_V], global_V[hidden_V] = np.nan, np.nan
    truth_VR = None if recording.truth is None else np.where(hidden_V[:, None], np.nan, recording.truth)
    valid_V = recording.volume_valid & ~hidden_V
    return replace(recording, bold=bold_VR, global_signal=global_V, truth=truth_VR, volume_valid=valid_V)


def side_targets(
    train: Sequence[Recording], val: Sequence[Recording], spec: TargetSpec, *, control_seed: int | None = None
) -> tuple[list[Float], list[Float]]:
    """Targets of the recordings that train and of those that select, in their order.

    Parameters
    ----------
    control_seed : int, optional
        Given, every recording gets the target of another subject of its site.
    """
    if spec.segments is None:
        targets = fold_targets(train, val, spec, control_seed=control_seed)
        return [targets[r.key] for r in train], [targets[r.key] for r in val]
    if control_seed is not None:
        raise FoldError(
            "controls swap the BOLD of subjects, and a fold within one recording has one subject; set controls: [] "
            "for folds.scheme within-recording"
        )
    return [training_target(r, spec) for r in train], [unseen_target(r, spec, side="val") for r in val]


def fold_targets(
    train: Sequence[Recording], val: Sequence[Recording], spec: TargetSpec, *, control_seed: int | None = None
) -> dict[RecordingKey, Float]:
    """Targets of everything that a fold may see, where no recording has parts; :func:`side_targets` knows both."""
    assert spec.segments is None, "a recording with parts has a target per side: use side_targets"
    targets: dict[RecordingKey, Float] = {r.key: training_target(r, spec) for r in train}
    targets |= {r.key: unseen_target(r, spec) for r in val}
    return targets if control_seed is None else other_subjects_target(targets, control_seed)


def unseen_global_signal(recording: Recording, spec: TargetSpec) -> Float:
    """Global signal (V,) through the target's own filter, so that a partial correlation compares like with like."""
    nobody_V, one_R = np.zeros(recording.n_volumes, dtype=bool), np.ones(1)
    valid_V = recording.volume_valid
    if spec.segments is not None:
        valid_V = valid_V & _volumes(recording, spec, "test")
    column_V1 = recording.global_signal[:, None]
    return strict_target(column_V1, recording.t_r, nobody_V, one_R, spec.low_pass, valid_V=valid_V)[:, 0]


def select_parcels(recording: Recording, parcels: Sequence[str]) -> Recording:
    """The recording with some of its parcels, in the asked order; all of them where ``parcels`` is empty."""
    labels = recording.parcellation.labels
    if not parcels or tuple(parcels) == labels:
        return recording
    columns = [labels.index(name) for name in parcels]
    return replace(
        recording,
        parcellation=replace(recording.parcellation, labels=tuple(parcels)),
        bold=recording.bold[:, columns],
        truth=None if recording.truth is None else recording.truth[:, columns],
    )
