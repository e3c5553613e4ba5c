"""The jobs of a plan, in the order in which they can be known: inner runs, then folds, then the final model."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from xsite.evaluation.plan import FINAL, ORACLE, Plan, Run
from xsite.evaluation.selection import Choice, History, nested_choice
from xsite.evaluation.sides import NESTED
from xsite.experiment import Experiment
from xsite.runtime.fold_job import FoldJob
from xsite.runtime.inputs import StudyData
from xsite.runtime.plans import make_job
from xsite.runtime.study import StudyFolder
from xsite.runtime.training import FoldOutcome

SELECTED_ON = {
    "inner": "nothing: watched at the sites left out",
    "final": "median of the folds' best epochs",
}


class Trainings:
    """Turns runs into jobs.

    Parameters
    ----------
    experiment : Experiment
    data : StudyData
    plan : Plan
    folder : StudyFolder
    """

    def __init__(self, experiment: Experiment, data: StudyData, plan: Plan, folder: StudyFolder) -> None:
        self.experiment, self.data, self.plan, self.folder = experiment, data, plan, folder
        self.choices: dict[tuple[str, str], Choice] = {}

    @property
    def rounds(self) -> int:
        """How often later jobs depend on earlier ones."""
        return 2 if self.plan.selection == NESTED else 1

    def first(self) -> list[FoldJob]:
        """What can be trained at once."""
        if self.plan.selection == NESTED:
            return [self.job(run) for run in self.plan.of("inner")]
        return self.fold_jobs({})

    def fold_jobs(self, histories: Mapping[str, History]) -> list[FoldJob]:
        """Outer runs and controls; a nested rule reads their number of epochs from the inner ``histories``."""
        runs = self.plan.of("fold", "control")
        if self.plan.selection == NESTED:
            wanted = dict.fromkeys((run.fold, run.variant) for run in runs)
            self.choices = {pair: nested_choice(*pair, self.plan, histories) for pair in wanted}
        return [self.job(run, self._epochs(run)) for run in runs]

    def final_jobs(self, outcomes: Sequence[FoldOutcome]) -> list[FoldJob]:
        """All recordings, for the median of the folds' best epochs: nothing is left to stop it early."""
        best = {outcome.job.label: outcome.best_epoch for outcome in outcomes}
        jobs = []
        for run in self.plan.of("final"):
            epochs = [best[fold.label] for fold in self.plan.of("fold") if fold.variant == run.variant]
            jobs.append(self.job(run, max(1, round(statistics.median(epochs)))))
        return jobs

    def job(self, run: Run, n_epochs: int | None = None) -> FoldJob:
        """What a worker is given for one run."""
        sides = self.plan.sides[run.fold]
        return make_job(
            self.experiment.variant(run.variant, run.seed),
            self.data,
            sides.train,
            sides.val,
            label=run.label,
            held_out=None if run.fold == FINAL else run.fold,
            folder=self.folder.run(run),
            selected_on=SELECTED_ON.get(run.purpose, self.plan.selection),
            control=run.purpose == "control",
            n_epochs=n_epochs,
            model=run.variant,
            purpose=run.purpose,
            watch=sides.watch,
            segments=sides.segments,
        )

    def _epochs(self, run: Run) -> int | None:
        if self.plan.selection == ORACLE:
            return self.experiment.variant(run.variant).optim.epochs
        choice = self.choices.get((run.fold, run.variant))
        return None if choice is None else choice.n_epochs
