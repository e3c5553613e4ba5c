"""Tune the variants of a recipe on training sites: the same number of draws for each, the worse half stopped early.

Small:    python -m jobs.tune jobs/recipes/demo.yaml --store demo/store --samples 4 --set optim.epochs=3
Real:     python -m jobs.tune jobs/recipes/algorithms.yaml --store s3://lab/store --samples 20 --search optuna
Next:     python -m jobs.loso studies/tune-NAME/best.yaml --store s3://lab/store --study studies/NAME

Ctrl-C, then the same command: it goes on. ``best.yaml`` holds each variant's best settings over all folds;
``best-FOLD.yaml`` those chosen on that fold's validation recordings alone, none of which is of its held-out site.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from jobs.cli import run_job
from jobs.loso import named_recipe, resolve_recipe
from jobs.models import build_model
from xsite.errors import RecipeError
from xsite.evaluation.folds import Fold
from xsite.evaluation.plan import folder_name
from xsite.experiment import Experiment
from xsite.learning.search_space import OPTION_RANGES, tuned_recipe
from xsite.runtime import cluster
from xsite.runtime.loso import plan_folds
from xsite.runtime.study import StudyFolder
from xsite.runtime.trials import Trials, best_trial
from xsite.runtime.tuning import SEARCHES, Tuning, run_tuning

EXAMPLE = """example:
  neurobolt tune jobs/recipes/demo.yaml --store demo/store --samples 8 --search optuna"""


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        "neurobolt tune", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("recipe", metavar="RECIPE", help="YAML; its part tune: says what may change")
    p.add_argument("--store", required=True, metavar="URL", help="shared-format store (neurobolt ingest)")
    p.add_argument("--samples", type=int, default=16, metavar="N", help="draws per variant, the recipe itself first")
    p.add_argument("--search", choices=SEARCHES, default="random", help="how values are drawn (default: random)")
    p.add_argument("--full", action="store_true", help="train every draw on every fold: no early stop of trials")
    p.add_argument("--study", type=Path, metavar="DIR", help="folder of the trials (default: studies/tune-NAME)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help="optim.epochs=5")
    p.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Ray cluster (default: a private one)")
    p.add_argument("--cpus", type=int, help="cores of a private cluster (default: all)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Tune; 0 when every variant has its draws."""
    args = parser().parse_args(argv)
    if args.samples < 1:
        raise RecipeError(f"--samples {args.samples}: at least 1, which is the recipe itself")
    with named_recipe(args.recipe):
        return run_search(args)


def run_search(args: argparse.Namespace) -> int:
    """What :func:`main` does with a command line."""
    experiment = resolve_recipe(args.recipe, tuple(args.overrides))
    folder = (args.study or Path("studies") / f"tune-{experiment.name}").resolve()
    tuning = Tuning(experiment, args.store, args.samples, args.search, not args.full, OPTION_RANGES)
    tuning.spaces()  # what is wrong is said before anything is started
    with cluster.connected(args.address, args.cpus) as info:
        print(info, flush=True)
        found = run_tuning(tuning, folder, build_model, say=lambda line: print(line, flush=True))
    folds = plan_folds(experiment, args.store)[1]
    write(experiment, found, folds, StudyFolder(folder))
    print(table(found))
    print(f"trials     {folder / 'trials.parquet'}\nbest       {folder / 'best.yaml'} (and one per fold)")
    if shared := [fold.held_out for fold in folds if len(chosen_with(fold, folds)) > 1]:
        print(f"no recipe can name these folds alone, their files run others as well: {', '.join(shared)}")
    return 0


def write(experiment: Experiment, found: Mapping[str, Trials], folds: Sequence[Fold], folder: StudyFolder) -> None:
    """``trials.parquet``, ``best.yaml``, and one recipe per fold, whose ``folds.held_out`` makes that fold."""
    folder.write_table("trials.parquet", pd.concat([trials.table() for trials in found.values()], ignore_index=True))
    for fold in (None, *folds):
        own = None if fold is None else fold.held_out
        chosen = {label: best_trial(trials, own) for label, trials in found.items()}
        best = {label: found[label].rows[n]["overrides"] for label, n in chosen.items() if n is not None}
        recipe = tuned_recipe(experiment, best)
        if fold is not None:
            only = recipe.folds.model_copy(update={"held_out": (fold.selector or fold.held_out,)})
            recipe = recipe.model_copy(update={"folds": only})
        partial = folder.path / ".best.partial"
        recipe.to_yaml(partial)
        name = "best.yaml" if fold is None else f"best-{folder_name(fold.held_out)}.yaml"
        folder.write(name, _header(fold, folds).encode() + partial.read_bytes())
        partial.unlink()


def chosen_with(fold: Fold, folds: Sequence[Fold]) -> list[str]:
    """Labels of the folds that ``folds.held_out`` makes together with this one, itself included."""
    return [other.held_out for other in folds if other.selector == fold.selector]


def _header(fold: Fold | None, folds: Sequence[Fold]) -> str:
    if fold is None:
        return (
            "# Tuned: lowest mean validation error over all folds. A fold's held-out site has validation subjects in\n"
            "# other folds, so scores at these very sites are slightly too good; best-FOLD.yaml is free of that.\n"
        )
    words = (
        f"# Tuned on the validation recordings of fold {fold.held_out} alone: nothing of its test side has chosen\n"
        "# anything here.\n"
    )
    if len(together := chosen_with(fold, folds)) > 1:
        words += (
            f"# folds.held_out cannot name this fold alone: this recipe runs {', '.join(together)}.\n"
            f"# Of its scores, take those of {fold.held_out}.\n"
        )
    return words


def table(found: Mapping[str, Trials]) -> str:
    """One line per variant: what its budget was, what the recipe itself scored, and the best draw."""
    lines = ["| variant | draws | done | stopped | failed | epochs | recipe itself | best | with |", "|" + "---|" * 9]
    for label, trials in found.items():
        states = [trials.state(number) for number in trials.rows]
        epochs = sum(fold["epochs"] for row in trials.rows.values() for fold in row["folds"].values())
        best = best_trial(trials)
        own = "-"
        if trials.identity["recipe_first"] and 0 in trials.rows:
            own = f"{trials.scores(0)[-1]:.4f}" + ("" if trials.state(0) == "done" else f" ({trials.state(0)})")
        words, score = "-", "-"
        if best is not None:
            overrides = trials.rows[best]["overrides"]
            words = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in overrides.items())
            score = f"{trials.scores(best)[-1]:.4f}"
        counts = " | ".join(str(states.count(state)) for state in ("done", "stopped", "failed"))
        lines.append(
            f"| {label} | {len(states)} | {counts} | {epochs} | {own} | {score} | {words or 'the recipe itself'} |"
        )
    return "\n".join(
        [*lines, "Error: masked mean squared error on validation recordings of training sites, mean over folds."]
    )


if __name__ == "__main__":
    sys.exit(run_job(main))
