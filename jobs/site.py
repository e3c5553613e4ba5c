"""A laboratory's own site: draft its facts, and check them against its files.

Draft:  python -m jobs.site new --bids /data/mysite mysite.yaml
Check:  python -m jobs.site check mysite.yaml --bids /data/mysite --page mysite.html

The check reads one recording of one subject, as ingest would. It exits with 0 when every required check passes.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from jobs.cli import run_job, write_output
from site_adapters import get_site
from xsite.data.atlases import get_atlas
from xsite.data.site_check import SiteCheck, check_site
from xsite.data.site_file import load_site, site_yaml
from xsite.data.site_guess import guess_site
from xsite.errors import RecipeError
from xsite.reports.site_check_page import site_check_page
from xsite.signals.parcels import Atlas
from xsite.spelling import counted

EXAMPLE = """example:
  neurobolt site new --bids /data/mysite mysite.yaml
  neurobolt site check mysite.yaml --bids /data/mysite --page mysite.html"""
MARKS = {"pass": "pass", "warn": "WARN", "fail": "FAIL"}
COLOURS = {"pass": "\033[32m", "warn": "\033[33m", "fail": "\033[31m"}
LONGEST = 500  # characters of a finding on the terminal; the page holds all
DEFAULT_ATLAS = "power264"  # comes with nilearn: no download for a check


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    own = argparse.ArgumentParser(
        "neurobolt site", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = own.add_subparsers(dest="action", required=True, metavar="new | check")
    new = verbs.add_parser("new", help="write a first facts file by looking at a BIDS folder")
    new.add_argument("file", type=Path, metavar="NAME.yaml", help="to write; the site is called like the file")
    new.add_argument("--bids", required=True, type=Path, metavar="ROOT", help="the site's BIDS folder")
    new.add_argument("--force", action="store_true", help="replace the file if it exists")
    check = verbs.add_parser("check", help="check a site's facts against one subject's files")
    check.add_argument("site", metavar="FILE|NAME", help="YAML file of the site's facts, or a known site")
    check.add_argument("--bids", required=True, type=Path, metavar="ROOT", help="the site's BIDS folder")
    check.add_argument(
        "--atlas", metavar="NAME|FILE", help=f"for coverage (default: {DEFAULT_ATLAS}, or the phantom's)"
    )
    check.add_argument("--subject", metavar="LABEL", help="which subject (default: the first)")
    check.add_argument("--page", type=Path, metavar="OUT.html", help="write the findings as a page")
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 0 when the draft was written or every required check passed."""
    args = parser().parse_args(argv)
    return _new(args) if args.action == "new" else _check(args)


def _new(args: argparse.Namespace) -> int:
    if args.file.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"{args.file}: the facts go into a YAML file; call it {args.file.stem}.yaml")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", args.file.stem):
        raise RecipeError(f"{args.file}: the site is called like the file: letters, digits, '-' and '_' only")
    if args.file.exists() and not args.force:
        raise RecipeError(f"{args.file}: exists already; give another name, or --force to replace it")
    guess = guess_site(args.bids, args.file.stem)
    write_output(args.file, site_yaml(guess.facts, guess.words).encode())
    site = load_site(args.file)
    unsure = [fact.name for fact in guess.facts if not fact.certain]
    print(f"{args.file}: {counted(len(guess.facts), 'fact')} of {site.name} from {guess.words}")
    print(f"to look at, marked CHECK in the file: {', '.join(unsure) or 'none'}")
    print(f"next: neurobolt site check {args.file} --bids {args.bids}")
    return 0


def _check(args: argparse.Namespace) -> int:
    site = get_site(args.site, args.bids)
    found = check_site(site, args.bids, _atlas(args.atlas, args.bids), subject=args.subject)
    _tell(found)
    if args.page is not None:
        print(f"page: {write_output(args.page, site_check_page(found).encode())}")
    return 0 if found.passed else 1


def _atlas(name: str | None, root: Path) -> Atlas:
    """The one asked for; a phantom's own, which lies beside it; else one that needs no download."""
    own = next(iter(sorted((root.resolve().parent / "atlas").glob("*.nii.gz"))), None)
    return get_atlas(name or own or DEFAULT_ATLAS)


def _tell(found: SiteCheck) -> None:
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(f"{found.site.name}: {found.recording or 'no recording could be read'}")
    width = max((len(check.name) for check in found.checks), default=0)
    for check in found.checks:
        mark = f"{COLOURS[check.state]}{MARKS[check.state]}\033[0m" if colour else MARKS[check.state]
        print(f"  {mark}  {check.name:<{width}}  {shorten(check.found, LONGEST)}")
        if check.fix and check.state != "pass":
            print(f"        {'':<{width}}  -> {shorten(check.fix, LONGEST)}")
    n_failed = sum(check.state == "fail" for check in found.checks)
    n_warned = sum(check.state == "warn" for check in found.checks)
    verdict = "passed" if found.passed else f"{n_failed} failed: correct the facts and check again"
    print(f"{verdict} ({len(found.checks)} checks, {n_warned} to look at, {found.seconds:.1f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(run_job(main))
