"""One frozen object describes a study: everything that decides a number.

To and from YAML; unknown keys are refused with a suggestion; the fingerprint names runs and checkpoints.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xsite.errors import RecipeError

Target = Literal["paper", "strict"]
Channels = Literal["common", "native", "spline"]
Reference = Literal["average", "native"] | tuple[str, ...]
Adapt = Literal["none", "recenter", "euclidean", "norm", "features"]
Selection = Literal["train-site-val", "leave-one-site-out-val", "oracle"]
Precision = Literal["float32", "bfloat16"]
AuditPolicy = Literal["refuse", "warn"]
Scheme = Literal[
    "leave-one-site-out",
    "leave-one-out",
    "leave-one-subject-out",
    "k-fold",
    "official",
    "within-recording",
    "site-to-site",
    "growing-sites",
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """Which recordings, and how EEG and targets are harmonised at load time."""

    sites: tuple[str, ...] = ()
    """Sites to use; empty means every site of the store."""
    target: Target = "strict"
    """``paper``: filter and scale see the whole scan. ``strict``: a held-out recording is scaled by the training
    recordings' median scale, never by its own."""
    low_pass: float = Field(0.15, gt=0)
    """Hz; zero-phase Butterworth of order 5."""
    channels: Channels = "common"
    """``common``: channels that all sites of the study share. ``native``: each recording's own, padded and masked.
    ``spline``: those of ``montage``, recorded ones as they are, absent ones as spherical splines of the others; what
    lies too far from every recorded electrode is masked."""
    montage: tuple[str, ...] = ()
    """Electrodes of ``channels: spline``; empty means 32 of the 10-20 system (``xsite.data.spline_plan.CANONICAL``)."""
    reference: Reference = "average"
    """EEG reference applied at load time, after the channels are chosen: ``average`` (of the chosen channels),
    ``native`` (as recorded), or electrodes whose mean is subtracted, such as ``[TP9, TP10]``."""
    high_pass: float | None = Field(None, gt=0)
    """Hz; zero-phase high-pass of the EEG at load time, before windows are cut. Null for none, as in the paper; the
    released code between subjects has 0.5."""
    parcels: tuple[str, ...] = ()
    """Parcels to predict; empty means all."""
    adapt: Adapt = "none"
    """What a held-out recording's own EEG, without any BOLD, may change (``xsite.learning.adaptation``). ``recenter``
    and ``euclidean`` align every recording, training ones too; ``norm`` refits the model's batch normalisation at the
    test recording; ``features`` brings its features to the training recordings' mean and spread. One level per study,
    so that no table mixes them."""

    @field_validator("reference", mode="before")
    @classmethod
    def _known_reference(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in ("average", "native"):  # one line instead of one per alternative
            raise ValueError("write average, native, or a list of electrodes such as [TP9, TP10]")
        if not isinstance(value, str) and not value:
            raise ValueError("an empty list is no reference; write native to leave the EEG as it was recorded")
        return value


class Model(_Part):
    """Which model; its own options go into ``options``."""

    name: str = "neurobolt"
    preset: str = "small"
    options: dict[str, Any] = Field(default_factory=dict)


class Algorithm(_Part):
    """How the sites' losses are combined."""

    name: str = "erm"
    options: dict[str, Any] = Field(default_factory=dict)


class Optim(_Part):
    """Optimiser, schedule and stopping."""

    lr: float = Field(3e-4, gt=0)
    min_lr: float = Field(1e-6, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    layer_decay: float = Field(1.0, gt=0, le=1)
    batch_size: int = Field(64, gt=0)
    """Global batch size, over all workers together."""
    epochs: int = Field(30, gt=0)
    warmup_epochs: float = Field(5, ge=0)
    warmup_from: float | None = Field(None, ge=0)
    """Learning rate of the first step, from which the warm-up is linear. Null: its own share of ``lr``, above 0."""
    windows_per_epoch: int | None = Field(None, gt=0)
    """Windows drawn per epoch without replacement; ``None`` means all."""
    patience: int | None = Field(None, gt=0)
    """Epochs without a better validation loss before training stops."""
    clip: float | None = Field(None, gt=0)
    precision: Precision = "float32"
    compile: bool = False
    """Compile the training step (``torch.compile``; needs a C++ compiler, on a GPU Triton too). The first step then
    takes a minute or more: it pays for long trainings of large models."""


class Folds(_Part):
    """Who is held out, and who selects; :func:`xsite.evaluation.splits.make_folds` makes folds of it."""

    scheme: Scheme = "leave-one-site-out"
    """``leave-one-out`` holds out each value of ``column`` in turn, also written ``leave-one-out:field_strength``;
    ``k-fold`` keeps subjects together; ``official`` is the published split of the Vanderbilt resting scans;
    ``within-recording`` cuts every recording 8:1:1 in time (few effective samples: for comparison only);
    ``site-to-site`` trains on one site and tests on all others; ``growing-sites`` trains on 1, 2, ... sites."""
    column: str = ""
    """Column of the manifest that ``leave-one-out`` goes by."""
    n_folds: int = Field(5, ge=2)
    """Of ``k-fold``."""
    val_fraction: float = Field(0.25, gt=0, lt=1)
    """Share of each training site's subjects that selects the checkpoint (at least one per site)."""
    held_out: tuple[str, ...] = ()
    """What to hold out, one fold each (several for ``growing-sites``): sites, values of ``column``, subjects
    (``siteA/01``), recordings, labels of k-fold (``fold-1``), or, for ``site-to-site``, the site that trains. Empty
    means each in turn."""
    gap_s: float | None = Field(None, ge=0)
    """``within-recording``: seconds between the parts, rounded up to whole volumes; what is too short for the leakage
    audit fails it. Empty: as few volumes as the audit allows (``window_s`` and the haemodynamic delay)."""
    window_s: float = Field(16.0, gt=0)
    """``within-recording``: the volumes of so many first seconds have no EEG window and belong to no part."""

    @model_validator(mode="before")
    @classmethod
    def _column_in_scheme(cls, content: Any) -> Any:
        if isinstance(content, dict) and str(content.get("scheme", "")).startswith("leave-one-out:"):
            scheme, column = str(content["scheme"]).split(":", 1)
            return {**content, "scheme": scheme, "column": column}
        return content

    @model_validator(mode="after")
    def _column_where_needed(self) -> Folds:
        if (self.scheme == "leave-one-out") != bool(self.column):
            raise ValueError("scheme leave-one-out and column belong together, such as leave-one-out:field_strength")
        return self


class Scale(_Part):
    """How many processes share one model's batch, or how many models share one process, and what each may use."""

    workers: int = Field(1, gt=0)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    stack: int = Field(1, gt=0)
    """Trainings of one architecture that a worker runs step by step together: fewer and larger operations, which is
    what a GPU needs; on a CPU it saves little (benchmarks/stacked.py). Results are those of separate trainings up to
    the order of float32 sums; on a GPU dropout draws other numbers, but the same whoever is stacked beside. What cannot
    be stacked (an algorithm other than erm, ``optim.compile``, an LSTM) is trained one by one."""

    @model_validator(mode="after")
    def _one_way_to_share(self) -> Scale:
        if self.stack > 1 and self.workers > 1:
            raise ValueError(
                f"stack {self.stack} puts several trainings into one process, workers {self.workers} spreads one "
                "training over several: set one of them to 1"
            )
        return self


class Experiment(_Part):
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
    baselines: tuple[str, ...] = ("zero", "mean", "ridge")
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
            raise RecipeError(f"no variant {label!r}{_near(label, self.labels)}; there are {', '.join(self.labels)}")
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
        The file is absent or not YAML, or :func:`parse_experiment` refuses its content.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
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
        hint = _near(experiment.deploy, experiment.labels)
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
        raise RecipeError(f"variant {label!r}: cannot override {key!r}{_near(key, known)}; {allowed}")
    if rest == "name" and value != content[group]["name"]:
        content[group]["options"] = {}
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _explain(error: Any) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{dotted}: {error['msg']} (found {error['input']!r})"
    place: type[BaseModel] = Experiment
    for part in error["loc"][:-1]:
        place = place.model_fields[str(part)].annotation  # type: ignore[assignment]  # parts are models by construction
    near = difflib.get_close_matches(str(error["loc"][-1]), list(place.model_fields), n=1)
    return f"unknown key {dotted!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
