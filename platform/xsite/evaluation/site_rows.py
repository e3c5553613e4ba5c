"""The rows of a study's tables: one per site, model and control, and one per model over all sites.

Subject means come first, then sites, then all sites: the unit of every interval per site is the subject, over all sites
the site.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from xsite.evaluation.compare import FEW
from xsite.evaluation.intervals import FEW_SITES, few_sites_warning, site_interval, t_interval
from xsite.evaluation.json_values import json_safe
from xsite.evaluation.nulls import null_band, surrogate_p
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.evaluation.subjects import silence_as_zero, subject_scores
from xsite.evaluation.surrogates import Label, Nulls, over_folds, study_nulls
from xsite.recording import Float


@dataclass(frozen=True)
class Basis:
    """Who selected, and what each model knew of the held-out site."""

    selection: str
    access: str
    access_of: Mapping[str, str] = field(default_factory=dict)

    def of(self, *models: str) -> dict[str, str]:
        """Columns of a row about these models; two levels are both named."""
        levels = dict.fromkeys(self.access_of.get(model, self.access) for model in models)
        return {"selection": self.selection, "access": " against ".join(levels)}


def summarize(
    scores: pd.DataFrame,
    predictions: Sequence[Prediction],
    *,
    surrogates: int = 1000,
    seed: int = 0,
    selection: str = "train-site-val",
    access: str = "none",
) -> list[dict[str, Any]]:
    """One row per held-out site, model and control: the rows of ``summary.json``.

    Parameters
    ----------
    scores : DataFrame
        Of :func:`xsite.evaluation.scoring.score_predictions`.
    predictions : sequence of Prediction
        The same recordings; their measured targets make the surrogates.
    surrogates, seed : int
    selection, access : str
        As in :func:`xsite.evaluation.tables.study_summary`.

    Returns
    -------
    list of dict
        ``site, model, control, n_subjects, n_seeds, n_volumes, r_mean, ci_low, ci_high, few, r_partial_mean, r2_mean,
        oracle_r_mean, mse_mean, p_null, p_shift, unit, selection, access``. ``r_mean`` is None for a constant
        prediction (then the p-values are 1), ``oracle_r_mean`` where no truth is known. ``p_null`` is against
        phase-randomised, ``p_shift`` against circularly shifted surrogates.
    """
    phase, shift = (study_nulls(predictions, surrogates=surrogates, seed=seed, kind=k) for k in ("phase", "shift"))
    return site_rows(scores, phase, shift, Basis(selection, access))


def site_rows(scores: pd.DataFrame, phase: Nulls, shift: Nulls, basis: Basis) -> list[dict[str, Any]]:
    """:func:`summarize` from surrogates that are there already."""
    subjects, of_sites = subject_scores(scores), (phase.of_sites, shift.of_sites)
    oracle = subjects[subjects["model"] == ORACLE].groupby("site")["r"].mean()
    rows = []
    for (site, model, control), group in subjects[subjects["model"] != ORACLE].groupby(
        ["site", "model", "control"], sort=False
    ):
        label = str(site), str(model), bool(control)
        r_mean, low, high = t_interval(group["r"])
        rows.append(
            {
                "site": label[0],
                "model": label[1],
                "control": label[2],
                "n_subjects": len(group),
                "n_seeds": int(group["n_seeds"].max()),
                "n_volumes": int(group["n_volumes"].sum()),
                "r_mean": r_mean,
                "ci_low": low,
                "ci_high": high,
                "few": len(group) < FEW,
                "r_partial_mean": float(group["r_partial"].mean()),
                "r2_mean": float(group["r2"].mean()),
                "oracle_r_mean": float(oracle.get(site, math.nan)),
                "mse_mean": float(group["mse"].mean()),
                "p_null": surrogate_p(r_mean, of_sites[0].get(label, np.empty(0))),
                "p_shift": surrogate_p(r_mean, of_sites[1].get(label, np.empty(0))),
                "unit": "subjects",
                **basis.of(label[1]),
            }
        )
    plain: list[dict[str, Any]] = json_safe(rows)
    return plain


def intervals(scores: pd.DataFrame, nulls: Mapping[Label, Float] | None = None) -> pd.DataFrame:
    """Mean r per site, model and control with its 95 % t-interval over subjects; ``few`` marks fewer than five.

    ``null_low`` and ``null_high`` are the 95 % band of the row's surrogates, where given (of
    :func:`xsite.evaluation.surrogates.null_means`).
    """
    rows = []
    for (site, model, control), group in subject_scores(scores).groupby(["site", "model", "control"], sort=False):
        mean, low, high = t_interval(group["r"])
        band = null_band((nulls or {}).get((str(site), str(model), bool(control)), np.empty(0)))
        row = {"site": site, "model": model, "control": bool(control), "n_subjects": len(group), "r_mean": mean}
        row |= {"ci_low": low, "ci_high": high, "few": len(group) < FEW, "null_low": band[0], "null_high": band[1]}
        rows.append(row | {"unit": "subjects"})
    return pd.DataFrame(rows)


def overall(
    scores: pd.DataFrame,
    nulls: Mapping[Label, Float],
    shifted: Mapping[Label, Float] | None = None,
    crossed: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Each model over all sites: mean of the site means, interval over sites, and the band of its own surrogates.

    ``ci_low, ci_high`` (t over site means) are about the next site, ``here_low, here_high`` (Welch) about exactly these
    sites. p-values and band are of a null that is wider than that of independent folds, because a site that is tested
    here trains the models tested elsewhere (:func:`xsite.evaluation.surrogates.over_folds`); of a single site where it
    is among ``crossed`` (:func:`xsite.evaluation.surrogates.crossed_sites`). ``inside_band`` answers
    the control's question: is the mean where chance would put it in 95 of 100 cases? A site where a model says nothing
    counts as 0, unless it says nothing anywhere.
    """
    rows = []
    for (model, control), group in silence_as_zero(subject_scores(scores)).groupby(["model", "control"], sort=False):
        label = str(model), bool(control)
        of_site = [values.tolist() for _, values in group["r"].groupby(group["site"], sort=False)]
        there, here = site_interval(of_site), site_interval(of_site, method="welch")
        known = [nulls[found] for site in group["site"].unique() if (found := (str(site), *label)) in nulls]
        tied = bool({*group["site"]} & {*crossed})
        null = over_folds(known, crossed=tied) if known else np.empty(0)
        band, n_sites = null_band(null), len(of_site)
        row = {"model": model, "control": label[1], "n_sites": n_sites, "r_mean": there.mean}
        row |= {"n_subjects": len(group), "ci_low": there.low, "ci_high": there.high}
        row |= {"few": n_sites < FEW, "p_null": surrogate_p(there.mean, null)}
        row |= {"null_low": band[0], "null_high": band[1], "here_low": here.low, "here_high": here.high}
        row["inside_band"] = bool(band[0] <= there.mean <= band[1]) if math.isfinite(there.mean) and known else None
        row |= {"few_sites": n_sites < FEW_SITES, "warning": few_sites_warning(n_sites), "unit": "sites"}
        if shifted is not None:
            moved = [shifted[found] for site in group["site"].unique() if (found := (str(site), *label)) in shifted]
            row["p_shift"] = surrogate_p(there.mean, over_folds(moved, crossed=tied) if moved else np.empty(0))
        sites = group.groupby("site", sort=False)[["r_partial", "r2", "mse"]].mean().mean()
        row |= {f"{name}_mean": float(value) for name, value in sites.items()}
        rows.append(row)
    return rows
