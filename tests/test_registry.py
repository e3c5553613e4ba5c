"""The gate, the card, and a registered version that predicts in a process that never saw training."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from study_folder import CHANNELS, SITES, build_study

from jobs import register
from jobs.opened import open_checkpoint, open_model
from jobs.register import example_windows
from xsite.data.manifest import data_hash, read_manifest
from xsite.errors import CheckpointError, FormatError, TrackingError
from xsite.evaluation.leakage import Audit, Finding
from xsite.evaluation.plan import Plan, Run
from xsite.experiment import Experiment, load_experiment
from xsite.experiment_parts import Data
from xsite.learning.checkpoint import save_checkpoint
from xsite.tracking import (
    StudyTracker,
    check_study,
    default_tracking_uri,
    download,
    find_study_runs,
    model_card,
)
from xsite.tracking.export import predict_elsewhere, refuse_pickles


def row(
    site: str, model: str, r: float | None, p: float, *, mse: float = 0.2, control: bool = False
) -> dict[str, object]:
    return {
        "site": site, "model": model, "control": control, "n_subjects": 3, "n_volumes": 90, "r_mean": r,
        "oracle_r_mean": 0.8, "mse_mean": mse, "p_null": p,
    }  # fmt: skip


GOOD = [
    row("a", "m", 0.4, 0.001),
    row("b", "m", 0.3, 0.01),
    row("a", "zero", None, 1, mse=0.3),
    row("b", "zero", None, 1, mse=0.3),
]


@pytest.mark.parametrize(
    ("rows", "failing"),
    [
        (GOOD, None),
        (GOOD[:1] + GOOD[2:], "1 held-out site (two needed)"),
        ([*GOOD[:1], row("b", "m", 0.3, 0.2), *GOOD[2:]], "not so: b"),
        ([*GOOD[:1], row("b", "m", None, 0.01), *GOOD[2:]], "not so: b"),
        ([*GOOD[:2], row("a", "zero", None, 1, mse=0.1), row("b", "zero", None, 1, mse=0.1)], "zero baseline 0.1"),
        (GOOD[:2], "no zero baseline"),
        ([*GOOD, row("a", "m", 0.3, 0.001, control=True)], "not so: m"),
        ([*GOOD, row("a", "m", 0.1, 0.001, control=True), row("b", "m", 0.12, 0.001, control=True)], "not so: m"),
        ([*GOOD, row("a", "m", 0.1, 0.001, control=True), row("b", "m", -0.1, 0.99, control=True)], None),
    ],
)
def test_gate(rows: list[dict[str, object]], failing: str | None) -> None:
    gate = check_study(rows, "m")
    assert gate.passed == (failing is None)
    failed = [line for line in gate.lines if line.startswith("FAIL")]
    assert len(failed) == (failing is not None)
    assert failing is None or failing in failed[0]


def test_gate_tells_a_collapsed_model_in_one_line_and_that_no_control_was_run() -> None:
    flat = {"model": "m", "r2": -0.5, "variance_ratio": 1.0}
    rows = [{**flat, "site": site, "seed": seed, "r": 0.1, "line": f"m at {site}"} for site in "ab" for seed in (0, 1)]
    told = check_study(GOOD, "m", rows)
    warned = [line for line in told.lines if line.startswith("warn  collapsed")]
    assert warned == ["warn  collapsed: m at 2 of 2 sites (a, b): mean R 0.100 to 0.100, R2 -0.500 to -0.500"]
    assert told.collapsed == ("a", "b")
    assert any(line.startswith("warn  no control was run; name a model under controls") for line in told.lines)
    controlled = check_study([*GOOD, row("a", "m", 0.0, 0.6, control=True)], "m")
    assert any("trained on other subjects' BOLD, 1 model stays at chance" in line for line in controlled.lines)


def test_gate_asks_both_nulls() -> None:
    shifted = [{**GOOD[0], "p_shift": 0.001}, {**GOOD[1], "p_shift": 0.3}, *GOOD[2:]]
    gate = check_study(shifted, "m")
    assert not gate.passed
    assert any(line.startswith("FAIL") and "not so: b" in line for line in gate.lines)
    assert check_study([shifted[0], {**GOOD[1], "p_shift": 0.02}, *GOOD[2:]], "m").passed


def test_gate_fails_where_the_leakage_audit_did() -> None:
    audit = Audit((Finding("duplicated recordings", "fail", "two", ("a is b",)),)).to_dict()
    gate = check_study(GOOD, "m", leakage=audit)
    assert not gate.passed
    assert "FAIL  Leakage audit failed: duplicated recordings." in gate.lines
    remark = Audit((Finding("overlapping windows", "warn", "two"),)).to_dict()
    gate = check_study(GOOD, "m", leakage=remark)
    assert gate.passed
    assert any("with remarks on overlapping windows" in line for line in gate.lines)


def test_register_keeps_the_alias_after_a_failed_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = build_study(tmp_path)
    summary = json.loads((study / "summary.json").read_text())
    summary["leakage"] = Audit((Finding("carried weights", "fail", "two", ("x",)),)).to_dict()
    (study / "summary.json").write_text(json.dumps(summary))
    assert register.main([str(study), "--tracking", default_tracking_uri(tmp_path / "mlflow")]) == 1
    assert "FAIL  Leakage audit failed: carried weights." in capsys.readouterr().out


def test_card_says_whose_scores_these_are(tmp_path: Path) -> None:
    study = build_study(tmp_path)
    summary = json.loads((study / "summary.json").read_text())
    manifest = pd.read_parquet(study / "manifest.parquet")
    config = json.loads((study / "final" / "config.json").read_text())
    experiment = load_experiment(study / "experiment.yaml")
    card = model_card(experiment, summary, manifest, config, versions={"torch": "2.13"}, gate="passed")
    assert "The scores are the procedure's, not this checkpoint's" in card
    assert "it has no held-out site" in card
    for site in SITES:
        r_mean = next(r["r_mean"] for r in summary["rows"] if r["site"] == site and r["model"] == "neurobolt")
        assert f"| {site} | {r_mean:.3f} [" in card
    assert "2 subjects, 2 recordings, 120 volumes, TR 2 s" in card
    assert all(name in card for name in CHANNELS)
    assert "16 s (3200 samples)" in card
    assert "high-passed" not in card
    filtered = experiment.model_copy(update={"data": experiment.data.model_copy(update={"high_pass": 0.5})})
    own = {**config, "reference": ["TP9", "TP10"], "model": {**config["model"], "config": {"window_s": 24.0}}}
    other = model_card(filtered, summary, manifest, own, versions={})
    for words in ("high-passed at 0.5 Hz", "24 s (4800 samples)", "the mean of TP9, TP10", "from 24 s of scalp EEG"):
        assert words in other, words
    crowded = pd.concat([manifest.assign(site=f"site{i:03d}") for i in range(200)])
    assert len(model_card(experiment, summary, crowded, config, versions={})) <= 5000


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("registered")
    study, uri = build_study(folder), default_tracking_uri(folder / "mlflow")
    assert register.main([str(study), "--tracking", uri]) == 0
    return study, uri


def test_registered_version_predicts_elsewhere_without_our_code(registered: tuple[Path, str], tmp_path: Path) -> None:
    study, uri = registered
    opened = open_checkpoint(study / "final")
    eeg_BCT = np.random.default_rng(3).normal(0, 20, (2, len(CHANNELS), 3200)).astype(np.float32)
    expected_BR = opened.model.predict(eeg_BCT, CHANNELS)
    (tmp_path / "far").mkdir()
    folder = Path(download(uri, "models:/neurobolt@challenger", tmp_path / "far"))
    answer_BR, modules = predict_elsewhere(
        folder, eeg_BCT, CHANNELS, scratch=tmp_path / "far", watch=("neurobolt", "xsite", "jobs", "ray")
    )
    np.testing.assert_allclose(answer_BR, expected_BR, atol=1e-6)
    assert Path(modules["neurobolt"]).is_relative_to(folder / "code")
    assert {name.split(".")[0] for name in modules} == {"neurobolt"}
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pt", ".pth", ".bin")]
    assert (folder / "input_example.json").is_file()


def test_version_carries_card_scores_gate_and_alias(registered: tuple[Path, str]) -> None:
    study, uri = registered
    client = MlflowClient(uri, uri)
    version = client.get_model_version_by_alias("neurobolt", "challenger")
    rows = json.loads((study / "summary.json").read_text())["rows"]
    for site in SITES:
        r_mean = next(r["r_mean"] for r in rows if r["site"] == site and r["model"] == "neurobolt")
        assert float(version.tags[f"r_{site}"]) == pytest.approx(r_mean, abs=1e-4)
    assert version.tags["gate.status"] == "pass"
    assert version.tags["weights_sha256"] == open_checkpoint(study / "final").weights_sha256
    assert version.current_stage == "None"
    for description in (version.description, client.get_registered_model("neurobolt").description):
        assert "it has no held-out site" in description
    run = client.get_run(version.run_id)
    assert run.data.tags["fold"] == "final"
    assert "model_card.md" in [file.path for file in client.list_artifacts(version.run_id)]


def test_the_same_weights_are_one_version(registered: tuple[Path, str]) -> None:
    study, uri = registered
    assert register.main([str(study), "--tracking", uri]) == 0
    assert len(MlflowClient(uri, uri).search_model_versions("name = 'neurobolt'")) == 1


def test_runs_of_the_same_recipe_on_other_data_are_not_taken(registered: tuple[Path, str]) -> None:
    study, uri = registered
    experiment = load_experiment(study / "experiment.yaml")
    with StudyTracker(uri, "tiny", spool=study / "spool") as tracker:  # newer, same recipe
        other = tracker.start({}, fingerprint=experiment.fingerprint, tags={"data_hash": "other"})
        tracker.fold(None)
    digest = data_hash(pd.read_parquet(study / "manifest.parquet"))
    assert digest == data_hash(read_manifest(str(study.parent / "store")))  # what the study itself has logged
    runs = find_study_runs(uri, "tiny", experiment.fingerprint, digest)
    assert find_study_runs(uri, "tiny", experiment.fingerprint, "other")["study"] == other != runs["study"]
    assert runs["final"] == MlflowClient(uri, uri).get_model_version("neurobolt", "1").run_id
    assert find_study_runs(uri, "tiny", experiment.fingerprint, "none") == {}


def test_a_failed_gate_registers_without_the_alias(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, uri = build_study(tmp_path, skill=0.0), default_tracking_uri(tmp_path / "mlflow")
    assert register.main([str(study), "--tracking", uri]) == 1
    assert "--force moves it" in capsys.readouterr().err
    client = MlflowClient(uri, uri)
    assert client.get_model_version("neurobolt", "1").tags["gate.status"] == "fail"
    assert client.get_registered_model("neurobolt").aliases == {}
    assert register.main([str(study), "--tracking", uri, "--force"]) == 0
    assert client.get_model_version_by_alias("neurobolt", "challenger").tags["gate.forced"] == "true"


def test_a_model_folder_with_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "python_model.pkl").write_bytes(b"\x80")
    with pytest.raises(TrackingError, match=r"artifacts/python_model\.pkl"):
        refuse_pickles(tmp_path)


def test_the_fold_models_of_every_seed_are_tagged(tmp_path: Path) -> None:
    experiment = Experiment(name="tiny", data=Data(sites=SITES), seeds=(4, 5))
    runs = [
        Run(f"alpha/{name}" + ("" if seed == 4 else f"-seed{seed}"), name, "alpha", seed, "fold", f"{name}{seed}")
        for seed in (4, 5)
        for name in ("neurobolt", "other")
    ]
    runs.append(Run("beta/neurobolt", "neurobolt", "beta", 4, "fold", "unfinished"))
    (tmp_path / "plan.json").write_text(json.dumps(Plan(tuple(runs), {}, "train-site-val").to_dict()))
    expected = {}
    for run in runs[:-1]:
        folder = tmp_path / "folds" / run.label
        save_checkpoint(folder, {"w": torch.full((1,), float(len(run.label)))}, {"model": {}})
        digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if run.variant == "neurobolt":
            expected["fold_sha256_alpha" + ("" if run.seed == 4 else "-seed5")] = digest
    assert len(set(expected.values())) == 2
    assert register._fold_tags(tmp_path, experiment) == expected


def test_an_unfinished_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"not a finished study, experiment\.yaml.*run neurobolt loso again"):
        register.main([str(tmp_path), "--tracking", str(tmp_path / "mlflow")])


def test_open_model_by_version_run_and_folder(registered: tuple[Path, str], tmp_path: Path) -> None:
    study, uri = registered
    version = MlflowClient(uri, uri).get_model_version("neurobolt", "1")
    by_alias = open_model("models:/neurobolt@challenger", uri)
    assert by_alias.facts["version"] == "1"
    MlflowClient(uri, uri).log_artifacts(version.run_id, str(study / "final"), "checkpoint")
    shas = {open_model(name, uri).weights_sha256 for name in (str(study / "final"), f"runs:/{version.run_id}")}
    assert shas == {by_alias.weights_sha256}
    for name, said in (
        ("models:/neurobolt@champion", r"has models:/neurobolt/1, and @challenger \(version 1\)"),
        ("models:/neurobolt/7", r"has models:/neurobolt/1, and @challenger"),
        ("models:/neurobold@challenger", r"there are neurobolt; neurobolt register STUDY"),
        ("models:/neurobolt", r"write models:/neurobolt@challenger or models:/neurobolt/VERSION"),
    ):
        with pytest.raises(TrackingError, match=said) as caught:
            open_model(name, uri)
        assert str(caught.value).startswith(f"{name}: ")
        assert ".." not in str(caught.value)
    empty = default_tracking_uri(tmp_path / "empty")
    with pytest.raises(TrackingError, match="nothing is registered; neurobolt register STUDY") as caught:
        open_model("models:/neurobolt@challenger", empty)
    assert empty in str(caught.value)
    with pytest.raises(CheckpointError, match="the checkpoint is absent"):
        open_model(str(tmp_path / "nowhere"))


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    study = build_study(tmp_path)
    weights = study / "final" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: SHA-256 differs"):
        open_checkpoint(study / "final")


def test_example_is_seeded_and_in_microvolt() -> None:
    eeg_BCT = example_windows(CHANNELS, 3200)
    assert eeg_BCT.dtype == np.float32
    assert 5 < eeg_BCT.std() < 50
    np.testing.assert_allclose(eeg_BCT.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_array_equal(eeg_BCT, example_windows(CHANNELS, 3200))
