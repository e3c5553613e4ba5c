"""Labelled subjects of an unseen site: who calibrates, who is scored, and what the first are worth to the others."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Draw:
    """Who calibrates and who is scored; ``calibrated`` has the largest k, of which a smaller k takes the first."""

    number: int
    calibrated: tuple[str, ...]
    scored: tuple[str, ...]


def calibration_draws(subjects: Sequence[str], ks: Sequence[int], n_draws: int, *, seed: int, site: str) -> list[Draw]:
    """Random choices of a site's subjects, the same for the same seed; a choice that is drawn twice counts once.

    Parameters
    ----------
    ks : sequence of int
        Those that would leave nobody to score are left out: the largest possible one is at most ``len(subjects) - 1``.
    """
    able = [k for k in ks if 0 < k < len(subjects)]
    if not able:
        return []
    rng = np.random.default_rng([seed, zlib.crc32(site.encode())])
    orders = [tuple(rng.permutation(sorted(subjects)).tolist()) for _ in range(n_draws)]
    distinct = dict.fromkeys((order[: max(able)], tuple(sorted(order[max(able) :]))) for order in orders)
    return [Draw(number, calibrated, scored) for number, (calibrated, scored) in enumerate(distinct)]


def calibration_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Mean R by variant, part and k, and the gain over k = 0 of the same draws and subjects.

    Draws of a subject are averaged first, then subjects, then sites: a subject counts once, as in the report.

    Returns
    -------
    DataFrame
        ``variant, part, k, access, n_sites, n_subjects, r, r_without, gain``; a part's rows start at k = 1.
    """
    index = ["variant", "held_out", "draw", "site", "subject"]  # a fold may test subjects 01 of several sites
    without = table[table["k"] == 0].set_index(index)["r"].rename("r_without")
    joined = table[table["k"] > 0].join(without, on=index)
    joined["gain"] = joined["r"] - joined["r_without"]
    group = ["variant", "part", "k", "access"]
    values = ["r", "r_without", "gain"]
    subjects = joined.groupby([*group, "held_out", "site", "subject"])[values].mean()
    sites = subjects.groupby(level=[*group, "held_out"]).mean()
    curve = sites.groupby(level=group).mean()
    curve["n_sites"] = sites.groupby(level=group).size()
    curve["n_subjects"] = joined.drop_duplicates([*group, "site", "subject"]).groupby(group).size()
    ordered: pd.DataFrame = curve.reset_index()[[*group, "n_sites", "n_subjects", *values]]
    return ordered
