"""One training as data: everything that a worker needs to run it, and nothing of the test site."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from xsite.experiment import Experiment
from xsite.learning.targets import TargetSpec

ModelFactory = Callable[..., nn.Module]
"""``factory(name, preset, options, *, ch_names, n_outputs) -> nn.Module``; handed in by the caller, never imported."""


@dataclass(frozen=True)
class FoldJob:
    """One training: everything that a worker needs, and nothing of the test site.

    Parameters
    ----------
    label : str
        Unique in a study, such as ``siteA/neurobolt``.
    held_out : str, optional
        None for the final model.
    model : str
    control : bool
        Train on the BOLD of other subjects.
    seed : tuple of int
    fingerprint : str
        Of everything that decides the weights; names states and finished checkpoints.
    folder : str
        Where the checkpoint goes.
    config : mapping
        Becomes its ``config.json``, with what training adds.
    spec : TargetSpec
    train, val : tuple of object references to Recording
    n_epochs : int, optional
        Stop there (final model).
    watch : mapping of label to tuple of object references to Recording
        Groups of recordings whose error is noted after every epoch (``learning.watch``) and decides nothing here:
        the held-out sites of an inner run of nested selection.
    purpose : str
        As in :class:`xsite.evaluation.plan.Run`.
    alone : str
        Why it cannot be stacked (:func:`xsite.learning.stacked.why_alone`); empty if it can.
    """

    label: str
    held_out: str | None
    model: str
    control: bool
    seed: tuple[int, ...]
    fingerprint: str
    folder: str
    config: Mapping[str, Any]
    spec: TargetSpec
    train: tuple[Any, ...] = field(repr=False)
    val: tuple[Any, ...] = field(repr=False)
    n_epochs: int | None = None
    watch: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, repr=False)
    purpose: str = "fold"
    alone: str = ""

    @property
    def experiment(self) -> Experiment:
        """The run's own experiment: variants of a study differ in model, algorithm and optimiser."""
        return Experiment.model_validate(self.config["experiment"])

    @property
    def alike(self) -> str:
        """Equal for jobs that may be stacked: one architecture, algorithm and optimiser on the same channels."""
        return self.kind + (self.label if self.alone else "")

    @property
    def kind(self) -> str:
        """Architecture, algorithm, optimiser and channels."""
        parts = self.experiment.model_dump(mode="json", include={"data", "model", "algorithm", "optim"})
        return json.dumps([parts, self.config["ch_names"], self.config["parcels"]], sort_keys=True)

    @property
    def states(self) -> Path:
        """Folder of its training states, one per saved epoch boundary."""
        return Path(self.folder).with_name(f".{Path(self.folder).name}.training")

    def describe(self) -> dict[str, Any]:
        """What every event about this job says."""
        facts = {"fold": self.held_out or "final", "model": self.model, "control": self.control}
        facts |= {"seed": self.seed[0], "purpose": self.purpose}
        return {"label": self.label, **facts, "n_epochs": self.n_epochs or self.config["experiment"]["optim"]["epochs"]}


@dataclass(frozen=True)
class RunPlan:
    """What one Ray Train run is given (``train_loop_config``)."""

    run: int
    experiment: Experiment
    build_model: ModelFactory
    board: Any
    per_node: int = 1
    """Workers of all runs that share a node's memory, at most."""
