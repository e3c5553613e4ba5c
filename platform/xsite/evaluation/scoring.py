"""From predictions to a tidy table: one row per recording, model and parcel. Whole recordings, each volume once.

The oracle is a model named ``oracle``: its prediction is the phantom's noise-free BOLD, taken through the same target
path and scored here like any other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from xsite.errors import FormatError, StoreError
from xsite.evaluation.folds import ENTITIES
from xsite.evaluation.metrics import mse, partial_r, pearson_r, r2_about_zero, usable
from xsite.recording import Bool, Float, RecordingKey

ORACLE = "oracle"
SCORE_COLUMNS = (*ENTITIES, "model", "control", "parcel", "r", "r_partial", "mse", "n_volumes", "r2", "seed")


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one model said about one whole recording.

    Parameters
    ----------
    key : RecordingKey
    model : str
    control : bool
        True for a model that was trained on the BOLD of other subjects.
    predicted_VR : array, shape (V, R)
        NaN for volumes without an EEG window.
    target_VR : array, shape (V, R)
        The measured target; NaN for parcels without coverage.
    valid_V : bool array, shape (V,)
        Volumes that may be scored. Pass the same to every model, so that all are judged on the same volumes.
    seed : int
        Which of several trainings spoke. Scores of seeds are averaged per recording; they are never subjects.
    """

    key: RecordingKey
    model: str
    control: bool
    predicted_VR: Float
    target_VR: Float
    valid_V: Bool
    seed: int = 0

    def __post_init__(self) -> None:
        shapes = self.predicted_VR.shape, self.target_VR.shape, (len(self.valid_V), *self.target_VR.shape[1:])
        if len(set(shapes)) > 1 or self.target_VR.ndim != 2:
            raise ValueError(
                f"{self.key}, model {self.model!r}: prediction {shapes[0]}, target {shapes[1]} and "
                f"{len(self.valid_V)} volume flags do not fit together"
            )

    @property
    def scored_V(self) -> Bool:  # noqa: N802 - the house style names shapes
        """Volumes that are valid and have both a prediction and a measurement for at least one parcel."""
        return np.asarray(usable(self.valid_V, self.predicted_VR, self.target_VR).any(1))


def score_recording(
    predicted_VR: Float,
    target_VR: Float,
    valid_V: Bool,
    *,
    key: RecordingKey,
    parcels: Sequence[str],
    model: str,
    control: bool,
    global_signal_V: Float | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score one whole recording.

    Parameters
    ----------
    predicted_VR, target_VR, valid_V
        As in :class:`Prediction`.
    key, parcels, model, control, seed
        What the rows are labelled with; R parcel names.
    global_signal_V : array, shape (V,), optional
        Given, ``r_partial`` says what the prediction knows beyond it. Same low-pass as the target.

    Returns
    -------
    DataFrame
        R rows with :data:`SCORE_COLUMNS`; ``r`` is NaN for a constant prediction, ``mse`` for an unmeasured parcel.
    """
    prediction = Prediction(key, model, control, np.asarray(predicted_VR), np.asarray(target_VR), np.asarray(valid_V))
    if len(parcels) != prediction.target_VR.shape[1]:
        raise ValueError(f"{key}: {len(parcels)} parcel names for {prediction.target_VR.shape[1]} parcels")
    a_VR, b_VR, valid_V = prediction.predicted_VR, prediction.target_VR, prediction.valid_V
    r_partial_R = np.full(len(parcels), np.nan)
    if global_signal_V is not None:
        r_partial_R = partial_r(a_VR, b_VR, global_signal_V, valid_V)
    labels = {name: getattr(key, name) for name in ENTITIES} | {"model": model, "control": bool(control)}
    values = {
        "parcel": list(parcels),
        "r": pearson_r(a_VR, b_VR, valid_V),
        "r_partial": r_partial_R,
        "mse": mse(a_VR, b_VR, valid_V),
        "n_volumes": usable(valid_V, a_VR, b_VR).sum(0),
        "r2": r2_about_zero(a_VR, b_VR, valid_V),
        "seed": int(seed),
    }
    return pd.DataFrame({**labels, **values}, columns=list(SCORE_COLUMNS), index=range(len(parcels)))


def score_predictions(
    predictions: Iterable[Prediction],
    *,
    parcels: Sequence[str],
    global_signals: Mapping[RecordingKey, Float] | None = None,
) -> pd.DataFrame:
    """Score many recordings; a recording that one model predicts twice is an error, not a second vote."""
    tables: dict[tuple[RecordingKey, str, bool, int], pd.DataFrame] = {}
    for p in predictions:
        label = (p.key, p.model, p.control, p.seed)
        if label in tables:
            raise ValueError(f"{p.key}: model {p.model!r} (control: {p.control}, seed {p.seed}) is scored twice")
        tables[label] = score_recording(
            p.predicted_VR,
            p.target_VR,
            p.valid_V,
            key=p.key,
            parcels=parcels,
            model=p.model,
            control=p.control,
            global_signal_V=(global_signals or {}).get(p.key),
            seed=p.seed,
        )
    if not tables:
        return pd.DataFrame(columns=list(SCORE_COLUMNS))
    return pd.concat(tables.values(), ignore_index=True)


def save_predictions(path: str | Path, predictions: Sequence[Prediction]) -> Path:
    """Write predictions as one compressed npz, float32, all or nothing; a target shared by models is stored once.

    Raises
    ------
    StoreError
        The disk is full or refuses; the former file stays.
    """
    path = Path(path)
    arrays: dict[str, Float | Bool] = {}
    names: dict[tuple[str, bytes], str] = {}
    index = []

    def store(kind: str, values: Float | Bool) -> str:
        content = (kind + str(values.shape), values.tobytes())
        if content not in names:
            names[content] = f"{kind}{len(names):05d}"
            arrays[names[content]] = values
        return names[content]

    for p in predictions:
        row = {name: getattr(p.key, name) for name in ENTITIES} | {"model": p.model, "control": bool(p.control)}
        row["seed"] = int(p.seed)
        row["predicted"] = store("predicted", p.predicted_VR.astype(np.float32))
        row["target"] = store("target", p.target_VR.astype(np.float32))
        row["valid"] = store("valid", np.asarray(p.valid_V, bool))
        index.append(row)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, index=np.array(json.dumps(index)), **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error}); free some space, then run it again") from error
    finally:
        if partial.is_file():
            partial.unlink()
    return path


def load_predictions(path: str | Path) -> list[Prediction]:
    """Read what :func:`save_predictions` wrote; nothing is unpickled.

    Raises
    ------
    FormatError
        The file is absent, truncated or not such a file.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        index = json.loads(str(arrays["index"]))
        return [
            Prediction(
                key=RecordingKey(*(row[name] for name in ENTITIES)),
                model=row["model"],
                control=row["control"],
                predicted_VR=arrays[row["predicted"]],
                target_VR=arrays[row["target"]],
                valid_V=arrays[row["valid"]],
                seed=int(row.get("seed", 0)),  # files of before 2026-11-22 hold one seed and do not say so
            )
            for row in index
        ]
    except Exception as error:  # zipfile, zlib, json and numpy each have their own ways to say "truncated"
        raise FormatError(f"{path}: no readable predictions ({error}); run the study again") from error
