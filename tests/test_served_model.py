"""The "model from code" file by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from study_folder import CHANNELS, build_study

import neurobolt
from jobs.served_model import ServedModel, load_folder
from xsite.tracking.export import signature

CODE = Path(neurobolt.__file__).parents[1] / "jobs" / "served_model.py"


@pytest.fixture(scope="module")
def final(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_study(tmp_path_factory.mktemp("served")) / "final"


def served(folder: Path) -> ServedModel:
    model = ServedModel()
    model.load_context(SimpleNamespace(artifacts={"checkpoint": str(folder)}))
    return model


def test_predicts_as_the_model_does_in_chunks(final: Path, rng: np.random.Generator) -> None:
    eeg_BCT = rng.normal(0, 15, (35, len(CHANNELS), 3200)).astype(np.float32)  # more than one chunk
    expected_BR = load_folder(final).predict(eeg_BCT, CHANNELS)
    np.testing.assert_allclose(served(final).predict(None, eeg_BCT), expected_BR, atol=1e-6)


def test_channels_are_taken_by_name(final: Path, rng: np.random.Generator) -> None:
    eeg_BCT = rng.normal(0, 15, (2, len(CHANNELS), 3200)).astype(np.float32)
    model = served(final)
    turned = model.predict(None, eeg_BCT[:, ::-1].copy(), {"ch_names": CHANNELS[::-1]})
    np.testing.assert_allclose(turned, model.predict(None, eeg_BCT), atol=1e-5)
    some = model.predict(None, eeg_BCT[:, :3], {"ch_names": CHANNELS[:3]})
    assert some.shape == (2, 3)
    with pytest.raises(ValueError, match=r"expected \(windows, 5, times\)"):
        model.predict(None, eeg_BCT[:, :3])
    with pytest.raises(ValueError, match="T9X"):
        model.predict(None, eeg_BCT[:, :1], {"ch_names": ["T9X"]})


def test_no_window_gives_no_row(final: Path) -> None:
    assert served(final).predict(None, np.empty((0, len(CHANNELS), 3200), np.float32)).shape == (0, 3)


def test_a_folder_that_was_altered_is_refused(final: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json", "manifest.json"):
        (tmp_path / name).write_bytes((final / name).read_bytes())
    (tmp_path / "config.json").write_text((final / "config.json").read_text().replace("alpha", "gamma"))
    with pytest.raises(ValueError, match=r"config\.json: SHA-256 differs"):
        load_folder(tmp_path)


def test_saved_model_checks_type_and_shape(final: Path, tmp_path: Path, rng: np.random.Generator) -> None:
    mlflow.pyfunc.save_model(
        str(tmp_path / "model"),
        python_model=str(CODE),
        artifacts={"checkpoint": str(final)},
        signature=signature(CHANNELS, 3200, 3),
        pip_requirements=["mlflow"],
    )
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    eeg_BCT = rng.normal(0, 15, (1, len(CHANNELS), 3200)).astype(np.float32)
    assert model.predict(eeg_BCT).shape == (1, 3)
    for wrong in (eeg_BCT[..., :3000], eeg_BCT.astype(np.int32)):
        with pytest.raises(mlflow.exceptions.MlflowException):
            model.predict(wrong)
    names = json.loads(model.metadata.signature.params.to_json())[0]
    assert names["name"] == "ch_names"
    assert names["default"] == list(CHANNELS)


def test_the_file_needs_nothing_of_the_platform() -> None:
    script = (
        "import runpy, sys; runpy.run_path(sys.argv[1]);"
        "print([m for m in sys.modules if m.split('.')[0] in ('xsite', 'ray', 'mne', 'site_adapters')])"
    )
    done = subprocess.run([sys.executable, "-c", script, str(CODE)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
