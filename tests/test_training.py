"""Training on a real local Ray cluster: warm runs, resume after a kill, skipping, errors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from test_loop import LogPower
from torch import nn

from xsite.errors import ClusterError, RecipeError
from xsite.experiment import Experiment
from xsite.experiment_parts import Optim, Scale
from xsite.learning.algorithms import ERM
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.loop import FitResult, fit
from xsite.learning.seeds import seed_everything
from xsite.learning.targets import TargetSpec
from xsite.recording import Recording
from xsite.runtime import job_windows, worker
from xsite.runtime.fold_job import FoldJob
from xsite.runtime.training import FoldOutcome, train_folds

pytestmark = pytest.mark.ray
OPTIM = Optim(epochs=3, warmup_epochs=1, batch_size=16, lr=3e-3)
EXPERIMENT = Experiment(optim=OPTIM)


def build(name: str, preset: str, options: Mapping[str, Any], *, ch_names: Sequence[str], n_outputs: int) -> nn.Module:
    return LogPower(ch_names, n_outputs, float(options.get("dropout", 0.1)))


@pytest.fixture
def refs(ray_local: None, make_recording: Callable[..., Recording]) -> list[Any]:
    return [ray.put(make_recording(subject=f"{n:02d}")) for n in range(3)]


def job(folder: Path, refs: list[Any], experiment: Experiment, *, held_out: str = "siteA", **facts: Any) -> FoldJob:
    recording: Recording = ray.get(refs[0])
    config = {
        "experiment": experiment.model_dump(mode="json"),
        "model": experiment.model.model_dump(mode="json"),
        "ch_names": list(recording.ch_names),
        "parcels": list(recording.parcellation.labels),
    }
    own = {"label": held_out, "control": False, "seed": (0, len(held_out)), "fingerprint": "f", **facts}
    spec = TargetSpec("paper", 0.15, (1.0, 1.0, 1.0))
    return FoldJob(
        held_out=held_out, model="small", folder=str(folder / own["label"]), config=config, spec=spec,
        train=tuple(refs[:2]), val=tuple(refs[2:]), **own,
    )  # fmt: skip


def train(jobs: list[FoldJob], tmp_path: Path, experiment: Experiment = EXPERIMENT, **kwargs: Any) -> list[FoldOutcome]:
    return train_folds(jobs, experiment, build_model=build, storage=tmp_path / "ray", **kwargs)


def weights(job: FoldJob) -> dict[str, torch.Tensor]:
    return load_checkpoint(job.folder)[0]


def equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def in_this_process(job: FoldJob, experiment: Experiment) -> FitResult:
    """The same training without Ray, uninterrupted, on one thread like a worker."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seed_everything(*job.seed)
    names, parcels = job.config["ch_names"], job.config["parcels"]
    model = build("small", "", experiment.model.options, ch_names=names, n_outputs=len(parcels))
    train, val = job_windows.sources(job, experiment, model, torch.device("cpu"))
    result = fit(ERM(model), train, val, experiment.optim, seed=job.seed[0])
    torch.set_num_threads(threads)
    return result


def test_folds_share_runs_repeat_bitwise_and_are_not_trained_twice(refs: list[Any], tmp_path: Path) -> None:
    jobs = [job(tmp_path, refs, EXPERIMENT, held_out=name, label=name) for name in ("siteA", "siteB1", "siteC12")]
    twin = job(tmp_path, refs, EXPERIMENT, label="twin")  # the seed of siteA, in another folder and run
    last = job(tmp_path, refs, EXPERIMENT, label="last", n_epochs=2)
    events: list[dict[str, Any]] = []
    outcomes = train([*jobs, twin], tmp_path, on_event=events.append, then=lambda done: [last])
    assert [o.job.label for o in outcomes] == ["siteA", "siteB1", "siteC12", "twin", "last"]
    assert equal(weights(jobs[0]), weights(twin))
    assert not equal(weights(jobs[0]), weights(jobs[1]))
    assert outcomes[0].history[0]["val_loss"] == outcomes[3].history[0]["val_loss"]
    assert [len(o.history) for o in outcomes] == [3, 3, 3, 3, 2]
    epochs = [(e["label"], e["epoch"]) for e in events if e["kind"] == "epoch"]
    assert len(epochs) == len(set(epochs)) == 14
    assert len({e["pid"] for e in events if e["kind"] == "epoch"}) <= 2  # five trainings in at most two warm workers
    config = load_checkpoint(jobs[0].folder)[1]
    assert config["best_epoch"] == outcomes[0].best_epoch
    assert not (tmp_path / "ray").exists()
    again = train([*jobs, twin], tmp_path, on_event=events.append, then=lambda done: [last])
    assert all(outcome.skipped for outcome in again)
    assert [o.best_epoch for o in again] == [o.best_epoch for o in outcomes]


def test_a_killed_worker_goes_on_and_ends_bitwise_the_same(refs: list[Any], tmp_path: Path) -> None:
    experiment = Experiment(optim=OPTIM.model_copy(update={"epochs": 6}))
    events: list[dict[str, Any]] = []
    shaken = job(tmp_path / "shaken", refs, experiment)
    outcome = train_folds(
        [shaken],
        experiment,
        build_model=KilledOnce(tmp_path / "killed"),
        storage=tmp_path / "ray2",
        on_event=events.append,
    )[0]
    assert (tmp_path / "killed").exists()
    assert [event["resumed"] for event in events if event["kind"] == "fold_started"] == [False, True]
    assert len({event["pid"] for event in events if event["kind"] == "epoch"}) == 2
    assert len(outcome.history) == 6
    assert equal(weights(shaken), in_this_process(shaken, experiment).best_state)
    assert not shaken.states.exists()


@dataclass(frozen=True)
class KilledOnce:
    """Builds the model in a worker that keeps every epoch's state and gets SIGKILL at the end of its third epoch, once.

    The worker does it to itself: a signal from the driver, which hears of an epoch later, may come after the last one.
    """

    marker: Path

    def __call__(self, *args: Any, **kwargs: Any) -> nn.Module:
        worker.SAVE_EVERY_S = 0.0  # inside the worker's process, as all of this
        note = worker.Reporter.note

        def note_and_die(reporter: worker.Reporter, metrics: Any, state: Any) -> None:
            note(reporter, metrics, state)
            if metrics["epoch"] == 3 and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

        worker.Reporter.note = note_and_die  # type: ignore[method-assign]
        return build(*args, **kwargs)


def test_two_workers_follow_the_curve_of_one_with_the_doubled_batch(refs: list[Any], tmp_path: Path) -> None:
    """Same global batches; float32 sums in another order leave about 1e-6 (tolerance 1e-4)."""
    experiment = Experiment(optim=OPTIM, model={"options": {"dropout": 0.0}}, scale=Scale(workers=2))
    both = job(tmp_path, refs, experiment)
    pair = train([both], tmp_path, experiment)[0]
    alone = in_this_process(both, experiment)
    for name in ("train_loss", "val_loss"):
        curve = [row[name] for row in pair.history]
        np.testing.assert_allclose(curve, [row[name] for row in alone.history], rtol=1e-4)


def test_an_error_of_a_fold_reaches_the_driver_as_itself(refs: list[Any], tmp_path: Path) -> None:
    experiment = Experiment(optim=OPTIM.model_copy(update={"lr": 1e30, "warmup_epochs": 0}))
    bad = job(tmp_path, refs, experiment)
    with pytest.raises(RecipeError, match=r"the training loss is .*lower optim\.lr"):
        train([bad], tmp_path, experiment)
    assert not Path(bad.folder).exists()
    assert ray.available_resources()["CPU"] == 2  # nothing goes on in the background


def test_no_room_and_uneven_batches_are_refused_before_anything_starts(refs: list[Any], tmp_path: Path) -> None:
    crowd = Experiment(scale=Scale(workers=64))
    with pytest.raises(ClusterError, match=r"64 CPUs .* has no room"):
        train([job(tmp_path, refs, crowd)], tmp_path, crowd)
    gpu = Experiment(scale=Scale(gpus_per_worker=1))
    with pytest.raises(ClusterError, match="1 GPUs"):
        train([job(tmp_path, refs, gpu)], tmp_path, gpu)
    odd = Experiment(optim=OPTIM.model_copy(update={"batch_size": 15}), scale=Scale(workers=2))
    with pytest.raises(RecipeError, match="15 cannot be dealt evenly"):
        train([job(tmp_path, refs, odd)], tmp_path, odd)
