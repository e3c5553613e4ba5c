"""From the tidy scores to the figures that are quoted: subject means first, then sites, then all sites.

Unit of every interval per site is the subject, over all sites the site. Every row names its n, its unit, who selected
and what the model knew of the test site. How silence is counted: :mod:`xsite.evaluation.subjects`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xsite.evaluation.collapse import GLOBAL_SIGNAL, collapse_rows
from xsite.evaluation.compare import FEW, compare, rank_models
from xsite.evaluation.figures import site_figures
from xsite.evaluation.generalization import id_ood
from xsite.evaluation.intervals import FEW_SITES, few_sites_warning, site_interval, t_interval
from xsite.evaluation.null_view import null_histograms
from xsite.evaluation.nulls import null_band, surrogate_p
from xsite.evaluation.parcels import parcel_rows
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.evaluation.subjects import subject_scores
from xsite.evaluation.surrogates import Label, Nulls, null_means, over_folds, study_nulls
from xsite.recording import Float

__all__ = [
    "FEW",
    "Label",
    "compare",
    "intervals",
    "json_safe",
    "null_means",
    "overall",
    "study_summary",
    "subject_scores",
    "summarize",
    "t_interval",
]
ALWAYS = ("zero", GLOBAL_SIGNAL, "ridge")
"""Rows that a sceptic looks for first."""


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
        As in :func:`study_summary`.

    Returns
    -------
    list of dict
        ``site, model, control, n_subjects, n_seeds, n_volumes, r_mean, ci_low, ci_high, few, r_partial_mean, r2_mean,
        oracle_r_mean, mse_mean, p_null, p_shift, unit, selection, access``. ``r_mean`` is None for a constant
        prediction (then the p-values are 1), ``oracle_r_mean`` where no truth is known. ``p_null`` is against
        phase-randomised, ``p_shift`` against circularly shifted surrogates.
    """
    phase, shift = (study_nulls(predictions, surrogates=surrogates, seed=seed, kind=k) for k in ("phase", "shift"))
    return _rows(scores, phase, shift, {"selection": selection, "access": access})


def _rows(scores: pd.DataFrame, phase: Nulls, shift: Nulls, basis: Mapping[str, str]) -> list[dict[str, Any]]:
    subjects = subject_scores(scores)
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
                "p_null": surrogate_p(r_mean, phase.means.get(label, np.empty(0))),
                "p_shift": surrogate_p(r_mean, shift.means.get(label, np.empty(0))),
                "unit": "subjects",
                **basis,
            }
        )
    plain: list[dict[str, Any]] = json_safe(rows)
    return plain


def intervals(scores: pd.DataFrame, nulls: Mapping[Label, Float] | None = None) -> pd.DataFrame:
    """Mean r per site, model and control with its 95 % t-interval over subjects; ``few`` marks fewer than five.

    ``null_low`` and ``null_high`` are the 95 % band of the row's surrogates (of :func:`null_means`), where given.
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
    scores: pd.DataFrame, nulls: Mapping[Label, Float], shifted: Mapping[Label, Float] | None = None
) -> list[dict[str, Any]]:
    """Each model over all sites: mean of the site means, interval over sites, and the band of its own surrogates.

    ``ci_low, ci_high`` (t over site means) are about the next site, ``here_low, here_high`` (Welch) about exactly these
    sites. p-values and band allow for the dependence of folds. ``inside_band`` answers the control's question: is the
    mean where chance would put it in 95 of 100 cases? A site where a model says nothing counts as 0, unless it says
    nothing anywhere.
    """
    rows = []
    for (model, control), group in subject_scores(scores).groupby(["model", "control"], sort=False):
        label = str(model), bool(control)
        filled = group["r"].fillna(0.0) if group["r"].notna().any() else group["r"]
        of_site = [values.tolist() for _, values in filled.groupby(group["site"], sort=False)]
        there, here = site_interval(of_site), site_interval(of_site, method="welch")
        known = [nulls[found] for site in group["site"].unique() if (found := (str(site), *label)) in nulls]
        null = over_folds(known) if known else np.empty(0)
        band, n_sites = null_band(null), len(of_site)
        row = {"model": model, "control": label[1], "n_sites": n_sites, "r_mean": there.mean}
        row |= {"n_subjects": len(group), "ci_low": there.low, "ci_high": there.high}
        row |= {"few": n_sites < FEW, "p_null": surrogate_p(there.mean, null)}
        row |= {"null_low": band[0], "null_high": band[1], "here_low": here.low, "here_high": here.high}
        row["inside_band"] = bool(band[0] <= there.mean <= band[1]) if math.isfinite(there.mean) and known else None
        row |= {"few_sites": n_sites < FEW_SITES, "warning": few_sites_warning(n_sites), "unit": "sites"}
        if shifted is not None:
            moved = [shifted[found] for site in group["site"].unique() if (found := (str(site), *label)) in shifted]
            row["p_shift"] = surrogate_p(there.mean, over_folds(moved) if moved else np.empty(0))
        sites = group.groupby("site", sort=False)[["r_partial", "r2", "mse"]].mean().mean()
        row |= {f"{name}_mean": float(value) for name, value in sites.items()}
        rows.append(row)
    return rows


def study_summary(
    scores: pd.DataFrame,
    predictions: Sequence[Prediction],
    *,
    model: str,
    rivals: Sequence[str] = (),
    surrogates: int = 1000,
    seed: int = 0,
    selection: str = "train-site-val",
    access: str = "none",
    figures: pd.DataFrame | None = None,
    id_scores: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Everything that ``summary.json`` holds; ``rows`` is what :func:`summarize` gives.

    Parameters
    ----------
    scores, predictions, surrogates, seed
        As in :func:`summarize`. Scores of several seeds are averaged recording by recording first.
    model : str
        The trained model that the study is about.
    rivals : sequence of str
        Models that it is compared with (those without scores are left out).
    selection : str
        Name of the selection rule.
    access : str
        What the model knew of the held-out site: ``none``, ``unlabelled EEG`` or ``k labelled subjects``. One study has
        one level: they are never mixed in a table.
    figures : DataFrame, optional
        Of :func:`xsite.evaluation.figures.recording_figures`.
    id_scores : DataFrame, optional
        Scores of validation recordings of training sites, for ID and OOD side by side.

    Returns
    -------
    dict
        ``rows``, ``overall``, ``intervals``, ``comparison``, ``parcels``, ``ranks``, ``collapsed``, ``figures``,
        ``id_ood``, ``nulls``, ``warnings`` and what they rest on (``basis``); NaN has become None throughout.
    """
    phase, shift = (study_nulls(predictions, surrogates=surrogates, seed=seed, kind=k) for k in ("phase", "shift"))
    names = {"selection": selection, "access": access}
    known = set(scores.loc[~scores["control"].astype(bool), "model"])
    pairs = [compare(scores, model, rival) for rival in rivals if {model, rival} <= known and rival != model]
    parcels = parcel_rows(scores, phase)
    content: dict[str, Any] = {
        "rows": _rows(scores, phase, shift, names),
        "model": model,
        "overall": [row | names for row in overall(scores, phase.means, shift.means)],
        "intervals": _named(intervals(scores, phase.means), names),
        "comparison": _named(pd.concat(pairs), names) if pairs else [],
        "parcels": [row | names for row in parcels],
        "ranks": _ranks(scores),
        "collapsed": collapse_rows(predictions),
        "figures": _named(site_figures(figures), names) if figures is not None else [],
        "id_ood": [row | names for row in id_ood(id_scores, scores)] if id_scores is not None else [],
        "surrogates": surrogates,
        "seed": seed,
        "selection": selection,
        "test_site_access": access,
        "basis": _basis(scores, predictions, surrogates) | names,
    }
    content["nulls"] = null_histograms(
        content["rows"], content["overall"], {"phase": phase.means, "shift": shift.means}
    )
    content["warnings"] = _warnings(content, known)
    plain: dict[str, Any] = json_safe(content)
    return plain


def _named(table: pd.DataFrame, names: Mapping[str, str]) -> list[dict[Any, Any]]:
    return table.assign(**names).to_dict("records")


def _ranks(scores: pd.DataFrame) -> dict[str, Any] | None:
    """Rank every model that has a defined r and does not know the measured BOLD."""
    own = scores[~scores["control"].astype(bool) & ~scores["model"].isin([ORACLE, GLOBAL_SIGNAL])]
    speaking = own.groupby("model", sort=False)["r"].count()
    models = [str(name) for name in speaking.index[speaking > 0]]
    return rank_models(scores, models) if len(models) > 1 else None


def _basis(scores: pd.DataFrame, predictions: Sequence[Prediction], surrogates: int) -> dict[str, Any]:
    recordings = scores[["site", "subject", "session", "task", "run"]].drop_duplicates()
    return {
        "n_sites": int(recordings["site"].nunique()),
        "n_subjects": len(recordings.drop_duplicates(["site", "subject"])),
        "n_recordings": len(recordings),
        "n_seeds": len({p.seed for p in predictions}) or 1,
        "unit": "Pearson R over a whole recording, mean over seeds, parcels, recordings, subjects, sites in this order",
        "null": f"{surrogates} surrogates of each recording's measured BOLD: phase-randomised, and circularly shifted",
    }


def _warnings(content: Mapping[str, Any], known: set[str]) -> list[str]:
    """What a report must say beside its tables."""
    found = [content["overall"][0]["warning"]] if content["overall"] else []
    if absent := [name for name in ALWAYS if name not in known]:
        found.append(f"Not scored in this study: {', '.join(absent)}; a reader cannot tell the model from these.")
    floors = [row["p_floor"] for row in content["parcels"] if row["p_floor"] > 0.05]
    if floors and content["surrogates"]:
        needed = math.ceil(max(floors) * (content["surrogates"] + 1) / 0.05)
        found.append(
            f"{content['surrogates']} surrogates are too few for Holm's correction over the parcels (smallest possible "
            f"p {max(floors):.3f}): read p_max, or set surrogates to {needed}."
        )
    found += [f"Collapsed: {row['line']}." for row in content["collapsed"]]
    return [sentence for sentence in found if sentence]


def json_safe(value: Any) -> Any:
    """Plain JSON types; what is not finite becomes None, since JSON knows no NaN."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
