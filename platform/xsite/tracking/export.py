"""A model leaves the project: code, safetensors and JSON in one folder that predicts the same anywhere.

The folder is logged with MLflow, then loaded in a fresh process that knows nothing of this project, where it has to
repeat the checkpoint's own predictions. No pickle is written, and a folder that holds one is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

from xsite.errors import TrackingError
from xsite.recording import Float
from xsite.tracking.client import connect, current_store, first_line

TOLERANCE = 1e-6
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".pt2", ".joblib", ".ckpt")

# Runs in a process of its own, outside the project: it sees only what the model brings along.
_PREDICT = """
import json, sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model(sys.argv[1])
given = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(given["eeg"], params={"ch_names": given["ch_names"].tolist()}))
ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] in sys.argv[4:]}
code = {name: getattr(module, "__file__", None) for name, module in ours.items()}
print(json.dumps(code))
"""


@dataclass(frozen=True, eq=False)
class Candidate:
    """What is to be registered.

    Parameters
    ----------
    checkpoint : Path
        Folder with ``model.safetensors``, ``config.json`` and ``manifest.json``.
    model_code : Path
        The "model from code" file.
    code_paths : tuple of Path
        Package folders that the file imports.
    example_BCT : float32 array, shape (B, C, T)
        Input example; the export must repeat ``expected_BR`` on it.
    expected_BR : float32 array, shape (B, R)
    ch_names : tuple of str
        Channels of the example, and the default of the parameter ``ch_names``.
    card : str
        Markdown, the version's description.
    tags : mapping of str to str
    """

    checkpoint: Path
    model_code: Path
    code_paths: tuple[Path, ...]
    example_BCT: Float
    expected_BR: Float
    ch_names: tuple[str, ...]
    card: str
    tags: Mapping[str, str]

    @property
    def weights_sha256(self) -> str:
        """Hash of the weights file: the identity of a version."""
        return hashlib.sha256((self.checkpoint / "model.safetensors").read_bytes()).hexdigest()


def log_model(candidate: Candidate, run_id: str) -> str:
    """Log the candidate with its run in the current store; return its URI."""
    # explicit requirements: MLflow's own inference starts a process that imports everything that is installed
    requirements = [f"{name}=={version(name)}" for name in ("mlflow", "numpy", "safetensors", "torch")]
    example_BCT = candidate.example_BCT[:1].astype(np.float32)
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(candidate.model_code),
            artifacts={"checkpoint": str(candidate.checkpoint)},
            code_paths=[str(path) for path in candidate.code_paths],
            signature=signature(candidate.ch_names, example_BCT.shape[2], candidate.expected_BR.shape[1]),
            input_example=(example_BCT, {"ch_names": list(candidate.ch_names)}),
            pip_requirements=requirements,
        )
    return str(info.model_uri)


def signature(n_chans_names: Sequence[str], n_times: int, n_outputs: int) -> Any:
    """Tensors in and out, and the channel names as a parameter whose default is the model's own."""
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1, n_times))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, n_outputs))]),
        params=ParamSchema([ParamSpec("ch_names", "string", list(n_chans_names), shape=(-1,))]),
    )


def check_export(tracking_uri: str, model_uri: str, candidate: Candidate) -> float:
    """Load the logged model in a process that knows nothing of this project; return its largest difference.

    Raises
    ------
    TrackingError
        A pickle lies in the model's folder, the process fails, or the difference exceeds 1e-6 of the output's scale.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(download(tracking_uri, model_uri, scratch))
        refuse_pickles(folder)
        answer_BR, _ = predict_elsewhere(folder, candidate.example_BCT, candidate.ch_names, scratch=scratch)
    scale = max(1.0, float(np.abs(candidate.expected_BR).max()))
    if answer_BR.shape != candidate.expected_BR.shape:
        raise TrackingError(f"{model_uri}: the export gives shape {answer_BR.shape}, not {candidate.expected_BR.shape}")
    difference = float(np.abs(answer_BR - candidate.expected_BR).max())
    if not difference <= TOLERANCE * scale:
        raise TrackingError(
            f"{model_uri}: the exported model differs from the checkpoint by {difference:.2e} (allowed"
            f" {TOLERANCE * scale:.0e}); not registered. Were neurobolt's files edited after the training?"
        )
    return difference


def predict_elsewhere(
    folder: str | Path, eeg_BCT: Float, ch_names: Sequence[str], *, scratch: str | Path, watch: Sequence[str] = ()
) -> tuple[Float, dict[str, str]]:
    """Predict with a model folder in a fresh process; also return where modules of the ``watch`` packages came from."""
    given, answer = Path(scratch) / "given.npz", Path(scratch) / "answer.npy"
    np.savez(given, eeg=np.asarray(eeg_BCT, np.float32), ch_names=np.array(list(ch_names)))
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MLFLOW_TRACKING_URI")}
    command = [sys.executable, "-c", _PREDICT, str(folder), str(given), str(answer), *watch]
    done = subprocess.run(command, cwd=scratch, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrackingError(f"{folder}: the exported model does not predict in a fresh process: {last}")
    return np.load(answer, allow_pickle=False), json.loads(done.stdout.strip().splitlines()[-1])


def refuse_pickles(folder: Path) -> None:
    """Raise :class:`TrackingError` if any file of a model folder could hold a pickle."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in PICKLES)
    if found:
        raise TrackingError(f"{folder}: pickles have no place in a deployed model: {', '.join(found)}")


def download(tracking_uri: str, model_uri: str, folder: str | Path) -> str:
    """Fetch the files behind ``models:/...`` or ``runs:/...`` into a folder; return where they lie.

    Raises
    ------
    TrackingError
        The store does not answer, or there is no such version, alias or run.
    """
    connect(tracking_uri)
    try:
        with current_store(tracking_uri):
            return str(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"{model_uri} at {tracking_uri}: {first_line(error)}. Name it models:/NAME@ALIAS, models:/NAME/VERSION or"
            " runs:/RUN_ID, and the store with --tracking"
        ) from error
