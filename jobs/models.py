"""The models that recipes may name: here, and only here, the platform meets NeuroBOLT, its rivals and cheap truths."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from torch import nn

from neurobolt import Mean, Ridge, Vigilance, Zero
from neurobolt.catalogue import CARDS, build, names
from xsite.errors import RecipeError
from xsite.evaluation.collapse import GLOBAL_SIGNAL
from xsite.runtime.closed_form import GlobalSignalOracle


def _named(name: str, preset: str, options: Mapping[str, Any], *, ch_names: Sequence[str], n_outputs: int) -> nn.Module:
    return build(name, preset, ch_names=ch_names, n_outputs=n_outputs, **options)


MODELS: dict[str, Callable[..., nn.Module]] = {name: partial(_named, name) for name in names()}

# not refitted on the validation recordings: a trained model does not learn from them either
BASELINES: dict[str, Callable[[], Any]] = {
    "zero": Zero,
    "mean": Mean,
    "ridge": partial(Ridge, refit=False),
    "ridge-window": partial(Ridge, refit=False, per_recording=False),
    "alpha": partial(Vigilance, "alpha"),
    "vigilance": partial(Vigilance, "alpha/theta"),
    GLOBAL_SIGNAL: GlobalSignalOracle,
}

# Where a recipe or a variant says nothing; of the presets ``small``. The rivals' were chosen by ``python -m
# benchmarks.tune_rivals``, six trainings each (docs/models.md has the figures). NeuroBOLT's are those of the demo,
# neurobolt-x's of docs/neurobolt_x.md.
DEFAULT_OPTIM: dict[str, dict[str, Any]] = {
    "neurobolt": {"lr": 3e-3, "weight_decay": 0.3},
    "neurobolt-x": {"lr": 3e-3, "weight_decay": 3.0},
    "labram": {"lr": 1e-3, "weight_decay": 0.05},
    "biot": {"lr": 3e-3, "weight_decay": 0.05},
    "ffcl": {"lr": 1e-3, "weight_decay": 0.3},
    "cnn-transformer": {"lr": 3e-3, "weight_decay": 0.05},
    "st-transformer": {"lr": 1e-3, "weight_decay": 0.05},
    "eegnet": {"lr": 3e-3, "weight_decay": 0.3},
    "beira": {"lr": 1e-3, "weight_decay": 0.05},
    "siren": {"lr": 1e-2, "weight_decay": 0.3},
    "lag-tokens": {"lr": 1e-2, "weight_decay": 0.05},
}


def model_cards() -> dict[str, dict[str, Any]]:
    """Every model's card as plain data: reports cite papers and must not know the models."""
    return {name: asdict(card) for name, card in CARDS.items()}


def build_model(
    name: str, preset: str, options: Mapping[str, Any], *, ch_names: Sequence[str], n_outputs: int
) -> nn.Module:
    """Build a model from the part ``model`` of a recipe; its weights depend on torch's seed.

    Raises
    ------
    RecipeError
        Unknown model, preset or option, or sizes that do not fit together.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise RecipeError(f"model.name is {name!r}{hint}, known are {', '.join(MODELS)}")
    try:
        return MODELS[name](preset, options, ch_names=ch_names, n_outputs=n_outputs)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"model {name!r}, preset {preset!r}, options {dict(options)}: {error}") from error
