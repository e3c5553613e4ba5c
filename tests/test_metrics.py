"""Metrics against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xsite.evaluation.metrics import mse, partial_r, pearson_r


def test_pearson_and_mse_agree_with_scipy_on_the_usable_volumes(rng):
    a_VR, b_VR = rng.normal(5, 1, (50, 3)), rng.normal(size=(50, 3))
    b_VR += 0.5 * a_VR
    valid_V = rng.random(50) > 0.2
    a_VR[7] = np.nan
    b_VR[9, 1] = np.nan
    for r in range(3):
        use = valid_V & np.isfinite(a_VR[:, r]) & np.isfinite(b_VR[:, r])
        assert pearson_r(a_VR, b_VR, valid_V)[r] == pytest.approx(stats.pearsonr(a_VR[use, r], b_VR[use, r])[0])
        assert mse(a_VR, b_VR, valid_V)[r] == pytest.approx(np.mean((a_VR[use, r] - b_VR[use, r]) ** 2))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_a_constant_has_no_correlation_but_an_error(rng, value):
    a_VR = np.full((30, 2), value, np.float32)
    b_VR = rng.normal(size=(30, 2))
    valid_V = np.ones(30, bool)
    assert np.isnan(pearson_r(a_VR, b_VR, valid_V)).all()
    assert np.isfinite(mse(a_VR, b_VR, valid_V)).all()
    wiggling_VR = a_VR + 1e-3 * rng.normal(size=(30, 2))  # small is not constant
    assert np.isfinite(pearson_r(wiggling_VR, b_VR, valid_V)).all()


def test_unmeasured_parcels_and_short_recordings_are_nan(rng):
    a_VR, b_VR = rng.normal(size=(2, 20, 2))
    b_VR[:, 0] = np.nan
    valid_V = np.ones(20, bool)
    assert np.isnan(pearson_r(a_VR, b_VR, valid_V)).tolist() == [True, False]
    assert np.isnan(mse(a_VR, b_VR, valid_V)).tolist() == [True, False]
    valid_V[2:] = False  # two points always lie on a line
    assert np.isnan(pearson_r(a_VR, b_VR, valid_V)).all()


def test_partial_r_equals_correlation_of_residuals(rng):
    shared_V = rng.normal(size=80)
    a_VR = rng.normal(size=(80, 2)) + shared_V[:, None]
    b_VR = rng.normal(size=(80, 2)) + shared_V[:, None] + np.array([0.0, 0.8]) * a_VR
    design = np.column_stack([np.ones(80), shared_V])
    residual_a, residual_b = (x - design @ np.linalg.lstsq(design, x, rcond=None)[0] for x in (a_VR, b_VR))
    expected = [np.corrcoef(residual_a[:, r], residual_b[:, r])[0, 1] for r in range(2)]
    np.testing.assert_allclose(partial_r(a_VR, b_VR, shared_V, np.ones(80, bool)), expected)


def test_partial_r_is_nan_when_nothing_is_left_or_nothing_is_given(rng):
    b_VR = rng.normal(size=(40, 1))
    given_V = rng.normal(size=40)
    valid_V = np.ones(40, bool)
    assert np.isnan(partial_r(2 * given_V[:, None], b_VR, given_V, valid_V)).all()
    assert np.isnan(partial_r(b_VR, b_VR, np.full(40, np.nan), valid_V)).all()


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shapes"):
        pearson_r(np.zeros((5, 2)), np.zeros((5, 3)), np.ones(5, bool))
