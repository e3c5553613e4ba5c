"""Paper against released code: every switch shows in what is computed, and both recipes say what the presets say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from neurobolt import VU_NAMES, EegBatch, NeuroBOLT, NeuroBOLTConfig, TrainingSwitches
from neurobolt.layers import DropPath
from neurobolt.spatiotemporal import MaskedGroupNorm
from neurobolt.spectral import EfficientAttention, LinformerAttention, sinusoid
from xsite.data.harmonize import harmonize
from xsite.experiment import load_experiment
from xsite.experiment_parts import Optim
from xsite.learning.schedule import build_optimizer, learning_rate

RECIPES = Path(__file__).parents[1] / "jobs" / "recipes"
TINY = {"depth": 2, "spectral_depth": 1}


def shallow(preset: str, **options: object) -> NeuroBOLT:
    """Full width, few layers."""
    torch.manual_seed(0)
    return NeuroBOLT(NeuroBOLTConfig.preset(preset, ch_names=VU_NAMES[:3], **{**TINY, **options}))


def batch_of(n_windows: int = 2, n_chans: int = 3) -> EegBatch:
    generator = torch.Generator().manual_seed(1)
    return EegBatch(
        torch.randn(n_windows, n_chans, 3200, generator=generator) * 20, torch.arange(n_chans).expand(n_windows, -1)
    )


@pytest.mark.parametrize(("preset", "rate"), [("paper", 0.0), ("released", 0.1)])
def test_dropout_sits_where_the_released_code_has_it(preset, rate):
    model = shallow(preset)
    rates = {name: part.p for name, part in model.named_modules() if isinstance(part, nn.Dropout)}
    attention = {name: p for name, p in rates.items() if name.startswith("spectral.blocks") and "attention" in name}
    feed_forward = {name: p for name, p in rates.items() if name.startswith("spectral.blocks") and "mlp" in name}
    others = {name: p for name, p in rates.items() if name not in {**attention, **feed_forward}}
    assert set(attention.values()) == {2 * rate}
    assert set(feed_forward.values()) == {0.0}
    assert set(others.values()) == {rate}
    assert {"spatiotemporal.dropout", "spectral.dropout", "spatiotemporal.blocks.0.attention.dropout"} <= set(others)
    model.eval()
    torch.testing.assert_close(model(batch_of()), model(batch_of()))
    model.spatiotemporal.blocks[1].drop_path.p = 0.0  # what is left is dropout alone
    model.train()
    same = torch.equal(model.features(batch_of()), model.features(batch_of()))
    assert same is (preset == "paper")


def test_stochastic_depth_grows_linearly_to_a_tenth():
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper", ch_names=VU_NAMES[:1], spectral_depth=1))
    rates = [block.drop_path.p for block in model.spatiotemporal.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 12), atol=1e-7)
    dropped = DropPath(0.25).train()(torch.ones(4000, 1, 1))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0.0, 4 / 3]))
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)


def test_spectral_attention_is_factorised_by_default_and_low_rank_on_request():
    for preset in ("paper", "released"):
        attention = shallow(preset).spectral.blocks[0].attention
        assert type(attention) is EfficientAttention
    model = shallow("paper").eval()
    attention = model.spectral.blocks[0].attention
    q, k, v = torch.randn(3, 1, 8, 5, 25).unbind(0)
    context = torch.einsum("bhne,bhnf->bhef", k.softmax(2), v)
    expected = torch.einsum("bhne,bhef->bhnf", q.softmax(-1) * 25**-0.5, context)
    torch.testing.assert_close(attention.mix(q, k, v, torch.zeros(1, 1), None), expected)
    low = shallow("paper", spectral_attention="linformer", linformer_rank=16)
    assert isinstance(low.spectral.blocks[0].attention, LinformerAttention)
    assert low.spectral.blocks[0].attention.low_rank_k.shape == (3, 32, 16)


def test_the_spectral_cls_token_is_an_option():
    assert shallow("paper").spectral.cls_token is None
    assert shallow("released").spectral.cls_token is None
    with_cls = shallow("paper", spectral_cls=True).eval()
    assert with_cls.spectral.tokens(torch.randn(1, 3, 3200), torch.arange(3)[None]).shape == (1, 1 + 96, 200)


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_gelu_before_the_head_and_its_switch(preset):
    z_BD = torch.linspace(-3, 3, 400).reshape(2, 200)
    on, off = shallow(preset), shallow(preset, gelu_head=False)
    torch.testing.assert_close(on.head(z_BD), on.output(nn.functional.gelu(z_BD)))
    torch.testing.assert_close(off.head(z_BD), off.output(z_BD))
    torch.testing.assert_close(on.output.weight, off.output.weight)
    assert not torch.allclose(on.head(z_BD), off.head(z_BD))


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_the_mean_of_each_channel_and_window_is_removed(preset):
    model, batch = shallow(preset).eval(), batch_of()
    shifted = EegBatch(batch.eeg_BCT + torch.tensor([300.0, -50.0, 0.0])[None, :, None], batch.ch_index_BC)
    torch.testing.assert_close(model.features(batch), model.features(shifted), rtol=1e-3, atol=1e-3)
    kept = shallow(preset, remove_mean=False).eval()
    assert (kept.features(batch) - kept.features(shifted)).abs().max() > 0.1


def test_layer_decay_scales_are_the_published_ones():
    paper, released = (NeuroBOLT(NeuroBOLTConfig.preset(name, ch_names=VU_NAMES[:2])) for name in ("paper", "released"))
    found = {}
    for name, model in (("paper", paper), ("released", released)):
        names = {id(p): key for key, p in model.named_parameters()}
        groups = build_optimizer(model, Optim(lr=3e-4, weight_decay=0.05, layer_decay=0.65)).param_groups
        found[name] = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
        assert found[name].keys() == set(names.values())
    scale = {key: pair[0] for key, pair in found["released"].items()}
    first = ("spatiotemporal.cls_token", "spatiotemporal.spatial_embedding", "spatiotemporal.encoder.conv1.weight")
    assert {round(scale[key], 4) for key in first} == {0.0037}
    blocks = [scale[f"spatiotemporal.blocks.{i}.attention.qkv.weight"] for i in range(12)]
    assert (round(blocks[0], 4), round(blocks[11], 2)) == (0.0057, 0.65)
    np.testing.assert_allclose(np.array(blocks[:-1]) / np.array(blocks[1:]), 0.65)
    for key in ("spatiotemporal.norm.weight", "output.weight", "spectral.blocks.0.attention.to_q.weight"):
        assert scale[key] == 1.0
    differing = {key for key in scale if abs(scale[key] - found["paper"][key][0]) > 1e-9}
    assert differing == {"spatiotemporal.temporal_embedding"}
    assert scale["spatiotemporal.temporal_embedding"] == 1.0
    assert round(found["paper"]["spatiotemporal.temporal_embedding"][0], 4) == 0.0037
    undecayed = {key for key, pair in found["paper"].items() if pair[1] == 0}
    shapes = {key: p.ndim for key, p in paper.named_parameters()}
    assert {key for key in shapes if shapes[key] <= 1} <= undecayed
    assert undecayed - {key for key in shapes if shapes[key] <= 1} == {
        "spatiotemporal.cls_token",
        "spatiotemporal.spatial_embedding",
        "spatiotemporal.temporal_embedding",
    }


def test_initialisation_scheme():
    torch.manual_seed(5)
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper"))
    state = model.state_dict()
    for key in ("spatiotemporal.blocks.4.attention.qkv.weight", "spectral.blocks.2.mlp.fc1.weight"):
        assert state[key].std().item() == pytest.approx(0.02, rel=0.03)
        assert state[key].abs().max() > 0.06  # cut at 2 as torch cuts it, far beyond two deviations
    for i in (0, 3, 11):
        for part in ("attention.proj", "mlp.fc2"):
            weight = state[f"spatiotemporal.blocks.{i}.{part}.weight"]
            assert weight.std().item() == pytest.approx(0.02 / np.sqrt(2 * (i + 1)), rel=0.03)
    assert state["output.weight"].std().item() == pytest.approx(0.02 * 0.001, rel=0.2)
    gammas = [value for key, value in state.items() if "gamma" in key]
    assert len(gammas) == 24
    assert all(torch.equal(gamma, torch.full((200,), 0.1)) for gamma in gammas)
    tokens = state["spectral.channel_tokens.weight"]
    assert (tokens.mean().item(), tokens.std().item()) == (pytest.approx(0, abs=0.05), pytest.approx(1, abs=0.05))
    for key in ("cls_token", "spatial_embedding", "temporal_embedding"):
        assert state[f"spatiotemporal.{key}"].std().item() == pytest.approx(0.02, rel=0.2)
    biases = [
        value for key, value in state.items() if key.endswith(".bias") and "norm" not in key and "conv" not in key
    ]
    assert all(not value.any() for value in biases)


def test_norms_have_the_published_epsilon_and_scope():
    model = shallow("paper")
    eps = {name: part.eps for name, part in model.named_modules() if isinstance(part, nn.LayerNorm)}
    assert {value for name, value in eps.items() if name.startswith("spatiotemporal")} == {1e-6}
    assert {value for name, value in eps.items() if name.startswith("spectral")} == {1e-5}
    norm = MaskedGroupNorm(4, 8)
    x_BKNL = torch.randn(2, 8, 48, 25) * torch.linspace(0.1, 9, 48)[:, None]
    y = norm(x_BKNL).reshape(2, 4, -1)  # per window and group, over all patches of all electrodes
    torch.testing.assert_close(y.mean(-1), torch.zeros(2, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(2, 4), atol=1e-3, rtol=0)
    alone = norm(x_BKNL[:, :, :16])
    assert (alone - norm(x_BKNL)[:, :, :16]).abs().max() > 0.5  # fewer electrodes, other statistics


def test_position_code_restarts_for_each_channel():
    model = shallow("paper").eval()
    with torch.no_grad():
        tokens_BND = model.spectral.tokens(torch.zeros(1, 3, 3200), torch.zeros(1, 3, dtype=torch.int64))
    per_channel = tokens_BND.reshape(3, 32, 200)
    torch.testing.assert_close(per_channel[0], per_channel[2])
    torch.testing.assert_close(per_channel[0, 5] - per_channel[0, 0], sinusoid(32, 200)[5] - sinusoid(32, 200)[0])


@pytest.mark.parametrize("name", ["paper", "released"])
def test_recipes_reproduce_the_switches(name):
    experiment, switches = load_experiment(RECIPES / f"{name}.yaml"), TrainingSwitches.preset(name)
    optim = experiment.optim
    for field in ("betas", "epochs", "warmup_epochs", "warmup_from", "lr", "min_lr", "weight_decay", "layer_decay"):
        assert getattr(optim, field) == getattr(switches, field), field
    assert optim.batch_size == switches.batch_size
    assert experiment.data.high_pass == switches.high_pass
    assert (experiment.model.preset, experiment.data.target, experiment.folds.scheme) == (name, "paper", "official")
    adamw = build_optimizer(shallow(name), optim)
    assert adamw.defaults["betas"] == switches.betas


def test_switches_within_a_scan():
    paper, released = (TrainingSwitches.preset(name, within_scan=True) for name in ("paper", "released"))
    assert (paper.batch_size, released.batch_size) == (16, 16)
    assert released.high_pass is None


@pytest.mark.parametrize(("start", "first"), [(1e-6, 1e-6), (0.0, 0.0), (None, 3e-4 / 50)])
def test_warm_up_starts_where_the_switch_says(start, first):
    optim = Optim(lr=3e-4, min_lr=1e-6, epochs=20, warmup_epochs=5, warmup_from=start)
    rates = np.array([learning_rate(step, optim=optim, steps_per_epoch=10) for step in range(200)])
    assert rates[0] == pytest.approx(first)
    assert rates.argmax() in (49, 50)
    assert rates.max() == pytest.approx(3e-4)
    np.testing.assert_allclose(np.diff(rates[:50]), (rates[49] - rates[0]) / 49)
    assert np.all(np.diff(rates[50:]) < 0)
    assert rates[-1] == pytest.approx(1e-6)


def test_high_pass_takes_drifts_and_leaves_the_alpha_rhythm(make_recording):
    recording = make_recording()
    t = np.arange(recording.eeg.shape[1]) / recording.sfreq
    recording.eeg[:] = 50 * np.sin(2 * np.pi * 0.05 * t) + 10 * np.sin(2 * np.pi * 10 * t)
    plain, passed = (
        harmonize(recording, ("Cz", "O1"), reference="native", high_pass=hz).eeg_DT[:, 2000:-2000] for hz in (None, 0.5)
    )
    inside = t[2000:-2000]
    assert passed.dtype == np.float32
    np.testing.assert_allclose(passed[0], 10 * np.sin(2 * np.pi * 10 * inside), atol=0.5)  # in phase
    assert np.abs(plain).max() > 55
