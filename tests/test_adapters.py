"""Adapters around every model of the package: they start as the model, move alone, and leave a plain model behind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_finetune import config_of, new_model
from torch import nn

from jobs.models import MODELS
from xsite.errors import RecipeError
from xsite.learning.adapters import RANK, add_adapters, merge_adapters
from xsite.learning.finetune import check_part, finetune, part_parameters, trainable_copy
from xsite.learning.probe import noise_windows
from xsite.recording import Recording

MakeRecording = Callable[..., Recording]
CONVOLUTIONAL = {"ffcl", "eegnet", "beira", "siren"}
"""Models whose only linear layer is their head."""


@pytest.mark.parametrize("name", sorted({*MODELS} - CONVOLUTIONAL))
def test_every_model_starts_as_it_is_and_adapters_move_alone(name: str, make_recording: MakeRecording) -> None:
    model = new_model(make_recording(n_volumes=4), name).requires_grad_(False)  # torch folds products by who learns
    source = noise_windows(model, make_recording(n_volumes=4).ch_names, 3, 4)
    batch, target_BR, _ = source.gather(np.arange(4))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    predicted_BR = model(batch)
    head = {id(p) for p in part_parameters(model, "head", source)}
    head_names = {key for key, p in model.named_parameters() if id(p) in head}
    model.requires_grad_(False)

    own = trainable_copy(model, "adapters", source, seed=3).eval()
    with torch.no_grad():
        assert torch.equal(own(batch), predicted_BR)
    free = {key for key, p in own.named_parameters() if p.requires_grad}
    adapters = {key for key in free if key.endswith(("up_OK", "down_KI"))}
    assert free - adapters == head_names
    assert adapters

    optimizer = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):  # the first step moves U, which is zero, the second one D as well
        optimizer.zero_grad()
        (own(batch) - target_BR).square().mean().backward()
        optimizer.step()
    with torch.no_grad():
        adapted_BR = own(batch)
        plain = merge_adapters(own).requires_grad_(False)
        assert plain.state_dict().keys() == before.keys()
        assert torch.equal(plain(batch), adapted_BR)
    assert not torch.equal(adapted_BR, predicted_BR)
    moved = {key for key, value in plain.state_dict().items() if not torch.equal(value, before[key])}
    layers = {key for key in before if key.endswith("weight") and key.removesuffix(".weight") in _linear(plain)}
    assert moved - head_names
    assert moved <= head_names | layers
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def _linear(model: nn.Module) -> set[str]:
    return {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


@pytest.mark.parametrize("name", sorted(CONVOLUTIONAL))
def test_a_model_without_linear_layers_is_refused(name: str, make_recording: MakeRecording) -> None:
    recordings = [make_recording("beta", subject, n_volumes=24) for subject in ("01", "02")]
    model, config = new_model(recordings[0], name), config_of(recordings[0], name)
    with pytest.raises(RecipeError, match=r"no linear layer outside its head.*head, norms or all"):
        check_part(model, config, "adapters")
    if name == "eegnet":
        with pytest.raises(RecipeError, match="no linear layer outside its head"):
            finetune(model, config, recordings, part="adapters", seed=0)
    check_part(model, config, "norms")


def test_a_layer_never_gets_more_numbers_than_it_has() -> None:
    model = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 2, bias=False), nn.Linear(2, 1))
    head = {id(p) for p in model[2].parameters()}
    added = add_adapters(model, head, seed=0)
    assert sum(p.numel() for p in added) == RANK * (100 + 50) + 1 * (50 + 2)
    assert len(added) == 4
    again = nn.Sequential(nn.Linear(100, 50), nn.Linear(50, 2, bias=False), nn.Linear(2, 1))
    other = add_adapters(again, {id(p) for p in again[2].parameters()}, seed=0)
    assert all(torch.equal(one, two) for one, two in zip(added, other, strict=True))


def test_finetuning_through_adapters_leaves_a_plain_model(
    make_recording: MakeRecording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xsite.learning.finetune.EPOCHS", 4)
    recordings = [make_recording("beta", subject, n_volumes=24) for subject in ("01", "02")]
    model, config = new_model(recordings[0], "lag-tokens"), config_of(recordings[0], "lag-tokens")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = finetune(model, config, recordings, part="adapters", seed=0)
    assert found.best_epoch > 0
    assert min(found.errors) == found.errors[found.best_epoch] < found.errors[0]
    assert found.n_trained == 1539  # head 771; three layers of 32 x 32 at rank 4, 256 each
    after = found.model.state_dict()
    assert after.keys() == before.keys()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert {"output.weight", "output.bias"} < moved
    assert moved <= {"output.weight", "output.bias", "key.weight", "offset.weight", "direction.weight"}
    rebuilt = new_model(recordings[0], "lag-tokens")
    rebuilt.load_state_dict(after)  # a checkpoint of it is like any other
