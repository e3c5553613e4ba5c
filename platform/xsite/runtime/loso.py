"""Leave one site out: train every fold, score every held-out recording once, train the final model on all sites.

A study can be stopped at any moment and started again: finished trainings are recognised by their fingerprint and
skipped, an interrupted one goes on at its last saved epoch.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xsite.errors import RecipeError
from xsite.evaluation.controls import fold_seed
from xsite.evaluation.folds import Fold, leave_one_site_out
from xsite.evaluation.scoring import save_predictions, score_predictions
from xsite.evaluation.tables import study_summary
from xsite.experiment import Experiment
from xsite.learning.targets import TargetSpec
from xsite.recording import RecordingKey
from xsite.runtime.cluster import gather, task
from xsite.runtime.inputs import StudyData, absolute_store, load_study, select_manifest
from xsite.runtime.plans import check_model, make_job
from xsite.runtime.progress import Progress
from xsite.runtime.scoring import (
    BaselineFactory,
    Measured,
    fit_baseline,
    measure,
    oracle_of,
    predict_checkpoint,
    predictions_of,
)
from xsite.runtime.study import StudyFolder
from xsite.runtime.training import FoldOutcome, OnEvent, check_scale, train_folds
from xsite.runtime.worker import FoldJob, ModelFactory


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A finished study.

    Parameters
    ----------
    folder : Path
        With all files that :func:`xsite.reports.study.write_report` reads.
    summary : mapping
        Content of ``summary.json``.
    scores : DataFrame
    outcomes : list of FoldOutcome
        One per training, the final model's last.
    final : Path
        Checkpoint of the final model.
    data_hash : str
    """

    folder: Path
    summary: Mapping[str, Any]
    scores: pd.DataFrame
    outcomes: list[FoldOutcome]
    final: Path
    data_hash: str


def plan_folds(experiment: Experiment, store: str) -> tuple[pd.DataFrame, list[Fold]]:
    """Rows of the store that a study uses, and its folds; reads the manifest only.

    Raises
    ------
    FoldError, RecipeError, StoreError
        Fewer than two sites, unknown names, or different parcellations.
    """
    manifest = select_manifest(absolute_store(store), experiment)
    spec = experiment.folds
    folds = leave_one_site_out(manifest, val_fraction=spec.val_fraction, seed=experiment.seed, held_out=spec.held_out)
    return manifest, folds


def run_loso(
    experiment: Experiment,
    store: str,
    study_dir: str | Path,
    *,
    build_model: ModelFactory,
    baselines: Mapping[str, BaselineFactory],
    on_event: OnEvent = lambda event: None,
) -> StudyResult:
    """Run a study on the connected cluster and write its folder.

    Parameters
    ----------
    experiment : Experiment
    store : str
        Folder or URL that every node can read.
    study_dir : str or Path
        Folder that every node can write.
    build_model : callable
        Model factory.
    baselines : mapping of name to factory
        The closed-form models that ``experiment.baselines`` and ``experiment.controls`` may name.
    on_event : callable
        Told what happens, in the driver: ``plan``, ``stage``, ``fold_started``, ``epoch``, ``fold_done``, ``summary``.

    Raises
    ------
    FoldError, RecipeError, StoreError, ClusterError
        The study cannot be run as asked; nothing has been trained then.
    """
    _check_names(experiment, baselines)
    store = absolute_store(store)
    manifest, folds = plan_folds(experiment, store)
    check_scale(experiment)
    folder = StudyFolder(study_dir)
    data = load_study(store, manifest, experiment)
    folder.write_plan(experiment, data, folds)
    study = _Study(experiment, data, folds, folder, build_model, baselines, on_event)
    return study.run()


def _check_names(experiment: Experiment, baselines: Mapping[str, BaselineFactory]) -> None:
    known = sorted(baselines)
    if unknown := [name for name in experiment.baselines if name not in baselines]:
        raise RecipeError(f"baselines names {unknown}, known are {known}")
    able = [*known, experiment.model.name]
    if unknown := [name for name in experiment.controls if name not in able]:
        raise RecipeError(f"controls names {unknown}, possible are {able}")
    if experiment.model.name in baselines:
        raise RecipeError(f"model.name {experiment.model.name!r} is a baseline: list it under baselines")


@dataclass(frozen=True)
class Task:
    """One model's predictions of one held-out site, under way."""

    held_out: str
    model: str
    control: bool
    ref: Any


class _Study:
    def __init__(
        self,
        experiment: Experiment,
        data: StudyData,
        folds: Sequence[Fold],
        folder: StudyFolder,
        build_model: ModelFactory,
        baselines: Mapping[str, BaselineFactory],
        on_event: OnEvent,
    ) -> None:
        self.experiment, self.data, self.folds, self.folder = experiment, data, folds, folder
        self.build_model, self.baselines = build_model, baselines
        self.progress = Progress(folder, on_event)

    def run(self) -> StudyResult:
        """Everything is queued as soon as it can be; the final model trains while the folds are being scored."""
        jobs = [self._job(fold, control) for control in self._controls() for fold in self.folds]
        check_model(jobs[0], self.experiment, self.build_model)
        self.progress.plan(self.experiment, self.data, self.folds, jobs)
        self.progress.stage("baselines and training")
        measured = [task(measure).remote(self._refs(fold.test), self._spec(fold)) for fold in self.folds]
        baselines = self._fit_baselines()
        trained: list[Task] = []

        def after_folds(outcomes: list[FoldOutcome]) -> list[FoldJob]:
            self.progress.stage("scoring and final model")
            trained.extend(self._predict_folds(jobs))
            return [self._final_job(outcomes)]

        storage = self.folder.path / ".ray_train"
        outcomes = train_folds(
            jobs, self.experiment, build_model=self.build_model, storage=storage, on_event=self.progress,
            then=after_folds,
        )  # fmt: skip
        self.folder.write_histories(outcomes)
        scores, summary = self._score(gather(measured), [*baselines, *trained])
        self.progress.summary(summary)
        final = Path(outcomes[-1].job.folder)
        return StudyResult(self.folder.path, summary, scores, outcomes, final, self.data.data_hash)

    def _controls(self) -> list[bool]:
        return [False, True] if self.experiment.model.name in self.experiment.controls else [False]

    def _job(self, fold: Fold, control: bool) -> FoldJob:
        name = self.experiment.model.name + ("-control" if control else "")
        return make_job(
            self.experiment, self.data, fold.train, fold.val, label=f"{fold.held_out}/{name}", held_out=fold.held_out,
            control=control, folder=self.folder.path / "folds" / fold.held_out / name,
            selected_on=self.experiment.select_on,
        )  # fmt: skip

    def _final_job(self, outcomes: Sequence[FoldOutcome]) -> FoldJob:
        """All sites, for the median of the folds' best epochs: nothing is left to stop it early."""
        best = [outcome.best_epoch for outcome in outcomes if not outcome.job.control]
        return make_job(
            self.experiment, self.data, tuple(self.data.refs), (), label="final", held_out=None,
            folder=self.folder.path / "final", selected_on="median of the folds' best epochs",
            n_epochs=max(1, round(statistics.median(best))),
        )  # fmt: skip

    def _fit_baselines(self) -> list[Task]:
        data, experiment = self.data, self.experiment
        if not self._baselines():
            return []
        ch_names, channels = data.baseline_channels(experiment)
        tasks = []
        for name, control in self._baselines():
            for fold in self.folds:
                ref = task(fit_baseline).remote(
                    self.baselines[name], *(self._refs(side) for side in (fold.train, fold.val, fold.test)),
                    spec=self._spec(fold), ch_names=ch_names, channels=channels, reference=experiment.data.reference,
                    control_seed=fold_seed(experiment.seed, fold.held_out) if control else None,
                )  # fmt: skip
                tasks.append(Task(fold.held_out, name, control, ref))
        return tasks

    def _baselines(self) -> list[tuple[str, bool]]:
        plain = [(name, False) for name in self.experiment.baselines]
        return plain + [(name, True) for name in self.experiment.controls if name in self.baselines]

    def _predict_folds(self, jobs: Sequence[FoldJob]) -> list[Task]:
        test = {fold.held_out: self._refs(fold.test) for fold in self.folds}
        predict = task(predict_checkpoint, num_gpus=min(1.0, self.experiment.scale.gpus_per_worker))
        return [
            Task(held_out, job.model, job.control, predict.remote(job.folder, self.build_model, test[held_out]))
            for job in jobs
            if (held_out := job.held_out) is not None
        ]

    def _spec(self, fold: Fold) -> TargetSpec:
        return self.data.spec(self.experiment, fold.train)

    def _refs(self, keys: Sequence[RecordingKey]) -> list[Any]:
        return [self.data.refs[key] for key in keys]

    def _score(
        self, sites: Sequence[Mapping[RecordingKey, Measured]], tasks: Sequence[Task]
    ) -> tuple[pd.DataFrame, Mapping[str, Any]]:
        experiment = self.experiment
        measured = {key: one for site in sites for key, one in site.items()}
        predictions = oracle_of(measured)
        for t, predicted in zip(tasks, gather([t.ref for t in tasks]), strict=True):
            predictions += predictions_of(predicted, measured, t.model, t.control)
        signals = {key: one.global_V for key, one in measured.items() if np.isfinite(one.global_V).any()}
        scores = score_predictions(predictions, parcels=self.data.parcels, global_signals=signals)
        summary = study_summary(
            scores,
            predictions,
            model=experiment.model.name,
            rivals=experiment.baselines,
            surrogates=experiment.surrogates,
            seed=experiment.seed,
            selection=experiment.select_on,
        )
        self.folder.write_table("scores.parquet", scores)
        save_predictions(self.folder.path / "predictions.npz", predictions)
        self.folder.write_json("summary.json", summary)
        return scores, summary
