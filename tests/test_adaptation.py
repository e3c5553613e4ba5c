"""Planted shifts of a recording: what each kind of adaptation undoes, and what it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jobs.models import build_model
from xsite.data.montages import harmonize_eeg
from xsite.data.windows import build_source
from xsite.errors import CheckpointError, RecipeError
from xsite.experiment import Experiment
from xsite.learning.adaptation import (
    AMPLITUDE_UV,
    LocationScale,
    access_level,
    euclidean,
    feature_reference,
    features_of,
    input_alignment,
    recenter,
    refit_norms,
    whitening,
    window_batches,
)
from xsite.learning.predict import predict_recording
from xsite.recording import Recording

MakeRecording = Callable[..., Recording]
ALL_8, ALWAYS = np.ones(8, bool), np.ones(4000, bool)


def config_of(recording: Recording, adapt: str, name: str = "eegnet", **more: Any) -> dict[str, Any]:
    experiment = Experiment.model_validate({"data": {"adapt": adapt, "reference": "native"}, "model": {"name": name}})
    config = {"experiment": experiment.model_dump(mode="json"), "model": {"name": name}, "reference": "native"}
    return {**config, "ch_names": list(recording.ch_names), "parcels": ["a", "b", "c"], **more}


def random_model(recording: Recording, name: str = "eegnet") -> nn.Module:
    torch.manual_seed(3)
    model = build_model(name, "small", {}, ch_names=recording.ch_names, n_outputs=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def outputs(recording: Recording, adapt: str, model: nn.Module, **more: Any) -> Any:
    predicted_VR = predict_recording(model, recording, config=config_of(recording, adapt, **more))
    return predicted_VR[np.isfinite(predicted_VR).all(1)]


def test_recenter_undoes_offset_and_gain_of_every_channel(rng: np.random.Generator) -> None:
    eeg_CT = rng.normal(0, 12, (8, 4000)).astype(np.float32)
    gain_C1, offset_C1 = rng.uniform(0.2, 5, (8, 1)), rng.normal(0, 40, (8, 1))
    shifted_CT = (gain_C1 * eeg_CT + offset_C1).astype(np.float32)
    there, here = recenter(eeg_CT, ALL_8, ALWAYS), recenter(shifted_CT, ALL_8, ALWAYS)
    assert np.abs(here - there).max() < 1e-3
    assert there.std() == pytest.approx(AMPLITUDE_UV, rel=0.02)


def test_euclidean_whitens_and_a_symmetric_mixing_of_white_sources_is_undone(rng: np.random.Generator) -> None:
    source_CT = rng.normal(0, 1, (8, 4000))
    half = rng.normal(0, 0.25, (8, 8))
    mixing_CC = np.eye(8) + half @ half.T
    here = euclidean((20 * mixing_CC @ source_CT + 3).astype(np.float32), ALL_8, ALWAYS)
    there = euclidean((20 * source_CT).astype(np.float32), ALL_8, ALWAYS)
    covariance_CC = here @ here.T / here.shape[1] / AMPLITUDE_UV**2
    assert np.abs(covariance_CC - np.eye(8)).max() < 0.05
    before = np.corrcoef((mixing_CC @ source_CT).ravel(), source_CT.ravel())[0, 1]
    after = np.corrcoef(here.ravel(), there.ravel())[0, 1]
    assert after > 0.995 > before


def test_euclidean_leaves_what_is_not_there_at_zero(rng: np.random.Generator) -> None:
    eeg_CT = rng.normal(0, 10, (8, 4000))
    eeg_CT[6:] = 0.0  # padding
    usable_C = np.arange(8) < 6
    eeg_CT[:6] -= eeg_CT[:6].mean(0)  # average reference: rank 5
    eeg_CT[:, 3000:] *= 1e4  # an artefact, marked invalid
    valid_T = np.arange(4000) < 3000
    aligned_CT = euclidean(eeg_CT.astype(np.float32), usable_C, valid_T)
    assert not aligned_CT[6:].any()
    assert np.abs(aligned_CT[:6, :3000].mean(0)).max() < 1e-2  # still average-referenced
    values = np.linalg.eigvalsh(np.cov(aligned_CT[:6, :3000])) / AMPLITUDE_UV**2
    assert values[0] == pytest.approx(0, abs=1e-4)
    assert values[1:] == pytest.approx(1, abs=0.05)
    assert not whitening(np.zeros((3, 3))).any()
    assert not euclidean(np.zeros((8, 4000), np.float32), ALL_8, ALWAYS).any()


@pytest.mark.parametrize("adapt", ["recenter", "euclidean"])
def test_predictions_survive_a_gain_and_an_offset(adapt: str, make_recording: MakeRecording) -> None:
    recording = make_recording(n_volumes=20)
    shifted = replace(recording, eeg=(3.7 * recording.eeg + 25).astype(np.float32))
    model = random_model(recording)
    plain, adapted = outputs(recording, "none", model), outputs(recording, adapt, model)
    assert np.abs(outputs(shifted, "none", model) - plain).max() > 0.1 * plain.std()
    assert np.abs(outputs(shifted, adapt, model) - adapted).max() < 1e-3 * adapted.std()
    assert plain.shape == adapted.shape


def test_batch_norm_is_refitted_on_the_recording_and_the_model_stays(make_recording: MakeRecording) -> None:
    recording = make_recording(n_volumes=20)
    model = random_model(recording)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shifted = replace(recording, eeg=(3.0 * recording.eeg).astype(np.float32))
    gap = np.abs(outputs(shifted, "none", model) - outputs(recording, "none", model)).max()
    assert np.abs(outputs(shifted, "norm", model) - outputs(recording, "norm", model)).max() < 0.05 * gap
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    adapted, n_layers = refit_norms(nn.Sequential(nn.LayerNorm(4)), [torch.zeros(2, 4)])
    assert n_layers == 0
    assert not adapted.training
    plain = random_model(recording, "lag-tokens")
    with pytest.raises(RecipeError, match="lag-tokens has none"):
        outputs(recording, "norm", plain, name="lag-tokens")


def test_features_get_the_mean_and_spread_of_the_training_recordings() -> None:
    torch.manual_seed(0)
    base = [torch.randn(4000, 6) * torch.arange(1, 7) + 2 for _ in range(3)]
    reference = LocationScale.fit(base)
    shifted = base[0] * torch.rand(6).add(0.2) * 4 - 7
    adapted = reference.adapt(shifted)
    assert torch.allclose(adapted.mean(0), reference.mean_D, atol=0.1)
    assert torch.allclose(adapted.std(0), reference.sd_D, rtol=0.05)
    assert (adapted - base[0]).abs().mean() < 0.1 < 4 < (shifted - base[0]).abs().mean()
    few = reference.adapt(shifted[:2])  # two windows say little: mostly the reference's own scale
    assert (few - shifted[:2]).abs().mean() < (adapted[:2] - shifted[:2]).abs().mean()
    flat = reference.adapt(torch.full((100, 6), 3.0))
    assert torch.isfinite(flat).all()


def test_feature_adaptation_of_a_checkpoint(make_recording: MakeRecording) -> None:
    recording = make_recording(n_volumes=20)
    model = random_model(recording)
    with pytest.raises(CheckpointError, match="needs a reference"):
        outputs(recording, "features", model)
    source = build_source(
        [recording], ch_names=recording.ch_names, ch_index=model.channel_index, targets=None, reference="native"  # type: ignore[arg-type]
    )  # fmt: skip
    reference = feature_reference(model, model.state_dict(), source)
    z_WD = features_of(model, window_batches(source))
    assert reference["mean_D"] == pytest.approx(z_WD.mean(0).tolist(), abs=1e-5)
    same = outputs(recording, "features", model, feature_reference=reference)
    assert same == pytest.approx(outputs(recording, "none", model), abs=1e-4)  # its own reference: nothing moves
    shifted = replace(recording, eeg=(2.0 * recording.eeg).astype(np.float32))
    moved = np.abs(outputs(shifted, "none", model) - same).mean()
    assert np.abs(outputs(shifted, "features", model, feature_reference=reference) - same).mean() < 0.5 * moved


def test_levels_are_named_and_training_aligns_what_testing_aligns(make_recording: MakeRecording) -> None:
    assert access_level("none") == "none"
    assert {access_level(kind) for kind in ("recenter", "euclidean", "norm", "features")} == {"unlabelled EEG"}
    assert input_alignment("norm") is None
    recording = make_recording(n_volumes=10)
    model = random_model(recording)
    source = build_source(
        [recording], ch_names=recording.ch_names, ch_index=model.channel_index, targets=None, reference="native",  # type: ignore[arg-type]
        align=input_alignment("euclidean"),
    )  # fmt: skip
    own = euclidean(harmonize_eeg(recording, recording.ch_names, "native"), np.ones(13, bool), recording.eeg_valid)
    assert np.allclose(source.eeg_CT.numpy(), own, atol=1e-4)
