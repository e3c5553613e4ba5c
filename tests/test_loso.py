"""The whole study on a real local Ray cluster, with NeuroBOLT, ridge, a control, MLflow and the report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import yaml

from jobs import loso, train
from jobs.models import BASELINES, build_model
from xsite.data.store import read_manifest, rebuild_manifest, write_recording
from xsite.errors import CheckpointError, FoldError, RecipeError, StoreError
from xsite.evaluation.scoring import load_predictions
from xsite.experiment import Experiment, load_experiment
from xsite.experiment_parts import Data, Model
from xsite.learning.checkpoint import load_checkpoint
from xsite.recording import Montage, Parcellation, Recording
from xsite.runtime.inputs import load_study, select_manifest
from xsite.runtime.loso import plan_folds, run_loso
from xsite.runtime.plans import make_job

MakeRecording = Callable[..., Recording]
TINY = {"depth": 1, "spectral_depth": 1}
RECIPE = {
    "name": "tiny",
    "model": {"preset": "small", "options": TINY},
    "optim": {"lr": 3e-3, "epochs": 3, "warmup_epochs": 1, "batch_size": 16, "windows_per_epoch": 64},
    "controls": ["ridge", "neurobolt"],
    "surrogates": 50,
}


def with_truth(recording: Recording) -> Recording:
    fields: dict[str, Any] = dict(vars(recording))
    smooth = np.apply_along_axis(np.convolve, 0, recording.bold, np.ones(5) / 5, mode="same")
    return Recording(**{**fields, "truth": smooth.astype(np.float32)})


@pytest.fixture
def store(make_recording: MakeRecording, tmp_path: Path) -> str:
    """Three sites of two subjects; their caps overlap, their repetition times differ."""
    names = make_recording().ch_names
    for n, site in enumerate(("alpha", "beta", "gamma")):
        for subject in ("01", "02"):
            own = make_recording(site, subject, ch_names=names[: len(names) - n], t_r=2.0 - 0.4 * n, n_volumes=50)
            write_recording(str(tmp_path / "store"), with_truth(own), fingerprint="made")
    rebuild_manifest(str(tmp_path / "store"))
    return str(tmp_path / "store")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


@pytest.mark.ray
def test_a_study_from_recipe_to_report_and_again(
    ray_local: None, store: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, tracking = tmp_path / "study", f"sqlite:///{tmp_path}/mlflow.db"
    words = [str(recipe), "--store", store, "--study", str(study), "--tracking", tracking]
    assert loso.main(words) == 0
    out = capsys.readouterr().out
    assert "epoch   3/3" in out
    assert "ETA" in out
    check_files(study)
    check_scores(study)
    check_checkpoints(study)
    check_mlflow(tracking)
    assert loso.main(words) == 0
    again = capsys.readouterr().out
    assert again.count("was finished") == 7
    assert "epoch   1/3" not in again


def check_files(study: Path) -> None:
    names = "experiment.yaml manifest.parquet scores.parquet summary.json predictions.npz histories.parquet folds.json"
    for name in [*names.split(), "versions.json", "montages.json", "parcels.json", "report.html"]:
        assert (study / name).stat().st_size > 0, name
    assert load_experiment(study / "experiment.yaml").optim.epochs == 3
    status = json.loads((study / "status.json").read_text())
    assert status["state"] == "done"
    assert {row["state"] for row in status["trainings"].values()} == {"done"}
    montages = json.loads((study / "montages.json").read_text())
    assert [len(montages[site]["ch_names"]) for site in ("alpha", "beta", "gamma")] == [13, 12, 11]
    histories = pd.read_parquet(study / "histories.parquet")
    assert len(histories) == 3 * 2 * 3 + histories.query("held_out == 'final'").shape[0]
    assert not [path for path in study.rglob(".*") if path.name != ".study.log"]


def check_scores(study: Path) -> None:
    summary = json.loads((study / "summary.json").read_text())
    rows = {(row["site"], row["model"], row["control"]): row for row in summary["rows"]}
    models = [(name, False) for name in (*Experiment().baselines, "neurobolt")]
    models += [("ridge", True), ("neurobolt", True)]
    assert set(rows) == {(site, *model) for site in ("alpha", "beta", "gamma") for model in models}
    assert all(row["n_subjects"] == 2 and row["n_volumes"] == 100 for row in rows.values())
    assert rows["alpha", "zero", False]["r_mean"] is None
    assert all(rows[site, "ridge", False]["r_mean"] > 0.5 for site in ("alpha", "beta", "gamma"))
    assert all(0 < row["oracle_r_mean"] <= 1 for row in rows.values())
    predictions = load_predictions(study / "predictions.npz")
    keys = [(p.key, p.model, p.control) for p in predictions]
    assert len(keys) == len(set(keys)) == 6 * (len(models) + 1)  # six recordings; the models and the oracle: each once


def check_checkpoints(study: Path) -> None:
    _, final = load_checkpoint(study / "final")
    assert final["held_out"] is None
    assert final["trained_on"] == ["alpha", "beta", "gamma"]
    best = [load_checkpoint(study / "folds" / site / "neurobolt")[1]["best_epoch"] for site in final["trained_on"]]
    assert final["best_epoch"] == int(np.median(best))
    state, fold = load_checkpoint(study / "folds" / "beta" / "neurobolt")
    assert fold["held_out"] == "beta"
    assert fold["trained_on"] == ["alpha", "gamma"]
    assert len(fold["ch_names"]) == 11
    spec = fold["model"]
    model = build_model(spec["name"], spec["preset"], spec["options"], ch_names=fold["ch_names"], n_outputs=3)
    model.load_state_dict(state)


def check_mlflow(tracking: str) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking)
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    assert len(runs) == 1 + 6 + 1
    metrics = parents[0].data.metrics
    assert {"ood/r_mean", "ood/r_alpha", "ood/mse_mean", "ridge/r_mean", "oracle/r_mean"} <= set(metrics)
    assert parents[0].data.params["optim.epochs"] == "3"
    held_out = {run.data.tags.get("held_out_site") for run in runs}
    assert {"alpha", "beta", "gamma"} <= held_out


def test_dry_run_prints_the_folds_and_starts_nothing(
    store: str, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"
    assert loso.main([str(recipe), "--store", store, "--study", str(study), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "held out beta: 2 train, 2 val, 2 test recordings" in out
    assert "7 trainings" in out
    assert not study.exists()


@pytest.mark.ray
def test_nothing_of_the_test_site_reaches_a_training(
    ray_local: None, store: str, make_recording: MakeRecording
) -> None:
    experiment = Experiment.model_validate(RECIPE)
    before = jobs_of(store, experiment)
    for subject in ("01", "02"):
        changed = make_recording("beta", subject, ch_names=make_recording().ch_names[:12], t_r=1.6, n_volumes=50)
        write_recording(store, with_truth(changed), fingerprint="changed")
    rebuild_manifest(store)
    after = jobs_of(store, experiment)
    assert after["beta"].fingerprint == before["beta"].fingerprint  # would not even be trained again
    assert after["beta"].spec == before["beta"].spec
    assert after["alpha"].fingerprint != before["alpha"].fingerprint
    handed = [*after["beta"].train, *after["beta"].val]
    assert {recording.key.site for recording in ray.get(handed)} == {"alpha", "gamma"}


def jobs_of(store: str, experiment: Experiment) -> dict[str, Any]:
    manifest, folds = plan_folds(experiment, store)
    data = load_study(store, manifest, experiment)
    return {
        fold.held_out: make_job(
            experiment, data, fold.train, fold.val, label=fold.held_out, held_out=fold.held_out,
            folder=Path("unused"), selected_on="train-site-val",
        )
        for fold in folds
    }  # fmt: skip


@pytest.mark.ray
def test_native_channels_give_the_model_the_union_of_what_trains(ray_local: None, store: str) -> None:
    experiment = Experiment.model_validate({**RECIPE, "data": {"channels": "native"}})
    jobs = jobs_of(store, experiment)
    assert [len(jobs[site].config["ch_names"]) for site in ("alpha", "beta", "gamma")] == [12, 13, 13]


@pytest.mark.ray
def test_train_one_model_on_named_recordings(ray_local: None, store: str, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = [str(recipe), "--store", store, "--out", str(out), "--tracking", f"sqlite:///{tmp_path}/m.db", "--smoke"]
    assert train.main([*words, "--recordings", "alpha/*", "gamma/*"]) == 0
    _, config = load_checkpoint(out)
    assert config["trained_on"] == ["alpha", "gamma"]
    assert len(config["history"]) == 2
    with pytest.raises(FoldError, match=r"matches delta/\*; there are alpha/sub-01"):
        train.main([*words, "--recordings", "delta/*"])


def test_one_site_only_is_refused_before_a_cluster_starts(store: str, recipe: Path, tmp_path: Path) -> None:
    words = [str(recipe), "--store", store, "--study", str(tmp_path / "s"), "--tracking", str(tmp_path / "m")]
    with pytest.raises(FoldError, match="one site only"):
        loso.main([*words, "--set", "data.sites=[alpha]"])


def test_names_that_do_not_exist_are_refused_with_the_nearest(store: str) -> None:
    with pytest.raises(RecipeError, match="did you mean 'gamma'"):
        select_manifest(store, Experiment(data=Data(sites=("alpha", "gama"))))
    with pytest.raises(RecipeError, match="did you mean 'parcel1'"):
        select_manifest(store, Experiment(data=Data(parcels=("parcl1",))))
    with pytest.raises(RecipeError, match="did you mean 'small'"):
        build_model("neurobolt", "smal", {}, ch_names=["Cz"], n_outputs=1)
    with pytest.raises(RecipeError, match="did you mean 'neurobolt'"):
        build_model("neurobold", "small", {}, ch_names=["Cz"], n_outputs=1)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"baselines": ("ridges",)}, r"baselines names \['ridges'\]"),
        ({"controls": ("lasso",)}, r"controls names \['lasso'\]"),
        ({"model": Model(name="ridge")}, "is a baseline"),
    ],
)
def test_unknown_models_are_refused_before_anything_is_read(part: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        run_loso(Experiment(**part), "nowhere", tmp_path, build_model=build_model, baselines=BASELINES)
    assert list(tmp_path.iterdir()) == []


def test_two_parcellations_in_one_store_are_named(store: str, make_recording: MakeRecording) -> None:
    other = make_recording("delta", "01")
    fields: dict[str, Any] = dict(vars(other))
    fields["parcellation"] = Parcellation("other-3", other.parcellation.labels, "MNI", "1" * 64)
    fields["montage"] = Montage(other.ch_names, other.montage.positions)
    write_recording(store, Recording(**fields), fingerprint="made")
    rebuild_manifest(store)
    with pytest.raises(StoreError, match=r"other-3 .*test-3 |test-3 .*other-3 "):
        plan_folds(Experiment(), store)
    assert len(read_manifest(store)) == 7


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("{}")
    return tmp_path / "final"


def test_a_half_checkpoint_is_no_checkpoint(damaged: Path) -> None:
    with pytest.raises(CheckpointError, match="incomplete"):
        load_checkpoint(damaged)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_leaves_no_half_checkpoint(
    store: str, recipe: Path, tmp_path: Path, how: signal.Signals
) -> None:
    study = tmp_path / "study"
    words = [str(recipe), "--store", store, "--study", str(study), "--tracking", f"sqlite:///{tmp_path}/mlflow.db"]
    command = [sys.executable, "-m", "jobs.loso", *words, "--cpus", "1", "--set", "optim.epochs=200"]
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "platform")])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch   2/200" in line:
            break
    process.send_signal(how)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "run the same command again to go on" in err
    assert json.loads((study / "status.json").read_text())["state"] == "training"
    assert not list(study.rglob("*.partial"))
    for manifest in study.rglob("manifest.json"):
        load_checkpoint(manifest.parent)  # whatever is there is whole
