"""What a study would do and cost, before it does anything: ``neurobolt loso RECIPE --store URL --dry-run``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from torch import nn

from jobs.models import build_model
from jobs.study_log import plan_counts
from xsite.data.montages import canonical_montage, common_channels
from xsite.errors import RecipeError
from xsite.evaluation.folds import Fold
from xsite.evaluation.plan import Plan, Run, nested_runs
from xsite.evaluation.selection import RULES
from xsite.evaluation.sides import NESTED
from xsite.experiment import Experiment
from xsite.learning.probe import training_rate
from xsite.recording import RecordingKey
from xsite.runtime.inputs import row_keys
from xsite.spelling import counted


def print_plan(experiment: Experiment, manifest: pd.DataFrame, folds: Sequence[Fold], plan: Plan, study: Path) -> None:
    """Folds, runs, recordings and subjects per side, windows, device-hours and the plan's hash."""
    windows = windows_of(manifest, window_s_of(built(experiment, experiment.labels[0], manifest)[0]))
    for fold in folds:
        sides = plan.sides[fold.held_out]
        named = {"train": sides.train, "val": sides.val, "test": fold.test}
        counts = ", ".join(f"{len(keys)} {name}" for name, keys in named.items() if keys)
        people = ", ".join(f"{len({key.subject_id for key in keys})} {name}" for name, keys in named.items() if keys)
        n = sum(windows[key] for key in sides.train)
        print(f"held out {fold.held_out}: {counts} recordings ({people} subjects; {n} training windows)")
    n_seeds, n_variants = len(experiment.training_seeds), len(experiment.labels)
    crossed = " x ".join((counted(len(folds), "fold"), counted(n_seeds, "seed"), counted(n_variants, "variant")))
    print(f"{crossed}; {counted(len(plan.runs), 'training')}: {plan_counts(plan)}")
    if plan.selection == NESTED:
        print(nested_words(experiment, plan))
    print(f"selection {plan.selection}: {RULES[plan.selection]}")
    epochs, workers = counted(max_epochs(experiment, plan), "epoch"), counted(experiment.scale.workers, "worker")
    print(f"at most {epochs} each, on {workers} per training")
    print_hours(experiment, manifest, plan, study)
    print(f"plan {plan.hash}")


def nested_words(experiment: Experiment, plan: Plan) -> str:
    """How many trainings nested selection makes of one configuration; fewer where ``folds.held_out`` names some."""
    counts, n_configurations = plan.counts(), len(experiment.labels) * len(experiment.training_seeds)
    inner, outer = (counts.get(purpose, 0) // n_configurations for purpose in ("inner", "fold"))
    whole = f" = S + S (S - 1) / 2, S = {outer} held out one by one" if inner + outer == nested_runs(outer) else ""
    return f"nested: {outer} fold + {inner} inner = {inner + outer} trainings per variant and seed{whole}"


def print_hours(experiment: Experiment, manifest: pd.DataFrame, plan: Plan, study: Path) -> None:
    """Upper bound: every epoch of every run, at the speed of this study's last run or of a one-second probe."""
    total = 0.0
    for label in experiment.labels:
        own = [run for run in plan.runs if run.variant == label]
        model, ch_names, n_outputs = built(experiment, label, manifest)
        windows = windows_of(manifest, window_s_of(model))
        n_windows = sum(run_windows(experiment, run, plan, windows) for run in own)
        known = recorded_rate(study, label)
        rate = known or training_rate(model, experiment.variant(label), ch_names, n_outputs)
        source = f"measured in {study}" if known else ""
        hours = n_windows / rate / 3600
        total += hours
        how = source or "a one-second probe of the built model on this machine"
        size = f"{counted(len(own), 'training')}, {n_windows:,} windows"
        print(f"{label}: {size}, {rate:.0f} windows/s ({how}): {hours:.2f} hours")
    print(f"about {total:.2f} device-hours of training, if none stops early")


def run_windows(experiment: Experiment, run: Run, plan: Plan, windows: Mapping[RecordingKey, int]) -> int:
    """Windows that a run trains on, all epochs together."""
    optim = experiment.variant(run.variant, run.seed).optim
    sides = plan.sides[run.fold]
    if sides.segments is not None:
        start, stop = zip(*sides.segments["train"].values(), strict=True)
        per_epoch = sum(stop) - sum(start)
    else:
        per_epoch = sum(windows[key] for key in sides.train)
    return int(min(per_epoch, optim.windows_per_epoch or per_epoch) * optim.epochs)


def max_epochs(experiment: Experiment, plan: Plan) -> int:
    """Longest training."""
    return max(experiment.variant(run.variant).optim.epochs for run in plan.runs)


def windows_of(manifest: pd.DataFrame, window_s: float) -> dict[RecordingKey, int]:
    """Windows per recording, estimated: valid volumes but the first ones, before which no whole window may fit."""
    lost = np.ceil(window_s / manifest["t_r"].astype(float))
    n = (manifest["n_valid"].astype(int) - lost).clip(lower=0).astype(int).tolist()
    return dict(zip(row_keys(manifest), n, strict=True))


def recorded_rate(study: Path, label: str) -> float | None:
    """Windows per second of a worker in this study's trainings of a variant (median over epochs), if there are any.

    Stacked trainings log what all of them did together, which is what device-hours follow from.
    """
    path = study / "histories.parquet"
    if not path.is_file():
        return None
    table = pd.read_parquet(path)
    own = table[table["model"] == label]
    return float(own["windows_per_s"].median()) if "windows_per_s" in own and len(own) else None


def window_s_of(model: nn.Module) -> float:
    """Seconds of EEG that the model reads at once."""
    return float(cast("float", getattr(model, "window_s", 16.0)))


def built(experiment: Experiment, label: str, manifest: pd.DataFrame) -> tuple[nn.Module, Sequence[str], int]:
    """Model of a variant for this store's channels and parcels, the channels, and the number of parcels."""
    own = experiment.variant(label)
    listed = [json.loads(names) for names in manifest["ch_names"]]
    if own.data.channels == "spline":
        ch_names = canonical_montage(own.data.montage).ch_names
    elif own.data.channels == "common":
        ch_names = common_channels(listed)
    else:
        ch_names = common_channels([sorted({name for names in listed for name in names})])
    n_outputs = len(own.data.parcels or json.loads(manifest["parcels"].iloc[0]))
    spec = own.model
    try:
        model = build_model(spec.name, spec.preset, spec.options, ch_names=ch_names, n_outputs=n_outputs)
    except RecipeError as error:
        raise RecipeError(f"variant {label!r}: {error}") from error
    return model, ch_names, n_outputs
