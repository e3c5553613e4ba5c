"""Intervals hold what they promise: against textbook formulas, by hand, and by simulated studies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xsite.evaluation.intervals import (
    FEW_SITES,
    bootstrap_means,
    coverage,
    few_sites_warning,
    site_interval,
    t_interval,
    welch_interval,
)


def test_t_over_sites_weighs_sites_not_subjects():
    sites = [[0.2, 0.4], [0.1], [0.5, 0.5, 0.5, 0.5], [np.nan, np.nan]]
    found = site_interval(sites)
    assert (found.mean, found.low, found.high) == pytest.approx(t_interval([0.3, 0.1, 0.5]))
    assert (found.n_sites, found.n_subjects, found.few_sites) == (3, 7, True)
    assert "Few sites: 3" in found.warning
    assert few_sites_warning(FEW_SITES) == ""
    assert np.isnan(site_interval([[0.3]]).low)
    assert np.isnan(site_interval([]).mean)


def test_welch_for_two_sites_is_the_textbook_one(rng):
    a, b = rng.normal(0.4, 0.1, 7), rng.normal(0.3, 0.3, 12)
    mean, low, high = welch_interval([a, b])
    # half the sum is the mean of the two means; the sum's interval is that of the difference between a and -b
    expected = stats.ttest_ind(a, -b, equal_var=False).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low / 2, expected.high / 2))
    assert mean == pytest.approx((a.mean() + b.mean()) / 2)
    assert np.isnan(welch_interval([a, b[:1]])[1:]).all()


def test_bootstrap_draws_sites_then_subjects(rng):
    sites = [np.array([0.0]), np.array([1.0, 1.0, 1.0])]
    means_B = bootstrap_means(sites, 4000, rng)
    values, counts = np.unique(means_B, return_counts=True)
    assert values.tolist() == [0, 0.5, 1]  # a short site is never filled up with another's subjects
    assert counts / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)
    one_site = bootstrap_means([rng.normal(0, 1, 25)], 4000, rng)
    assert one_site.std() == pytest.approx(0.2, rel=0.25)


def test_bca_follows_the_skew(rng):
    skewed = [0.5 - 0.1 * rng.exponential(size=6) for _ in range(40)]
    plain, corrected = (site_interval(skewed, method=m, samples=4000, seed=1) for m in ("percentile", "bca"))
    assert plain.mean == corrected.mean
    assert corrected.low < plain.low  # the long tail is on the left
    assert corrected.high < plain.high


@pytest.mark.parametrize(("n_sites", "n_subjects"), [(8, 10), (16, 10)])
def test_t_covers_what_it_promises_from_eight_sites_of_ten_subjects(n_sites, n_subjects):
    share, _ = coverage(n_sites, n_subjects, simulations=2000)
    assert 0.93 <= share <= 0.97
    here, width = coverage(n_sites, n_subjects, method="welch", simulations=1000)
    assert 0.93 <= here <= 0.97
    assert width < coverage(n_sites, n_subjects, simulations=200)[1]  # these sites are better known than the next


def test_percentile_bootstrap_covers_too_little_with_few_sites():
    share, _ = coverage(3, 10, method="percentile", simulations=400, samples=300)
    assert share < 0.9  # why it is offered, and not the default
    assert coverage(3, 10, simulations=1500)[0] > 0.93


@pytest.mark.slow
@pytest.mark.parametrize("method", ["t", "bca"])
def test_coverage_at_sixteen_sites(method):
    share, _ = coverage(16, 10, method=method, simulations=3000, samples=1000)
    assert 0.91 <= share <= 0.97
