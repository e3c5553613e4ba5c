"""From the tidy scores to the figures that are quoted: subject means first, then sites, then all sites.

Unit of every interval per site is the subject, over all sites the site. A parcel whose prediction is constant has no
defined correlation and counts as 0, lest a model gain by staying silent where it is hard; if nothing that a model says
about a site moves, its mean is None.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from xsite.evaluation.metrics import usable
from xsite.evaluation.nulls import null_band, null_r, surrogate_p
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.recording import Float

FEW = 5
"""Below this number of subjects (or sites) an interval is marked as resting on few."""

Label = tuple[str, str, bool]
"""Site, model, control."""


def t_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the finite values with its t-based interval; the bounds are NaN for fewer than two values."""
    x = np.asarray(list(values), float)
    x = x[np.isfinite(x)]
    if x.size < 2:
        return (float(x[0]) if x.size else math.nan), math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size))
    mean = float(x.mean())
    return mean, mean - half, mean + half


def subject_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over parcels, then over a subject's recordings: one row per site, model, control and subject.

    Returns
    -------
    DataFrame
        Columns ``site, model, control, subject, r, r_partial, mse, n_volumes`` (volumes of all runs). ``r`` is NaN
        where nothing that the model says about the whole site moves.
    """
    kept = scores[np.isfinite(scores["mse"])].copy()  # neither unmeasured parcels nor recordings without a prediction
    silent = kept["r"].isna() & (kept.groupby(["site", "model", "control"])["r"].transform("count") > 0)
    kept.loc[silent, ["r", "r_partial"]] = 0.0
    run = ["site", "model", "control", "subject", "session", "task", "run"]
    values = {"r": "mean", "r_partial": "mean", "mse": "mean", "n_volumes": "max"}
    runs = kept.groupby(run, sort=False, dropna=False).agg(values).reset_index()
    values["n_volumes"] = "sum"
    table: pd.DataFrame = runs.groupby(run[:4], sort=False).agg(values).reset_index()
    return table


def null_means(predictions: Sequence[Prediction], *, surrogates: int, seed: int) -> dict[Label, Float]:
    """Each row's mean r, recomputed with surrogates of every recording's measured BOLD in place of the BOLD.

    The surrogates of a recording depend on seed and recording only: every model meets the same ones.

    Returns
    -------
    dict of (site, model, control) to array, shape (N,)
    """
    subjects: dict[Label, dict[str, list[Float]]] = {}
    for p in predictions:
        rng = np.random.default_rng([seed, zlib.crc32(str(p.key).encode())])
        scored_V = p.scored_V
        null_NR = null_r(p.predicted_VR, p.target_VR, scored_V, surrogates=surrogates, rng=rng)
        measured_R = usable(p.valid_V, p.predicted_VR, p.target_VR).any(0)
        if measured_R.any():
            mean_N = np.nan_to_num(null_NR[:, measured_R]).mean(1)  # a parcel that does not move counts as 0
            subjects.setdefault((p.key.site, p.model, p.control), {}).setdefault(p.key.subject, []).append(mean_N)
    return {
        label: np.mean([np.mean(runs, axis=0) for runs in of_site.values()], axis=0)
        for label, of_site in subjects.items()
    }


def summarize(
    scores: pd.DataFrame, predictions: Sequence[Prediction], *, surrogates: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """One row per held-out site, model and control: the rows of ``summary.json``.

    Parameters
    ----------
    scores : DataFrame
        Of :func:`xsite.evaluation.scoring.score_predictions`.
    predictions : sequence of Prediction
        The same recordings; their measured targets make the surrogates.
    surrogates, seed : int

    Returns
    -------
    list of dict
        ``site, model, control, n_subjects, n_volumes, r_mean, oracle_r_mean, mse_mean, p_null``. ``r_mean`` is None for
        a constant prediction (then ``p_null`` is 1), ``oracle_r_mean`` where no truth is known.
    """
    return _rows(scores, null_means(predictions, surrogates=surrogates, seed=seed))


def _rows(scores: pd.DataFrame, nulls: Mapping[Label, Float]) -> list[dict[str, Any]]:
    subjects = subject_scores(scores)
    oracle = subjects[subjects["model"] == ORACLE].groupby("site")["r"].mean()
    rows = []
    for (site, model, control), group in subjects[subjects["model"] != ORACLE].groupby(
        ["site", "model", "control"], sort=False
    ):
        r_mean = float(group["r"].mean())
        rows.append(
            {
                "site": str(site),
                "model": str(model),
                "control": bool(control),
                "n_subjects": len(group),
                "n_volumes": int(group["n_volumes"].sum()),
                "r_mean": r_mean,
                "oracle_r_mean": float(oracle.get(site, math.nan)),
                "mse_mean": float(group["mse"].mean()),
                "p_null": surrogate_p(r_mean, nulls.get((str(site), str(model), bool(control)), np.empty(0))),
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
        rows.append(row)
    return pd.DataFrame(rows)


def compare(scores: pd.DataFrame, a: str, b: str, *, column: str = "r") -> pd.DataFrame:
    """Model ``a`` minus model ``b``, paired by subject.

    Returns
    -------
    DataFrame
        One row per site and a last one, ``site == "all"``: ``site, a, b, n, unit, difference, ci_low, ci_high, few``.
        Per site the unit is the subject; over all sites it is the site, since the question is about the next site.
        Controls take no part, nor do sites where one of the two has no defined r (constant prediction).
    """
    subjects = subject_scores(scores)
    subjects = subjects[~subjects["control"].astype(bool)]
    wide = subjects.set_index(["site", "subject", "model"])[column].unstack("model")
    missing = [name for name in (a, b) if name not in wide]
    if missing:
        known = sorted(set(subjects["model"]))
        raise ValueError(f"compare {a!r} with {b!r}: no scores of {missing}; there are scores of {known}")
    difference = (wide[a] - wide[b]).dropna()
    rows = []
    for site, values in difference.groupby(level="site"):
        rows.append(_difference(str(site), values.tolist(), "subjects"))
    if rows:
        rows.append(_difference("all", [row["difference"] for row in rows], "sites"))
    columns = ["site", "n", "unit", "difference", "ci_low", "ci_high", "few"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(1, "a", a)
    table.insert(2, "b", b)
    return table


def _difference(site: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    mean, low, high = t_interval(values)
    row = {"site": site, "n": len(values), "unit": unit, "difference": mean}
    return row | {"ci_low": low, "ci_high": high, "few": len(values) < FEW}


def overall(scores: pd.DataFrame, nulls: Mapping[Label, Float]) -> list[dict[str, Any]]:
    """Each model over all sites: mean of the site means, interval over sites, and the band of its own surrogates.

    ``inside_band`` answers the control's question: is the mean where chance would put it in 95 of 100 cases?
    """
    table = intervals(scores)
    rows = []
    for (model, control), group in table.groupby(["model", "control"], sort=False):
        r_sites = group["r_mean"]
        mean, low, high = t_interval(r_sites.fillna(0.0) if r_sites.notna().any() else r_sites)
        known = [nulls[label] for s in group["site"] if (label := (str(s), str(model), bool(control))) in nulls]
        null = np.mean(known, axis=0) if known else np.empty(0)
        band = null_band(null)
        row = {"model": model, "control": bool(control), "n_sites": len(group), "r_mean": mean}
        row |= {"n_subjects": int(group["n_subjects"].sum()), "ci_low": low, "ci_high": high}
        row |= {"few": len(group) < FEW, "p_null": surrogate_p(mean, null), "null_low": band[0], "null_high": band[1]}
        row["inside_band"] = bool(band[0] <= mean <= band[1]) if math.isfinite(mean) and known else None
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
) -> dict[str, Any]:
    """Everything that ``summary.json`` holds; ``rows`` is what :func:`summarize` gives.

    Parameters
    ----------
    scores, predictions, surrogates, seed
        As in :func:`summarize`.
    model : str
        The trained model that the study is about.
    rivals : sequence of str
        Models that it is compared with (those without scores are left out).
    selection : str
        Name of the selection rule.

    Returns
    -------
    dict
        ``rows``, ``overall``, ``intervals``, ``comparison`` and what they rest on; NaN has become None throughout.
    """
    nulls = null_means(predictions, surrogates=surrogates, seed=seed)
    known = set(scores.loc[~scores["control"].astype(bool), "model"])
    pairs = [compare(scores, model, rival) for rival in rivals if {model, rival} <= known and rival != model]
    content = {
        "rows": _rows(scores, nulls),
        "model": model,
        "overall": overall(scores, nulls),
        "intervals": intervals(scores, nulls).to_dict("records"),
        "comparison": pd.concat(pairs).to_dict("records") if pairs else [],
        "surrogates": surrogates,
        "seed": seed,
        "selection": selection,
        "test_site_access": "none",
    }
    plain: dict[str, Any] = json_safe(content)
    return plain


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
