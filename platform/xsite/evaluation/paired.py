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


def main_rival(model: str, rows: Sequence[Mapping[str, Any]], trained: Sequence[str] = ()) -> str | None:
    """Ridge where it was run, else the closed-form model with the highest mean r over the sites; None without one.

    Parameters
    ----------
    model : str
    rows : sequence of mapping
        Of :func:`xsite.evaluation.site_rows.summarize`.
    trained : sequence of str
        Labels of the study's trained variants: they are compared with one another elsewhere.
    """
    means: dict[str, list[float]] = {}
    for row in rows:
        able = row["model"] not in (model, *NO_RIVALS, *trained)
        if able and not row["control"] and row["r_mean"] is not None:
            means.setdefault(row["model"], []).append(row["r_mean"])
    if "ridge" in means:
        return "ridge"
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
    rival = main_rival(model, rows, trained)
    pairs = [(name, rival) for name in variants if rival is not None] + list(combinations(variants, 2))
    found = [paired_tests(scores[scores["model"].isin(pair)], *pair) for pair in pairs]
    return [{str(key): value for key, value in row.items()} for one in found for row in one.to_dict("records")]
