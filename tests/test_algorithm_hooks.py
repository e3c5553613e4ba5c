"""Algorithms inside the training loop: resumption, parameters of their own, averaged weights, stacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from planted_sites import OPTIM, Planted, TwoPart, same
from torch import Tensor, nn

from xsite.errors import RecipeError
from xsite.learning.algorithms import ALGORITHMS, DANN, ERM, build_algorithm
from xsite.learning.loop import FitResult, fit
from xsite.learning.seeds import seed_everything
from xsite.learning.stacked import fit_stacked
from xsite.learning.state import TrainingState


def run(name: str, options: Mapping[str, Any] | None = None, *, seed: int = 3, **kwargs: Any) -> FitResult:
    seed_everything(seed)
    algorithm = build_algorithm(name, dict(options or {}), TwoPart())
    val = kwargs.pop("val", Planted(seed=1))
    return fit(algorithm, Planted(), val, kwargs.pop("optim", OPTIM), seed=seed, **kwargs)


@pytest.mark.parametrize("name", ["group-dro", "dann", "swa", "swad", "site-norm", "vrex", "mixup"])
def test_resuming_at_an_epoch_boundary_is_bitwise_equal(name: str, tmp_path: Path) -> None:
    states: dict[int, dict[str, Tensor]] = {}

    def keep(metrics: dict[str, float], state: Callable[[], TrainingState]) -> None:
        states[int(metrics["epoch"])] = dict(state().algorithm)
        state().save(tmp_path / f"{int(metrics['epoch'])}", "f")

    whole = run(name, on_epoch=keep)
    last = states[5]
    for stop in (1, 3, 4):
        resumed = run(name, resume=TrainingState.load(tmp_path / f"{stop}", "f"), on_epoch=keep)
        assert same(whole.best_state, resumed.best_state)
        assert same(last, states[5])  # weights of the algorithm's own, and what its buffers remember
        assert [r["train_loss"] for r in whole.history] == [r["train_loss"] for r in resumed.history]
    assert any(not torch.equal(last[key], value) for key, value in states[4].items())


def test_the_discriminator_is_trained_by_the_loop_and_scalars_are_logged() -> None:
    seed_everything(0)
    algorithm = DANN(TwoPart())
    result = fit(algorithm, Planted(), Planted(seed=1), OPTIM, seed=0)
    row = result.history[-1]
    assert row["train_accuracy"] > result.history[0]["train_accuracy"]
    assert row["train_loss"] > row["train_risk"] > 0
    assert set(result.best_state) == set(TwoPart().state_dict())  # the checkpoint holds the model alone
    group = run("group-dro").history[-1]
    assert group["train_largest_weight"] > 1 / 3


class _Diary(ERM):
    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.steps: list[Tensor] = []

    def step_done(self) -> None:
        self.steps.append(nn.utils.parameters_to_vector(self.model.parameters()).detach().clone())


def diary() -> list[list[Tensor]]:
    """Weights after every step of plain training, epoch by epoch: those that an average is made of."""
    seed_everything(3)
    erm = _Diary(TwoPart())
    fit(erm, Planted(), Planted(seed=1), OPTIM, seed=3)
    return [erm.steps[first : first + 4] for first in range(0, 20, 4)]


def flat(state: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten() for value in state.values()])


def test_swa_keeps_and_validates_the_mean_of_the_last_epochs() -> None:
    ends = [epoch[-1] for epoch in diary()]
    result = run("swa", {"start": 0.4}, val=None)
    torch.testing.assert_close(flat(result.best_state), torch.stack(ends[2:]).mean(0), atol=1e-6, rtol=1e-5)
    early = run("swa", {"start": 0.4}, val=None, n_epochs=2)
    torch.testing.assert_close(flat(early.best_state), ends[1], atol=1e-6, rtol=1e-5)
    plain, averaged = run("erm"), run("swa", {"start": 0.4})
    curves = [[row["val_loss"] for row in result.history] for result in (plain, averaged)]
    assert curves[0][:2] == curves[1][:2]
    assert curves[0][-1] != curves[1][-1]


def test_swad_averages_all_steps_since_the_lowest_epoch() -> None:
    epochs = [torch.stack(steps).mean(0) for steps in diary()]
    falling = run("swad")  # every epoch's mean is better than the last: the mean is that epoch's alone
    torch.testing.assert_close(flat(falling.best_state), epochs[falling.best_epoch - 1], atol=1e-6, rtol=1e-5)
    blind = run("swad", {"start": 0.4}, val=None)
    torch.testing.assert_close(flat(blind.best_state), torch.stack(epochs[1:]).mean(0), atol=1e-6, rtol=1e-5)

    class Rising(Planted):
        """Validation against the opposite of what is learnt: the first epoch stays the lowest."""

        def __init__(self) -> None:
            super().__init__(seed=1)
            self.target_WR = -self.target_WR

    swad = build_algorithm("swad", {"tolerance": 1e6}, TwoPart())
    seed_everything(3)
    swad.model.load_state_dict(TwoPart().state_dict())
    swad.other.load_state_dict(swad.model.state_dict())
    fit(swad, Planted(), Rising(), OPTIM, seed=3)
    torch.testing.assert_close(flat(swad.model.state_dict()), torch.stack(epochs).mean(0), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "erm"])
def test_a_stack_takes_erm_only_and_says_so(name: str) -> None:
    algorithm = build_algorithm(name, {}, TwoPart())
    with pytest.raises(RecipeError, match=rf"{type(algorithm).__name__} cannot be stacked, only ERM"):
        fit_stacked([algorithm], [Planted()], [None], OPTIM, seeds=[0])
