"""Predictions of whole held-out recordings, as Ray tasks: closed-form models, checkpoints, and what was measured.

Everything here sees the test site and gives nothing back to training. Shapes: ``V`` volumes, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from xsite.data.harmonize import harmonize_eeg
from xsite.data.windows import window_starts
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.experiment import Channels
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.predict import predict_recording
from xsite.learning.targets import TargetSpec, fold_targets, unseen_global_signal, unseen_target
from xsite.recording import Bool, Float, Recording, RecordingKey
from xsite.runtime.worker import ModelFactory

BaselineFactory = Callable[[], Any]
"""Makes a closed-form model with ``fit(recordings, targets, ...)`` and ``predict(recording) -> bold_VR``."""

Predicted = dict[RecordingKey, Float]


@dataclass(frozen=True, eq=False)
class Measured:
    """What predictions of one held-out recording are compared with."""

    target_VR: Float
    valid_V: Bool
    global_V: Float
    oracle_VR: Float | None


@dataclass(frozen=True, eq=False)
class BaselineInput:
    """A recording as closed-form models read it: harmonised channels, microvolt at 200 Hz."""

    eeg_CT: Float
    eeg_valid_T: Bool
    volume_onsets_V: Float
    volume_valid_V: Bool
    sfreq: float


def measure(refs: Sequence[Any], spec: TargetSpec) -> dict[RecordingKey, Measured]:
    """Target, oracle and global signal of held-out recordings; volumes without an EEG window are not scored."""
    result = {}
    for ref in refs:
        recording: Recording = ray.get(ref)
        valid_V = np.zeros(recording.n_volumes, dtype=bool)
        valid_V[window_starts(recording)[0]] = True
        truth = recording.truth
        result[recording.key] = Measured(
            unseen_target(recording, spec),
            valid_V,
            unseen_global_signal(recording, spec),
            None if truth is None else unseen_target(recording, spec, truth),
        )
    return result


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
    control_seed: int | None,
) -> Predicted:
    """Fit a closed-form model on a fold's training recordings, select on validation, predict the held-out site."""
    sides: list[list[Recording]] = [ray.get(list(side)) for side in (train, val)]
    targets = fold_targets(sides[0], sides[1], spec, control_seed=control_seed)
    inputs = [[_baseline_input(r, ch_names, channels, reference) for r in side] for side in sides]
    wanted = [[targets[r.key] for r in side] for side in sides]
    groups = [r.key.subject_id for r in sides[0]]
    model = factory()
    model.fit(inputs[0], wanted[0], val_recordings=inputs[1], val_targets=wanted[1], groups=groups)
    del inputs
    predicted: Predicted = {}
    for ref in test:
        recording: Recording = ray.get(ref)
        predicted[recording.key] = model.predict(_baseline_input(recording, ch_names, channels, reference))
    return predicted


def _baseline_input(
    recording: Recording, ch_names: tuple[str, ...], channels: Channels, reference: Any
) -> BaselineInput:
    eeg_CT = harmonize_eeg(recording, ch_names, reference, channels)
    return BaselineInput(eeg_CT, recording.eeg_valid, recording.volume_onsets, recording.volume_valid, recording.sfreq)


def predict_checkpoint(folder: str, build_model: ModelFactory, test: Sequence[Any]) -> Predicted:
    """Predict held-out recordings with a finished checkpoint, read back from disk: what is scored is what is kept."""
    model, config = open_checkpoint(folder, build_model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recordings: list[Recording] = ray.get(list(test))
    return {r.key: predict_recording(model, r, config=config, device=device) for r in recordings}


def open_checkpoint(folder: str, build_model: ModelFactory) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Model with its weights, and its configuration."""
    state, config = load_checkpoint(folder)
    spec = config["model"]
    model = build_model(
        spec["name"], spec["preset"], spec["options"], ch_names=config["ch_names"], n_outputs=len(config["parcels"])
    )
    model.load_state_dict(state)
    return model, config


def predictions_of(
    predicted: Predicted, measured: Mapping[RecordingKey, Measured], model: str, control: bool
) -> list[Prediction]:
    """Bring predictions and measurements together."""
    return [
        Prediction(key, model, control, predicted_VR, measured[key].target_VR, measured[key].valid_V)
        for key, predicted_VR in predicted.items()
    ]


def oracle_of(measured: Mapping[RecordingKey, Measured]) -> list[Prediction]:
    """The phantom's truth, as one more model; empty for real recordings."""
    known = {key: m.oracle_VR for key, m in measured.items() if m.oracle_VR is not None}
    return predictions_of(known, measured, ORACLE, control=False)
