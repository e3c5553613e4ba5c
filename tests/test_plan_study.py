"""A small plan on a real local Ray cluster: variants and seeds, resumption of what is missing, nested selection."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import yaml
from study_folder import build_study

from jobs import calibrate, loso, register, table
from jobs.loso_plan import nested_words
from jobs.models import BASELINES, build_model
from xsite.data.store import rebuild_manifest, write_recording
from xsite.errors import FormatError, RecipeError, TrackingError
from xsite.evaluation.plan import Plan
from xsite.evaluation.scoring import load_predictions
from xsite.experiment import Experiment, load_experiment, parse_experiment
from xsite.learning.checkpoint import load_checkpoint
from xsite.recording import Recording
from xsite.runtime.cluster import ClusterInfo
from xsite.runtime.loso import plan_study, run_loso
from xsite.runtime.timeline import read_timeline, session_times

RECIPE = {
    "name": "small-plan",
    "model": {"name": "eegnet", "preset": "small"},
    "optim": {"epochs": 2, "warmup_epochs": 0, "batch_size": 16, "windows_per_epoch": 32},
    "baselines": ["zero"],
    "surrogates": 20,
}
SITES = {"alpha", "beta", "gamma"}
VARIANTS = {"slow": {"optim.lr": 1e-4}, "fast": {"optim.lr": 3e-3}}


@pytest.fixture
def store(make_recording: Callable[..., Recording], tmp_path: Path) -> str:
    for site in sorted(SITES):
        for subject in ("01", "02"):
            write_recording(str(tmp_path / "store"), make_recording(site, subject, n_volumes=40), fingerprint="made")
    rebuild_manifest(str(tmp_path / "store"))
    return str(tmp_path / "store")


@pytest.mark.ray
def test_two_variants_two_seeds_and_only_the_missing_again(
    ray_local: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, study = tmp_path / "plan.yaml", tmp_path / "study"
    content = {**RECIPE, "data": {"sites": ["alpha", "beta"]}, "seeds": [0, 7], "variants": VARIANTS, "deploy": "fast"}
    recipe.write_text(yaml.safe_dump(content))
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    words = [str(recipe), "--store", store, "--study", str(study), "--tracking", tracking]
    assert loso.main(words) == 0
    assert "8 fold, 1 final" in capsys.readouterr().out
    check_scores(study)
    check_tracking(tracking)
    plan = Plan.from_dict(json.loads((study / "plan.json").read_text()))
    for run in plan.of("fold"):
        assert load_checkpoint(study / "folds" / run.label)[1]["fingerprint"] == run.hash
    _, final = load_checkpoint(study / "final")
    assert final["experiment"]["optim"]["lr"] == pytest.approx(3e-3)

    shutil.rmtree(study / "folds" / "beta" / "slow-seed7")
    assert loso.main(words) == 0
    again = capsys.readouterr().out
    assert again.count("was finished") == 8
    assert [line for line in again.splitlines() if "epoch   1/2" in line and "beta slow seed 7" in line]
    assert again.count("epoch   1/2") == 1
    first, second = session_times(read_timeline(study))
    epochs = len(pd.read_parquet(study / "histories.parquet"))  # the final model trains for the folds' best epoch
    assert (first.n_trainings, first.n_epochs) == (9, epochs)
    assert (second.n_trainings, second.n_epochs) == (1, 2)
    assert 0 < first.training_s <= first.places * first.warm_s < first.places * first.wall_s
    assert Plan.from_dict(json.loads((study / "plan.json").read_text())) == plan
    check_table(study, capsys)


def check_scores(study: Path) -> None:
    scores = pd.read_parquet(study / "scores.parquet")
    seeds = scores.groupby("model")["seed"].unique().map(sorted).to_dict()
    assert seeds == {"zero": [0], "slow": [0, 7], "fast": [0, 7], "selected": [0, 7]}
    by_seed = scores[scores["model"] == "fast"].groupby("seed")["r"].apply(list)
    assert by_seed[0] != by_seed[7]
    chosen = json.loads((study / "selection.json").read_text())
    assert set(chosen["chosen"]) == {"alpha", "beta"}
    errors = {(c["fold"], c["variant"]): c["error"] for c in chosen["choices"]}
    for fold, variant in chosen["chosen"].items():
        assert errors[fold, variant] == min(errors[fold, label] for label in VARIANTS)
        own, selected = (scores[(scores["site"] == fold) & (scores["model"] == m)] for m in (variant, "selected"))
        assert own["mse"].tolist() == selected["mse"].tolist()
    assert len(load_predictions(study / "predictions.npz")) == 4 * (1 + 3 * 2)
    histories = pd.read_parquet(study / "histories.parquet")
    assert len(histories[histories["purpose"] == "fold"].groupby(["held_out", "model", "seed"])) == 8
    assert (study / "figures.parquet").is_file()
    assert json.loads((study / "summary.json").read_text())["model"] == "fast"


def check_tracking(tracking: str) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking)
    (experiment,) = [e for e in client.search_experiments() if e.name == "small-plan"]
    runs = [run.data for run in client.search_runs([experiment.experiment_id])]
    children = [run for run in runs if "mlflow.parentRunId" in run.tags]
    found = {(r.tags["held_out"], r.tags["variant"], r.tags["seed"], r.tags["purpose"]) for r in children}
    wanted = {(site, v, seed, "fold") for site in ("alpha", "beta") for v in VARIANTS for seed in ("0", "7")}
    assert found == wanted | {("final", "fast", "0", "final")}
    assert all("ood/r_mean" in r.metrics for r in children if r.tags["purpose"] == "fold")


def check_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main([str(study)]) == 0
    out = capsys.readouterr().out
    found = pd.read_parquet(study / "table.parquet").set_index("model")
    assert set(found.index) == {"zero", "slow", "fast", "selected"}
    scores = pd.read_parquet(study / "scores.parquet")
    by_site = scores[scores["model"] == "slow"].groupby(["site", "subject"])["r2"].mean().groupby("site").mean()
    assert found.loc["slow", "r2"] == pytest.approx(by_site.mean())
    assert found.loc["slow", "n_seeds"] == 2
    assert found.loc["slow", "r_low"] <= found.loc["slow", "r"] <= found.loc["slow", "r_high"]
    assert found.loc["slow", "parameters"] == found.loc["fast", "parameters"] > 100
    assert pd.isna(found.loc["zero", "parameters"])
    assert found.loc["fast", "windows_per_s"] > 0
    for words in ("| slow | trained |", "4 subjects at 2 held-out sites, 2 seeds", "train-site-val", "Few sites"):
        assert words in out
    assert "<td>" in (study / "table.html").read_text() or "<th" in (study / "table.html").read_text()
    assert pd.read_csv(study / "table.csv")["model"].tolist() == found.index.tolist()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("adapt", "zero_level"), [("euclidean", "unlabelled EEG"), ("norm", "none")])
def test_a_study_with_unlabelled_eeg_says_so_everywhere(
    ray_local: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], adapt: str, zero_level: str
) -> None:
    recipe, study = tmp_path / "plan.yaml", tmp_path / "study"
    content = {
        **RECIPE,
        "data": {"sites": ["alpha", "beta"], "adapt": adapt},
        "baselines": ["zero", "ridge", "ridge-window"],
    }
    recipe.write_text(yaml.safe_dump(content))
    assert (
        loso.main([str(recipe), "--store", store, "--study", str(study), "--tracking", f"sqlite:///{tmp_path}/m"]) == 0
    )
    levels = {"eegnet": "unlabelled EEG", "ridge": "unlabelled EEG"}  # ridge z-scores by recording
    levels |= {"zero": zero_level, "ridge-window": zero_level}
    scores = pd.read_parquet(study / "scores.parquet")
    assert scores.groupby("model")["access"].unique().map(list).to_dict() == {m: [own] for m, own in levels.items()}
    summary = json.loads((study / "summary.json").read_text())
    assert summary["test_site_access"] == "unlabelled EEG"
    for name in ("rows", "overall", "intervals"):
        assert {row["model"]: row["access"] for row in summary[name]} == levels
    apart = zero_level == "none"
    assert (
        any(words.startswith("Not like for like: ridge-window had access none") for words in summary["warnings"])
        == apart
    )
    capsys.readouterr()
    assert table.main([str(study)]) == 0
    found = pd.read_parquet(study / "table.parquet").set_index("model")["access"].to_dict()
    assert found == levels
    assert capsys.readouterr().out.count("| model |") == 1 + apart
    page = (study / "report.html").read_text(encoding="utf-8")
    tables = [block for block in page.split("<table")[1:] if "Partial\u00a0R" in block and "Skill" in block]
    assert len(tables) == 1 + apart
    assert page.count("Access to the test site: unlabelled EEG") > 3
    for block in tables:  # the models of one level, never of two
        names = (("eegnet", "EEGNet"), ("ridge", "Ridge"), ("ridge-window", "Ridge, window alone"))
        shown = {name for name, words in names if f"</span>{words}<" in block}
        assert len({levels[name] for name in shown}) == 1
        assert "</span>Zero<" in block  # reads no EEG: a reference for everybody


@pytest.mark.ray
@pytest.mark.slow
def test_nested_selection_trains_the_folds_for_the_epochs_of_the_inner_runs(
    ray_local: None, store: str, tmp_path: Path
) -> None:
    experiment = parse_experiment({**RECIPE, "select_on": "leave-one-site-out-val"}, "test")
    events: list[dict[str, Any]] = []
    study = tmp_path / "study"
    result = run_loso(experiment, store, study, build_model=build_model, baselines=BASELINES, on_event=events.append)
    assert [o.job.purpose for o in result.outcomes] == ["inner"] * 3 + ["fold"] * 3 + ["final"]
    record = json.loads((study / "selection.json").read_text())
    chosen = {choice["fold"]: choice["n_epochs"] for choice in record["choices"]}
    inner = {tuple(o.job.watch): o.history for o in result.outcomes if o.job.purpose == "inner"}
    for outcome in result.outcomes:
        job = outcome.job
        if job.purpose == "inner":
            assert {f"val_error/{site}" for site in job.watch} <= set(outcome.history[0])
            assert not any(name in job.config["trained_on"] for name in job.watch)
            assert {recording.key.site for recording in ray.get([*job.train, *job.val])} == SITES - {*job.watch}
        elif job.purpose == "fold":
            site = str(job.held_out)
            curves = [
                [row[f"val_error/{other}"] for row in history]
                for pair, history in inner.items()
                if site in pair
                for other in set(pair) - {site}
            ]
            assert len(curves) == 2
            mean = [sum(values) / 2 for values in zip(*curves, strict=True)]
            assert len(outcome.history) == chosen[site] == 1 + mean.index(min(mean))
            assert site not in job.config["trained_on"]
            assert not job.watch  # no handle of the test site in the training that is scored on it
            assert {recording.key.site for recording in ray.get([*job.train, *job.val])} == SITES - {site}
    assert not any(name.startswith("val_error/") for name in result.outcomes[-1].history[0])
    assert max(e["n_done"] for e in events if "n_done" in e) == 7
    summary = json.loads((study / "summary.json").read_text())
    assert summary["selection"] == "leave-one-site-out-val"
    assert load_experiment(study / "experiment.yaml") == experiment


def test_an_oracle_study_cannot_be_registered(tmp_path: Path) -> None:
    study = build_study(tmp_path)
    load_experiment(study / "experiment.yaml").model_copy(update={"select_on": "oracle"}).to_yaml(
        study / "experiment.yaml"
    )
    with pytest.raises(TrackingError, match="NOT DEPLOYABLE"):
        register.main([str(study), "--tracking", f"sqlite:///{tmp_path}/m.db", "--force"])


def test_a_variant_may_not_take_the_name_of_something_else_that_is_scored(tmp_path: Path) -> None:
    for label in ("ridge", "selected", "oracle"):
        experiment = Experiment(variants={label: {}})
        with pytest.raises(RecipeError, match="is the name of something else"):
            run_loso(experiment, "nowhere", tmp_path, build_model=build_model, baselines=BASELINES)


def test_dry_run_counts_windows_hours_and_nested_runs(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "plan.yaml"
    content = {**RECIPE, "select_on": "leave-one-site-out-val", "variants": VARIANTS, "seeds": [0, 1]}
    recipe.write_text(yaml.safe_dump(content))
    assert loso.main([str(recipe), "--store", store, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "held out beta: 4 train, 2 test recordings (4 train, 2 test subjects; 128 training windows)" in out
    assert "3 folds x 2 seeds x 2 variants; 25 trainings: 12 inner, 12 fold, 1 final" in out
    assert "nested: 3 fold + 3 inner = 6 trainings per variant and seed = S + S (S - 1) / 2, S = 3" in out
    assert "one-second probe of the built model" in out
    assert "slow: 12 trainings, 768 windows" in out  # 12 x 2 epochs x 32 windows
    assert "fast: 13 trainings, 832 windows" in out  # and the final model
    assert "device-hours" in out
    assert f"plan {plan_study(loso.resolve_recipe(str(recipe), ()), store)[2].hash}" in out


def test_nested_runs_of_some_sites_only_are_counted_from_the_plan(store: str) -> None:
    content = {**RECIPE, "select_on": "leave-one-site-out-val", "folds": {"held_out": ["beta"]}, "seeds": [0, 1]}
    experiment = parse_experiment(content, "test")
    plan = plan_study(experiment, store)[2]
    assert plan.counts() == {"inner": 4, "fold": 2, "final": 1}
    assert nested_words(experiment, plan) == "nested: 1 fold + 2 inner = 3 trainings per variant and seed"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": {"name": "eegnett"}}, r"model\.name is 'eegnett' \(did you mean 'eegnet'\?\)"),
        ({"model": {"name": "eegnet", "preset": "smal"}}, "preset 'smal'"),
        ({"model": {"name": "eegnet", "options": {"depht": 3}}}, "depht"),
        ({"controls": ["lasso"]}, r"controls names \['lasso'\]"),
        ({"baselines": ["ridges"]}, r"baselines names \['ridges'\]"),
        ({"data": {"sites": ["alfa"]}}, "did you mean 'alpha'"),
        ({"optim": {"lr": "fast"}}, r"optim\.lr"),
    ],
)
def test_what_is_wrong_with_a_recipe_begins_with_its_file(
    store: str, tmp_path: Path, content: dict[str, Any], said: str
) -> None:
    recipe = tmp_path / "plan.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, **content}))
    with pytest.raises(RecipeError, match=said) as caught:
        loso.main([str(recipe), "--store", store, "--dry-run"])
    assert str(caught.value).startswith(f"{recipe}: ")
    assert str(caught.value).count(str(recipe)) == 1


def test_the_plan_counts_ones(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "plan.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "folds": {"held_out": ["beta"]}, "optim": {"epochs": 1}}))
    assert loso.main([str(recipe), "--store", store, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "1 fold x 1 seed x 1 variant; 2 trainings: 1 fold, 1 final" in out
    assert "at most 1 epoch each, on 1 worker per training" in out
    assert str(ClusterInfo("here:1", 1, 1.0, 2.0)) == "Ray here:1 (existing): 1 node, 1 CPU, 2 GPUs"


def test_a_study_that_is_not_there_is_not_called_unfinished(tmp_path: Path) -> None:
    absent = str(tmp_path / "nonsense")
    tracking = str(tmp_path / "mlflow")
    for job, words in ((table, []), (register, ["--tracking", tracking]), (calibrate, ["--store", "x"])):
        with pytest.raises(FormatError, match="nonsense: no such folder"):
            job.main([absent, *words])
        with pytest.raises(FormatError, match="not a finished study"):
            job.main([str(tmp_path), *words])


def test_a_folder_without_a_study_has_no_table(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"scores\.parquet.*missing; run neurobolt loso"):
        table.main([str(tmp_path)])
