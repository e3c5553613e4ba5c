"""How fast a model trains on this machine: a second of steps on random windows, before anything is planned."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from xsite.data.window_source import WindowSource
from xsite.data.windows import build_source
from xsite.experiment import Experiment
from xsite.learning import stacked
from xsite.learning.algorithms import build_algorithm
from xsite.learning.loop import fit
from xsite.recording import Montage, Parcellation, Recording, RecordingKey


def training_rate(model: nn.Module, experiment: Experiment, ch_names: Sequence[str], n_outputs: int) -> float:
    """Windows per second of the real loop on random EEG, after a first pass that warms up.

    Parameters
    ----------
    model : nn.Module
        Untrained; used up.
    experiment : Experiment
        Its algorithm and optimiser.
    ch_names : sequence of str
        What the model was built for.
    n_outputs : int
        Parcels.
    """
    device = "cuda" if experiment.scale.gpus_per_worker > 0 and torch.cuda.is_available() else "cpu"
    batch = max(1, experiment.optim.batch_size // experiment.scale.workers)
    source = noise_windows(model, ch_names, n_outputs, batch).to(device)
    algorithm = build_algorithm(experiment.algorithm.name, experiment.algorithm.options, model)
    optim = experiment.optim.model_copy(update={"epochs": 1000, "batch_size": batch, "windows_per_epoch": None})
    started: list[float] = []

    def clock(metrics: Any, state: Any) -> None:
        started.append(time.perf_counter())
        if len(started) > 1 and started[-1] - started[0] >= 1.0:
            raise _EnoughError

    with contextlib.suppress(_EnoughError):
        fit(algorithm, source, None, optim, seed=0, on_epoch=clock, device=device)
    return len(source) * (len(started) - 1) / (started[-1] - started[0])


def why_alone(model: nn.Module, experiment: Experiment, ch_names: Sequence[str], n_outputs: int) -> str:
    """Why trainings of this model cannot share a process (:func:`xsite.learning.stacked.why_alone`); empty if they can.

    Parameters
    ----------
    model : nn.Module
        Untrained; a copy takes one step on random EEG.
    """
    algorithm = build_algorithm(experiment.algorithm.name, experiment.algorithm.options, model)
    windows = noise_windows(model, ch_names, n_outputs, 2)
    return stacked.why_alone(algorithm, windows.gather(np.arange(2)), experiment.optim)


def noise_windows(model: nn.Module, ch_names: Sequence[str], n_outputs: int, n: int) -> WindowSource:
    """``n`` windows of random EEG as the model reads them, in main memory."""
    window_s = float(getattr(model, "window_s", 16.0))
    recording = _noise(ch_names, n_outputs, window_s, n_volumes=n)
    return build_source(
        [recording], ch_names=tuple(ch_names), ch_index=cast(Any, model).channel_index,
        targets=[np.asarray(recording.bold)], window_s=window_s,
        statistics=getattr(model, "recording_statistics", None),
    )  # fmt: skip


class _EnoughError(Exception):
    pass


def _noise(ch_names: Sequence[str], n_outputs: int, window_s: float, n_volumes: int) -> Recording:
    rng = np.random.default_rng(0)
    onsets = window_s + 0.1 * np.arange(n_volumes)
    n_times = int(200 * (onsets[-1] + 1))
    positions = rng.normal(0, 1, (len(ch_names), 3))
    bold = rng.normal(0, 1, (n_volumes, n_outputs)).astype(np.float32)
    return Recording(
        key=RecordingKey("probe", "01", task="rest"),
        montage=Montage(tuple(ch_names), 0.095 * positions / np.linalg.norm(positions, axis=1, keepdims=True)),
        parcellation=Parcellation("probe", tuple(f"p{i}" for i in range(n_outputs)), "MNI", "0" * 64),
        eeg=rng.normal(0, 10, (len(ch_names), n_times)).astype(np.float32),
        eeg_valid=np.ones(n_times, dtype=bool),
        bold=bold,
        global_signal=bold.mean(1),
        confounds=np.zeros((n_volumes, 1), np.float32),
        confound_names=("framewise_displacement",),
        volume_onsets=onsets,
        volume_valid=np.ones(n_volumes, dtype=bool),
        sfreq=200.0,
        t_r=0.1,
    )
