"""What a study leaves behind in its folder, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from xsite.errors import FormatError
from xsite.evaluation.folds import Fold
from xsite.evaluation.scoring import ORACLE, Prediction, load_predictions
from xsite.evaluation.surrogates import crossed_sites
from xsite.evaluation.tables import study_summary

HISTORY = ("held_out", "model", "control", "epoch", "train_loss", "val_loss", "lr", "seconds")
TABLES = ("figures", "scores_by_fold", "id_scores", "calibration")
"""Tables that only some studies have, read where they lie."""


@dataclass(frozen=True, eq=False)
class Study:
    """What a study left behind, read from its folder.

    Parameters
    ----------
    experiment : mapping
        Content of ``experiment.yaml``.
    experiment_yaml : str
        The same, as text.
    manifest, scores, histories : DataFrame
    summary : mapping
        Of :func:`xsite.evaluation.tables.study_summary`.
    predictions : sequence of Prediction
    folds : sequence of mapping
        Of :meth:`xsite.evaluation.folds.Fold.to_dict`.
    versions : mapping of str to str
    montages : mapping of site to ``{"ch_names", "positions"}``
    parcels : mapping
        ``labels``, and ``coords`` (MNI, mm) where known.
    tables : mapping of str to DataFrame
        Those of :data:`TABLES` that the folder holds, and ``scores`` with every seed on its own.
    leakage : mapping, optional
        Verdict of the leakage audit.
    cards : mapping of model name to mapping
        ``name``, ``paper``, ``year`` and ``differs`` of the models that were run, where somebody has told.
    """

    experiment: Mapping[str, Any]
    experiment_yaml: str
    manifest: pd.DataFrame
    scores: pd.DataFrame
    summary: Mapping[str, Any]
    predictions: Sequence[Prediction]
    histories: pd.DataFrame
    folds: Sequence[Mapping[str, Any]]
    versions: Mapping[str, Any]
    montages: Mapping[str, Mapping[str, Any]]
    parcels: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    leakage: Mapping[str, Any] = field(default_factory=dict)
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What the folds hold out: "site", "subject", "training-sites", ..."""
        return str(self.folds[0].get("unit", "site")) if self.folds else "site"

    @property
    def scheme(self) -> str:
        """Name of the scheme that made the folds."""
        folds = self.experiment.get("folds") or {}
        column = folds.get("column")
        return str(folds.get("scheme", "leave-one-site-out")) + (f":{column}" if column else "")

    @cached_property
    def model(self) -> str:
        """Model that the page is about: the experiment's, or the best baseline of a study that trained none."""
        known = self.scores.loc[~self.scores["control"].astype(bool) & (self.scores["model"] != ORACLE)]
        wanted = str(self.summary.get("model") or self.experiment.get("model", {}).get("name", ""))
        if wanted in set(known["model"]):
            return wanted
        means = known.groupby("model")["r"].mean()
        return str(means.idxmax()) if means.notna().any() else str(known["model"].iloc[0])


def load_study(folder: str | Path) -> Study:
    """Read a study's folder.

    Raises
    ------
    FormatError
        Files are missing (all of them are named) or one cannot be read.
    """
    folder = Path(folder)
    needed = ("experiment.yaml", "manifest.parquet", "scores.parquet", "summary.json", "predictions.npz", "folds.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FormatError(f"{folder}: no complete study, it lacks {', '.join(missing)}; run the study to its end")
    experiment_yaml = (folder / "experiment.yaml").read_text(encoding="utf-8")
    try:
        experiment = yaml.safe_load(experiment_yaml)
    except yaml.YAMLError as error:
        raise FormatError(f"{folder / 'experiment.yaml'}: not valid YAML: {error}") from error
    scores = _parquet(folder / "scores.parquet")
    histories = folder / "histories.parquet"
    study = Study(
        experiment=experiment,
        experiment_yaml=experiment_yaml,
        manifest=_parquet(folder / "manifest.parquet"),
        scores=_mean_over_seeds(scores, ("r", "r_partial", "mse", "r2")),
        summary=_json(folder / "summary.json"),
        predictions=_first_seed(load_predictions(folder / "predictions.npz")),
        histories=_curves(_parquet(histories)) if histories.is_file() else pd.DataFrame(columns=list(HISTORY)),
        folds=_json(folder / "folds.json"),
        versions=_json(folder / "versions.json", {}),
        montages=_json(folder / "montages.json", {}),
        parcels=_json(folder / "parcels.json", {}),
        tables={"scores": scores} | {n: _parquet(f) for n in TABLES if (f := folder / f"{n}.parquet").is_file()},
        leakage=_json(folder / "leakage.json", {}),
        cards=_json(folder / "cards.json", {}),
    )
    if scores.empty:
        raise FormatError(f"{folder / 'scores.parquet'}: holds no score")
    return _completed(study)


def check_finished(folder: Path, files: Sequence[str]) -> None:
    """Refuse what is no folder of a finished study, before anything is computed from it.

    Raises
    ------
    FormatError
        There is no such folder, it lacks some of ``files``, or :func:`refuse_mixed` refuses it.
    """
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; give the one that a study was run in (neurobolt loso --study)")
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise FormatError(f"{folder}: not a finished study, {', '.join(missing)} missing; run neurobolt loso again")
    refuse_mixed(folder)


def refuse_mixed(folder: Path) -> None:
    """Refuse a folder whose scores are of another plan than its recipe: a study that was begun over a finished one.

    Raises
    ------
    FormatError
        ``summary.json`` and ``plan.json`` name different plans. Studies of the time before plans pass.
    """
    scored, planned = (_json(folder / "summary.json", {}).get("plan"), _json(folder / "plan.json", {}).get("hash"))
    if scored and planned and scored != planned:
        raise FormatError(
            f"{folder}: its scores are of plan {scored}, its recipe of plan {planned}: a study with another recipe was "
            "begun in this folder and did not finish; run it to its end (neurobolt loso), or the former recipe again"
        )


def _mean_over_seeds(table: pd.DataFrame, values: Sequence[str]) -> pd.DataFrame:
    """One row where several seeds have one each: pictures show recordings, and a seed is none."""
    if "seed" not in table or table["seed"].nunique() < 2:
        return table
    own = [name for name in values if name in table]
    rest = [name for name in table.columns if name not in (*own, "seed", "n_volumes")]
    how = dict.fromkeys(own, "mean") | ({"n_volumes": "max"} if "n_volumes" in table else {})
    return table.groupby(rest, sort=False, dropna=False).agg(how).reset_index()


def _first_seed(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Series are drawn of one training: their mean over seeds would be a model that nobody has trained."""
    first: dict[Any, Prediction] = {}
    for p in predictions:
        label = (p.key, p.model, p.control)
        if label not in first or p.seed < first[label].seed:
            first[label] = p
    return list(first.values())


def _curves(histories: pd.DataFrame) -> pd.DataFrame:
    """Training curves of what is scored or kept, mean over seeds; inner runs only select."""
    if "purpose" in histories:
        histories = histories[histories["purpose"] != "inner"].drop(columns="purpose")
    label = ["held_out", "model", "control", "epoch"]
    if "seed" not in histories or not histories.duplicated(label).any():
        return histories
    return histories.drop(columns="seed").groupby(label, sort=False, dropna=False).mean().reset_index()


def _json(path: Path, default: Any = None) -> Any:
    if default is not None and not path.is_file():
        return default
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: not valid JSON: {error}") from error


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise FormatError(f"{path}: not a readable table: {error}") from error


def _completed(study: Study) -> Study:
    """Compute what an older or shorter ``summary.json`` does not hold."""
    if "trained" not in study.summary:
        study = replace(study, summary={**study.summary, "trained": _variants(study.experiment)})
    wanted = ("rows", "overall", "intervals", "comparison")
    if all(key in study.summary for key in wanted) and study.summary.get("model") == study.model:
        return study
    rivals = sorted(set(study.scores["model"]) - {study.model, ORACLE})
    full = study_summary(
        study.scores,
        study.predictions,
        model=study.model,
        rivals=rivals,
        surrogates=int(study.experiment.get("surrogates", 2000)),
        seed=int(study.experiment.get("seed", 0)),
        selection=str(study.experiment.get("select_on", "train-site-val")),
        trained=study.summary["trained"],
        n_seeds=len(study.experiment.get("seeds") or [0]),
        leakage=study.leakage or None,
        crossed=() if study.unit == "site" else crossed_sites([Fold.from_dict(fold) for fold in study.folds]),
    )
    return replace(study, summary={**study.summary, **full})


def _variants(experiment: Mapping[str, Any]) -> list[str]:
    """Labels of what a recipe trains."""
    named = experiment.get("variants") or [(experiment.get("model") or {}).get("name")]
    return [str(name) for name in named if name]
