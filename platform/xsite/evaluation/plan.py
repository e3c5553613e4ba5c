"""A study as data: which trainings there are, who stands on which side of each, and a name for each from its content.

The plan needs a manifest and a recipe, no recording: the same two give the same hashes on every machine, so a study
that is submitted again, here or on another cluster, runs what is missing and nothing else. ``V`` variants, ``N`` seeds
and ``F`` folds make ``V * N * F`` runs; nested selection over ``S`` sites adds ``S (S - 1) / 2`` per variant and seed,
because a model trained without sites {i, j} is inner fold of both i and j.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pandas as pd

from xsite.errors import FoldError, FormatError
from xsite.evaluation.folds import Fold, manifest_keys
from xsite.evaluation.sides import (
    NESTED,
    Sides,
    fold_sides,
    inner_sides,
    segments_to_dict,
    sides_from_dict,
    sides_to_dict,
)
from xsite.experiment import Experiment
from xsite.experiment_parts import Selection
from xsite.recording import RecordingKey

Purpose = Literal["inner", "fold", "control", "final"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
ORACLE: Selection = "oracle"
FINAL = "final"


@dataclass(frozen=True)
class Run:
    """One training.

    Parameters
    ----------
    label : str
        Unique in a plan and safe as a folder: ``siteA/neurobolt``, ``siteA/neurobolt-seed1``, ``final``.
    variant : str
    fold : str
        Label of the fold; ``a+b`` for an inner run without both; ``final``.
    seed : int
    purpose : {"inner", "fold", "control", "final"}
        ``fold`` is scored on its held-out recordings, ``control`` too (it learnt other subjects' BOLD); ``inner``
        selects; ``final`` learns from everybody.
    hash : str
        First 16 hexadecimal digits of a SHA-256 over everything that decides the weights, save the number of epochs
        where a rule finds that only later.
    """

    label: str
    variant: str
    fold: str
    seed: int
    purpose: Purpose
    hash: str


@dataclass(frozen=True)
class Plan:
    """Every training of a study.

    Parameters
    ----------
    runs : tuple of Run
        Inner runs first, then folds, controls, final.
    sides : mapping of fold label to Sides
    selection : str
        Name of the selection rule.
    """

    runs: tuple[Run, ...]
    sides: Mapping[str, Sides]
    selection: str

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of all runs and the rule."""
        content = [self.selection, sorted([run.label, run.purpose, run.hash] for run in self.runs)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]

    def of(self, *purposes: Purpose) -> list[Run]:
        """Runs of these purposes, in order."""
        return [run for run in self.runs if run.purpose in purposes]

    def counts(self) -> dict[str, int]:
        """Number of runs per purpose (those that occur)."""
        return {purpose: n for purpose in PURPOSES if (n := len(self.of(purpose)))}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``plan.json``."""
        sides = {label: sides_to_dict(sides) for label, sides in self.sides.items()}
        runs = [vars(run) for run in self.runs]
        return {"hash": self.hash, "selection": self.selection, "runs": runs, "sides": sides}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "plan") -> Plan:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            Keys are missing, or the runs do not have the hash that stands there: the file was altered.
        """
        try:
            sides = {label: sides_from_dict(one) for label, one in content["sides"].items()}
            plan = cls(tuple(Run(**run) for run in content["runs"]), sides, content["selection"])
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{source}: no readable plan ({error!r}); run neurobolt loso again") from error
        if plan.hash != content.get("hash"):
            raise FormatError(f"{source}: was altered: its runs have hash {plan.hash}, it says {content.get('hash')}")
        return plan


def make_plan(experiment: Experiment, manifest: pd.DataFrame, folds: Sequence[Fold], groups: Sequence[Fold]) -> Plan:
    """Lay out every training of a study.

    Parameters
    ----------
    experiment : Experiment
    manifest : DataFrame
        Of :func:`xsite.data.store.read_manifest`: the study's recordings.
    folds : sequence of Fold
        Those that are scored.
    groups : sequence of Fold
        The same scheme with everybody held out in turn; inner runs leave one of ``folds`` and one of these out.

    Raises
    ------
    FoldError
        Two folds have one label, or nested selection is asked for where folds overlap or fewer than three are left.
    """
    labels = [fold.held_out for fold in folds]
    if len({folder_name(label) for label in labels}) < len(labels):
        raise FoldError(f"two folds would share a folder: {', '.join(labels)}; rename what is held out")
    sides = fold_sides(experiment, folds)
    inner = inner_sides(folds, groups) if experiment.select_on == NESTED else {}
    everybody = {FINAL: Sides(tuple(manifest_keys(manifest)))}
    hasher = RunHasher(manifest)
    runs = [
        _run(hasher, experiment, variant, fold, own, seed, purpose)
        for purpose, which, variants, seeds in _blocks(experiment, sides, inner, everybody)
        for variant in variants
        for seed in seeds
        for fold, own in which.items()
    ]
    if twice := [label for label, n in Counter(run.label for run in runs).items() if n > 1]:
        raise FoldError(f"two trainings would be called {twice[0]!r}; give the variant another label")
    return Plan(tuple(runs), {**inner, **sides, **everybody}, experiment.select_on)


def _blocks(
    experiment: Experiment, sides: Mapping[str, Sides], inner: Mapping[str, Sides], final: Mapping[str, Sides]
) -> list[tuple[Purpose, Mapping[str, Sides], Sequence[str], Sequence[int]]]:
    """What is crossed with what. A control asks about a pipeline: one seed answers. An oracle is never deployed."""
    labels, seeds = experiment.labels, experiment.training_seeds
    controls = [label for label in labels if label in experiment.controls]
    deployed = [] if experiment.select_on == ORACLE else [experiment.deployed]
    return [
        ("inner", inner, labels, seeds),
        ("fold", sides, labels, seeds),
        ("control", sides, controls, seeds[:1]),
        ("final", final, deployed, seeds[:1]),
    ]


def nested_runs(n_sites: int, n_configurations: int = 1) -> int:
    """Trainings of a nested study without the final model: ``S + S (S - 1) / 2`` per configuration."""
    return n_configurations * (n_sites + n_sites * (n_sites - 1) // 2)


def folder_name(label: str) -> str:
    """Label as a folder's name on every file system; a change leaves a trace, so that two labels stay two."""
    safe = re.sub(r"[^\w.+=-]", "_", label).strip(".") or "_"
    return safe if safe == label else f"{safe}-{hashlib.sha256(label.encode()).hexdigest()[:6]}"


def _run(
    hasher: RunHasher, experiment: Experiment, variant: str, fold: str, sides: Sides, seed: int, purpose: Purpose
) -> Run:
    name = folder_name(variant) + ("-control" if purpose == "control" else "")
    place = f"{folder_name(fold)}/{name}" if purpose != "final" else FINAL
    if seed != experiment.training_seeds[0]:  # the first seed keeps its name when others come to it
        place += f"-seed{seed}"
    digest = hasher.run(experiment.variant(variant, seed), fold, sides, control=purpose == "control")
    return Run(place, variant, fold, seed, purpose, digest)


class RunHasher:
    """Of what decides the weights, and of nothing else: more surrogates or another site's data need no new training.

    Parameters
    ----------
    manifest : DataFrame
        The study's recordings, with ``sha256``, ``ch_names`` and the parcellation.
    """

    def __init__(self, manifest: pd.DataFrame) -> None:
        rows = manifest[["site", "subject", "session", "task", "run"]].fillna("").astype(str)
        keys = [RecordingKey(*row) for row in rows.itertuples(index=False)]
        self.content = dict(zip(keys, manifest["sha256"].astype(str), strict=True))
        self.ch_names = [frozenset(json.loads(names)) for names in manifest["ch_names"]]
        self.parcellation = [str(manifest[name].iloc[0]) for name in ("parcellation_sha256", "parcels")]

    def run(self, experiment: Experiment, fold: str, sides: Sides, *, control: bool = False) -> str:
        """Hash of one training; ``experiment`` is that of its variant and seed."""
        parts = experiment.model_dump(mode="json", include={"data", "model", "algorithm", "optim", "seed", "select_on"})
        del parts["data"]["sites"]  # who takes part stands in the sides
        own = {
            "workers": experiment.scale.workers,
            "fold": fold,
            "train": self._listed(sides.train),
            "val": self._listed(sides.val),
            "watch": {label: self._listed(keys) for label, keys in sides.watch},
            # "common" is the one thing that training knows of a held-out site: the names of its channels
            "ch_names": self._shared() if experiment.data.channels == "common" else [],
            "parcellation": self.parcellation,
            "control": control,
            "segments": segments_to_dict(sides.segments),
        }
        return hashlib.sha256(json.dumps([parts, own], sort_keys=True).encode()).hexdigest()[:16]

    def _listed(self, keys: Iterable[RecordingKey]) -> list[list[str]]:
        return sorted([str(key), self.content[key]] for key in keys)

    def _shared(self) -> list[str]:
        return sorted(frozenset.intersection(*self.ch_names))
