"""What a study says while it runs: lines for people, and MLflow. Only the driver's process comes here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xsite.evaluation.plan import Plan
from xsite.evaluation.selection import RULES
from xsite.runtime.study import code_tags
from xsite.spelling import counted
from xsite.tracking import StudyTracker

Event = Mapping[str, Any]


def print_event(event: Event) -> None:
    """One line per fold and epoch, with the time that is left if no fold stops early."""
    if event["kind"] == "plan":
        plan = event["plan"]
        counts = f"{counted(event['n_trainings'], 'training')} ({plan_counts(plan)})"
        print(f"{counted(event['n_recordings'], 'recording')}, {counted(len(event['folds']), 'fold')}, {counts}")
        print(f"plan {plan.hash}, selection {plan.selection}: {RULES[plan.selection]}", flush=True)
    elif event["kind"] == "stage":
        print(f"-- {event['stage']}", flush=True)
    elif event["kind"] == "predicted":
        print(f"predicted {event['n_done']} of {event['n_predictions']} test sides", flush=True)
    elif event["kind"] == "epoch":
        metrics = event["metrics"]
        val = f"val {metrics['val_loss']:.4f}  " if "val_loss" in metrics else ""
        left = f"ETA {_clock(event['eta_s'])}" if event.get("eta_s") is not None else ""
        print(
            f"{_name(event):<28} {_count(event)}epoch {event['epoch']:>3}/{event['n_epochs']}  "
            f"train {metrics['train_loss']:.4f}  {val}{metrics['windows_per_s']:.0f} windows/s  {left}",
            flush=True,
        )
    elif event["kind"] == "fold_done":
        how = "was finished" if event.get("skipped") else f"{event['seconds']:.0f} s"
        print(f"{_name(event):<28} {_count(event)}done: best epoch {event['best_epoch']} ({how})", flush=True)
    elif event["kind"] == "fold_started" and event["resumed"]:
        print(f"{_name(event):<28} goes on from its last saved epoch", flush=True)


class TrackedStudy:
    """Passes a study's events on to MLflow: one child run per training, figures on the parent at the end.

    Parameters
    ----------
    tracker : StudyTracker
        Entered; :meth:`start` opens the parent run.
    store : str
    """

    def __init__(self, tracker: StudyTracker, store: str) -> None:
        self.tracker, self.store = tracker, store
        self.open: dict[str, tuple[str, Event]] = {}
        self.single = True

    def __call__(self, event: Event) -> None:
        """Take one event."""
        print_event(event)
        kind = event["kind"]
        if kind == "plan":
            self.start(event)
        elif kind == "epoch":
            self.tracker.log_epoch(self._fold(event), event["epoch"], event["metrics"])
        elif kind == "fold_done":
            fold = self._fold(event)
            for row in event["history"] if event.get("skipped") else ():
                self.tracker.log_epoch(fold, int(row["epoch"]), row)
            self.open[event["label"]] = (fold, event)
        elif kind == "summary":
            self.finish(event["summary"], event["runs"])

    def start(self, event: Event, *, run_name: str = "leave-one-site-out") -> None:
        """Open the parent run with the experiment as its parameters."""
        experiment = event["experiment"]
        tags = {"algorithm": experiment.algorithm.name, "selection_rule": experiment.select_on, **code_tags()}
        self.single = len(experiment.labels) == len(experiment.training_seeds) == 1
        tags |= {"data_hash": event["data_hash"], "plan": event["plan"].hash}
        self.tracker.start(experiment.flat(), fingerprint=experiment.fingerprint, tags=tags, run_name=run_name)
        self.tracker.log_dataset(experiment.data.target + "-target", digest=event["data_hash"], source=self.store)

    def finish(self, summary: Mapping[str, Any], runs: Mapping[str, Mapping[str, float]]) -> None:
        """Close the runs with their held-out figures, and log the study's."""
        nulls = {(r["site"], r["model"], r["control"]): r["p_null"] for r in summary["rows"]}
        for label, (fold, event) in self.open.items():
            figures = {**runs.get(label, {}), "best_epoch": event["best_epoch"]}
            p_null = nulls.get((event["fold"], event["model"], event["control"])) if self.single else None
            self.tracker.end_fold(fold, figures | ({} if p_null is None else {"ood/p_null": p_null}))
        self.tracker.log_final(study_metrics(summary))

    def _fold(self, event: Event) -> str:
        """Child run of a training; one variant and one seed need no more than the name of what is held out."""
        facts = {"variant": event["model"], "seed": event["seed"], "purpose": event["purpose"]}
        tags = {name: str(value) for name, value in facts.items()} | {"held_out": str(event["fold"])}
        if event["purpose"] == "final":
            return self.tracker.fold(None, tags=tags)
        name = event["label"]
        if event["purpose"] == "inner":
            name = f"inner/{name}"
        elif self.single:
            name = event["fold"] + ("-control" if event["control"] else "")
        tags |= {"control": "true"} if event["control"] else {}
        return self.tracker.fold(event["fold"], name=name, tags=tags)


def study_metrics(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """``ood/r_mean``, ``ood/r_<site>``, ``ood/mse_mean``, and each other model's ``r_mean``."""
    model = summary["model"]
    own = [row for row in summary["rows"] if row["model"] == model and not row["control"]]
    metrics: dict[str, float | None] = {f"ood/r_{row['site']}": row["r_mean"] for row in own}
    errors = [row["mse_mean"] for row in own if row["mse_mean"] is not None]
    metrics["ood/mse_mean"] = sum(errors) / len(errors) if errors else None
    for row in summary["overall"]:
        name = row["model"] + ("-control" if row["control"] else "")
        metrics["ood/r_mean" if name == model else f"{name}/r_mean"] = row["r_mean"]
    return metrics


def _name(event: Event) -> str:
    name = f"{event['fold']} {event['model']}" + (" (control)" if event["control"] else "")
    return name + (f" seed {event['seed']}" if event.get("seed") else "")


def plan_counts(plan: Plan) -> str:
    """``24 fold, 3 control, 1 final``."""
    return ", ".join(f"{n} {purpose}" for purpose, n in plan.counts().items())


def _count(event: Event) -> str:
    return f"[{event['n_done']}/{event['n_trainings']}] " if "n_done" in event else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
