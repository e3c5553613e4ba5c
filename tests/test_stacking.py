"""Several jobs in one worker on a real local Ray cluster: the same results, each under its own name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from pydantic import ValidationError
from test_loop import LogPower
from test_training import OPTIM, KilledOnce, build, in_this_process, job, weights
from torch import nn

from xsite.data.residence import Residence
from xsite.errors import RecipeError
from xsite.evaluation.plan import RunHasher
from xsite.evaluation.sides import Sides
from xsite.experiment import Experiment
from xsite.experiment_parts import Scale
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.state import TrainingState
from xsite.recording import Recording, RecordingKey
from xsite.runtime import job_windows, stacking, worker
from xsite.runtime.board import Board
from xsite.runtime.fold_job import FoldJob
from xsite.runtime.training import train_folds

STACKED = Experiment(
    optim=OPTIM.model_copy(update={"epochs": 5}), model={"options": {"dropout": 0.0}}, scale=Scale(stack=3)
)


@pytest.fixture
def refs(ray_local: None, make_recording: Callable[..., Recording]) -> list[Any]:
    return [ray.put(make_recording(subject=f"{n:02d}", n_volumes=40 + 20 * n)) for n in range(3)]


def leave_one_out(folder: Path, refs: Sequence[Any], experiment: Experiment, **facts: Any) -> list[FoldJob]:
    """Three folds; the recording that one validates with trains the others."""
    turns = [[*refs[k:], *refs[:k]] for k in range(3)]
    names = ("siteA", "siteB1", "siteC12")
    return [job(folder, turn, experiment, held_out=name, **facts) for turn, name in zip(turns, names, strict=True)]


def assert_as_alone(jobs: Sequence[FoldJob], histories: Sequence[list[dict[str, float]]]) -> None:
    for one, history in zip(jobs, histories, strict=True):
        alone = in_this_process(one, STACKED)
        for name in ("train_loss", "val_loss"):
            np.testing.assert_allclose([r[name] for r in history], [r[name] for r in alone.history], rtol=1e-4)
        assert set(weights(one)) == set(alone.best_state)
        for name, value in weights(one).items():
            torch.testing.assert_close(value, alone.best_state[name], rtol=1e-3, atol=1e-4)


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_trains_three_folds_at_once_as_three_workers_would(refs: list[Any], tmp_path: Path) -> None:
    jobs = leave_one_out(tmp_path, refs, STACKED)
    short = job(tmp_path, refs, STACKED, label="short", n_epochs=2)
    events: list[dict[str, Any]] = []
    outcomes = train_folds(
        jobs, STACKED, build_model=build, storage=tmp_path / "ray", on_event=events.append, then=lambda done: [short]
    )
    assert [o.job.label for o in outcomes] == ["siteA", "siteB1", "siteC12", "short"]
    assert_as_alone(jobs, [o.history for o in outcomes[:3]])
    assert [row["stacked"] for o in outcomes for row in o.history] == [3.0] * 15 + [1.0] * 2
    epochs = [(e["label"], e["epoch"]) for e in events if e["kind"] == "epoch"]
    assert sorted(epochs) == sorted((o.job.label, n + 1) for o in outcomes for n in range(len(o.history)))
    assert len({e["pid"] for e in events if e["kind"] == "epoch"}) == 1
    assert all(not one.states.exists() for one in jobs)
    again = train_folds(jobs, STACKED, build_model=build, storage=tmp_path / "ray")
    assert all(outcome.skipped for outcome in again)


@pytest.mark.ray
def test_a_killed_worker_goes_on_with_its_stack(refs: list[Any], tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    jobs = leave_one_out(tmp_path, refs, STACKED)
    outcomes = train_folds(
        jobs,
        STACKED,
        build_model=KilledOnce(tmp_path / "killed"),
        storage=tmp_path / "ray",
        on_event=events.append,
    )
    assert (tmp_path / "killed").exists()
    assert [event["resumed"] for event in events if event["kind"] == "fold_started"] == [False] * 3 + [True] * 3
    assert_as_alone(jobs, [outcome.history for outcome in outcomes])


@pytest.mark.ray
def test_the_error_of_one_job_of_a_stack_names_it(refs: list[Any], tmp_path: Path) -> None:
    experiment = STACKED.model_copy(update={"optim": OPTIM.model_copy(update={"lr": 1e30, "warmup_epochs": 0})})
    jobs = leave_one_out(tmp_path, refs, experiment)
    with pytest.raises(RecipeError, match=r"^siteA: the training loss is .*lower optim\.lr"):
        train_folds(jobs, experiment, build_model=build, storage=tmp_path / "ray")
    assert not any(Path(one.folder).exists() for one in jobs)
    assert ray.available_resources()["CPU"] == 2


@pytest.mark.ray
def test_recordings_that_folds_share_are_held_once(refs: list[Any], tmp_path: Path) -> None:
    jobs = leave_one_out(tmp_path, refs, STACKED)
    models = [build("", "", {}, ch_names=one.config["ch_names"], n_outputs=3) for one in jobs]
    pairs, residences = stacking.shared(jobs, models, torch.device("cpu"))
    n_times = sum(recording.eeg.shape[1] for recording in ray.get(refs))
    assert pairs[0][0].eeg_CT.shape == (len(jobs[0].config["ch_names"]), n_times)
    assert residences == [Residence("memory", torch.float32)] * 3
    assert len({source.eeg_CT.data_ptr() for pair in pairs for source in pair if source is not None}) == 1
    for one, model, pair in zip(jobs, models, pairs, strict=True):
        own = job_windows.sources(one, STACKED, model, torch.device("cpu"))
        for mine, theirs in zip(pair, own, strict=True):
            assert mine is not None
            assert theirs is not None
            index = np.arange(len(theirs))
            for a, b in zip(mine.gather(index)[0], theirs.gather(index)[0], strict=True):
                assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))

    kept = [torch.float16, None, None]  # the first goes on from a state that saw float16
    coarse, residences = stacking.shared(jobs, models, torch.device("cpu"), kept)
    assert [residence.dtype for residence in residences] == [torch.float16, torch.float32, torch.float32]
    assert coarse[0][0].eeg_CT.dtype == torch.float16
    assert torch.equal(coarse[1][0].gather([0])[0].eeg_BCT, pairs[1][0].gather([0])[0].eeg_BCT)


class WithLSTM(LogPower):
    """Torch has no batching rule for an LSTM."""

    def __init__(self, ch_names: Sequence[str], n_outputs: int) -> None:
        super().__init__(ch_names, n_outputs)
        self.recurrent = nn.LSTM(n_outputs, n_outputs, batch_first=True)

    def features(self, batch: Any) -> torch.Tensor:
        features_BD: torch.Tensor = self.recurrent(super().forward(batch).unsqueeze(1))[0].squeeze(1)
        return features_BD

    def forward(self, batch: Any) -> torch.Tensor:
        return self.features(batch)


def build_lstm(name: str, preset: str, options: Any, *, ch_names: Sequence[str], n_outputs: int) -> nn.Module:
    return (WithLSTM if name == "lstm" else LogPower)(ch_names, n_outputs)


@pytest.mark.ray
@pytest.mark.slow
def test_what_cannot_be_stacked_is_trained_one_by_one(
    refs: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An LSTM in two folds, an algorithm with a state of its own, and what can be stacked, in one study."""
    base = STACKED.model_copy(update={"optim": OPTIM.model_copy(update={"epochs": 1})})
    lstm = base.model_copy(update={"model": base.model.model_copy(update={"name": "lstm"})})
    swa = base.model_copy(update={"algorithm": base.algorithm.model_copy(update={"name": "swa"})})
    own = {"lstm": lstm, "swa": swa, "plain": base}
    jobs = [
        job(tmp_path, refs, own[name], label=f"{name}{n}")
        for name, k in (("lstm", 2), ("swa", 1), ("plain", 2))
        for n in range(k)
    ]
    with caplog.at_level(logging.WARNING, logger="xsite.runtime.training"):
        outcomes = train_folds(jobs, base, build_model=build_lstm, storage=tmp_path / "ray")
    assert [outcome.job.label for outcome in outcomes] == [one.label for one in jobs]
    assert [outcome.history[0].get("stacked") for outcome in outcomes] == [None] * 3 + [2.0] * 2
    assert len([line for line in caplog.messages if "one by one" in line]) == 2
    for one in jobs:
        assert load_checkpoint(one.folder)[1]["residence"] == {"place": "memory", "dtype": "float32"}


def test_a_state_notes_the_type_of_its_samples(tmp_path: Path) -> None:
    one = replace(alike_job("a"), folder=str(tmp_path / "a"))
    assert worker.kept_dtype(one) is None
    reporter = object.__new__(worker.Reporter)  # what it needs of Ray is not needed to write a state
    reporter.job, reporter.residence = one, Residence("file", torch.float16)
    reporter._save(1, TrainingState(1, {}, {}, {}, 1, 0.5))
    assert worker.kept_dtype(one) == torch.float16
    assert worker.last_state(one) == str(one.states / "epoch-00001")


def alike_job(label: str, **optim: Any) -> FoldJob:
    experiment = Experiment(optim=OPTIM.model_copy(update=optim))
    config = {"experiment": experiment.model_dump(mode="json"), "ch_names": ["Cz"], "parcels": ["a"]}
    return FoldJob(label, label, "small", False, (0,), label, "", config, spec=None, train=(), val=())  # type: ignore[arg-type]


def test_board_gives_stacks_of_one_architecture_and_remembers_what_is_left() -> None:
    a, b, c, d = alike_job("a"), alike_job("b", lr=1e-2), alike_job("c"), alike_job("d")
    board = Board([a, b, c, d])
    assert stacking.n_stacks([a, b, c, d], 2) == 3
    assert [job.label for job in board.take_stack(0, 2)] == ["a", "c"]
    assert [job.label for job in board.take_stack(1, 2)] == ["b"]
    board.finish(0, {"kind": "fold_done", "label": "a"})
    assert [job.label for job in board.take_stack(0, 2)] == ["c"]
    board.finish(0, {"kind": "fold_done", "label": "c"})
    assert [job.label for job in board.take_stack(0, 2)] == ["d"]
    board.finish(0, {"kind": "fold_done", "label": "d"})
    assert board.take_stack(0, 2) == "wait"
    board.close()
    assert board.take_stack(0, 2) is None


def test_jobs_that_run_alone_are_stacks_of_one() -> None:
    jobs = [replace(alike_job(name), alone="no batching rule") for name in "ab"]
    assert stacking.n_stacks(jobs, 2) == 2
    assert [job.label for job in Board(jobs).take_stack(0, 2)] == ["a"]
    assert jobs[0].kind == jobs[1].kind == alike_job("c").alike


def test_stack_and_several_workers_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="stack 3 puts several trainings into one process, workers 2 spreads"):
        Scale(stack=3, workers=2)


def test_fingerprint_of_a_training_does_not_depend_on_the_stack() -> None:
    row = {"site": "a", "subject": "01", "session": "", "task": "rest", "run": "", "sha256": "0", "ch_names": '["Cz"]'}
    hasher = RunHasher(pd.DataFrame([{**row, "parcellation_sha256": "1", "parcels": "[]"}]))
    sides = Sides((RecordingKey("a", "01", "", "rest", ""),))
    hashes = [hasher.run(Experiment(scale=Scale(stack=n)), "b", sides) for n in (1, 3)]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hasher.run(Experiment(scale=Scale(workers=2)), "b", sides)
