"""Each model's own tuned optimiser settings, where neither the recipe nor the variant says anything.

They are written into the experiment before it is used, so a recipe read back from a study is complete and repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xsite.experiment import Experiment
from xsite.experiment_parts import Optim

Defaults = Mapping[str, Mapping[str, Any]]
PUBLISHED = ("paper", "released", "published", "original")
"""Presets of published sizes: the defaults were found on ``small``, and ten times the published rate is no default for
a model fifty times as large. Those of ``optim`` itself (3e-4, decay .05) are the published ones."""


def with_model_defaults(experiment: Experiment, defaults: Defaults) -> Experiment:
    """Fill in what nobody has set.

    Parameters
    ----------
    experiment : Experiment
        As read: it knows which fields of ``optim`` stood in the recipe.
    defaults : mapping of model name to fields of ``optim``
        Such as :data:`jobs.models.DEFAULT_OPTIM`; not for presets of published sizes.

    Returns
    -------
    Experiment
        ``optim`` has the defaults of ``model.name``; a variant of another model has that model's own as overrides. What
        the recipe sets holds for all variants, what a variant sets for it alone.
    """
    said = experiment.optim.model_fields_set if "optim" in experiment.model_fields_set else set()
    wanted = _wanted(experiment.model.name, experiment.model.preset, defaults)
    own = {field: value for field, value in wanted.items() if field not in said}
    base = Optim.model_validate({**experiment.optim.model_dump(exclude_unset=True), **own})
    variants = {label: _filled(one, experiment, defaults, said, own) for label, one in experiment.variants.items()}
    return experiment.model_copy(update={"optim": base, "variants": variants})


def _filled(
    overrides: Mapping[str, Any], experiment: Experiment, defaults: Defaults, said: set[str], base: Mapping[str, Any]
) -> dict[str, Any]:
    """Overrides of a variant with its model's defaults; what the base took from its own model is undone."""
    name = str(overrides.get("model.name", experiment.model.name))
    preset = str(overrides.get("model.preset", experiment.model.preset))
    if (name, preset in PUBLISHED) == (experiment.model.name, experiment.model.preset in PUBLISHED):
        return dict(overrides)
    general = {field: getattr(Optim(), field) for field in base}
    wanted = {**general, **_wanted(name, preset, defaults)}
    return {**{f"optim.{field}": value for field, value in wanted.items() if field not in said}, **overrides}


def _wanted(name: str, preset: str, defaults: Defaults) -> Mapping[str, Any]:
    return {} if preset in PUBLISHED else defaults.get(name, {})
