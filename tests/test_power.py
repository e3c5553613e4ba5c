"""Power analysis: right where a textbook knows the answer, and honest under the null."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xsite.evaluation.power import Scatter, null_sd, power, power_table, sites_needed


def test_power_is_the_textbook_one():
    scatter = Scatter(site_sd=0.05, subject_sd=0.1, scan_s=1200)
    n_sites, n_subjects, mean_r = 6, 4, 0.06
    sd = np.sqrt(0.05**2 + scatter.within_sd**2 / n_subjects)
    shift = mean_r / sd * np.sqrt(n_sites)
    expected = stats.nct.sf(stats.t.ppf(0.95, n_sites - 1), n_sites - 1, shift)
    assert power(mean_r, n_sites, n_subjects, scatter=scatter) == pytest.approx(expected, abs=0.025)


def test_false_positives_of_both_questions():
    assert power(0.0, 8, 10) == pytest.approx(0.05, abs=0.015)
    alike = Scatter(site_sd=0.0, subject_sd=0.0)
    assert power(0.0, 1, 80, scatter=alike, question="here") == pytest.approx(0.05, abs=0.015)
    wide = stats.norm.sf(np.sqrt(2) * stats.norm.ppf(0.95))  # the null of several sites allows for folds that are tied
    assert power(0.0, 8, 10, scatter=alike, question="here") == pytest.approx(wide, abs=0.005)
    assert power(0.0, 8, 10, question="here") > 0.05  # sites that differ are not nothing, and the test says so
    assert power(0.5, 1, 50) == 0.0


def test_more_of_everything_helps():
    table = power_table([0.05, 0.2], [4, 8], [3, 10], simulations=1500).set_index(["mean_r", "n_sites", "n_subjects"])
    assert (table.loc[0.2] >= table.loc[0.05] - 0.03).all().all()
    assert table.loc[(0.05, 8, 10), "next_site"] > table.loc[(0.05, 4, 3), "next_site"] + 0.2
    assert table.loc[(0.05, 4, 3), "here"] > table.loc[(0.05, 4, 3), "next_site"]
    needed = [sites_needed(r, 10, simulations=1500) for r in (0.2, 0.05)]
    assert needed[0] < needed[1]
    assert sites_needed(0.001, 2, at_most=4, simulations=500) is None


def test_scatter_of_chance_by_scan_length():
    assert null_sd(1191) == pytest.approx(0.071, abs=0.002)
    assert null_sd(300) == pytest.approx(2 * null_sd(1200), rel=0.02)
    with pytest.raises(ValueError, match="independent samples"):
        null_sd(5)
