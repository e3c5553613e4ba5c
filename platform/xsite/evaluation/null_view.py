"""The null distributions behind a study's means, small enough to travel in ``summary.json``.

Shape letters: ``N`` surrogates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xsite.evaluation.nulls import Kind
from xsite.evaluation.surrogates import Nulls, over_folds
from xsite.recording import Float

BINS = 24


def null_histograms(
    rows: Sequence[Mapping[str, Any]],
    overall: Sequence[Mapping[str, Any]],
    nulls: Mapping[Kind, Nulls],
) -> list[dict[str, Any]]:
    """Histogram of the surrogate means of every site and of all sites together, with the value that was observed.

    That of all sites together is wider by :data:`xsite.evaluation.surrogates.FOLD_DEPENDENCE`, as its p-value needs; so
    are those of sites whose own folds are tied.

    Parameters
    ----------
    rows, overall : sequence of mapping
        Of :func:`xsite.evaluation.site_rows.summarize` and :func:`xsite.evaluation.site_rows.overall`.
    nulls : mapping of kind to Nulls

    Returns
    -------
    list of dict
        ``site`` (``all`` for the mean over sites), ``model, control, kind, observed, n, mean, sd, low, high`` (edges of
        the outermost bins) and ``counts``. Rows without surrogates are left out.
    """
    found = []
    for kind, null in nulls.items():
        of_sites = null.of_sites
        for row in rows:
            label = str(row["site"]), str(row["model"]), bool(row["control"])
            if label in of_sites:
                found.append(_histogram(row, "r_mean", of_sites[label], site=label[0], kind=kind))
        for row in overall:
            own = {site: drawn for (site, *who), drawn in null.means.items() if tuple(who) == _who(row)}
            if own:
                whole = over_folds([*own.values()], crossed=bool({*own} & {*null.crossed}))
                found.append(_histogram(row, "r_mean", whole, site="all", kind=kind))
    return [one for one in found if one]


def _who(row: Mapping[str, Any]) -> tuple[str, bool]:
    return str(row["model"]), bool(row["control"])


def _histogram(row: Mapping[str, Any], figure: str, null_N: Float, *, site: str, kind: Kind) -> dict[str, Any]:
    null_N = null_N[np.isfinite(null_N)]
    if not null_N.size:
        return {}
    low, high = float(null_N.min()), float(null_N.max())
    if high - low < 1e-9:  # a constant prediction: every surrogate scores the same
        return {}
    counts, edges = np.histogram(null_N, BINS, (low, high))
    label = {"site": site, "model": row["model"], "control": row["control"], "kind": kind, "observed": row[figure]}
    shape = {"n": null_N.size, "mean": float(null_N.mean()), "sd": float(null_N.std())}
    return label | shape | {"low": float(edges[0]), "high": float(edges[-1]), "counts": counts.tolist()}
