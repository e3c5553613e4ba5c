"""The table of sites x parcels in which no subject disappears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from xsite.reports.markup import Html, join, number, table, tag, text

WIDTH, HEIGHT = 64, 11
LOW, HIGH = -0.4, 1.0
"""Range of R that a strip shows; what lies outside sits on its edge."""


def parcel_scores(scores: pd.DataFrame, model: str) -> pd.DataFrame:
    """R per site, parcel and subject, mean over a subject's recordings; a constant prediction counts as 0.

    Returns
    -------
    DataFrame
        Columns ``site, parcel, subject, r``.
    """
    own = scores[(scores["model"] == model) & ~scores["control"].astype(bool) & np.isfinite(scores["mse"])]
    filled = own.assign(r=own["r"].fillna(0.0) if own["r"].notna().any() else own["r"])
    found: pd.DataFrame = filled.groupby(["site", "parcel", "subject"], sort=False)["r"].mean().reset_index()
    return found


def parcel_table(scores: pd.DataFrame, model: str, parcels: Mapping[str, Any], caption: str) -> Html:
    """Build the table of one model: parcels down, sites across, every subject as a dot.

    Parameters
    ----------
    scores : DataFrame
        Tidy scores.
    model : str
    parcels : mapping
        ``labels`` and, where known, ``coords`` in MNI millimetres.
    caption : str
    """
    values = parcel_scores(scores, model)
    sites = list(dict.fromkeys(values["site"]))
    names = list(dict.fromkeys(values["parcel"]))
    places = dict(zip(parcels.get("labels") or [], parcels.get("coords") or [], strict=False))
    cells = dict(iter(values.groupby(["parcel", "site"])))
    rows = []
    for name in names:
        means: dict[str, float] = {}
        row = []
        for site in sites:
            group = cells.get((name, site))
            if group is None:  # the site's images do not cover the parcel
                row.append(tag("td", "–"))
                continue
            means[site] = float(group["r"].mean())
            row.append(_cell(means[site], group["subject"].tolist(), group["r"].tolist()))
        row.append(_cell(float(np.mean(list(means.values()))), list(means), list(means.values())))
        rows.append([_parcel(str(name), places.get(name)), *row])
    totals = [_cell(*_site_mean(values, site)) for site in sites]
    site_means = [float(values.loc[values["site"] == site].groupby("subject")["r"].mean().mean()) for site in sites]
    rows.append([tag("b", "All parcels"), *totals, _cell(float(np.mean(site_means)), sites, site_means)])
    header = ["Parcel", *(f"{s} ({values.loc[values['site'] == s, 'subject'].nunique()})" for s in sites), "All sites"]
    return table(header, rows, caption=caption + " In brackets: subjects of the site; last column: its dots are sites.")


def _parcel(name: str, place: Sequence[float] | None) -> Html:
    if place is None:
        return text(name)
    return tag("span", name, title="MNI " + ", ".join(f"{value:.0f}" for value in place) + " mm")


def _site_mean(values: pd.DataFrame, site: str) -> tuple[float, list[str], list[float]]:
    r = values[values["site"] == site].groupby("subject")["r"].mean()
    return float(r.mean()), [str(name) for name in r.index], r.tolist()


def _cell(mean: float, who: Sequence[str], r: Sequence[float]) -> Html:
    if not np.isfinite(mean):
        return tag("td", "–")
    kind = "heat" if mean >= 0 else "cold"
    listed = "; ".join(f"{name} {number(value)}" for name, value in zip(who, r, strict=True))
    share = f"--share:{min(abs(mean), 1) * 0.75:.2f}"
    return tag("td", join([number(mean), _strip(who, r)]), class_=kind, style=share, title=listed)


def _strip(who: Sequence[str], r: Sequence[float]) -> Html:
    def x(value: float) -> float:
        return 4 + (WIDTH - 8) * (float(np.clip(value, LOW, HIGH)) - LOW) / (HIGH - LOW)

    zero = tag("line", x1=f"{x(0):.1f}", x2=f"{x(0):.1f}", y1=0, y2=HEIGHT)
    dots = [
        tag("circle", tag("title", f"{name}: {number(value)}"), cx=f"{x(value):.1f}", cy=HEIGHT / 2, r=2.6)
        for name, value in zip(who, r, strict=True)
        if np.isfinite(value)
    ]
    return tag("svg", join([zero, *dots]), width=WIDTH, height=HEIGHT, aria_hidden="true")
