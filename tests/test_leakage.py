"""Leaks of every kind, planted one by one, are caught by their name; clean studies and look-alikes are left alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import nn

from jobs.models import BASELINES, build_model
from xsite.data.harmonize import target_scale
from xsite.data.store import rebuild_manifest, write_recording
from xsite.errors import FoldError, LeakageError
from xsite.evaluation import leakage
from xsite.evaluation.folds import ENTITIES, Fold
from xsite.evaluation.leakage import Audit, UsedScale, audit_plan
from xsite.evaluation.leakage_weights import Weights, check_weights
from xsite.evaluation.plan import Plan
from xsite.evaluation.sides import Sides, fold_sides
from xsite.evaluation.sketches import Sketch, find_alike, sketch_recording
from xsite.evaluation.splits import make_folds
from xsite.experiment import Experiment, parse_experiment
from xsite.experiment_parts import Folds
from xsite.learning.weights import weight_hashes
from xsite.phantom.habits import HABITS
from xsite.phantom.in_memory import simulate_recording, simulate_recordings
from xsite.phantom.plan import Plan as PhantomPlan
from xsite.phantom.presets import get_preset
from xsite.recording import Montage, Recording, RecordingKey
from xsite.runtime.loso import run_loso

OUTER = Experiment()


@dataclass
class Study:
    """Everything that the audit is given, to be spoilt by a test."""

    experiment: Experiment
    folds: list[Fold]
    plan: Plan
    sketches: dict[RecordingKey, Sketch]
    scales: dict[RecordingKey, Any]
    t_r: dict[RecordingKey, float]
    used: dict[str, Any]
    window_s: float = 16.0

    def audit(self) -> Audit:
        return audit_plan(
            self.experiment, self.folds, self.plan,
            sketches=self.sketches, scales=self.scales, t_r=self.t_r, window_s=self.window_s,
            used_scales=[UsedScale(label, label, self.used[label]) for label in self.plan.sides],
        )  # fmt: skip

    def finding(self, check: str) -> tuple[str, str]:
        (found,) = [finding for finding in self.audit().findings if finding.check == check]
        return found.verdict, " | ".join(found.evidence)


def planned(recordings: list[Recording], experiment: Experiment = OUTER, known: Study | None = None) -> Study:
    rows = [
        {**{name: getattr(r.key, name) for name in ENTITIES}, "n_volumes": r.n_volumes, "t_r": r.t_r}
        for r in recordings
    ]
    folds = make_folds(pd.DataFrame(rows), experiment.folds, seed=0)
    plan = Plan((), fold_sides(experiment, folds), experiment.select_on)
    scales = {r.key: target_scale(r.bold, r.t_r) for r in recordings}
    used = {label: np.nanmedian([scales[key] for key in sides.train], axis=0) for label, sides in plan.sides.items()}
    drawn = known.sketches if known else {}
    sketches = {r.key: drawn.get(r.key) or sketch_recording(r) for r in recordings}
    return Study(experiment, folds, plan, sketches, scales, {r.key: r.t_r for r in recordings}, used)


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return simulate_recordings(3, 3, "easy", 4, n_volumes=80)


@pytest.fixture(scope="module")
def clean(recordings: list[Recording]) -> Study:
    return planned(recordings)


@pytest.fixture
def study(clean: Study) -> Study:
    return replace(clean, sketches=dict(clean.sketches), scales=dict(clean.scales), used=dict(clean.used))


def with_sides(study: Study, label: str, sides: Sides) -> None:
    study.plan = Plan((), {**study.plan.sides, label: sides}, study.plan.selection)


def test_a_clean_study_passes_every_check(clean: Study) -> None:
    audit = clean.audit()
    assert [finding.verdict for finding in audit.findings] == ["pass"] * 6, audit.to_dict()
    assert audit.verdict == "pass"
    assert "6 checks" in audit.sentence
    assert json.loads(json.dumps(audit.to_dict()))["findings"][1]["check"] == "duplicated recordings"
    audit.enforce("refuse")


def test_subject_on_two_sides(study: Study) -> None:
    sides = study.plan.sides["siteA"]
    leaked = study.folds[0].test[0]
    with_sides(study, "siteA", replace(sides, train=(*sides.train, leaked)))
    verdict, evidence = study.finding(leakage.SUBJECTS)
    assert verdict == "fail"
    assert f"siteA: subject siteA/{leaked.subject} stands in train and test" in evidence
    later = replace(sides.val[0], session="2")
    study.scales[later] = study.scales[sides.val[0]]
    with_sides(study, "siteA", replace(sides, train=(*sides.train, later)))
    verdict, evidence = study.finding(leakage.SUBJECTS)
    assert verdict == "fail"
    assert "(sessions 2) stands in train and val" in evidence
    with pytest.raises(LeakageError, match=r"subjects on two sides.*audit: warn in the recipe"):
        study.audit().enforce("refuse")
    study.audit().enforce("warn")


def copy_of(r: Recording, site: str, cut_s: float = 0.0, n_channels: int | None = None) -> Recording:
    """The same scan as another laboratory might have stored it: other names, gain, rounding, start and channels."""
    cut, late = round(cut_s * 200), int(np.ceil(cut_s / r.t_r))
    eeg_CT = (r.eeg[:n_channels, cut:] * 1.7).astype(np.float16).astype(np.float32)
    names = tuple(f"E{number}" for number in range(len(eeg_CT)))[::-1]
    return replace(
        r,
        key=RecordingKey(site, "77", task="sleep"),
        montage=Montage(names, r.montage.positions[: len(names)]),
        eeg=eeg_CT,
        eeg_valid=r.eeg_valid[cut:],
        bold=(r.bold[late:] * 0.3 + 5).astype(np.float16).astype(np.float32),
        global_signal=r.global_signal[late:],
        confounds=r.confounds[late:],
        volume_onsets=r.volume_onsets[late:] - cut_s,
        volume_valid=r.volume_valid[late:],
        truth=None,
    )


@pytest.mark.parametrize(("cut_s", "n_channels"), [(0.0, None), (7.37, 20), (31.0, 12)])
def test_a_copy_at_another_site_is_found(
    recordings: list[Recording], clean: Study, cut_s: float, n_channels: int | None
) -> None:
    study = planned([*recordings, copy_of(recordings[4], "siteC", cut_s, n_channels)], known=clean)
    verdict, evidence = study.finding(leakage.DUPLICATES)
    assert verdict == "fail"
    assert "EEG of siteB/sub-02_task-rest and siteC/sub-77_task-sleep" in evidence
    assert "BOLD of siteB/sub-02_task-rest and siteC/sub-77_task-sleep" in evidence
    assert evidence.count("correlates by") == 2
    assert evidence.count("of siteB |") + evidence.endswith("of siteB") == 2, "one of them is tested there"


def test_a_copied_eeg_or_bold_alone_is_found(recordings: list[Recording]) -> None:
    a, b, c = recordings[0], recordings[1], recordings[2]
    n = min(a.eeg.shape[1], b.eeg.shape[1])
    same_eeg = replace(b, key=replace(b.key, subject="50"), eeg=a.eeg[:, :n], eeg_valid=a.eeg_valid[:n])
    same_bold = replace(c, key=replace(c.key, subject="51"), bold=-2 * b.bold)
    pairs = {(p.signal, p.a.subject, p.b.subject) for p in find_alike(sketched([a, same_eeg]), 0.7)}
    assert pairs == {("EEG", "01", "50")}
    assert not find_alike(sketched([b, same_bold]), 0.7), "a negative is another series"
    same_bold = replace(same_bold, bold=2 * b.bold)
    assert [p.signal for p in find_alike(sketched([b, same_bold]), 0.7)] == ["BOLD"]


def sketched(recordings: list[Recording]) -> dict[RecordingKey, Sketch]:
    return {r.key: sketch_recording(r) for r in recordings}


def test_a_subject_that_is_there_twice_on_one_side_is_a_remark_and_another_name_a_leak(
    recordings: list[Recording], clean: Study
) -> None:
    again = replace(recordings[0], key=replace(recordings[0].key, run="2"))
    verdict, evidence = planned([*recordings, again], known=clean).finding(leakage.DUPLICATES)
    assert verdict == "warn"
    assert "the same person twice, on one side" in evidence
    test_side_only = [r.key for r in recordings[:3]]
    alias = replace(recordings[0], key=replace(recordings[0].key, subject="88"))
    study = planned([*recordings, alias], known=clean)
    fold = replace(study.folds[0], test=(*test_side_only, alias.key))
    study.folds, study.plan = [fold], Plan((), {"siteA": study.plan.sides["siteA"]}, "train-site-val")
    verdict, evidence = study.finding(leakage.DUPLICATES)
    assert verdict == "fail"
    assert "one person would count as two" in evidence


def test_two_runs_of_a_person_and_a_shared_global_signal_are_no_copies(recordings: list[Recording]) -> None:
    runs = [
        simulate_recording(PhantomPlan(HABITS[0], get_preset("easy"), 4, 0, 0, 80, run_index=i, run=str(i + 1)))
        for i in range(2)
    ]
    assert runs[0].key.subject_id == runs[1].key.subject_id
    loud = [
        replace(r, bold=r.bold + 3 * np.linspace(0.8, 1.2, r.bold.shape[1], dtype=np.float32) * common[:, None])
        for r in recordings[:3]
        for common in [np.cumsum(np.random.default_rng(1).normal(size=r.n_volumes)).astype(np.float32) / 4]
    ]
    r = np.corrcoef(loud[0].bold.mean(1), loud[1].bold.mean(1))[0, 1]
    assert r > 0.9, "their global signals are one"
    for group in (runs, loud):
        assert not find_alike(sketched(group), leakage.ALIKE)
    steps = [
        replace(one, eeg=np.where(np.arange(one.eeg.shape[1]) > 9000, 30, 1).astype(np.float32) * one.eeg)
        for one in recordings[:3]
    ]
    assert not find_alike(sketched(steps), leakage.ALIKE), "a scanner that starts is not a person"


def within(gap_s: float | None) -> Experiment:
    return Experiment(folds=Folds(scheme="within-recording", gap_s=gap_s))


def test_overlapping_windows_within_a_recording(clean: Study) -> None:
    long = [simulate_recording(PhantomPlan(HABITS[0], get_preset("easy"), 4, 0, 0, 300))]
    default = planned(long, within(None))
    verdict, evidence = default.finding(leakage.OVERLAP)
    assert verdict == "warn", "few effective samples are said, not refused"
    assert "few effective samples" in evidence
    for gap_s in (0.0, 10.0, 16.0):
        verdict, evidence = planned(long, within(gap_s), default).finding(leakage.OVERLAP)
        assert verdict == "fail"
        assert f"are {gap_s + 2:.1f} s apart, needed are 22 s; leave folds.gap_s out or set it to 22" in evidence
    assert clean.finding(leakage.OVERLAP) == ("pass", "")
    default.window_s = 24.0  # a model that looks back further needs more
    verdict, evidence = default.finding(leakage.OVERLAP)
    assert verdict == "fail"
    assert "are 22.0 s apart, needed are 30 s" in evidence


@given(t_r=st.floats(0.35, 3.0), window_s=st.floats(1.0, 40.0), minutes=st.floats(15, 40))
@settings(max_examples=300, deadline=None, derandomize=True)
@example(t_r=0.72, window_s=16.0, minutes=20)
@example(t_r=0.4, window_s=16.4, minutes=20)
@example(t_r=2.2, window_s=16.0, minutes=20)
def test_the_default_gap_passes_its_own_audit_at_any_repetition_time(
    t_r: float, window_s: float, minutes: float
) -> None:
    row = {"site": "a", "subject": "01", "session": "", "task": "rest", "run": "", "t_r": t_r}
    manifest = pd.DataFrame([{**row, "n_volumes": int(60 * minutes / t_r)}])
    experiment = Experiment(folds=Folds(scheme="within-recording", window_s=window_s))
    try:
        folds = make_folds(manifest, experiment.folds, seed=0)
    except FoldError as error:
        assume("too few" not in str(error))
        raise
    plan = Plan((), fold_sides(experiment, folds), experiment.select_on)
    (key,) = folds[0].test
    found = leakage.check_overlap(plan, {fold.held_out: fold for fold in folds}, {key: t_r}, window_s)
    assert found.verdict == "warn", found.evidence
    assert not found.evidence.count("apart")
    spans = [folds[0].segments[side][key] for side in ("train", "val", "test")]  # type: ignore[index]
    for early, late in itertools.pairwise(spans):  # and wastes less than a volume
        assert (late[0] - early[1]) * t_r < window_s + 6.0


def test_scaling_fitted_on_test_data(study: Study) -> None:
    study.used["siteB"] = np.nanmedian([*study.scales.values()], axis=0)
    verdict, evidence = study.finding(leakage.SCALING)
    assert verdict == "fail"
    assert evidence == (
        "siteB: the target scale is not the median over the training recordings; it is that of all recordings, test "
        "included"
    )
    paper = replace(study, experiment=parse_experiment({"data": {"target": "paper"}}, "test"))
    paper.used["siteB"] = np.nanmedian([study.scales[key] for key in study.plan.sides["siteB"].train], axis=0)
    assert paper.finding(leakage.SCALING)[0] == "warn"


def test_scales_of_others_are_no_question_within_a_recording() -> None:
    study = planned([simulate_recording(PhantomPlan(HABITS[0], get_preset("easy"), 4, 0, 0, 300))], within(20.0))
    assert study.finding(leakage.SCALING) == ("not applicable", "")
    assert study.audit().verdict == "warn"


@pytest.mark.parametrize("kind", ["channel", "power", "noisy power"])
def test_target_derived_features(recordings: list[Recording], clean: Study, kind: str) -> None:
    victim = simulate_recording(PhantomPlan(HABITS[0], get_preset("easy"), 4, 0, 7, 150))
    t = np.arange(victim.eeg.shape[1]) / 200
    bold_T = np.interp(t + 6, victim.volume_onsets, victim.bold[:, 3])
    noise_T = np.random.default_rng(0).normal(size=len(t))
    eeg_CT = victim.eeg.copy()
    if kind == "channel":
        eeg_CT[5] = 10 * bold_T + noise_T
    else:
        slow_T = np.interp(t, np.arange(0, t[-1], 2), np.random.default_rng(1).normal(size=int(t[-1] / 2) + 1))
        eeg_CT[5] = np.exp(0.5 * bold_T + 0.22 * slow_T * (kind == "noisy power")) * noise_T * 10
    study = planned([*recordings, replace(victim, eeg=eeg_CT)], known=clean)
    verdict, evidence = study.finding(leakage.TARGETS)
    assert verdict == ("warn" if kind == "noisy power" else "fail")
    feature = "mean" if kind == "channel" else "log power"
    assert evidence.startswith(f"siteA/sub-08_task-rest: {feature} of {victim.ch_names[5]} 6 s before the volume")
    assert victim.parcellation.labels[3] in evidence
    assert "|" not in evidence, "and nobody else's"


def run_of(
    label: str, fold: str, seed: int, start: Mapping[str, str], end: Mapping[str, str], variant: str = "net"
) -> Weights:
    return Weights(label, variant, fold, seed, start, end)


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 2))


def trained(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value + 0.1 * torch.randn_like(value) for name, value in model.state_dict().items()}


def test_carried_weights() -> None:
    hashes, ends = {}, {}
    for seed in range(3):
        model = net(seed)
        state = trained(model)
        hashes[seed], ends[seed] = weight_hashes(model, model.state_dict()), weight_hashes(model, state)
        assert not [name for name in hashes[seed] if name.startswith("1.")], "constant tensors say nothing"
        assert len(ends[seed]) == 6
    a, b = run_of("siteA/net", "siteA", 0, hashes[0], ends[0]), run_of("siteB/net", "siteB", 0, hashes[1], ends[1])
    control = run_of("siteA/net-control", "siteA", 0, hashes[0], ends[2])
    assert check_weights([a, b, control]).verdict == "pass"

    carried = run_of("siteC/net", "siteC", 0, ends[0], ends[2])
    found = check_weights([a, b, carried])
    assert found.check == leakage.WEIGHTS
    assert found.verdict == "fail"
    assert found.evidence == ("siteC/net starts from 6 of 6 tensors that siteA/net has trained",)
    half = run_of("siteC/net", "siteC", 0, {**hashes[2], "0.weight": ends[1]["0.weight"]}, ends[2])
    assert check_weights([a, b, half]).evidence == ("siteC/net starts from 1 of 4 tensors that siteB/net has trained",)
    same = run_of("siteC/net", "siteC", 0, hashes[1], ends[2])
    assert check_weights([a, b, same]).evidence == ("siteB/net, siteC/net start from the same weights",)


def test_starts_that_are_remarks() -> None:
    model = net(0)
    start = weight_hashes(model, model.state_dict())
    ends = [weight_hashes(model, trained(model)) for _ in range(2)]
    pretrained = [run_of(f"site{i}/net", f"site{i}", 0, start, ends[i]) for i in range(2)]
    found = check_weights(pretrained)
    assert found.verdict == "warn"
    assert "must not have seen these sites" in found.evidence[0]
    loose = [run_of("a", "siteA", 0, start, ends[0]), run_of("a-control", "siteA", 0, ends[1], ends[1])]
    assert "the draw is not fixed" in check_weights(loose).evidence[0]
    assert "noted no hashes" in check_weights([run_of("old", "siteA", 0, {}, {})]).evidence[0]


def test_selection_on_test(study: Study) -> None:
    sides, fold = study.plan.sides["siteC"], study.folds[2]
    with_sides(study, "siteC", replace(sides, val=(*sides.val, fold.test[0])))
    verdict, evidence = study.finding(leakage.SELECTION)
    assert verdict == "fail"
    assert evidence == f"siteC: {fold.test[0]} selects and is tested"
    with_sides(study, "siteC", replace(sides, watch=(("siteC", fold.test),)))
    assert "is watched during training and tested" in study.finding(leakage.SELECTION)[1]
    oracle = Experiment(select_on="oracle")
    study.plan = Plan((), fold_sides(oracle, study.folds), "oracle")
    verdict, evidence = study.finding(leakage.SELECTION)
    assert verdict == "warn"
    assert "not deployable" in evidence


RECIPE: dict[str, Any] = {
    "model": {"name": "eegnet", "preset": "small"},
    "optim": {"epochs": 1, "warmup_epochs": 0, "batch_size": 16, "windows_per_epoch": 32},
    "baselines": ["zero"],
    "surrogates": 20,
}


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_is_refused_before_it_trains_unless_the_recipe_only_warns(ray_local: None, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    own = simulate_recordings(2, 2, "realistic", 1, n_volumes=60)
    for recording in own:
        write_recording(store, recording, fingerprint="made")
    rebuild_manifest(store)

    def run(name: str, **more: Any) -> Mapping[str, Any]:
        experiment = parse_experiment({**RECIPE, **more}, "test")
        return run_loso(experiment, store, tmp_path / name, build_model=build_model, baselines=BASELINES).summary

    clean = run("clean")["leakage"]
    assert clean["verdict"] == "pass", clean
    assert [f["check"] for f in clean["findings"]][-1] == leakage.WEIGHTS
    assert len(clean["findings"]) == 7
    assert json.loads((tmp_path / "clean" / "leakage.json").read_text()) == clean

    write_recording(store, replace(own[0], key=replace(own[0].key, site="siteB", subject="09")), fingerprint="made")
    rebuild_manifest(store)
    with pytest.raises(
        LeakageError, match=r"duplicated recordings: (EEG|BOLD) of siteA/sub-01_task-rest and siteB/sub-09"
    ):
        run("leaky")
    assert json.loads((tmp_path / "leaky" / "leakage.json").read_text())["verdict"] == "fail"
    assert not (tmp_path / "leaky" / "folds").exists()
    assert run("warned", audit="warn")["leakage"]["verdict"] == "fail"
