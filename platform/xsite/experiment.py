"""One frozen object describes a study: everything that decides a number.

To and from YAML; unknown keys are refused with a suggestion; the fingerprint names runs and checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from xsite.errors import RecipeError
from xsite.experiment_parts import Algorithm, AuditPolicy, Data, Folds, Model, Optim, Part, Scale, Selection
from xsite.spelling import did_you_mean


class Experiment(Part):
    """Everything that decides a number.

    ``baselines`` are closed-form models scored beside the trained one; ``controls`` names models that are trained once
    more with the BOLD of other subjects as their target, which must score at chance.
    """

    name: str = "study"
    data: Data = Data()
    model: Model = Model()
    algorithm: Algorithm = Algorithm()
    optim: Optim = Optim()
    folds: Folds = Folds()
    select_on: Selection = "train-site-val"
    """``train-site-val``: validation subjects of the training sites choose the epoch. ``leave-one-site-out-val``: inner
    runs that leave out one more site choose epoch and variant. ``oracle``: the last epoch, and the variant that is best
    on the test site itself; an upper bound, never deployable (``xsite.evaluation.selection``)."""
    scale: Scale = Scale()
    seed: int = 0
    """Of folds, surrogates and controls; also the one training seed where ``seeds`` is empty."""
    seeds: tuple[int, ...] = ()
    """Every fold and variant is trained once per seed. Folds do not depend on them."""
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Label -> dotted overrides, such as ``{"biot": {"model.name": "biot", "optim.lr": 1e-3}}``; empty: one variant,
    named like the model. They may change model, algorithm, optimiser, channels and reference; targets stay one set."""
    deploy: str = ""
    """Label of the variant whose final model is trained on all sites; empty means the first."""
    baselines: tuple[str, ...] = ("zero", "mean", "global-signal", "ridge", "ridge-window")
    controls: tuple[str, ...] = ()
    """Names of baselines and variants (``ridge``, ``neurobolt``) that are also trained on other subjects' BOLD."""
    tune: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """What ``neurobolt tune`` may change (``xsite.learning.search_space``), such as ``{"optim.lr": {"loguniform":
    [1e-4, 1e-2]}}`` for all variants; the same below a variant's label for that one alone. Empty: learning rate, weight
    decay and the algorithm's own options. A study itself never reads it."""
    surrogates: int = Field(2000, ge=0)
    """Surrogates of the measured BOLD behind every p-value; Holm's correction over 64 parcels needs 1,280 or more."""
    audit: AuditPolicy = "refuse"
    """What a failed leakage audit does (``xsite.evaluation.leakage``): ``refuse`` stops the study, ``warn`` lets it run
    with the verdict in its summary."""

    @property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON (without name, ``tune`` and ``audit``)."""
        content = self.model_dump(mode="json", exclude={"name", "tune", "audit"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """One training of every fold and variant for each."""
        return self.seeds or (self.seed,)

    @property
    def labels(self) -> tuple[str, ...]:
        """Variants in the order of the recipe."""
        return tuple(self.variants) or (self.model.name,)

    @property
    def deployed(self) -> str:
        """Variant of the final model."""
        return self.deploy or self.labels[0]

    def variant(self, label: str, seed: int | None = None) -> Experiment:
        """The experiment of one variant and one seed, as if it had been written on its own.

        Raises
        ------
        RecipeError
            No such variant, or its overrides are not valid.
        """
        if label not in self.labels:
            raise RecipeError(
                f"no variant {label!r}{did_you_mean(label, self.labels)}; there are {', '.join(self.labels)}"
            )
        content = self.model_dump(mode="json") | {"seeds": [], "variants": {}, "deploy": ""}
        own = self.variants.get(label, {})
        for key in sorted(own, key=lambda key: not key.endswith(".name")):  # a new name clears options: it comes first
            _override(content, label, key, own[key])
        content["seed"] = self.training_seeds[0] if seed is None else seed
        return parse_experiment(content, f"variant {label!r}")

    def flat(self) -> dict[str, Any]:
        """Dotted keys to plain values, as MLflow wants its parameters."""
        return dict(_flatten(self.model_dump(mode="json")))

    def to_yaml(self, path: str | Path) -> None:
        """Write the whole experiment, defaults included."""
        Path(path).write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        pairs: list[tuple[str, Any]] = []
        for key, item in value.items():
            pairs += _flatten(item, f"{prefix}.{key}" if prefix else str(key))
        return pairs
    return [(prefix, json.dumps(value) if isinstance(value, list | dict) else value)]


def parse_experiment(content: Any, source: str) -> Experiment:
    """Build an experiment from plain data (a recipe's mapping, or the JSON that a job carries).

    Raises
    ------
    RecipeError
        Not a mapping, unknown keys (with "did you mean"), or values out of range: all of them at once.
    """
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise RecipeError(f"{source}: a recipe is a mapping of keys, found {type(content).__name__}")
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{source}: " + "; ".join(_explain(e) for e in error.errors())) from error
    _check_variants(experiment, source)
    return experiment


def load_experiment(path: str | Path, overrides: tuple[str, ...] = ()) -> Experiment:
    """Read a recipe and apply dotted overrides such as ``optim.lr=1e-3``.

    Raises
    ------
    RecipeError
        The file is absent, not YAML or without a key, or :func:`parse_experiment` refuses its content.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    if not content:
        raise RecipeError(
            f"{path}: the recipe says nothing; for a study with every default, write one line that names the model: "
            "model: {name: neurobolt}"
        )
    for override in overrides:
        _apply(content, override)
    return parse_experiment(content, str(path))


def _apply(content: Any, override: str) -> None:
    dotted, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"override {override!r}: write KEY=VALUE, such as optim.lr=1e-3")
    *parents, last = dotted.strip().split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise RecipeError(f"override {override!r}: {parent!r} is a value, not a group of keys")
    place[last] = _value(text)


def _value(text: str) -> Any:
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)  # YAML 1.1 reads 1e-3 as a string
    except ValueError:
        return yaml.safe_load(text)


OVERRIDABLE = ("model", "algorithm", "optim", "data.channels", "data.montage", "data.reference")
"""What a variant may change. Anything else would change targets, folds or scores, and no comparison would be left."""


def _check_variants(experiment: Experiment, source: str) -> None:
    """Build every variant once, and report all that is wrong with them together."""
    problems = []
    for label in experiment.variants:
        if not re.fullmatch(r"[\w.-]+", label):  # it names folders and MLflow's metrics
            problems.append(f"variant {label!r}: letters, digits, '.', '_' and '-' only")
        try:
            experiment.variant(label)
        except RecipeError as error:
            problems.append(str(error))
    if experiment.deploy and experiment.deploy not in experiment.labels:
        hint = did_you_mean(experiment.deploy, experiment.labels)
        problems.append(f"deploy names {experiment.deploy!r}{hint}; variants are {', '.join(experiment.labels)}")
    if len(set(experiment.seeds)) < len(experiment.seeds):
        problems.append(f"seeds: {list(experiment.seeds)} names a seed twice, which would train the same model twice")
    if problems:
        raise RecipeError(f"{source}: " + "; ".join(problems))


def _override(content: dict[str, Any], label: str, key: str, value: Any) -> None:
    """Set one dotted key; another model or algorithm does not inherit the options of the one that it replaces."""
    known = [*OVERRIDABLE[3:], *(f"{part}.{name}" for part in OVERRIDABLE[:3] for name in content[part])]
    group, _, rest = key.partition(".")
    options = f"{group}.options."
    if key not in known and not (options[:-1] in known and key.startswith(options) and len(key) > len(options)):
        allowed = "a variant may change " + ", ".join(f"{part}.*" if "." not in part else part for part in OVERRIDABLE)
        raise RecipeError(f"variant {label!r}: cannot override {key!r}{did_you_mean(key, known)}; {allowed}")
    if rest == "name" and value != content[group]["name"]:
        content[group]["options"] = {}
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value


def _explain(error: Any) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{dotted}: {error['msg']} (found {error['input']!r})"
    place: type[BaseModel] = Experiment
    for part in error["loc"][:-1]:
        place = place.model_fields[str(part)].annotation  # type: ignore[assignment]  # parts are models by construction
    return f"unknown key {dotted!r}{did_you_mean(str(error['loc'][-1]), place.model_fields)}"
