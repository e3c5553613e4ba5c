"""Every model of a study is scored on the same volumes, and what cannot work is said before anything is trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import ray

from jobs.models import BASELINES, build_model
from xsite.data.harmonize import target_scale
from xsite.errors import RecipeError
from xsite.evaluation.folds import Fold
from xsite.evaluation.metrics import pearson_r
from xsite.evaluation.plan import Plan, Run
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.sides import Sides
from xsite.experiment import Experiment
from xsite.learning.predict import predict_recording
from xsite.learning.targets import TargetSpec
from xsite.recording import RecordingKey
from xsite.runtime.closed_form import BaselineInput
from xsite.runtime.cluster import gather
from xsite.runtime.held_out import HeldOut, fold_scores, main_predictions, run_figures
from xsite.runtime.inputs import Facts, StudyData
from xsite.runtime.scoring import measured, predictions_of

NAMES = ("Fp1", "Cz", "O1", "O2", "T7")


@pytest.fixture
def make_held_out(make_recording):
    """Three sites of one recording each; the last is held out. Nothing of Ray is touched here."""

    def build(ch_names=NAMES, put=lambda recording: None, **recipe):
        recordings = {r.key: r for r in (make_recording(site, "01", ch_names=ch_names) for site in ("a", "b", "c"))}
        facts = {
            key: Facts(r.ch_names, r.montage.positions, r.parcellation, target_scale(r.bold, r.t_r), False)
            for key, r in recordings.items()
        }
        refs = {key: put(r) for key, r in recordings.items()}
        labels = next(iter(recordings.values())).parcellation.labels
        data = StudyData("store", pd.DataFrame(), refs, facts, labels)
        train, val, test = ((key,) for key in recordings)
        fold = Fold(train, val, test, "c")
        plan = Plan((), {"c": Sides(train, val)}, "train-site-val")
        return HeldOut(Experiment(name="tiny", **recipe), data, [fold], plan), recordings[test[0]]

    return build


def predicted(held_out, recording, window_s=None):
    """What a network of 16 s, one of 24 s and a closed-form model say, each as a study asks it, brought to scores."""
    data = {"channels": "common"}
    config = {"ch_names": NAMES, "parcels": "abc", "reference": "average", "experiment": {"data": data}}
    eeg = recording.eeg, recording.eeg_valid, recording.volume_onsets, recording.volume_valid, recording.sfreq, NAMES
    own, spec = BaselineInput(*eeg), TargetSpec("strict", 0.15, np.ones(3))
    said = {"alpha": BASELINES["alpha"]().fit([own], [recording.bold]).predict(own)}
    options = {"eegnet": {}, "neurobolt-x": {"window_s": 24.0}}
    models = {name: build_model(name, "small", o, ch_names=NAMES, n_outputs=3) for name, o in options.items()}
    held_out.check(BASELINES, [model.window_s for model in models.values()])
    said |= {name: predict_recording(model, recording, config=config) for name, model in models.items()}
    known = {recording.key: measured(recording, spec, window_s or held_out.window_s)}
    pairs = [p for name, bold_VR in said.items() for p in predictions_of({recording.key: bold_VR}, known, name, False)]
    return score_predictions(pairs, parcels=recording.parcellation.labels)


def test_the_longest_window_decides_which_volumes_are_scored(make_held_out):
    held_out, recording = make_held_out()
    scores = predicted(held_out, recording)
    assert set(scores["model"]) == {"alpha", "eegnet", "neurobolt-x"}
    late = int((recording.volume_onsets >= 24).sum())
    assert 0 < late < recording.n_volumes
    assert scores["n_volumes"].eq(late).all()
    each_its_own = predicted(held_out, recording, window_s=16.0)  # what the shared window is there to prevent
    assert each_its_own.groupby("model")["n_volumes"].max().nunique() == 2


@pytest.mark.ray
def test_the_cluster_measures_with_that_window(make_held_out, ray_local):
    held_out, recording = make_held_out(put=ray.put)
    held_out.check(BASELINES, [8.0, 24.0])
    held_out.measure()
    found = gather(list(held_out.measured.values()))[0][recording.key]
    np.testing.assert_array_equal(found.valid_V, recording.volume_onsets >= 24)


@pytest.mark.parametrize("recipe", [{"baselines": ("zero", "alpha")}, {"baselines": (), "controls": ("alpha",)}])
def test_a_baseline_without_its_channels_is_refused_before_training(make_held_out, recipe):
    held_out, _ = make_held_out(ch_names=("Fp1", "Cz", "C3", "T7"), **recipe)
    with pytest.raises(RecipeError, match=r"baseline 'alpha' cannot do with the 4 channels .* among .*Cz.*spline"):
        held_out.check(BASELINES, [])
    make_held_out(**recipe)[0].check(BASELINES, [])
    make_held_out(ch_names=("Fp1", "Cz"), baselines=("zero", "ridge"))[0].check(BASELINES, [])


@pytest.mark.parametrize(
    ("scheme", "unit", "control", "n_asked"),
    [
        ("leave-one-site-out", "site", False, 2),
        ("leave-one-site-out", "site", True, 1),
        ("site-to-site", "training-sites", False, 2),
        ("growing-sites", "training-sites", False, 1),
        ("leave-one-subject-out", "subject", False, 1),
    ],
)
def test_known_sites_are_asked_where_they_stand_beside_unseen_ones(make_held_out, scheme, unit, control, n_asked):
    """Test recording first, then the validation recording: of site to site it is the diagonal of the matrix."""
    held_out, _ = make_held_out(put=lambda r: r.key, folds={"scheme": scheme})
    held_out.folds = {label: replace(fold, unit=unit) for label, fold in held_out.folds.items()}
    asked = held_out._asked("c", control=control)
    assert [key.site for key in asked] == ["c", "b"][:n_asked]


def test_sites_keep_the_order_of_folds_that_test_one_and_are_sorted_otherwise():
    keys = {name: RecordingKey(name, "01") for name in "abc"}
    series = np.zeros((4, 1)), np.zeros((4, 1)), np.ones(4, bool)

    def order(tested, unit):
        folds, found = [], {}
        for train, test in tested:
            label = test if unit == "site" else f"all-but-{train}"
            sides = (keys[train],), (RecordingKey(train, "02"),), tuple(keys[site] for site in test)
            folds.append(Fold(*sides, label, unit=unit))
            found[label] = [Prediction(keys[site], name, False, *series) for name in ("zero", "net") for site in test]
        return [(p.key.site, p.model) for p in main_predictions(found, folds)]

    crossed = order([("a", "bc"), ("b", "ac"), ("c", "ab")], "training-sites")
    assert list(dict.fromkeys(crossed)) == [(site, name) for site in "abc" for name in ("zero", "net")]
    assert [site for site, _ in order([("a", "c"), ("c", "b")], "site")] == ["c", "c", "b", "b"]


def test_every_run_has_the_figures_of_its_own_fold():
    """Growing numbers of training sites: three folds test the same recordings, of which the main table keeps some."""
    labels = {"c_from-a": ("a",), "c_from-b": ("b",), "c_from-a+b": ("a", "b")}
    keys = {name: RecordingKey(name, "01") for name in "abc"}
    folds = [
        Fold(tuple(keys[s] for s in sites), (RecordingKey("a", "02"),), (keys["c"],), label, unit="training-sites")
        for label, sites in labels.items()
    ]
    rng = np.random.default_rng(2)
    target_VR = rng.normal(size=(60, 2))
    found, runs = {}, []
    for noise, fold in enumerate(folds):
        said = [target_VR + noise * rng.normal(size=target_VR.shape) for _ in (3, 4)]
        found[fold.held_out] = [
            Prediction(keys["c"], "net", False, own, target_VR, np.ones(60, bool), seed=seed)
            for seed, own in zip((3, 4), said, strict=True)
        ]
        runs += [Run(f"{fold.held_out}/net-{seed}", "net", fold.held_out, seed, "fold", "0") for seed in (3, 4)]
    by_fold = fold_scores(found, folds, ("p", "q"), {})
    figures = run_figures(by_fold, Plan(tuple(runs), {}, "train-site-val"))
    assert set(figures) == {run.label for run in runs}
    for run in runs:
        (own,) = (p for p in found[run.fold] if p.seed == run.seed)
        expected = pearson_r(own.predicted_VR, target_VR, own.valid_V).mean()
        assert figures[run.label]["ood/r_mean"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scheme", "unit", "label", "expected"),
    [
        ("leave-one-site-out", "site", "c", ["c", "b"]),
        ("site-to-site", "training-sites", "all-but-a", ["c", "b"]),  # b selects: the known site of the diagonal
        ("growing-sites", "training-sites", "c_from-1", ["c"]),
    ],
)
def test_known_sites_are_predicted_beside_unseen_ones(make_held_out, scheme, unit, label, expected):
    held_out, _ = make_held_out(put=lambda recording: recording.key.site, folds={"scheme": scheme})
    sides = held_out.folds["c"]
    held_out.folds = {label: Fold(sides.train, sides.val, sides.test, label, unit=unit)}
    held_out.plan = Plan((), {label: Sides(sides.train, sides.val)}, "train-site-val")
    assert held_out._asked(label) == expected
    assert held_out._asked(label, control=True) == ["c"]
