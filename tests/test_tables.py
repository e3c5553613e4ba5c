"""The quoted figures: weights of subjects and sites, undefined scores, intervals, surrogate p-values."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xsite.evaluation.compare import compare, paired_tests
from xsite.evaluation.intervals import t_interval
from xsite.evaluation.json_values import json_safe
from xsite.evaluation.metrics import pearson_r
from xsite.evaluation.nulls import surrogate_p
from xsite.evaluation.paired import main_rival, paired_parcels
from xsite.evaluation.parcels import max_p
from xsite.evaluation.scoring import ORACLE, SCORE_COLUMNS, Prediction, score_predictions
from xsite.evaluation.site_rows import intervals, overall, summarize
from xsite.evaluation.subjects import subject_scores
from xsite.evaluation.surrogates import null_means, study_nulls
from xsite.evaluation.tables import study_summary
from xsite.recording import RecordingKey

ROW = {"site", "model", "control", "n_subjects", "n_seeds", "n_volumes", "r_mean", "ci_low", "ci_high", "few", "p_null"}
ROW |= {"r_partial_mean", "r2_mean", "oracle_r_mean", "mse_mean", "p_shift", "unit", "selection", "access"}
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
        content.append((site, subject, "", "", run, model, False, parcel, r, np.nan, 1.0, 10, np.nan, 0))
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


def test_silence_at_a_whole_site_is_no_gain_in_anything_over_sites(rng):
    """A model that speaks at one of four sites: means by parcel, pairs, nulls and known sites are over all four."""
    found = []
    for site in "abcd":
        for subject in ("1", "2"):
            key, target_VR = RecordingKey(site, subject), rng.normal(size=(120, 3))
            found += predict(rng, key, target_VR, (("net", 0.3 if site == "a" else None, False), ("ridge", 0.2, False)))
    signals = {p.key: rng.normal(size=120) for p in found}
    scores = score_predictions(found, parcels=PARCELS, global_signals=signals)
    content = study_summary(scores, found, model="net", rivals=("ridge",), surrogates=199, id_scores=scores)
    spoken = next(row["r_mean"] for row in content["rows"] if row["model"] == "net" and row["site"] == "a")
    (whole,) = (row for row in content["overall"] if row["model"] == "net")
    assert whole["r_mean"] == pytest.approx(spoken / 4)
    assert whole["r_partial_mean"] < spoken / 3
    parcels = [row for row in content["parcels"] if row["model"] == "net"]
    assert np.mean([row["r_mean"] for row in parcels]) == pytest.approx(spoken / 4)
    assert {(row["n_sites"], row["n_subjects"]) for row in parcels} == {(4, 8)}
    assert [pair["site"] for pair in content["comparison"]] == ["a", "b", "c", "d", "all"]
    assert {row["n"] for row in content["paired_parcels"]} == {8}
    (known,) = (row for row in content["id_ood"] if row["model"] == "net")
    assert known["ood"] == pytest.approx(spoken / 4)
    assert known["worst"] == 0


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


def test_seeds_are_averaged_per_recording_and_never_counted_as_subjects(rng):
    predictions = []
    for subject in range(4):
        target_VR = rng.normal(size=(120, 3))
        for seed in range(3):
            (p,) = predict(rng, RecordingKey("a", str(subject)), target_VR, [("net", 0.5, False)])
            predictions.append(dataclasses.replace(p, seed=seed))
    scores = score_predictions(predictions, parcels=PARCELS)
    assert len(scores) == 4 * 3 * 3
    row = summarize(scores, predictions, surrogates=200)[0]
    assert (row["n_subjects"], row["n_seeds"], row["n_volumes"]) == (4, 3, 480)
    by_subject = scores.groupby("subject")["r"].mean()
    assert row["r_mean"] == pytest.approx(by_subject.mean())
    assert row["ci_low"] == pytest.approx(t_interval(by_subject)[1])
    with pytest.raises(ValueError, match="seed 0"):
        score_predictions([*predictions, predictions[0]], parcels=PARCELS)
    # the null averages seeds as well: three unrelated predictions per recording scatter less than one
    noise = [dataclasses.replace(p, predicted_VR=rng.normal(size=(120, 3))) for p in predictions]
    three = null_means(noise, surrogates=500, seed=0)["a", "net", False].std()
    one = null_means([p for p in noise if p.seed == 0], surrogates=500, seed=0)["a", "net", False].std()
    assert three == pytest.approx(one / np.sqrt(3), rel=0.2)


def test_a_seed_that_says_nothing_pulls_the_mean_down():
    scores = table(("a", "1", "", "m", "p", 0.6), ("a", "1", "", "m", "p", np.nan))
    scores["seed"] = [0, 1]
    assert subject_scores(scores)["r"].tolist() == pytest.approx([0.3])


def test_scores_of_older_studies_are_still_read():
    scores = table(("a", "1", "", "m", "p", 0.4), ("a", "2", "", "m", "p", 0.2)).drop(columns=["r2", "seed"])
    row = summarize(scores, [], surrogates=0)[0]
    assert (row["r_mean"], row["r2_mean"], row["n_seeds"]) == (pytest.approx(0.3), None, 1)


def test_partial_r_is_unknown_without_a_global_signal_not_zero():
    scores = table(("a", "1", "", "m", "p", 0.6), ("a", "1", "", "m", "q", np.nan))
    assert np.isnan(subject_scores(scores)["r_partial"]).all()


def test_every_table_names_what_it_rests_on(predictions, scores):
    summary = study_summary(
        scores,
        predictions,
        model="net",
        rivals=("ridge",),
        surrogates=19,
        access="2 labelled subjects",
        selection="oracle",
    )
    for name in ("rows", "overall", "intervals", "comparison", "parcels"):
        assert summary[name]
        for row in summary[name]:
            assert row["access"] == "2 labelled subjects"
            assert row["selection"] == "oracle"
            assert row["unit"] in ("subjects", "sites")
            assert any(key in row for key in ("n", "n_subjects"))
    assert summary["basis"]["n_subjects"] == 12
    assert summary["basis"]["n_recordings"] == 15
    warned = " ".join(summary["warnings"])
    assert "Few sites: 3" in warned
    assert "global-signal" in warned  # asked for in every table, and absent here
    assert "set surrogates to 60" in warned  # 3 parcels, p .05
    assert set(summary["ranks"]["ranks"]) == {"net", "ridge"}


def test_models_that_knew_something_else_say_so(predictions, scores):
    summary = study_summary(
        scores, predictions, model="net", rivals=("ridge",), surrogates=19, access="unlabelled EEG",
        access_of={"ridge": "none", "zero": "none"}, trained=("net",), n_seeds=1,
    )  # fmt: skip
    for name in ("rows", "overall", "intervals", "parcels"):
        levels = {(row["model"], row["access"]) for row in summary[name] if row["model"] != ORACLE}
        assert levels == {("net", "unlabelled EEG"), ("ridge", "none"), ("zero", "none")}
    for name in ("comparison", "paired_parcels"):
        assert {row["access"] for row in summary[name]} == {"unlabelled EEG against none"}
    assert any("Not like for like: ridge had access none" in words for words in summary["warnings"])


def test_a_failed_audit_is_among_the_warnings(predictions, scores):
    leakage = {"verdict": "fail", "sentence": "Leakage audit failed: carried weights.", "findings": []}
    summary = study_summary(scores, predictions, model="net", surrogates=0, leakage=leakage)
    assert leakage["sentence"] in summary["warnings"]
    assert summary["leakage"] == leakage


def test_folds_are_no_seeds_and_a_second_name_has_no_rank(predictions):
    twice = [dataclasses.replace(p, seed=1) for p in predictions if p.model == "net" and not p.control]
    chosen = [dataclasses.replace(p, model="selected") for p in predictions if p.model == "net" and not p.control]
    everything = [*predictions, *twice, *chosen]
    scores = score_predictions(everything, parcels=PARCELS)
    counted = study_summary(scores, everything, model="net", surrogates=0)
    assert counted["basis"]["n_seeds"] == 2  # nobody has said how many were trained
    summary = study_summary(scores, everything, model="net", surrogates=0, trained=("net",), n_seeds=1)
    assert summary["basis"]["n_seeds"] == 1
    assert {row["n_seeds"] for row in summary["rows"]} == {1}
    assert set(summary["ranks"]["ranks"]) == {"net", "ridge"}


def test_parcels_are_compared_with_the_main_rival_and_between_variants(predictions, scores):
    rows = summarize(scores, predictions, surrogates=0)
    found = paired_parcels(scores, "net", rows, ("net", "zero"))
    assert [row["parcel"] for row in found if row["b"] == "ridge"] == ["all", *PARCELS]
    assert {(row["a"], row["b"]) for row in found} == {("net", "ridge")}  # a constant has no r to be paired with
    expected = paired_tests(scores, "net", "ridge")
    assert [row["p_holm"] for row in found] == expected["p_holm"].tolist()
    copy = scores[(scores["model"] == "net") & ~scores["control"]].assign(model="other", r=lambda t: t["r"] - 0.3)
    both = paired_parcels(pd.concat([scores, copy]), "net", rows, ("net", "other"))
    pairs = dict.fromkeys((row["a"], row["b"]) for row in both)
    assert list(pairs) == [("net", "ridge"), ("other", "ridge"), ("net", "other")]
    assert all(row["difference"] == pytest.approx(0.3) for row in both if row["b"] == "other")


def test_overall_tells_the_next_site_from_these_sites(predictions, scores):
    net = next(row for row in overall(scores, {}) if row["model"] == "net" and not row["control"])
    assert net["here_low"] < net["r_mean"] < net["here_high"]
    assert net["few_sites"] is True
    subjects = subject_scores(scores)
    own = subjects[(subjects["model"] == "net") & ~subjects["control"]]
    assert net["r2_mean"] == pytest.approx(own.groupby("site")["r2"].mean().mean())


def test_parcels_that_hold_something_stand_out_after_correction(rng):
    predictions = []
    for site in "abcd":
        for subject in range(3):
            target_VR = rng.normal(size=(150, 8))
            said_VR = rng.normal(size=(150, 8))
            said_VR[:, 0] += 0.5 * target_VR[:, 0]
            key = RecordingKey(site, str(subject))
            predictions.append(Prediction(key, "net", False, said_VR, target_VR, np.ones(150, bool)))
    names = [f"p{i}" for i in range(8)]
    summary = study_summary(score_predictions(predictions, parcels=names), predictions, model="net", surrogates=999)
    rows = {row["parcel"]: row for row in summary["parcels"]}
    assert list(rows) == names
    assert rows["p0"]["p_holm"] == pytest.approx(0.008)
    assert rows["p0"]["p_floor"] == pytest.approx(0.008)
    assert rows["p0"]["p_max"] == 0.001
    assert all(rows[name]["p_max"] > 0.05 for name in names[1:])
    assert (rows["p0"]["n_sites"], rows["p0"]["n_subjects"]) == (4, 12)
    assert rows["p0"]["ci_low"] > 0.2


def test_family_wise_false_positives_of_parcels():
    """No parcel of any of 300 null studies holds anything: at most one in twenty studies may claim otherwise."""
    rng = np.random.default_rng(6)
    held, uncorrected = 0, []
    for study in range(300):
        common = rng.normal(size=(80, 1))
        target_VR = common + rng.normal(size=(80, 10))
        p = Prediction(RecordingKey("a", "1"), "net", False, rng.normal(size=(80, 10)), target_VR, np.ones(80, bool))
        null_NR = study_nulls([p], surrogates=199, seed=study).parcels["a", "net", False]
        r_R = pearson_r(p.predicted_VR, target_VR, p.valid_V)
        held += max_p(r_R, null_NR).min() <= 0.05
        uncorrected.append(np.mean([surrogate_p(r, null_NR[:, i]) <= 0.05 for i, r in enumerate(r_R)]))
    assert held / 300 <= 0.075  # 5 % and its own scatter
    assert 0.03 <= np.mean(uncorrected) <= 0.07


def test_the_rival_of_a_model_is_the_ridge_that_knew_as_much():
    def row(model: str, access: str, r: float | None = 0.3) -> dict[str, object]:
        return {"model": model, "access": access, "control": False, "r_mean": r}

    rows = [row("net", "none"), row("x", "unlabelled EEG"), row("alpha", "unlabelled EEG", 0.9)]
    ridges = [row("ridge", "unlabelled EEG"), row("ridge-window", "none")]
    assert [main_rival(name, [*rows, *ridges], ("net", "x")) for name in ("net", "x")] == ["ridge-window", "ridge"]
    assert main_rival("net", [*rows, ridges[0]], ("net", "x")) == "ridge"  # unlike, but the stronger one
    assert main_rival("net", [*rows, ridges[0] | {"r_mean": None}], ("net", "x")) == "alpha"
