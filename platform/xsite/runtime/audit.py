"""The leakage audit of a study: before anything is trained, and once more before anything is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xsite.errors import RecipeError
from xsite.evaluation.folds import WITHIN_RECORDING, Fold
from xsite.evaluation.leakage import Audit, UsedScale, audit_plan, check_scaling
from xsite.evaluation.leakage_weights import Weights, check_weights
from xsite.evaluation.plan import FINAL, Plan
from xsite.experiment import Experiment
from xsite.experiment_parts import Folds
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.targets import TargetSpec
from xsite.runtime.fold_job import FoldJob
from xsite.runtime.inputs import StudyData
from xsite.runtime.training import FoldOutcome


def check_windows(folds: Folds, windows: Mapping[str, float]) -> None:
    """Refuse models that read more EEG than recordings are cut for.

    Parameters
    ----------
    folds : Folds
    windows : mapping of variant to float
        Seconds of EEG that its model needs before a volume.

    Raises
    ------
    RecipeError
        ``folds.window_s`` is shorter, and recordings are cut.
    """
    longest = max(windows, key=lambda label: windows[label])
    if folds.scheme == WITHIN_RECORDING and windows[longest] > folds.window_s:
        raise RecipeError(
            f"folds.window_s {folds.window_s:g} is shorter than the window of {longest} ({windows[longest]:g} s), so "
            f"recordings would not be cut 8:1:1 for it; set folds.window_s: {windows[longest]:g}"
        )


def audit_unseen(
    experiment: Experiment,
    data: StudyData,
    folds: Sequence[Fold],
    plan: Plan,
    jobs: Sequence[FoldJob],
    targets: Mapping[str, TargetSpec],
    window_s: float,
) -> Audit:
    """All checks that need no trained model.

    Parameters
    ----------
    jobs : sequence of FoldJob
        Those that are about to be trained; their scales are checked.
    targets : mapping of fold label to TargetSpec
        What held-out targets are made by.
    window_s : float
        Longest of all models, closed-form ones too.
    """
    sketches = {key: facts.sketch for key, facts in data.facts.items() if facts.sketch is not None}
    used = [*_of_targets(targets), *(UsedScale(job.label, _side(job), job.spec.scale_R) for job in jobs)]
    return audit_plan(
        experiment,
        folds,
        plan,
        sketches=sketches,
        scales={key: facts.scale_R for key, facts in data.facts.items()},
        used_scales=used,
        t_r=data.t_r,
        window_s=window_s,
    )


def audit_trainings(
    audit: Audit,
    experiment: Experiment,
    data: StudyData,
    folds: Sequence[Fold],
    plan: Plan,
    outcomes: Sequence[FoldOutcome],
    targets: Mapping[str, TargetSpec],
) -> Audit:
    """What the finished checkpoints say for themselves: their scale, and where every training began and ended."""
    jobs = [outcome.job for outcome in outcomes]
    configs = [load_checkpoint(job.folder)[1] for job in jobs]
    scales = {key: facts.scale_R for key, facts in data.facts.items()}
    used = [
        UsedScale(job.label, _side(job), TargetSpec.from_dict(config["target"]).scale_R)
        for job, config in zip(jobs, configs, strict=True)
    ]
    tested = {fold.held_out: fold for fold in folds}
    found = check_scaling(plan, tested, scales, [*_of_targets(targets), *used], experiment.data.target)
    return audit.with_finding(found).with_finding(check_weights(list(map(_weights, jobs, configs))))


def _of_targets(targets: Mapping[str, TargetSpec]) -> list[UsedScale]:
    return [UsedScale(f"held-out targets of {label}", label, spec.scale_R) for label, spec in targets.items()]


def _side(job: FoldJob) -> str:
    return job.held_out or FINAL


def _weights(job: FoldJob, config: Mapping[str, Any]) -> Weights:
    noted = config.get("weights", {})
    started, trained = noted.get("started_from", {}), noted.get("trained", {})
    return Weights(job.label, job.model, _side(job), job.seed[0], started, trained)
