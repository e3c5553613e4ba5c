"""Run a leave-one-site-out study: train without each site, score on it, train the final model on all sites.

Small:    python -m jobs.loso jobs/recipes/demo.yaml --store demo/store --study /tmp/study --smoke
Demo:     python -m jobs.loso jobs/recipes/demo.yaml --store demo/store --study demo/study
Cluster:  python -m jobs.submit loso my.yaml --store s3://lab/store --study /shared/study --tracking http://mlflow:5000

A second run of the same command does what is missing only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import run_job
from jobs.models import BASELINES, build_model
from jobs.study_log import TrackedStudy
from xsite.errors import RecipeError
from xsite.evaluation.folds import Fold
from xsite.experiment import Experiment, load_experiment, parse_experiment
from xsite.reports.study import write_report
from xsite.runtime import cluster
from xsite.runtime.loso import StudyResult, plan_folds, run_loso
from xsite.tracking import StudyTracker, resolve_tracking_uri

EXAMPLE = """example:
  neurobolt loso jobs/recipes/demo.yaml --store demo/store --study demo/study --set optim.lr=1e-3"""

SMOKE_OPTIM = {"epochs": 2, "windows_per_epoch": 64, "warmup_epochs": 0}


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = study_parser("loso")
    p.add_argument("--study", type=Path, metavar="DIR", help="folder of the study (default: studies/NAME)")
    p.add_argument("--dry-run", action="store_true", help="print folds and trainings, train nothing")
    return p


def study_parser(verb: str) -> argparse.ArgumentParser:
    """Options that ``loso`` and ``train`` share."""
    p = argparse.ArgumentParser(
        f"neurobolt {verb}", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("recipe", metavar="RECIPE", help="YAML with what differs from the defaults")
    p.add_argument("--store", required=True, metavar="URL", help="shared-format store (neurobolt ingest)")
    p.add_argument("--tracking", metavar="URI", help="MLflow (default: MLFLOW_TRACKING_URI, else studies/mlflow)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="optim.lr=1e-3")
    p.add_argument("--smoke", action="store_true", help="two short epochs; scores mean nothing")
    p.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Ray cluster (default: a private one)")
    p.add_argument("--cpus", type=int, help="cores of a private cluster (default: all)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study; 0 when every part of it is finished."""
    args = parser().parse_args(argv)
    experiment = read_recipe(args)
    folder = (args.study or Path("studies") / experiment.name).resolve()
    if args.dry_run:
        return print_plan(experiment, plan_folds(experiment, args.store)[1])
    tracking = resolve_tracking_uri(args.tracking)
    plan_folds(experiment, args.store)  # what is wrong with the data is said before anything is started
    with (
        cluster.connected(args.address, args.cpus) as info,
        StudyTracker(tracking, experiment.name, spool=folder / "tracking_spool.jsonl") as tracker,
    ):
        print(info, flush=True)
        result = run_loso(
            experiment, args.store, folder, build_model=build_model, baselines=BASELINES,
            on_event=TrackedStudy(tracker, args.store),
        )  # fmt: skip
        report = write_report(folder)
        for path in (folder / "experiment.yaml", folder / "summary.json", folder / "folds.json", report):
            tracker.log_artifact(path)
    print_scores(result)
    print(f"report     {report}\nstudy      {folder}\ntracking   {tracking}")
    return 0


def read_recipe(args: argparse.Namespace) -> Experiment:
    """The experiment that a command line asks for."""
    experiment = resolve_recipe(args.recipe, tuple(args.overrides))
    if not args.smoke:
        return experiment
    optim = experiment.optim.model_copy(update=SMOKE_OPTIM)
    return experiment.model_copy(update={"optim": optim, "surrogates": min(50, experiment.surrogates)})


def resolve_recipe(recipe: str, overrides: tuple[str, ...]) -> Experiment:
    """Read a recipe file with its overrides, or the JSON that a submitted job carries.

    Raises
    ------
    RecipeError
        The recipe is not valid, or overrides come with JSON, where they have been applied already.
    """
    if not recipe.startswith("{"):
        return load_experiment(recipe, overrides)
    if overrides:
        raise RecipeError(f"--set {' '.join(overrides)}: a recipe given as JSON takes no --set; put it into the JSON")
    try:
        return parse_experiment(json.loads(recipe), "submitted experiment")
    except json.JSONDecodeError as error:
        raise RecipeError(f"the recipe begins like JSON and is none ({error}); give a .yaml file") from error


def print_plan(experiment: Experiment, folds: Sequence[Fold]) -> int:
    """Say what would be trained."""
    for fold in folds:
        sides = f"{len(fold.train)} train, {len(fold.val)} val, {len(fold.test)} test"
        print(f"held out {fold.held_out}: {sides} recordings (fold {fold.fingerprint})")
    n_trainings = len(folds) * (1 + (experiment.model.name in experiment.controls)) + 1
    print(f"{n_trainings} trainings of at most {experiment.optim.epochs} epochs on {experiment.scale.workers} workers")
    return 0


def print_scores(result: StudyResult) -> None:
    """One line per site and model."""
    for row in result.summary["rows"]:
        r, mse, p = (_number(row[name], digits) for name, digits in (("r_mean", 3), ("mse_mean", 3), ("p_null", 4)))
        name = row["model"] + (" (control)" if row["control"] else "")
        print(f"{row['site']:<16}{name:<24}R {r:>6}  MSE {mse}  p {p}")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(run_job(main))
