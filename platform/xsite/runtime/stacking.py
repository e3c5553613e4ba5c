"""What runs inside a Ray Train worker when ``scale.stack`` is above 1: take several jobs at once, train them together.

Each job keeps its own events, states and checkpoint, as if :mod:`xsite.runtime.worker` had trained it alone; one that
stops early is written and reported while the others go on. The recordings that their folds share are held once.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import ray
import ray.train.torch
import torch
from torch import Tensor, nn

from xsite.data.residence import Residence, residence_for
from xsite.data.window_source import WindowSource
from xsite.errors import RecipeError, XsiteError
from xsite.learning.alike import UnstackableError
from xsite.learning.lane import StackedError
from xsite.learning.loop import FitResult, Metrics
from xsite.learning.memory import keep_freed_memory
from xsite.learning.stacked import fit_stacked
from xsite.learning.state import TrainingState
from xsite.runtime.fold_job import FoldJob, RunPlan
from xsite.runtime.job_windows import shares, sources, watch_of
from xsite.runtime.worker import Reporter, algorithm_of, done, keep, kept_dtype, last_state, train_alone

Pair = tuple[WindowSource, WindowSource | None]
CPU = torch.device("cpu")
logger = logging.getLogger(__name__)


def n_stacks(jobs: Sequence[FoldJob], size: int) -> int:
    """How many stacks of up to ``size`` the jobs make: only alike ones go together."""
    return sum(-(-n // size) for n in Counter(job.alike for job in jobs).values())


def train_stacks(config: Mapping[str, Any]) -> None:
    """Entry point of the only worker of a Ray Train run: work until the board has nothing more."""
    plan: RunPlan = config["plan"]
    scale = plan.experiment.scale
    torch.set_num_threads(max(1, int(scale.cpus_per_worker)))
    keep_freed_memory()
    while (jobs := ray.get(plan.board.take_stack.remote(plan.run, scale.stack))) is not None:
        if jobs == "wait":
            time.sleep(0.2)
            continue
        started = time.time()
        try:
            if jobs[0].alone:
                _one_by_one(plan, jobs)
            else:
                _train(plan, jobs, started)
        except UnstackableError as error:  # what a try on a CPU did not show; nothing has been trained yet
            logger.warning("%s: trained one by one: %s", ", ".join(job.label for job in jobs), error)
            _one_by_one(plan, jobs)
        except XsiteError as error:
            job = jobs[error.index] if isinstance(error, StackedError) else jobs[0]
            event = {"kind": "fold_failed", **job.describe(), "error": RecipeError(f"{job.label}: {error}")}
            ray.get(plan.board.finish.remote(plan.run, {**event, "seconds": time.time() - started}))


def _one_by_one(plan: RunPlan, jobs: Sequence[FoldJob]) -> None:
    """Plain trainings, as in a study that stacks nothing."""
    for job in jobs:
        started = time.time()
        try:
            event = done(job, train_alone(plan, job, last_state(job)))
        except XsiteError as error:
            event = {"kind": "fold_failed", **job.describe(), "error": error}
        ray.get(plan.board.finish.remote(plan.run, {**event, "seconds": time.time() - started}))


def _train(plan: RunPlan, jobs: Sequence[FoldJob], started: float) -> None:
    device = ray.train.torch.get_device()
    optim = jobs[0].experiment.optim
    algorithms = [algorithm_of(plan, job) for job in jobs]
    models = [cast("nn.Module", algorithm.model) for algorithm in algorithms]
    folders = [last_state(job) for job in jobs]
    states = [
        None if folder is None else TrainingState.load(folder, job.fingerprint)
        for job, folder in zip(jobs, folders, strict=True)
    ]
    dtypes = [None if state is None else kept_dtype(job) for job, state in zip(jobs, states, strict=True)]
    windows, residences = shared(jobs, models, device, dtypes, shares(plan))
    reporters = []
    for job, model, state, residence in zip(jobs, models, states, residences, strict=True):
        watch = watch_of(job, job.experiment, model, device, residence)
        reporters.append(Reporter(plan, job, residence, resumed=state is not None, watch=watch))

    def on_epoch(k: int, metrics: Metrics, state: Callable[[], TrainingState]) -> None:
        reporters[k].note(metrics, state)  # no report to Ray: it takes seconds, and there is no other rank to wait for

    def on_done(k: int, result: FitResult) -> None:
        keep(jobs[k], models[k], result, windows[k][0], residences[k])
        event = {**done(jobs[k], result), "seconds": time.time() - started}
        ray.get(plan.board.finish.remote(plan.run, event))

    fit_stacked(
        algorithms,
        [train for train, _ in windows],
        [val for _, val in windows],
        optim,
        seeds=[job.seed[0] for job in jobs],
        on_epoch=on_epoch,
        on_done=on_done,
        resumes=states,
        n_epochs=[job.n_epochs for job in jobs],
        device=device,
    )


def shared(
    jobs: Sequence[FoldJob],
    models: Sequence[nn.Module],
    device: torch.device,
    dtypes: Sequence[torch.dtype | None] | None = None,
    sharing: tuple[int, int] = (1, 1),
) -> tuple[list[Pair], list[Residence]]:
    """Windows of every job over one copy of the EEG, which moves to the device if it fits there.

    ``dtypes`` are those that jobs must keep; a job that began with another type than its neighbours gets its own copy.
    """
    kept = dtypes or [None] * len(jobs)
    pools: dict[torch.dtype | None, _Pool] = {dtype: _Pool() for dtype in kept}
    pairs: list[Pair] = []
    for job, model, dtype in zip(jobs, models, kept, strict=True):
        train, val = sources(job, job.experiment, model, CPU, Residence("memory", torch.float32))  # placed below
        own_train = pools[dtype].add(train, job.train)
        pairs.append((own_train, None if val is None else pools[dtype].add(val, job.val)))
    placed = {
        (dtype, n_chans): _placed(n_chans, parts, device, dtype, sharing)
        for dtype, pool in pools.items()
        for n_chans, parts in pool.parts.items()
    }

    def on_eeg(source: WindowSource, dtype: torch.dtype | None) -> WindowSource:
        eeg_CT, _ = placed[dtype, source.ch_index_NC.shape[1]]
        return replace(source, eeg_CT=eeg_CT).to(eeg_CT.device)

    both = [
        (on_eeg(train, dtype), None if val is None else on_eeg(val, dtype))
        for (train, val), dtype in zip(pairs, kept, strict=True)
    ]
    residences = [placed[dtype, train.ch_index_NC.shape[1]][1] for (train, _), dtype in zip(pairs, kept, strict=True)]
    return both, residences


class _Pool:
    """EEG of every recording once per number of channels: a fold pads caps to its largest, so the rows may differ."""

    def __init__(self) -> None:
        self.parts: dict[int, list[Tensor]] = {}
        self.first: dict[tuple[int, Any], int] = {}
        self.length: Counter[int] = Counter()

    def add(self, source: WindowSource, refs: Sequence[Any]) -> WindowSource:
        """The source without its EEG, its windows pointing into the pool."""
        n_chans = len(source.eeg_CT)
        shift_N = []
        begin = 0
        for ref, recording in zip(refs, ray.get(list(refs)), strict=True):
            n_times = recording.eeg.shape[1]
            if (n_chans, ref) not in self.first:
                self.first[n_chans, ref] = self.length[n_chans]
                self.parts.setdefault(n_chans, []).append(source.eeg_CT[:, begin : begin + n_times].clone())
                self.length[n_chans] += n_times
            shift_N.append(self.first[n_chans, ref] - begin)
            begin += n_times
        start_W = source.start_W + torch.tensor(shift_N)[source.recording_W]
        return replace(source, start_W=start_W, eeg_CT=source.eeg_CT[:, :0].clone())


def _placed(
    n_chans: int, parts: Sequence[Tensor], device: torch.device, dtype: torch.dtype | None, sharing: tuple[int, int]
) -> tuple[Tensor, Residence]:
    n_times = sum(part.shape[1] for part in parts)
    residence = residence_for(n_chans, n_times, device, dtype=dtype, sharing=sharing)
    eeg_CT = residence.allocate(n_chans, n_times, device)
    largest = torch.finfo(eeg_CT.dtype).max
    first = 0
    for part in parts:
        eeg_CT[:, first : first + part.shape[1]] = part.clamp(-largest, largest)  # a saturated amplifier, as float16
        first += part.shape[1]
    return eeg_CT, residence
