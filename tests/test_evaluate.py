"""Scoring a model on a store, without training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_folder import SITES, build_recording, build_study

from jobs import evaluate
from jobs.opened import open_checkpoint
from xsite.data.manifest import rebuild_manifest
from xsite.data.store import read_recording, write_recording
from xsite.errors import ParcellationError, StoreError
from xsite.evaluation.scoring import load_predictions
from xsite.learning.predict import predict_recording
from xsite.learning.targets import TargetSpec, unseen_target


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_study(tmp_path_factory.mktemp("evaluate"))


def test_scores_are_those_of_the_checkpoint(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = study.parent / "store"
    words = [str(study / "final"), "--store", str(store), "--out", str(tmp_path), "--surrogates", "50"]
    assert evaluate.main(words) == 0
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    assert len(scores) == 4 * 3  # recordings x parcels
    opened = open_checkpoint(study / "final")
    prediction = load_predictions(tmp_path / "predictions.npz")[0]
    recording = read_recording(str(store), prediction.key)
    predicted_VR = predict_recording(opened.model, recording, config=opened.config)
    target_VR = unseen_target(recording, TargetSpec.from_dict(opened.config["target"]))
    used = np.isfinite(predicted_VR[:, 0])
    expected = np.corrcoef(predicted_VR[used, 0], target_VR[used, 0])[0, 1]
    row = scores[(scores["site"] == prediction.key.site) & (scores["subject"] == prediction.key.subject)].iloc[0]
    assert row["r"] == pytest.approx(expected, abs=1e-5)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [r["site"] for r in summary["rows"]] == list(SITES)
    assert all(r["p_null"] > 0.01 for r in summary["rows"])  # random weights
    assert summary["seen_in_training"] == list(SITES)
    assert "trained on this site: not a test" in capsys.readouterr().out


def test_only_the_asked_sites(study: Path, tmp_path: Path) -> None:
    words = [str(study / "final"), "--store", str(study.parent / "store"), "--surrogates", "20"]
    assert evaluate.main([*words, "--sites", "beta", "--out", str(tmp_path)]) == 0
    assert set(pd.read_parquet(tmp_path / "scores.parquet")["site"]) == {"beta"}
    with pytest.raises(StoreError, match="no site delta; it holds alpha, beta"):
        evaluate.main([*words, "--sites", "delta"])


def test_oracle_and_model_are_scored_on_the_same_volumes(study: Path, tmp_path: Path) -> None:
    recording = build_recording("alpha", "01")
    eeg_valid = recording.eeg_valid.copy()
    eeg_valid[8000:8100] = False  # within the windows of eight volumes
    damaged = replace(recording, eeg_valid=eeg_valid, truth=recording.bold)
    write_recording(str(tmp_path / "store"), damaged, fingerprint="f")
    rebuild_manifest(str(tmp_path / "store"))
    words = [str(study / "final"), "--store", str(tmp_path / "store"), "--surrogates", "0"]
    assert evaluate.main([*words, "--out", str(tmp_path / "out")]) == 0
    scores = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert set(scores["model"]) == {"neurobolt", "oracle"}
    assert set(scores["n_volumes"]) == {52}
    with pytest.raises(StoreError, match=r"scores\.parquet: cannot be written"):
        evaluate.main([*words, "--out", str(tmp_path / "out" / "summary.json")])


def test_another_parcellation_is_refused(study: Path) -> None:
    opened = open_checkpoint(study / "final")
    manifest = pd.read_parquet(study / "manifest.parquet").assign(parcellation_sha256="1" * 64)
    with pytest.raises(ParcellationError, match=r"sha256 111111111111.*ingest the store with the model's atlas"):
        evaluate.check_parcels(manifest, opened, "store")
