"""Paired tests between models: exact where it can be, corrected, and calibrated."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from xsite.evaluation.compare import compare, holm, paired_tests, rank_models, sign_flip
from xsite.evaluation.generalization import id_ood
from xsite.evaluation.scoring import SCORE_COLUMNS


def scores_of(rng, models, *, sites=4, subjects=5, parcels=3, site_sd=0.0, held_out=None):
    """A score table: every model's r is its mean plus what site, subject and chance add; parcel p0 is the best."""
    rows = []
    for site in range(sites):
        of_site = rng.normal(0, site_sd)
        for subject in range(subjects):
            shared = rng.normal(0, 0.1)
            for (model, mean), parcel in itertools.product(models.items(), range(parcels)):
                r = mean + of_site + shared + rng.normal(0, 0.05)
                rows.append((f"s{site}", str(subject), "", "", "", model, False, f"p{parcel}", r, np.nan, 1, 100, 0, 0))
    table = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    return table if held_out is None else table.assign(held_out=held_out)


def test_exact_sign_flip_counts_all_patterns():
    d = np.array([0.3, 0.1, 0.2, 0.4, -0.05])
    means = [abs(np.mean(d * signs)) for signs in itertools.product((1, -1), repeat=5)]
    expected = np.mean([m >= d.mean() - 1e-12 for m in means])
    p, p_max = sign_flip(d)
    assert p[0] == expected == p_max[0]
    assert sign_flip(np.abs(d))[0][0] == 2 / 32  # the smallest that five units can give
    assert sign_flip([0.2])[0][0] == 1.0


def test_random_flips_agree_with_the_t_test(rng):
    d = rng.normal(0.03, 0.1, 40)
    p = sign_flip(d, draws=40_000)[0][0]
    assert p == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.015)


def test_missing_pairs_do_not_count(rng):
    d = rng.normal(0.1, 0.1, (9, 2))
    d[4:, 1] = np.nan
    p, _ = sign_flip(d)
    assert p[1] == pytest.approx(sign_flip(d[:4, 1])[0][0])
    assert np.isnan(sign_flip(np.full((4, 1), np.nan))[0]).all()


def test_units_flip_together(rng):
    d = np.repeat([0.2, 0.3, 0.25], 10) + rng.normal(0, 0.01, 30)
    assert sign_flip(d)[0][0] < 0.001
    assert sign_flip(d, units=[i // 10 for i in range(30)])[0][0] == 2 / 8


def test_sites_count_alike_however_many_subjects_each_has(rng):
    """The tested figure is the one that is shown: here the mean of the sites' means and that of the subjects differ."""
    small, large = -1 + 0.1 * rng.normal(size=2), 0.3 + 0.3 * rng.normal(size=9)
    sites = ["small"] * 2 + ["large"] * 9
    rows = [
        (site, str(n), "", "", "", model, False, "p0", value * (model == "a"), np.nan, 1, 100, 0, 0)
        for n, (site, value) in enumerate(zip(sites, [*small, *large], strict=True))
        for model in "ab"
    ]
    scores = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    whole, one = paired_tests(scores, "a", "b").to_dict("records")
    share = np.array([1 / 4] * 2 + [1 / 18] * 9)
    signs = np.array(list(itertools.product((1, -1), repeat=11)))
    flipped = np.abs((signs * np.r_[small, large]) @ share)
    assert whole["difference"] == pytest.approx(flipped[0] * -1)
    for row in (whole, one):
        assert row["p"] == pytest.approx((flipped >= flipped[0] * (1 - 1e-9)).mean())
    np.testing.assert_allclose(sign_flip(np.r_[small, large], within=["one"] * 11), sign_flip(np.r_[small, large]))
    false = [sign_flip(rng.normal(size=12), within=["s"] * 3 + ["t"] * 9, draws=1)[0][0] <= 0.05 for _ in range(300)]
    assert np.mean(false) <= 0.05 + 1.64 * np.sqrt(0.05 * 0.95 / 300)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, np.nan]).tolist() == pytest.approx([0.03, 0.06, 0.06, np.nan], nan_ok=True)
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0


def test_family_wise_error_is_kept_and_the_maximum_costs_less_than_holm():
    rng = np.random.default_rng(3)
    p_min, max_min = [], []
    for trial in range(400):
        common = rng.normal(0, 1, (10, 1))
        p, p_max = sign_flip(0.8 * common + 0.6 * rng.normal(size=(10, 20)), seed=trial)
        p_min.append(np.nanmin(holm(p)))
        max_min.append(np.nanmin(p_max))
    assert np.mean(np.array(p_min) <= 0.05) <= 0.07
    assert 0.02 <= np.mean(np.array(max_min) <= 0.05) <= 0.08
    assert np.mean(max_min) < np.mean(p_min)  # parcels that move together do not cost twice


def test_parcel_tests_name_what_they_rest_on(rng):
    scores = scores_of(rng, {"net": 0.4, "ridge": 0.3})
    better = (scores["model"] == "net") & (scores["parcel"] == "p2")
    scores.loc[better, "r"] -= 0.1  # no better than ridge there
    table = paired_tests(scores, "net", "ridge").set_index("parcel")
    assert table.index.tolist() == ["all", "p0", "p1", "p2"]
    assert table["n"].tolist() == [20] * 4
    assert (table.loc[["all", "p0", "p1"], "p_holm"] < 0.01).all()
    assert table.loc["p2", "p_holm"] > 0.05
    assert table.loc["p0", "difference"] == pytest.approx(0.1, abs=0.05)
    by_site = paired_tests(scores, "net", "ridge", unit="sites").set_index("parcel")
    assert by_site.loc["all", ["n", "p"]].tolist() == [4, 2 / 16]
    with pytest.raises(ValueError, match="no scores of"):
        paired_tests(scores, "net", "forest")


def test_comparison_carries_a_sign_flip_p(rng):
    found = compare(scores_of(rng, {"net": 0.4, "ridge": 0.3}), "net", "ridge")
    assert found["p_flip"].iloc[:4].tolist() == [2 / 32] * 4
    assert found["p_flip"].iloc[4] == 2 / 16


def test_ranks_tell_apart_what_differs_and_group_what_does_not(rng):
    scores = scores_of(rng, {"erm": 0.4, "coral": 0.401, "bad": 0.1})
    found = rank_models(scores, ["bad", "erm", "coral"])
    assert found["n"] == 20
    assert list(found["ranks"])[-1] == "bad"
    assert found["ranks"]["bad"] == 3.0
    assert sorted(map(sorted, found["groups"])) == [["bad"], ["coral", "erm"]]
    assert found["friedman_p"] < 1e-4
    # Demsar 2006, table 5: q(0.05) = 2.343 for three models
    assert found["critical_difference"] == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 20)), abs=0.01)
    assert rank_models(scores, ["erm", "coral", "bad"], unit="sites")["n"] == 4
    with pytest.raises(ValueError, match="no scores of"):
        rank_models(scores, ["erm", "forest"])


def test_known_and_unseen_sites_side_by_side(rng):
    ood = scores_of(rng, {"net": 0.3, "zero": 0.0}, site_sd=0.05)
    inside = ood[ood["subject"].isin(["0", "1"])]
    folds = []
    for held_out in ("s0", "s1", "s2", "s3"):  # a validation subject selects in every fold but its own site's
        fold = inside[inside["site"] != held_out].assign(held_out=held_out)
        fold["r"] += 0.1
        folds.append(fold)
    net = next(row for row in id_ood(pd.concat(folds), ood) if row["model"] == "net")
    assert net["gap"] == pytest.approx(0.1)
    assert (net["n_sites"], net["n_subjects"]) == (4, 8)
    assert net["gap_low"] <= 0.1 + 1e-9
    per_site = ood[ood["model"] == "net"].groupby("site")["r"].mean()
    assert (net["worst_site"], net["worst"]) == (per_site.idxmin(), pytest.approx(per_site.min()))
    assert net["ood"] == pytest.approx(per_site.mean())
    assert "Few sites" in net["warning"]
    nobody = id_ood(inside.iloc[:0], ood)[0]
    assert np.isnan(nobody["gap"])
    assert nobody["n_sites_id"] == 0
