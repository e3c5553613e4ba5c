"""The parts of an experiment, as a recipe writes them: every key with its default and what it means."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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


class Part(BaseModel):
    """What all parts have in common: an unknown key is an error, and nothing is changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Part):
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


class Model(Part):
    """Which model; its own options go into ``options``."""

    name: str = "neurobolt"
    preset: str = "small"
    options: dict[str, Any] = Field(default_factory=dict)


class Algorithm(Part):
    """How the sites' losses are combined."""

    name: str = "erm"
    options: dict[str, Any] = Field(default_factory=dict)


class Optim(Part):
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


class Folds(Part):
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


class Scale(Part):
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
