"""One frozen object describes a study: everything that decides a number.

To and from YAML; unknown keys are refused with a suggestion; the fingerprint names runs and checkpoints.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from xsite.errors import RecipeError

Target = Literal["paper", "strict"]
Channels = Literal["common", "native", "spline"]
Reference = Literal["average", "native"] | tuple[str, ...]
Selection = Literal["train-site-val"]
Precision = Literal["float32", "bfloat16"]


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
    parcels: tuple[str, ...] = ()
    """Parcels to predict; empty means all."""

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
    windows_per_epoch: int | None = Field(None, gt=0)
    """Windows drawn per epoch without replacement; ``None`` means all."""
    patience: int | None = Field(None, gt=0)
    """Epochs without a better validation loss before training stops."""
    clip: float | None = Field(None, gt=0)
    precision: Precision = "float32"


class Folds(_Part):
    """Who is held out, and who selects."""

    scheme: Literal["leave-one-site-out"] = "leave-one-site-out"
    val_fraction: float = Field(0.25, gt=0, lt=1)
    """Share of each training site's subjects that selects the checkpoint (at least one per site)."""
    held_out: tuple[str, ...] = ()
    """Sites to hold out, one fold each; empty means every site in turn."""


class Scale(_Part):
    """How many processes share one model's batch, and what each may use."""

    workers: int = Field(1, gt=0)
    cpus_per_worker: float = Field(1, gt=0)
    gpus_per_worker: float = Field(0, ge=0)


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
    scale: Scale = Scale()
    seed: int = 0
    baselines: tuple[str, ...] = ("zero", "mean", "ridge")
    controls: tuple[str, ...] = ()
    """Names of models (``ridge``, ``neurobolt``) that are also trained on other subjects' BOLD."""
    surrogates: int = Field(1000, ge=0)
    """Phase-randomised surrogates of the measured BOLD behind every p-value."""

    @property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the canonical JSON (the name is not part of it)."""
        content = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

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
        return Experiment.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{source}: " + "; ".join(_explain(e) for e in error.errors())) from error


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


def _explain(error: Any) -> str:
    dotted = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{dotted}: {error['msg']} (found {error['input']!r})"
    place: type[BaseModel] = Experiment
    for part in error["loc"][:-1]:
        place = place.model_fields[str(part)].annotation  # type: ignore[assignment]  # parts are models by construction
    near = difflib.get_close_matches(str(error["loc"][-1]), list(place.model_fields), n=1)
    return f"unknown key {dotted!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
