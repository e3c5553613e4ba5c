"""What runs inside a Ray Train worker when ``scale.stack`` is above 1: take several jobs at once, train them together.

Each job keeps its own events, states and checkpoint, as if :mod:`xsite.runtime.worker` had trained it alone; one that
stops early is written and reported while the others go on. The recordings that their folds share are held once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import ray
import ray.train.torch
import torch
from torch import Tensor, nn

from xsite.data.residence import residence_for
from xsite.data.windows import WindowSource
from xsite.errors import RecipeError, XsiteError
from xsite.learning.loop import FitResult, Metrics
from xsite.learning.stacked import StackedError, fit_stacked
from xsite.learning.state import TrainingState
from xsite.runtime.worker import FoldJob, Reporter, RunPlan, algorithm_of, done, keep, last_state, sources, watch_of

Pair = tuple[WindowSource, WindowSource | None]
CPU = torch.device("cpu")


def n_stacks(jobs: Sequence[FoldJob], size: int) -> int:
    """How many stacks of up to ``size`` the jobs make: only alike ones go together."""
    return sum(-(-n // size) for n in Counter(job.alike for job in jobs).values())


def train_stacks(config: Mapping[str, Any]) -> None:
    """Entry point of the only worker of a Ray Train run: work until the board has nothing more."""
    plan: RunPlan = config["plan"]
    scale = plan.experiment.scale
    torch.set_num_threads(max(1, int(scale.cpus_per_worker)))
    while (jobs := ray.get(plan.board.take_stack.remote(plan.run, scale.stack))) is not None:
        if jobs == "wait":
            time.sleep(0.2)
            continue
        started = time.time()
        try:
            _train(plan, jobs, started)
        except XsiteError as error:
            job = jobs[error.index] if isinstance(error, StackedError) else jobs[0]
            event = {"kind": "fold_failed", **job.describe(), "error": RecipeError(f"{job.label}: {error}")}
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
    windows = shared(jobs, models, device)
    reporters = [
        Reporter(plan, job, resumed=state is not None, watch=watch_of(job, job.experiment, model, device))
        for job, model, state in zip(jobs, models, states, strict=True)
    ]

    def on_epoch(k: int, metrics: Metrics, state: Callable[[], TrainingState]) -> None:
        reporters[k].note(metrics, state)  # no report to Ray: it takes seconds, and there is no other rank to wait for

    def on_done(k: int, result: FitResult) -> None:
        keep(jobs[k], models[k], result, windows[k][0])
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


def shared(jobs: Sequence[FoldJob], models: Sequence[nn.Module], device: torch.device) -> list[Pair]:
    """Windows of every job over one copy of the EEG, which moves to the device if it fits there."""
    pool = _Pool()
    pairs: list[Pair] = []
    for job, model in zip(jobs, models, strict=True):
        train, val = sources(job, job.experiment, model, CPU)
        own_train = pool.add(train, job.train)
        pairs.append((own_train, None if val is None else pool.add(val, job.val)))
    placed = {n_chans: _placed(n_chans, parts, device) for n_chans, parts in pool.parts.items()}

    def on_eeg(source: WindowSource) -> WindowSource:
        eeg_CT = placed[source.ch_index_NC.shape[1]]
        return replace(source, eeg_CT=eeg_CT).to(eeg_CT.device)

    return [(on_eeg(train), None if val is None else on_eeg(val)) for train, val in pairs]


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


def _placed(n_chans: int, parts: Sequence[Tensor], device: torch.device) -> Tensor:
    n_times = sum(part.shape[1] for part in parts)
    eeg_CT = residence_for(n_chans, n_times, device).allocate(n_chans, n_times, device)
    largest = torch.finfo(eeg_CT.dtype).max
    first = 0
    for part in parts:
        eeg_CT[:, first : first + part.shape[1]] = part.clamp(-largest, largest)  # a saturated amplifier, as float16
        first += part.shape[1]
    return eeg_CT
