"""One map from names to both branches: order, subsets and padding change nothing, unseen electrodes on request."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurobolt import LABRAM_NAMES, VU_NAMES, EegBatch, NeuroBOLT, NeuroBOLTConfig, load_labram, to_labram
from neurobolt.channels import spatial_rows, vocabulary_index
from neurobolt.positions import has_position, unit_position
from neurobolt.rivals import RIVALS
from neurobolt.x.electrodes import electrode_index

MONOPOLAR = tuple(name for name in LABRAM_NAMES if "-" not in name)
TINY = {
    **{"window_s": 1.0, "sfreq": 32.0, "patch_size": 16, "conv_kernel": 3, "conv_stride": 4, "conv_channels": 4},
    **{"conv_groups": 2, "dim": 16, "n_heads": 2, "depth": 1, "mlp_ratio": 1, "scales_s": (0.25, 0.5), "n_frames": 2},
    **{"spectral_depth": 1, "spectral_heads": 2, "dropout": 0.0, "spectral_dropout": 0.0},
}


def trained_like(config: NeuroBOLTConfig) -> NeuroBOLT:
    """Weights at which names, places and channels all matter; at its start the model is nearly blind to them."""
    torch.manual_seed(0)
    model = NeuroBOLT(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1.0 if "embedding" in name or "token" in name else parameter[0].numel() ** -0.5)
            elif "gamma" in name:
                parameter.fill_(1.0)
    return model.eval()


def consistent(model: NeuroBOLT, n_draws: int, batch: int, rng: np.random.Generator) -> float:
    """Largest difference between a subset of channels in vocabulary order, and shuffled among padding."""
    n_names, n_times = len(model.ch_names), model.config.n_times
    worst = 0.0
    for _ in range(n_draws // batch):
        n_chans = int(rng.integers(1, n_names + 1))
        width = n_chans + int(rng.integers(0, 4))
        index = np.sort(np.stack([rng.permutation(n_names)[:n_chans] for _ in range(batch)]), axis=1)
        eeg = rng.normal(0, 20, (batch, n_chans, n_times)).astype(np.float32)
        shuffled, places = np.full((batch, width, n_times), 1e5, np.float32), np.full((batch, width), -1)
        for b in range(batch):
            slots, order = rng.permutation(width)[:n_chans], rng.permutation(n_chans)
            shuffled[b, slots], places[b, slots] = eeg[b, order], index[b, order]
        with torch.no_grad():
            plain = model(EegBatch(torch.from_numpy(eeg), torch.from_numpy(index)))
            other = model(EegBatch(torch.from_numpy(shuffled), torch.from_numpy(places)))
        assert plain.std() > 1e-3
        worst = max(worst, float((plain - other).abs().max() / plain.abs().max()))
    return worst


@pytest.mark.parametrize(
    "options", [{}, {"spectral_attention": "linformer", "linformer_rank": 4, "spectral_cls": True}]
)
def test_10000_random_subsets_and_orders_on_a_tiny_model(options, rng):
    model = trained_like(NeuroBOLTConfig.preset("paper", ch_names=MONOPOLAR[:40], n_outputs=2, **TINY, **options))
    assert consistent(model, 10_000, 100, rng) < 2e-4


@pytest.mark.slow
def test_50_random_subsets_and_orders_on_the_full_model(rng):
    model = trained_like(NeuroBOLTConfig.preset("paper"))
    assert consistent(model, 50, 2, rng) < 2e-4


def test_every_name_reaches_its_own_row_in_both_branches(rng):
    model = trained_like(NeuroBOLTConfig.preset("paper", ch_names=MONOPOLAR, **TINY))
    shuffled = rng.permutation(MONOPOLAR).tolist()
    index_C = model.channel_index([name.lower() for name in shuffled])
    assert [MONOPOLAR[i] for i in index_C] == shuffled  # row of the spectral branch's channel tokens
    assert model.spatiotemporal.rows[index_C].tolist() == spatial_rows(shuffled)
    assert len(set(index_C.tolist())) == len(MONOPOLAR) == 120
    marked = torch.zeros(len(MONOPOLAR), 16)
    marked[:, 0] = torch.arange(len(MONOPOLAR))
    with torch.no_grad():
        model.spectral.channel_tokens.weight.copy_(marked)
        eeg_BCT, index_BC = torch.zeros(1, len(shuffled), 32), index_C[None]
        tokens_BND = model.spectral.tokens(eeg_BCT, index_BC)
        bare = tokens_BND[0, ::2, 0] - tokens_BND[0, 0, 0]
    torch.testing.assert_close(bare, (index_C - index_C[0]).float())


def test_unseen_electrodes_are_an_error_unless_asked_for():
    model = trained_like(NeuroBOLTConfig.preset("paper", ch_names=VU_NAMES, n_outputs=2, **TINY))
    with pytest.raises(ValueError, match=r"unknown to this model: 'FC1'.*'CP5'"):
        model.channel_index(["Cz", "FC1", "CP5"])
    with pytest.raises(ValueError, match="unknown to this model: 'EOG1'"):
        model.channel_index(["Cz", "FC1", "EOG1"], unseen="nearest")
    with pytest.raises(ValueError, match="same electrode twice"):
        model.channel_index(["FC1", "fc1"], unseen="nearest")
    with pytest.raises(ValueError, match="expected one of"):
        model.channel_index(["Cz"], unseen="closest")
    by_option = NeuroBOLT(model.config.with_options(unseen_channels="nearest"))
    names = ["Cz", "FCz", "O9", "P9"]
    assert by_option.channel_index(names).tolist() == model.channel_index(names, unseen="nearest").tolist()
    assert [VU_NAMES[i] for i in by_option.channel_index(names)[[0, 2]]] == ["Cz", "O1"]
    with pytest.raises(ValueError, match="unseen_channels 'closest' is none of"):
        model.config.with_options(unseen_channels="closest")


def test_nearest_is_the_smallest_angle_and_known_names_keep_their_own():
    for name in MONOPOLAR:
        chosen = VU_NAMES[vocabulary_index([name], VU_NAMES, unseen="nearest")[0]]
        angles = {known: -unit_position(known) @ unit_position(name) for known in VU_NAMES}
        assert angles[chosen] <= min(angles.values()) + 1e-8
    assert vocabulary_index(list(VU_NAMES), VU_NAMES, unseen="nearest") == list(range(26))
    assert all(has_position(name) for name in LABRAM_NAMES)


def test_predict_with_unseen_electrodes_equals_the_renamed_recording(rng):
    model = trained_like(NeuroBOLTConfig.preset("paper", ch_names=VU_NAMES, n_outputs=2, **TINY))
    eeg = rng.normal(0, 20, (3, 4, 32)).astype(np.float32)
    asked = model.predict(eeg, ["F3", "O9", "Cz", "P10"], unseen="nearest")
    np.testing.assert_allclose(asked, model.predict(eeg, ["F3", "O1", "Cz", "TP10"]), rtol=1e-5)
    order = [2, 0, 3, 1]
    turned = model.predict(eeg[:, order], ["Cz", "F3", "P10", "O9"], unseen="nearest")
    np.testing.assert_allclose(asked, turned, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="'O9'"):
        model.predict(eeg, ["F3", "O9", "Cz", "P10"])


def test_labram_round_trip_is_exact_and_wrong_files_are_listed():
    model = trained_like(NeuroBOLTConfig.preset("released", ch_names=VU_NAMES[:2], spectral_depth=1))
    state = to_labram(model)
    assert all(name.startswith("student.") for name in state)
    branch = [name for name in model.spatiotemporal.state_dict() if not name.startswith("norm.")]
    assert len(state) == len(branch) == 219
    fresh = NeuroBOLT(model.config)
    norm = fresh.spatiotemporal.norm.weight.clone()
    load_labram(fresh, state)
    again = to_labram(fresh)
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert torch.equal(fresh.spatiotemporal.norm.weight, norm)
    wrong = {name: tensor for name, tensor in state.items() if name != "student.cls_token"}
    wrong |= {"student.blocks.12.gamma_1": torch.zeros(200), "student.pos_embed": torch.zeros(1, 137, 200)}
    with pytest.raises(ValueError, match="not a LaBraM checkpoint") as error:
        load_labram(fresh, wrong)
    for words in (
        "1 missing: student.cls_token",
        "1 not expected: student.blocks.12.gamma_1",
        "student.pos_embed (1, 137, 200) instead of (1, 129, 200)",
    ):
        assert words in str(error.value)
    assert all(torch.equal(tensor, to_labram(fresh)[name]) for name, tensor in again.items())  # nothing half-read


@pytest.mark.parametrize("preset", ["small", pytest.param("published", marks=pytest.mark.slow)])
def test_the_rival_reads_labrams_weights_too(preset):
    torch.manual_seed(0)
    model, fresh = (RIVALS["labram"].build(preset, ch_names=VU_NAMES[:2], n_outputs=2).eval() for _ in range(2))
    fresh.spatiotemporal.norm.load_state_dict(model.spatiotemporal.norm.state_dict())
    fresh.output.load_state_dict(model.output.state_dict())
    state = to_labram(model)
    longer = torch.randn(1, 3, model.config.dim)  # published weights know more steps than a window has
    state["student.time_embed"] = torch.cat([state["student.time_embed"], longer], 1)
    eeg = torch.randn(1, 2, 3200) * 20
    assert load_labram(fresh, state) is fresh
    names = VU_NAMES[:2]
    assert torch.equal(fresh.predict(eeg, names), model.predict(eeg, names))


@pytest.mark.parametrize("index_of", [vocabulary_index, electrode_index])
@pytest.mark.parametrize(("old", "new"), [("T3", "T7"), ("T4", "T8"), ("T5", "P7"), ("T6", "P8")])
def test_both_names_of_an_electrode_find_what_was_trained(index_of, old, new):
    for trained, given in ((old, new), (new, old)):
        assert index_of([given.lower(), "Cz"], ("Cz", trained)) == [1, 0]
        with pytest.raises(ValueError, match="same electrode twice"):
            index_of([old, new], ("Cz", trained))
    assert index_of([old, new], (old, new)) == [0, 1]  # a vocabulary may keep them apart, as LaBraM's table does
    assert electrode_index([old], ("Cz", new), placed=[old]) == [1]  # a place beside it takes no name away
