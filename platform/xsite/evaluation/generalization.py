"""Known sites beside unseen ones: the same models on validation recordings of training sites and on held-out sites."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from xsite.evaluation.intervals import few_sites_warning, t_interval
from xsite.evaluation.subjects import silence_as_zero, subject_scores


def id_ood(id_scores: pd.DataFrame, ood_scores: pd.DataFrame, *, column: str = "r") -> list[dict[str, Any]]:
    """In-distribution and out-of-distribution scores side by side, per model (p-lambda/wilds#86 asks for it).

    ``id_scores`` are of validation recordings, whose site trained; a recording that selects in several folds is
    averaged over them. ``ood_scores`` are of held-out sites. A validation subject of one fold is a test subject of the
    fold that holds its site out, so the gap is paired: the same people, once with and once without their site in the
    training set. Validation recordings selected the checkpoint, so the ID figure, and the gap, are a little too large.

    Parameters
    ----------
    id_scores, ood_scores : DataFrame
        Of :func:`xsite.evaluation.scoring.score_predictions`; folds of ``id_scores`` may be told apart by a column
        ``held_out``.

    Returns
    -------
    list of dict
        Per model: ``model, id, ood`` (mean of the site means), ``n_sites_id, n_sites_ood, gap, gap_low, gap_high``
        (ID minus OOD, paired by subject, t-interval over sites), ``n_sites, n_subjects`` of the gap, ``worst_site,
        worst`` (lowest held-out site), ``sites`` (per site: ``site, id, ood, gap, n_subjects``) and ``warning``.
    """
    tables = {"id": _by_subject(id_scores, column), "ood": _by_subject(ood_scores, column)}
    rows = []
    for model in tables["ood"].index.unique("model"):
        inside = tables["id"][tables["id"].index.get_level_values("model") == model].droplevel("model")
        outside = tables["ood"].xs(model, level="model")
        rows.append({"model": str(model)} | _gap(inside, outside))
    return rows


def _by_subject(scores: pd.DataFrame, column: str) -> pd.Series[float]:
    scores = scores[~scores["control"].astype(bool)]
    folds = [fold for _, fold in scores.groupby("held_out")] if "held_out" in scores else [scores]
    index = ["model", "site", "subject"]
    parts = [subject_scores(fold) for fold in folds if not fold.empty]
    if not parts:
        return pd.Series(dtype=float, index=pd.MultiIndex.from_arrays([[], [], []], names=index))
    table = silence_as_zero(pd.concat(parts, ignore_index=True)).set_index(index)
    means: pd.Series[float] = table[column].groupby(level=index, sort=False).mean()
    return means


def _gap(inside: pd.Series[float], outside: pd.Series[float]) -> dict[str, Any]:
    id_sites, ood_sites = (x.groupby(level="site").mean().dropna() for x in (inside, outside))
    both = pd.concat({"id": inside, "ood": outside}, axis=1, join="inner").dropna()
    pairs = both.groupby(level="site").mean()
    gap = pairs["id"] - pairs["ood"]
    mean, low, high = t_interval(gap.tolist())
    counts = both.groupby(level="site").size()
    sites = [
        {
            "site": str(site),
            "id": float(id_sites.get(site, np.nan)),
            "ood": float(ood_sites.get(site, np.nan)),
            "gap": float(gap.get(site, np.nan)),
            "n_subjects": int(counts.get(site, 0)),
        }
        for site in sorted({*id_sites.index, *ood_sites.index})
    ]
    found: dict[str, Any] = {"id": float(id_sites.mean()), "ood": float(ood_sites.mean())}
    found |= {"n_sites_id": len(id_sites), "n_sites_ood": len(ood_sites)}
    found |= {"gap": mean, "gap_low": low, "gap_high": high, "n_sites": len(gap), "n_subjects": len(both)}
    found["worst_site"] = str(ood_sites.idxmin()) if len(ood_sites) else None
    found["worst"] = float(ood_sites.min()) if len(ood_sites) else np.nan
    return found | {"sites": sites, "warning": few_sites_warning(len(gap))}
