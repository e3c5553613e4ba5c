"""Closed-form models on Ray: fitted on a fold's recordings without holding more than one at a time, and predicted.

They read what the trained models read: harmonised channels, targets of the same specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from xsite.data.harmonize import harmonize_eeg
from xsite.data.windows import window_starts
from xsite.errors import RecipeError
from xsite.evaluation.collapse import GLOBAL_SIGNAL
from xsite.experiment_parts import Adapt, Channels
from xsite.learning.adaptation import input_alignment
from xsite.learning.targets import TargetSpec, side_targets, training_target, unseen_global_signal, unseen_target
from xsite.recording import Bool, Float, Parcellation, Recording
from xsite.runtime.scoring import Predicted

BaselineFactory = Callable[[], Any]
"""Makes a closed-form model with ``fit(recordings, targets, ...)`` and ``predict(recording) -> bold_VR``."""
PART = 8
"""Recordings that one task of a map-reduce fit reads, one after the other."""


@dataclass(frozen=True, eq=False)
class BaselineInput:
    """A recording as closed-form models read it: harmonised channels, microvolt at 200 Hz."""

    eeg_CT: Float
    eeg_valid_T: Bool
    volume_onsets_V: Float
    volume_valid_V: Bool
    sfreq: float
    ch_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Reading:
    """How one side's recordings become what a closed-form model reads, one at a time."""

    spec: TargetSpec
    ch_names: tuple[str, ...]
    channels: Channels
    reference: Any
    side: str = "train"
    high_pass: float | None = None
    adapt: Adapt = "none"

    def input(self, recording: Recording) -> BaselineInput:
        eeg_CT = harmonize_eeg(recording, self.ch_names, self.reference, self.channels, self.high_pass)
        if (align := input_alignment(self.adapt)) is not None:
            eeg_CT = align(eeg_CT, np.ones(len(eeg_CT), dtype=bool), recording.eeg_valid)
        onsets_V, valid_V = recording.volume_onsets, recording.volume_valid
        return BaselineInput(eeg_CT, recording.eeg_valid, onsets_V, valid_V, recording.sfreq, self.ch_names)

    def inputs(self, refs: Sequence[Any]) -> Iterator[BaselineInput]:
        """Load, harmonise, hand on, let go."""
        return (self.input(ray.get(ref)) for ref in refs)

    def targets(self, refs: Sequence[Any]) -> list[Float]:
        """Small beside the EEG: all of them fit."""
        return [self._target(ray.get(ref)) for ref in refs]

    def _target(self, recording: Recording) -> Float:
        train, val = ([recording], ()) if self.side == "train" else ((), [recording])
        both = side_targets(train, val, self.spec)
        return (both[0] if self.side == "train" else both[1])[0]


def without_eeg(recording: Recording) -> Recording:
    """A copy without EEG that does not keep the original in shared memory."""
    return replace(recording, eeg=recording.eeg[:, :0].copy(), eeg_valid=recording.eeg_valid[:0].copy())


def fit_baseline(
    factory: BaselineFactory,
    train: Sequence[Any],
    val: Sequence[Any],
    test: Sequence[Any],
    *,
    spec: TargetSpec,
    ch_names: tuple[str, ...],
    channels: Channels,
    reference: Any,
    high_pass: float | None = None,
    adapt: Adapt = "none",
    control_seed: int | None,
) -> Predicted:
    """Fit a closed-form model on a fold's training recordings, select on validation, predict the held-out site.

    No process holds more than one recording's EEG of its own: models that are fitted from sums read ``PART`` recordings
    per Ray task, and the sums are added up; others are handed generators.
    """
    model = factory()
    if isinstance(model, GlobalSignalOracle):
        if control_seed is not None:
            raise RecipeError(f"controls names {GLOBAL_SIGNAL!r}: an oracle reads the BOLD and has no control")
        model.fit(train, spec)
        return {r.key: model.predict(r, spec) for r in map(ray.get, test)}
    readings = [_Reading(spec, ch_names, channels, reference, side, high_pass, adapt) for side in ("train", "val")]
    wanted = _control_targets(readings, train, val, control_seed)
    if hasattr(model, "fit_sums"):
        model.fit_sums(_summed(factory, readings, (train, val), wanted))
    else:
        y = wanted or [reading.targets(refs) for reading, refs in zip(readings, (train, val), strict=True)]
        inputs = [reading.inputs(refs) for reading, refs in zip(readings, (train, val), strict=True)]
        selecting = {"val_recordings": inputs[1], "val_targets": y[1]} if val else {}
        model.fit(inputs[0], y[0], **selecting)
    return {r.key: model.predict(readings[0].input(r)) for r in map(ray.get, test)}


def _control_targets(
    readings: Sequence[_Reading], train: Sequence[Any], val: Sequence[Any], control_seed: int | None
) -> list[list[Float]] | None:
    """Other subjects' targets, dealt over both sides together; None where everybody keeps their own."""
    if control_seed is None:
        return None
    sides = [[without_eeg(ray.get(ref)) for ref in refs] for refs in (train, val)]
    return list(side_targets(sides[0], sides[1], readings[0].spec, control_seed=control_seed))


def _summed(
    factory: BaselineFactory,
    readings: Sequence[_Reading],
    sides: Sequence[Sequence[Any]],
    wanted: list[list[Float]] | None,
) -> Any:
    """Sums over all recordings of both sides: mapped over Ray tasks, reduced in order, so that figures repeat."""
    add_up = ray.remote(num_cpus=1)(_sums_of)
    # labels of neurobolt.linear_sums: TRAIN and VAL, or, without validation, subjects dealt to at most five folds
    folds = [[0] * len(sides[0]) if sides[1] else _dealt(sides[0]), [-1] * len(sides[1])]
    parts = []
    for number, (reading, refs) in enumerate(zip(readings, sides, strict=True)):
        for first in range(0, len(refs), PART):
            some = slice(first, first + PART)
            own = None if wanted is None else wanted[number][some]
            parts.append(add_up.remote(factory, reading, list(refs[some]), own, folds[number][some]))
    whole = ray.get(parts.pop(0))
    while parts:
        whole = whole.merged(ray.get(parts.pop(0)))
    return whole


def _sums_of(
    factory: BaselineFactory,
    reading: _Reading,
    refs: Sequence[Any],
    wanted: Sequence[Float] | None,
    folds: Sequence[int],
) -> Any:
    targets = reading.targets(refs) if wanted is None else wanted
    return factory().sums(reading.inputs(refs), targets, folds)


def _dealt(refs: Sequence[Any]) -> list[int]:
    order: dict[str, int] = {}
    return [order.setdefault(str(ray.get(ref).key.subject_id), len(order)) % 5 for ref in refs]


class GlobalSignalOracle:
    """Each parcel as its share of the recording's own measured global signal: an upper bound, not a model.

    The share of each parcel is learnt from training recordings (least squares through the origin); the global signal of
    the held-out recording is measured, which is why this is an oracle, marked as one, and refused by the registry.
    What a model scores above it is not the global signal.
    """

    def __init__(self) -> None:
        self.weight_R: Float = np.empty(0)

    def fit(self, train: Sequence[Any], spec: TargetSpec) -> None:
        """Regress the targets on the global signal, one recording at a time."""
        product_R, square_R = np.zeros(0), np.zeros(0)
        for ref in train:
            recording: Recording = ray.get(ref)
            # a held-out recording is scaled by the training recordings' median, so the share is learnt at that scale
            target_VR = (training_target if spec.segments else unseen_target)(recording, spec)
            signal_V1 = _global_signal(recording, spec, "train")[:, None]
            both_VR = np.isfinite(target_VR) & np.isfinite(signal_V1)
            if not product_R.size:
                product_R, square_R = np.zeros(target_VR.shape[1]), np.zeros(target_VR.shape[1])
            product_R += np.where(both_VR, target_VR * signal_V1, 0.0).sum(0)
            square_R += np.where(both_VR, signal_V1**2, 0.0).sum(0)
        self.weight_R = np.where(square_R > 0, product_R / np.where(square_R > 0, square_R, 1.0), 0.0)

    def predict(self, recording: Recording, spec: TargetSpec) -> Float:
        """(V, R), NaN for volumes without an EEG window (as for every model) or without a global signal."""
        seen_V = np.zeros(recording.n_volumes, dtype=bool)
        seen_V[window_starts(recording)[0]] = True
        predicted_VR = _global_signal(recording, spec, "test")[:, None] * self.weight_R
        return np.where(seen_V[:, None], predicted_VR, np.nan).astype(np.float32)


def _global_signal(recording: Recording, spec: TargetSpec, side: str) -> Float:
    """In the state of the targets: filtered alike, and scaled like them where each is scaled by itself (``paper``)."""
    if spec.kind == "paper" or spec.segments is not None:
        column_V1 = recording.global_signal[:, None]
        alone = replace(without_eeg(recording), bold=column_V1, truth=None, parcellation=_one_parcel(recording))
        target_V1 = training_target(alone, spec) if side == "train" else unseen_target(alone, spec)
        return target_V1[:, 0]
    return unseen_global_signal(recording, spec)


def _one_parcel(recording: Recording) -> Parcellation:
    return replace(recording.parcellation, labels=("global",))
