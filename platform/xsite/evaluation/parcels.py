"""Which parcels are better than chance, over all sites: surrogate p-values, corrected for there being many parcels.

Shape letters: ``R`` parcels, ``N`` surrogates, ``S`` sites.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xsite.evaluation.compare import holm
from xsite.evaluation.intervals import FEW_SITES, t_interval
from xsite.evaluation.nulls import surrogate_p
from xsite.evaluation.scoring import ORACLE
from xsite.evaluation.subjects import parcel_scores, silence_as_zero
from xsite.evaluation.surrogates import Nulls, over_folds
from xsite.recording import Float


def parcel_rows(scores: pd.DataFrame, nulls: Nulls) -> list[dict[str, Any]]:
    """One row per model, control and parcel: mean over subjects, then sites, with interval and p-values.

    Returns
    -------
    list of dict
        ``model, control, parcel, n_sites, n_subjects, r_mean, ci_low, ci_high`` (t over sites), ``r_partial_mean,
        r2_mean, p_null`` (one-sided, against phase-randomised surrogates), ``p_holm`` (Holm over parcels), ``p_max``
        (family-wise by the maximum over parcels of the standardised score; surrogates share their phases, so that
        parcels that move together do not cost twice), ``p_floor`` (smallest ``p_holm`` that this number of surrogates
        can give), ``few_sites`` and ``unit``. The oracle takes no part. A site where a model says nothing counts as 0,
        in the null too, unless it says nothing anywhere.
    """
    names = list(dict.fromkeys(scores["parcel"]))
    rows: list[dict[str, Any]] = []
    table = silence_as_zero(parcel_scores(scores))
    for (model, control), group in table[table["model"] != ORACLE].groupby(["model", "control"], sort=False):
        known = [
            null
            for site in group["site"].unique()
            if (null := nulls.parcels.get((str(site), str(model), bool(control)))) is not None
        ]
        tied = bool({*group["site"]} & {*nulls.crossed})
        null_NR = over_folds(known, crossed=tied) if known else np.empty((0, len(names)))
        if null_NR.shape[1] != len(names):
            raise ValueError(f"parcels: scores name {len(names)}, the surrogates of {model!r} have {null_NR.shape[1]}")
        rows += _model_rows({"model": str(model), "control": bool(control)}, group, names, null_NR)
    return rows


def _model_rows(label: dict[str, Any], group: pd.DataFrame, names: list[str], null_NR: Float) -> list[dict[str, Any]]:
    means = group.groupby(["parcel", "site"])[["r", "r_partial", "r2"]].mean()
    counts = group.groupby("parcel").size()
    rows = []
    for name in names:
        sites = means.loc[name] if name in counts.index else means.iloc[:0]
        mean, low, high = t_interval(sites["r"])
        row = label | {"parcel": name, "n_sites": int(sites["r"].count()), "n_subjects": int(counts.get(name, 0))}
        row |= {"r_mean": mean, "ci_low": low, "ci_high": high}
        row |= {f"{column}_mean": float(sites[column].mean()) for column in ("r_partial", "r2")}
        rows.append(row | {"few_sites": len(sites) < FEW_SITES, "unit": "sites"})
    observed_R = np.array([row["r_mean"] for row in rows])
    p_R = np.array([surrogate_p(r, null_NR[:, i]) for i, r in enumerate(observed_R)])
    asked_R = counts.reindex(names).fillna(0).to_numpy() > 0  # a parcel that nobody measured is no hypothesis
    p_R = np.where(asked_R, p_R, np.nan)
    values = zip(p_R, holm(p_R), max_p(observed_R, null_NR), strict=True)
    floor = min(1.0, float(asked_R.sum()) / (len(null_NR) + 1))
    for row, (p, corrected, family_wise) in zip(rows, values, strict=True):
        row |= {"p_null": float(p), "p_holm": float(corrected), "p_max": float(family_wise), "p_floor": floor}
    return rows


def max_p(observed_R: Float, null_NR: Float) -> Float:
    """Family-wise p-values by the maximum over parcels of the score in units of its own null's scatter.

    Parameters
    ----------
    observed_R : array, shape (R,)
    null_NR : array, shape (N, R)
        Surrogates that are drawn for all parcels together.

    Returns
    -------
    float64 array, shape (R,)
        NaN for a parcel without score or without surrogates that move.
    """
    result_R = np.full(len(observed_R), np.nan)
    if not len(null_NR):
        return result_R
    spread_R = null_NR.std(0)
    good_R = np.isfinite(observed_R) & np.isfinite(spread_R) & (spread_R > 0)
    if not good_R.any():
        return result_R
    centre_R, spread_R = null_NR[:, good_R].mean(0), spread_R[good_R]
    highest_N = ((null_NR[:, good_R] - centre_R) / spread_R).max(1)
    z_R = (observed_R[good_R] - centre_R) / spread_R
    result_R[good_R] = ((highest_N[:, None] >= z_R).sum(0) + 1) / (len(highest_N) + 1)
    return result_R
