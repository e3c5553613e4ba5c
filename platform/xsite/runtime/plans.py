"""From an experiment and its recordings to one training: what a worker is given, and the fingerprint that names it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from xsite.errors import RecipeError
from xsite.evaluation.folds import Segments
from xsite.evaluation.plan import FINAL, RunHasher
from xsite.evaluation.sides import Sides
from xsite.experiment import Experiment
from xsite.recording import RecordingKey
from xsite.runtime.fold_job import FoldJob, ModelFactory
from xsite.runtime.inputs import StudyData


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
    model: str | None = None,
    purpose: str = "fold",
    watch: Sequence[tuple[str, Sequence[RecordingKey]]] = (),
    segments: Segments | None = None,
) -> FoldJob:
    """Describe one training; it knows its own recordings only.

    Parameters
    ----------
    experiment : Experiment
        Of the run's variant and seed.
    train, val : sequence of RecordingKey
    label, held_out, folder, control, n_epochs, model, purpose
        As in :class:`~xsite.runtime.fold_job.FoldJob`; ``model`` is the variant's label.
    watch : sequence of label and keys
        Groups whose error is noted after each epoch.
    segments : mapping, optional
        Volumes of each side, where recordings have parts.
    selected_on : str
        How the kept epoch was chosen, in words.
    """
    spec = data.spec(experiment, train, segments)
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
    sides = Sides(tuple(train), tuple(val), tuple((name, tuple(keys)) for name, keys in watch), segments)
    digest = RunHasher(data.manifest).run(experiment, held_out or FINAL, sides, control=control)
    return FoldJob(
        label=label,
        held_out=held_out,
        model=model or experiment.model.name,
        control=control,
        seed=(experiment.seed, zlib.crc32((held_out or "final").encode())),
        fingerprint=digest if n_epochs is None else _with_epochs(digest, n_epochs),
        folder=str(folder),
        config=config,
        spec=spec,
        train=data.training_refs(train, spec),
        val=data.training_refs(val, spec),
        n_epochs=n_epochs,
        watch={name: tuple(data.refs_of(keys)) for name, keys in watch},
        purpose=purpose,
    )


def check_model(job: FoldJob, experiment: Experiment, build_model: ModelFactory) -> float:
    """Build the model once in the driver: a preset or option that does not exist should not need a worker to say so.

    Returns
    -------
    float
        Seconds of EEG that the model needs before a volume.
    """
    spec, config = experiment.model, job.config
    try:
        model = build_model(
            spec.name, spec.preset, spec.options, ch_names=config["ch_names"], n_outputs=len(config["parcels"])
        )
    except RecipeError as error:
        if experiment.data.channels != "native" or "channels" not in str(error):
            raise
        raise RecipeError(f"{error}; or set data.channels: spline, which brings all caps to one montage") from error
    return float(getattr(model, "window_s", 16.0))


def check_models(jobs: Iterable[FoldJob], build_model: ModelFactory) -> dict[str, float]:
    """Build the model of every variant for every set of channels: native ones differ from fold to fold.

    Returns
    -------
    dict
        Seconds of EEG that each variant needs before a volume.

    Raises
    ------
    RecipeError
        One of them cannot be built.
    """
    kinds = {(job.model, tuple(job.config["ch_names"])): job for job in jobs}
    return {job.model: check_model(job, job.experiment, build_model) for job in kinds.values()}


def _with_epochs(digest: str, n_epochs: int) -> str:
    """Fingerprint of a run whose number of epochs a rule has found: the plan could not know it yet."""
    return hashlib.sha256(f"{digest}/{n_epochs}".encode()).hexdigest()[:16]
