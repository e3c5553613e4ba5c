"""Every rival behind the one interface; a new line of ``RIVALS`` is tested without a new test."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from neurobolt import VU_NAMES, EegBatch, load, save
from neurobolt.rivals import RIVALS, Rival
from neurobolt.rivals.base import in_slots

NAMES = VU_NAMES[:8]
N_OUTPUTS = 3

# counted at 26 channels and one output in others' implementations (docs/models.md names the source)
PARAMETERS_M = {"labram": 5.8, "biot": 1.95, "ffcl": 2.53, "cnn-transformer": 3.16, "st-transformer": 2.65}
# rivals whose parts have no batching rule in torch.func.vmap
NO_VMAP = {"ffcl": "torch's LSTM has no rule under vmap"}
# passes over 96 windows after which a rival knows a band's power; 3 unless it learns more slowly
EPOCHS = {"beira": 8, "siren": 10}

every_rival = pytest.mark.parametrize("name", RIVALS)


def build(name: str, preset: str = "small", seed: int = 0, **options: object) -> Rival:
    torch.manual_seed(seed)
    return RIVALS[name].build(preset, ch_names=NAMES, n_outputs=N_OUTPUTS, **options).eval()


def windows(n: int = 2, n_chans: int = 5, seed: int = 1) -> EegBatch:
    rng = torch.Generator().manual_seed(seed)
    return EegBatch(20 * torch.randn(n, n_chans, 3200, generator=rng), torch.arange(n_chans).expand(n, -1))


def stirred(model: Rival) -> Rival:
    """Weights away from their starting values: a head that starts near zero would hide every difference."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@every_rival
@pytest.mark.parametrize("preset", ["small", "published"])
def test_features_and_head_make_the_output(name: str, preset: str) -> None:
    model, batch = build(name, preset), windows()
    with torch.no_grad():
        z_BD = model.features(batch)
        bold_BR = model(batch)
        assert torch.equal(model.head(z_BD), bold_BR)
    assert bold_BR.shape == (2, N_OUTPUTS)
    assert z_BD.ndim == 2
    assert torch.isfinite(bold_BR).all()


@every_rival
def test_the_interface_of_a_model(name: str) -> None:
    model = build(name)
    assert model.ch_names == NAMES
    assert (model.window_s, model.sfreq) == (16.0, 200.0)
    assert model.channel_index([NAMES[3].upper(), NAMES[0]]).tolist() == [3, 0]
    assert model.config.model == name


@pytest.mark.parametrize("name", PARAMETERS_M)
def test_published_size(name: str) -> None:
    model = RIVALS[name].build("published")
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(PARAMETERS_M[name], rel=0.01)


def test_original_biot_size() -> None:
    count = sum(p.numel() for p in RIVALS["biot"].build("original").parameters()) / 1e6
    assert count == pytest.approx(3.19, rel=0.01)


@every_rival
def test_order_of_channels_changes_nothing(name: str, rng: np.random.Generator) -> None:
    model, batch = stirred(build(name)), windows()
    order = torch.from_numpy(rng.permutation(5))
    with torch.no_grad():
        turned = model(EegBatch(batch.eeg_BCT[:, order], batch.ch_index_BC[:, order]))
        torch.testing.assert_close(turned, model(batch), rtol=1e-4, atol=1e-4)


@every_rival
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(name: str, training: bool) -> None:
    model, batch = stirred(build(name, **_no_dropout(name))), windows()
    model.train(training)
    noise = 1e3 * torch.randn(2, 2, 3200)
    padded = EegBatch(
        torch.cat((noise, batch.eeg_BCT), 1),
        torch.cat((torch.full((2, 2), -1), batch.ch_index_BC), 1),
    )
    with torch.no_grad():
        torch.testing.assert_close(model(padded), model(batch), rtol=1e-4, atol=1e-4)


class Unpadded(NamedTuple):
    eeg_BCT: Tensor
    ch_index_BC: Tensor
    padded: bool = False


@every_rival
def test_a_batch_that_is_not_padded_may_say_so(name: str) -> None:
    model, batch = stirred(build(name)), windows()
    with torch.no_grad():
        torch.testing.assert_close(model(Unpadded(*batch)), model(batch), rtol=1e-4, atol=1e-4)


def _no_dropout(name: str) -> dict[str, object]:
    keys = RIVALS[name].model.config_class.__dataclass_fields__
    return {key: 0.0 for key in keys if key in ("dropout", "drop_path") or key.endswith("_dropout")}


@every_rival
def test_channels_matter(name: str) -> None:
    model, batch = stirred(build(name)), windows()
    moved = EegBatch(batch.eeg_BCT, (batch.ch_index_BC + 1) % 5)
    with torch.no_grad():
        assert not torch.allclose(model(moved), model(batch), atol=1e-5)


@every_rival
def test_input_is_left_as_it_was(name: str) -> None:
    model, batch = build(name), windows()
    before = batch.eeg_BCT.clone()
    with torch.no_grad():
        first, second = model(batch), model(batch)
    assert torch.equal(batch.eeg_BCT, before)
    assert torch.equal(first, second)


@every_rival
def test_gradient_reaches_every_parameter(name: str) -> None:
    model, batch = stirred(build(name)), windows(4, n_chans=len(NAMES))
    model.train()
    model(batch).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


@every_rival
def test_param_groups_hold_every_parameter_once(name: str) -> None:
    model = build(name)
    groups = model.param_groups(1e-3, 0.05, layer_decay=0.5)
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    assert all(group["lr"] == pytest.approx(1e-3 * group["lr_scale"]) for group in groups)
    assert all(p.ndim > 1 for group in groups if group["weight_decay"] for p in group["params"])
    assert {group["lr_scale"] for group in groups if any(p is model.output.bias for p in group["params"])} == {1.0}


def test_layer_decay_of_labram() -> None:
    model = build("labram")
    scales = {id(p): g["lr_scale"] for g in model.param_groups(1.0, 0.0, 0.5) for p in g["params"]}
    named = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert named["spatiotemporal.spatial_embedding"] == 0.5**3
    assert named["spatiotemporal.encoder.conv1.weight"] == 0.5**3
    assert named["spatiotemporal.blocks.0.gamma_1"] == 0.5**2
    assert named["spatiotemporal.blocks.1.gamma_1"] == 0.5
    assert named["spatiotemporal.norm.weight"] == named["output.weight"] == 1


def test_the_first_layer_of_siren_learns_at_the_rate_over_omega() -> None:
    model = build("siren")
    scales = {id(p): g["lr_scale"] for g in model.param_groups(1.0, 0.0) for p in g["params"]}
    named = {name: scales[id(p)] for name, p in model.named_parameters()}
    assert named["siren.0.conv.weight"] == named["siren.0.conv.bias"] == pytest.approx(1 / 30)
    assert named["siren.1.conv.weight"] == named["encoder.0.weight"] == named["output.weight"] == 1


@every_rival
def test_bfloat16_autocast_is_finite(name: str) -> None:
    model, batch = build(name), windows()
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        bold_BR = model(batch)
    bold_BR.float().square().sum().backward()
    assert torch.isfinite(bold_BR).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@every_rival
def test_stacked_models_equal_separate_ones(name: str) -> None:
    if name in NO_VMAP:
        pytest.skip(NO_VMAP[name])
    models, batch = [stirred(build(name, seed=seed)) for seed in (0, 1)], windows()
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]

    def one(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(models[0], (p, b), (batch,))  # type: ignore[no-any-return]

    # the fused attention has no batching rule: vmap would loop over the models and warn
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        together = torch.func.vmap(one)(parameters, buffers)
        separate = torch.stack([model(batch) for model in models])
    torch.testing.assert_close(together, separate, rtol=1e-4, atol=1e-4)


def test_electrodes_of_one_slot_are_averaged() -> None:
    eeg_BCT = torch.tensor([[[2.0], [4.0], [7.0], [1.0]]])
    slots_BVT = in_slots(eeg_BCT, torch.tensor([[1, 1, -1, 2]]), 4)
    assert slots_BVT[0, :, 0].tolist() == [0.0, 3.0, 1.0, 0.0]


@every_rival
def test_predict_takes_names_in_any_order(name: str) -> None:
    model, eeg_BCT = stirred(build(name)), windows().eeg_BCT.numpy()
    names = list(NAMES[:5])
    bold_BR = model.predict(eeg_BCT, names)
    assert isinstance(bold_BR, np.ndarray)
    np.testing.assert_allclose(model.predict(eeg_BCT[:, ::-1].copy(), names[::-1]), bold_BR, rtol=1e-4, atol=1e-4)
    assert not model.training


@every_rival
def test_bad_input_is_refused(name: str) -> None:
    model, eeg_BCT = build(name), windows().eeg_BCT.numpy()
    with pytest.raises(ValueError, match=r"'Fpp1' \(did you mean 'Fp1'\?\)"):
        model.predict(eeg_BCT[:, :1], ["Fpp1"])
    with pytest.raises(ValueError, match="volt"):
        model.predict(eeg_BCT[:, :1] * 1e-6, [NAMES[0]])
    with pytest.raises(ValueError, match="expected"):
        model.predict(eeg_BCT[:, :2], [NAMES[0]])
    with pytest.raises(ValueError, match="3200"):
        model(EegBatch(torch.ones(1, 1, 100), torch.zeros(1, 1, dtype=torch.int64)))


@every_rival
def test_configuration_goes_to_json_and_back(name: str) -> None:
    config = build(name).config
    content = config.to_dict()
    assert content["model"] == name
    assert type(config).from_dict(content) == config
    with pytest.raises(ValueError, match="dropouts"):
        type(config).from_dict({**content, "dropouts": 0.1})
    with pytest.raises(ValueError, match="not of"):
        type(config).from_dict({**content, "model": "another"})


@every_rival
def test_saved_and_loaded_it_predicts_the_same(name: str, tmp_path: Path) -> None:
    model, batch = stirred(build(name)), windows()
    loaded = load(save(model, tmp_path))
    with torch.no_grad():
        assert torch.equal(loaded(batch), model(batch))
    assert type(loaded) is type(model)
    assert loaded.config == model.config


def alpha_windows(n: int, seed: int) -> tuple[EegBatch, Tensor]:
    """Noise on four channels; the third has a 10 Hz wave whose amplitude is the target, its phase is by chance."""
    rng = torch.Generator().manual_seed(seed)
    amplitude_B1, phase_B1 = torch.rand(n, 1, generator=rng), 2 * torch.pi * torch.rand(n, 1, generator=rng)
    eeg_BCT = 10 * torch.randn(n, 4, 3200, generator=rng)
    eeg_BCT[:, 2] += 30 * amplitude_B1 * torch.sin(2 * torch.pi * 10 * torch.arange(3200) / 200 + phase_B1)
    target_BR = ((amplitude_B1 - 0.5) * 12**0.5).expand(-1, N_OUTPUTS)
    return EegBatch(eeg_BCT, torch.arange(4).expand(n, -1)), target_BR


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in EPOCHS else []) for n in RIVALS])
def test_learns_the_power_of_a_band(name: str) -> None:
    (train, target_BR), (unseen, unseen_BR) = alpha_windows(96, 0), alpha_windows(48, 1)
    torch.manual_seed(0)
    model = RIVALS[name].build("small", ch_names=NAMES[:4], n_outputs=N_OUTPUTS).train()
    optimizer = torch.optim.AdamW(model.param_groups(2e-3, 0.01))
    for _ in range(EPOCHS.get(name, 3)):
        for part in torch.randperm(96).split(8):
            optimizer.zero_grad()
            predicted = model(EegBatch(train.eeg_BCT[part], train.ch_index_BC[part]))
            (predicted - target_BR[part]).square().mean().backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        pairs = zip(model(unseen).T, unseen_BR.T, strict=True)
    assert min(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs) > 0.5


@every_rival
def test_a_rival_without_outputs_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="n_outputs is 0"):
        RIVALS[name].build("small", n_outputs=0)
    with pytest.raises(ValueError, match="did you mean 'small'"):
        RIVALS[name].build("smal")


@every_rival
def test_the_card_says_where_it_comes_from(name: str) -> None:
    card = RIVALS[name].card
    assert str(card.year) in card.paper
    assert card.licence_of_the_idea
    assert any("small" in sentence for sentence in card.differs)
