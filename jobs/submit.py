"""Run any verb on a Ray cluster: the same command line, with ``submit`` in front of it.

neurobolt submit --address http://127.0.0.1:8265 ingest all --bids /data/bids --store /data/store
neurobolt submit --address https://ray.lab.org loso my.yaml --store s3://lab/store --study /shared/s --tracking http://m:5000

The recipe is resolved here and travels as JSON; our packages travel with the job. Every place in the command line
(store, study, tracking, OUT, STUDY, ...) must be an absolute path or a URL, readable from the cluster. The token is
read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence

from jobs.cli import VERBS, run_job
from jobs.loso import resolve_recipe
from xsite.data import atlases
from xsite.runtime.submission import follow_job, require_absolute, submit_job

EXAMPLE = """example:
  neurobolt submit --address http://127.0.0.1:8265 ingest all --bids /data/bids --store /data/store"""

HERE_ONLY = ("submit", "ui", "demo", "site")
WITH_RECIPE = ("loso", "train", "tune")
NEEDED = {
    "loso": ("store", "study", "tracking"),
    "train": ("store", "out", "tracking"),
    "tune": ("store", "study"),
    "calibrate": ("study", "store"),
    "ingest": ("bids", "store"),
    "evaluate": ("model", "store", "tracking"),
    "register": ("study", "tracking"),
    "table": ("study",),
    "predict": ("model", "out", "eeg", "tracking"),
    "phantom": ("out",),
    "quality": ("store", "out"),
    "doctor": (),
}
"""Places of each verb that must be given: options and positional words alike, by their name in its parser."""

OPTIONAL = {
    "ingest": ("atlas",),
    "evaluate": ("out",),
    "phantom": ("bold_from", "sidecars"),
    "doctor": ("store", "tracking"),
}


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        "neurobolt submit", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--address", default=os.environ.get("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265"))
    p.add_argument("--python", default=sys.executable, help="interpreter on the cluster (default: the one that runs)")
    p.add_argument("--id", dest="submission_id", help="name of the job; the same name twice is refused by Ray")
    p.add_argument("--no-wait", action="store_true", help="print the job's id and return")
    p.add_argument("verb", metavar="VERB", choices=sorted(set(VERBS) - set(HERE_ONLY)), help="loso, ingest, train, ...")
    p.add_argument("words", nargs=argparse.REMAINDER, metavar="...", help="the verb's own command line")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Submit, show the job's output, return 1 if it failed."""
    args = parser().parse_args(argv)
    words = resolve(args.verb, args.words)
    job = submit_job(
        f"jobs.{args.verb}", words, address=args.address, python=args.python, submission_id=args.submission_id
    )
    print(f"job {job} on {args.address}", flush=True)
    if args.no_wait:
        return 0
    try:
        return 0 if follow_job(args.address, job) else 1
    except KeyboardInterrupt:
        print(f"\nthe job goes on; stop it with: ray job stop {job} --address {args.address}", file=sys.stderr)
        raise


def resolve(verb: str, words: Sequence[str]) -> list[str]:
    """Command line for the cluster: places checked, the recipe with its overrides as JSON.

    The verb's own parser reads the words, so that every spelling that works here means the same there.

    Raises
    ------
    RecipeError
        A place is relative or missing, or the recipe is not valid.
    """
    own: argparse.ArgumentParser = importlib.import_module(f"jobs.{verb}").parser()
    args = own.parse_args(list(words))
    require_absolute(_places(verb, own, args))
    if verb not in WITH_RECIPE:
        return list(words)
    experiment = resolve_recipe(args.recipe, tuple(args.overrides))
    sent = json.dumps(experiment.model_dump(mode="json"))
    return [sent if word == args.recipe else word for word in _without_overrides(words)]


def _places(verb: str, own: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, str | None]:
    """What the person would call each place, and what was given."""
    titles = {a.dest: a.option_strings[0] if a.option_strings else str(a.metavar or a.dest) for a in own._actions}
    places = {titles[name]: getattr(args, name) for name in NEEDED[verb]}
    places |= {titles[name]: getattr(args, name) for name in OPTIONAL.get(verb, ()) if getattr(args, name) is not None}
    if verb == "ingest" and args.site.endswith((".yaml", ".yml")):
        places[titles["site"]] = args.site
    if verb == "ingest":
        if args.dry_run:
            places.pop(titles["store"])  # it writes nothing
        if args.atlas in atlases.NAMES:  # fetched there
            places.pop(titles["atlas"])
    if verb == "phantom" and args.like and "/" in args.like:
        places[titles["like"]] = args.like
    if verb == "doctor" and args.folder != own.get_default("folder"):
        places[titles["folder"]] = args.folder
    return {title: None if value is None else str(value) for title, value in places.items()}


def _without_overrides(words: Sequence[str]) -> list[str]:
    """The words less ``--set KEY=VALUE``, ``--set=KEY=VALUE`` and the abbreviations that argparse takes."""
    only = argparse.ArgumentParser(add_help=False)
    only.add_argument("--set", action="append")
    return only.parse_known_args(list(words))[1]


if __name__ == "__main__":
    sys.exit(run_job(main))
