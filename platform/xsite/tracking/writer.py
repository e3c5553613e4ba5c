"""Turns the writes of :mod:`xsite.tracking.runs` into MLflow calls.

A write names its run by the fold, not by MLflow's id, so that it can be sent later, or twice, and land in the same run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag

from xsite.errors import TrackingError
from xsite.tracking.client import connect, experiment_id
from xsite.tracking.spool import Write

PARENT = "study"
FINAL = "final"


class RunWriter:
    """Send writes of one study to one MLflow store.

    Raises
    ------
    TrackingError
        The store does not answer at the start.
    """

    def __init__(self, tracking_uri: str, experiment_name: str) -> None:
        self.tracking_uri = tracking_uri
        self.runs: dict[str, str] = {}
        self._client = connect(tracking_uri)
        self._experiment = experiment_id(self._client, tracking_uri, experiment_name)
        self._before: dict[str, dict[tuple[str, int], float]] = {}  # curves of runs that an earlier process made

    def send(self, write: Write) -> None:
        """Carry out one write; an ``MlflowException`` or ``OSError`` means that it may be sent again."""
        run, kind = write["run"], write["do"]
        if kind == "create":
            self._create(write)
            return
        if "epoch" in write and run in self._before and self._is_there(write):
            return
        run_id = self.runs.get(run) or self._find(run, write["plan"])
        if run_id is None:
            raise TrackingError(f"MLflow at {self.tracking_uri}: run {run!r} of plan {write['plan']} does not exist")
        if kind == "log":
            self._log(run_id, write)
        elif kind == "artifact":
            self._artifact(run_id, write)
        elif kind == "dataset":
            self._dataset(run_id, write)
        elif kind == "end":
            self._client.set_terminated(run_id, write["status"], end_time=write["time"])

    def _create(self, write: Write) -> None:
        run = write["run"]
        run_id = self._find(run, write["plan"])
        if run_id is None:
            parent = {} if run == PARENT else {"mlflow.parentRunId": self._parent(write["plan"])}
            tags = {**write["tags"], **parent, "mlflow.source.type": "JOB"}
            run_id = self._client.create_run(self._experiment, write["time"], tags, write["name"]).info.run_id
            self._client.log_batch(run_id, params=_params(write["params"]))
        else:
            self._resume(run, run_id, write)
        self.runs[run] = run_id

    def _resume(self, run: str, run_id: str, write: Write) -> None:
        before = self._client.get_run(run_id).data
        if run != PARENT:
            points = [point for key in before.metrics for point in self._client.get_metric_history(run_id, key)]
            self._before[run] = {(point.key, point.step): point.value for point in points}
        missing = {key: value for key, value in write["params"].items() if key not in before.params}
        self._client.update_run(run_id, status="RUNNING")
        self._client.log_batch(run_id, params=_params(missing), tags=[RunTag(k, v) for k, v in write["tags"].items()])

    def _is_there(self, write: Write) -> bool:
        """Whether an earlier process has logged this very epoch.

        Training that goes on after the last epoch keeps its curves. Training that was done anew, with other figures,
        gets a new run: two trainings in one curve would be nobody's.
        """
        run, before = write["run"], self._before[write["run"]]
        same = [before[key, step] == value for key, value, _, step in write["metrics"] if (key, step) in before]
        if same and all(same):
            return True
        if write["epoch"] <= max((step for _, step in before), default=-1):
            self._restart(run)
        del self._before[run]
        return False

    def _restart(self, run: str) -> None:
        old = self._client.get_run(self.runs.pop(run))
        self._client.delete_run(old.info.run_id)
        tags = {key: value for key, value in old.data.tags.items() if not key.startswith("mlflow.")}
        again = {"run": run, "plan": tags["plan_hash"], "name": old.info.run_name, "tags": tags}
        self._create({**again, "params": dict(old.data.params), "time": old.info.start_time})

    def _log(self, run_id: str, write: Write) -> None:
        metrics = [Metric(key, value, stamp, step) for key, value, stamp, step in write.get("metrics", [])]
        tags = [RunTag(key, value) for key, value in write.get("tags", {}).items()]
        if metrics or tags:
            self._client.log_batch(run_id, metrics=metrics, tags=tags)

    def _artifact(self, run_id: str, write: Write) -> None:
        path = Path(write["path"])
        if not path.exists():
            raise FileNotFoundError(f"{path}: the artifact is not there (any more)")
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), write["folder"] or path.name)
        else:
            self._client.log_artifact(run_id, str(path), write["folder"])

    def _dataset(self, run_id: str, write: Write) -> None:
        source = json.dumps({"uri": write["source"]})
        dataset = Dataset(write["name"], write["digest"], "local", source, None, write["profile"] or None)
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, [])])

    def _parent(self, plan: str) -> str:
        parent = self.runs.get(PARENT) or self._find(PARENT, plan)
        if parent is None:
            raise TrackingError(f"MLflow at {self.tracking_uri} has lost the parent run of plan {plan}")
        return parent

    def _find(self, run: str, plan: str) -> str | None:
        """Id of an existing run of this plan, so that nothing is made twice, even when an answer was lost."""
        which = "tags.kind = 'study'" if run == PARENT else f"tags.fold = '{run}'"
        found = self._client.search_runs([self._experiment], f"tags.plan_hash = '{plan}' and {which}", max_results=1)
        return str(found[0].info.run_id) if found else None


def _params(values: dict[str, str]) -> list[Any]:
    return [Param(key, value) for key, value in values.items()]
