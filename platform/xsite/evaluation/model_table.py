"""All models of a study in one table: how good, how sure, how fast, how large.

Every figure is a mean of site means. Seeds are averaged recording by recording first; the interval's sample is the
subjects of exactly these sites (Welch), so seeds never pass for subjects.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from xsite.evaluation.collapse import GLOBAL_SIGNAL, UNTRAINED
from xsite.evaluation.folds import ENTITIES
from xsite.evaluation.intervals import site_interval
from xsite.evaluation.scoring import ORACLE
from xsite.evaluation.selection import SELECTED
from xsite.evaluation.subjects import silence_as_zero, subject_scores, with_defaults

FIGURES = {"r": "mean R", "r_partial": "partial R", "r2": "R2"}
COLUMNS = (
    "model", "kind", "access", "n_sites", "n_subjects", "n_seeds",
    *(f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high")),
    "r_seed_sd", "windows_per_s", "parameters",
)  # fmt: skip


def model_table(
    scores: pd.DataFrame, histories: pd.DataFrame, parameters: Mapping[str, int], *, n_seeds: int
) -> pd.DataFrame:
    """One row per model, best mean R first.

    Parameters
    ----------
    scores : DataFrame
        Of :func:`xsite.evaluation.scoring.score_predictions`; controls take no part.
    histories : DataFrame
        One row per training and epoch: ``model, control, windows_per_s``.
    parameters : mapping of model to int
        Numbers that training changes, counted on the built model.
    n_seeds : int
        Training seeds of the recipe. Where several folds test a recording, scores number folds and seeds together.

    Returns
    -------
    DataFrame
        :data:`COLUMNS`. ``r``, ``r_partial`` (given the measured global signal) and ``r2`` (about zero) with 95 %
        bounds over subjects; ``r_seed_sd`` is the SD of mean R over seeds; ``windows_per_s`` the median over all epochs
        of training, NaN for models without one; ``kind`` is ``trained``, ``closed form``, ``chosen`` or ``oracle``.
    """
    scores = with_defaults(scores[~scores["control"].astype(bool)])
    everyone, rows = silence_as_zero(subject_scores(scores)), []
    for model, own in scores.groupby("model", sort=False):
        subjects = everyone[everyone["model"] == model]
        kind = _kind(str(model), histories)
        own = own.assign(seed=_training_seeds(own, n_seeds if kind in ("trained", "chosen") else 1))
        row: dict[str, Any] = {"model": str(model), "kind": kind, "access": _access(own)}
        row |= {"n_sites": subjects["site"].nunique(), "n_subjects": len(subjects), "n_seeds": own["seed"].nunique()}
        for name in FIGURES:
            found = site_interval([group[name] for _, group in subjects.groupby("site")], method="welch")
            row |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        row["r_seed_sd"] = _seed_sd(own)
        row["windows_per_s"] = _speed(str(model), histories)
        row["parameters"] = parameters.get(str(model))
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table["parameters"] = table["parameters"].astype("Int64")
    return table.sort_values("r", ascending=False, na_position="last", kind="stable").reset_index(drop=True)


def _kind(model: str, histories: pd.DataFrame) -> str:
    if model in (ORACLE, GLOBAL_SIGNAL):
        return "oracle"
    if model == SELECTED:
        return "chosen"
    return "trained" if model in set(histories.get("model", ())) else "closed form"


def _access(own: pd.DataFrame) -> str:
    """What a model knew of the test site; tables of an older version do not say."""
    return " / ".join(dict.fromkeys(own["access"])) if "access" in own else ""


def _training_seeds(own: pd.DataFrame, n_seeds: int) -> pd.Series[Any]:
    """Seed of every row without the folds that were numbered with it (:func:`runtime.held_out.main_predictions`)."""
    numbered = own.groupby([name for name in ENTITIES if name in own], dropna=False)["seed"].transform("nunique")
    n_folds = (numbered // n_seeds).clip(lower=1)
    seeds: pd.Series[Any] = own["seed"] // n_folds
    return seeds


def _seed_sd(own: pd.DataFrame) -> float:
    means = [silence_as_zero(subject_scores(one)).groupby("site")["r"].mean().mean() for _, one in own.groupby("seed")]
    return float(pd.Series(means).std(ddof=1)) if len(means) > 1 else math.nan


def _speed(model: str, histories: pd.DataFrame) -> float:
    if "windows_per_s" not in histories:
        return math.nan
    return float(histories.loc[histories["model"] == model, "windows_per_s"].median())


def to_markdown(table: pd.DataFrame, basis: str) -> str:
    """The table as people read it, with what it rests on below; models of different access never share one.

    Those that read no EEG at all (zero, mean, the oracles) stand in every one.
    """
    without_eeg = table["model"].isin(UNTRAINED)
    levels = list(dict.fromkeys(table.loc[~without_eeg, "access"])) or list(dict.fromkeys(table["access"]))
    blocks = [_block(table[without_eeg | (table["access"] == level)]) for level in levels]
    if len(blocks) > 1:
        blocks = [f"Access to the test site: {level}\n\n{own}" for level, own in zip(levels, blocks, strict=True)]
    return "\n".join(["\n\n".join(blocks), "", basis, ""])


def _block(table: pd.DataFrame) -> str:
    heads = ["model", "kind", *(f"{title} [95 %]" for title in FIGURES.values())]
    heads += ["SD over seeds", "windows/s", "parameters"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in table.to_dict("records"):
        cells = [row["model"], row["kind"]]
        cells += [_bounded(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in FIGURES]
        cells += [_number(row["r_seed_sd"], 3), _number(row["windows_per_s"], 0), _count(row["parameters"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _bounded(mean: float, low: float, high: float) -> str:
    return _number(mean, 3) + (f" [{low:.3f}, {high:.3f}]" if math.isfinite(low) else "")


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _count(value: Any) -> str:
    return "–" if pd.isna(value) else f"{int(value):,}"
