"""The leakage audit of a study: before anything is trained, and once more before anything is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from xsite.evaluation.folds import Fold
from xsite.evaluation.leakage import Audit, audit_plan, check_scaling
from xsite.evaluation.leakage_weights import Weights, check_weights
from xsite.evaluation.plan import FINAL, Plan
from xsite.experiment import Experiment
from xsite.learning.checkpoint import load_checkpoint
from xsite.runtime.inputs import StudyData
from xsite.runtime.training import FoldOutcome
from xsite.runtime.worker import FoldJob


def audit_unseen(
    experiment: Experiment, data: StudyData, folds: Sequence[Fold], plan: Plan, jobs: Sequence[FoldJob]
) -> Audit:
    """All checks that need no trained model; scales are read from the ``jobs`` that are about to be trained."""
    sketches = {key: facts.sketch for key, facts in data.facts.items() if facts.sketch is not None}
    return audit_plan(
        experiment,
        folds,
        plan,
        sketches=sketches,
        scales={key: facts.scale_R for key, facts in data.facts.items()},
        used_scales=_used_scales(experiment, data, plan, jobs),
        t_r=data.t_r,
    )


def audit_trainings(
    audit: Audit,
    experiment: Experiment,
    data: StudyData,
    folds: Sequence[Fold],
    plan: Plan,
    outcomes: Sequence[FoldOutcome],
) -> Audit:
    """Scales of the jobs that were not known before, and where every training began and ended."""
    jobs = [outcome.job for outcome in outcomes]
    scales = {key: facts.scale_R for key, facts in data.facts.items()}
    used = _used_scales(experiment, data, plan, jobs)
    tested = {fold.held_out: fold for fold in folds}
    audit = audit.with_finding(check_scaling(plan, tested, scales, used, experiment.data.target))
    return audit.with_finding(check_weights([_weights(job) for job in jobs]))


def _used_scales(
    experiment: Experiment, data: StudyData, plan: Plan, jobs: Sequence[FoldJob]
) -> Mapping[str, Sequence[float]]:
    """By the plan's sides: what held-out targets are scaled by, and in its place what a training of it was given."""
    used = {label: data.spec(experiment, sides.train, sides.segments).scale_R for label, sides in plan.sides.items()}
    return used | {job.held_out or FINAL: job.spec.scale_R for job in jobs}


def _weights(job: FoldJob) -> Weights:
    _, config = load_checkpoint(job.folder)
    noted = config.get("weights", {})
    fold = job.held_out or FINAL
    started, trained = noted.get("started_from", {}), noted.get("trained", {})
    return Weights(job.label, job.model, fold, job.seed[0], started, trained)
