"""A finished study and its store, small but made by the real code; stands in for hours of training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from neurobolt import NeuroBOLT, NeuroBOLTConfig
from xsite.data.harmonize import target_scale
from xsite.data.manifest import rebuild_manifest
from xsite.data.store import write_recording
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.tables import study_summary
from xsite.experiment import Experiment
from xsite.experiment_parts import Data
from xsite.learning.checkpoint import save_checkpoint
from xsite.learning.targets import TargetSpec, median_scale, unseen_target
from xsite.recording import Montage, Parcellation, Recording, RecordingKey

CHANNELS = ("Fp1", "Fp2", "Cz", "O1", "O2")
SITES = ("alpha", "beta")


def small_model(n_outputs: int = 3, seed: int = 0) -> NeuroBOLT:
    """NeuroBOLT ``small`` with random weights large enough that outputs move."""
    torch.manual_seed(seed)
    model = NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=CHANNELS, n_outputs=n_outputs))
    with torch.no_grad():
        model.output.weight.normal_(0, 0.3)
    return model.eval()


def build_recording(site: str, subject: str, *, n_volumes: int = 60, sfreq: float = 200.0) -> Recording:
    """Noise in the shared format: 60 volumes at 2 s, three parcels of coloured noise."""
    rng = np.random.default_rng([ord(site[0]), int(subject)])
    n_times = int((18 + 2 * n_volumes + 2) * sfreq)
    bold = np.cumsum(rng.normal(0, 0.2, (n_volumes, 3)), axis=0)
    bold -= np.linspace(bold[0], bold[-1], n_volumes)
    positions = rng.normal(0, 1, (len(CHANNELS), 3))
    return Recording(
        key=RecordingKey(site, subject, task="rest"),
        montage=Montage(CHANNELS, 0.095 * positions / np.linalg.norm(positions, axis=1, keepdims=True)),
        parcellation=Parcellation("test-3", ("parcel0", "parcel1", "parcel2"), "MNI", "0" * 64),
        eeg=rng.normal(0, 10, (len(CHANNELS), n_times)).astype(np.float32),
        eeg_valid=np.ones(n_times, dtype=bool),
        bold=bold.astype(np.float32),
        global_signal=bold.mean(1).astype(np.float32),
        confounds=np.zeros((n_volumes, 1), np.float32),
        confound_names=("framewise_displacement",),
        volume_onsets=18 + 2.0 * np.arange(n_volumes),
        volume_valid=np.ones(n_volumes, dtype=bool),
        sfreq=sfreq,
        t_r=2.0,
    )


def build_store(folder: Path) -> list[Recording]:
    """Two sites of two subjects each, in the shared format."""
    recordings = [build_recording(site, subject) for site in SITES for subject in ("01", "02")]
    for recording in recordings:
        write_recording(str(folder), recording, fingerprint="f")
    rebuild_manifest(str(folder))
    return recordings


def build_study(folder: Path, *, skill: float = 1.0) -> Path:
    """Write ``folder/store`` and ``folder/study``; ``skill`` 0 makes the predictions pure noise."""
    recordings = build_store(folder / "store")
    experiment = Experiment(name="tiny", data=Data(sites=SITES))
    scale = median_scale([target_scale(r.bold, r.t_r) for r in recordings])
    spec = TargetSpec("strict", 0.15, scale)
    rng = np.random.default_rng(5)
    predictions = []
    for r in recordings:
        target = unseen_target(r, spec)
        noisy = (skill * 0.5 * target + rng.normal(0, 0.1, target.shape)).astype(np.float32)
        predictions.append(Prediction(r.key, "neurobolt", False, noisy, target, r.volume_valid))
        predictions.append(Prediction(r.key, "zero", False, np.zeros_like(target), target, r.volume_valid))
    parcels = recordings[0].parcellation.labels
    scores = score_predictions(predictions, parcels=parcels)
    study = folder / "study"
    study.mkdir()
    experiment.to_yaml(study / "experiment.yaml")
    summary = study_summary(scores, predictions, model="neurobolt", rivals=("zero",), surrogates=200)
    (study / "summary.json").write_text(json.dumps(summary))
    rebuild_manifest(str(folder / "store")).to_parquet(study / "manifest.parquet")
    (study / "versions.json").write_text(json.dumps({"torch": torch.__version__}))
    scores.to_parquet(study / "scores.parquet")
    model = small_model(len(parcels))
    config = {
        "model": {"name": "neurobolt", "preset": "small", "options": {}, "config": model.config.to_dict()},
        "experiment": experiment.model_dump(mode="json"),
        "ch_names": list(CHANNELS),
        "parcels": list(parcels),
        "parcellation": asdict(recordings[0].parcellation),
        "target": spec.to_dict(),
        "held_out": None,
        "reference": "average",
        "best_epoch": 3,
    }
    save_checkpoint(study / "final", model.state_dict(), config)
    return study
