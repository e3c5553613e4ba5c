"""Who a model must beat, and in which parcels one model is better than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from xsite.evaluation.collapse import GLOBAL_SIGNAL
from xsite.evaluation.compare import paired_tests
from xsite.evaluation.scoring import ORACLE
from xsite.evaluation.selection import SELECTED

NO_RIVALS = (ORACLE, GLOBAL_SIGNAL, SELECTED)
"""Two know the measured BOLD; the third is one of the study's own variants under another name."""
RIDGES = ("ridge", "ridge-window")
"""Over a recording's z-scores, and over a window alone: of unlike access to the test site."""


def main_rival(model: str, rows: Sequence[Mapping[str, Any]], trained: Sequence[str] = ()) -> str | None:
    """The ridge that knew as much of the test site, else any ridge, else the best closed form; None without one.

    Parameters
    ----------
    model : str
    rows : sequence of mapping
        Of :func:`xsite.evaluation.site_rows.summarize`.
    trained : sequence of str
        Labels of the study's trained variants: they are compared with one another elsewhere.
    """
    means: dict[str, list[float]] = {}
    access = {row["model"]: row.get("access") for row in rows if not row["control"]}
    for row in rows:
        able = row["model"] not in (model, *NO_RIVALS, *trained)
        if able and not row["control"] and row["r_mean"] is not None:
            means.setdefault(row["model"], []).append(row["r_mean"])
    if ridges := [name for name in RIDGES if name in means]:
        alike = [name for name in ridges if access[name] == access.get(model)]
        return (alike or ridges)[0]
    return max(means, key=lambda name: sum(means[name]) / len(means[name]), default=None)


def paired_parcels(
    scores: pd.DataFrame, model: str, rows: Sequence[Mapping[str, Any]], trained: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Parcel by parcel: every variant against the main rival, and the variants against one another.

    Subjects are flipped, so this is about these sites. Holm's correction (and the maximum statistic) is over the
    parcels of one pair, not over pairs.

    Returns
    -------
    list of dict
        Rows of :func:`xsite.evaluation.compare.paired_tests`, ``parcel == "all"`` first in every pair. A pair of which
        one has no defined r (a constant) has none.
    """
    scored = set(scores.loc[~scores["control"].astype(bool), "model"])
    variants = [name for name in dict.fromkeys([model, *trained]) if name in scored]
    pairs = [(name, rival) for name in variants if (rival := main_rival(name, rows, trained)) is not None]
    pairs += combinations(variants, 2)
    found = [paired_tests(scores[scores["model"].isin(pair)], *pair) for pair in pairs]
    return [{str(key): value for key, value in row.items()} for one in found for row in one.to_dict("records")]
