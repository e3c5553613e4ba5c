"""The windows of a job, on every rank: its recordings are fetched, laid end to end, and put where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero

from xsite.data.residence import Residence, residence_for
from xsite.data.window_source import WindowSource
from xsite.data.windows import build_source
from xsite.evaluation.controls import fold_seed
from xsite.experiment import Experiment
from xsite.learning.adaptation import input_alignment
from xsite.learning.predict import channel_index_for, input_channels
from xsite.learning.targets import side_targets, unseen_target
from xsite.learning.watch import Watch
from xsite.recording import Float, Recording
from xsite.runtime.fold_job import FoldJob, RunPlan


def residence_of(plan: RunPlan, job: FoldJob, device: torch.device, dtype: torch.dtype | None) -> Residence:
    """Place of this worker's copy of all its recordings; the type is ``dtype``, else what the first worker chose."""
    recordings = ray.get([*job.train, *job.val, *(ref for refs in job.watch.values() for ref in refs)])
    native = job.experiment.data.channels == "native"
    n_chans = max(len(r.ch_names) if native else len(job.config["ch_names"]) for r in recordings)
    place = partial(residence_for, n_chans, sum(r.eeg.shape[1] for r in recordings), device, sharing=shares(plan))
    chosen = place(dtype=dtype)
    first = broadcast_from_rank_zero(chosen.to_dict()["dtype"])
    return chosen if first == chosen.to_dict()["dtype"] else place(dtype=getattr(torch, first))


def shares(plan: RunPlan) -> tuple[int, int]:
    """``sharing`` of :func:`~xsite.data.residence.residence_for`: workers on a node, and on a GPU, at most."""
    part = plan.experiment.scale.gpus_per_worker
    return plan.per_node, max(1, int(1 / part)) if part > 0 else 1


def sources(
    job: FoldJob, experiment: Experiment, model: Any, device: torch.device, residence: Residence | None = None
) -> tuple[WindowSource, WindowSource | None]:
    """Training and validation windows of a job: where ``residence`` says, else on the device where they fit."""
    recordings: list[Recording] = ray.get([*job.train, *job.val])
    train, val = recordings[: len(job.train)], recordings[len(job.train) :]
    control_seed = fold_seed(experiment.seed, job.held_out) if job.control else None
    train_targets, val_targets = side_targets(train, val, job.spec, control_seed=control_seed)
    make = partial(_source, job=job, experiment=experiment, model=model, device=device, residence=residence)
    return make(train, train_targets), make(val, val_targets) if val else None


def watch_of(
    job: FoldJob, experiment: Experiment, model: Any, device: torch.device, residence: Residence | None = None
) -> Watch | None:
    """Errors that the first rank notes after each epoch, if the job asks for any."""
    if not job.watch or ray.train.get_context().get_world_rank() > 0:
        return None
    groups = {label: ray.get(list(refs)) for label, refs in job.watch.items()}
    make = partial(watched_source, job=job, model=model, device=device, residence=residence)
    watched = {label: [make(recording) for recording in group] for label, group in groups.items()}
    return Watch(model, watched, experiment.optim.precision)


def watched_source(
    recording: Recording, *, job: FoldJob, model: Any, device: torch.device, residence: Residence | None = None
) -> WindowSource:
    """Windows of a recording that does not train, through the channels that a prediction of it would use.

    A native one may have electrodes that no training recording has: the model is given those that it accepts.
    """
    return _source(
        [recording], [unseen_target(recording, job.spec)], job=job, experiment=job.experiment, model=model,
        device=device, residence=residence, ch_names=input_channels(recording, job.config, model),
        ch_index=channel_index_for(model, recording),
    )  # fmt: skip


def _source(
    side: Sequence[Recording],
    targets: Sequence[Float],
    *,
    job: FoldJob,
    experiment: Experiment,
    model: Any,
    device: torch.device,
    residence: Residence | None,
    ch_names: Sequence[str] | None = None,
    ch_index: Any = None,
) -> WindowSource:
    if ch_names is None and experiment.data.channels != "native":
        ch_names = job.config["ch_names"]
    return build_source(
        side,
        ch_names=ch_names,
        ch_index=ch_index or model.channel_index,
        targets=targets,
        window_s=float(getattr(model, "window_s", 16.0)),
        sfreq=float(getattr(model, "sfreq", 200.0)),
        channels=experiment.data.channels,
        reference=experiment.data.reference,
        high_pass=experiment.data.high_pass,
        device=device,
        residence=residence,
        statistics=getattr(model, "recording_statistics", None),
        align=input_alignment(experiment.data.adapt),
    )
