"""The whole road once: phantom consortium -> store -> leave-one-site-out -> MLflow -> registered model.

Small (about ten minutes on two cores)::

    neurobolt demo demo

Everything lands in one folder; a second run goes on where the first one stopped, or only prints the results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jobs import ingest, loso, phantom, register
from jobs.cli import run_job
from xsite.runtime import cluster

RECIPE = Path(__file__).parent / "recipes" / "demo.yaml"


def parser() -> argparse.ArgumentParser:
    """Options of the demo."""
    p = argparse.ArgumentParser(
        prog="neurobolt demo",
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog="Example: neurobolt demo demo --subjects 6",
    )
    p.add_argument("out", nargs="?", default="demo", help="folder for data, study and MLflow (default: demo)")
    p.add_argument("--sites", type=int, default=4, help="number of phantom sites (default: 4)")
    p.add_argument("--subjects", type=int, default=6, help="subjects per site (default: 6)")
    p.add_argument("--minutes", type=float, default=5.0, help="length of each scan (default: 5)")
    p.add_argument("--preset", default="easy", choices=("easy", "realistic"), help="strength of coupling and noise")
    p.add_argument("--seed", type=int, default=2026, help="seed of the consortium (default: 2026)")
    p.add_argument("--smoke", action="store_true", help="minutes of training become seconds; scores mean nothing")
    return p


def steps(args: argparse.Namespace) -> list[tuple[str, object, list[str]]]:
    """The jobs of the demo in order: title, job, command line."""
    out = Path(args.out).resolve()
    bids, store, study = out / "bids", out / "store", out / "study"
    tracking = f"sqlite:///{out / 'mlflow' / 'mlflow.db'}"
    smoke = ["--smoke"] * args.smoke
    write = [str(bids), "--sites", str(args.sites), "--subjects", str(args.subjects), "--minutes", str(args.minutes)]
    write += ["--preset", args.preset, "--seed", str(args.seed), "--jobs", "2"]
    study_words = [str(RECIPE), "--store", str(store), "--study", str(study), "--tracking", tracking, *smoke]
    return [
        ("writing the phantom consortium", phantom.main, write),
        ("raw recordings to the shared format", ingest.main, ["all", "--bids", str(bids), "--store", str(store)]),
        ("leave-one-site-out", loso.main, study_words),
        ("gate and registry", register.main, [str(study), "--tracking", tracking, *["--force"] * args.smoke]),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code of the first step that fails."""
    args = parser().parse_args(argv)
    out = Path(args.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "mlflow").mkdir(exist_ok=True)
    started = time.monotonic()
    plan = steps(args)
    with cluster.connected():  # one private cluster for all steps
        done, code = run_steps(plan)
    if done < len(plan) - 1:
        return code
    return finish(out, code, time.monotonic() - started)


def finish(out: Path, code: int, seconds: float) -> int:
    """Show a finished study, whether the last step (``code``) has registered its model or refused it."""
    shutil.copyfile(out / "study" / "summary.json", out / "summary.json")
    print_results(out, seconds, registered=code == 0)
    if code == 1:
        print(
            "\nTHE GATE REFUSED this study's model: a check above says FAIL, so no alias points at it.", file=sys.stderr
        )
    elif code:
        print("\nthe study is finished, but its model could not be registered (see above)", file=sys.stderr)
    return code


def run_steps(plan: list[tuple[str, object, list[str]]]) -> tuple[int, int]:
    """Run the jobs one after the other; how many succeeded, and the exit code of the first that failed, else 0."""
    for number, (title, job, words) in enumerate(plan, start=1):
        print(f"\n[{number}/{len(plan)}] {title}", flush=True)
        began = time.monotonic()
        if code := run_job(job, words):
            print(f"the demo stopped at step {number} ({title}); run it again to go on from there", file=sys.stderr)
            return number - 1, code
        print(f"      {time.monotonic() - began:.0f} s", flush=True)
    return len(plan), 0


def print_results(out: Path, seconds: float, *, registered: bool) -> None:
    """Print the score table, where everything is, and the line that starts the UI."""
    rows = json.loads((out / "summary.json").read_text(encoding="utf-8"))["rows"]
    print(f"\n{'held-out site':<16}{'model':<20}{'R':>7}{'oracle':>8}{'MSE':>8}{'p (null)':>10}")
    for row in rows:
        model = row["model"] + (" (control)" if row["control"] else "")
        cells = [(row["r_mean"], 7), (row["oracle_r_mean"], 8), (row["mse_mean"], 8), (row["p_null"], 10)]
        print(f"{row['site']:<16}{model:<20}" + "".join(_cell(value, width) for value, width in cells))
    print(f"\nfinished in {seconds / 60:.1f} minutes")
    print(f"report     {out / 'study' / 'report.html'}")
    print(f"summary    {out / 'summary.json'}")
    print("model      " + ("models:/neurobolt@challenger" if registered else "not registered as challenger"))
    print(f"MLflow UI  neurobolt ui --folder {out / 'mlflow'}")


def _cell(value: float | None, width: int) -> str:
    return f"{'-' if value is None else format(value, '.3f'):>{width}}"


if __name__ == "__main__":
    sys.exit(run_job(main))
