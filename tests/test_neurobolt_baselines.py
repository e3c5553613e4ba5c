"""Closed-form baselines: a planted relation is found, missing values are left out, windows decide what is predicted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from neurobolt import EegRecording, Mean, Ridge, Zero
from neurobolt.band_power import BANDS, lagged_band_power, standardise, window_stops


@pytest.fixture
def consortium(make_recording):
    """Six subjects of the planted relation: parcels follow alpha power of the last four channels 5 s earlier."""

    def build(n: int = 6, n_volumes: int = 90):
        recordings = [make_recording(subject=f"{i:02d}", n_volumes=n_volumes) for i in range(1, n + 1)]
        eegs = [EegRecording(r.eeg, r.eeg_valid, r.volume_onsets, r.volume_valid, r.sfreq) for r in recordings]
        return eegs, [r.bold for r in recordings]

    return build


def mean_r(predicted_VR, target_VR):
    return np.mean([np.corrcoef(p, t)[0, 1] for p, t in zip(predicted_VR.T, target_VR.T, strict=True)])


def test_ridge_recovers_a_planted_lagged_relation(consortium):
    eegs, targets = consortium()
    ridge = Ridge(bin_s=2.0).fit(eegs[:5], targets[:5])
    predicted = ridge.predict(eegs[5])
    assert predicted.shape == targets[5].shape
    assert predicted.dtype == np.float32
    assert mean_r(predicted, targets[5]) > 0.5
    weight_CBL = np.abs(ridge.weight_PR).sum(1).reshape(13, len(BANDS), 8)
    assert weight_CBL.sum((0, 2)).argmax() == list(BANDS).index("alpha")
    assert weight_CBL[-4:, 2].mean() > 3 * weight_CBL[:-4, 2].mean()
    assert 15 - 2 * weight_CBL[-4:, 2].sum(0).argmax() == pytest.approx(5, abs=2)  # centre of the bin before the volume
    assert min(ridge.alphas) < ridge.alpha <= max(ridge.alphas)


def test_ridge_finds_nothing_in_the_bold_of_others(consortium):
    eegs, targets = consortium()
    ridge = Ridge().fit(eegs[:5], [targets[(i + 1) % 5] for i in range(5)])
    assert ridge.alpha >= 10  # a strong penalty is the right choice
    assert ridge.predict(eegs[5]).std() < 0.2 * targets[5].std()


def test_ridge_equals_the_textbook_solution(consortium):
    eegs, targets = consortium(3, 40)
    ridge = Ridge(alphas=(0.5,)).fit(eegs, targets)
    x = np.concatenate([ridge.features(e)[0] for e in eegs]).astype(np.float64)
    y = np.concatenate(targets).astype(np.float64)
    xc, yc = x - x.mean(0), y - y.mean(0)
    weight = np.linalg.solve(xc.T @ xc + 0.5 * len(x) * np.eye(x.shape[1]), xc.T @ yc)
    np.testing.assert_allclose(ridge.weight_PR, weight, atol=1e-4)
    np.testing.assert_allclose(ridge.bias_R, y.mean(0) - x.mean(0) @ weight, atol=1e-4)


def test_error_from_sums_equals_error_from_rows(consortium):
    eegs, targets = consortium(4, 40)
    chosen = Ridge(alphas=(0.1, 1.0)).fit(eegs[:3], targets[:3], val_recordings=eegs[3:], val_targets=targets[3:])
    for i, alpha in enumerate(chosen.alphas):
        alone = Ridge(alphas=(alpha,)).fit(eegs[:3], targets[:3])
        error = np.square(alone.predict(eegs[3]) - targets[3]).sum()
        assert chosen.error_A[i] == pytest.approx(error, rel=1e-3)
    everyone = Ridge(alphas=(chosen.alpha,)).fit(eegs, targets)
    np.testing.assert_allclose(chosen.weight_PR, everyone.weight_PR, atol=1e-5)  # refit with validation recordings
    apart = Ridge(alphas=(0.1, 1.0), refit=False)
    apart.fit(eegs[:3], targets[:3], val_recordings=eegs[3:], val_targets=targets[3:])
    train_only = Ridge(alphas=(apart.alpha,)).fit(eegs[:3], targets[:3])
    np.testing.assert_allclose(apart.weight_PR, train_only.weight_PR, atol=1e-5)


def test_missing_targets_are_left_out(consortium):
    eegs, targets = consortium(4, 50)
    holes = [t.copy() for t in targets]
    holes[0][:, 1] = np.nan  # no coverage in one recording
    holes[1][10:30, 2] = np.nan
    ridge = Ridge(alphas=(1.0,)).fit(eegs, holes)
    whole = Ridge(alphas=(1.0,)).fit(eegs, targets)
    np.testing.assert_allclose(ridge.weight_PR[:, 0], whole.weight_PR[:, 0], atol=1e-6)
    without = Ridge(alphas=(1.0,)).fit(eegs[1:], targets[1:])
    np.testing.assert_allclose(ridge.weight_PR[:, 1], without.weight_PR[:, 1], atol=1e-6)
    assert np.isfinite(ridge.weight_PR).all()
    np.testing.assert_allclose(Mean().fit(eegs, holes).bold_R[1], np.mean([t[:, 1] for t in targets[1:]]), atol=1e-5)
    nowhere = [t.copy() for t in targets]
    for t in nowhere:
        t[:, 2] = np.nan
    ridge = Ridge().fit(eegs, nowhere)
    assert (ridge.predict(eegs[0])[:, 2] == 0).all()
    assert Mean().fit(eegs, nowhere).bold_R[2] == 0


def test_windows_decide_which_volumes_are_predicted(consortium):
    eegs, targets = consortium(2, 30)
    e = eegs[0]
    valid_T, valid_V = e.eeg_valid_T.copy(), e.volume_valid_V.copy()
    onset_10 = round(e.volume_onsets_V[10] * e.sfreq)
    valid_T[onset_10] = False  # first sample after the window of volume 10, inside the next eight
    valid_V[25] = False
    onsets = e.volume_onsets_V.copy()
    onsets[0] = 15.9  # 16 s do not fit before it
    onsets[29] = e.eeg_CT.shape[1] / e.sfreq + 0.01
    e = replace(e, eeg_valid_T=valid_T, volume_valid_V=valid_V, volume_onsets_V=onsets)
    stop_V, seen_V = window_stops(e, 16.0)
    assert stop_V[10] == onset_10
    assert np.flatnonzero(~seen_V).tolist() == [0, *range(11, 19), 25, 29]
    for model in (Zero(), Mean(), Ridge()):
        predicted = model.fit(eegs, targets).predict(e)
        np.testing.assert_array_equal(np.isfinite(predicted).all(1), seen_V)
        np.testing.assert_array_equal(np.isnan(predicted).all(1), ~seen_V)


def test_zero_and_mean(consortium):
    eegs, targets = consortium(2, 30)
    targets = [t + 2 for t in targets]
    assert (Zero().fit(eegs, targets).predict(eegs[0]) == 0).all()
    mean = Mean().fit(eegs, targets)
    np.testing.assert_allclose(mean.predict(eegs[1])[3], np.concatenate(targets).mean(0), rtol=1e-5)


@pytest.mark.parametrize("make", [Zero, Mean, Ridge, partial(Ridge, per_recording=False)])
def test_state_round_trip(consortium, make):
    eegs, targets = consortium(3, 30)
    model = make().fit(eegs[:2], targets[:2])
    state = model.state()
    assert all(isinstance(v, np.ndarray) for v in state.values())
    again = type(model).from_state(state)
    assert type(again) is type(model)
    np.testing.assert_array_equal(again.predict(eegs[2]), model.predict(eegs[2]))


def test_band_power_measures_microvolt_squared_in_its_band():
    t = np.arange(40 * 200) / 200
    eeg = np.stack((20 * np.sin(2 * np.pi * 10 * t), 20 * np.sin(2 * np.pi * 20 * t) * (t < 20), 0 * t))
    recording = EegRecording(eeg, np.ones(len(t), bool), np.array([30.0]), np.ones(1, bool), 200.0)
    features, seen = lagged_band_power(recording, window_s=16.0, bin_s=1.0)
    power_CBL = np.exp(features.reshape(3, len(BANDS), 16))
    assert seen.all()
    assert power_CBL[0, :, 5].argmax() == 2
    assert power_CBL[1, :, 5].argmax() == 3
    assert power_CBL[1, 3, 5] > 1e4 * power_CBL[1, 3, 6]  # the window is 14..30 s: bin 5 ends at 20 s, the tone too
    assert np.isfinite(features).all()
    assert (standardise(np.ones((4, 2))) == 0).all()


def test_per_recording_standardisation_removes_gain(consortium):
    eegs, targets = consortium(3, 40)
    ridge = Ridge().fit(eegs[:2], targets[:2])
    gains = np.linspace(0.3, 4, 13)[:, None]
    louder = replace(eegs[2], eeg_CT=eegs[2].eeg_CT * gains)
    np.testing.assert_allclose(ridge.predict(louder), ridge.predict(eegs[2]), atol=1e-3)


def test_the_window_ridge_knows_nothing_of_the_rest_of_a_recording(consortium):
    eegs, targets = consortium(6, 90)
    alone, whole = Ridge(per_recording=False).fit(eegs[:5], targets[:5]), Ridge().fit(eegs[:5], targets[:5])
    assert (alone.reads_whole_recording, whole.reads_whole_recording) == (False, True)
    assert mean_r(alone.predict(eegs[5]), targets[5]) > 0.5
    stop = round((eegs[5].volume_onsets_V[40] + 1) * eegs[5].sfreq)
    louder = eegs[5].eeg_CT.copy()
    louder[:, stop:] *= 3.0
    later = replace(eegs[5], eeg_CT=louder)
    np.testing.assert_array_equal(alone.predict(later)[:40], alone.predict(eegs[5])[:40])
    assert np.abs(whole.predict(later)[:40] - whole.predict(eegs[5])[:40]).max() > 0.01


def test_groups_are_left_out_together(consortium):
    eegs, targets = consortium(4, 30)
    Ridge().fit(eegs, targets, groups=["a", "a", "b", "b"])
    with pytest.raises(ValueError, match="one group of recordings"):
        Ridge().fit(eegs, targets, groups=["a"] * 4)
    assert Ridge(alphas=(1.0,)).fit(eegs[:1], targets[:1]).alpha == 1.0


def test_misfits_are_refused(consortium):
    eegs, targets = consortium(2, 30)
    fewer = replace(eegs[1], eeg_CT=eegs[1].eeg_CT[:5])
    with pytest.raises(ValueError, match="recording 1 has 5 channels, the first 13"):
        Ridge().fit([eegs[0], fewer], targets)
    with pytest.raises(ValueError, match=r"target 1 has shape \(29, 3\)"):
        Mean().fit(eegs, [targets[0], targets[1][:-1]])
    with pytest.raises(ValueError, match="2 recordings and 1 targets"):
        Zero().fit(eegs, targets[:1])
    with pytest.raises(ValueError, match="5 channels"):
        Ridge().fit(eegs, targets).predict(fewer)
