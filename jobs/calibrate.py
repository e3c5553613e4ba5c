"""How much are k labelled subjects of an unseen site worth? Fine-tune a study's folds on them, score the others.

Small:    python -m jobs.calibrate demo/study --store demo/store --k 1 --draws 1
Real:     python -m jobs.calibrate studies/table --store s3://lab/store --k 1,2,4 --draws 5 --part head,adapters,all

Writes ``calibration.parquet`` into the study's folder; a second run of the same command does what is missing only.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd

from jobs.cli import run_job
from jobs.models import build_model
from xsite.errors import RecipeError
from xsite.evaluation.calibration import calibration_curve
from xsite.evaluation.intervals import few_sites_warning
from xsite.learning.finetune import PARTS, Part
from xsite.reports.folder import check_finished
from xsite.runtime import cluster
from xsite.runtime.calibration import FILE, NEEDED, run_calibration
from xsite.spelling import counted

EXAMPLE = """example:
  neurobolt calibrate demo/study --store demo/store --k 1,2 --draws 3"""


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        "neurobolt calibrate", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("study", type=Path, metavar="STUDY", help="folder of a finished study (neurobolt loso)")
    p.add_argument("--store", required=True, metavar="URL", help="the store that the study was run on")
    p.add_argument("--k", default="1,2", metavar="K,K", help="numbers of labelled subjects (default: 1,2)")
    p.add_argument("--part", default="head,all", metavar="PART", help=f"what is trained: {', '.join(PARTS)}")
    p.add_argument("--draws", type=int, default=3, metavar="N", help="choices of the k subjects per site (default: 3)")
    p.add_argument("--variant", nargs="+", default=[], metavar="LABEL", help="variants (default: the deployed one)")
    p.add_argument("--seed", type=int, default=0, help="of the choices of subjects")
    p.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Ray cluster (default: a private one)")
    p.add_argument("--cpus", type=int, help="cores of a private cluster (default: all)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate; print the curve."""
    args = parser().parse_args(argv)
    ks, parts = numbers(args.k), [word.strip() for word in args.part.split(",")]
    if unknown := [part for part in parts if part not in PARTS]:
        raise RecipeError(f"--part {', '.join(unknown)}: choose from {', '.join(PARTS)}")
    if args.draws < 1:
        raise RecipeError(f"--draws {args.draws}: at least 1")
    check_finished(args.study, NEEDED)
    with cluster.connected(args.address, args.cpus) as info:
        print(info, flush=True)
        table = run_calibration(
            args.study, args.store, ks=ks, parts=[cast(Part, part) for part in parts], n_draws=args.draws,
            build_model=build_model, seed=args.seed, variants=args.variant, say=lambda line: print(line, flush=True),
        )  # fmt: skip
    print(curve_text(calibration_curve(table)))
    print(f"calibration {args.study / FILE}")
    return 0


def numbers(text: str) -> list[int]:
    """``1,2,4`` as numbers, in order."""
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError as error:
        raise RecipeError(f"--k {text!r}: write whole numbers, such as 1,2,4") from error
    if found[0] < 1:
        raise RecipeError(f"--k {text!r}: from 1 on; k = 0 is always scored beside the others")
    return found


def curve_text(curve: pd.DataFrame) -> str:
    """One table per access level: figures of different levels never stand in one."""
    lines = []
    for k, rows in curve.groupby("k"):
        access = counted(cast("int", k), "labelled subject")
        lines.append(f"\nAccess to the held-out site: {access} (gain: over k = 0, same subjects)")
        for row in rows.itertuples():
            n = f"{counted(cast('int', row.n_subjects), 'subject')} at {counted(cast('int', row.n_sites), 'site')}"
            lines.append(f"  {row.variant:<20}{row.part:<9}R {row.r:6.3f}  gain {row.gain:+.3f}  ({n})")
    return "\n".join([*lines, few_sites_warning(int(curve["n_sites"].max()) if len(curve) else 0)])


if __name__ == "__main__":
    sys.exit(run_job(main))
