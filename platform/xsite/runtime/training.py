"""Train many folds on the cluster: a few warm Ray Train runs, as many at once as there is room for.

Only jobs without a finished checkpoint are trained. Events reach ``on_event`` in the driver while training goes on.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from xsite.errors import CheckpointError, ClusterError, RecipeError
from xsite.experiment import Experiment
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.probe import why_alone
from xsite.runtime.board import Board, Event
from xsite.runtime.cluster import check_room
from xsite.runtime.fold_job import FoldJob, ModelFactory, RunPlan
from xsite.runtime.stacking import n_stacks, train_stacks
from xsite.runtime.worker import train_jobs
from xsite.spelling import counted

logger = logging.getLogger(__name__)

OnEvent = Callable[[Event], None]
NextRound = Callable[[], list[FoldJob]]
POLL_S = 0.2
STOP_S = 30.0
RESTARTS = 2
"""How often a run's workers are started again after one of them died."""


@dataclass(frozen=True)
class FoldOutcome:
    """A finished training.

    Parameters
    ----------
    job : FoldJob
    best_epoch : int
    history : list of dict
        Metrics per epoch.
    skipped : bool
        It had been finished by an earlier run of the same plan.
    """

    job: FoldJob
    best_epoch: int
    history: list[dict[str, float]]
    skipped: bool


def finished(job: FoldJob) -> FoldOutcome | None:
    """Outcome of a job whose checkpoint is complete and belongs to the same plan, else None."""
    try:
        _, config = load_checkpoint(job.folder)
    except CheckpointError:
        return None
    if config.get("fingerprint") != job.fingerprint:
        return None
    return FoldOutcome(job, config["best_epoch"], config["history"], skipped=True)


def train_folds(
    jobs: Sequence[FoldJob],
    experiment: Experiment,
    *,
    build_model: ModelFactory,
    storage: str | Path,
    on_event: OnEvent = lambda event: None,
    then: Callable[[list[FoldOutcome]], Sequence[FoldJob]] = lambda outcomes: (),
    rounds: int = 1,
) -> list[FoldOutcome]:
    """Train every job that is not finished; outcomes in the order of ``jobs``, then of those that came after.

    Parameters
    ----------
    storage : str or Path
        Folder for Ray Train's own files, on a disk that all nodes share; removed at the end.
    on_event : callable
        Called in this process with every event.
    then : callable
        Called with all outcomes so far, once everything known is done; the jobs that it returns are trained by runs
        that are still warm.
    rounds : int
        How often ``then`` is called. All runs stay for the rounds before the last, the first run for the last one.

    Raises
    ------
    ClusterError
        The cluster has no room, or workers died more than twice.
    XsiteError
        What a fold's training raised (a loss that stopped being a number, a full disk).
    """
    book = _Book(on_event, _Alone(experiment.scale.stack, build_model))
    order = list(jobs)
    left = rounds

    def next_round() -> list[FoldJob]:
        nonlocal left
        left -= 1
        more = list(then([book.done[job.label] for job in order]))
        order.extend(more)
        return book.open(more)

    todo = book.open(jobs)
    while not todo and left:
        todo = next_round()
    if todo:
        _run(book, todo, next_round, left, experiment, build_model, Path(storage).resolve())
    return [book.done[job.label] for job in order]


class _Alone:
    """Finds out which jobs cannot be stacked, once per kind of job, and says so in the log."""

    def __init__(self, stack: int, build_model: ModelFactory) -> None:
        self.stack, self.build_model = stack, build_model
        self.reasons: dict[str, str] = {}

    def mark(self, job: FoldJob) -> FoldJob:
        """The job, with the reason why it must be trained by itself."""
        if self.stack == 1:
            return job
        if job.kind not in self.reasons:
            ch_names, spec = job.config["ch_names"], job.experiment.model
            n_outputs = len(job.config["parcels"])
            with torch.random.fork_rng(devices=()):
                model = self.build_model(spec.name, spec.preset, spec.options, ch_names=ch_names, n_outputs=n_outputs)
                reason = why_alone(model, job.experiment, ch_names, n_outputs)
            if reason:
                logger.warning("%s, and others of its kind, are trained one by one, not stacked: %s", job.label, reason)
            self.reasons[job.kind] = reason
        return replace(job, alone=self.reasons[job.kind])


class _Book:
    """Which jobs are known, and the outcomes of those that are done."""

    def __init__(self, on_event: OnEvent, alone: _Alone) -> None:
        self.on_event, self.alone = on_event, alone
        self.known: dict[str, FoldJob] = {}
        self.done: dict[str, FoldOutcome] = {}

    def open(self, jobs: Sequence[FoldJob]) -> list[FoldJob]:
        """Take jobs in; return those that an earlier run of the same plan has not finished."""
        for job in jobs:
            self.known[job.label] = job
            if outcome := finished(job):
                self.done[job.label] = outcome
                facts = {"best_epoch": outcome.best_epoch, "history": outcome.history, "seconds": 0.0}
                self.on_event({"kind": "fold_done", **job.describe(), **facts, "skipped": True})
        return [self.alone.mark(job) for job in jobs if job.label not in self.done]

    def note(self, event: Event) -> None:
        """Take in what a worker says; raise what a training raised."""
        self.on_event(event)
        if event["kind"] == "fold_failed":
            raise event["error"]
        if event["kind"] == "fold_done":
            job = self.known[event["label"]]
            self.done[job.label] = FoldOutcome(job, event["best_epoch"], event["history"], skipped=False)

    @property
    def missing(self) -> list[str]:
        """Jobs without an outcome."""
        return sorted(set(self.known) - set(self.done))


def check_scale(experiment: Experiment) -> int:
    """How many trainings the cluster holds at once.

    Raises
    ------
    RecipeError, ClusterError
        The batch cannot be dealt to the workers, or there is no room for a single training.
    """
    scale, batch = experiment.scale, experiment.optim.batch_size
    if batch % scale.workers:
        raise RecipeError(f"optim.batch_size {batch} cannot be dealt evenly to scale.workers {scale.workers}")
    cpus, gpus = scale.workers * scale.cpus_per_worker, scale.workers * scale.gpus_per_worker
    return check_room(cpus, gpus, f"one training ({counted(scale.workers, 'worker')})")


def _run(
    book: _Book,
    todo: Sequence[FoldJob],
    next_round: NextRound,
    left: int,
    experiment: Experiment,
    build_model: ModelFactory,
    storage: Path,
) -> None:
    board: Any = ray.remote(num_cpus=0)(Board).remote(todo, left > 1)
    n_runs = min(n_stacks(todo, experiment.scale.stack), check_scale(experiment))
    book.on_event({"kind": "runs", "places": n_runs * experiment.scale.stack})
    per_node = _per_node(n_runs * experiment.scale.workers, experiment.scale.cpus_per_worker)
    plan_hash = hashlib.sha256("".join(job.fingerprint for job in todo).encode()).hexdigest()[:8]
    names = [f"{experiment.fingerprint}-{plan_hash}-seed{experiment.seed}-{run}" for run in range(n_runs)]
    threads = [
        _Fit(_trainer(RunPlan(run, experiment, build_model, board, per_node), name, storage))
        for run, name in enumerate(names)
    ]
    try:
        if not left:
            ray.get(board.close.remote())
        _watch(book, board, threads, next_round, left)
    except Exception:
        ray.get(board.stop.remote())
        for thread in threads:
            thread.join(STOP_S)  # else they would hold the CPUs of whatever this process does next
        raise
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    if book.missing:
        raise ClusterError(f"training ended without a result for {book.missing}; run the same command again to go on")


def _per_node(n_workers: int, cpus_per_worker: float) -> int:
    """How many of all workers one node may have to hold."""
    cpus = max((node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)
    room = int(cpus // cpus_per_worker) if cpus_per_worker > 0 else n_workers
    return max(1, min(n_workers, room))


def _trainer(plan: RunPlan, name: str, storage: Path) -> TorchTrainer:
    scale = plan.experiment.scale
    use_gpu = scale.gpus_per_worker > 0
    resources = {"CPU": scale.cpus_per_worker} | ({"GPU": scale.gpus_per_worker} if use_gpu else {})
    return TorchTrainer(
        train_jobs if scale.stack == 1 else train_stacks,
        train_loop_config={"plan": plan},
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.workers, use_gpu=use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
        ),
    )


class _Fit(threading.Thread):
    """``fit`` blocks, so each run has a thread; daemon, so that Ctrl-C in the driver is not held up by it."""

    def __init__(self, trainer: TorchTrainer) -> None:
        super().__init__(daemon=True)
        self.trainer = trainer
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.trainer.fit()
        except BaseException as error:  # handed to the driver's thread, which raises it
            self.error = error


def _watch(book: _Book, board: Any, threads: Sequence[_Fit], next_round: NextRound, left: int) -> None:
    """Pass events on until every run has ended; whenever all known jobs are done, hand over what comes after them."""
    alive = True
    while alive:
        alive = any(thread.is_alive() for thread in threads)  # before draining: nothing is posted after a run's end
        for event in ray.get(board.drain.remote()):
            book.note(event)
        if left and not book.missing:
            left -= 1
            more = next_round()
            ray.get(board.add.remote(more, left > 1) if left else board.close.remote(more))
        for thread in threads:
            if thread.error is not None:
                raise ClusterError(
                    f"a training run died {RESTARTS + 1} times: {_last_line(thread.error)}; finished folds are kept, "
                    "run the same command again to go on"
                ) from thread.error
        time.sleep(POLL_S if alive else 0)


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
