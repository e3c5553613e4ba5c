"""Coherence, lag, effective samples, connectivity: known answers, and what chance gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from xsite.evaluation.figures import FIGURE_COLUMNS, VALUES, recording_figures, site_figures
from xsite.evaluation.metrics import best_lag, connectivity_similarity, pearson_r, r2_about_zero
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.evaluation.spectra import coherence, effective_n
from xsite.recording import RecordingKey

T_R = 2.1


def smooth(rng, n_volumes, n_parcels, low_pass=0.15):
    sos = signal.butter(5, low_pass, fs=1 / T_R, output="sos")
    return signal.sosfiltfilt(sos, rng.normal(size=(n_volumes + 40, n_parcels)), axis=0)[20:-20]


def test_r2_about_zero(rng):
    target_VR = rng.normal(1, 1, (50, 3))
    valid_V = np.ones(50, bool)
    assert r2_about_zero(target_VR, target_VR, valid_V).tolist() == [1, 1, 1]
    assert r2_about_zero(np.zeros((50, 3)), target_VR, valid_V).tolist() == [0, 0, 0]
    assert r2_about_zero(-target_VR, target_VR, valid_V) == pytest.approx([-3] * 3)
    half_VR = 0.5 * target_VR
    half_VR[::5] = np.nan
    assert r2_about_zero(half_VR, target_VR, valid_V) == pytest.approx([0.75] * 3)
    assert np.isnan(r2_about_zero(target_VR, np.zeros((50, 3)), valid_V)).all()


def test_coherence_of_itself_of_a_late_copy_and_of_nothing(rng):
    x_VR = smooth(rng, 560, 40)
    valid_V = np.ones(560, bool)
    same_R, chance = coherence(x_VR, x_VR, valid_V, T_R)
    assert same_R == pytest.approx(np.ones(40))
    late_VR = -np.roll(x_VR, 3, axis=0)
    assert coherence(late_VR, x_VR, valid_V, T_R)[0].mean() > 0.8  # late and upside down: R cannot see it
    assert np.abs(pearson_r(late_VR, x_VR, valid_V)).mean() < 0.6
    nothing_R, chance = coherence(smooth(rng, 560, 40), x_VR, valid_V, T_R)
    assert nothing_R.mean() == pytest.approx(chance, rel=0.15)


def test_coherence_bridges_gaps_and_refuses_crumbs(rng):
    x_VR = smooth(rng, 300, 2, low_pass=0.08)
    valid_V = np.ones(300, bool)
    valid_V[[50, 51, 120]] = False
    y_VR = x_VR.copy()
    y_VR[~valid_V] = 99
    y_VR[:5] = np.nan
    assert (coherence(y_VR, x_VR, valid_V, T_R)[0] > 0.999).all()
    x_VR[:, 1] = 4.0
    assert np.isnan(coherence(y_VR, x_VR, valid_V, T_R)[0]).tolist() == [False, True]
    short_R, chance = coherence(x_VR[:15], x_VR[:15], valid_V[:15], T_R)
    assert np.isnan(short_R).all()
    assert np.isnan(chance)


def test_effective_n_predicts_the_scatter_of_r():
    rng = np.random.default_rng(2)
    for n_volumes, low_pass in ((567, 0.15), (567, 0.05), (120, 0.15)):
        a_VR, b_VR = smooth(rng, n_volumes, 400, low_pass), smooth(rng, n_volumes, 400, low_pass)
        valid_V = np.ones(n_volumes, bool)
        scatter = pearson_r(a_VR, b_VR, valid_V).std()
        worth = np.median(effective_n(a_VR, b_VR, valid_V))
        assert 1 / np.sqrt(worth) == pytest.approx(scatter, rel=0.15)
    white_VR = rng.normal(size=(400, 50))
    assert np.median(effective_n(white_VR, rng.normal(size=(400, 50)), np.ones(400, bool))) > 350
    white_VR[:, 0] = 1.0
    assert np.isnan(effective_n(white_VR, white_VR, np.ones(400, bool))[0])


@pytest.mark.parametrize("late", [-3, 0, 2])
def test_best_lag_is_found_with_its_sign(rng, late):
    x_VR = smooth(rng, 200, 3)
    said_VR = np.roll(x_VR, late, axis=0)
    lag_R, r_R = best_lag(said_VR, x_VR, np.ones(200, bool), T_R)
    assert lag_R == pytest.approx([late * T_R] * 3)
    assert (r_R > 0.99).all()
    said_VR[:, 1] = 0
    assert np.isnan(best_lag(said_VR, x_VR, np.ones(200, bool), T_R)[0]).tolist() == [False, True, False]


def test_connectivity_similarity(rng):
    target_VR = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 8)) + 0.3 * rng.normal(size=(500, 8))
    valid_V = np.ones(500, bool)
    assert connectivity_similarity(target_VR, target_VR, valid_V) == pytest.approx(1)
    other_VR = rng.normal(size=(500, 8)) @ rng.normal(size=(8, 8))
    assert abs(connectivity_similarity(other_VR, target_VR, valid_V)) < 0.75
    one_VR = target_VR.mean(1, keepdims=True) * np.ones(8)
    assert np.isnan(connectivity_similarity(one_VR, target_VR, valid_V))  # one time course has no pattern
    target_VR[:, 0] = np.nan
    one_VR = rng.normal(size=(500, 8))
    assert np.isfinite(connectivity_similarity(one_VR, target_VR, valid_V))
    assert np.isnan(connectivity_similarity(one_VR[:, :2], target_VR[:, 1:3], valid_V))


def test_figures_of_recordings_and_of_sites(rng):
    predictions = []
    for subject in ("01", "02"):
        key = RecordingKey("a", subject)
        target_VR = smooth(rng, 200, 3)
        oracle_VR = target_VR + smooth(rng, 200, 3)
        oracle_VR[:, 2] = smooth(rng, 200, 1)[:, 0]  # nothing to learn in the last parcel
        for seed in (0, 1):
            said_VR = np.roll(oracle_VR + 0.2 * smooth(rng, 200, 3), 1, axis=0)
            predictions.append(Prediction(key, "net", False, said_VR, target_VR, np.ones(200, bool), seed))
        predictions.append(Prediction(key, ORACLE, False, oracle_VR, target_VR, np.ones(200, bool)))
    table = recording_figures(predictions, ("p0", "p1", "p2"), {p.key: T_R for p in predictions})
    assert tuple(table.columns) == FIGURE_COLUMNS
    assert len(table) == 6 * 3
    oracle = table[(table["model"] == ORACLE) & (table["parcel"] != "p2")]
    assert oracle["r_normalised"].tolist() == pytest.approx([1] * 4)
    net = table[(table["model"] == "net") & (table["parcel"] != "p2")]
    assert net["lag_s"].tolist() == pytest.approx([T_R] * 8)
    assert (net["r_at_lag"] > 0.5).all()
    assert net["r_normalised"].between(0.2, 0.95).all()
    half_VR = predictions[0].predicted_VR.copy()
    half_VR[:, 1] = 0.0  # silence in a parcel that can be learned
    silent = [replace(predictions[0], predicted_VR=half_VR), predictions[2]]
    found = recording_figures(silent, ("p0", "p1", "p2"), {p.key: T_R for p in silent})
    assert found[found["model"] == "net"].set_index("parcel").loc["p1", "r_normalised"] == 0
    sites = site_figures(table).set_index("model")
    assert sites["n_subjects"].tolist() == [2, 2]
    assert sites.loc["net", "lag_s"] == pytest.approx(T_R)
    assert set(VALUES) <= set(sites.columns)
    with pytest.raises(ValueError, match="parcel names"):
        recording_figures(predictions, ("p0",), T_R)
    assert recording_figures([], ("p0",), T_R).empty
    assert site_figures(recording_figures([], ("p0",), T_R)).empty
