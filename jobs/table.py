"""The one table of a study: every model with its scores, intervals over subjects, speed and size.

    neurobolt loso jobs/recipes/table.yaml --store demo/store --study studies/table
    neurobolt table studies/table

Prints Markdown and writes ``table.md``, ``table.csv``, ``table.parquet`` and ``table.html`` into the study's folder.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from jobs.cli import run_job, write_output
from jobs.models import build_model
from neurobolt.cards import count_parameters
from xsite.errors import CheckpointError
from xsite.evaluation.intervals import few_sites_warning
from xsite.evaluation.model_table import model_table, to_markdown
from xsite.evaluation.selection import RULES
from xsite.experiment import Experiment, load_experiment
from xsite.reports.folder import check_finished
from xsite.reports.markup import table as html_table
from xsite.runtime.scoring import open_checkpoint
from xsite.runtime.study import StudyFolder
from xsite.spelling import counted

FILES = ("experiment.yaml", "scores.parquet", "histories.parquet", "summary.json", "plan.json")


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        prog="neurobolt table",
        description=(__doc__ or "").splitlines()[0],
        epilog="Example: neurobolt table studies/table",
    )
    p.add_argument("study", type=Path, help="folder of a finished study (neurobolt loso)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Build, print and write the table."""
    study: Path = parser().parse_args(argv).study
    check_finished(study, FILES)
    experiment = load_experiment(study / "experiment.yaml")
    scores, histories = (pd.read_parquet(study / f"{name}.parquet") for name in ("scores", "histories"))
    counts = parameters(study, experiment)
    found = model_table(scores, histories, counts, n_seeds=len(experiment.training_seeds))
    text = to_markdown(found, basis(study, experiment, scores))
    write(study, found, text)
    print(text)
    print(f"table      {study / 'table.md'} (and .csv, .parquet, .html)")
    return 0


def parameters(study: Path, experiment: Experiment) -> dict[str, int]:
    """Trainable numbers of each variant, counted on the model of its first finished fold."""
    counts: dict[str, int] = {}
    for run in json.loads((study / "plan.json").read_text(encoding="utf-8"))["runs"]:
        if run["purpose"] == "fold" and run["variant"] not in counts:
            try:
                model, _ = open_checkpoint(str(study / "folds" / run["label"]), build_model)
            except CheckpointError:
                continue  # another fold of it may be whole; a model without any stays uncounted
            counts[run["variant"]] = count_parameters(model)
    return counts


def basis(study: Path, experiment: Experiment, scores: pd.DataFrame) -> str:
    """n, unit, selection rule and access: what every table must name."""
    summary = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    people = scores.drop_duplicates(["site", "subject"])
    n_seeds, n_sites = len(experiment.training_seeds), counted(people["site"].nunique(), "held-out site")
    n = f"{counted(len(people), 'subject')} at {n_sites}, {counted(n_seeds, 'seed')}"
    warning = few_sites_warning(people["site"].nunique())
    levels = list(dict.fromkeys(scores["access"])) if "access" in scores else [summary["test_site_access"]]
    access = levels[0] if len(levels) == 1 else "as above each table"
    return (
        f"n: {n}. Unit: R over a whole recording; mean over seeds, parcels, recordings, subjects, sites in this order; "
        f"intervals over the subjects of these sites (Welch). Selection: {experiment.select_on} "
        f"({RULES[experiment.select_on]}). Access to the test site: {access}. Plan "
        f"{summary['plan']}. Partial R is given the measured global signal; R2 is about zero; windows/s of training, "
        f"median over epochs. {warning}"
    ).strip()


def write(study: Path, found: pd.DataFrame, text: str) -> None:
    """Write the table in four formats, each all or nothing."""
    folder = StudyFolder(study)
    folder.write_table("table.parquet", found)
    buffer = io.StringIO()
    found.to_csv(buffer, index=False)
    write_output(study / "table.csv", buffer.getvalue().encode())
    write_output(study / "table.md", text.encode())
    caption, section, level = text.strip().splitlines()[-1], "", ""
    for block in text.split("\n\n"):
        if block.startswith("|"):
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
            section += html_table(rows[0], rows[2:], caption=f"{level}{caption}")
        level = f"{block}. " if block.startswith("Access to the test site: ") else ""
    write_output(study / "table.html", f"<section><h2>All models</h2>{section}</section>\n".encode())


if __name__ == "__main__":
    sys.exit(run_job(main))
