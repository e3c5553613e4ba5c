"""Folds, and the control that swaps subjects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from xsite.errors import FoldError
from xsite.evaluation.controls import other_subjects_target
from xsite.evaluation.folds import Fold, leave_one_site_out, manifest_keys, validation_subjects
from xsite.recording import RecordingKey


def manifest(**subjects: int) -> pd.DataFrame:
    rows = [
        {"site": site, "subject": f"{s:02d}", "session": None, "task": "rest", "run": run}
        for site, n in subjects.items()
        for s in range(1, n + 1)
        for run in ("1", "2")
    ]
    return pd.DataFrame(rows)


def test_every_site_is_held_out_once_and_selects_nothing():
    folds = leave_one_site_out(manifest(a=4, b=5, c=2), val_fraction=0.25, seed=3)
    assert [f.held_out for f in folds] == ["a", "b", "c"]
    for fold in folds:
        assert {k.site for k in fold.test} == {fold.held_out}
        assert len(fold.train) + len(fold.val) + len(fold.test) == 22
        assert set(fold.train_sites) == {"a", "b", "c"} - {fold.held_out}
        for site in fold.train_sites:  # somebody selects, somebody trains
            assert len({k.subject for k in fold.val if k.site == site}) >= 1
            assert len({k.subject for k in fold.train if k.site == site}) >= 1
        assert not {k.subject_id for k in fold.train} & {k.subject_id for k in fold.val}


def test_a_validation_subject_is_one_in_every_fold():
    folds = leave_one_site_out(manifest(a=6, b=6, c=6, d=6), val_fraction=0.3, seed=0)
    train = {k.subject_id for f in folds for k in f.train}
    val = {k.subject_id for f in folds for k in f.val}
    assert not train & val
    assert len(val) == 4 * 2


def test_same_plan_same_hash_whatever_the_row_order():
    table = manifest(a=3, b=4, c=3)
    again = table.sample(frac=1, random_state=5)
    first = [f.fingerprint for f in leave_one_site_out(table, val_fraction=0.25, seed=1)]
    second = [f.fingerprint for f in leave_one_site_out(again, val_fraction=0.25, seed=1)]
    assert first == second
    assert len(set(first)) == 3
    # written down once: a change of the draw or of the hash must be noticed, since stores and checkpoints carry it
    assert first[0] == "cd1e65f06015"
    assert first != [f.fingerprint for f in leave_one_site_out(table, val_fraction=0.25, seed=2)]


def test_single_subject_sites_train_only():
    folds = leave_one_site_out(manifest(a=1, b=3, c=3), val_fraction=0.25, seed=0, held_out=("b",))
    assert [f.held_out for f in folds] == ["b"]
    assert {k.site for k in folds[0].val} == {"c"}
    assert "a" in folds[0].train_sites


def test_validation_subjects_never_take_all():
    assert validation_subjects("a", ["1"], val_fraction=0.9, seed=0) == ()
    for n in range(2, 12):
        for fraction in (0.01, 0.25, 0.99):
            chosen = validation_subjects("a", [str(i) for i in range(n)], val_fraction=fraction, seed=n)
            assert 1 <= len(chosen) < n


@pytest.mark.parametrize(
    ("table", "held_out", "message"),
    [
        (manifest(a=4), (), "one site only"),
        (manifest(a=4).iloc[:0], (), "no usable recording"),
        (manifest(alpha=2, beta=2), ("alpah",), "did you mean 'alpha'"),
        (manifest(a=1, b=1, c=4), ("c",), "one subject each"),
    ],
)
def test_impossible_plans_say_why(table, held_out, message):
    with pytest.raises(FoldError, match=message):
        leave_one_site_out(table, val_fraction=0.25, seed=0, held_out=held_out)


def test_excluded_recordings_stay_away():
    table = manifest(a=2, b=2)
    table["excluded"] = table["run"] == "2"
    assert len(manifest_keys(table)) == 4
    assert all(key.run == "1" and key.session == "" for key in manifest_keys(table))


def test_fold_refuses_a_leak():
    a1, a2, b1, b2 = (RecordingKey(s, n) for s in "ab" for n in "12")
    assert Fold((a1,), (a2,), (b1, b2), "b").train_sites == ("a",)
    with pytest.raises(FoldError, match="both train and val: a/1"):
        Fold((a1,), (RecordingKey("a", "1", run="2"), a2), (b1,), "b")
    with pytest.raises(FoldError, match="no recording in val"):
        Fold((a1,), (), (b1,), "b")
    with pytest.raises(FoldError, match="b stands in train"):
        Fold((a1, b2), (a2,), (b1,), "b")
    with pytest.raises(FoldError, match="twice in test"):
        Fold((a1,), (a2,), (b1, b1), "b")


def test_fold_survives_json():
    fold = leave_one_site_out(manifest(a=2, b=2), val_fraction=0.5, seed=0)[0]
    assert Fold.from_dict(fold.to_dict()) == fold


def test_control_gives_everybody_another_subjects_bold(rng):
    keys = manifest_keys(manifest(a=5, b=2))
    lengths = rng.integers(40, 60, len(keys))
    targets = {key: np.full((n, 2), i, float) for i, (key, n) in enumerate(zip(keys, lengths, strict=True))}
    shuffled = other_subjects_target(targets, seed=4)
    assert set(shuffled) == set(targets)
    for key, target_VR in shuffled.items():
        assert target_VR.shape == targets[key].shape
        for parcel in range(2):
            donor = keys[int(abs(target_VR[0, parcel]))]
            assert donor.site == key.site
            assert donor.subject != key.subject
            assert np.isfinite(target_VR[:, parcel]).sum() == min(len(targets[donor]), len(target_VR))
    assert {np.sign(t[0, p]) for t in shuffled.values() for p in range(2)} >= {-1.0, 1.0}
    assert any(abs(t[0, 0]) != abs(t[0, 1]) for t in shuffled.values()), "each parcel has a deal of its own"
    again = other_subjects_target(dict(reversed(targets.items())), seed=4)
    assert all(np.array_equal(again[k], shuffled[k], equal_nan=True) for k in keys)


def test_control_needs_two_subjects_and_one_parcellation():
    keys = manifest_keys(manifest(a=2, b=1))
    with pytest.raises(FoldError, match=r"\['b'\] have one subject"):
        other_subjects_target({key: np.zeros((9, 2)) for key in keys}, seed=0)
    with pytest.raises(FoldError, match="parcels"):
        other_subjects_target({RecordingKey("a", str(n)): np.zeros((9, n)) for n in (1, 2)}, seed=0)
