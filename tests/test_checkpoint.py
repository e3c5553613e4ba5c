from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from xsite.errors import CheckpointError
from xsite.learning.checkpoint import load_checkpoint, save_checkpoint
from xsite.learning.state import TrainingState

STATE = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.zeros(2)}
CONFIG: dict[str, Any] = {"ch_names": ["Fp1", "Cz"], "held_out": None}


def test_round_trip(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "best", STATE, CONFIG)
    state, config = load_checkpoint(folder)
    assert config == CONFIG
    assert set(state) == set(STATE)
    assert all(torch.equal(state[name], STATE[name]) for name in STATE)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["best", "config.json", "manifest.json", "model.safetensors"]


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    weight = torch.ones(3, 3)
    state, _ = load_checkpoint(save_checkpoint(tmp_path / "tied", {"a": weight, "b": weight}, {}))
    assert torch.equal(state["b"], weight)


def test_saving_again_replaces_everything(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best", STATE, {"n": 1})
    save_checkpoint(tmp_path / "best", {"only": torch.ones(1)}, {"n": 2})
    state, config = load_checkpoint(tmp_path / "best")
    assert (list(state), config) == (["only"], {"n": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(tmp_path / "best", STATE, CONFIG)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load_checkpoint(folder)


def test_a_truncated_or_altered_file_is_named(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "best", STATE, CONFIG)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: SHA-256 differs"):
        load_checkpoint(folder)


def test_an_absent_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: the checkpoint is absent"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("nth_sync", [1, 3])
def test_a_full_disk_leaves_the_old_checkpoint_and_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth_sync: int
) -> None:
    save_checkpoint(tmp_path / "best", STATE, {"n": 1})
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == nth_sync:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="No space left on device"):
            save_checkpoint(tmp_path / "best", STATE, {"n": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert load_checkpoint(tmp_path / "best")[1] == {"n": 1}


def test_training_state_of_another_experiment_is_refused(tmp_path: Path) -> None:
    state = TrainingState(2, STATE, {"0.exp_avg": torch.ones(2)}, STATE, 1, 0.5, [{"epoch": 1}, {"epoch": 2}])
    state.save(tmp_path / "epoch-2", "aaaa")
    back = TrainingState.load(tmp_path / "epoch-2", "aaaa")
    assert (back.epoch, back.best_epoch, back.best_loss, back.history) == (2, 1, 0.5, state.history)
    assert torch.equal(back.optimizer["0.exp_avg"], torch.ones(2))
    with pytest.raises(CheckpointError, match="belongs to another experiment"):
        TrainingState.load(tmp_path / "epoch-2", "bbbb")
