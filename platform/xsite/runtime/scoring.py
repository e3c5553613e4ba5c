"""Whole held-out recordings: what was measured, and what a finished checkpoint predicts.

Everything here sees the test site and gives nothing back to training. Shapes: ``V`` volumes, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from xsite.data.windows import window_starts
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.predict import predict_recording
from xsite.learning.targets import TargetSpec, unseen_global_signal, unseen_target
from xsite.recording import Bool, Float, Recording, RecordingKey
from xsite.runtime.fold_job import ModelFactory

Predicted = dict[RecordingKey, Float]
BASELINE_WINDOW_S = 16.0
"""EEG before a volume without which no closed-form model predicts it; the trained models' windows may be longer."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What predictions of one held-out recording are compared with."""

    target_VR: Float
    valid_V: Bool
    global_V: Float
    oracle_VR: Float | None


def measure(refs: Sequence[Any], spec: TargetSpec, window_s: float = BASELINE_WINDOW_S) -> dict[RecordingKey, Measured]:
    """:func:`measured` of held-out recordings, by key."""
    recordings: Iterator[Recording] = map(ray.get, refs)
    return {recording.key: measured(recording, spec, window_s) for recording in recordings}


def measured(recording: Recording, spec: TargetSpec, window_s: float = BASELINE_WINDOW_S) -> Measured:
    """Target, oracle and global signal of a held-out recording.

    Parameters
    ----------
    recording : Recording
    spec : TargetSpec
    window_s : float
        The longest EEG window of all models that are compared: volumes without such a window are scored for none of
        them, so that all are judged on the same volumes.
    """
    valid_V = np.zeros(recording.n_volumes, dtype=bool)
    valid_V[window_starts(recording, window_s)[0]] = True
    truth = recording.truth
    return Measured(
        unseen_target(recording, spec),
        valid_V,
        unseen_global_signal(recording, spec),
        None if truth is None else unseen_target(recording, spec, truth),
    )


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
