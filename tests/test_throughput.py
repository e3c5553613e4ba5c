"""Speed is logged, counted and never changes what is learnt."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from neurobolt.batch import EegBatch
from neurobolt.channels import VU_NAMES
from neurobolt.config import NeuroBOLTConfig
from neurobolt.model import NeuroBOLT
from xsite.data.window_source import Batch
from xsite.data.windows import build_source
from xsite.errors import RecipeError
from xsite.experiment_parts import Optim
from xsite.learning.algorithms import ERM
from xsite.learning.loop import compiled, fit
from xsite.learning.seeds import seed_everything
from xsite.learning.throughput import Arithmetic, Clock, count_training_flops, matmul_peak

CPU = torch.device("cpu")


def small(ch_names, **options):
    seed_everything(5)
    return NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=ch_names, n_outputs=3, **options))


def gathered(model, n=4):
    noise = torch.randn(n, len(model.ch_names), model.config.n_times, generator=torch.Generator().manual_seed(0))
    batch = EegBatch(15 * noise, torch.arange(len(model.ch_names)).expand(n, -1))
    return batch, torch.zeros(n, model.config.n_outputs), torch.ones(n, model.config.n_outputs, dtype=torch.bool)


def test_the_clock_splits_steps_and_waits():
    clock = Clock(CPU)
    for _ in range(3):
        clock.data_arrived()
        clock.step_done()
    clock._marks[:] = [0.0, 1.0, 4.0, 5.0, 8.0, 12.0, 14.0]  # waits 1, 1, 4; work 3, 3, 2
    row = clock.metrics(28)
    assert row["windows_per_s"] == pytest.approx(2.0)
    assert row["data_wait_fraction"] == pytest.approx(6 / 14)
    assert row["step_s_p50"] == 4.0
    assert row["step_s_p95"] == pytest.approx(5.8)
    assert clock.work() == [3.0, 3.0, 2.0]


def test_operations_of_a_linear_model_are_counted_exactly():
    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = torch.nn.Linear(50, 3)

        def forward(self, batch: Any) -> torch.Tensor:
            return self.output(batch.eeg_BCT.flatten(1))

    batch = EegBatch(torch.randn(4, 5, 10), torch.arange(5).expand(4, -1))
    work = (batch, torch.zeros(4, 3), torch.ones(4, 3, dtype=torch.bool))
    assert count_training_flops(ERM(Linear()), work) == 2 * 2 * 4 * 50 * 3  # forward, gradient of the weights


def test_the_full_model_costs_what_its_description_says():
    """29.5 GFLOP per training window (neurobolt.md, section 3), attention included."""
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper"))
    assert count_training_flops(ERM(model), gathered(model, 1)) / 1e9 == pytest.approx(29.5, rel=0.03)


def test_counting_leaves_weights_and_random_state_alone():
    model = small(VU_NAMES[:6])
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    arithmetic = Arithmetic(ERM(model), gathered(model), CPU, "float32")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    row = arithmetic.metrics(100.0)
    assert row["gflop_per_s"] == pytest.approx(100 * arithmetic.flop_per_window / 1e9)
    assert row["peak_fraction"] == pytest.approx(1e9 * row["gflop_per_s"] / arithmetic.peak)
    assert arithmetic.peak == matmul_peak("cpu", "float32", torch.get_num_threads()) > 1e9


def test_every_epoch_carries_the_speed_and_shapes_never_change(make_recording):
    """One shape per training and one for whole validation batches: a compiled step is compiled once."""
    recordings = [make_recording(subject="01", ch_names=("Cz", "Oz")), make_recording(subject="02")]
    vocabulary = (*recordings[1].ch_names, "Oz")

    class Watched(NeuroBOLT):
        seen: list[tuple[Any, ...]]

        def forward(self, batch):
            if self.training and torch.is_grad_enabled() and hasattr(self, "seen"):
                self.seen.append((tuple(batch.eeg_BCT.shape), batch.padded))
            return super().forward(batch)

    model = Watched(small(vocabulary).config)
    source = build_source(
        recordings, ch_names=None, ch_index=model.channel_index, targets=[r.bold for r in recordings],
        reference="native",
    )  # fmt: skip
    model.seen = []
    optim = Optim(epochs=2, batch_size=16, warmup_epochs=0)
    result = fit(ERM(model), source, None, optim, seed=0)
    steps = [shape for shape in model.seen if shape[0][0] == 16]
    assert len(steps) == 2 * (len(source) // 16)
    assert set(steps) == {((16, 13, 3200), True)}
    for row in result.history:
        assert {"windows_per_s", "step_s_p50", "step_s_p95", "data_wait_fraction", "gflop_per_s", "peak_fraction",
                "peak_rss_mb"} <= set(row)  # fmt: skip
        assert row["gflop_per_s"] > 0
        assert 0 < row["peak_fraction"] < 2
        assert all(isinstance(value, int | float) for value in row.values())  # MLflow takes plain numbers


def test_a_batch_that_says_it_is_not_padded_gives_the_same_output():
    model = small(VU_NAMES[:6]).eval()
    (eeg_BCT, index_BC), _, _ = gathered(model)
    rest = (torch.zeros(4), torch.zeros(4, 6, 3), torch.ones(4), torch.zeros(4, 6, 0))
    with torch.no_grad():
        told = model(Batch(eeg_BCT, index_BC, *rest, padded=False))
        masked = model(Batch(eeg_BCT, index_BC, *rest, padded=True))
        asked = model(EegBatch(eeg_BCT, index_BC))
    assert torch.equal(told, asked)
    torch.testing.assert_close(masked, asked, atol=1e-5, rtol=1e-5)


def test_bfloat16_training_on_wild_eeg_stays_finite_and_near_float32(make_recording):
    """The published code trains in float32 because its authors met NaN; spikes, a saturated and a dead channel here."""
    rng = np.random.default_rng(0)
    recordings = [make_recording(subject=f"{n:02d}") for n in range(2)]
    for recording in recordings:
        recording.eeg[0] *= 300  # an electrode of several millivolt
        recording.eeg[1] = 0
        recording.eeg[2, rng.integers(0, recording.eeg.shape[1], 40)] = 3e4
    histories = {}
    for precision in ("float32", "bfloat16"):
        model = small(recordings[0].ch_names, dropout=0.0, spectral_dropout=0.0, depth=2, n_heads=4)
        sources = [
            build_source(
                [r], ch_names=model.ch_names, ch_index=model.channel_index, targets=[r.bold], reference="native"
            )
            for r in recordings
        ]
        optim = Optim(epochs=3, batch_size=16, warmup_epochs=1, lr=1e-3, precision=precision)
        result = fit(ERM(model), *sources, optim, seed=1)
        assert all(torch.isfinite(value).all() for value in result.best_state.values())
        histories[precision] = np.array([[row["train_loss"], row["val_loss"]] for row in result.history])
    assert np.isfinite(histories["bfloat16"]).all()
    np.testing.assert_allclose(histories["bfloat16"], histories["float32"], rtol=0.03)


@pytest.mark.parametrize("pad", [0, 3])
def test_attention_in_bfloat16_equals_float32_to_its_rounding(pad):
    """Training in bfloat16 on a CPU keeps the whole softmax; padding must weigh nothing there either."""
    model = small(VU_NAMES[:8], dropout=0.0, spectral_dropout=0.0, n_heads=4)
    attention = model.spatiotemporal.blocks[0].attention
    x_BND = torch.randn(2, 33, model.config.dim, generator=torch.Generator().manual_seed(1))
    valid_BN = None if pad == 0 else torch.arange(33).expand(2, -1) < 33 - pad
    exact = attention(x_BND, valid_BN)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x_BND, valid_BN)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.03 * exact.detach().abs().max().item(), rtol=0.0)
    grads = [torch.autograd.grad(y.float().sum(), attention.qkv.weight)[0] for y in (exact, rounded)]
    assert torch.nn.functional.cosine_similarity(*(g.flatten() for g in grads), dim=0) > 0.999


def test_compiling_without_a_compiler_is_a_recipe_error(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RecipeError, match=r"no-such-compiler is not installed: set compile to false"):
        compiled(ERM(small(VU_NAMES[:6])))
