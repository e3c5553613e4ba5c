"""Run a study: train every run of its plan, score every held-out recording, train the final model on all sites.

A study can be stopped at any moment and started again: finished trainings are recognised by their hash and skipped, an
interrupted one goes on at its last saved epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from xsite.errors import RecipeError
from xsite.evaluation.figures import recording_figures
from xsite.evaluation.folds import Fold
from xsite.evaluation.leakage import Audit
from xsite.evaluation.plan import ORACLE as ORACLE_RULE
from xsite.evaluation.plan import Plan, make_plan
from xsite.evaluation.scoring import ORACLE, save_predictions, score_predictions
from xsite.evaluation.selection import (
    SELECTED,
    Choice,
    choose,
    oracle_choice,
    selection_record,
    validation_choice,
)
from xsite.evaluation.sides import NESTED
from xsite.evaluation.splits import make_folds
from xsite.evaluation.surrogates import crossed_sites
from xsite.evaluation.tables import study_summary
from xsite.experiment import Experiment
from xsite.learning.targets import TargetSpec
from xsite.runtime.access import closed_form_access, trained_access, whole_recording_variants
from xsite.runtime.audit import audit_trainings, audit_unseen, check_windows
from xsite.runtime.closed_form import BaselineFactory
from xsite.runtime.fold_job import FoldJob, ModelFactory
from xsite.runtime.held_out import (
    HeldOut,
    fold_scores,
    known_scores,
    main_predictions,
    run_figures,
    with_selected,
)
from xsite.runtime.inputs import StudyData, absolute_store, load_study, select_manifest
from xsite.runtime.plans import check_models
from xsite.runtime.progress import Progress
from xsite.runtime.study import StudyFolder
from xsite.runtime.training import FoldOutcome, OnEvent, check_scale, train_folds
from xsite.runtime.trainings import Trainings


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
    final : Path, optional
        Checkpoint of the final model; an oracle study has none.
    data_hash : str
    """

    folder: Path
    summary: Mapping[str, Any]
    scores: pd.DataFrame
    outcomes: list[FoldOutcome]
    final: Path | None
    data_hash: str


def plan_folds(experiment: Experiment, store: str) -> tuple[pd.DataFrame, list[Fold]]:
    """Rows of the store that a study uses, and its folds; reads the manifest only.

    Raises
    ------
    FoldError, RecipeError, StoreError
        Fewer than two sites, unknown names, or different parcellations.
    """
    manifest = select_manifest(absolute_store(store), experiment)
    return manifest, make_folds(manifest, experiment.folds, seed=experiment.seed)


def plan_study(experiment: Experiment, store: str) -> tuple[pd.DataFrame, list[Fold], Plan]:
    """Rows of the store, folds, and every training of a study; reads the manifest only.

    Raises
    ------
    FoldError, RecipeError, StoreError
        As :func:`plan_folds`; or the selection rule does not fit the folds.
    """
    manifest, folds = plan_folds(experiment, store)
    groups = folds
    if experiment.folds.held_out and experiment.select_on == NESTED:
        everybody = experiment.folds.model_copy(update={"held_out": ()})
        groups = make_folds(manifest, everybody, seed=experiment.seed)
    return manifest, folds, make_plan(experiment, manifest, folds, groups)


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
    LeakageError
        The audit failed, and the recipe does not say ``audit: warn``; ``leakage.json`` says why.
    """
    check_names(experiment, baselines)
    store = absolute_store(store)
    manifest, folds, plan = plan_study(experiment, store)
    check_scale(experiment)
    folder = StudyFolder(study_dir)
    data = load_study(store, manifest, experiment, sketch=True)
    folder.write_plan(experiment, data, folds, plan)
    study = _Study(experiment, data, folds, plan, folder, build_model, Progress(folder, on_event))
    return study.run(baselines)


def check_names(experiment: Experiment, baselines: Collection[str]) -> None:
    """Refuse names that nobody has, or that two would have.

    Raises
    ------
    RecipeError
        ``baselines``, ``controls`` or a variant's label is unknown or taken.
    """
    known = sorted(baselines)
    if unknown := [name for name in experiment.baselines if name not in baselines]:
        raise RecipeError(f"baselines names {unknown}, known are {known}")
    able = [*known, *experiment.labels]
    if unknown := [name for name in experiment.controls if name not in able]:
        raise RecipeError(f"controls names {unknown}, possible are {able}")
    if experiment.model.name in baselines:
        raise RecipeError(f"model.name {experiment.model.name!r} is a baseline: list it under baselines")
    if taken := [label for label in experiment.labels if label in (*known, ORACLE, SELECTED)]:
        raise RecipeError(f"variants: {', '.join(taken)} is the name of something else that is scored; rename it")


class _Study:
    def __init__(
        self,
        experiment: Experiment,
        data: StudyData,
        folds: Sequence[Fold],
        plan: Plan,
        folder: StudyFolder,
        build_model: ModelFactory,
        progress: Progress,
    ) -> None:
        self.experiment, self.data, self.folds, self.plan = experiment, data, folds, plan
        self.folder, self.build_model, self.progress = folder, build_model, progress
        self.trainings = Trainings(experiment, data, plan, folder)
        self.held_out = HeldOut(experiment, data, folds, plan)
        self.audit = Audit(())
        self.access: dict[str, str] = {}
        self.whole: set[str] = set()

    def run(self, baselines: Mapping[str, BaselineFactory]) -> StudyResult:
        """Everything is queued as soon as it can be; the final model trains while the folds are being scored."""
        jobs = self.trainings.first()
        windows = check_models(jobs, self.build_model)
        check_windows(self.experiment.folds, windows)
        self.access = closed_form_access(self.experiment, baselines)
        self.whole = whole_recording_variants(jobs, self.build_model)
        self.held_out.check(baselines, windows.values())
        targets, window_s = self._targets(), self.held_out.window_s
        self.audit = audit_unseen(self.experiment, self.data, self.folds, self.plan, jobs, targets, window_s)
        self._enforce()
        self.progress.plan(self.experiment, self.data, self.folds, self.plan)
        self.progress.stage("baselines and training")
        self.held_out.measure()
        self.held_out.fit_baselines(baselines)
        outcomes = train_folds(
            jobs, self.experiment, build_model=self.build_model, storage=self.folder.path / ".ray_train",
            on_event=self.progress, then=self._next, rounds=self.trainings.rounds,
        )  # fmt: skip
        self.folder.write_histories(outcomes)
        self.audit = audit_trainings(
            self.audit, self.experiment, self.data, self.folds, self.plan, outcomes, self._targets()
        )
        self._enforce()
        scores, by_fold, summary = self._score(outcomes)
        self.progress.summary(summary, run_figures(by_fold, self.plan))
        final = next((Path(outcome.job.folder) for outcome in outcomes if outcome.job.purpose == "final"), None)
        return StudyResult(self.folder.path, summary, scores, outcomes, final, self.data.data_hash)

    def _targets(self) -> dict[str, TargetSpec]:
        return {fold.held_out: self.held_out.spec(fold.held_out) for fold in self.folds}

    def _enforce(self) -> None:
        """The verdict is on disk before it stops anything."""
        self.folder.write_json("leakage.json", self.audit.to_dict())
        self.audit.enforce(self.experiment.audit)

    def _next(self, outcomes: list[FoldOutcome]) -> list[FoldJob]:
        """Jobs that could not be known before these outcomes."""
        if self.plan.selection == NESTED and all(outcome.job.purpose == "inner" for outcome in outcomes):
            self.progress.stage("folds, with the epochs that the inner runs chose")
            return self.trainings.fold_jobs({outcome.job.label: outcome.history for outcome in outcomes})
        self.progress.stage("scoring and final model" if self.plan.of("final") else "scoring")
        self.held_out.predict([o.job for o in outcomes if o.job.purpose in ("fold", "control")], self.build_model)
        return self.trainings.final_jobs(outcomes)

    def _score(self, outcomes: Sequence[FoldOutcome]) -> tuple[pd.DataFrame, pd.DataFrame, Mapping[str, Any]]:
        """Tables and summary, written and returned: scores, scores of every fold on its own, ``summary.json``."""
        experiment, parcels = self.experiment, self.data.parcels
        self.folder.clear_tables(self.plan.hash)
        found, signals = self.held_out.collect(self.progress.predicted)
        self.progress.stage("figures, intervals and nulls")
        by_fold = fold_scores(found, self.folds, parcels, signals)
        choices = self._choices(outcomes, by_fold)
        chosen = {fold: choice.variant for fold, choice in choose(choices).items()}
        known: Mapping[str, Any] = self.held_out.known
        if len(experiment.labels) > 1:
            found, known = with_selected(found, chosen), with_selected(known, chosen)
        predictions = main_predictions(found, self.folds)
        scores = score_predictions(predictions, parcels=parcels, global_signals=signals)
        trained = trained_access(experiment, self.whole, chosen.values())
        level, levels = trained[experiment.deployed], self.access | trained
        scores = scores.assign(access=[levels.get(str(model), level) for model in scores["model"]])
        id_scores = known_scores(known, parcels, signals)
        figures = recording_figures(predictions, parcels, self.data.t_r)
        others = [label for label in experiment.labels if label != experiment.deployed]
        summary = study_summary(
            scores,
            predictions,
            model=experiment.deployed,
            rivals=(*experiment.baselines, *others),
            surrogates=experiment.surrogates,
            seed=experiment.seed,
            selection=experiment.select_on,
            access=level,
            access_of=levels,
            trained=experiment.labels,
            n_seeds=len(experiment.training_seeds),
            leakage=self.audit.to_dict(),
            figures=figures,
            id_scores=id_scores,
            crossed=crossed_sites(self.folds),
        )
        record = selection_record(experiment.select_on, choices, experiment.training_seeds)
        summary = {**summary, "chosen": record["chosen"], "deployable": record["deployable"], "plan": self.plan.hash}
        self.folder.write_table("scores.parquet", scores)
        self.folder.write_table("figures.parquet", figures)
        if id_scores is not None:
            self.folder.write_table("id_scores.parquet", id_scores)
        tested = [key for fold in self.folds for key in fold.test]
        if len(set(tested)) < len(tested):  # the main table cannot say which of several folds tested a recording
            self.folder.write_table("scores_by_fold.parquet", by_fold)
        save_predictions(self.folder.path / "predictions.npz", predictions)
        self.folder.write_json("selection.json", record)
        self.folder.write_json("summary.json", summary)
        return scores, by_fold, summary

    def _choices(self, outcomes: Sequence[FoldOutcome], by_fold: pd.DataFrame) -> list[Choice]:
        histories = {outcome.job.label: outcome.history for outcome in outcomes}
        runs = self.plan.of("fold")
        choices = []
        for fold in self.folds:
            for variant in self.experiment.labels:
                if self.plan.selection == NESTED:
                    choices.append(self.trainings.choices[fold.held_out, variant])
                elif self.plan.selection == ORACLE_RULE:
                    own = by_fold[by_fold["fold"] == fold.held_out]
                    choices.append(oracle_choice(fold.held_out, variant, own))
                else:
                    choices.append(validation_choice(fold.held_out, variant, runs, histories))
        return choices
