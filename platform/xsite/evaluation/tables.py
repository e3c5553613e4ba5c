"""From the tidy scores to the figures that are quoted: subject means first, then sites, then all sites.

Unit of every interval per site is the subject, over all sites the site. Every row names its n, its unit, who selected
and what the model knew of the test site. How silence is counted: :mod:`xsite.evaluation.subjects`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from xsite.evaluation.collapse import GLOBAL_SIGNAL, by_model, collapse_rows
from xsite.evaluation.compare import FEW, compare, rank_models
from xsite.evaluation.figures import site_figures
from xsite.evaluation.generalization import id_ood
from xsite.evaluation.intervals import FEW_SITES, few_sites_warning, site_interval, t_interval
from xsite.evaluation.null_view import null_histograms
from xsite.evaluation.nulls import null_band, surrogate_p
from xsite.evaluation.paired import NO_RIVALS, paired_parcels
from xsite.evaluation.parcels import parcel_rows
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.evaluation.selection import SELECTED
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


@dataclass(frozen=True)
class _Basis:
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
    return _rows(scores, phase, shift, _Basis(selection, access))


def _rows(scores: pd.DataFrame, phase: Nulls, shift: Nulls, basis: _Basis) -> list[dict[str, Any]]:
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
                **basis.of(label[1]),
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
    sites. p-values and band are of a null that is wider than that of independent folds, because a site that is tested
    here trains the models tested elsewhere (:func:`xsite.evaluation.surrogates.over_folds`). ``inside_band`` answers
    the control's question: is the mean where chance would put it in 95 of 100 cases? A site where a model says nothing
    counts as 0, unless it says nothing anywhere.
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
    access_of: Mapping[str, str] | None = None,
    trained: Sequence[str] = (),
    n_seeds: int | None = None,
    leakage: Mapping[str, Any] | None = None,
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
        What the model knew of the held-out site: ``none``, ``unlabelled EEG`` or ``k labelled subjects``. All trained
        models of one study have one level.
    access_of : mapping of model to str, optional
        Models that knew something else; a row about two models names both levels.
    trained : sequence of str
        Labels of the trained variants; all other models are closed forms or oracles.
    n_seeds : int, optional
        Training seeds of the experiment. By default the seeds of the predictions are counted, among which are the
        folds of a recording that several folds test.
    leakage : mapping, optional
        Of :meth:`xsite.evaluation.leakage.Audit.to_dict`; a remark or a failure becomes a warning.
    figures : DataFrame, optional
        Of :func:`xsite.evaluation.figures.recording_figures`.
    id_scores : DataFrame, optional
        Scores of validation recordings of training sites, for ID and OOD side by side.

    Returns
    -------
    dict
        ``rows``, ``overall``, ``intervals``, ``comparison``, ``parcels``, ``paired_parcels``, ``ranks``, ``collapsed``,
        ``figures``, ``id_ood``, ``nulls``, ``warnings`` and what they rest on (``basis``); NaN has become None.
    """
    phase, shift = (study_nulls(predictions, surrogates=surrogates, seed=seed, kind=k) for k in ("phase", "shift"))
    basis = _Basis(selection, access, access_of or {})
    known = set(scores.loc[~scores["control"].astype(bool), "model"])
    pairs = [compare(scores, model, rival) for rival in rivals if {model, rival} <= known and rival != model]
    rows = _rows(scores, phase, shift, basis)
    sites = site_figures(figures).assign(unit="subjects").to_dict("records") if figures is not None else []
    gaps = [row | {"unit": "sites"} for row in id_ood(id_scores, scores)] if id_scores is not None else []
    content: dict[str, Any] = {
        "rows": rows if n_seeds is None else [_seeds(row, trained, n_seeds) for row in rows],
        "model": model,
        "trained": list(trained),
        "overall": _named(overall(scores, phase.means, shift.means), basis),
        "intervals": _named(intervals(scores, phase.means).to_dict("records"), basis),
        "comparison": _named(pd.concat(pairs).to_dict("records") if pairs else [], basis),
        "parcels": _named(parcel_rows(scores, phase), basis),
        "paired_parcels": _named(paired_parcels(scores, model, rows, trained), basis),
        "ranks": _ranks(scores),
        "collapsed": collapse_rows(predictions),
        "figures": _named(sites, basis),
        "id_ood": _named(gaps, basis),
        "surrogates": surrogates,
        "seed": seed,
        "selection": selection,
        "test_site_access": access,
        "leakage": leakage,
        "basis": _rests_on(scores, predictions, surrogates, n_seeds) | basis.of(model),
    }
    content["nulls"] = null_histograms(
        content["rows"], content["overall"], {"phase": phase.means, "shift": shift.means}
    )
    content["warnings"] = _warnings(content, known, basis)
    plain: dict[str, Any] = json_safe(content)
    return plain


def _named(rows: Sequence[Mapping[Any, Any]], basis: _Basis) -> list[dict[Any, Any]]:
    """Rows about a ``model``, or about ``a`` minus ``b``, with what they rest on."""
    return [{**row, **(basis.of(row["model"]) if "model" in row else basis.of(row["a"], row["b"]))} for row in rows]


def _seeds(row: dict[str, Any], trained: Sequence[str], n_seeds: int) -> dict[str, Any]:
    """A closed form has no seed, and a control is trained once."""
    most = n_seeds if row["model"] in (*trained, SELECTED) and not row["control"] else 1
    return row | {"n_seeds": min(row["n_seeds"], most)}


def _ranks(scores: pd.DataFrame) -> dict[str, Any] | None:
    """Rank every model that has a defined r, does not know the measured BOLD and is not another one's second name."""
    own = scores[~scores["control"].astype(bool) & ~scores["model"].isin(NO_RIVALS)]
    speaking = own.groupby("model", sort=False)["r"].count()
    models = [str(name) for name in speaking.index[speaking > 0]]
    return rank_models(scores, models) if len(models) > 1 else None


def _rests_on(
    scores: pd.DataFrame, predictions: Sequence[Prediction], surrogates: int, n_seeds: int | None
) -> dict[str, Any]:
    recordings = scores[["site", "subject", "session", "task", "run"]].drop_duplicates()
    return {
        "n_sites": int(recordings["site"].nunique()),
        "n_subjects": len(recordings.drop_duplicates(["site", "subject"])),
        "n_recordings": len(recordings),
        "n_seeds": n_seeds or len({p.seed for p in predictions}) or 1,
        "unit": "Pearson R over a whole recording, mean over seeds, parcels, recordings, subjects, sites in this order",
        "null": f"{surrogates} surrogates of each recording's measured BOLD: phase-randomised, and circularly shifted",
    }


def _warnings(content: Mapping[str, Any], known: set[str], basis: _Basis) -> list[str]:
    """What a report must say beside its tables."""
    audit = content["leakage"] or {"verdict": "pass"}
    found = [audit["sentence"]] if audit["verdict"] != "pass" else []
    found += [content["overall"][0]["warning"]] if content["overall"] else []
    if others := [name for name, level in basis.access_of.items() if level != basis.access and name in known]:
        levels = ", ".join(dict.fromkeys(basis.access_of[name] for name in others))
        found.append(
            f"Not like for like: {', '.join(others)} had access {levels} to the test site, the others {basis.access}."
        )
    if absent := [name for name in ALWAYS if name not in known]:
        found.append(f"Not scored in this study: {', '.join(absent)}; a reader cannot tell the model from these.")
    floors = [row["p_floor"] for row in content["parcels"] if row["p_floor"] > 0.05]
    if floors and content["surrogates"]:
        needed = math.ceil(max(floors) * (content["surrogates"] + 1) / 0.05)
        found.append(
            f"{content['surrogates']} surrogates are too few for Holm's correction over the parcels (smallest possible "
            f"p {max(floors):.3f}): read p_max, or set surrogates to {needed}."
        )
    found += [f"Collapsed: {one.line}." for one in by_model(content["collapsed"], content["rows"])]
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
