"""The calibration curve of a finished study: how much k labelled subjects of an unseen site are worth.

Each fold's checkpoint is fine-tuned on k of the held-out site's subjects and scored on the others. Within a draw the
larger k contains the smaller, and all of them, k = 0 too, are scored on the same subjects: those beyond the largest k.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import ray
import torch

from xsite.data.store import data_hash
from xsite.errors import CheckpointError, FoldError, FormatError, RecipeError, StoreError, XsiteError
from xsite.evaluation.calibration import Draw, calibration_draws
from xsite.evaluation.folds import Fold
from xsite.evaluation.plan import Plan, Run
from xsite.evaluation.scoring import score_predictions
from xsite.evaluation.subjects import subject_scores
from xsite.experiment import Experiment, load_experiment
from xsite.learning.adaptation import UNLABELLED, access_level, reads_whole_recording
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.finetune import Part, check_part, finetune
from xsite.learning.predict import predict_recording
from xsite.learning.targets import TargetSpec
from xsite.recording import RecordingKey
from xsite.reports.folder import check_finished
from xsite.runtime.cluster import gather, task
from xsite.runtime.fold_job import ModelFactory
from xsite.runtime.inputs import StudyData, absolute_store, load_study, row_keys, select_manifest
from xsite.runtime.scoring import Measured, Predicted, measure, open_checkpoint, predict_checkpoint, predictions_of
from xsite.runtime.study import StudyFolder
from xsite.spelling import counted

FILE = "calibration.parquet"
NEEDED = ("experiment.yaml", "plan.json", "folds.json", "manifest.parquet", "scores.parquet")
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Piece:
    """One fine-tuned model to be: a fold's run, a draw, k and a part; k = 0 is the checkpoint as it is."""

    run: Run
    draw: Draw
    k: int
    part: str
    seed: int
    fingerprint: str

    @property
    def hash(self) -> str:
        content = [self.fingerprint, self.draw.calibrated, self.draw.scored, self.k, self.part, self.seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def words(self) -> str:
        """As in "siteA, draw 0, k = 1, head"; k = 0 trains nothing."""
        what = f"k = {self.k}, {self.part}" if self.k else "k = 0, not calibrated"
        return f"{self.run.fold}, draw {self.draw.number}, {what}"

    @property
    def of(self) -> tuple[str, str, int]:
        """The checkpoint that it starts from, as rows name it."""
        return self.run.fold, self.run.variant, self.run.seed


def run_calibration(
    study: str | Path,
    store: str,
    *,
    ks: Sequence[int],
    parts: Sequence[Part],
    n_draws: int,
    build_model: ModelFactory,
    seed: int = 0,
    variants: Sequence[str] = (),
    say: Say = print,
) -> pd.DataFrame:
    """Fine-tune and score what is missing; write ``calibration.parquet`` after every piece.

    The file keeps what earlier calls have found for other parts, variants, draws and k, so that nothing is trained
    twice; only rows of checkpoints that have since been trained anew go. Its ``run`` tells the rows apart: numbers of
    draws are those of one call.

    Returns
    -------
    DataFrame
        What was asked, one row per scored subject, with ``held_out, variant, seed, k, draw, part, site, subject, r,
        r_partial, mse, r2, n_volumes, best_epoch, n_trained, calibrated_on, access, run, fingerprint``. Rows of k = 0
        have the part ``none``; ``n_trained`` is how many numbers of the model were free to move.

    Raises
    ------
    FormatError, StoreError, RecipeError, FoldError
        The folder holds no finished study, the store is another one, no site has two subjects, or a model has no such
        part.
    """
    folder = StudyFolder(study)
    experiment, plan, folds = _read(folder.path)
    if unknown := [name for name in variants if name not in experiment.labels]:
        raise RecipeError(f"no variant {', '.join(unknown)}; the study has {', '.join(experiment.labels)}")
    manifest = _manifest(folder.path, store, experiment)
    wanted = [r for r in plan.of("fold") if r.variant in (variants or (experiment.deployed,))]
    runs = [run for run in wanted if run.seed == experiment.training_seeds[0] and run.fold in folds]
    pieces = list(_pieces(folder, runs, folds, ks, parts, n_draws, seed, say))
    if not pieces:
        raise FoldError(f"{folder.path}: no fold holds out two subjects or more: nobody would be left to score")
    table = known_rows(folder.path / FILE, {piece.of: piece.fingerprint for piece in pieces})
    done = set(table["run"]) if len(table) else set()
    if todo := [piece for piece in pieces if piece.hash not in done]:
        _check_parts(folder, todo, build_model)
        tested = {key for piece in todo for key in folds[piece.run.fold].test}
        rows = [key in tested for key in row_keys(manifest)]
        data = load_study(absolute_store(store), manifest[rows].reset_index(drop=True), experiment)
        for found in _calibrated(todo, folds, folder, data, experiment, build_model, say):
            table = pd.concat([table, found], ignore_index=True)
            folder.write_table(FILE, table)
    say(f"{len(todo)} of {len(pieces)} pieces were missing")
    if table.empty:
        return table
    asked: pd.DataFrame = table[table["run"].isin({piece.hash for piece in pieces})].reset_index(drop=True)
    return asked


def calibrate_checkpoint(
    folder: str, build_model: ModelFactory, calibrated: Sequence[Any], scored: Sequence[Any], part: Part, seed: int
) -> tuple[Predicted, int, int]:
    """Fine-tune a checkpoint on some recordings and predict others; epochs that it took, numbers that could move."""
    torch.set_num_threads(1)
    model, config = open_checkpoint(folder, build_model)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    found = finetune(model, config, ray.get(list(calibrated)), part=part, seed=seed)
    device = next(found.model.parameters()).device
    predicted = {r.key: predict_recording(found.model, r, config=config, device=device) for r in ray.get(list(scored))}
    return predicted, found.best_epoch, found.n_trained


def _check_parts(folder: StudyFolder, pieces: Sequence[_Piece], build_model: ModelFactory) -> None:
    """Refuse at once what every piece would refuse: one checkpoint per variant speaks for all."""
    first = {(piece.run.variant, piece.part): piece for piece in reversed(pieces) if piece.k}
    for (_, part), piece in first.items():
        model, config = open_checkpoint(str(folder.run(piece.run)), build_model)
        check_part(model, config, cast(Part, part))


def _read(folder: Path) -> tuple[Experiment, Plan, dict[str, Fold]]:
    check_finished(folder, NEEDED)
    plan = Plan.from_dict(json.loads((folder / "plan.json").read_text(encoding="utf-8")), str(folder / "plan.json"))
    listed = json.loads((folder / "folds.json").read_text(encoding="utf-8"))
    folds = {row["held_out"]: Fold.from_dict(row) for row in listed}
    return load_experiment(folder / "experiment.yaml"), plan, {n: f for n, f in folds.items() if f.segments is None}


def _manifest(folder: Path, store: str, experiment: Experiment) -> pd.DataFrame:
    manifest = select_manifest(absolute_store(store), experiment)
    if data_hash(manifest) != data_hash(pd.read_parquet(folder / "manifest.parquet")):
        raise StoreError(f"{store}: its recordings are not those that the study {folder} was run on; name that store")
    return manifest


def _pieces(
    folder: StudyFolder,
    runs: Sequence[Run],
    folds: Mapping[str, Fold],
    ks: Sequence[int],
    parts: Sequence[Part],
    n_draws: int,
    seed: int,
    say: Say,
) -> Iterator[_Piece]:
    for run in runs:
        try:
            fingerprint = str(load_checkpoint(folder.run(run))[1]["fingerprint"])
        except CheckpointError as error:
            raise FormatError(f"{folder.path}: {error}") from error
        subjects = sorted({_who(key) for key in folds[run.fold].test})
        draws = calibration_draws(subjects, ks, n_draws, seed=seed, site=run.fold)
        if left_out := [k for k in ks if k >= len(subjects)]:
            n, too_many = counted(len(subjects), "subject"), ", ".join(map(str, left_out))
            say(f"{run.fold}: {n}, so k = {too_many} leaves nobody to score")
        for own in draws:
            yield _Piece(run, own, 0, "none", seed, fingerprint)
            yield from (
                _Piece(run, own, k, part, seed, fingerprint) for k in ks if k <= len(own.calibrated) for part in parts
            )


def known_rows(path: Path, fingerprints: Mapping[tuple[str, str, int], str]) -> pd.DataFrame:
    """Rows of earlier calls, but those of checkpoints that are not there any more.

    Parameters
    ----------
    path : Path
    fingerprints : mapping of fold, variant and seed to str
        Of the checkpoints that are there; rows of others stay.
    """
    if not path.is_file():
        return pd.DataFrame()
    table = pd.read_parquet(path)
    if "fingerprint" not in table:  # of an earlier version, which kept the rows of its last call only
        table["fingerprint"] = ""
    whose = zip(table["held_out"], table["variant"], table["seed"], table["fingerprint"], strict=True)
    current = [own in ("", fingerprints.get((fold, variant, int(seed)), own)) for fold, variant, seed, own in whose]
    kept: pd.DataFrame = table[current].reset_index(drop=True)
    return kept


def _calibrated(
    pieces: Sequence[_Piece],
    folds: Mapping[str, Fold],
    folder: StudyFolder,
    data: StudyData,
    experiment: Experiment,
    build_model: ModelFactory,
    say: Say,
) -> Iterator[pd.DataFrame]:
    gpus = min(1.0, experiment.scale.gpus_per_worker)
    refs: dict[Any, _Piece] = {}
    truth: dict[str, Mapping[RecordingKey, Measured]] = {}
    for label in dict.fromkeys(piece.run.fold for piece in pieces):
        checkpoint = next(folder.run(piece.run) for piece in pieces if piece.run.fold == label)
        spec = TargetSpec.from_dict(load_checkpoint(checkpoint)[1]["target"])
        truth[label] = gather([task(measure).remote(data.refs_of(folds[label].test), spec)])[0]
    levels = _levels(pieces, folder, experiment, build_model)
    for piece in pieces:
        keys = sorted(folds[piece.run.fold].test)
        scored = data.refs_of([key for key in keys if _who(key) in piece.draw.scored])
        place = str(folder.run(piece.run))
        if piece.k == 0:
            ref = task(predict_checkpoint, num_gpus=gpus).remote(place, build_model, scored)
        else:
            order = piece.draw.calibrated[: piece.k]
            own = sorted((key for key in keys if _who(key) in order), key=lambda key: (order.index(_who(key)), key))
            start = task(calibrate_checkpoint, num_gpus=gpus)
            ref = start.remote(place, build_model, data.refs_of(own), scored, piece.part, piece.seed)
        refs[ref] = piece
    while refs:
        (ready,), _ = ray.wait(list(refs), num_returns=1)
        piece = refs.pop(ready)
        try:
            outcome = gather([ready])[0]
        except XsiteError as error:  # too short a scan: the others still have their curve
            say(f"{piece.words}: left out, {error}")
            continue
        predicted, *spent = (outcome, 0, 0) if piece.k == 0 else outcome
        yield _rows(piece, predicted, spent, truth[piece.run.fold], data.parcels, levels[piece.run.variant], say)


def _levels(
    pieces: Sequence[_Piece], folder: StudyFolder, experiment: Experiment, build_model: ModelFactory
) -> dict[str, str]:
    """What each variant's checkpoint, before any calibration, knows of the held-out site."""
    places = {piece.run.variant: str(folder.run(piece.run)) for piece in pieces}
    plain = access_level(experiment.data.adapt)
    return {
        label: UNLABELLED if reads_whole_recording(open_checkpoint(place, build_model)[0]) else plain
        for label, place in places.items()
    }


def _rows(
    piece: _Piece,
    predicted: Predicted,
    spent: Sequence[int],
    measured: Mapping[RecordingKey, Measured],
    parcels: Sequence[str],
    uncalibrated: str,
    say: Say,
) -> pd.DataFrame:
    signals = {key: measured[key].global_V for key in predicted if np.isfinite(measured[key].global_V).any()}
    predictions = predictions_of(predicted, measured, piece.run.variant, control=False)
    subjects = subject_scores(score_predictions(predictions, parcels=parcels, global_signals=signals))
    calibrated = piece.draw.calibrated[: piece.k]
    assert not {f"{row.site}/{row.subject}" for row in subjects.itertuples()} & set(calibrated)
    level = uncalibrated if piece.k == 0 else f"{piece.k} labelled subjects"
    trained = f", {spent[1]:,} numbers free for {counted(spent[0], 'epoch')}" if piece.k else ""
    say(f"{piece.words}: R {subjects['r'].mean():.3f}{trained}")
    table: pd.DataFrame = subjects.drop(columns=["model", "control", "n_seeds"]).assign(
        held_out=piece.run.fold, variant=piece.run.variant, seed=piece.run.seed, k=piece.k, draw=piece.draw.number,
        part=piece.part, best_epoch=spent[0], n_trained=spent[1],
        calibrated_on=json.dumps(list(calibrated)), access=level, run=piece.hash, fingerprint=piece.fingerprint,
    )  # fmt: skip
    return table


def _who(key: RecordingKey) -> str:
    return f"{key.site}/{key.subject}"
