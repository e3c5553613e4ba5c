"""What runs inside every Ray Train worker: take a fold, train it, save it, take the next one.

One warm run trains many folds, because an empty Ray Train run costs seconds before its first step. A fold that a crash
interrupts goes on from its last epoch boundary, with bitwise the same result on a CPU.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.collective import broadcast_from_rank_zero
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from xsite.data.windows import WindowSource, build_source
from xsite.errors import CheckpointError, XsiteError
from xsite.evaluation.controls import fold_seed
from xsite.experiment import Experiment
from xsite.learning.algorithms import build_algorithm
from xsite.learning.checkpoint import save_checkpoint
from xsite.learning.loop import FitResult, Metrics, fit, seed_everything
from xsite.learning.state import TrainingState
from xsite.learning.targets import TargetSpec, fold_targets
from xsite.recording import Float, Recording, RecordingKey

ModelFactory = Callable[..., nn.Module]
"""``factory(name, preset, options, *, ch_names, n_outputs) -> nn.Module``; handed in by the caller, never imported."""

SAVE_EVERY_S = 15.0
"""Seconds between two saved training states: an epoch may take two seconds, and a state is written to disk."""


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

    @property
    def states(self) -> Path:
        """Folder of its training states, one per saved epoch boundary."""
        return Path(self.folder).with_name(f".{Path(self.folder).name}.training")

    def describe(self) -> dict[str, Any]:
        """What every event about this job says."""
        facts = {"fold": self.held_out or "final", "model": self.model, "control": self.control}
        return {"label": self.label, **facts, "n_epochs": self.n_epochs or self.config["experiment"]["optim"]["epochs"]}


@dataclass(frozen=True)
class RunPlan:
    """What one Ray Train run is given (``train_loop_config``)."""

    run: int
    experiment: Experiment
    build_model: ModelFactory
    board: Any


def train_jobs(config: Mapping[str, Any]) -> None:
    """Entry point of every Ray Train worker: work until the board has nothing more."""
    plan: RunPlan = config["plan"]
    torch.set_num_threads(max(1, int(plan.experiment.scale.cpus_per_worker)))
    is_first = ray.train.get_context().get_world_rank() == 0
    while (job := _take(plan, is_first)) is not None:
        started = time.time()
        state = broadcast_from_rank_zero(last_state(job) if is_first else None)
        try:
            result = _train(plan, job, state)
        except XsiteError as error:  # the same on every rank, and again at every attempt: no reason to restart workers
            event = {"kind": "fold_failed", **job.describe(), "error": error}
        else:
            event = {"kind": "fold_done", **job.describe(), "best_epoch": result.best_epoch, "history": result.history}
        if is_first:
            ray.get(plan.board.finish.remote(plan.run, {**event, "seconds": time.time() - started}))


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


def _train(plan: RunPlan, job: FoldJob, state: str | None) -> FitResult:
    context, experiment = ray.train.get_context(), plan.experiment
    device = ray.train.torch.get_device()
    seed_everything(*job.seed)  # before the model is built: its weights depend on the fold's seed only
    spec = experiment.model
    model = plan.build_model(
        spec.name, spec.preset, spec.options, ch_names=job.config["ch_names"], n_outputs=len(job.config["parcels"])
    )
    algorithm = build_algorithm(experiment.algorithm.name, experiment.algorithm.options, model)
    train, val = sources(job, experiment, model, device)
    result = fit(
        algorithm,
        train,
        val,
        experiment.optim,
        seed=job.seed[0],
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        wrap=_wrapper(device) if context.get_world_size() > 1 else None,
        on_epoch=_Reporter(plan, job, resumed=state is not None),
        resume=TrainingState.load(state, job.fingerprint) if state else None,
        n_epochs=job.n_epochs,
        device=device,
    )
    if context.get_world_rank() == 0:
        save_checkpoint(job.folder, result.best_state, _final_config(job, model, result))
        shutil.rmtree(job.states, ignore_errors=True)
    return result


def sources(
    job: FoldJob, experiment: Experiment, model: Any, device: torch.device
) -> tuple[WindowSource, WindowSource | None]:
    """Training and validation windows of a job, on the device where they fit."""
    recordings: list[Recording] = ray.get([*job.train, *job.val])
    train, val = recordings[: len(job.train)], recordings[len(job.train) :]
    control_seed = fold_seed(experiment.seed, job.held_out) if job.control else None
    targets = fold_targets(train, val, job.spec, control_seed=control_seed)

    def source(side: Sequence[Recording]) -> WindowSource:
        built = build_source(
            side,
            ch_names=None if experiment.data.channels == "native" else job.config["ch_names"],
            ch_index=model.channel_index,
            targets=_of(side, targets),
            window_s=float(getattr(model, "window_s", 16.0)),
            sfreq=float(getattr(model, "sfreq", 200.0)),
            channels=experiment.data.channels,
            reference=experiment.data.reference,
        )
        return built.to(device) if _fits(built, device) else built

    return source(train), source(val) if val else None


def _of(side: Sequence[Recording], targets: Mapping[RecordingKey, Float]) -> list[Float]:
    return [targets[recording.key] for recording in side]


def _fits(source: WindowSource, device: torch.device) -> bool:
    """Whether the recordings may live on the GPU: windows are then gathered there and the loader vanishes."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return source.eeg_CT.numel() * source.eeg_CT.element_size() < 0.4 * free


def _wrapper(device: torch.device) -> Callable[[nn.Module], nn.Module]:
    ids = [device.index or 0] if device.type == "cuda" else None
    return lambda algorithm: DistributedDataParallel(algorithm, device_ids=ids)


def _final_config(job: FoldJob, model: Any, result: FitResult) -> dict[str, Any]:
    own = {"config": model.config.to_dict()} if hasattr(model, "config") else {}
    facts = {"best_epoch": result.best_epoch, "history": result.history, "fingerprint": job.fingerprint}
    return {**job.config, "model": {**job.config["model"], **own}, **facts}


class _Reporter:
    """After each epoch: keep the state (first rank, now and then), tell the driver, and report to Ray (every rank)."""

    def __init__(self, plan: RunPlan, job: FoldJob, *, resumed: bool) -> None:
        self.plan, self.job = plan, job
        self.is_first = ray.train.get_context().get_world_rank() == 0
        self.saved_at = time.monotonic()
        if self.is_first:
            event = {"kind": "fold_started", **job.describe(), "resumed": resumed}
            ray.get(plan.board.post.remote(event))

    def __call__(self, metrics: Metrics, state: Callable[[], TrainingState]) -> None:
        if self.is_first:
            if time.monotonic() - self.saved_at >= SAVE_EVERY_S:
                self._save(int(metrics["epoch"]), state())
            facts = {"epoch": int(metrics["epoch"]), "metrics": metrics, "pid": os.getpid()}
            if not ray.get(self.plan.board.post.remote({"kind": "epoch", **self.job.describe(), **facts})):
                raise InterruptedError("another training of this study failed, or the study was stopped")
        # once per epoch on every rank: Ray waits for all of them
        ray.train.report({"label": self.job.label, **metrics})

    def _save(self, epoch: int, state: TrainingState) -> None:
        older = list(self.job.states.glob("epoch-*"))
        state.save(self.job.states / f"epoch-{epoch:05d}", self.job.fingerprint)
        for folder in older:
            shutil.rmtree(folder, ignore_errors=True)
        self.saved_at = time.monotonic()
