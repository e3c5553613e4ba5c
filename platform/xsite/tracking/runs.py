"""One study in MLflow: a parent run, one child run per fold, and one for the final model.

Only the driver writes. A study that is run again with the same plan goes into the same runs. While MLflow is away the
writes go into a spool and are sent later, in order.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mlflow.exceptions import MlflowException

from xsite.errors import TrackingError
from xsite.tracking.client import first_line
from xsite.tracking.spool import Spool, Write
from xsite.tracking.writer import FINAL, PARENT, RunWriter

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
PARAM_LENGTH = 6000  # MLflow's limit; longer values are cut, the whole experiment is an artifact anyway
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


class StudyTracker:
    """Write one study to MLflow; use as a context manager.

    Parameters
    ----------
    tracking_uri : str
        As :func:`xsite.tracking.resolve_tracking_uri` returns it.
    experiment_name : str
        MLflow experiment, one per study name.
    spool : Path, optional
        File for writes during an outage; default ``studies/<experiment_name>/tracking_spool.jsonl``.

    Raises
    ------
    TrackingError
        The store does not answer at the start, or refuses a write as invalid.

    Examples
    --------
    ::

        with StudyTracker(uri, "demo") as tracker:
            tracker.start(experiment.flat(), fingerprint=experiment.fingerprint, tags={"data_hash": digest})
            tracker.fold("siteA")
            tracker.log_epoch("siteA", 0, {"train_loss": 1.0, "val_loss": 1.1})
            tracker.end_fold("siteA", {"r_mean": 0.4})
            tracker.log_final({"ood/r_mean": 0.4})
            tracker.log_artifact(study_dir / "report.html")
    """

    def __init__(self, tracking_uri: str, experiment_name: str, *, spool: Path | None = None) -> None:
        self.tracking_uri = tracking_uri
        self.experiment_name = experiment_name
        self._spool = Spool(spool or Path("studies") / experiment_name / "tracking_spool.jsonl")
        self._writer = RunWriter(tracking_uri, experiment_name)
        self._open: list[str] = []
        self._retry_at: float | None = None  # monotonic time of the next attempt during an outage
        self._plan = ""
        self._tags: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        for run in reversed(self._open.copy()):
            self._end(run, status)
        if self.flush():
            logger.warning(
                "MLflow at %s did not take %d writes; they wait in %s: run the same command again to send them",
                self.tracking_uri, len(self._spool), self._spool.path,
            )  # fmt: skip

    def start(
        self,
        params: Mapping[str, Any],
        *,
        fingerprint: str,
        tags: Mapping[str, str] | None = None,
        run_name: str = "leave-one-site-out",
    ) -> str:
        """Open the parent run, or the one that an earlier run of the same plan has made; return its id.

        ``fingerprint`` and the tag ``data_hash`` together are the plan.
        """
        self._tags = {str(k): str(v) for k, v in (tags or {}).items()}
        self._plan = hashlib.sha256(f"{fingerprint}:{self._tags.get('data_hash', '')}".encode()).hexdigest()[:12]
        self.flush()  # what an earlier, interrupted process of this study left behind comes first
        tags_all = {**self._tags, "kind": PARENT, "fingerprint": fingerprint, "plan_hash": self._plan}
        self._create(PARENT, run_name, tags_all, params)
        if PARENT not in self._writer.runs:
            raise TrackingError(f"MLflow at {self.tracking_uri} stopped answering before the study had started")
        return self._writer.runs[PARENT]

    @property
    def run_id(self) -> str:
        """Id of the parent run."""
        return self._writer.runs[PARENT]

    def fold_run_id(self, fold: str) -> str | None:
        """Id of a fold's run; ``None`` while an outage has kept it from being made."""
        return self._writer.runs.get(fold)

    def fold(
        self,
        held_out: str | None,
        *,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Open the child run of one fold (``None``: the final model); return the name used in the other calls.

        ``name`` tells two trainings of one fold apart, such as ``siteA/neurobolt-control``; default: the site's name.
        """
        name = name or held_out or FINAL
        if name not in self._open:
            own = {"kind": FINAL if held_out is None else "fold", "fold": name, "held_out_site": held_out or "none"}
            title = "final model" if held_out is None else f"held-out {name}"
            self._create(name, title, {**self._tags, **(tags or {}), **own, "plan_hash": self._plan}, params or {})
        return name

    def log_epoch(self, fold: str, epoch: int, metrics: Mapping[str, Any]) -> None:
        """Add one epoch to a fold's curves, in one request; values that are not numbers are left out."""
        self._do({"do": "log", "run": fold, "metrics": _metrics(metrics, epoch), "epoch": epoch})

    def end_fold(self, fold: str, metrics: Mapping[str, Any] | None = None, *, status: str = "FINISHED") -> None:
        """Log a fold's closing figures and close its run."""
        if metrics:
            self._do({"do": "log", "run": fold, "metrics": _metrics(metrics, 0)})
        self._end(fold, status)

    def log_final(self, metrics: Mapping[str, Any], *, fold: str = PARENT) -> None:
        """Log the study's figures (``ood/r_mean``, ``ridge/r_mean``, ...) on the parent run."""
        self._do({"do": "log", "run": fold, "metrics": _metrics(metrics, 0)})

    def set_tags(self, tags: Mapping[str, str], *, fold: str = PARENT) -> None:
        """Set tags on the parent run, or on a fold's."""
        self._do({"do": "log", "run": fold, "tags": {str(k): str(v) for k, v in tags.items()}})

    def log_artifact(self, path: str | Path, *, fold: str = PARENT, folder: str | None = None) -> None:
        """Keep a file, or a folder with all its files, with the run."""
        self._do({"do": "artifact", "run": fold, "path": str(Path(path).resolve()), "folder": folder})

    def log_dataset(self, name: str, *, digest: str, source: str, profile: str = "") -> None:
        """Note which data the study used: the store's URL, and the hash of its manifest as digest."""
        fact = {"name": name, "digest": digest[:36], "source": source, "profile": profile}
        self._do({"do": "dataset", "run": PARENT, **fact})

    def flush(self) -> int:
        """Try to send what the spool holds; return how many writes are left.

        A write that can never be taken (refused as invalid, its file or run gone) is dropped with a warning: it would
        stand in the way of all others, at every later start.
        """
        writes = self._spool.read()
        for done, write in enumerate(writes):
            try:
                self._writer.send(write)
            except (MlflowException, OSError, TrackingError, KeyError, TypeError, ValueError) as error:
                if _is_hopeless(error):
                    text = f"{type(error).__name__}: {first_line(error)}"
                    logger.warning("MLflow will never take %s on %r (%s); dropped", write["do"], write["run"], text)
                    continue
                self._away(error)
                self._spool.keep(writes[done:])
                return len(writes) - done
        self._spool.keep([])
        self._retry_at = None
        return 0

    def _create(self, run: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> None:
        text = {key: str(value)[:PARAM_LENGTH] for key, value in params.items()}
        self._open.append(run)
        self._do({"do": "create", "run": run, "name": name, "tags": dict(tags), "params": text, "time": _now()})

    def _end(self, run: str, status: str) -> None:
        if run in self._open:
            self._open.remove(run)
        self._do({"do": "end", "run": run, "status": status, "time": _now()})

    def _do(self, write: Write) -> None:
        write = {"plan": self._plan, **write}
        if self._retry_at is not None:
            self._spool.append(write)
            if time.monotonic() >= self._retry_at:
                self.flush()
            return
        try:
            self._writer.send(write)
        except (MlflowException, OSError) as error:
            if isinstance(error, FileNotFoundError) or getattr(error, "error_code", "") in REFUSALS:
                raise TrackingError(f"MLflow refuses {write['do']} on {write['run']!r}: {first_line(error)}") from error
            self._away(error)
            self._spool.append(write)

    def _away(self, error: Exception) -> None:
        if self._retry_at is None:
            logger.warning("MLflow is away (%s); writes go to %s", first_line(error), self._spool.path)
        self._retry_at = time.monotonic() + RETRY_SECONDS


def _is_hopeless(error: Exception) -> bool:
    """Whether sending the same write again must fail again; an outage is not of this kind."""
    if isinstance(error, MlflowException):
        return error.error_code in (*REFUSALS, "RESOURCE_DOES_NOT_EXIST")
    return isinstance(error, FileNotFoundError) or not isinstance(error, OSError)


def _now() -> int:
    return int(time.time() * 1000)


def _metrics(values: Mapping[str, Any], step: int) -> list[tuple[str, float, int, int]]:
    numbers = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    return [(key, value, _now(), step) for key, value in numbers.items() if math.isfinite(value)]
