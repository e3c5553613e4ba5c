"""What the audit is given by a study: the scales of jobs, checkpoints and held-out targets, and the models' windows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from jobs.models import build_model
from xsite.data.harmonize import target_scale
from xsite.errors import RecipeError
from xsite.evaluation import leakage
from xsite.evaluation.folds import ENTITIES
from xsite.evaluation.leakage import Audit
from xsite.evaluation.plan import make_plan
from xsite.evaluation.splits import make_folds
from xsite.experiment import Experiment, parse_experiment
from xsite.experiment_parts import Folds, Model
from xsite.learning.checkpoint import save_checkpoint
from xsite.learning.targets import TargetSpec
from xsite.phantom.in_memory import simulate_recordings
from xsite.recording import Recording
from xsite.runtime.audit import audit_trainings, audit_unseen, check_windows
from xsite.runtime.fold_job import FoldJob
from xsite.runtime.held_out import HeldOut
from xsite.runtime.inputs import Facts, StudyData
from xsite.runtime.plans import check_model, make_job
from xsite.runtime.study import StudyFolder
from xsite.runtime.training import FoldOutcome
from xsite.runtime.trainings import Trainings


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return simulate_recordings(3, 2, "easy", 4, n_volumes=40)


def in_memory(recordings: list[Recording]) -> StudyData:
    labels = recordings[0].parcellation.labels
    rows = [
        {
            **{name: getattr(r.key, name) for name in ENTITIES}, "sha256": str(r.key), "t_r": r.t_r,
            "ch_names": json.dumps(r.ch_names), "parcels": json.dumps(labels), "parcellation_sha256": "atlas",
        }
        for r in recordings
    ]  # fmt: skip
    facts = {
        r.key: Facts(r.ch_names, np.asarray(r.montage.positions), r.parcellation, target_scale(r.bold, r.t_r), False)
        for r in recordings
    }
    return StudyData("memory", pd.DataFrame(rows), {r.key: r for r in recordings}, facts, labels)


def test_recordings_are_not_cut_for_a_shorter_window_than_a_model_s(recordings: list[Recording]) -> None:
    data = in_memory(recordings[:3])
    windows, keys = {}, list(data.facts)
    for name, options in (("eegnet", {}), ("neurobolt-x", {"window_s": 24.0}), ("biot", {"window_s": 32.0})):
        experiment = Experiment(model=Model(name=name, options=options))
        job = make_job(
            experiment, data, keys[:2], keys[2:], label=name, held_out=None, folder=Path("unused"), selected_on=""
        )
        windows[name] = check_model(job, experiment, build_model)
    assert windows == {"eegnet": 16.0, "neurobolt-x": 24.0, "biot": 32.0}
    with pytest.raises(RecipeError, match=r"window of biot \(32 s\).*set folds\.window_s: 32"):
        check_windows(Folds(scheme="within-recording"), windows)
    check_windows(Folds(scheme="within-recording", window_s=32.0), windows)
    check_windows(Folds(), windows)


def test_a_wrong_scale_is_found_in_the_job_that_has_it_in_targets_and_in_a_checkpoint(
    recordings: list[Recording], tmp_path: Path
) -> None:
    content = {"model": {"name": "eegnet"}, "variants": {"a": {}, "b": {"optim.lr": 1e-3}}, "baselines": []}
    experiment, data = parse_experiment(content, "test"), in_memory(recordings)
    folds = make_folds(data.manifest, experiment.folds, seed=0)
    plan = make_plan(experiment, data.manifest, folds, folds)
    jobs = Trainings(experiment, data, plan, StudyFolder(tmp_path)).first()
    held_out = HeldOut(experiment, data, folds, plan)
    targets = {fold.held_out: held_out.spec(fold.held_out) for fold in folds}
    wrong = replace(targets["siteB"], scale_R=tuple(np.nanmedian([f.scale_R for f in data.facts.values()], axis=0)))
    said = (
        "the target scale is not the median over the training recordings; it is that of all recordings, test included"
    )

    def scaling(audit: Audit) -> tuple[str, tuple[str, ...]]:
        (found,) = [one for one in audit.findings if one.check == leakage.SCALING]
        return found.verdict, found.evidence

    def unseen(jobs: list[FoldJob], targets: Mapping[str, TargetSpec]) -> Audit:
        return audit_unseen(experiment, data, folds, plan, jobs, targets, 16.0)

    clean = unseen(jobs, targets)
    assert scaling(clean) == ("pass", ())
    planted = [replace(job, spec=wrong) if job.label == "siteB/a" else job for job in jobs]
    assert scaling(unseen(planted, targets)) == ("fail", (f"siteB/a: {said}",))
    assert scaling(unseen(jobs, {**targets, "siteB": wrong})) == ("fail", (f"held-out targets of siteB: {said}",))

    def trained(spoilt: str) -> Audit:
        for job in jobs:
            target = {"target": wrong.to_dict()} if job.label == spoilt else {}
            save_checkpoint(job.folder, {"w": torch.ones(1)}, {**job.config, **target})
        outcomes = [FoldOutcome(job, 1, [], skipped=False) for job in jobs]
        return audit_trainings(clean, experiment, data, folds, plan, outcomes, targets)

    assert scaling(trained("")) == ("pass", ())
    assert scaling(trained("siteB/b")) == ("fail", (f"siteB/b: {said}",))
