"""Train one model on named recordings; some subjects of each site select the epoch, nobody is held out.

Small:  python -m jobs.train jobs/recipes/demo.yaml --store demo/store --out /tmp/model --smoke
One:    python -m jobs.train my.yaml --store store --out models/siteA --recordings 'siteA/*' 'siteB/sub-0[1-4]*'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import run_job
from jobs.loso import named_recipe, read_recipe, study_parser
from jobs.models import build_model
from jobs.study_log import print_event
from xsite.experiment import parse_experiment
from xsite.runtime import cluster
from xsite.runtime.single import train_one
from xsite.runtime.study import code_tags
from xsite.runtime.training import FoldOutcome
from xsite.tracking import StudyTracker, resolve_tracking_uri

EXAMPLE = """example:
  neurobolt train jobs/recipes/demo.yaml --store demo/store --out models/siteA --recordings 'siteA/*'"""


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = study_parser("train")
    p.description, p.epilog = __doc__, EXAMPLE
    p.add_argument("--out", type=Path, metavar="DIR", help="checkpoint folder (default: models/NAME)")
    p.add_argument("--recordings", nargs="+", default=[], metavar="GLOB", help="keys such as 'siteA/sub-01*'")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Train, keep the checkpoint, write one MLflow run."""
    args = parser().parse_args(argv)
    with named_recipe(args.recipe):
        return run_training(args)


def run_training(args: argparse.Namespace) -> int:
    """What :func:`main` does with a command line."""
    experiment = read_recipe(args)
    folder = (args.out or Path("models") / experiment.name).resolve()
    tracking = resolve_tracking_uri(args.tracking)
    with cluster.connected(args.address, args.cpus) as info:
        print(info, flush=True)
        outcome = train_one(
            experiment, args.store, folder, build_model=build_model, patterns=args.recordings, on_event=print_event
        )
    with StudyTracker(tracking, experiment.name, spool=folder.with_name(f".{folder.name}.spool.jsonl")) as tracker:
        run_id = track(tracker, outcome)
    print(f"checkpoint {folder}\nbest epoch {outcome.best_epoch}\ntracking   {tracking} run {run_id}")
    return 0


def track(tracker: StudyTracker, outcome: FoldOutcome) -> str:
    """Write the training to MLflow: a parent run of its own kind, and one child with the curve and the checkpoint."""
    config = outcome.job.config
    experiment = parse_experiment(config["experiment"], str(outcome.job.folder))
    tags = {"data_hash": config["data_hash"], "trained_on": ", ".join(config["trained_on"]), **code_tags()}
    tags |= {"algorithm": experiment.algorithm.name, "selection_rule": experiment.select_on}
    params = experiment.flat() | {"scope": "train"}
    run_id = tracker.start(params, fingerprint=outcome.job.fingerprint, tags=tags, run_name="train")
    fold = tracker.fold(None)
    for row in outcome.history:
        tracker.log_epoch(fold, int(row["epoch"]), row)
    tracker.log_artifact(outcome.job.folder, fold=fold, folder="checkpoint")
    tracker.end_fold(fold, {"best_epoch": outcome.best_epoch})
    return run_id


if __name__ == "__main__":
    sys.exit(run_job(main))
