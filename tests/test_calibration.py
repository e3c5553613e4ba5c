"""A tiny study whose second site answers with the opposite sign: k labelled subjects put it right, never scored."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobs import calibrate
from jobs.models import BASELINES, build_model
from xsite.data.store import rebuild_manifest, write_recording
from xsite.errors import FormatError, RecipeError, StoreError
from xsite.evaluation.calibration import calibration_curve, calibration_draws
from xsite.experiment import Experiment
from xsite.recording import Recording
from xsite.runtime.calibration import known_rows
from xsite.runtime.loso import run_loso

RECIPE: dict[str, Any] = {
    "name": "shifted",
    "model": {"name": "eegnet", "preset": "small"},
    "optim": {"lr": 5e-3, "epochs": 6, "warmup_epochs": 1, "batch_size": 16},
    "folds": {"held_out": ["beta"]},
    "select_on": "oracle",  # the last epoch, and no final model: less to train
    "baselines": [],
    "surrogates": 19,
}


@pytest.fixture
def store(make_recording: Callable[..., Recording], tmp_path: Path) -> str:
    for site, subjects in (("alpha", ("01", "02", "03")), ("beta", ("01", "02", "03"))):
        for subject in subjects:
            recording = make_recording(site, subject, n_volumes=80)
            if site == "beta":  # the planted shift: BOLD falls where it rises at the other site
                recording = replace(recording, bold=-recording.bold, global_signal=-recording.global_signal)
            write_recording(str(tmp_path / "store"), recording, fingerprint="made")
    rebuild_manifest(str(tmp_path / "store"))
    return str(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.ray
def test_labelled_subjects_undo_a_planted_shift(
    ray_local: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    run_loso(Experiment.model_validate(RECIPE), store, study, build_model=build_model, baselines=BASELINES)
    scores = pd.read_parquet(study / "scores.parquet")
    assert set(scores["access"]) == {"none"}
    words = [str(study), "--store", store, "--k", "1,2,4", "--part", "head", "--draws", "1"]
    assert calibrate.main(words) == 0
    assert "k = 4 leaves nobody to score" in capsys.readouterr().out
    table = pd.read_parquet(study / "calibration.parquet")
    check_people(table)
    r = table.set_index("k")["r"]
    assert r[0] < -0.1  # the model has learnt the other sign
    assert r[1] > r[0] + 0.2
    assert r[2] > max(0.1, r[0] + 0.4)
    before = scores[(scores["site"] == "beta") & (scores["subject"] == table["subject"][0])]["r"].mean()
    assert r[0] == pytest.approx(before, abs=1e-6)  # k = 0 is the study's own figure for these subjects
    curve = calibration_curve(table).set_index("k")
    assert curve.loc[2, "gain"] == pytest.approx(r[2] - r[0])
    assert calibrate.main(words) == 0
    assert "0 of 3 pieces were missing" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_parquet(study / "calibration.parquet"), table)
    norms = [*words[:3], "--k", "1", "--part", "norms", "--draws", "2"]
    assert calibrate.main(norms) == 0
    assert "head" not in capsys.readouterr().out
    both = pd.read_parquet(study / "calibration.parquet")
    assert set(both["part"]) == {"none", "head", "norms"}
    assert set(table["run"]) < set(both["run"])  # nothing of the first call is lost
    assert calibrate.main(words) == 0
    assert "0 of 3 pieces were missing" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="EEGNet has no linear layer outside its head"):
        calibrate.main([*words[:3], "--k", "1", "--part", "adapters", "--draws", "1"])
    check_refusals(study, store, tmp_path)


@pytest.mark.slow
@pytest.mark.ray
def test_a_calibration_through_adapters(
    ray_local: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    recipe = {**RECIPE, "model": {"name": "lag-tokens", "preset": "small"}}
    run_loso(Experiment.model_validate(recipe), store, study, build_model=build_model, baselines=BASELINES)
    (weights,) = study.glob("folds/**/model.safetensors")
    before = weights.read_bytes()
    assert calibrate.main([str(study), "--store", store, "--k", "2", "--part", "adapters", "--draws", "1"]) == 0
    assert "1,539 numbers free for" in capsys.readouterr().out
    table = pd.read_parquet(study / "calibration.parquet").set_index("part")
    assert table["n_trained"].to_dict() == {"none": 0, "adapters": 1539}
    assert table.loc["adapters", "best_epoch"] > 0
    assert table.loc["adapters", "r"] > table.loc["none", "r"]
    assert weights.read_bytes() == before


def check_people(table: pd.DataFrame) -> None:
    assert sorted(table["k"]) == [0, 1, 2]
    assert table["subject"].nunique() == 1  # the same one for every k
    assert set(table["access"]) == {"none", "1 labelled subjects", "2 labelled subjects"}
    calibrated = {row.k: json.loads(row.calibrated_on) for row in table.itertuples()}
    assert calibrated[0] == []
    assert calibrated[1] == calibrated[2][:1]
    assert f"beta/{table['subject'][0]}" not in calibrated[2]
    assert len(set(calibrated[2])) == 2


def check_refusals(study: Path, store: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no variant biot; the study has eegnet"):
        calibrate.main([str(study), "--store", store, "--variant", "biot"])
    shutil.copytree(Path(store) / "alpha", tmp_path / "other" / "alpha")
    shutil.copytree(Path(store) / "alpha", tmp_path / "kept")
    rebuild_manifest(str(tmp_path / "other"))
    with pytest.raises(StoreError, match="not those that the study"):
        calibrate.main([str(study), "--store", str(tmp_path / "other")])


def test_draws_nest_and_never_score_who_calibrates() -> None:
    subjects = [f"s/{n:02d}" for n in range(7)]
    draws = calibration_draws(subjects, (1, 2, 4, 9), 20, seed=3, site="s")
    assert 1 < len(draws) <= 20
    for own in draws:
        assert len(own.calibrated) == 4
        assert sorted({*own.calibrated, *own.scored}) == subjects
        assert not {*own.calibrated} & {*own.scored}
    assert draws == calibration_draws(subjects[::-1], (1, 2, 4, 9), 20, seed=3, site="s")
    assert draws != calibration_draws(subjects, (1, 2, 4, 9), 20, seed=4, site="s")
    assert draws != calibration_draws(subjects, (1, 2, 4, 9), 20, seed=3, site="t")
    assert len({own.calibrated for own in calibration_draws(subjects, (1,), 50, seed=0, site="s")}) == 7
    assert calibration_draws(["only"], (1,), 3, seed=0, site="s") == []


def test_the_curve_pairs_subjects_and_weighs_sites_alike() -> None:
    rows = [
        (site, draw, subject, k, part, r)
        for site, subject, gain in (("a", "01", 0.1), ("a", "02", 0.3), ("b", "01", 0.4))
        for draw in (0, 1)
        for k, part, r in ((0, "none", 0.1 * draw), (1, "head", 0.1 * draw + gain))
    ]
    table = pd.DataFrame(rows, columns=["site", "draw", "subject", "k", "part", "r"])
    table = table.assign(
        held_out=table["site"], variant="m", access=table["k"].map({0: "none", 1: "1 labelled subjects"})
    )
    curve = calibration_curve(table)
    assert len(curve) == 1
    assert curve.loc[0, "gain"] == pytest.approx((0.2 + 0.4) / 2)
    assert curve.loc[0, "n_sites"] == 2
    assert curve.loc[0, "n_subjects"] == 3


def test_the_curve_tells_subjects_of_different_sites_apart() -> None:
    rows = [("a", 0, "none", 0.1), ("a", 1, "head", 0.3), ("b", 0, "none", -0.4), ("b", 1, "head", 0.0)]
    table = pd.DataFrame(rows, columns=["site", "k", "part", "r"]).assign(
        held_out="field_strength=3", variant="m", draw=0, subject="01",
        access=lambda t: t["k"].map({0: "none", 1: "1 labelled subjects"}),
    )  # fmt: skip
    curve = calibration_curve(table)
    assert curve.loc[0, "gain"] == pytest.approx((0.2 + 0.4) / 2)
    assert curve.loc[0, "r_without"] == pytest.approx(-0.15)
    assert curve.loc[0, "n_subjects"] == 2


def test_rows_of_other_calls_stay_and_those_of_checkpoints_that_are_gone_do_not(tmp_path: Path) -> None:
    rows = [("beta", "net", 0, "new", "1"), ("beta", "net", 0, "old", "2"), ("beta", "other", 0, "x", "3")]
    table = pd.DataFrame(rows, columns=["held_out", "variant", "seed", "fingerprint", "run"])
    path = tmp_path / "calibration.parquet"
    assert known_rows(path, {}).empty
    table.to_parquet(path)
    assert known_rows(path, {("beta", "net", 0): "new"})["run"].tolist() == ["1", "3"]
    table.drop(columns="fingerprint").to_parquet(path)  # of an earlier version
    assert known_rows(path, {("beta", "net", 0): "new"})["run"].tolist() == ["1", "2", "3"]


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    for words, message in (
        (["--k", "0,1"], "from 1 on"),
        (["--k", "two"], "whole numbers"),
        (["--part", "tail"], "head"),
    ):
        with pytest.raises(RecipeError, match=message):
            calibrate.main([str(tmp_path), "--store", "x", *words])
    with pytest.raises(FormatError, match="not a finished study"):
        calibrate.run_calibration(tmp_path, "x", ks=[1], parts=["head"], n_draws=1, build_model=build_model)
