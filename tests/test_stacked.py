"""K trainings in one process are K separate ones: weights, curves, stopping, states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_loop import LogPower
from torch import Tensor, nn

from neurobolt.config import NeuroBOLTConfig
from neurobolt.model import NeuroBOLT
from xsite.data.harmonize import paper_target
from xsite.data.window_source import WindowSource
from xsite.data.windows import build_source
from xsite.experiment_parts import Optim
from xsite.learning.algorithms import ERM, build_algorithm
from xsite.learning.alike import UnstackableError
from xsite.learning.lane import StackedError
from xsite.learning.loop import FitResult, fit
from xsite.learning.seeds import seed_everything
from xsite.learning.stacked import fit_stacked, why_alone
from xsite.learning.state import TrainingState
from xsite.recording import Recording

MakeRecording = Callable[..., Recording]
OPTIM = Optim(epochs=5, warmup_epochs=1, batch_size=16, lr=3e-3, clip=0.05, layer_decay=0.7)
CAP = ("C3", "C4", "O1", "O2", "Cz")
TOLERANCE = 1e-3
"""Of weights relative to the largest of their tensor, and of curves: float32 sums in another order, which AdamW's
division by the gradient's size magnifies where gradients nearly vanish."""
NARROW = {"dim": 32, "conv_channels": 2, "conv_groups": 1, "spectral_depth": 1}


def source_of(recordings: Sequence[Recording], model: Any, *, own_channels: bool = False) -> WindowSource:
    return build_source(
        recordings,
        ch_names=None if own_channels else model.ch_names,
        ch_index=model.channel_index,
        targets=[paper_target(r.bold, r.t_r) for r in recordings],
        channels="native" if own_channels else "common",
    )


@pytest.fixture
def recordings(make_recording: MakeRecording) -> list[Recording]:
    """Unequal lengths: 70, 33, 50 and 12 windows, the last fewer than a batch."""
    return [make_recording(subject=f"{n:02d}", n_volumes=v, ch_names=CAP) for n, v in enumerate((70, 33, 50, 12))]


def small(recordings: Sequence[Recording], **options: Any) -> NeuroBOLT:
    own = {"dropout": 0.0, "spectral_dropout": 0.0, **options}
    return NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=recordings[0].ch_names, n_outputs=3, **own))


def log_power(recordings: Sequence[Recording], dropout: float = 0.0) -> LogPower:
    return LogPower(recordings[0].ch_names, 3, dropout)


def built(make: Callable[..., nn.Module], recordings: Sequence[Recording], n: int, **options: Any) -> list[ERM]:
    algorithms = []
    for seed in range(n):
        seed_everything(seed)
        algorithms.append(ERM(make(recordings, **options)))
    return algorithms


def sides(recordings: Sequence[Recording], model: Any, k: int) -> tuple[WindowSource, WindowSource]:
    return source_of([recordings[k]], model), source_of([recordings[(k + 1) % len(recordings)]], model)


def separate(
    algorithms: Sequence[ERM], recordings: Sequence[Recording], optim: Optim, **kwargs: Any
) -> list[FitResult]:
    return [
        fit(algorithm, *sides(recordings, algorithm.model, k), optim, seed=k) for k, algorithm in enumerate(algorithms)
    ]


def together(
    algorithms: Sequence[ERM], recordings: Sequence[Recording], optim: Optim, **kwargs: Any
) -> list[FitResult]:
    pairs = [sides(recordings, algorithm.model, k) for k, algorithm in enumerate(algorithms)]
    seeds = range(len(algorithms))
    return fit_stacked(algorithms, [t for t, _ in pairs], [v for _, v in pairs], optim, seeds=seeds, **kwargs)


def distance(a: FitResult, b: FitResult) -> float:
    """Largest difference of two sets of weights, relative to the largest weight of each tensor."""
    assert set(a.best_state) == set(b.best_state)
    sizes = {name: max(float(value.abs().max()), 1e-2) for name, value in a.best_state.items()}
    return max(float((a.best_state[name] - b.best_state[name]).abs().max()) / size for name, size in sizes.items())


def assert_same(alone: Sequence[FitResult], stacked: Sequence[FitResult], tolerance: float = TOLERANCE) -> None:
    for a, b in zip(alone, stacked, strict=True):
        assert (a.best_epoch, len(a.history)) == (b.best_epoch, len(b.history))
        assert set(a.history[0]) <= set(b.history[0])
        for name in ("train_loss", "val_loss", "lr"):
            curve = [row[name] for row in a.history]
            np.testing.assert_allclose([row[name] for row in b.history], curve, rtol=tolerance)
        assert distance(a, b) < tolerance


@pytest.mark.parametrize(
    "size", [pytest.param({}, marks=pytest.mark.slow, id="small"), pytest.param(NARROW, id="narrow")]
)
def test_neurobolt_on_unequal_data_equals_separate_runs(recordings: list[Recording], size: dict[str, Any]) -> None:
    """Of 70, 33, 50 and 12 windows 64 at most are drawn per epoch: 4, 2, 3 batches, and one smaller one."""
    optim = OPTIM.model_copy(update={"windows_per_epoch": 64, "epochs": 3})
    alone = separate(built(small, recordings, 4, **size), recordings, optim)
    stacked = together(built(small, recordings, 4, **size), recordings, optim)
    assert_same(alone, stacked)
    assert distance(alone[0], alone[1]) > 0.1  # the four are not one


def test_models_that_stop_early_leave_and_keep_their_best(recordings: list[Recording]) -> None:
    recordings[1].bold[:] *= -1  # what helps the first in training hurts it in validation
    optim = OPTIM.model_copy(update={"epochs": 14, "patience": 3, "lr": 1e-2})
    alone = separate(built(log_power, recordings, 4), recordings, optim)
    stacked = together(built(log_power, recordings, 4), recordings, optim)
    assert len({len(result.history) for result in alone}) > 1
    assert_same(alone, stacked)
    assert [row["stacked"] for row in max(stacked, key=lambda r: len(r.history)).history][-1] < 4


def test_states_pass_between_stacked_and_separate_runs(recordings: list[Recording], tmp_path: Path) -> None:
    """The first goes on from epoch 2, the second from epoch 3, the third from the start."""
    whole = separate(built(log_power, recordings, 3), recordings, OPTIM)
    together(built(log_power, recordings, 3), recordings, OPTIM, on_epoch=keep(tmp_path, {0: 2, 1: 3}))
    states = [TrainingState.load(tmp_path / str(k), "f") for k in (0, 1)]
    resumed = together(built(log_power, recordings, 3), recordings, OPTIM, resumes=[*states, None])
    assert_same(whole, resumed)
    alone = built(log_power, recordings, 1)[0]
    assert_same(whole[:1], [fit(alone, *sides(recordings, alone.model, 0), OPTIM, seed=0, resume=states[0])])


def keep(folder: Path, when: dict[int, int]) -> Callable[..., None]:
    def on_epoch(k: int, metrics: dict[str, float], state: Callable[[], TrainingState]) -> None:
        if metrics["epoch"] == when.get(k):
            state().save(folder / str(k), "f")

    return on_epoch


def test_a_state_of_a_separate_run_is_the_state_of_a_stacked_one(recordings: list[Recording]) -> None:
    algorithm, other = built(small, recordings, 1)[0], built(small, recordings, 2)
    states: list[TrainingState] = []
    optim = OPTIM.model_copy(update={"windows_per_epoch": 32})
    fit(algorithm, *sides(recordings, algorithm.model, 0), optim, seed=0, n_epochs=1,
        on_epoch=lambda metrics, state: states.append(state()))  # fmt: skip
    together(other, recordings, optim, n_epochs=[1, 1], on_epoch=lambda k, metrics, state: states.append(state()))
    for mine, theirs in ((states[0].algorithm, states[1].algorithm), (states[0].optimizer, states[1].optimizer)):
        assert set(mine) == set(theirs)
        for name, value in mine.items():
            assert value.shape == theirs[name].shape
            torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-5)


def dropped(recordings: Sequence[Recording], n: int) -> list[ERM]:
    return built(small, recordings, n, dropout=0.2, spectral_dropout=0.2, drop_path=0.2, **NARROW)


def test_dropout_is_that_of_separate_runs_whoever_is_stacked_beside(recordings: list[Recording]) -> None:
    """Also after an interruption, where the first goes on from its second epoch beside the first epoch of another."""
    optim = OPTIM.model_copy(update={"epochs": 3, "windows_per_epoch": 32})
    alone = separate(dropped(recordings, 2), recordings, optim)
    states: list[TrainingState] = []

    def note(k: int, metrics: dict[str, float], state: Callable[[], TrainingState]) -> None:
        if (k, metrics["epoch"]) == (0, 1):
            states.append(state())

    assert_same(alone, together(dropped(recordings, 2), recordings, optim, on_epoch=note))
    beside = together(dropped(recordings, 3), recordings, optim, resumes=[states[0], None, None])
    assert_same(alone, beside[:2])
    without = optim.model_copy(update={"epochs": 1})
    plain = together(built(small, recordings, 1, **NARROW), recordings, without)[0]
    assert distance(plain, together(dropped(recordings, 1), recordings, without)[0]) > 0.01  # it does drop out


class Noisy(LogPower):
    """Draws in every way that is known, and in one that is not."""

    known = True

    def forward(self, batch: Any) -> Tensor:
        y_BR: Tensor = super().forward(batch)
        if self.training:
            y_BR = y_BR * torch.rand(len(y_BR), 1) + torch.randn_like(y_BR)
            y_BR = nn.functional.dropout2d(y_BR[..., None, None], 0.5, True).flatten(1)
        return y_BR if self.known else y_BR + torch.bernoulli(torch.full_like(y_BR, 0.5))


def test_noise_of_a_model_is_that_of_separate_runs(recordings: list[Recording]) -> None:
    def make(some: Sequence[Recording]) -> Noisy:
        return Noisy(some[0].ch_names, 3)

    optim = OPTIM.model_copy(update={"epochs": 2})
    assert_same(
        separate(built(make, recordings, 2), recordings, optim), together(built(make, recordings, 2), recordings, optim)
    )
    other = built(make, recordings, 1)[0]
    other.model.known = False
    assert "random" in why_alone(other, sides(recordings, other.model, 0)[0].gather([0, 1]), optim)


def test_speed_is_that_of_the_stack_and_each_model_has_its_share(recordings: list[Recording]) -> None:
    """70, 33 and 50 windows."""
    seen: dict[int, dict[str, float]] = {}
    optim = OPTIM.model_copy(update={"epochs": 1})
    together(built(log_power, recordings, 3), recordings, optim, on_epoch=lambda k, row, state: seen.update({k: row}))
    for name in ("windows_per_s", "gflop_per_s", "peak_fraction", "step_s_p50"):
        assert len({row[name] for row in seen.values()}) == 1
    shares = np.array([seen[k]["lane_windows_per_s"] for k in range(3)])
    assert shares.sum() == pytest.approx(seen[0]["windows_per_s"])
    np.testing.assert_allclose(shares / shares.sum(), np.array([4, 2, 3]) / 9)  # whole batches


def test_padded_channels_and_other_montages_stack(make_recording: MakeRecording) -> None:
    """Models of two and of three different caps: batches of other shapes, some padded."""
    caps = [make_recording(subject=f"{n}", n_volumes=40, ch_names=CAP) for n in range(3)]
    names = caps[0].ch_names
    few = [make_recording(subject=f"{n}", n_volumes=40, ch_names=names[:n]) for n in (3, 4)]
    groups = [[few[0], few[1]], [caps[0], few[0]], [caps[1], caps[2]], [caps[0], few[1]]]
    optim = OPTIM.model_copy(update={"epochs": 2})

    def pairs(model: Any) -> list[WindowSource]:
        return [source_of(group, model, own_channels=True) for group in groups]

    alone, stacked = built(small, caps, 4, **NARROW), built(small, caps, 4, **NARROW)
    results = [fit(a, s, s, optim, seed=k) for k, (a, s) in enumerate(zip(alone, pairs(alone[0].model), strict=True))]
    sources = pairs(stacked[0].model)
    assert len({source.eeg_CT.shape[0] for source in sources}) > 1
    assert_same(results, fit_stacked(stacked, sources, sources, optim, seeds=range(4)))


class WithBatchNorm(LogPower):
    """Buffers that change in training, a parameter that the loss never reaches, and a frozen one."""

    def __init__(self, ch_names: Sequence[str], n_outputs: int) -> None:
        super().__init__(ch_names, n_outputs)
        self.batch_norm = nn.BatchNorm1d(len(ch_names))
        self.idle = nn.Parameter(torch.ones(4, 4))
        self.scale = nn.Parameter(torch.full((n_outputs,), 0.5), requires_grad=False)

    def forward(self, batch: Any) -> Tensor:
        eeg_BCT = self.batch_norm(batch.eeg_BCT)
        bold_BR: Tensor = super().forward(batch._replace(eeg_BCT=eeg_BCT)) * self.scale
        return bold_BR


def test_buffers_idle_and_frozen_parameters_are_as_in_separate_runs(recordings: list[Recording]) -> None:
    def make(some: Sequence[Recording]) -> WithBatchNorm:
        return WithBatchNorm(some[0].ch_names, 3)

    alone = separate(built(make, recordings, 3), recordings, OPTIM)
    stacked = together(built(make, recordings, 3), recordings, OPTIM)
    assert_same(alone, stacked)
    assert torch.equal(stacked[0].best_state["idle"], torch.ones(4, 4))
    assert int(stacked[0].best_state["batch_norm.num_batches_tracked"]) == 4 * stacked[0].best_epoch


def test_final_models_bfloat16_and_one_model_alone(recordings: list[Recording]) -> None:
    optim = OPTIM.model_copy(update={"precision": "bfloat16", "epochs": 3})
    train = [source_of([recordings[k]], log_power(recordings)) for k in (0, 1)]
    alone = [
        fit(a, t, None, optim, seed=k, n_epochs=2)
        for k, (a, t) in enumerate(zip(built(log_power, recordings, 2), train, strict=True))
    ]
    stacked = fit_stacked(built(log_power, recordings, 2), train, [None] * 2, optim, seeds=[0, 1], n_epochs=[2, 3])
    assert [len(result.history) for result in stacked] == [2, 3]
    assert [row["train_loss"] for row in stacked[0].history] == pytest.approx(
        [row["train_loss"] for row in alone[0].history], rel=1e-2
    )
    assert stacked[1].best_epoch == 3


class WithLSTM(LogPower):
    """Torch has no batching rule for an LSTM."""

    def __init__(self, recordings: Sequence[Recording]) -> None:
        super().__init__(recordings[0].ch_names, 3)
        self.recurrent = nn.LSTM(3, 3, batch_first=True)

    def forward(self, batch: Any) -> Tensor:
        bold_BR: Tensor = self.recurrent(super().forward(batch).unsqueeze(1))[0].squeeze(1)
        return bold_BR


def test_backward_runs_outside_autocast_as_in_separate_runs(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    backward = torch.autograd.grad

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu"))
        return backward(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    optim = OPTIM.model_copy(update={"epochs": 1, "precision": "bfloat16"})
    together(built(log_power, recordings, 1), recordings, optim)
    assert seen
    assert not any(seen)


def test_what_must_run_alone_is_known_before_training(recordings: list[Recording]) -> None:
    few = sides(recordings, log_power(recordings), 0)[0].gather([0, 1])
    lstm, plain, narrow = ERM(WithLSTM(recordings)), ERM(log_power(recordings, 0.2)), ERM(small(recordings, **NARROW))
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    assert "lstm" in why_alone(lstm, few, OPTIM)
    assert "SWA" in why_alone(build_algorithm("swa", {}, log_power(recordings)), few, OPTIM)
    assert "compile" in why_alone(plain, few, OPTIM.model_copy(update={"compile": True}))
    assert why_alone(plain, few, OPTIM) == why_alone(narrow, few, OPTIM) == ""
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())
    with pytest.raises(UnstackableError, match=r"a stack is not compiled: set scale\.stack to 1"):
        together([plain], recordings, OPTIM.model_copy(update={"compile": True}))


def test_what_cannot_be_stacked_is_refused_with_the_model_that_fails(recordings: list[Recording]) -> None:
    mixed = [ERM(log_power(recordings)), ERM(log_power(recordings, dropout=0.5))]
    with pytest.raises(UnstackableError, match=r"models 0 and 1 of a stack differ .*scale\.stack to 1"):
        together(mixed, recordings, OPTIM)
    switched = [ERM(small(recordings, **NARROW)), ERM(small(recordings, **NARROW, gelu_head=True))]
    with pytest.raises(UnstackableError, match="models 0 and 1 of a stack differ"):  # no shape shows a switch
        together(switched, recordings, OPTIM)
    with pytest.raises(UnstackableError, match=r"cannot be stacked, set scale\.stack to 1"):
        together(built(WithLSTM, recordings, 2), recordings, OPTIM)
    bad = built(log_power, recordings, 2)
    nn.init.constant_(bad[1].model.readout.weight, torch.inf)
    with pytest.raises(StackedError, match=r"loss is .* in epoch 1: lower optim\.lr") as caught:
        together(bad, recordings, OPTIM)
    assert caught.value.index == 1
