"""What runs inside every Ray Train worker: take a fold, train it, save it, take the next one.

One warm run trains many folds, because an empty Ray Train run costs seconds before its first step. A fold that a crash
interrupts goes on from its last epoch boundary, with bitwise the same result on a CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xsite.data.residence import Residence, residence_for
from xsite.data.window_source import WindowSource
from xsite.data.windows import build_source
from xsite.errors import CheckpointError, XsiteError
from xsite.evaluation.controls import fold_seed
from xsite.experiment import Experiment
from xsite.learning.adaptation import feature_reference, input_alignment
from xsite.learning.algorithms import build_algorithm
from xsite.learning.checkpoint import save_checkpoint
from xsite.learning.loop import FitResult, Metrics, fit, seed_everything
from xsite.learning.state import TrainingState
from xsite.learning.targets import TargetSpec, side_targets, unseen_target
from xsite.learning.watch import Watch
from xsite.learning.weights import weight_hashes
from xsite.recording import Float, Recording
from xsite.runtime.board import Event

ModelFactory = Callable[..., nn.Module]
"""``factory(name, preset, options, *, ch_names, n_outputs) -> nn.Module``; handed in by the caller, never imported."""

SAVE_EVERY_S = 15.0
"""Seconds between two saved training states: an epoch may take two seconds, and a state is written to disk."""

_RESIDENCE = "residence.json"


@dataclass(frozen=True)
class FoldJob:
    """One training: everything that a worker needs, and nothing of the test site.

    Parameters
    ----------
    label : str
        Unique in a study, such as ``siteA/neurobolt``.
    held_out : str, optional
        None for the final model.
    model : str
    control : bool
        Train on the BOLD of other subjects.
    seed : tuple of int
    fingerprint : str
        Of everything that decides the weights; names states and finished checkpoints.
    folder : str
        Where the checkpoint goes.
    config : mapping
        Becomes its ``config.json``, with what training adds.
    spec : TargetSpec
    train, val : tuple of object references to Recording
    n_epochs : int, optional
        Stop there (final model).
    watch : mapping of label to tuple of object references to Recording
        Groups of recordings whose error is noted after every epoch (``learning.watch``) and decides nothing here:
        the held-out sites of an inner run of nested selection.
    purpose : str
        As in :class:`xsite.evaluation.plan.Run`.
    alone : str
        Why it cannot be stacked (:func:`xsite.learning.stacked.why_alone`); empty if it can.
    """

    label: str
    held_out: str | None
    model: str
    control: bool
    seed: tuple[int, ...]
    fingerprint: str
    folder: str
    config: Mapping[str, Any]
    spec: TargetSpec
    train: tuple[Any, ...] = field(repr=False)
    val: tuple[Any, ...] = field(repr=False)
    n_epochs: int | None = None
    watch: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    purpose: str = "fold"
    alone: str = ""

    @property
    def experiment(self) -> Experiment:
        """The run's own experiment: variants of a study differ in model, algorithm and optimiser."""
        return Experiment.model_validate(self.config["experiment"])

    @property
    def alike(self) -> str:
        """Equal for jobs that may be stacked: one architecture, algorithm and optimiser on the same channels."""
        return self.kind + (self.label if self.alone else "")

    @property
    def kind(self) -> str:
        """Architecture, algorithm, optimiser and channels."""
        parts = self.experiment.model_dump(mode="json", include={"data", "model", "algorithm", "optim"})
        return json.dumps([parts, self.config["ch_names"], self.config["parcels"]], sort_keys=True)

    @property
    def states(self) -> Path:
        """Folder of its training states, one per saved epoch boundary."""
        return Path(self.folder).with_name(f".{Path(self.folder).name}.training")

    def describe(self) -> dict[str, Any]:
        """What every event about this job says."""
        facts = {"fold": self.held_out or "final", "model": self.model, "control": self.control}
        facts |= {"seed": self.seed[0], "purpose": self.purpose}
        return {"label": self.label, **facts, "n_epochs": self.n_epochs or self.config["experiment"]["optim"]["epochs"]}


@dataclass(frozen=True)
class RunPlan:
    """What one Ray Train run is given (``train_loop_config``)."""

    run: int
    experiment: Experiment
    build_model: ModelFactory
    board: Any
    per_node: int = 1
    """Workers of all runs that share a node's memory, at most."""


def train_jobs(config: Mapping[str, Any]) -> None:
    """Entry point of every Ray Train worker: work until the board has nothing more."""
    plan: RunPlan = config["plan"]
    torch.set_num_threads(max(1, int(plan.experiment.scale.cpus_per_worker)))
    is_first = ray.train.get_context().get_world_rank() == 0
    while (job := _take(plan, is_first)) is not None:
        started = time.time()
        state = broadcast_from_rank_zero(last_state(job) if is_first else None)
        try:
            event = done(job, train_alone(plan, job, state))
        except XsiteError as error:  # the same on every rank, and again at every attempt: no reason to restart workers
            event = {"kind": "fold_failed", **job.describe(), "error": error}
        if is_first:
            ray.get(plan.board.finish.remote(plan.run, {**event, "seconds": time.time() - started}))


def done(job: FoldJob, result: FitResult) -> Event:
    """What the driver is told at the end of a training."""
    return {"kind": "fold_done", **job.describe(), "best_epoch": result.best_epoch, "history": result.history}


def _take(plan: RunPlan, is_first: bool) -> FoldJob | None:
    """The run's next job, the same on every rank: the first one asks, the others hear that there is an answer."""
    while is_first and ray.get(plan.board.take.remote(plan.run)) == "wait":
        time.sleep(0.2)
    broadcast_from_rank_zero(None)
    job: FoldJob | None = ray.get(plan.board.take.remote(plan.run))  # taking again gives the job that is being held
    broadcast_from_rank_zero(None)  # nobody may finish it before all have seen it
    return job


def last_state(job: FoldJob) -> str | None:
    """Newest complete training state of this very job, or None."""
    for folder in sorted(job.states.glob("epoch-*"), reverse=True):
        try:
            TrainingState.load(folder, job.fingerprint)
        except CheckpointError:
            continue  # cut short by a crash, or of another experiment
        return str(folder)
    return None


def train_alone(plan: RunPlan, job: FoldJob, state: str | None) -> FitResult:
    """One training by itself, on every rank of the run, from ``state`` on if there is one."""
    context, experiment = ray.train.get_context(), job.experiment
    device = ray.train.torch.get_device()
    algorithm = algorithm_of(plan, job)
    model = cast("nn.Module", algorithm.model)
    residence = _residence(plan, job, model, device, resumed=state is not None)
    train, val = sources(job, experiment, model, device, residence)
    watch = watch_of(job, experiment, model, device, residence)
    result = fit(
        algorithm,
        train,
        val,
        experiment.optim,
        seed=job.seed[0],
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        wrap=_wrapper(device) if context.get_world_size() > 1 else None,
        on_epoch=Reporter(plan, job, residence, resumed=state is not None, watch=watch),
        resume=TrainingState.load(state, job.fingerprint) if state else None,
        n_epochs=job.n_epochs,
        device=device,
    )
    if context.get_world_rank() == 0:
        keep(job, model, result, train, residence)
    return result


def _residence(plan: RunPlan, job: FoldJob, model: Any, device: torch.device, *, resumed: bool) -> Residence:
    """Place of this worker's copy of all its recordings; the type is that of the first worker, and stays for good."""
    recordings = ray.get([*job.train, *job.val, *(ref for refs in job.watch.values() for ref in refs)])
    native = job.experiment.data.channels == "native"
    n_chans = max(len(r.ch_names) if native else len(job.config["ch_names"]) for r in recordings)
    place = partial(residence_for, n_chans, sum(r.eeg.shape[1] for r in recordings), device, sharing=shares(plan))
    chosen = place(dtype=kept_dtype(job) if resumed else None)
    dtype = broadcast_from_rank_zero(chosen.to_dict()["dtype"])
    return chosen if dtype == chosen.to_dict()["dtype"] else place(dtype=getattr(torch, dtype))


def shares(plan: RunPlan) -> tuple[int, int]:
    """``sharing`` of :func:`~xsite.data.residence.residence_for`: workers on a node, and on a GPU, at most."""
    part = plan.experiment.scale.gpus_per_worker
    return plan.per_node, max(1, int(1 / part)) if part > 0 else 1


def kept_dtype(job: FoldJob) -> torch.dtype | None:
    """Type of the samples that an interrupted training of this job has seen so far; None where nobody noted it."""
    try:
        facts = json.loads((job.states / _RESIDENCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return {"float32": torch.float32, "float16": torch.float16}.get(facts.get("dtype"))


def algorithm_of(plan: RunPlan, job: FoldJob) -> nn.Module:
    """The untrained algorithm around its model; the weights depend on the job's seed only."""
    experiment, spec = job.experiment, job.experiment.model
    seed_everything(*job.seed)
    model = plan.build_model(
        spec.name, spec.preset, spec.options, ch_names=job.config["ch_names"], n_outputs=len(job.config["parcels"])
    )
    # beside the module's own attributes: the audit asks what a training started from (xsite.evaluation.leakage_weights)
    object.__setattr__(model, "started_from", weight_hashes(model, model.state_dict()))
    return build_algorithm(experiment.algorithm.name, experiment.algorithm.options, model)


def keep(job: FoldJob, model: nn.Module, result: FitResult, train: WindowSource, residence: Residence) -> None:
    """Write the checkpoint; the states that led to it are needed no more."""
    config = {**_final_config(job, model, result), "residence": residence.to_dict()}
    if job.experiment.data.adapt == "features":
        config["feature_reference"] = feature_reference(model, result.best_state, train)
    save_checkpoint(job.folder, result.best_state, config)
    shutil.rmtree(job.states, ignore_errors=True)


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
    watched = {
        label: _source(
            group, [unseen_target(r, job.spec) for r in group], job=job, experiment=experiment, model=model,
            device=device, residence=residence,
        )
        for label, group in groups.items()
    }  # fmt: skip
    return Watch(model, watched, experiment.optim.precision)


def _source(
    side: Sequence[Recording],
    targets: Sequence[Float],
    *,
    job: FoldJob,
    experiment: Experiment,
    model: Any,
    device: torch.device,
    residence: Residence | None,
) -> WindowSource:
    return build_source(
        side,
        ch_names=None if experiment.data.channels == "native" else job.config["ch_names"],
        ch_index=model.channel_index,
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


def _wrapper(device: torch.device) -> Callable[[nn.Module], nn.Module]:
    ids = [device.index or 0] if device.type == "cuda" else None
    return lambda algorithm: DistributedDataParallel(algorithm, device_ids=ids)


def _final_config(job: FoldJob, model: Any, result: FitResult) -> dict[str, Any]:
    own = {"config": model.config.to_dict()} if hasattr(model, "config") else {}
    facts = {"best_epoch": result.best_epoch, "history": result.history, "fingerprint": job.fingerprint}
    weights = {"started_from": getattr(model, "started_from", {}), "trained": weight_hashes(model, result.best_state)}
    return {**job.config, "model": {**job.config["model"], **own}, **facts, "weights": weights}


class Reporter:
    """After each epoch: keep the state (first rank, now and then), tell the driver, and report to Ray (every rank)."""

    def __init__(
        self, plan: RunPlan, job: FoldJob, residence: Residence, *, resumed: bool, watch: Watch | None = None
    ) -> None:
        self.plan, self.job, self.residence, self.watch = plan, job, residence, watch
        self.is_first = ray.train.get_context().get_world_rank() == 0
        self.saved_at = time.monotonic()
        if self.is_first:
            event = {"kind": "fold_started", **job.describe(), "resumed": resumed}
            ray.get(plan.board.post.remote(event))

    def __call__(self, metrics: Metrics, state: Callable[[], TrainingState]) -> None:
        """End of an epoch, on every rank."""
        self.note(metrics, state)
        # once per epoch on every rank: Ray waits for all of them
        ray.train.report({"label": self.job.label, **metrics})

    def note(self, metrics: Metrics, state: Callable[[], TrainingState]) -> None:
        """What the first rank does."""
        if self.is_first:
            if self.watch is not None:
                metrics |= self.watch()  # in place: the row of the history that the checkpoint keeps
            if time.monotonic() - self.saved_at >= SAVE_EVERY_S:
                self._save(int(metrics["epoch"]), state())
            facts = {"epoch": int(metrics["epoch"]), "metrics": metrics, "pid": os.getpid()}
            if not ray.get(self.plan.board.post.remote({"kind": "epoch", **self.job.describe(), **facts})):
                raise InterruptedError("another training of this study failed, or the study was stopped")

    def _save(self, epoch: int, state: TrainingState) -> None:
        older = list(self.job.states.glob("epoch-*"))
        self.job.states.mkdir(parents=True, exist_ok=True)
        (self.job.states / _RESIDENCE).write_text(json.dumps(self.residence.to_dict()), encoding="utf-8")
        state.save(self.job.states / f"epoch-{epoch:05d}", self.job.fingerprint)
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)
        self.saved_at = time.monotonic()
