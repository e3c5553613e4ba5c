"""From the tidy scores to the figures that are quoted: subject means first, then sites, then all sites.

Unit of every interval per site is the subject, over all sites the site. Every row names its n, its unit, who selected
and what the model knew of the test site. How silence is counted: :mod:`xsite.evaluation.subjects`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from xsite.evaluation.collapse import GLOBAL_SIGNAL, UNTRAINED, by_model, collapse_rows
from xsite.evaluation.compare import compare, rank_models
from xsite.evaluation.figures import site_figures
from xsite.evaluation.generalization import id_ood
from xsite.evaluation.json_values import json_safe
from xsite.evaluation.null_view import null_histograms
from xsite.evaluation.paired import NO_RIVALS, paired_parcels
from xsite.evaluation.parcels import parcel_rows
from xsite.evaluation.scoring import Prediction
from xsite.evaluation.selection import SELECTED
from xsite.evaluation.site_rows import Basis, intervals, overall, site_rows
from xsite.evaluation.surrogates import study_nulls

ALWAYS = ("zero", GLOBAL_SIGNAL, "ridge")
"""Rows that a sceptic looks for first."""


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
    crossed: Collection[str] = (),
) -> dict[str, Any]:
    """Everything that ``summary.json`` holds; ``rows`` is what :func:`~xsite.evaluation.site_rows.summarize` gives.

    Parameters
    ----------
    scores, predictions, surrogates, seed
        As in :func:`~xsite.evaluation.site_rows.summarize`. Scores of several seeds are averaged recording by
        recording first.
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
    crossed : collection of str
        Sites whose folds are tied (:func:`xsite.evaluation.surrogates.crossed_sites`): their own nulls are wider too.

    Returns
    -------
    dict
        ``rows``, ``overall``, ``intervals``, ``comparison``, ``parcels``, ``paired_parcels``, ``ranks``, ``collapsed``,
        ``figures``, ``id_ood``, ``nulls``, ``warnings`` and what they rest on (``basis``); NaN has become None.
    """
    phase, shift = (
        study_nulls(predictions, surrogates=surrogates, seed=seed, kind=k, crossed=crossed) for k in ("phase", "shift")
    )
    basis = Basis(selection, access, access_of or {})
    known = set(scores.loc[~scores["control"].astype(bool), "model"])
    pairs = [compare(scores, model, rival) for rival in rivals if {model, rival} <= known and rival != model]
    rows = site_rows(scores, phase, shift, basis)
    sites = site_figures(figures).assign(unit="subjects").to_dict("records") if figures is not None else []
    gaps = [row | {"unit": "sites"} for row in id_ood(id_scores, scores)] if id_scores is not None else []
    content: dict[str, Any] = {
        "rows": rows if n_seeds is None else [_seeds(row, trained, n_seeds) for row in rows],
        "model": model,
        "trained": list(trained),
        "overall": _named(overall(scores, phase.means, shift.means, crossed), basis),
        "intervals": _named(intervals(scores, phase.of_sites).to_dict("records"), basis),
        "comparison": _named(pd.concat(pairs).to_dict("records") if pairs else [], basis),
        "parcels": _named(parcel_rows(scores, phase), basis),
        "paired_parcels": _named(paired_parcels(scores, model, rows, trained), basis),
        "ranks": _ranks(scores, basis),
        "collapsed": collapse_rows(predictions),
        "figures": _named(sites, basis),
        "id_ood": _named(gaps, basis),
        "surrogates": surrogates,
        "seed": seed,
        "crossed_sites": sorted(crossed),
        "selection": selection,
        "test_site_access": access,
        "leakage": leakage,
        "basis": _rests_on(scores, predictions, surrogates, n_seeds) | basis.of(model),
    }
    content["nulls"] = null_histograms(content["rows"], content["overall"], {"phase": phase, "shift": shift})
    content["warnings"] = _warnings(content, known, basis)
    plain: dict[str, Any] = json_safe(content)
    return plain


def _named(rows: Sequence[Mapping[Any, Any]], basis: Basis) -> list[dict[Any, Any]]:
    """Rows about a ``model``, or about ``a`` minus ``b``, with what they rest on."""
    return [{**row, **(basis.of(row["model"]) if "model" in row else basis.of(row["a"], row["b"]))} for row in rows]


def _seeds(row: dict[str, Any], trained: Sequence[str], n_seeds: int) -> dict[str, Any]:
    """A closed form has no seed, and a control is trained once."""
    most = n_seeds if row["model"] in (*trained, SELECTED) and not row["control"] else 1
    return row | {"n_seeds": min(row["n_seeds"], most)}


def _ranks(scores: pd.DataFrame, basis: Basis) -> dict[str, Any] | None:
    """Rank every model that has a defined r, does not know the measured BOLD and is not another one's second name."""
    own = scores[~scores["control"].astype(bool) & ~scores["model"].isin(NO_RIVALS)]
    speaking = own.groupby("model", sort=False)["r"].count()
    models = [str(name) for name in speaking.index[speaking > 0]]
    if len(models) < 2:
        return None
    return rank_models(scores, models) | {"access": {name: basis.of(name)["access"] for name in models}}


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


def _warnings(content: Mapping[str, Any], known: set[str], basis: Basis) -> list[str]:
    """What a report must say beside its tables."""
    audit = content["leakage"] or {"verdict": "pass"}
    found = [audit["sentence"]] if audit["verdict"] != "pass" else []
    found += [content["overall"][0]["warning"]] if content["overall"] else []
    if others := [
        name for name, level in basis.access_of.items() if level != basis.access and name in known - {*UNTRAINED}
    ]:
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
