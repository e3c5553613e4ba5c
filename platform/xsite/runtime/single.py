"""Train one model on named recordings: no held-out site, no score."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

from xsite.errors import FoldError
from xsite.evaluation.folds import manifest_keys, validation_subjects
from xsite.experiment import Experiment
from xsite.recording import RecordingKey
from xsite.runtime.fold_job import ModelFactory
from xsite.runtime.inputs import absolute_store, load_study, row_keys, select_manifest
from xsite.runtime.plans import check_model, make_job
from xsite.runtime.training import FoldOutcome, OnEvent, train_folds


def train_one(
    experiment: Experiment,
    store: str,
    folder: str | Path,
    *,
    build_model: ModelFactory,
    patterns: Sequence[str] = (),
    on_event: OnEvent = lambda event: None,
) -> FoldOutcome:
    """Train on the recordings whose key matches one of the patterns; some subjects of each site select the epoch.

    Parameters
    ----------
    folder : str or Path
        Where the checkpoint goes.
    patterns : sequence of str
        Shell patterns for keys such as ``siteA/sub-0[1-3]*``; empty means all recordings of the experiment's sites.

    Raises
    ------
    FoldError
        Nothing matches, or no subject is left to select with.
    """
    store, folder = absolute_store(store), Path(folder).resolve()
    manifest = _matching(select_manifest(store, experiment), patterns, store)
    train, val = split(manifest_keys(manifest), experiment)
    data = load_study(store, manifest, experiment)
    job = make_job(
        experiment, data, train, val, label="train", held_out=None, folder=folder, selected_on=experiment.select_on
    )
    check_model(job, experiment, build_model)
    storage = folder.with_name(f".{folder.name}.ray")
    return train_folds([job], experiment, build_model=build_model, storage=storage, on_event=on_event)[0]


def split(
    keys: Sequence[RecordingKey], experiment: Experiment
) -> tuple[tuple[RecordingKey, ...], tuple[RecordingKey, ...]]:
    """Recordings that train and that select; no subject does both."""
    chosen = {
        (site, subject)
        for site in {key.site for key in keys}
        for subject in validation_subjects(
            site,
            (key.subject for key in keys if key.site == site),
            val_fraction=experiment.folds.val_fraction,
            seed=experiment.seed,
        )
    }
    val = tuple(key for key in keys if key.subject_id in chosen)
    if not val:
        raise FoldError("training: every site has one subject only, so nobody can select the epoch; add a subject")
    return tuple(key for key in keys if key.subject_id not in chosen), val


def _matching(manifest: pd.DataFrame, patterns: Sequence[str], store: str) -> pd.DataFrame:
    if not patterns:
        return manifest
    keys = [str(key) for key in row_keys(manifest)]
    kept = manifest[[any(fnmatchcase(key, pattern) for pattern in patterns) for key in keys]]
    if kept.empty:
        raise FoldError(f"no recording of {store} matches {' '.join(patterns)}; there are {', '.join(keys[:6])} ...")
    return kept.reset_index(drop=True)
