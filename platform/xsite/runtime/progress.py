"""What a study tells the outside while it runs: events for the driver, ``status.json`` and a log, and an ETA."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from xsite.evaluation.folds import Fold
from xsite.evaluation.plan import Plan
from xsite.experiment import Experiment
from xsite.runtime.board import Event
from xsite.runtime.inputs import StudyData
from xsite.runtime.study import StudyFolder
from xsite.runtime.timeline import Timeline
from xsite.runtime.training import OnEvent

TELL_EVERY_S = 10.0
"""Seconds between two lines about predictions: there may be hundreds, of a second each."""


class Progress:
    """Call it with every event of the trainings; it adds ``eta_s`` and passes the event on.

    Parameters
    ----------
    folder : StudyFolder
        Where ``status.json`` goes.
    on_event : callable
    """

    def __init__(self, folder: StudyFolder, on_event: OnEvent) -> None:
        self.folder, self.on_event = folder, on_event
        self.timeline = Timeline(folder)
        self.began: float | None = None
        self.told = time.monotonic()

    def plan(self, experiment: Experiment, data: StudyData, folds: Sequence[Fold], plan: Plan) -> None:
        """Tell what the study will do."""
        epochs = {label: experiment.variant(label).optim.epochs for label in experiment.labels}
        for run in plan.runs:
            self.folder.trainings[run.label] = {"state": "waiting", "epoch": 0, "n_epochs": epochs[run.variant]}
        facts = {"data_hash": data.data_hash, "n_recordings": len(data.refs), "parcels": data.parcels}
        facts |= {"plan": plan, "n_trainings": len(plan.runs), "folds": [fold.held_out for fold in folds]}
        self.timeline.note({"kind": "plan"})
        self.on_event({"kind": "plan", "experiment": experiment, **facts})

    def stage(self, name: str) -> None:
        """Tell which part of the study begins."""
        self.folder.status(name)
        self.timeline.note({"kind": "stage", "stage": name})
        self.on_event({"kind": "stage", "stage": name})

    def predicted(self, n_done: int, n_predictions: int) -> None:
        """Tell now and then how many test sides are predicted."""
        now = time.monotonic()
        if now - self.told >= TELL_EVERY_S:
            self.told = now
            self.folder.status("scoring")
            self.on_event({"kind": "predicted", "n_done": n_done, "n_predictions": n_predictions})

    def summary(self, summary: Mapping[str, Any], runs: Mapping[str, Mapping[str, float]]) -> None:
        """Tell the result, and the figures of each run by its label."""
        self.folder.status("done")
        self.timeline.note({"kind": "summary"})
        self.on_event({"kind": "summary", "summary": summary, "runs": runs})

    def __call__(self, event: Event) -> None:
        """Take one event of a training, or of the Ray Train runs that take them."""
        self.timeline.note(event)
        if event["kind"] == "runs":
            self.on_event(event)
            return
        label = event["label"]
        row = self.folder.trainings.setdefault(label, {"state": "waiting", "epoch": 0})
        row["n_epochs"] = event["n_epochs"]  # a rule may have found a smaller one since
        if event["kind"] == "fold_started":
            self.began = self.began or time.monotonic()
            row["state"] = "running"
        elif event["kind"] == "epoch":
            row |= {"state": "running", "epoch": event["epoch"], "val_loss": event["metrics"].get("val_loss")}
            event = {**event, "eta_s": self._eta()}
        elif event["kind"] == "fold_done":
            row |= {"state": "done", "best_epoch": event["best_epoch"], "epoch": len(event["history"])}
            row["skipped"] = bool(event.get("skipped"))
        elif event["kind"] == "fold_failed":
            row |= {"state": "failed", "error": str(event["error"])}
        event = {**event, "n_done": self.n_done, "n_trainings": len(self.folder.trainings)}
        self.folder.status("training", eta_s=event.get("eta_s"))
        self.on_event(event)

    @property
    def n_done(self) -> int:
        """Trainings that are finished, by this run of the study or an earlier one."""
        return sum(row["state"] == "done" for row in self.folder.trainings.values())

    def _eta(self) -> float:
        """Seconds until every training has used all its epochs; early stopping makes it shorter."""
        rows = [row for row in self.folder.trainings.values() if not row.get("skipped")]
        done = sum(int(row["epoch"]) for row in rows)
        left = sum(int(row["n_epochs"] - row["epoch"]) for row in rows if row.get("state") != "done")
        return (time.monotonic() - (self.began or time.monotonic())) / max(done, 1) * left
