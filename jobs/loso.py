"""Run a leave-one-site-out study: train without each site, score on it, train the final model on all sites.

Small:    python -m jobs.loso jobs/recipes/demo.yaml --store demo/store --study /tmp/study --smoke
Counted:  python -m jobs.loso jobs/recipes/table.yaml --store demo/store --dry-run
Demo:     python -m jobs.loso jobs/recipes/demo.yaml --store demo/store --study demo/study
Cluster:  python -m jobs.submit loso my.yaml --store s3://lab/store --study /shared/study --tracking http://mlflow:5000

A second run of the same command does what is missing only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.cli import run_job
from jobs.loso_plan import print_plan
from jobs.model_defaults import with_model_defaults
from jobs.models import BASELINES, DEFAULT_OPTIM, build_model, model_cards
from jobs.study_log import TrackedStudy
from xsite.errors import RecipeError
from xsite.experiment import Experiment, load_experiment, parse_experiment
from xsite.reports.study import write_report
from xsite.runtime import cluster
from xsite.runtime.loso import StudyResult, check_names, plan_study, run_loso
from xsite.runtime.timeline import read_timeline, session_times
from xsite.spelling import counted
from xsite.tracking import StudyTracker, resolve_tracking_uri

EXAMPLE = """example:
  neurobolt loso jobs/recipes/demo.yaml --store demo/store --study demo/study --set optim.lr=1e-3"""

SMOKE_OPTIM = {"epochs": 2, "windows_per_epoch": 64, "warmup_epochs": 0}


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = study_parser("loso")
    p.add_argument("--study", type=Path, metavar="DIR", help="folder of the study (default: studies/NAME)")
    p.add_argument("--dry-run", action="store_true", help="print the plan and what it costs, train nothing")
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
    with named_recipe(args.recipe):
        return run_study(args)


def run_study(args: argparse.Namespace) -> int:
    """What :func:`main` does with a command line."""
    experiment = read_recipe(args)
    folder = (args.study or Path("studies") / experiment.name).resolve()
    check_names(experiment, BASELINES)
    manifest, folds, plan = plan_study(experiment, args.store)  # what is wrong is said before anything is started
    if args.dry_run:
        print_plan(experiment, manifest, folds, plan, folder)
        return 0
    warn_of_another_plan(folder, plan.hash)
    tracking = resolve_tracking_uri(args.tracking)
    with (
        cluster.connected(args.address, args.cpus) as info,
        StudyTracker(tracking, experiment.name, spool=folder / "tracking_spool.jsonl") as tracker,
    ):
        print(info, flush=True)
        result = run_loso(
            experiment, args.store, folder, build_model=build_model, baselines=BASELINES,
            on_event=TrackedStudy(tracker, args.store),
        )  # fmt: skip
        report = write_report(folder, cards=model_cards())
        for name in ("experiment.yaml", "summary.json", "folds.json", "plan.json", "selection.json", report.name):
            tracker.log_artifact(folder / name)
    print_scores(result)
    print(f"time       {time_words(folder)}")
    print(f"report     {report}\nstudy      {folder}\ntracking   {tracking}")
    return 0


def warn_of_another_plan(folder: Path, plan_hash: str) -> None:
    """Say that a folder holds the results of something else, which this run will replace."""
    try:
        former = json.loads((folder / "summary.json").read_text(encoding="utf-8")).get("plan")
    except (OSError, ValueError):
        return
    if former != plan_hash:
        print(
            f"{folder} holds a finished study of another plan ({former}): its trainings that differ, its tables and "
            "its report will be replaced; stop now (Ctrl-C) and give another --study to keep them",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def named_recipe(recipe: str) -> Iterator[None]:
    """Begin what is wrong with a recipe with its file, although it shows later than when the file is read."""
    source = "submitted experiment" if recipe.startswith("{") else recipe
    try:
        yield
    except RecipeError as error:
        if str(error).startswith(source):
            raise
        raise RecipeError(f"{source}: {error}") from error


def read_recipe(args: argparse.Namespace) -> Experiment:
    """The experiment that a command line asks for."""
    experiment = resolve_recipe(args.recipe, tuple(args.overrides))
    if not args.smoke:
        return experiment
    optim = experiment.optim.model_copy(update=SMOKE_OPTIM)
    variants = {
        label: {key: value for key, value in own.items() if key.removeprefix("optim.") not in SMOKE_OPTIM}
        for label, own in experiment.variants.items()
    }
    name = f"{experiment.name}-smoke"  # so that report, UI and default folder say what its scores are worth
    update = {"name": name, "optim": optim, "variants": variants, "surrogates": min(50, experiment.surrogates)}
    return experiment.model_copy(update=update)


def resolve_recipe(recipe: str, overrides: tuple[str, ...]) -> Experiment:
    """Read a recipe file with its overrides, or the JSON that a submitted job carries; models add their own defaults.

    Raises
    ------
    RecipeError
        The recipe is not valid, or overrides come with JSON, where they have been applied already.
    """
    if not recipe.startswith("{"):
        return with_model_defaults(load_experiment(recipe, overrides), DEFAULT_OPTIM)
    if overrides:
        raise RecipeError(f"--set {' '.join(overrides)}: a recipe given as JSON takes no --set; put it into the JSON")
    try:
        return parse_experiment(json.loads(recipe), "submitted experiment")
    except json.JSONDecodeError as error:
        raise RecipeError(f"the recipe begins like JSON and is none ({error}); give a .yaml file") from error


def print_scores(result: StudyResult) -> None:
    """One line per site and model."""
    for row in result.summary["rows"]:
        r, mse, p = (_number(row[name], digits) for name, digits in (("r_mean", 3), ("mse_mean", 3), ("p_null", 4)))
        name = row["model"] + (" (control)" if row["control"] else "")
        print(f"{row['site']:<16}{name:<24}R {r:>6}  MSE {mse}  p {p}")


def time_words(folder: Path) -> str:
    """Where the time of the last session went."""
    last = session_times(read_timeline(folder))[-1]
    words = f"{last.wall_s / 60:.1f} min"
    if not last.n_epochs:
        return f"{words}; nothing was left to train"
    return (
        f"{words}; {counted(last.n_trainings, 'training')}, {last.places} at a time in {last.warm_s / 60:.1f} min, in "
        f"{last.overhead:.0%} of which none ran"
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    sys.exit(run_job(main))
