"""What tuning may change, and draws from it: dotted key -> one of ``{loguniform: [a, b]}``, ``uniform``, ``choice``.

Draw 0 is the recipe as it stands, so that tuning never ends below it. Draw ``i`` depends on seed, variant and ``i``
alone: more samples later are more draws, not other ones.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from xsite.errors import RecipeError
from xsite.experiment import Experiment, parse_experiment

Kind = Literal["loguniform", "uniform", "choice"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TUNABLE = ("optim.", "algorithm.options.", "model.options.")
FACTOR = 10.0
"""Width of the default ranges, on either side of what the recipe says."""

OPTION_RANGES: dict[str, dict[str, Any]] = {
    "coral": {"weight": {"loguniform": [0.01, 10.0]}},
    "mmd": {"weight": {"loguniform": [0.01, 10.0]}},
    "group-dro": {"step_size": {"loguniform": [1e-3, 0.1]}},
    "irm": {"weight": {"loguniform": [0.1, 100.0]}},
    "vrex": {"weight": {"loguniform": [0.1, 100.0]}},
    "dann": {"weight": {"loguniform": [0.01, 1.0]}},
    "mixup": {"alpha": {"loguniform": [0.05, 2.0]}},
    "mixstyle": {"alpha": {"loguniform": [0.05, 1.0]}},
    "swa": {"start": {"uniform": [0.25, 0.75]}},
    "swad": {"tolerance": {"uniform": [1.01, 1.3]}},
    "site-norm": {"momentum": {"loguniform": [0.01, 0.5]}},
}
"""Where the recipe says nothing: one option of each algorithm, the one that weighs its idea; the others have none."""


@dataclass(frozen=True)
class Range:
    """Where one number or word may come from."""

    kind: Kind
    values: tuple[Any, ...]

    def draw(self, rng: np.random.Generator) -> Any:
        """One value."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "uniform":
            return float(rng.uniform(low, high))
        return float(np.exp(rng.uniform(math.log(low), math.log(high))))


Space = dict[str, Range]
Overrides = dict[str, Any]


def search_space(experiment: Experiment, label: str, defaults: Mapping[str, Mapping[str, Any]]) -> Space:
    """Ranges of one variant: the recipe's part ``tune``, else learning rate, weight decay and the algorithm's options.

    Parameters
    ----------
    experiment : Experiment
        ``tune`` holds dotted keys for all variants; a variant's label, with dotted keys below it, for that one alone.
    label : str
        The variant.
    defaults : mapping of algorithm name to (option -> specification)
        Ranges of the algorithms' own options, used where ``tune`` says nothing about the variant.

    Raises
    ------
    RecipeError
        A range is not readable, or a key is none that tuning may change.
    """
    asked: dict[str, Any] = {}
    for key, content in experiment.tune.items():
        if key in experiment.labels and not _is_range(content):
            continue
        if not _is_range(content):
            raise RecipeError(
                f"tune: {key!r} is neither a variant ({', '.join(experiment.labels)}) nor a key with a range such as "
                "{loguniform: [1e-4, 1e-2]} or {choice: [8, 16]}"
            )
        asked[key] = content
    own = experiment.tune.get(label, {})
    asked |= {} if _is_range(own) else dict(own)
    variant = experiment.variant(label)
    if not asked:
        asked = {f"optim.{name}": _around(getattr(variant.optim, name)) for name in ("lr", "weight_decay")}
        options = defaults.get(variant.algorithm.name, {})
        asked |= {f"algorithm.options.{name}": content for name, content in options.items()}
    space = {key: _parse(key, content) for key, content in asked.items()}
    for key, found in space.items():  # what the experiment refuses is said before anything is trained
        for value in found.values:
            tuned(variant, {key: value})
    return space


def draw(experiment: Experiment, label: str, space: Space, index: int) -> Overrides:
    """Overrides number ``index`` of a variant; number 0 has none: the recipe itself."""
    if index == 0:
        return {}
    rng = np.random.default_rng([experiment.seed, zlib.crc32(label.encode()), index])
    return {key: space[key].draw(rng) for key in sorted(space)}


def tuned(experiment: Experiment, overrides: Mapping[str, Any]) -> Experiment:
    """The experiment with these overrides.

    Raises
    ------
    RecipeError
        A key does not exist, or its value is out of range.
    """
    content = experiment.model_dump(mode="json")
    for key, value in overrides.items():
        if not key.startswith(TUNABLE):
            raise RecipeError(f"tune: {key!r} cannot be tuned; keys begin with {', '.join(TUNABLE)}")
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    return parse_experiment(content, f"tuned with {dict(overrides)}")


def tuned_recipe(experiment: Experiment, best: Mapping[str, Overrides]) -> Experiment:
    """The study with each variant's best overrides written into it: what ``best.yaml`` holds."""
    variants = {label: {**experiment.variants.get(label, {}), **best.get(label, {})} for label in experiment.labels}
    content = {**experiment.model_dump(mode="json"), "variants": variants, "tune": {}}
    return parse_experiment(content, "tuned recipe")


def _around(value: float) -> dict[str, Sequence[float]]:
    return {"loguniform": (value / FACTOR, value * FACTOR)} if value > 0 else {"loguniform": (1e-3, 1.0)}


def _is_range(content: Any) -> bool:
    return isinstance(content, Mapping) and len(content) == 1 and next(iter(content)) in KINDS


def _parse(key: str, content: Any) -> Range:
    if not _is_range(content):
        raise RecipeError(f"tune.{key}: found {content!r}, write one of {', '.join(f'{{{k}: [...]}}' for k in KINDS)}")
    kind, values = next(iter(content.items()))
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise RecipeError(f"tune.{key}: {kind} needs a list, found {values!r}")
    if kind != "choice":
        try:
            low, high = (float(value) for value in values)
        except (TypeError, ValueError) as error:
            raise RecipeError(f"tune.{key}: {kind} needs two numbers, found {values!r}") from error
        if not low < high or (kind == "loguniform" and low <= 0):
            raise RecipeError(f"tune.{key}: {kind} needs 0 < low < high, found {values!r}")
        return Range(cast(Kind, kind), (low, high))
    return Range(cast(Kind, kind), tuple(values))
