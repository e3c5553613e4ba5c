"""A whole study, stopped in the middle and resumed, and what it costs beyond training: ``python -m benchmarks.study``.

neurobolt phantom raw --sites 8 --subjects 4 --preset realistic --seed 5
neurobolt ingest all --bids raw --store store
python -m benchmarks.study jobs/recipes/algorithms.yaml --store store --study out --stop-after 20
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from xsite.runtime.timeline import read_timeline, session_times

POLL_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Run, stop, resume, and print where the time went."""
    p = argparse.ArgumentParser("python -m benchmarks.study", description=__doc__)
    p.add_argument("recipe")
    p.add_argument("--store", required=True)
    p.add_argument("--study", required=True, type=Path, help="a new folder")
    p.add_argument("--stop-after", type=int, help="Ctrl-C as soon as this many trainings are done, then go on")
    p.add_argument("--set", action="append", default=[], dest="overrides")
    args = p.parse_args(argv)
    words = [sys.executable, "-m", "jobs.loso", args.recipe, "--store", args.store, "--study", str(args.study)]
    words += ["--tracking", f"sqlite:///{args.study.resolve()}/mlflow.db"]
    words += [part for one in args.overrides for part in ("--set", one)]
    args.study.mkdir(parents=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, children included
    with (args.study / "output.txt").open("a") as output:
        if args.stop_after:
            print(f"stopped with exit status {stopped(words, args.study, args.stop_after, output)}", flush=True)
        code = subprocess.run(words, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    print(f"ended with exit status {code}\n\n{table(args.study)}")
    return code


def stopped(words: Sequence[str], study: Path, n_done: int, output: object) -> int:
    """Exit status of a study that got Ctrl-C once ``n_done`` of its trainings were finished."""
    process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, process_group=0)  # type: ignore[call-overload]
    while process.poll() is None and done(study) < n_done:
        time.sleep(POLL_S)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    return int(process.wait())


def done(study: Path) -> int:
    """Trainings that the study has finished."""
    try:
        status = json.loads((study / "status.json").read_text())
    except FileNotFoundError:
        return 0
    return sum(row["state"] == "done" for row in status["trainings"].values())


def table(study: Path) -> str:
    """One line per session of the study."""
    rows = ["| session | minutes | trainings ended | epochs | at a time | warm minutes | of these without training |"]
    rows += ["| --- " * 7 + "|"]
    for i, one in enumerate(session_times(read_timeline(study))):
        rows.append(
            f"| {i + 1} | {one.wall_s / 60:.1f} | {one.n_trainings} | {one.n_epochs} | {one.places} | "
            f"{one.warm_s / 60:.1f} | {one.overhead:.1%} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
