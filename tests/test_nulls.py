"""Surrogates keep what they must keep, forget what they must forget, and the fast road is the slow one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from xsite.evaluation.metrics import pearson_r
from xsite.evaluation.nulls import KINDS, null_band, null_r, phase_randomize, random_phases, random_shifts, surrogate_p


def bold_like(rng, n_volumes, n_parcels, t_r=2.1):
    """AR(1) of .6, low-passed at .15 Hz: as smooth as the target that is scored."""
    noise = signal.lfilter([1], [1, -0.6], rng.normal(size=(n_volumes + 50, n_parcels)), axis=0)[50:]
    sos = signal.butter(5, 0.15, fs=1 / t_r, output="sos")
    return signal.sosfiltfilt(sos, noise, axis=0)


@pytest.mark.parametrize("n_volumes", [60, 61])
def test_surrogates_keep_spectrum_mean_and_cross_correlation(rng, n_volumes):
    series_VR = rng.normal(size=(n_volumes, 4)) @ rng.normal(size=(4, 4)) + 3
    surrogate_VR = phase_randomize(series_VR, rng)
    assert surrogate_VR.shape == series_VR.shape
    np.testing.assert_allclose(surrogate_VR.mean(0), series_VR.mean(0))
    np.testing.assert_allclose(np.abs(np.fft.rfft(surrogate_VR, axis=0)), np.abs(np.fft.rfft(series_VR, axis=0)))
    np.testing.assert_allclose(np.corrcoef(surrogate_VR.T), np.corrcoef(series_VR.T), atol=1e-10)
    assert np.abs(pearson_r(surrogate_VR, series_VR, np.ones(n_volumes, bool))).max() < 0.7


def test_gaps_are_refused_not_spread(rng):
    with pytest.raises(ValueError, match="gaps"):
        phase_randomize(np.array([[1.0], [np.nan], [2.0]]), rng)


@pytest.mark.parametrize("n_volumes", [50, 51])
def test_fast_null_equals_explicit_surrogates(n_volumes):
    rng = np.random.default_rng(1)
    a_VR, b_VR = rng.normal(size=(2, n_volumes, 3))
    scored_V = np.ones(n_volumes, bool)
    fast_NR = null_r(a_VR, b_VR, scored_V, surrogates=5, rng=np.random.default_rng(7))
    phases_NF = random_phases(n_volumes, 5, np.random.default_rng(7))
    for n in range(5):
        turned = np.fft.rfft(b_VR, axis=0) * np.exp(1j * phases_NF[n])[:, None]
        surrogate_VR = np.fft.irfft(turned, n=n_volumes, axis=0)
        np.testing.assert_allclose(fast_NR[n], pearson_r(a_VR, surrogate_VR, scored_V), atol=1e-12)


def test_gaps_and_ends_are_scored_as_they_were(rng):
    a_VR, b_VR = bold_like(rng, 120, 2), bold_like(rng, 120, 2)
    scored_V = np.ones(120, bool)
    scored_V[:8] = scored_V[-3:] = False
    a_VR[:8] = np.nan
    whole_NR = null_r(a_VR, b_VR, scored_V, surrogates=40, rng=np.random.default_rng(2))
    cut_NR = null_r(a_VR[8:-3], b_VR[8:-3], np.ones(109, bool), surrogates=40, rng=np.random.default_rng(2))
    np.testing.assert_allclose(whole_NR, cut_NR)
    scored_V[[40, 41, 77]] = False
    b_VR[[40, 41, 77]] = np.nan
    gaps_NR = null_r(a_VR, b_VR, scored_V, surrogates=300, rng=np.random.default_rng(2))
    assert np.isfinite(gaps_NR).all()
    assert np.abs(gaps_NR).max() <= 1
    np.testing.assert_allclose(gaps_NR[:40], whole_NR, atol=0.15)  # three of 109 volumes change little


def test_undefined_parcels_stay_undefined(rng):
    a_VR, b_VR = rng.normal(size=(2, 40, 3))
    a_VR[:, 0] = 0.2
    b_VR[:, 1] = np.nan
    null_NR = null_r(a_VR, b_VR, np.ones(40, bool), surrogates=10, rng=rng)
    assert np.isnan(null_NR).any(0).tolist() == [True, True, False]


def test_independent_smooth_series_are_rejected_no_more_often_than_promised():
    rng = np.random.default_rng(5)
    valid_V = np.ones(300, bool)
    p = []
    for _ in range(150):
        a_VR, b_VR = bold_like(rng, 300, 1), bold_like(rng, 300, 1)
        null_NR = null_r(a_VR, b_VR, valid_V, surrogates=199, rng=rng)
        p.append(surrogate_p(float(pearson_r(a_VR, b_VR, valid_V)[0]), null_NR[:, 0]))
    # one-sided 5 % of 150 trials: 12 and fewer in 97 of 100 such tests; the textbook p-value gives about 20 here
    assert sum(value <= 0.05 for value in p) <= 12
    assert 0.35 < np.mean(p) < 0.65


def test_p_counts_ties_and_the_observation_itself():
    null = np.array([0.1, 0.2, 0.3, 0.4])
    assert surrogate_p(0.3, null) == 3 / 5
    assert surrogate_p(0.5, null) == 1 / 5
    assert surrogate_p(float("nan"), null) == 1.0
    assert surrogate_p(0.5, np.empty(0)) == 1.0


def test_band_holds_its_share(rng):
    null = rng.normal(size=4000)
    low, high = null_band(null)
    assert np.mean((null >= low) & (null <= high)) == pytest.approx(0.95, abs=0.001)
    assert np.isnan(null_band(np.empty(0))).all()


def slow_noise(rng, n_volumes, n_parcels):
    """AR(1) of .9, as slow as a drifting scan after its high-pass."""
    return signal.lfilter([1], [1, -0.9], rng.normal(size=(n_volumes + 100, n_parcels)), axis=0)[100:]


def false_positive_rate(noise, kind, n_volumes, *, n_subjects, seed):
    """Share of null subjects below p = .05; every column is a subject of its own, unrelated to all others."""
    rng = np.random.default_rng(seed)
    valid_V, p = np.ones(n_volumes, bool), []
    for _ in range(n_subjects // 20):
        a_VR, b_VR = noise(rng, n_volumes, 20), noise(rng, n_volumes, 20)
        null_NR = null_r(a_VR, b_VR, valid_V, surrogates=399, rng=rng, kind=kind)
        r_R = pearson_r(a_VR, b_VR, valid_V)
        p += [surrogate_p(float(r), null_N) for r, null_N in zip(r_R, null_NR.T, strict=True)]
    return float(np.mean(np.array(p) <= 0.05))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [bold_like, slow_noise])
def test_false_positives_of_two_thousand_null_subjects(kind, noise):
    rate = false_positive_rate(noise, kind, 200, n_subjects=2000, seed=11)
    assert 0.03 <= rate <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_volumes", [150, 300, 567])
@pytest.mark.parametrize("noise", [bold_like, slow_noise])
def test_false_positives_of_four_thousand_null_subjects(kind, noise, n_volumes):
    assert 0.03 <= false_positive_rate(noise, kind, n_volumes, n_subjects=4000, seed=5) <= 0.07


def test_fast_shifts_equal_explicit_ones_with_and_without_gaps(rng):
    a_VR, b_VR = bold_like(rng, 90, 3), bold_like(rng, 90, 3) + 5
    for gaps in ([], [30, 31, 60]):
        scored_V = np.ones(90, bool)
        scored_V[gaps] = False
        null_NR = null_r(a_VR, b_VR, scored_V, surrogates=40, rng=np.random.default_rng(4), kind="shift")
        shifts_N = random_shifts(90, 40, np.random.default_rng(4))
        assert shifts_N.min() >= 1
        assert shifts_N.max() <= 89
        volumes = np.arange(90)
        filled_VR = np.stack([np.interp(volumes, volumes[scored_V], b_V[scored_V]) for b_V in b_VR.T], axis=1)
        for shift, null_R in zip(shifts_N, null_NR, strict=True):
            np.testing.assert_allclose(null_R, pearson_r(a_VR, np.roll(filled_VR, shift, axis=0), scored_V), atol=1e-9)


def test_short_shifts_belong_to_the_null():
    """Without them, unrelated slow series are found related: the reason why random_shifts leaves none out."""
    rng = np.random.default_rng(8)
    valid_V, kept, cut = np.ones(150, bool), [], []
    for _ in range(40):
        a_VR, b_VR = (signal.lfilter([1], [1, -0.97], rng.normal(size=(300, 20)), axis=0)[150:] for _ in range(2))
        r_R = pearson_r(a_VR, b_VR, valid_V)
        every_NR = np.stack([pearson_r(a_VR, np.roll(b_VR, s, axis=0), valid_V) for s in range(1, 150)])
        kept += [surrogate_p(float(r), null_N) <= 0.05 for r, null_N in zip(r_R, every_NR.T, strict=True)]
        cut += [surrogate_p(float(r), null_N) <= 0.05 for r, null_N in zip(r_R, every_NR[14:-14].T, strict=True)]
    assert np.mean(kept) < 0.09
    assert np.mean(cut) > np.mean(kept) + 0.02
