"""From an experiment and its recordings to one training: what a worker is given, and the fingerprint that names it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xsite.errors import RecipeError
from xsite.experiment import Experiment
from xsite.recording import RecordingKey
from xsite.runtime.inputs import StudyData
from xsite.runtime.worker import FoldJob, ModelFactory


def make_job(
    experiment: Experiment,
    data: StudyData,
    train: Sequence[RecordingKey],
    val: Sequence[RecordingKey],
    *,
    label: str,
    held_out: str | None,
    folder: Path,
    selected_on: str,
    control: bool = False,
    n_epochs: int | None = None,
) -> FoldJob:
    """Describe one training; it knows its own recordings only.

    Parameters
    ----------
    train, val : sequence of RecordingKey
    label, held_out, folder, control, n_epochs
        As in :class:`~xsite.runtime.worker.FoldJob`.
    selected_on : str
        How the kept epoch was chosen, in words.
    """
    spec = data.spec(experiment, train)
    parcellation = data.facts[train[0]].parcellation
    config = {
        "model": experiment.model.model_dump(mode="json"),
        "experiment": experiment.model_dump(mode="json"),
        "ch_names": list(data.ch_names(experiment, [*train, *val])),
        "parcels": list(data.parcels),
        "parcellation": {**vars(parcellation), "labels": list(parcellation.labels)},
        "target": spec.to_dict(),
        "reference": experiment.data.reference,
        "held_out": held_out,
        "control": control,
        "trained_on": sorted({key.site for key in train}),
        "selected_on": selected_on,
        "data_hash": data.hash_of([*train, *val]),
    }
    return FoldJob(
        label=label,
        held_out=held_out,
        model=experiment.model.name,
        control=control,
        seed=(experiment.seed, zlib.crc32((held_out or "final").encode())),
        fingerprint=_fingerprint(experiment, config, [train, val], n_epochs),
        folder=str(folder),
        config=config,
        spec=spec,
        train=tuple(data.refs[key] for key in train),
        val=tuple(data.refs[key] for key in val),
        n_epochs=n_epochs,
    )


def check_model(job: FoldJob, experiment: Experiment, build_model: ModelFactory) -> None:
    """Build the model once in the driver: a preset or option that does not exist should not need a worker to say so."""
    spec, config = experiment.model, job.config
    try:
        build_model(spec.name, spec.preset, spec.options, ch_names=config["ch_names"], n_outputs=len(config["parcels"]))
    except RecipeError as error:
        if experiment.data.channels != "native" or "channels" not in str(error):
            raise
        raise RecipeError(f"{error}; or set data.channels: spline, which brings all caps to one montage") from error


def _fingerprint(
    experiment: Experiment,
    config: Mapping[str, Any],
    sides: Sequence[Sequence[RecordingKey]],
    n_epochs: int | None,
) -> str:
    """Of everything that decides the weights, and of nothing else: more surrogates need no new training."""
    parts = experiment.model_dump(mode="json", include={"data", "model", "algorithm", "optim", "seed", "select_on"})
    parts["workers"] = experiment.scale.workers
    own = {name: config[name] for name in ("ch_names", "parcels", "target", "control", "data_hash", "held_out")}
    who = [sorted(map(str, side)) for side in sides]
    return hashlib.sha256(json.dumps([parts, own, who, n_epochs], sort_keys=True).encode()).hexdigest()[:16]
