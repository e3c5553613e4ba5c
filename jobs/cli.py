"""The console script ``neurobolt``: one verb per job.

``neurobolt VERB ...`` is the same as ``python -m jobs.VERB ...``.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from xsite.errors import StoreError, XsiteError

VERBS = {
    "demo": "the whole road on a phantom consortium: raw recordings to a registered model",
    "phantom": "write a consortium of simulated sites, as BIDS data sets with a known truth",
    "site": "draft the facts of your own site from its files, and check them",
    "ingest": "bring one site's raw recordings into the shared-format store",
    "quality": "write a page per recording, per site and for the consortium: what is in the store, how good, why not",
    "train": "train one model on named recordings",
    "tune": "choose each variant's settings on training sites, the same number of draws for all",
    "loso": "run a leave-one-site-out study",
    "calibrate": "score a finished study again after fine-tuning on k labelled subjects of each held-out site",
    "table": "one table of a finished study: all models, intervals, speed, size",
    "evaluate": "score a registered model, run or checkpoint on a store, without training",
    "register": "pass a study through the gate and register its final model",
    "predict": "turn an EEG file into parcel time series with a registered model",
    "submit": "run any of these verbs on a Ray cluster",
    "ui": "open the MLflow server: studies, curves, model registry",
    "doctor": "print versions, cluster, tracking, store, disk, and what is wrong",
}


NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
"""A full or closed disk: the person's to mend, so a message and not a traceback."""


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
    except OSError as error:
        if error.errno not in NO_PLACE:
            raise
        print(f"neurobolt: {error}; free some space or choose another folder, then run it again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("neurobolt: interrupted; what was finished is kept, run the same command again to go on", file=sys.stderr)
        return 130


def write_output(path: Path, content: bytes) -> Path:
    """Write a job's result all or nothing: a reader never sees half a file.

    Raises
    ------
    StoreError
        The disk is full or refuses; what was there before stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error}); free some space or choose another folder") from error
    finally:
        if partial.is_file():
            partial.unlink()
    return path


if __name__ == "__main__":
    sys.exit(main())
