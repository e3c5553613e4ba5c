"""Tuning on a real local Ray cluster: the same draws again, nothing of the held-out site, resumption, best recipes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from jobs import tune
from jobs.models import build_model
from xsite.data.store import rebuild_manifest, write_recording
from xsite.errors import RecipeError
from xsite.evaluation.plan import folder_name
from xsite.evaluation.splits import make_folds
from xsite.experiment import Experiment, load_experiment, parse_experiment
from xsite.learning.algorithms import ALGORITHMS, build_algorithm
from xsite.learning.search_space import OPTION_RANGES, Range, draw, search_space, tuned, tuned_recipe
from xsite.recording import Recording
from xsite.runtime.study import StudyFolder
from xsite.runtime.trials import FAILED, Trials, best_trial
from xsite.runtime.tuning import Tuning, tuning_jobs

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "model": {"name": "eegnet", "preset": "small"},
    "optim": {"lr": 3e-3, "epochs": 2, "warmup_epochs": 0, "batch_size": 16, "windows_per_epoch": 32},
    "tune": {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "optim.weight_decay": {"choice": [0.01, 0.3]}},
}


@pytest.fixture
def store(make_recording: Callable[..., Recording], tmp_path: Path) -> str:
    for site in ("alpha", "beta"):
        for subject in ("01", "02"):
            write_recording(str(tmp_path / "store"), make_recording(site, subject, n_volumes=40), fingerprint="made")
    rebuild_manifest(str(tmp_path / "store"))
    return str(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.ray
def test_tune_writes_the_best_recipes_and_does_nothing_twice(
    ray_local: None, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, study = tmp_path / "tiny.yaml", tmp_path / "tuning"
    recipe.write_text(yaml.safe_dump(RECIPE))
    words = [str(recipe), "--store", store, "--samples", "4", "--study", str(study)]
    assert tune.main(words) == 0
    out = capsys.readouterr().out
    assert "| eegnet | 4 |" in out
    trials = pd.read_parquet(study / "trials.parquet")
    assert trials["draw"].nunique() == 4
    assert set(trials["state"]) <= {"done", "stopped"}
    assert trials.query("draw == 0")["overrides"].unique().tolist() == ["{}"]
    assert np.isfinite(trials["error"]).all()
    assert trials["error"].nunique() > 4  # different settings, different folds: different errors
    done = trials[trials["state"] == "done"].groupby("draw")["error"].mean()
    best = load_experiment(study / "best.yaml")
    drawn = json.loads(trials.set_index("draw")["overrides"].groupby("draw").first()[int(done.idxmin())])
    assert best.variants["eegnet"] == pytest.approx(drawn)
    assert load_experiment(study / "best-alpha.yaml").folds.held_out == ("alpha",)
    before = (study / "trials-eegnet.json").read_text()
    assert tune.main(words) == 0  # nothing is missing
    assert "4 draws were finished" in capsys.readouterr().out
    assert (study / "trials-eegnet.json").read_text() == before
    check_resumption(study, words, trials, capsys)
    with pytest.raises(RecipeError, match=r"another tuning \(.*search.*\); choose another --study"):
        tune.main([*words, "--search", "optuna"])


def check_resumption(study: Path, words: list[str], first: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    """A tuning that was stopped after the first fold of one draw repeats neither that fold nor the other draws."""
    content = json.loads((study / "trials-eegnet.json").read_text())
    number = str(first[first["state"] == "done"]["draw"].max())
    row = content["rows"][number]
    row["ended"] = False
    gone = row["folds"].pop("beta")
    row["folds"]["alpha"]["seconds"] = 123.0
    (study / "trials-eegnet.json").write_text(json.dumps(content))
    assert tune.main(words) == 0
    again = json.loads((study / "trials-eegnet.json").read_text())["rows"]
    assert again[number]["folds"]["alpha"]["seconds"] == 123.0
    redone = again[number]["folds"].get("beta")
    assert redone is None or redone["error"] == pytest.approx(gone["error"])  # None: ASHA may stop it this time
    assert {n: r for n, r in again.items() if n != number} == {n: r for n, r in content["rows"].items() if n != number}
    assert "draw " + number in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.ray
def test_ctrl_c_keeps_the_finished_trials_and_the_same_command_goes_on(store: str, tmp_path: Path) -> None:
    recipe, study = tmp_path / "tiny.yaml", tmp_path / "tuning"
    recipe.write_text(yaml.safe_dump(RECIPE))
    words = [str(recipe), "--store", store, "--samples", "4", "--full", "--study", str(study), "--cpus", "1"]
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "platform")])}
    command = [sys.executable, "-m", "jobs.tune", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    kept = study / "trials-eegnet.json"
    assert process.stdout is not None
    for _ in process.stdout:
        if kept.is_file() and any(row["ended"] for row in json.loads(kept.read_text())["rows"].values()):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "run the same command again to go on" in err
    assert not list(study.rglob("*.partial"))
    rows = json.loads(kept.read_text())["rows"]
    finished = {number: row for number, row in rows.items() if row["ended"]}
    assert 1 <= len(finished) < 4
    assert not (study / "best.yaml").exists()

    again = subprocess.run([sys.executable, "-m", "jobs.tune", *words], capture_output=True, text=True, env=env)
    assert again.returncode == 0, again.stderr
    after = json.loads(kept.read_text())["rows"]
    assert {number: after[number] for number in finished} == finished  # to the second that each fold has taken
    assert sorted(after) == ["0", "1", "2", "3"]
    assert all(row["ended"] and len(row["folds"]) == 2 for row in after.values())
    for number, row in rows.items():  # nor is a fold repeated of the trial that was under way
        assert row["folds"].items() <= after[number]["folds"].items()
    assert not any(f"draw {number}" in line for number in finished for line in again.stdout.splitlines())
    assert (study / "best.yaml").is_file()


@pytest.mark.slow
@pytest.mark.ray
def test_optuna_learns_from_what_an_earlier_run_has_found(ray_local: None, store: str, tmp_path: Path) -> None:
    recipe, study = tmp_path / "tiny.yaml", tmp_path / "tuning"
    recipe.write_text(yaml.safe_dump({**RECIPE, "folds": {"held_out": ["beta"]}}))
    words = [str(recipe), "--store", store, "--study", str(study), "--search", "optuna"]
    words += ["--set", "optim.weight_decay=0.3", "--set", "optim.epochs=1"]
    assert tune.main([*words, "--samples", "2"]) == 0
    assert tune.main([*words, "--samples", "3"]) == 0
    rows = json.loads((study / "trials-eegnet.json").read_text())["rows"]
    assert [list(row["folds"]) for row in rows.values()] == [["beta"]] * 3
    assert rows["0"]["overrides"] == {"optim.lr": 3e-3, "optim.weight_decay": 0.3}  # the recipe itself
    assert len({json.dumps(row["overrides"]) for row in rows.values()}) == 3


@pytest.mark.ray
def test_a_trial_holds_no_handle_of_the_held_out_site(ray_local: None, store: str) -> None:
    folds, jobs = tuning_jobs(Tuning(parse_experiment(RECIPE, "test"), store, 1))
    import ray

    for fold, job in zip(folds, jobs["eegnet"], strict=True):
        sites = {recording.key.site for recording in ray.get([*job.train, *job.val])}
        assert sites == {"alpha", "beta"} - {fold.held_out}
        assert not job.watch
    shutil.rmtree(Path(store) / "beta")  # its rows are still in the manifest: reading any of it would be an error
    only_beta = parse_experiment({**RECIPE, "folds": {"held_out": ["beta"]}}, "test")
    _, jobs = tuning_jobs(Tuning(only_beta, store, 1))
    assert {recording.key.site for recording in ray.get([*jobs["eegnet"][0].train, *jobs["eegnet"][0].val])} == {
        "alpha"
    }


def test_draws_are_a_function_of_seed_variant_and_number() -> None:
    experiment = parse_experiment({**RECIPE, "variants": {"a": {}, "b": {"optim.lr": 1e-4}}}, "test")
    space = search_space(experiment, "a", {})
    draws = [draw(experiment, "a", space, index) for index in range(200)]
    assert draws[0] == {}
    assert draws == [draw(experiment, "a", space, index) for index in range(200)]
    assert draws[1] != draw(experiment, "b", space, 1)
    assert draws[1] != draw(experiment.model_copy(update={"seed": 1}), "a", space, 1)
    rates = np.log10([own["optim.lr"] for own in draws[1:]])
    assert rates.min() >= -4
    assert rates.max() <= -2
    assert abs(rates.mean() + 3) < 0.15  # log-uniform: its middle is 1e-3 (SE .04)
    assert {own["optim.weight_decay"] for own in draws[1:]} == {0.01, 0.3}


def test_the_default_space_is_built_around_the_recipe() -> None:
    experiment = Experiment.model_validate({"optim": {"lr": 1e-3, "weight_decay": 0.1}})
    space = search_space(experiment, "neurobolt", {"erm": {}})
    assert space["optim.lr"] == Range("loguniform", (1e-4, 1e-2))
    assert space["optim.weight_decay"] == Range("loguniform", (0.01, 1.0))


def test_ranges_of_algorithms_name_options_that_they_have() -> None:
    model = build_model("eegnet", "small", {}, ch_names=["Fp1", "Cz", "O1", "O2"], n_outputs=2)
    for name, options in OPTION_RANGES.items():
        assert name in ALGORITHMS
        for option, content in options.items():
            for value in next(iter(content.values())):
                build_algorithm(name, {option: value}, model)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"optim.lrr": {"choice": [1]}}, "did you mean 'lr'"),
        ({"data.low_pass": {"choice": [0.1]}}, "cannot be tuned"),
        ({"optim.lr": {"loguniform": [0, 1]}}, "0 < low < high"),
        ({"optim.lr": {"loguniform": [1e-3]}}, "two numbers"),
        ({"optim.lr": {"normal": [0, 1]}}, "neither a variant"),
        ({"optim.lr": {"choice": [-1.0]}}, "greater than 0"),
    ],
)
def test_a_space_that_cannot_be_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        search_space(Experiment.model_validate({"tune": space}), "neurobolt", {})


def test_a_variant_may_have_a_space_of_its_own() -> None:
    content = {
        "variants": {"a": {}, "b": {}},
        "tune": {"optim.lr": {"choice": [1e-3]}, "b": {"optim.clip": {"choice": [1]}}},
    }
    experiment = parse_experiment(content, "test")
    assert set(search_space(experiment, "a", {})) == {"optim.lr"}
    assert set(search_space(experiment, "b", {})) == {"optim.lr", "optim.clip"}
    best = tuned_recipe(experiment, {"b": {"optim.clip": 1.0}})
    assert best.variant("b").optim.clip == 1.0
    assert best.variant("a").optim.clip is None
    assert tuned(experiment, {"optim.clip": 2.0}).optim.clip == 2.0


@pytest.mark.parametrize(
    "scheme",
    [
        "leave-one-site-out",
        "leave-one-out:field_strength",
        "leave-one-subject-out",
        "k-fold",
        "within-recording",
        "site-to-site",
        "growing-sites",
    ],
)
def test_the_recipe_of_a_fold_makes_that_fold(scheme: str, tmp_path: Path) -> None:
    rows = [
        {"site": site, "subject": f"0{s}", "session": "", "task": "rest", "run": "", "field_strength": tesla}
        for site, tesla in (("A", 1.5), ("B", 3.0), ("C", 7.0))
        for s in range(1, 4)
    ]
    manifest = pd.DataFrame(rows).assign(n_volumes=300, t_r=2.0)
    experiment = parse_experiment({**RECIPE, "folds": {"scheme": scheme}}, "test")
    folds, folder = make_folds(manifest, experiment.folds, seed=0), StudyFolder(tmp_path)
    trials = Trials(folder, "eegnet", {}, [fold.held_out for fold in folds])
    for fold in folds:
        trials.note(0, {"optim.lr": 1e-3}, fold.held_out, {"error": 1.0, "epochs": 1, "message": ""})
    trials.end(0)
    tune.write(experiment, {"eegnet": trials}, folds, folder)
    assert load_experiment(tmp_path / "best.yaml").folds.held_out == ()
    assert len(list(tmp_path.glob("best-*.yaml"))) == len(folds)
    for fold in folds:
        path = tmp_path / f"best-{folder_name(fold.held_out)}.yaml"
        again = make_folds(manifest, load_experiment(path).folds, seed=0)
        assert fold in again
        alone = "cannot name this fold alone" not in path.read_text()
        assert alone == (scheme != "growing-sites") == (len(again) == 1)


def test_best_of_a_fold_and_best_of_all_may_differ(tmp_path: Path) -> None:
    trials = Trials(StudyFolder(tmp_path), "v", {}, ["x", "y"])
    errors = {0: (1.0, 1.0), 1: (0.5, 1.2), 2: (0.9, 0.7), 3: (0.1,), 4: (FAILED,)}
    for number, own in errors.items():
        for fold, error in zip(("x", "y"), own, strict=False):
            trials.note(number, {}, fold, {"error": error, "epochs": 1, "message": "" if error < FAILED else "NaN"})
        trials.end(number)
    assert [trials.state(n) for n in errors] == ["done", "done", "done", "stopped", "failed"]
    assert best_trial(trials) == 2
    assert best_trial(trials, "x") == 1
    assert best_trial(trials, "y") == 2
    assert trials.first_message() == "NaN"
    reread = Trials.open(StudyFolder(tmp_path), "v", {}, ["x", "y"])
    assert reread.rows == trials.rows
    with pytest.raises(RecipeError, match="choose another --study"):
        Trials.open(StudyFolder(tmp_path), "v", {"seed": 2}, ["x", "y"])
