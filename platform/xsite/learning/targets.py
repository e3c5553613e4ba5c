"""Targets of a fold: who is scaled by what. Shapes: ``V`` volumes, ``R`` parcels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsite.data.harmonize import paper_target, strict_target
from xsite.evaluation.controls import other_subjects_target
from xsite.recording import Float, Recording, RecordingKey

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
    """

    kind: str
    low_pass: float
    scale_R: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``config.json``; a parcel without scale becomes None, since JSON knows no NaN."""
        scale = [None if math.isnan(value) else value for value in self.scale_R]
        return {"kind": self.kind, "low_pass": self.low_pass, "scale_R": scale}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> TargetSpec:
        """Read what :meth:`to_dict` wrote."""
        scale = tuple(math.nan if value is None else float(value) for value in content["scale_R"])
        return cls(str(content["kind"]), float(content["low_pass"]), scale)


def median_scale(scales_R: Sequence[Float]) -> tuple[float, ...]:
    """Median over recordings of the scale of each parcel; NaN where no recording covers it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)  # a parcel that no recording covers
        return tuple(np.nanmedian(np.stack(list(scales_R)), axis=0).tolist())


def training_target(recording: Recording, spec: TargetSpec) -> Target:
    """Target of a recording that trains: scaled by its own volumes."""
    return paper_target(recording.bold, recording.t_r, spec.low_pass, valid_V=recording.volume_valid)


def unseen_target(recording: Recording, spec: TargetSpec, series_VR: Float | None = None) -> Target:
    """Target of a recording that does not train; ``strict`` never looks at its own scale.

    Parameters
    ----------
    series_VR : array, shape (V, R), optional
        Takes the place of the measured BOLD (the phantom's truth, say).
    """
    series_VR = recording.bold if series_VR is None else series_VR
    valid_V = recording.volume_valid
    if spec.kind == "paper":
        return paper_target(series_VR, recording.t_r, spec.low_pass, valid_V=valid_V)
    nobody_V = np.zeros(recording.n_volumes, dtype=bool)
    scale_R = np.asarray(spec.scale_R)
    return strict_target(series_VR, recording.t_r, nobody_V, scale_R, spec.low_pass, valid_V=valid_V)


def fold_targets(
    train: Sequence[Recording], val: Sequence[Recording], spec: TargetSpec, *, control_seed: int | None = None
) -> dict[RecordingKey, Float]:
    """Targets of everything that a fold may see.

    Parameters
    ----------
    control_seed : int, optional
        Given, every recording gets the target of another subject of its site.
    """
    targets: dict[RecordingKey, Float] = {r.key: training_target(r, spec) for r in train}
    targets |= {r.key: unseen_target(r, spec) for r in val}
    return targets if control_seed is None else other_subjects_target(targets, control_seed)


def unseen_global_signal(recording: Recording, spec: TargetSpec) -> Float:
    """Global signal (V,) through the target's own filter, so that a partial correlation compares like with like."""
    nobody_V, one_R = np.zeros(recording.n_volumes, dtype=bool), np.ones(1)
    column_V1 = recording.global_signal[:, None]
    target_V1 = strict_target(column_V1, recording.t_r, nobody_V, one_R, spec.low_pass, valid_V=recording.volume_valid)
    return target_V1[:, 0]


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
