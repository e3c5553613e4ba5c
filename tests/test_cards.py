"""Model cards, and docs/models.md against the models as they are."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks.models import DOCS, LARGEST, SMALL_NAMES, SMALL_OUTPUTS
from jobs.models import BASELINES, DEFAULT_OPTIM, MODELS, build_model
from neurobolt import VU_NAMES, catalogue
from neurobolt.cards import count_flops, count_parameters, one_window
from xsite.errors import RecipeError
from xsite.experiment_parts import Optim


def documented():
    """Name -> (preset, parameters, parameters of small), read from the page."""
    row = re.compile(r"^\| `([\w-]+)` \| [^|]+ \| `(\w+)` \| ([\d,]+) \| [\d,]+ \| ([\d,]+) \|", re.MULTILINE)
    text = DOCS.read_text(encoding="utf-8").replace("**", "")
    return {
        name: (preset, int(a.replace(",", "")), int(b.replace(",", ""))) for name, preset, a, b in row.findall(text)
    }


def test_the_page_knows_every_model():
    assert tuple(documented()) == catalogue.names() == tuple(MODELS)
    text = DOCS.read_text(encoding="utf-8")
    for card in catalogue.CARDS.values():
        assert card.paper in text
        assert all(sentence in text for sentence in card.differs), "run python -m benchmarks.models --write"
    assert all(f"| `{name}` |" in text for name in BASELINES)


@pytest.mark.parametrize("name", catalogue.names())
def test_the_page_counts_as_the_models_do(name):
    preset, large, small = documented()[name]
    assert preset == LARGEST.get(name, "published")
    assert count_parameters(catalogue.build(name, preset, ch_names=VU_NAMES, n_outputs=1)) == large
    built = catalogue.build(name, "small", ch_names=SMALL_NAMES, n_outputs=SMALL_OUTPUTS)
    assert count_parameters(built) == small, "run python -m benchmarks.models --write"


def test_flops_are_those_of_the_products():
    model = torch.nn.Linear(3200, 7)

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = model

        def forward(self, batch):
            return self.linear(batch.eeg_BCT)

    flat = Flat().train()
    assert count_flops(flat, one_window(5, 3200)) == 2 * 5 * 3200 * 7
    assert flat.training
    assert count_parameters(flat) == 3200 * 7 + 7
    model.bias.requires_grad_(False)
    assert count_parameters(flat) == 3200 * 7


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_optimiser_defaults_that_exist(name):
    assert {"lr", "weight_decay"} <= set(DEFAULT_OPTIM[name])
    Optim(**DEFAULT_OPTIM[name])


def test_unknown_names_get_a_hint():
    sizes = {"ch_names": VU_NAMES[:4], "n_outputs": 2}
    with pytest.raises(RecipeError, match="did you mean 'lag-tokens'"):
        build_model("lag-token", "small", {}, **sizes)
    with pytest.raises(RecipeError, match="did you mean 'small'"):
        build_model("siren", "smal", {}, **sizes)
    with pytest.raises(RecipeError, match="did you mean 'omega'"):
        build_model("siren", "small", {"omga": 3}, **sizes)
    with pytest.raises(RecipeError, match="nothing is left"):
        build_model("beira", "small", {"strides": [64, 64, 4]}, **sizes)
