"""Whatever a study may train can be saved, registered, loaded in a fresh process and run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import mne
import numpy as np
import pytest
import torch
from study_folder import CHANNELS, build_study

import neurobolt
from jobs import predict
from jobs.models import MODELS, build_model
from jobs.opened import open_checkpoint
from jobs.register import main as register
from jobs.served_model import ServedModel
from neurobolt import catalogue
from xsite.experiment import load_experiment
from xsite.learning.checkpoint import save_checkpoint
from xsite.tracking.export import predict_elsewhere, refuse_pickles

CODE = Path(neurobolt.__file__).parents[1] / "jobs" / "served_model.py"
every_model = pytest.mark.parametrize("name", MODELS)


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(1)
    model = build_model(name, "small", {}, ch_names=CHANNELS, n_outputs=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model.eval()


def eeg_of(model: torch.nn.Module, n: int = 3) -> np.ndarray:
    n_times = round(model.window_s * model.sfreq)  # type: ignore[operator]
    return np.random.default_rng(0).normal(0, 15, (n, len(CHANNELS), n_times)).astype(np.float32)


def with_model(study: Path, name: str) -> torch.nn.Module:
    """Put another model's checkpoint where a study keeps its final one."""
    model = built(name)
    config = json.loads((study / "final" / "config.json").read_text())
    config["model"] = {"name": name, "preset": "small", "options": {}, "config": model.config.to_dict()}
    for path in (study / "final").iterdir():
        path.unlink()
    (study / "final").rmdir()
    save_checkpoint(study / "final", model.state_dict(), config)
    return model


@every_model
def test_saved_and_loaded_it_says_the_same(name: str, tmp_path: Path) -> None:
    model = built(name)
    again = neurobolt.load(neurobolt.save(model, tmp_path / "saved"))
    assert type(again) is type(model)
    assert catalogue.name_of(again) == name
    eeg_BCT = eeg_of(model)
    np.testing.assert_array_equal(again.predict(eeg_BCT, CHANNELS), model.predict(eeg_BCT, CHANNELS))
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_study(tmp_path_factory.mktemp("any"))


@every_model
def test_a_checkpoint_is_opened_and_served_by_its_name(name: str, study: Path) -> None:
    model = with_model(study, name)
    eeg_BCT = eeg_of(model)
    expected_BR = model.predict(eeg_BCT, CHANNELS)
    np.testing.assert_array_equal(open_checkpoint(study / "final").model.predict(eeg_BCT, CHANNELS), expected_BR)
    served = ServedModel()
    served.load_context(SimpleNamespace(artifacts={"checkpoint": str(study / "final")}))
    np.testing.assert_allclose(served.predict(None, eeg_BCT), expected_BR, atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param("lag-tokens", marks=pytest.mark.slow), "neurobolt-x"])
def test_registered_it_predicts_in_a_fresh_process_and_from_a_file(name: str, tmp_path: Path) -> None:
    study = build_study(tmp_path)
    model = with_model(study, name)
    text = (study / "experiment.yaml").read_text().replace("name: neurobolt", f"name: {name}")
    (study / "experiment.yaml").write_text(text)
    summary = (study / "summary.json").read_text().replace('"neurobolt"', f'"{name}"')
    (study / "summary.json").write_text(summary)
    assert load_experiment(study / "experiment.yaml").model.name == name
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert register([str(study), "--tracking", uri, "--force"]) == 0
    folder = predict_folder(uri, tmp_path)
    refuse_pickles(folder)
    eeg_BCT = eeg_of(model)
    answer_BR, code = predict_elsewhere(folder, eeg_BCT, CHANNELS, scratch=tmp_path, watch=("neurobolt", "xsite"))
    np.testing.assert_allclose(answer_BR, model.predict(eeg_BCT, CHANNELS), atol=1e-5)
    assert code
    assert all(str(folder) in path for path in code.values() if path)  # its own copy of the code

    info = mne.create_info(list(CHANNELS), 200.0, "eeg")
    raw = mne.io.RawArray(1e-5 * np.random.default_rng(2).normal(size=(len(CHANNELS), 200 * 60)), info, verbose="error")
    raw.save(tmp_path / "rest_eeg.fif", verbose="error")
    argv = ["models:/neurobolt@challenger", str(tmp_path / "out"), "--eeg", str(tmp_path / "rest_eeg.fif")]
    assert predict.main([*argv, "--tracking", uri]) == 0
    rows = (tmp_path / "out" / "rest_timeseries.tsv").read_text().splitlines()
    assert rows[0].split("\t")[-3:] == ["parcel0", "parcel1", "parcel2"]
    assert any("n/a" not in row for row in rows[1:])


def predict_folder(uri: str, scratch: Path) -> Path:
    from xsite.tracking import download

    (scratch / "version").mkdir()
    return Path(download(uri, "models:/neurobolt@challenger", scratch / "version"))


def test_unknown_names_and_foreign_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of neurobolt"):
        neurobolt.save(torch.nn.Linear(2, 2), tmp_path / "foreign")
    folder = neurobolt.save(built("siren"), tmp_path / "saved")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"model": "sirem"}))
    with pytest.raises(ValueError, match="did you mean 'siren'"):
        neurobolt.load(folder)
    (folder / "config.json").write_text(json.dumps(content | {"model": "beira"}))
    with pytest.raises(ValueError, match="not of 'beira'"):
        neurobolt.load(folder)


def test_a_model_that_compares_windows_is_served_the_whole_recording() -> None:
    model = built("neurobolt-x")
    eeg_BCT = eeg_of(model, 40)  # more than one chunk of the others
    eeg_BCT[20:] *= 3
    served = ServedModel()
    served.model = model
    np.testing.assert_array_equal(
        served.predict(None, eeg_BCT, {"ch_names": list(CHANNELS)}), model.predict(eeg_BCT, list(CHANNELS))
    )
    assert not np.allclose(model.predict(eeg_BCT[:20], list(CHANNELS)), model.predict(eeg_BCT, list(CHANNELS))[:20])
