"""Run any verb on a Ray cluster: the same command line, with ``submit`` in front of it.

neurobolt submit --address http://127.0.0.1:8265 ingest all --bids /data/bids --store /data/store
neurobolt submit --address https://ray.lab.org loso my.yaml --store s3://lab/store --study /shared/s --tracking http://m:5000

The recipe is resolved here and travels as JSON; our packages travel with the job. Store, study and tracking must be
absolute paths or URLs, readable from the cluster. The token is read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
~/.ray/auth_token.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from jobs.cli import VERBS, run_job
from xsite.errors import RecipeError
from xsite.experiment import load_experiment
from xsite.runtime.submission import follow_job, require_absolute, submit_job

EXAMPLE = """example:
  neurobolt submit --address http://127.0.0.1:8265 ingest all --bids /data/bids --store /data/store"""

HERE_ONLY = ("submit", "ui", "demo")
WITH_RECIPE = ("loso", "train")
PLACES = {"--store", "--study", "--tracking", "--bids", "--atlas", "--out", "--eeg", "--bold-from", "--folder"}
NEEDED = {
    "loso": ("--store", "--study", "--tracking"),
    "train": ("--store", "--out", "--tracking"),
    "ingest": ("--bids", "--store"),
    "evaluate": ("--store", "--tracking"),
    "register": ("--tracking",),
    "predict": ("--tracking",),
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

    Raises
    ------
    RecipeError
        A place is relative or missing, or the recipe is not valid.
    """
    given = dict(_places(words))
    require_absolute({**dict.fromkeys(NEEDED.get(verb, ())), **given})
    words = list(words)
    if verb not in WITH_RECIPE:
        require_absolute({f"{word}": word for word in words[:1] if word.endswith((".yaml", ".yml"))})
        return words
    overrides = []
    while "--set" in words:
        place = words.index("--set")
        overrides += words[place + 1 : place + 2]
        del words[place : place + 2]
    recipe = next((word for word in words if word.endswith((".yaml", ".yml", ".json"))), None)
    if recipe is None:
        raise RecipeError(f"submit {verb}: no recipe (a .yaml file) in the command line: {' '.join(words)}")
    experiment = load_experiment(recipe, tuple(overrides))
    words[words.index(recipe)] = json.dumps(experiment.model_dump(mode="json"))
    return words


def _places(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Options that name a place, spelt ``--store X`` or ``--store=X``."""
    found: list[tuple[str, str | None]] = []
    for word, after in zip(words, [*words[1:], None], strict=True):
        option, equals, value = word.partition("=")
        if option in PLACES:
            found.append((option, value if equals else after))
    return found


if __name__ == "__main__":
    sys.exit(run_job(main))
