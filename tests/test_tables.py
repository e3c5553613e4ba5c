"""The quoted figures: weights of subjects and sites, undefined scores, intervals, surrogate p-values."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xsite.evaluation.scoring import ORACLE, SCORE_COLUMNS, Prediction, score_predictions
from xsite.evaluation.tables import (
    compare,
    intervals,
    json_safe,
    null_means,
    overall,
    study_summary,
    subject_scores,
    summarize,
    t_interval,
)
from xsite.recording import RecordingKey

ROW = {"site", "model", "control", "n_subjects", "n_volumes", "r_mean", "oracle_r_mean", "mse_mean", "p_null"}
PARCELS = ("p0", "p1", "p2")
MODELS = (
    ("net", 0.5, False),
    ("ridge", 0.7, False),
    ("zero", None, False),
    ("net", 0.0, True),
    (ORACLE, 0.9, False),
)


def predict(rng, key, target_VR, models):
    """Models of known quality: correlation of about ``share`` with the target; None is a constant."""
    valid_V = np.ones(len(target_VR), bool)
    for model, share, control in models:
        if share is None:
            predicted_VR = np.full_like(target_VR, 0.3)
        else:
            predicted_VR = share * target_VR + np.sqrt(1 - share**2) * rng.normal(size=target_VR.shape)
        yield Prediction(key, model, control, predicted_VR, target_VR, valid_V)


@pytest.fixture
def predictions(rng):
    found = []
    for site, n in (("a", 4), ("b", 3), ("c", 5)):
        for subject in range(n):
            for run in ("1", "2")[: 1 + (subject == 0)]:
                key = RecordingKey(site, str(subject), run=run)
                found += predict(rng, key, rng.normal(size=(120, 3)), MODELS)
    return found


@pytest.fixture
def scores(predictions):
    return score_predictions(predictions, parcels=PARCELS)


def table(*rows):
    """Scores by hand: (site, subject, run, model, parcel, r)."""
    content = []
    for site, subject, run, model, parcel, r in rows:
        content.append((site, subject, "", "", run, model, False, parcel, r, np.nan, 1.0, 10))
    return pd.DataFrame(content, columns=list(SCORE_COLUMNS))


def test_rows_have_the_promised_keys_and_truthful_values(predictions, scores):
    rows = summarize(scores, predictions, surrogates=200, seed=1)
    assert len(rows) == 3 * 4
    assert all(set(row) == ROW for row in rows)
    by = {(row["site"], row["model"], row["control"]): row for row in rows}
    assert by["a", "net", False]["n_subjects"] == 4
    assert by["a", "net", False]["n_volumes"] == 5 * 120
    assert by["a", "net", False]["r_mean"] == pytest.approx(0.5, abs=0.1)
    assert by["a", "net", False]["p_null"] == 1 / 201
    assert by["a", "net", True]["p_null"] > 0.01
    assert by["a", "zero", False]["r_mean"] is None
    assert by["a", "zero", False]["p_null"] == 1.0
    assert by["b", "ridge", False]["oracle_r_mean"] == pytest.approx(0.9, abs=0.05)
    json.loads(json.dumps(rows, allow_nan=False))
    without = scores[scores["model"] != ORACLE]
    assert {row["oracle_r_mean"] for row in summarize(without, predictions, surrogates=1)} == {None}


def test_subjects_weigh_the_same_however_many_runs_they_have():
    scores = table(
        ("a", "1", "1", "m", "p", 0.1), ("a", "1", "2", "m", "p", 0.3), ("a", "1", "3", "m", "p", 0.2),
        ("a", "2", "1", "m", "p", 0.8),
    )  # fmt: skip
    assert subject_scores(scores)["r"].tolist() == pytest.approx([0.2, 0.8])
    row = summarize(scores, [], surrogates=0)[0]
    assert row["r_mean"] == pytest.approx(0.5)
    assert row["n_volumes"] == 40


def test_silence_about_a_parcel_is_no_gain():
    scores = table(("a", "1", "", "m", "p", 0.6), ("a", "1", "", "m", "q", np.nan))
    assert summarize(scores, [], surrogates=0)[0]["r_mean"] == pytest.approx(0.3)
    scores["mse"] = [1.0, np.nan]  # not measured at all: nobody is asked about it
    assert summarize(scores, [], surrogates=0)[0]["r_mean"] == pytest.approx(0.6)


def test_null_is_the_statistic_of_the_row_with_surrogates_in_its_place(predictions):
    nulls = null_means(predictions, surrogates=300, seed=0)
    assert set(nulls) == {
        (s, m, c) for s in "abc" for m, c in (("net", 0), ("ridge", 0), ("zero", 0), ("net", 1), (ORACLE, 0))
    }
    for label in (("a", "net", False), ("b", "net", True)):
        recordings = [p for p in predictions if (p.key.site, p.model, p.control) == label]
        n_subjects = len({p.key.subject for p in recordings})
        assert abs(nulls[label].mean()) < 0.02
        # r of white noise over 120 volumes has SD .092; three parcels, and a first subject with two runs
        expected = 0.092 / np.sqrt(3 * n_subjects)
        assert nulls[label].std() == pytest.approx(expected, rel=0.25)
    again = null_means(list(reversed(predictions)), surrogates=300, seed=0)
    np.testing.assert_allclose(again["a", "net", False], nulls["a", "net", False])


def test_comparison_is_paired_by_subject_and_sites_are_the_unit_over_all(scores):
    found = compare(scores, "net", "ridge").set_index("site")
    assert found.index.tolist() == ["a", "b", "c", "all"]
    subjects = subject_scores(scores)
    net, ridge = (
        subjects[(subjects["model"] == m) & ~subjects["control"] & (subjects["site"] == "c")]["r"].to_numpy()
        for m in ("net", "ridge")
    )
    test = stats.ttest_rel(net, ridge).confidence_interval(0.95)
    assert found.loc["c", ["ci_low", "ci_high"]].tolist() == pytest.approx([test.low, test.high])
    assert found.loc["c", "difference"] == pytest.approx(np.mean(net - ridge))
    assert found.loc["all", "unit"] == "sites"
    assert found.loc["all", "difference"] == pytest.approx(found["difference"].iloc[:3].mean())
    assert found["few"].tolist() == [True, True, False, True]
    assert (found["ci_high"] < 0).all()  # ridge was made the better one
    with pytest.raises(ValueError, match="no scores of"):
        compare(scores, "net", "forest")
    assert compare(scores, "net", "zero").empty  # a constant has no r to be paired with


def test_intervals_by_t():
    values = [0.2, 0.35, 0.5, 0.1]
    mean, low, high = t_interval([*values, np.nan])
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, low, high) == pytest.approx((np.mean(values), expected.low, expected.high))
    assert t_interval([0.4])[0] == 0.4
    assert np.isnan(t_interval([0.4])[1:]).all()
    found = intervals(table(*(("a", str(i), "", "m", "p", r) for i, r in enumerate(values)))).iloc[0]
    assert (found["ci_low"], found["n_subjects"], found["few"]) == (pytest.approx(expected.low), 4, True)


def test_control_is_inside_its_band_and_a_real_model_outside(predictions, scores):
    rows = overall(scores, null_means(predictions, surrogates=400, seed=3))
    by = {(row["model"], row["control"]): row for row in rows}
    assert by["net", True]["inside_band"] is True
    assert by["net", False]["inside_band"] is False
    assert by["zero", False]["inside_band"] is None
    assert by["net", False]["p_null"] == 1 / 401
    assert by["net", False]["n_subjects"] == 12
    assert by["net", True]["null_low"] < 0 < by["net", True]["null_high"]


def test_study_summary_is_plain_json(predictions, scores):
    summary = study_summary(scores, predictions, model="net", rivals=("zero", "ridge", "absent"), surrogates=50, seed=0)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["rows"] == summarize(scores, predictions, surrogates=50, seed=0)
    assert {row["b"] for row in summary["comparison"]} == {"ridge"}
    assert summary["test_site_access"] == "none"
    net = next(
        row for row in summary["intervals"] if (row["site"], row["model"], row["control"]) == ("a", "net", False)
    )
    assert net["null_low"] < 0 < net["null_high"] < net["ci_low"] < net["r_mean"]


def test_json_safe_knows_numpy():
    value = {"a": np.float32(0.5), "b": np.array([1, 2]), "c": (np.nan, np.inf, np.bool_(True), None, "x")}
    assert json_safe(value) == {"a": 0.5, "b": [1, 2], "c": [None, None, True, None, "x"]}
