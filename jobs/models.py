"""The models that recipes may name: here, and only here, the platform meets NeuroBOLT."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from neurobolt import Mean, NeuroBOLT, NeuroBOLTConfig, Ridge, Zero
from xsite.errors import RecipeError


def build_neurobolt(preset: str, options: Mapping[str, Any], *, ch_names: Sequence[str], n_outputs: int) -> NeuroBOLT:
    """NeuroBOLT with a preset's sizes and some options replaced."""
    config = NeuroBOLTConfig.preset(preset, ch_names=tuple(ch_names), n_outputs=n_outputs, **options)
    return NeuroBOLT(config)


MODELS: dict[str, Callable[..., nn.Module]] = {"neurobolt": build_neurobolt}

# not refitted on the validation recordings: a trained model does not learn from them either
BASELINES: dict[str, Callable[[], Any]] = {"zero": Zero, "mean": Mean, "ridge": partial(Ridge, refit=False)}


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
