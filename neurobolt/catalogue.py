"""Every model of this package under the name that recipes and saved files use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from neurobolt.cards import ModelCard
from neurobolt.config import PRESETS, NeuroBOLTConfig
from neurobolt.model import NeuroBOLT
from neurobolt.rivals import RIVALS
from neurobolt.spelling import did_you_mean
from neurobolt.x import X

NEUROBOLT = "neurobolt"

NEUROBOLT_CARD = ModelCard(
    name="NeuroBOLT",
    paper="Li et al., NeuroBOLT: Resting-state EEG-to-fMRI synthesis with"
    " multi-dimensional feature mapping, NeurIPS 2024 (arXiv 2410.05341)",
    year=2024,
    licence_of_the_idea="GPL (code; not looked at)",
    differs=(
        "written from the paper and from the layout of the published weights, with two presets where text and code"
        " differ (`paper`, `released`)",
        "all parcels at once through one linear head (the publication trains one network per parcel)",
        "`small` is ours: one block, width 96, two scales, for CPU cores",
    ),
)

ENTRIES = {**RIVALS, "neurobolt-x": X}
"""Everything but NeuroBOLT itself: name -> (model, presets, card)."""

CARDS: dict[str, ModelCard] = {NEUROBOLT: NEUROBOLT_CARD, **{name: entry.card for name, entry in ENTRIES.items()}}


def names() -> tuple[str, ...]:
    """Models that :func:`build` and :func:`rebuild` know."""
    return tuple(CARDS)


def presets(name: str) -> tuple[str, ...]:
    """Presets of a model."""
    _check(name)
    return tuple(PRESETS) if name == NEUROBOLT else tuple(ENTRIES[name].presets)


def build(name: str, preset: str, *, ch_names: Sequence[str], n_outputs: int, **options: Any) -> nn.Module:
    """A model with a preset's sizes and single options replaced; its weights depend on torch's seed.

    Raises
    ------
    ValueError
        Unknown model, preset or option (with the nearest known one), or sizes that do not fit together.
    """
    _check(name)
    if name == NEUROBOLT:
        config = NeuroBOLTConfig.preset(preset, ch_names=tuple(ch_names), n_outputs=n_outputs, **options)
        return NeuroBOLT(config)
    return ENTRIES[name].build(preset, ch_names=ch_names, n_outputs=n_outputs, **options)


def rebuild(name: str, config: Mapping[str, Any]) -> nn.Module:
    """A model from ``config.to_dict()`` of one that was saved; its weights are still to be loaded.

    Raises
    ------
    ValueError
        Unknown model, unknown keys, or the configuration of another model.
    """
    _check(name)
    if name == NEUROBOLT:
        return NeuroBOLT(NeuroBOLTConfig.from_dict(config))
    kind = ENTRIES[name].model
    return kind(kind.config_class.from_dict(config))


def name_of(model: nn.Module) -> str:
    """Under which name a model can be rebuilt.

    Raises
    ------
    ValueError
        It is none of this package's.
    """
    if isinstance(model, NeuroBOLT):
        return NEUROBOLT
    found = [name for name, entry in ENTRIES.items() if type(model) is entry.model]
    if not found:
        raise ValueError(f"{type(model).__name__} is none of {', '.join(names())}: it cannot be saved by name")
    return found[0]


def _check(name: str) -> None:
    if name not in CARDS:
        raise ValueError(f"unknown model {name!r}{did_you_mean(name, CARDS)}; models are {', '.join(CARDS)}")
