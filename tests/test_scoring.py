"""Whole recordings to a tidy table, and predictions on disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from xsite.errors import FormatError
from xsite.evaluation.metrics import pearson_r
from xsite.evaluation.scoring import (
    SCORE_COLUMNS,
    Prediction,
    load_predictions,
    save_predictions,
    score_predictions,
    score_recording,
)


@pytest.fixture
def predictions(make_recording, rng):
    found = []
    for site in ("alpha", "beta"):
        for subject in ("01", "02"):
            recording = make_recording(site, subject, n_volumes=50)
            valid_V = recording.volume_valid.copy()
            valid_V[:2] = False
            good_VR = recording.bold + rng.normal(0, 1, recording.bold.shape)
            good_VR[:4] = np.nan  # no EEG window yet
            for model, predicted_VR in (("good", good_VR), ("zero", np.zeros_like(recording.bold))):
                found.append(Prediction(recording.key, model, False, predicted_VR, recording.bold, valid_V))
    return found


def test_one_row_per_recording_model_and_parcel(predictions):
    table = score_predictions(predictions, parcels=("p0", "p1", "p2"))
    assert tuple(table.columns) == SCORE_COLUMNS
    assert len(table) == 8 * 3
    assert not table.duplicated(["site", "subject", "model", "parcel"]).any()
    good = table[table["model"] == "good"]
    assert (good["n_volumes"] == 46).all()
    p = predictions[0]
    mine = good[(good["site"] == p.key.site) & (good["subject"] == p.key.subject)]
    np.testing.assert_allclose(mine["r"], pearson_r(p.predicted_VR, p.target_VR, p.valid_V))
    zero = table[table["model"] == "zero"]
    assert zero["r"].isna().all()
    np.testing.assert_allclose(zero["mse"].iloc[:3], (p.target_VR[2:].astype(float) ** 2).mean(0))


def test_partial_r_only_with_a_global_signal(make_recording, rng):
    recording = make_recording()
    known = {"key": recording.key, "parcels": recording.parcellation.labels, "model": "m", "control": False}
    predicted_VR = recording.bold + rng.normal(0, 0.5, recording.bold.shape)
    without = score_recording(predicted_VR, recording.bold, recording.volume_valid, **known)
    given = score_recording(
        predicted_VR, recording.bold, recording.volume_valid, global_signal_V=recording.global_signal, **known
    )
    assert without["r_partial"].isna().all()
    assert np.isfinite(given["r_partial"]).all()
    np.testing.assert_allclose(given["r"], without["r"])


def test_a_recording_is_scored_once(predictions):
    with pytest.raises(ValueError, match="scored twice"):
        score_predictions([*predictions, predictions[0]], parcels=("p0", "p1", "p2"))
    with pytest.raises(ValueError, match="2 parcel names for 3"):
        score_predictions(predictions, parcels=("p0", "p1"))
    with pytest.raises(ValueError, match="do not fit together"):
        dataclasses.replace(predictions[0], valid_V=np.ones(3, bool))


def test_predictions_come_back_as_they_went(predictions, tmp_path):
    path = save_predictions(tmp_path / "predictions.npz", predictions)
    again = load_predictions(path)
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.npz"]
    assert len(again) == len(predictions)
    for a, b in zip(predictions, again, strict=True):
        assert (a.key, a.model, a.control) == (b.key, b.model, b.control)
        np.testing.assert_array_equal(a.predicted_VR.astype(np.float32), b.predicted_VR)
        np.testing.assert_array_equal(a.target_VR, b.target_VR)
        np.testing.assert_array_equal(a.valid_V, b.valid_V)
        np.testing.assert_array_equal(a.scored_V, b.scored_V)


def test_unreadable_predictions_name_the_file(predictions, tmp_path):
    path = save_predictions(tmp_path / "predictions.npz", predictions)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FormatError, match=r"predictions\.npz"):
        load_predictions(path)
    with pytest.raises(FormatError, match=r"absent\.npz"):
        load_predictions(tmp_path / "absent.npz")
