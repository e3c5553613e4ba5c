"""The console script ``neurobolt``: one verb per job.

``neurobolt VERB ...`` is the same as ``python -m jobs.VERB ...``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from xsite.errors import XsiteError

VERBS = {
    "demo": "the whole road on a phantom consortium: raw recordings to a registered model",
    "phantom": "write a consortium of simulated sites, as BIDS data sets with a known truth",
    "ingest": "bring one site's raw recordings into the shared-format store",
    "train": "train one model on named recordings",
    "loso": "run a leave-one-site-out study",
    "evaluate": "score a registered model, run or checkpoint on a store, without training",
    "register": "pass a study through the gate and register its final model",
    "predict": "turn an EEG file into parcel time series with a registered model",
    "submit": "run any of these verbs on a Ray cluster",
    "ui": "open the MLflow server: studies, curves, model registry",
    "doctor": "print versions, cluster, tracking, store, disk, and what is wrong",
}


def usage() -> str:
    """List the verbs, one line each."""
    width = max(map(len, VERBS))
    lines = ["usage: neurobolt VERB ...", "", "verbs:"]
    lines += [f"  {verb:<{width}}  {text}" for verb, text in VERBS.items()]
    return "\n".join([*lines, "", "neurobolt VERB --help shows each verb's options and an example."])


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatch to the job; errors of ours become one line on stderr and exit code 2.

    Returns
    -------
    int
        0 when the job succeeded, 1 when it finished with failures, 2 for input that it cannot use, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        print(f"neurobolt: unknown verb {verb!r}\n\n{usage()}", file=sys.stderr)
        return 2
    return run_job(importlib.import_module(f"jobs.{verb}").main, rest)


def run_job(job: object, argv: Sequence[str] | None = None) -> int:
    """Call a job's ``main`` and turn our own exceptions into a message and an exit code.

    ``python -m jobs.VERB`` goes through here as well, so that both spellings behave alike.
    """
    assert callable(job)
    try:
        return int(job(argv))
    except XsiteError as error:
        print(f"neurobolt: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("neurobolt: interrupted; what was finished is kept, run the same command again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
