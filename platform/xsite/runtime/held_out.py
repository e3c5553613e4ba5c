"""Held-out recordings: measured once per fold, predicted by every model, brought to tables.

Runs beside the trainings and gives nothing back to them. A recording that several folds test (growing numbers of
training sites, train-on-i test-on-j) is scored in each; the main table keeps the folds with the most training sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from xsite.errors import RecipeError
from xsite.evaluation.controls import fold_seed
from xsite.evaluation.folds import Fold
from xsite.evaluation.plan import Plan
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.selection import SELECTED
from xsite.evaluation.subjects import subject_scores
from xsite.experiment import Experiment
from xsite.learning.targets import TargetSpec
from xsite.recording import RecordingKey
from xsite.runtime.closed_form import BaselineFactory, fit_baseline
from xsite.runtime.cluster import gather, task
from xsite.runtime.fold_job import FoldJob, ModelFactory
from xsite.runtime.inputs import StudyData
from xsite.runtime.scoring import BASELINE_WINDOW_S, Measured, measure, oracle_of, predict_checkpoint, predictions_of


@dataclass(frozen=True)
class Task:
    """One model's predictions of one fold's test side, under way."""

    fold: str
    model: str
    control: bool
    seed: int
    ref: Any


Predicted = Mapping[str, Sequence[Prediction]]
"""Fold label to the predictions of its test side, by all models and seeds."""


class HeldOut:
    """Everything that sees the test sides of a study.

    Parameters
    ----------
    experiment : Experiment
    data : StudyData
    folds : sequence of Fold
    plan : Plan
    """

    def __init__(self, experiment: Experiment, data: StudyData, folds: Sequence[Fold], plan: Plan) -> None:
        self.experiment, self.data, self.plan = experiment, data, plan
        self.folds = {fold.held_out: fold for fold in folds}
        self.measured: dict[str, Any] = {}
        self.known: dict[str, Sequence[Prediction]] = {}
        self.tasks: list[Task] = []
        self.window_s = BASELINE_WINDOW_S

    def check(self, baselines: Mapping[str, BaselineFactory], windows_s: Iterable[float]) -> None:
        """Refuse closed-form models that cannot work, and note which volumes every model can predict; before training.

        Parameters
        ----------
        baselines : mapping of name to factory
        windows_s : iterable of float
            Seconds of EEG that each trained model needs before a volume. The longest decides what is scored.

        Raises
        ------
        RecipeError, ChannelError
            A closed-form model cannot do with the channels that all recordings share, or they share none.
        """
        self.window_s = max((self.window_s, *windows_s))
        if any(name in baselines for name in (*self.experiment.baselines, *self.experiment.controls)):
            self.data.baseline_channels(self.experiment)
        for name in dict.fromkeys((*self.experiment.baselines, *self.experiment.controls)):
            check = getattr(baselines[name](), "check_channels", None) if name in baselines else None
            if check is None:
                continue
            ch_names, _ = self.data.baseline_channels(self.experiment)
            try:
                check(ch_names)
            except ValueError as error:
                raise RecipeError(
                    f"baseline {name!r} cannot do with the {len(ch_names)} channels that all recordings share: {error}"
                    f" (take {name!r} out of baselines and controls), set data.channels: spline, or leave out the "
                    "sites that lack them (data.sites)"
                ) from error

    def measure(self) -> None:
        """Start measuring targets, global signals and, on phantoms, the truth."""
        for label in self.folds:
            self.measured[label] = task(measure).remote(self._asked(label), self.spec(label), self.window_s)

    def fit_baselines(self, baselines: Mapping[str, BaselineFactory]) -> None:
        """Start the closed-form models, once per fold: they have no seed."""
        asked = [(name, False) for name in self.experiment.baselines]
        asked += [(name, True) for name in self.experiment.controls if name in baselines]
        if not asked:
            return
        ch_names, channels = self.data.baseline_channels(self.experiment)
        for name, control in asked:
            for label, fold in self.folds.items():
                spec = self.spec(label)
                ref = task(fit_baseline).remote(
                    baselines[name], self.data.training_refs(fold.train, spec),
                    self.data.training_refs(fold.val, spec), self._asked(label, control=control), spec=spec,
                    ch_names=ch_names, channels=channels, reference=self.experiment.data.reference,
                    high_pass=self.experiment.data.high_pass, adapt=self.experiment.data.adapt,
                    control_seed=fold_seed(self.experiment.seed, label) if control else None,
                )  # fmt: skip
                self.tasks.append(Task(label, name, control, 0, ref))

    def predict(self, jobs: Sequence[FoldJob], build_model: ModelFactory) -> None:
        """Start predicting with finished checkpoints."""
        start = task(predict_checkpoint, num_gpus=min(1.0, self.experiment.scale.gpus_per_worker))
        for job in jobs:
            label = str(job.held_out)
            ref = start.remote(job.folder, build_model, self._asked(label, control=job.control))
            self.tasks.append(Task(label, job.model, job.control, job.seed[0], ref))

    def collect(self, on_predicted: Callable[[int, int], None]) -> tuple[Predicted, Mapping[RecordingKey, Any]]:
        """Wait for everything; predictions by fold, and the global signal of each recording that has one.

        What was said about validation recordings goes to ``known``, by fold. ``on_predicted`` hears how many models
        have predicted a test side, of how many.
        """
        sides: list[Mapping[RecordingKey, Measured]] = gather(list(self.measured.values()))
        measured = dict(zip(self.measured, sides, strict=True))
        found = {label: list(oracle_of(measured[label])) for label in measured}
        said = gather([t.ref for t in self.tasks], lambda n_done: on_predicted(n_done, len(self.tasks)))
        for t, predicted in zip(self.tasks, said, strict=True):
            own = predictions_of(predicted, measured[t.fold], t.model, t.control)
            found[t.fold] += [replace(prediction, seed=t.seed) for prediction in own]
        for label, fold in self.folds.items():
            tested = set(fold.test)
            self.known[label] = [p for p in found[label] if p.key not in tested]
            found[label] = [p for p in found[label] if p.key in tested]
        signals = {key: one.global_V for side in sides for key, one in side.items()}
        return found, {key: global_V for key, global_V in signals.items() if np.isfinite(global_V).any()}

    def _asked(self, label: str, *, control: bool = False) -> list[Any]:
        """Test recordings and, where sites are held out, validation recordings of known sites, to set beside them.

        Of the folds with some training sites only, those of site to site: their known site is the matrix's diagonal.
        Growing numbers of sites would have as many known scores of a site as folds that train on it.
        """
        fold = self.folds[label]
        beside = fold.unit == "site" or self.experiment.folds.scheme == "site-to-site"
        known = self.plan.sides[label].val if beside and not control else ()
        return list(self.data.refs_of((*fold.test, *known)))

    def spec(self, label: str) -> TargetSpec:
        """What the targets of a fold's test side are made by."""
        sides = self.plan.sides[label]
        return self.data.spec(self.experiment, sides.train, sides.segments)


def main_predictions(found: Predicted, folds: Sequence[Fold]) -> list[Prediction]:
    """Each recording from the fold that trained on most sites; equals count like seeds: scored alone, then averaged."""
    n_sites = {fold.held_out: len(fold.train_sites) for fold in folds}
    testers: dict[RecordingKey, list[str]] = {}
    for fold in folds:
        for key in fold.test:
            testers.setdefault(key, []).append(fold.held_out)
    most = {key: max(n_sites[label] for label in labels) for key, labels in testers.items()}
    kept = {key: [label for label in labels if n_sites[label] == most[key]] for key, labels in testers.items()}
    result = []
    for label, predictions in found.items():
        for p in predictions:
            if label in (equals := kept[p.key]):
                result.append(replace(p, seed=p.seed * len(equals) + equals.index(label)))
    order = list(dict.fromkeys(key.site for fold in folds for key in fold.test))
    if any(len({key.site for key in fold.test}) > 1 for fold in folds):
        order.sort()  # else the tables would begin with the sites of the first fold, and end with the one that trained
    return sorted(result, key=lambda p: order.index(p.key.site))


def fold_scores(
    found: Predicted, folds: Sequence[Fold], parcels: Sequence[str], signals: Mapping[RecordingKey, Any]
) -> pd.DataFrame:
    """Scores of every fold on its own, with the columns ``fold`` and ``n_train_sites``."""
    tables = []
    for fold in folds:
        table = score_predictions(found[fold.held_out], parcels=parcels, global_signals=signals)
        tables.append(table.assign(fold=fold.held_out, n_train_sites=len(fold.train_sites)))
    return pd.concat(tables, ignore_index=True)


def known_scores(known: Predicted, parcels: Sequence[str], signals: Mapping[RecordingKey, Any]) -> pd.DataFrame | None:
    """Scores of validation recordings with the column ``held_out``, the fold; None where nobody was asked."""
    tables = [
        score_predictions(own, parcels=parcels, global_signals=signals).assign(held_out=label)
        for label, own in known.items()
        if own
    ]
    return pd.concat(tables, ignore_index=True) if tables else None


def with_selected(found: Predicted, chosen: Mapping[str, str]) -> Predicted:
    """Add the chosen variant's predictions of each fold once more, as the model ``selected``."""
    return {
        label: [
            *predictions,
            *(replace(p, model=SELECTED) for p in predictions if p.model == chosen[label] and not p.control),
        ]
        for label, predictions in found.items()
    }


def run_figures(by_fold: pd.DataFrame, plan: Plan) -> dict[str, dict[str, float]]:
    """Mean R and MSE of every scored run on its own fold's test side, by run label.

    Parameters
    ----------
    by_fold : DataFrame
        Of :func:`fold_scores`. The main table will not do: where several folds test a recording it keeps few of them,
        and numbers their seeds anew.
    plan : Plan
    """
    figures = {}
    for run in plan.of("fold", "control"):
        mine = by_fold["model"].eq(run.variant) & by_fold["control"].astype(bool).eq(run.purpose == "control")
        own = by_fold[mine & by_fold["seed"].eq(run.seed) & by_fold["fold"].eq(run.fold)]
        if len(own):
            subjects = subject_scores(own)
            figures[run.label] = {f"ood/{name}_mean": float(subjects[name].mean()) for name in ("r", "mse")}
    return figures
