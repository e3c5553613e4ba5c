"""What runs inside every Ray Train worker: take a fold, train it, save it, take the next one.

One warm run trains many folds, because an empty Ray Train run costs seconds before its first step. A fold that a crash
interrupts goes on from its last epoch boundary, with bitwise the same result on a CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xsite.data.residence import Residence
from xsite.data.window_source import WindowSource
from xsite.errors import CheckpointError, XsiteError
from xsite.learning.adaptation import feature_reference
from xsite.learning.algorithms import build_algorithm
from xsite.learning.checkpoint import save_checkpoint
from xsite.learning.loop import FitResult, Metrics, fit
from xsite.learning.memory import keep_freed_memory
from xsite.learning.seeds import seed_everything
from xsite.learning.state import TrainingState
from xsite.learning.watch import Watch
from xsite.learning.weights import weight_hashes
from xsite.runtime.board import Event
from xsite.runtime.fold_job import FoldJob, RunPlan
from xsite.runtime.job_windows import residence_of, sources, watch_of

SAVE_EVERY_S = 15.0
"""Seconds between two saved training states: an epoch may take two seconds, and a state is written to disk."""

_RESIDENCE = "residence.json"


def train_jobs(config: Mapping[str, Any]) -> None:
    """Entry point of every Ray Train worker: work until the board has nothing more."""
    plan: RunPlan = config["plan"]
    torch.set_num_threads(max(1, int(plan.experiment.scale.cpus_per_worker)))
    keep_freed_memory()
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
    residence = residence_of(plan, job, device, kept_dtype(job) if state else None)
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
                started = time.perf_counter()
                metrics |= self.watch()  # in place: the row of the history that the checkpoint keeps
                metrics["seconds"] += time.perf_counter() - started  # a rule that chooses by it has to wait for it
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
