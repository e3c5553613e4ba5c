"""The model: layout of its tokens, parameter counts, what padding and order may not change, training and prediction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurobolt import VU_NAMES, EegBatch, NeuroBOLT, NeuroBOLTConfig
from neurobolt.channels import LABRAM_NAMES, spatial_rows
from neurobolt.config import PRESETS
from neurobolt.spectral import Spectral, stft_magnitude

VARIANTS = [
    {},
    {"spectral_cls": True},
    {"spectral_attention": "linformer"},
    {"spectral_attention": "linformer", "spectral_cls": True},
    {"gelu_head": False, "remove_mean": False},
]


def small(n_chans: int = 8, n_outputs: int = 3, **options: object) -> NeuroBOLT:
    torch.manual_seed(0)
    model = NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=VU_NAMES[:n_chans], n_outputs=n_outputs, **options))
    with (
        torch.no_grad()
    ):  # at its start the model is nearly linear and blind to names: give it weights as after training
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.0 if "embedding" in name or "token" in name else parameter[0].numel() ** -0.5)
            elif "gamma" in name:
                parameter.fill_(1.0)
    return model.eval()


def eeg_of(n_windows: int, n_chans: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    size_1C1 = torch.linspace(5, 40, n_chans)[None, :, None]
    return torch.randn(n_windows, n_chans, 3200, generator=generator) * size_1C1


def test_paper_has_the_published_number_of_parameters():
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper"))
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert count == {"spatiotemporal": 5_819_936, "spectral": 2_086_848, "output": 201}
    assert sum(count.values()) == 7_906_985
    parts = dict(model.spatiotemporal.named_children())
    assert sum(p.numel() for p in parts["encoder"].parameters()) == 576
    assert sum(p.numel() for p in parts["blocks"].parameters()) == 5_789_760
    parts = dict(model.spectral.named_children())
    assert sum(p.numel() for p in parts["blocks"].parameters()) == 1_928_000
    assert sum(p.numel() for p in parts["projections"].parameters()) == 151_600
    assert sum(p.numel() for p in parts["mixers"].parameters()) == 2_048


def test_token_counts_of_the_paper():
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper", depth=1, spectral_depth=1)).eval()
    eeg_BCT, index_BC = eeg_of(2, 26), torch.arange(26).expand(2, -1)
    assert model.spatiotemporal.tokens(eeg_BCT, index_BC, None).shape == (2, 417, 200)
    patches = model.spatiotemporal.encoder(eeg_BCT.reshape(2, 416, 200), None)
    assert patches.shape == (2, 416, 200)
    assert model.spectral.tokens(eeg_BCT, index_BC).shape == (2, 832, 200)
    with_cls = Spectral(model.config.with_options(spectral_cls=True))
    assert with_cls.tokens(eeg_BCT, index_BC).shape == (2, 833, 200)


@pytest.mark.parametrize(("window", "shape"), [(100, (32, 51)), (200, (16, 101)), (400, (8, 201)), (800, (4, 401))])
def test_stft_grid_and_values_equal_torch_stft(window, shape):
    eeg_BCT = eeg_of(1, 3)
    ours = stft_magnitude(eeg_BCT, window)
    assert ours.shape == (1, 3, *shape)
    reference = torch.stft(
        eeg_BCT[0], window, hop_length=window, window=torch.ones(window), center=False, return_complex=True
    )
    torch.testing.assert_close(ours[0], reference.abs().transpose(1, 2), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(stft_magnitude(eeg_BCT.requires_grad_(), window), ours, rtol=1e-5, atol=1e-4)


def test_rows_of_the_vanderbilt_channels():
    assert len(LABRAM_NAMES) == 128
    assert len(set(LABRAM_NAMES)) == 128
    assert spatial_rows(VU_NAMES) == [
        *(1, 3, 18, 22, 40, 44, 62, 66, 81, 83, 16, 24, 38),
        *(46, 60, 68, 2, 20, 42, 64, 75, 82, 26, 36, 48, 58),
    ]  # fmt: skip


def test_channel_index_knows_case_and_old_names_and_lists_all_unknown():
    model = small(26)
    assert model.channel_index(["FP1", "cz", " T3 "]).tolist() == [0, 18, 12]
    with pytest.raises(ValueError, match=r"'ECG'.*'Foz' \(did you mean 'Poz'|'ECG'.*'Foz'"):
        model.channel_index(["Cz", "ECG", "Foz"])
    with pytest.raises(ValueError, match=r"same electrode twice: \['T3', 'T7'\]"):
        model.channel_index(["T3", "T7"])
    with pytest.raises(ValueError, match="'XX9'"):
        NeuroBOLTConfig(ch_names=("Cz", "XX9"))


def test_old_names_keep_their_own_rows_where_the_vocabulary_has_them():
    model = NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=("T7", "T3")))
    assert model.channel_index(["T3", "T7"]).tolist() == [1, 0]
    assert model.spatiotemporal.rows.tolist() == [38, 89]


@pytest.mark.parametrize("options", VARIANTS)
def test_padding_changes_no_output(options):
    model = small(**options)
    eeg_BCT, index_C = eeg_of(3, 5), torch.tensor([6, 0, 3, 1, 7])
    with torch.no_grad():
        bare = [
            *model.branches(EegBatch(eeg_BCT, index_C.expand(3, -1))),
            model(EegBatch(eeg_BCT, index_C.expand(3, -1))),
        ]
        padded_BCT = torch.full((3, 8, 3200), torch.nan)
        padded_BCT[:, [0, 2, 3, 5, 6]] = eeg_BCT
        padded_BCT[0, 1] = 1e6  # whatever stands in the padding
        padded_C = torch.full((8,), -1)
        padded_C[[0, 2, 3, 5, 6]] = index_C
        batch = EegBatch(padded_BCT, padded_C.expand(3, -1))
        padded = [*model.branches(batch), model(batch)]
    for a, b in zip(bare, padded, strict=True):
        assert a.std() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_windows_of_unlike_montages_share_a_batch():
    model = small()
    one, two = eeg_of(1, 8, seed=1), eeg_of(1, 3, seed=2)
    mixed_BCT = torch.cat((one, torch.nn.functional.pad(two, (0, 0, 0, 5))))
    index_BC = torch.stack((torch.arange(8), torch.tensor([2, 5, 4, -1, -1, -1, -1, -1])))
    with torch.no_grad():
        mixed = model(EegBatch(mixed_BCT, index_BC))
        alone = torch.cat((model(EegBatch(one, index_BC[:1])), model(EegBatch(two, index_BC[1:, :3]))))
    torch.testing.assert_close(mixed, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS)
def test_order_of_channels_changes_no_output(options):
    model = small(**options)
    eeg_BCT, order = eeg_of(2, 8), torch.tensor([3, 7, 1, 0, 6, 2, 5, 4])
    names = list(VU_NAMES[:8])
    straight = model.predict(eeg_BCT, names)
    shuffled = model.predict(eeg_BCT[:, order], [names[i] for i in order])
    torch.testing.assert_close(straight, shuffled, rtol=1e-4, atol=1e-5)
    wrong = model.predict(eeg_BCT[:, order], names)  # but the names matter
    assert (straight - wrong).abs().max() > 1e-3


def test_one_loud_electrode_changes_the_patches_of_all_others():
    """GroupNorm statistics run over the whole window and all electrodes; pretrained weights depend on it."""
    model = small()
    quiet = eeg_of(1, 4)
    loud = quiet.clone()
    loud[:, 3] *= 50
    encode = [model.spatiotemporal.encoder(x.reshape(1, 4 * 4, 800), None)[0, :12] for x in (quiet, loud)]
    assert (encode[0] - encode[1]).abs().mean() > 0.1


def test_eeg_is_microvolt_scaled_and_demeaned_inside():
    model = small()
    eeg_BCT = eeg_of(2, 8)
    batch = EegBatch(eeg_BCT + 500.0, torch.arange(8).expand(2, -1))
    scaled, valid = model._scaled(batch.eeg_BCT, batch.ch_index_BC)
    assert valid is None
    torch.testing.assert_close(scaled, (eeg_BCT - eeg_BCT.mean(-1, keepdim=True)) / 100, rtol=1e-3, atol=1e-4)


def test_predict_returns_the_kind_it_was_given_and_keeps_the_mode():
    model = small(dropout=0.5).train()
    eeg_BCT = eeg_of(2, 2)
    as_tensor = model.predict(eeg_BCT, ["Fp1", "Fp2"])
    as_array = model.predict(eeg_BCT.numpy(), ["Fp1", "Fp2"])
    assert isinstance(as_tensor, torch.Tensor)
    assert isinstance(as_array, np.ndarray)
    assert as_array.dtype == np.float32
    assert as_array.shape == (2, 3)
    np.testing.assert_array_equal(as_array, as_tensor.numpy())  # no dropout, although the model trains
    assert model.training


def test_predict_refuses_what_it_cannot_read():
    model = small()
    eeg_BCT = eeg_of(1, 2)
    with pytest.raises(ValueError, match=r"\(1, 2, 3000\).*3200"):
        model.predict(eeg_BCT[..., :3000], ["Fp1", "Fp2"])
    with pytest.raises(ValueError, match="expected \\(windows, 3 channels"):
        model.predict(eeg_BCT, ["Fp1", "Fp2", "F3"])
    with pytest.raises(ValueError, match="not finite"):
        model.predict(eeg_BCT * torch.nan, ["Fp1", "Fp2"])
    with pytest.raises(ValueError, match="microvolt"):
        model.predict(eeg_BCT * 1e-6, ["Fp1", "Fp2"])


def test_forward_is_head_of_features():
    model = small()
    batch = EegBatch(eeg_of(2, 8), torch.arange(8).expand(2, -1))
    torch.testing.assert_close(model(batch), model.head(model.features(batch)))
    z_BD = torch.randn(4, model.config.dim)
    torch.testing.assert_close(model.head(z_BD), model.output(z_BD))
    curved = small(gelu_head=True)
    torch.testing.assert_close(curved.head(z_BD), curved.output(torch.nn.functional.gelu(z_BD)))


def test_initial_state():
    torch.manual_seed(3)
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper")).eval()
    batch = EegBatch(torch.randn(1, 26, 3200) * 10, torch.arange(26).expand(1, -1))
    with torch.no_grad():
        r_st, r_sp = model.branches(batch)
        assert model(batch).abs().max() < 1e-2
    assert 0.9 < r_st.std() < 1.1
    assert 0.4 < r_sp.std() < 0.55
    assert model.spectral.channel_tokens.weight.std().item() == pytest.approx(1, abs=0.05)


def test_param_groups_follow_the_layers():
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper"))
    names = {id(p): name for name, p in model.named_parameters()}
    groups = model.param_groups(lr=2e-4, weight_decay=0.05, layer_decay=0.65)
    scale = {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}
    decay = {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}
    assert len(scale) == len(names)
    assert scale["spatiotemporal.encoder.conv1.weight"] == pytest.approx(0.65**13)
    assert scale["spatiotemporal.temporal_embedding"] == pytest.approx(0.65**13)
    assert scale["spatiotemporal.blocks.0.mlp.fc1.weight"] == pytest.approx(0.65**12)
    assert scale["spatiotemporal.blocks.11.gamma_1"] == pytest.approx(0.65)
    assert {scale[n] for n in scale if n.startswith(("spectral", "output", "spatiotemporal.norm"))} == {1.0}
    assert (
        decay["spatiotemporal.spatial_embedding"]
        == decay["output.bias"]
        == decay["spectral.blocks.0.norm1.weight"]
        == 0
    )
    assert decay["spectral.channel_tokens.weight"] == decay["output.weight"] == 0.05
    assert all(g["lr"] == pytest.approx(2e-4 * g["lr_scale"]) for g in groups)
    released = NeuroBOLT(NeuroBOLTConfig.preset("released", depth=2))
    scale = {id(p): g["lr_scale"] for g in released.param_groups(1.0, 0.0, 0.5) for p in g["params"]}
    assert scale[id(released.spatiotemporal.temporal_embedding)] == 1.0
    torch.optim.AdamW(groups)


@pytest.mark.parametrize("options", VARIANTS)
def test_every_parameter_gets_a_gradient(options):
    model = small(**options).train()
    index_BC = torch.arange(8).expand(2, -1)
    model(EegBatch(eeg_of(2, 8), index_BC)).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_small_overfits_a_tiny_batch():
    torch.manual_seed(0)
    model = NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=VU_NAMES[:6], n_outputs=4))
    batch, target_BR = EegBatch(eeg_of(8, 6), torch.arange(6).expand(8, -1)), torch.randn(8, 4)
    optimizer = torch.optim.AdamW(model.param_groups(3e-3, 0.0))
    first = torch.nn.functional.mse_loss(model(batch), target_BR).item()
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(batch), target_BR)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05 * first


@pytest.mark.parametrize("options", [{}, {"spectral_attention": "linformer"}])
@pytest.mark.parametrize("padded", [False, True])
def test_bfloat16_autocast_stays_finite_and_close(options, padded):
    model = small(**options, dropout=0.0).train()
    index_BC = torch.arange(8).repeat(2, 1)
    if padded:
        index_BC[0, 5:] = -1
    batch = EegBatch(eeg_of(2, 8).half(), index_BC)
    full = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model(batch)
    rough.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (rough.float() - full).abs().max() < 0.1 * full.abs().max() + 0.05


def test_presets_and_configuration_round_trip():
    for name in PRESETS:
        config = NeuroBOLTConfig.preset(name, ch_names=["Cz", "Pz"], n_outputs=2)
        assert NeuroBOLTConfig.from_dict(config.to_dict()) == config
    paper, released = NeuroBOLTConfig.preset("paper"), NeuroBOLTConfig.preset("released")
    assert (paper.dropout, released.dropout, released.spectral_dropout) == (0, 0.1, 0.2)
    with pytest.raises(ValueError, match="did you mean 'released'"):
        NeuroBOLTConfig.preset("relased")
    with pytest.raises(ValueError, match="did you mean 'dropout'"):
        NeuroBOLTConfig.preset("small", droput=0.1)
    with pytest.raises(ValueError, match=r"n_outputs is 0.*dim 97") as error:
        NeuroBOLTConfig.preset("small", n_outputs=0, dim=97)
    assert "odd" in str(error.value)
