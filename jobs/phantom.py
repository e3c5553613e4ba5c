"""Write a phantom consortium: simulated sites with a known truth, each a BIDS data set.

Small:  python -m jobs.phantom /tmp/phantom --sites 2 --subjects 2 --minutes 2
Demo:   python -m jobs.phantom demo/phantom --sites 4 --subjects 4 --jobs 2
Real:   python -m jobs.phantom --like ds002336 /tmp/like --subjects 1 --volumes 60
All:    python -m jobs.phantom --like all /tmp/like

With ``--like``, phantoms of real sites instead: their layouts, names, formats, markers and faults around simulated
signals. Alignment truth lies beside each, in OUT/<site>.truth.json; their atlas is OUT/atlas (docs/sites.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from jobs.cli import run_job
from jobs.phantom_like import Size, write_phantoms
from xsite.phantom.consortium import Consortium, Progress, generate_consortium
from xsite.phantom.presets import PRESETS
from xsite.phantom.real_bold import Drivers
from xsite.spelling import counted

EXAMPLE = """example:
  python -m jobs.phantom demo/phantom --sites 4 --subjects 4 --preset easy --seed 0 --jobs 2

Each site lies in OUT/<site> as a BIDS data set; OUT/oracle.tsv holds the best R that any model can reach."""


def parser() -> argparse.ArgumentParser:
    """Command line of this job."""
    own = argparse.ArgumentParser(
        "neurobolt phantom", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own.add_argument("out", type=Path, metavar="OUT", help="new folder, or one that was interrupted")
    own.add_argument("--sites", type=int, default=4, help="number of sites, 1 to 8 (default 4)")
    own.add_argument("--subjects", type=int, help="subjects per site (default 4); of the file with --bold-from")
    own.add_argument("--preset", choices=sorted(PRESETS), default="easy", help="how hard (default easy)")
    own.add_argument("--seed", type=int, default=0, help="same seed, same signals (default 0)")
    own.add_argument("--minutes", type=float, default=5.0, help="length of each scan (default 5)")
    own.add_argument("--bold-from", type=Path, metavar="NPZ", help="real parcel series; only the EEG is simulated")
    own.add_argument("--drivers", choices=get_args(Drivers), default="paper", help="which real series drive the EEG")
    own.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    like = own.add_argument_group("phantoms of real sites")
    like.add_argument(
        "--like", metavar="SITE", help="a name, several with commas, all (shortened), or a folder with a site.yaml"
    )
    like.add_argument("--volumes", type=int, help="shorten each run to so many volumes, and its EEG with it")
    like.add_argument("--runs", type=int, help="so many complete runs of each site, beside its odd ones (default: all)")
    like.add_argument("--sidecars", type=Path, metavar="FOLDER", help="real sidecars (default: ../shared/sites/SITE)")
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 0 when all went well."""
    asked = parser().parse_args(argv)
    if asked.like is not None:
        size = Size(asked.subjects, asked.volumes, asked.runs)
        return write_phantoms(asked.like, asked.out, size=size, sidecars=asked.sidecars, seed=asked.seed)
    with _progress() as progress:
        made = generate_consortium(
            asked.out,
            n_sites=asked.sites,
            n_subjects=asked.subjects,
            preset=asked.preset,
            seed=asked.seed,
            minutes=asked.minutes,
            bold_from=asked.bold_from,
            drivers=asked.drivers,
            n_jobs=asked.jobs,
            progress=progress,
        )
    _report(made)
    return 0


def _report(made: Consortium) -> None:
    print(f"consortium in {made.root}")
    for site, rows in made.oracle.groupby("site"):
        recordings = rows[["subject", "run"]].drop_duplicates()
        print(f"  {site}: {counted(len(recordings), 'recording')}, oracle R {rows['oracle_r'].mean():.3f}")


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, one plain line per recording elsewhere."""
    if not sys.stdout.isatty():
        yield lambda done, total, text: print(f"[{done}/{total}] {text}", flush=True)
        return
    from rich.progress import Progress as Bar

    with Bar() as bar:
        task = bar.add_task("phantom", total=None)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text)


if __name__ == "__main__":
    sys.exit(run_job(main))
