"""Targets against the published zero-predictor errors, and the promises of the strict target."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, filtfilt

from xsite.data.harmonize import common_channels, harmonize_eeg, paper_target, strict_target, target_scale
from xsite.errors import ChannelError
from xsite.evaluation.splits import within_recording_parts

T_R = 2.1
COLUMNS = (
    "Cuneus",
    "Heschl’s gyrus",
    "Middle frontal gyrus anterior",
    "Precuneus anterior",
    "Putamen",
    "Thalamus",
    "global signal clean",
)
VAL = ("sub06-scan01", "sub13-scan01", "sub13-scan02", "sub15-scan01", "sub22-scan01")
# NeuroBOLT, Table 6, rows of a predictor that says zero (recomputed from the released series)
ZERO_VAL = (0.273, 0.246, 0.260, 0.284, 0.243, 0.265, 0.266)
ZERO_INTRA = (0.324, 0.285, 0.265, 0.309, 0.228, 0.266, 0.290)


@pytest.mark.parametrize("function", [paper_target, lambda x, t_r: strict_target(x, t_r, np.ones(len(x), bool))])
def test_zero_predictor_has_the_published_error(shared_data, function):
    with np.load(shared_data("data/vu_rest_roi/train_val.npz")) as data:
        columns = list(data["columns"])
        places = [columns.index(name) for name in COLUMNS]
        targets = {name: function(data[name], T_R)[:, places] for name in data.files if name != "columns"}
    assert len(targets) == 23
    val = np.mean([np.mean(targets[name][8:] ** 2, axis=0) for name in VAL], axis=0)
    intra = np.mean([np.mean(target[-48:] ** 2, axis=0) for target in targets.values()], axis=0)
    np.testing.assert_allclose(val, ZERO_VAL, atol=1e-3)
    np.testing.assert_allclose(intra, ZERO_INTRA, atol=1e-3)


def test_train_part_of_the_real_scans_never_sees_their_test_part(shared_data, rng):
    parts = within_recording_parts(575, T_R)
    start, stop = parts["test"]
    train_V = np.zeros(575, dtype=bool)
    train_V[slice(*parts["train"])] = True
    moved = []
    with np.load(shared_data("data/vu_rest_roi/train_val.npz")) as data:
        for name in (name for name in data.files if name != "columns"):
            series, changed = data[name], data[name].copy()
            assert series.shape == (575, 66)
            changed[start:stop] = rng.normal(4, 9, (stop - start, 66))
            first, second = (strict_target(x, T_R, train_V)[train_V] for x in (series, changed))
            np.testing.assert_array_equal(first, second)
            np.testing.assert_allclose(np.percentile(np.abs(first), 95, axis=0), 1, atol=1e-5)
            moved.append(np.abs(paper_target(series, T_R)[train_V] - paper_target(changed, T_R)[train_V]).max())
    assert len(moved) == 23
    assert min(moved) > 0.1  # the paper's target does see it: the test above could fail


def test_paper_target_equals_its_definition(rng):
    series = rng.normal(3, 2, (300, 4))
    b, a = butter(5, 0.15, fs=1 / T_R)
    filtered = filtfilt(b, a, series, axis=0)
    filtered -= filtered.mean(0)
    expected = filtered / np.percentile(np.abs(filtered), 95, axis=0)
    np.testing.assert_allclose(paper_target(series, T_R), expected, atol=1e-5)
    np.testing.assert_allclose(target_scale(series, T_R), np.percentile(np.abs(filtered), 95, axis=0), rtol=1e-6)


def test_no_filter_at_or_above_nyquist(rng):
    series = rng.normal(0, 1, (100, 2))
    plain = series - series.mean(0)
    expected = plain / np.percentile(np.abs(plain), 95, axis=0)
    np.testing.assert_allclose(paper_target(series, 4.0), expected, atol=1e-5)  # Nyquist is 0.125 Hz
    np.testing.assert_allclose(paper_target(series, T_R, low_pass=None), expected, atol=1e-5)


def test_strict_target_never_sees_the_test_part(rng):
    series = rng.normal(0, 1, (200, 3))
    train = np.arange(200) < 150
    changed = series.copy()
    changed[150:] = rng.normal(5, 50, (50, 3))
    first, second = strict_target(series, T_R, train), strict_target(changed, T_R, train)
    np.testing.assert_array_equal(first[:150], second[:150])
    assert np.abs(second[150:]).max() > 10 * np.abs(first[150:]).max()
    assert np.abs(paper_target(series, T_R)[:150] - paper_target(changed, T_R)[:150]).max() > 0.1


def test_held_out_recording_is_scaled_by_others_only(rng):
    series, scale = rng.normal(2, 1, (120, 3)), np.array([1.0, 2.0, 4.0])
    nothing = np.zeros(120, dtype=bool)
    ours = strict_target(series, T_R, nothing, scale)
    louder = strict_target(10 * series, T_R, nothing, scale)
    np.testing.assert_allclose(louder, 10 * ours, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.mean(0), 0, atol=1e-6)
    with pytest.raises(ValueError, match="scale_R"):
        strict_target(series, T_R, nothing)


def test_missing_parcels_and_invalid_volumes_stay_missing_and_harm_no_other(rng):
    series = rng.normal(0, 1, (150, 3))
    series[:, 1] = np.nan
    valid = np.ones(150, dtype=bool)
    valid[[0, 1, 70, 71, 149]] = False
    spoiled = series.copy()
    spoiled[~valid] = 1e6
    target = paper_target(spoiled, T_R, valid_V=valid)
    assert np.isnan(target[:, 1]).all()
    assert np.isnan(target[~valid]).all()
    assert np.isfinite(target[valid][:, [0, 2]]).all()
    near = np.abs(np.arange(150)[:, None] - np.flatnonzero(~valid)).min(1) < 12
    whole = paper_target(series, T_R)
    assert np.corrcoef(target[~near, 0], whole[~near, 0])[0, 1] > 0.999


def test_constant_parcel_has_no_target():
    series = np.ones((80, 2))
    series[:, 1] = np.sin(np.arange(80) / 5)
    target = paper_target(series, 2.0)
    assert np.isnan(target[:, 0]).all()
    assert np.isfinite(target[:, 1]).all()


@pytest.mark.parametrize("level", [0.0, 0.1, 5.3, 1e4])
def test_rounding_of_the_filter_is_no_target(level):
    series = np.column_stack([np.full(300, level), level + np.sin(np.arange(300) / 5)]).astype(np.float32)
    half = np.arange(300) < 150
    for target in (paper_target(series, 2.1), strict_target(series, 2.1, half)):
        assert np.isnan(target[:, 0]).all()
        assert np.isfinite(target[:, 1]).all()
    held_out = strict_target(series, 2.1, np.zeros(300, bool), np.ones(2))
    assert (held_out[:, 0] == 0).all()  # at the scale of others: its energy is 0, and no R2 divides by rounding
    assert np.std(held_out[:, 1]) > 0.1
    assert np.isnan(target_scale(series, 2.1)).tolist() == [True, False]
    series[~half, 0] += np.sin(np.arange(150) / 5)  # still while it trains: there is no scale to divide by
    assert np.isnan(strict_target(series, 2.1, half)[:, 0]).all()


def test_common_channels_are_shared_and_ordered_from_front_to_back():
    montages = [("O1", "Cz", "Fp1", "F3"), ("F3", "Fp1", "Pz", "O1"), ("Fp1", "O1", "F3", "Oz")]
    assert common_channels(montages) == ("Fp1", "F3", "O1")
    with pytest.raises(ChannelError, match="share no channel"):
        common_channels([("Fp1",), ("Oz",)])


def test_harmonized_eeg_is_picked_then_referenced(make_recording):
    recording = make_recording()
    eeg = harmonize_eeg(recording, ("Cz", "Fp1", "O1"), "average")
    np.testing.assert_allclose(eeg.mean(0), 0, atol=1e-4)
    native = harmonize_eeg(recording, ("Cz", "Fp1"), "native")
    np.testing.assert_array_equal(native[1], recording.eeg[recording.ch_names.index("Fp1")])
    with pytest.raises(ChannelError, match="TP9"):
        harmonize_eeg(recording, ("Cz", "TP9"))
