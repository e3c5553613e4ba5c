"""From parcels to subjects: the first averages, so that a subject weighs the same however much of it was measured.

A parcel whose prediction is constant has no defined correlation and counts as 0, lest a model gain by staying silent
where it is hard; if nothing that a model says about a site moves, its mean there stays NaN, and
:func:`silence_as_zero` makes it 0 for whatever goes over several sites.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from xsite.evaluation.folds import ENTITIES

ROW = ["site", "model", "control"]
VALUES = ["r", "r_partial", "mse", "r2"]


def with_defaults(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores that were written before ``r2`` and ``seed`` existed get them: unknown, and seed 0."""
    missing = {name: value for name, value in (("r2", np.nan), ("seed", 0)) if name not in scores}
    completed: pd.DataFrame = scores.assign(**missing) if missing else scores
    return completed


def _answered(scores: pd.DataFrame) -> pd.DataFrame:
    """Rows that somebody was asked about; silence of a model that speaks elsewhere at the site counts as r = 0."""
    scores = with_defaults(scores)
    # neither unmeasured parcels nor recordings without a prediction
    kept: pd.DataFrame = scores[np.isfinite(scores["mse"])].copy()
    silent = kept["r"].isna() & (kept.groupby(ROW)["r"].transform("count") > 0)
    kept.loc[silent, "r"] = 0.0
    # without a global signal nobody has a partial r, and 0 would be an invention
    known = kept.groupby(ROW)["r_partial"].transform("count") > 0
    kept.loc[silent & known, "r_partial"] = 0.0
    return kept


def silence_as_zero(table: pd.DataFrame) -> pd.DataFrame:
    """Silence at a whole site as 0, for means, pairs and nulls over sites; a model that never speaks stays undefined.

    Parameters
    ----------
    table : DataFrame
        Of :func:`subject_scores` or :func:`parcel_scores`, of all models together: where none of them has a partial r,
        the site gives no global signal, and silence has none either.
    """
    filled = table.copy()
    silent = filled["r"].isna() & (filled.groupby(["model", "control"])["r"].transform("count") > 0)
    known = filled.groupby("site")["r_partial"].transform("count") > 0
    filled.loc[silent, "r"] = 0.0
    filled.loc[silent & known, "r_partial"] = 0.0
    return filled


def parcel_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds, then over a subject's recordings: one row per site, model, control, subject and parcel.

    Returns
    -------
    DataFrame
        Columns ``site, model, control, subject, parcel, r, r_partial, mse, r2``.
    """
    runs = _answered(scores).groupby([*ROW, *ENTITIES[1:], "parcel"], sort=False, dropna=False)[VALUES].mean()
    table: pd.DataFrame = runs.groupby(level=[*ROW, "subject", "parcel"], sort=False).mean().reset_index()
    return table


def subject_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds, over parcels, then over a subject's recordings: one row per site, model, control and subject.

    Seeds are averaged recording by recording before anything else: they repeat the training, not the subjects.

    Returns
    -------
    DataFrame
        Columns ``site, model, control, subject, r, r_partial, mse, r2, n_volumes, n_seeds`` (volumes of all runs, once
        per volume). ``r`` is NaN where nothing that the model says about the whole site moves.
    """
    run = [*ROW, *ENTITIES[1:]]
    values = dict.fromkeys(VALUES, "mean") | {"n_volumes": "max"}
    kept = _answered(scores)
    parcels = kept.groupby([*run, "parcel"], sort=False, dropna=False).agg(values | {"seed": "nunique"})
    runs = parcels.groupby(level=run, sort=False, dropna=False).agg(values | {"seed": "max"})
    table: pd.DataFrame = runs.groupby(level=[*ROW, "subject"], sort=False).agg(
        values | {"n_volumes": "sum", "seed": "max"}
    )
    return table.rename(columns={"seed": "n_seeds"}).reset_index()
