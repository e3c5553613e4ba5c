"""Every scheme of folds: who is held out, that no subject stands on two sides, and the published bookkeeping."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from site_adapters import vanderbilt
from xsite.data.manifest import rebuild_manifest
from xsite.data.store import write_recording
from xsite.errors import FoldError
from xsite.evaluation import splits
from xsite.evaluation.folds import Fold, leave_one_site_out
from xsite.evaluation.splits import make_folds, within_recording_parts
from xsite.experiment import parse_experiment
from xsite.experiment_parts import Folds
from xsite.learning.targets import TargetSpec, side_targets, training_target, unseen_target, without_test_part
from xsite.recording import RecordingKey

FIELD = {"a": 3.0, "b": 3.0, "c": 1.5, "d": 7.0}


def manifest(**subjects: int) -> pd.DataFrame:
    rows = [
        {
            **{"site": site, "subject": f"{s:02d}", "session": None, "task": task, "run": run},
            **{"field_strength": FIELD.get(site, 3.0), "n_volumes": 575, "t_r": 2.1, "path": f"{site}{s}{task}{run}"},
        }
        for site, n in subjects.items()
        for s in range(1, n + 1)
        for task, run in (("rest", "1"), ("rest", "2"), ("oddball", "1"))
    ]
    return pd.DataFrame(rows)


def official_manifest() -> pd.DataFrame:
    names = (*vanderbilt.TRAIN_SCANS, *vanderbilt.VAL_SCANS, *vanderbilt.TEST_SCANS)
    keys = [vanderbilt.scan_key(name) for name in names]
    rows = [{"site": k.site, "subject": k.subject, "session": "", "task": k.task, "run": k.run} for k in keys]
    return pd.DataFrame(rows).assign(n_volumes=575, t_r=2.1).sample(frac=1, random_state=0)


EYES = ("open eyes", "open-eyes", "closed", "closed_eyes")
SPECS = {
    "leave-one-out:field_strength": 3,
    "leave-one-subject-out": 17,
    "k-fold": 5,
    "site-to-site": 4,
    "growing-sites": 4 * 3,
}


@pytest.mark.parametrize(("scheme", "n"), SPECS.items())
def test_no_subject_stands_on_two_sides_and_labels_are_unique(scheme, n):
    table = manifest(a=5, b=4, c=5, d=3)
    spec = parse_experiment({"folds": {"scheme": scheme}}, "test").folds
    folds = make_folds(table, spec, seed=4)
    assert len(folds) == n
    assert len({f.held_out for f in folds}) == n
    for fold in folds:
        people = [{k.subject_id for k in side} for side in (fold.train, fold.val, fold.test)]
        assert all(people)
        assert not any(a & b for a, b in combinations(people, 2))
        assert "/" not in fold.held_out
        assert Fold.from_dict(json.loads(json.dumps(fold.to_dict()))) == fold
    again = make_folds(table.sample(frac=1, random_state=1), spec, seed=4)
    assert [f.fingerprint for f in again] == [f.fingerprint for f in folds]
    assert [f.fingerprint for f in make_folds(table, spec, seed=5)] != [f.fingerprint for f in folds]


@pytest.mark.parametrize("scheme", ["leave-one-site-out", "leave-one-out:site", *SPECS, "official", "within-recording"])
def test_every_fold_says_what_held_out_must_name_to_make_it_again(scheme):
    table = official_manifest() if scheme == "official" else manifest(a=3, b=3, c=3, d=3)
    folds = make_folds(table, parse_experiment({"folds": {"scheme": scheme}}, "test").folds, seed=4)
    for fold in folds:
        one = parse_experiment({"folds": {"scheme": scheme, "held_out": [fold.selector]}}, "test").folds
        again = make_folds(table, one, seed=4)
        assert [f.held_out for f in again if f == fold] == [fold.held_out]
        assert len(again) == (3 if scheme == "growing-sites" else 1)
        assert {f.selector for f in again} == {fold.selector}
        assert Fold.from_dict(json.loads(json.dumps(fold.to_dict()))).selector == fold.selector
        assert replace(fold, selector=None).fingerprint == fold.fingerprint


def test_values_that_would_share_a_label_are_refused_by_name():
    table = manifest(a=3, b=3, c=3, d=3).assign(eyes=lambda t: t["site"].map(dict(zip("abcd", EYES, strict=True))))
    spec = Folds(scheme="leave-one-out", column="eyes")
    with pytest.raises(FoldError, match="'open eyes' and 'open-eyes' would both be called 'eyes=open-eyes'"):
        make_folds(table, spec, seed=0)
    one = make_folds(table, spec.model_copy(update={"held_out": ("open eyes",)}), seed=0)
    assert [fold.held_out for fold in one] == ["eyes=open-eyes"]


def test_a_value_of_a_column_is_held_out_whole():
    folds = make_folds(manifest(a=4, b=3, c=3, d=2), Folds(scheme="leave-one-out", column="field_strength"), seed=0)
    assert [f.held_out for f in folds] == ["field_strength=1.5", "field_strength=3", "field_strength=7"]
    assert {k.site for k in folds[1].test} == {"a", "b"}
    assert {k.site for k in folds[1].train + folds[1].val} == {"c", "d"}
    assert folds[1].unit == "field_strength"


def test_the_store_knows_the_scanner(tmp_path, make_recording):
    makers = {"a": ("Siemens", 3), "b": ("SIEMENS", 3), "c": ("philips", 1.5)}
    for site, (maker, tesla) in makers.items():
        for subject in ("01", "02"):
            facts = {"scanner": {"manufacturer": maker, "field_strength": tesla}, "population": "healthy"}
            recording = replace(make_recording(site, subject), provenance=facts)
            write_recording(str(tmp_path), recording, fingerprint="x")
    table = rebuild_manifest(str(tmp_path)).assign(excluded=False)
    assert table["population"].tolist() == ["healthy"] * 6
    for column, labels in (
        ("manufacturer", ["manufacturer=philips", "manufacturer=siemens"]),
        ("field_strength", ["field_strength=1.5", "field_strength=3"]),
    ):
        folds = make_folds(table, Folds(scheme="leave-one-out", column=column), seed=0)
        assert [f.held_out for f in folds] == labels
        assert {k.site for k in folds[0].test} == {"c"}
    write_recording(str(tmp_path), make_recording("d", "01"), fingerprint="x")  # of an earlier version
    table = rebuild_manifest(str(tmp_path)).assign(excluded=False)
    with pytest.raises(FoldError, match="recordings of d have no manufacturer"):
        make_folds(table, Folds(scheme="leave-one-out", column="manufacturer"), seed=0)


def test_holding_out_a_task_takes_its_subjects_out_of_training():
    table = manifest(a=4, b=4)
    table = table[~((table.site == "a") & (table.task == "oddball"))]  # site a rests only
    fold = make_folds(table, Folds(scheme="leave-one-out", column="task", held_out=("oddball",)), seed=0)[0]
    assert {(k.site, k.task) for k in fold.test} == {("b", "oddball")}
    assert {k.site for k in fold.train + fold.val} == {"a"}  # b's subjects rested as well, but are tested
    with pytest.raises(FoldError, match="nobody can select"):
        make_folds(manifest(a=4), Folds(scheme="leave-one-out", column="task"), seed=0)


def test_by_site_is_leave_one_site_out():
    table = manifest(a=3, b=3)
    folds = make_folds(table, Folds(scheme="leave-one-out", column="site"), seed=1)
    assert folds == leave_one_site_out(table, val_fraction=0.25, seed=1)


def test_columns_that_cannot_be_held_out_are_refused():
    table = manifest(a=3, c=3)
    with pytest.raises(FoldError, match=r"no column 'field_strenth' \(did you mean 'field_strength'\?\).*'task'"):
        make_folds(table, Folds(scheme="leave-one-out", column="field_strenth"), seed=0)
    table.loc[table.site == "c", "field_strength"] = np.nan
    with pytest.raises(FoldError, match="recordings of c have no field_strength"):
        make_folds(table, Folds(scheme="leave-one-out", column="field_strength"), seed=0)
    with pytest.raises(FoldError, match=r"field_strength = \['3'\]"):
        make_folds(manifest(a=3, b=3), Folds(scheme="leave-one-out", column="field_strength"), seed=0)
    with pytest.raises(ValueError, match="belong together"):
        Folds(scheme="leave-one-out")


def test_every_subject_is_tested_once_by_k_fold_and_by_leave_one_subject_out():
    table = manifest(a=5, b=4)
    everybody = sorted({(r.site, r.subject) for r in table.itertuples()})
    for spec in (Folds(scheme="k-fold", n_folds=4), Folds(scheme="leave-one-subject-out")):
        tested = [pair for fold in make_folds(table, spec, seed=2) for pair in {k.subject_id for k in fold.test}]
        assert sorted(tested) == everybody
    sizes = [len({k.subject_id for k in f.test}) for f in make_folds(table, Folds(scheme="k-fold", n_folds=4), seed=2)]
    assert max(sizes) - min(sizes) <= 1
    one = make_folds(table, Folds(scheme="leave-one-subject-out", held_out=("b/02",)), seed=2)
    assert [f.held_out for f in one] == ["b_sub-02"]
    with pytest.raises(FoldError, match=r"'b_02'.*did you mean 'b/02'"):
        make_folds(table, Folds(scheme="leave-one-subject-out", held_out=("b_02",)), seed=2)
    with pytest.raises(FoldError, match="9 subjects cannot be dealt into 10"):
        make_folds(table, Folds(scheme="k-fold", n_folds=10), seed=2)


def test_official_split_has_the_published_samples():
    fold = make_folds(official_manifest(), Folds(scheme="official"), seed=9)[0]
    samples = {s: sum(575 - 8 for _ in getattr(fold, s)) for s in ("train", "val", "test")}
    assert samples == {"train": 10_206, "val": 2_835, "test": 3_402}
    for side, names in (("train", "TRAIN_SCANS"), ("val", "VAL_SCANS"), ("test", "TEST_SCANS")):
        expected = {vanderbilt.scan_key(name) for name in getattr(vanderbilt, names)}
        assert set(getattr(fold, side)) == expected
    assert (fold.held_out, fold.unit) == ("official", "split")
    assert len({k.subject_id for k in fold.test}) == 5
    table = official_manifest()
    with pytest.raises(FoldError, match="has 28 usable ones, without sub16-scan01"):
        make_folds(table[~(table.subject == "16")], Folds(scheme="official"), seed=0)
    assert len(splits.OFFICIAL_VAL) == 5


def test_within_recording_parts_are_the_published_ones():
    parts = within_recording_parts(575, 2.1)
    assert [stop - start for start, stop in parts.values()] == [453, 46, 48]
    assert parts["val"][0] - parts["train"][1] == 10
    assert parts["test"][0] - parts["val"][1] == 10
    assert parts["train"][0] == 8
    for t_r, n in ((2.0, 400), (0.8, 900), (3.0, 300)):  # at least 20 s, whatever the TR, and nothing lost at the end
        parts = within_recording_parts(n, t_r)
        assert (parts["val"][0] - parts["train"][1]) * t_r >= 20 - 1e-9
        assert (parts["test"][0] - parts["val"][1]) * t_r >= 20 - 1e-9
        assert parts["test"][1] == n


def test_within_recording_gives_one_fold_per_scan_without_shared_volumes():
    folds = make_folds(official_manifest(), Folds(scheme="within-recording"), seed=0)
    assert len(folds) == 29
    fold = folds[0]
    assert fold.train == fold.val == fold.test
    assert fold.unit == "within-recording"
    assert Fold.from_dict(json.loads(json.dumps(fold.to_dict()))) == fold
    key = fold.train[0]
    overlapping = {**fold.segments, "test": {key: (500, 575)}}
    with pytest.raises(FoldError, match=r"volumes \(471, 517\) of val and \(500, 575\) of test overlap"):
        Fold(fold.train, fold.val, fold.test, "x", unit="within-recording", segments=overlapping)
    with pytest.raises(FoldError, match="no volumes named in test"):
        Fold(fold.train, fold.val, fold.test, "x", unit="within-recording", segments={**fold.segments, "test": {}})
    with pytest.raises(FoldError, match="subjects in both train and val"):
        Fold(fold.train, fold.val, fold.test, "x", unit="subject")
    short = official_manifest().assign(n_volumes=100)
    with pytest.raises(FoldError, match="100 volumes, too few"):
        make_folds(short, Folds(scheme="within-recording"), seed=0)


def test_sites_grow_one_by_one_and_never_hold_the_tested_one():
    folds = make_folds(manifest(a=3, b=3, c=3, d=3), Folds(scheme="growing-sites", held_out=("b",)), seed=7)
    assert [f.held_out for f in folds] == ["b_from-1", "b_from-2", "b_from-3"]
    sets = [set(f.train_sites) for f in folds]
    assert [len(s) for s in sets] == [1, 2, 3]
    assert sets[0] < sets[1] < sets[2] == {"a", "c", "d"}
    assert {k.site for f in folds for k in f.test} == {"b"}


def test_site_to_site_fills_the_matrix_with_one_training_per_site():
    folds = make_folds(manifest(a=3, b=3, c=3), Folds(scheme="site-to-site"), seed=0)
    cells = {(f.train_sites[0], k.site) for f in folds for k in f.test}
    assert cells == {(i, j) for i in "abc" for j in "abc" if i != j}
    assert all(len(f.train_sites) == 1 for f in folds)
    one, leaked = folds[0], (*folds[0].test, RecordingKey("a", "99"))
    with pytest.raises(FoldError, match="a stands in train"):
        Fold(one.train, one.val, leaked, "x", unit="training-sites")


@pytest.mark.parametrize("kind", ["strict", "paper"])
def test_parts_of_a_recording_have_targets_of_their_own(make_recording, kind, rng):
    recording = make_recording(n_volumes=300)
    parts = within_recording_parts(300, recording.t_r)
    segments = {side: {recording.key: span} for side, span in parts.items()}
    n_parcels = recording.bold.shape[1]
    spec = TargetSpec(kind, 0.15, (1.0,) * n_parcels, segments)
    spec = TargetSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    targets = {
        "train": training_target(recording, spec),
        "val": unseen_target(recording, spec, side="val"),
        "test": unseen_target(recording, spec),
    }
    for side, target_VR in targets.items():
        there = np.flatnonzero(np.isfinite(target_VR).any(1))
        assert (there[0], there[-1] + 1) == parts[side]
    train, val = side_targets([recording], [recording], spec)
    np.testing.assert_array_equal(train[0], targets["train"])
    np.testing.assert_array_equal(val[0], targets["val"])
    changed = recording.bold.copy()
    changed[parts["test"][0] :] = rng.normal(9, 90, (300 - parts["test"][0], n_parcels))
    other = training_target(replace(recording, bold=changed.astype(np.float32)), spec)
    same = np.array_equal(other, targets["train"], equal_nan=True)
    assert same is (kind == "strict")
    if kind == "strict":
        blind = without_test_part(recording, spec)
        assert not np.isfinite(blind.bold[parts["test"][0] :]).any()
        np.testing.assert_array_equal(training_target(blind, spec), targets["train"])
        np.testing.assert_array_equal(unseen_target(blind, spec, side="val"), targets["val"])
