"""MLflow "model from code": the one file that knows both MLflow and the model.

MLflow copies this file and the package ``neurobolt`` into the logged model, so that a process with mlflow, torch,
numpy and safetensors (and nothing of ours installed) can predict. Weights are safetensors; nothing is unpickled.

    model = mlflow.pyfunc.load_model("models:/neurobolt@challenger")
    bold_BR = model.predict(eeg_BCT, params={"ch_names": ["Fp1", "Fp2", ...]})
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from safetensors.torch import load_file

from neurobolt.catalogue import rebuild

CHUNK = 32  # windows per forward pass: a whole scan at once would need gigabytes


def load_folder(folder: str | Path) -> Any:
    """Rebuild the model of a checkpoint folder, in evaluation mode.

    Raises
    ------
    ValueError
        A file's SHA-256 differs from ``manifest.json``, or the folder is no checkpoint of one of our models.
    """
    folder = Path(folder)
    listed = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    for name, facts in listed.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != facts["sha256"]:
            raise ValueError(f"{folder / name}: SHA-256 differs from manifest.json; the file was altered or cut short")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "config" not in config.get("model", {}):
        raise ValueError(f"{folder / 'config.json'}: holds no model's configuration under model.config")
    model = rebuild(config["model"].get("name", "neurobolt"), config["model"]["config"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


class ServedModel(PythonModel):  # type: ignore[misc]  # mlflow ships no types
    """Any model of the package behind MLflow's prediction interface."""

    _skip_type_hint_validation = True  # the signature says more than hints; MLflow would warn at each import

    def load_context(self, context: Any) -> None:
        """Load and verify the checkpoint that was logged with the model."""
        self.model = load_folder(context.artifacts["checkpoint"])

    # no annotations: MLflow would take them for a schema of its own
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Windows in, parcels out.

        Parameters
        ----------
        context : mlflow PythonModelContext
        model_input : float32 array, shape (B, C, T)
            Microvolt at the model's sampling frequency, as long as its window; referenced as the model card says. All
            of one recording: neurobolt-x compares each window with the others of the call.
        params : mapping, optional
            ``ch_names``: the C channel names; default the model's own.

        Returns
        -------
        float32 array, shape (B, R)
        """
        eeg_BCT = np.asarray(model_input, dtype=np.float32)
        ch_names = list((params or {}).get("ch_names") or self.model.ch_names)
        if eeg_BCT.ndim != 3 or eeg_BCT.shape[1] != len(ch_names):
            raise ValueError(
                f"EEG has shape {eeg_BCT.shape}; expected (windows, {len(ch_names)}, times) for {ch_names}"
            )
        # a model that compares each window with the recording must see the recording at once
        size = max(1, len(eeg_BCT)) if hasattr(self.model, "statistics_of_windows") else CHUNK
        parts = [self.model.predict(eeg_BCT[i : i + size], ch_names) for i in range(0, len(eeg_BCT), size)]
        return np.concatenate(parts) if parts else np.empty((0, self.model.config.n_outputs), np.float32)


set_model(ServedModel())
