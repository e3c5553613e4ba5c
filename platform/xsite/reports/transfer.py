"""What training elsewhere is worth: site to site, with more and more sites, and with a few subjects of the new site."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from xsite.evaluation.folds import ENTITIES
from xsite.evaluation.intervals import t_interval
from xsite.evaluation.subjects import subject_scores
from xsite.reports.folder import Study
from xsite.reports.markup import INK, LINE, MUTED, STYLE, Html, figure, inline_svg, interval, join, number, table, tag
from xsite.reports.verdict import label

HOME = (
    "Diagonal, in brackets and in no mean: the training site itself, its validation subjects (after the semicolon: how "
    "many), who chose the checkpoint; so it is a known site, and slightly too good."
)
NO_HOME = "The diagonal would be a known site and was not scored."
CURVES = ("#3d74d9", "#e07b28", "#2f9e77", "#b0559e")


def fold_means(study: Study) -> pd.DataFrame:
    """Mean R of every fold at every site that it tests: ``fold, train, n_train_sites, site, model, r, n_subjects``.

    ``train`` is the training site where there is one only, else empty. Folds over sites only; no row otherwise.
    """
    columns = ["fold", "train", "n_train_sites", "site", "model", "r", "n_subjects"]
    if study.unit != "training-sites":
        return pd.DataFrame(columns=columns)
    trained = {fold["held_out"]: sorted({key[0] for key in fold["train"]}) for fold in study.folds}
    rows = []
    scores = _by_fold(study)
    for fold, group in scores.groupby("fold", sort=False):
        sites = trained[str(fold)]
        for (site, model), own in subject_scores(group.drop(columns="fold")).groupby(["site", "model"], sort=False):
            own = own[~own["control"].astype(bool)]
            if len(own):
                mean = float(own["r"].mean())
                only = sites[0] if len(sites) == 1 else ""
                rows.append([fold, only, len(sites), site, model, mean, len(own)])
    return pd.DataFrame(rows, columns=columns)


def _by_fold(study: Study) -> pd.DataFrame:
    """Scores with the fold that made them; where no recording is tested twice, the main table says enough."""
    if "scores_by_fold" in study.tables:
        return study.tables["scores_by_fold"]
    tested = [(*key, fold["held_out"]) for fold in study.folds for key in fold["test"]]
    folds = pd.DataFrame(tested, columns=[*ENTITIES, "fold"])
    scores = study.scores.assign(**{name: study.scores[name].fillna("").astype(str) for name in ENTITIES})
    merged: pd.DataFrame = scores.merge(folds, on=list(ENTITIES))
    return merged


def matrix_section(study: Study) -> Html:
    """Train on one site, test on another."""
    means = fold_means(study)
    means = means[(means["model"] == study.model) & (means["train"] != "")]
    if study.scheme != "site-to-site" or means["train"].nunique() < 2:
        return Html("")
    wide = means.pivot_table(index="train", columns="site", values="r", sort=True)
    gives, takes, known = wide.mean(axis=1), wide.mean(axis=0), _at_home(study)
    sentence = (
        f"A single training site carries over with a mean R of {number(float(means['r'].mean()))}. Best teacher: "
        f"{gives.idxmax()} ({number(float(gives.max()))}); hardest to reach: {takes.idxmin()} "
        f"({number(float(takes.min()))})."
    )
    body = []
    for train in wide.index:
        row = wide.loc[train]
        cells = [known.get(site, _cell(None)) if site == train else _cell(row.get(site)) for site in wide.columns]
        body.append([train, *cells, _cell(float(gives[train]))])
    body.append([tag("b", "Mean"), *(_cell(float(takes.loc[site])) for site in wide.columns), tag("td", "")])
    counts = means.groupby("site")["n_subjects"].max()
    header = ["Trained on \\ tested at", *(f"{site} ({counts[site]})" for site in wide.columns), "Mean"]
    caption = (
        f"{label(study.model)}: mean R over the tested site's subjects (in brackets: how many), trained on one site "
        f"only. {HOME if known else NO_HOME} Selection rule: {study.summary['selection']}. "
        f"Access to the test site: {study.summary['test_site_access']}."
    )
    return join([tag("p", sentence), table(header, body, caption=caption)])


def _at_home(study: Study) -> dict[str, Html]:
    """Diagonal of the matrix: the training site's validation subjects, by site; empty where none was scored."""
    scores = study.tables.get("id_scores")
    if scores is None or scores.empty:
        return {}
    home = {fold["held_out"]: {key[0] for key in fold["train"]} for fold in study.folds}
    inside = [site in home.get(fold, ()) for site, fold in zip(scores["site"], scores["held_out"], strict=True)]
    own = subject_scores(scores[inside].drop(columns="held_out"))
    own = own[(own["model"] == study.model) & ~own["control"].astype(bool)]
    return {
        str(site): tag("td", f"({number(float(group['r'].mean()))}; {len(group)})", class_="known")
        for site, group in own.groupby("site")
        if group["r"].notna().any()
    }


def _cell(value: Any) -> Html:
    if value is None or value != value:
        return tag("td", "–")
    share = f"--share:{min(abs(float(value)), 1) * 0.75:.2f}"
    return tag("td", number(float(value)), class_="heat" if value >= 0 else "cold", style=share)


def growing_section(study: Study) -> Html:
    """Learning curve over the number of training sites."""
    means = fold_means(study)
    means = means[means["model"] == study.model]
    if means["n_train_sites"].nunique() < 2:
        return Html("")
    curve = _curve(means.rename(columns={"n_train_sites": "x", "site": "unit"}))
    first, last = curve.iloc[0], curve.iloc[-1]
    paired = means.pivot_table(index="site", columns="n_train_sites", values="r")
    gain, low, high = t_interval((paired[int(last["x"])] - paired[int(first["x"])]).tolist())
    sentence = (
        f"With {int(first['x'])} training site R is {number(first['mean'])}, with {int(last['x'])} sites "
        f"{number(last['mean'])}: a gain of {number(gain, sign=True)} {interval(low, high, sign=True)} over the same "
        f"test sites."
    )
    chart = curves({str(s): g for s, g in means.rename(columns={"n_train_sites": "x"}).groupby("site")}, {"": curve})
    caption = (
        f"{label(study.model)}. Thin: one test site each, met by models of 1, 2, ... other sites, always in the same "
        f"order; thick: mean with its 95 % t-interval over the {means['site'].nunique()} test sites. The order is "
        f"drawn once per site, so a step may be the site's that joins. Selection rule: {study.summary['selection']}. "
        f"Access to the test site: {study.summary['test_site_access']}."
    )
    _axes(chart, "Training sites")
    return join([tag("p", sentence), figure(inline_svg(chart, name="growing", label="R by training sites"), caption)])


def calibration_means(table_r: pd.DataFrame) -> pd.DataFrame:
    """Mean R per variant, part, fold and k: over draws of a subject, then subjects.

    Parameters
    ----------
    table_r : DataFrame
        Content of ``calibration.parquet``: one row per variant, fold (``held_out``), draw, k, part and scored subject
        (``site``, ``subject``); k = 0 is the model as it was, its part is ``none``.

    Returns
    -------
    DataFrame
        ``variant, part, k, held_out, r, r_without, gain, n_subjects``. Every part begins at k = 0, with the subjects
        that it was scored on; ``r_without`` is k = 0 of the same draws and subjects, ``gain`` the paired difference.
    """
    draw, person = ["variant", "held_out", "draw", "site", "subject"], ["variant", "held_out", "site", "subject"]
    # the checkpoint as it is says the same of a subject in every draw; draws of several calls share their numbers
    without = table_r[table_r["k"] == 0].groupby(person)["r"].mean().rename("r_without")
    tuned = table_r[table_r["k"] > 0].join(without, on=person)
    start = tuned.drop_duplicates([*draw, "part"]).assign(k=0, r=lambda own: own["r_without"])
    paired = pd.concat([start, tuned], ignore_index=True)
    paired["gain"] = paired["r"] - paired["r_without"]
    values, fold = ["r", "r_without", "gain"], ["variant", "part", "k", "held_out"]
    subjects = paired.groupby([*fold, "site", "subject"])[values].mean().groupby(level=fold)
    means: pd.DataFrame = subjects.mean().assign(n_subjects=subjects.size()).reset_index()
    return means


def calibration_section(study: Study) -> Html:
    """What a few labelled subjects of the new site buy."""
    found = study.tables.get("calibration")
    if found is None or not (found["k"] > 0).any():
        return Html("")
    means = calibration_means(found).rename(columns={"k": "x", "held_out": "unit"})
    words, charted = [], {}
    several = means["variant"].nunique() > 1
    for (variant, part), own in means.groupby(["variant", "part"], sort=False):
        name = f"{label(str(variant))}, {part}" if several else str(part)
        curve, gains = _curve(own), _curve(own, "gain")
        charted[name], last = curve, gains.iloc[-1]
        words.append(
            f"{name}: {_at(curve.iloc[0])}, {_at(curve.iloc[-1])}, a paired gain of {number(last['mean'], sign=True)} "
            f"{interval(last['low'], last['high'], sign=True)} over {int(last['n'])} folds"
        )
    who = "" if several else f" {label(str(means['variant'].iloc[0]))}"
    sentence = f"Fine-tuning{who} with k labelled subjects of the held-out site gives a mean R of {'; '.join(words)}."
    chart = curves({}, charted)
    _axes(chart, "Labelled subjects of the held-out site, k")
    access = " or ".join(dict.fromkeys(found.loc[found["k"] == 0, "access"]))
    caption = (
        f"Mean over draws, subjects, then {means['unit'].nunique()} folds, with 95 % t-intervals over the folds. "
        "Within a fold and draw every k, 0 too, is scored on the same subjects, of whom none calibrates, and the "
        "larger k contains the smaller; so gains are paired. A fold with few subjects has no large k: compare "
        "gains, not ends of curves. Early stopping by those k subjects alone. Access to the test site: k labelled "
        f"subjects ({access} at k = 0). Never to be set beside the tables above, whose access is: "
        f"{study.summary['test_site_access']}."
    )
    picture = figure(inline_svg(chart, name="calibration", label="R by labelled subjects"), caption)
    return join([tag("p", sentence), picture, _gain_table(means)])


def _gain_table(means: pd.DataFrame) -> Html:
    """Paired gain of every variant, part and k."""
    rows = []
    for (variant, part, k), own in means[means["x"] > 0].groupby(["variant", "part", "x"]):
        gain = _curve(own, "gain").iloc[0]
        cells = [number(float(own[name].mean()), 3) for name in ("r_without", "r")]
        cells += [number(gain["mean"], 3, sign=True), interval(gain["low"], gain["high"], 3, sign=True)]
        rows.append([label(str(variant)), part, k, *cells, int(gain["n"]), int(own["n_subjects"].sum())])
    head = ["Model", "Part", "k", "R at k = 0", "R at k", "Gain", "95 %, folds", "Folds", "Subjects"]
    caption = "Same draws and subjects with and without calibration; mean over draws, subjects, then folds."
    return table(head, rows, caption=caption)


def _at(point: pd.Series[Any]) -> str:
    return f"{number(float(point['mean']))} at k = {int(point['x'])}"


def _curve(means: pd.DataFrame, column: str = "r") -> pd.DataFrame:
    """Mean over units with its t-interval at every x: columns ``x, mean, low, high, n``."""
    rows = []
    for x, group in means.groupby("x", sort=True):
        sites = group.groupby("unit")[column].mean()
        rows.append([int(str(x)), *t_interval(sites.tolist()), int(sites.count())])
    return pd.DataFrame(rows, columns=["x", "mean", "low", "high", "n"])


def curves(units: dict[str, pd.DataFrame], means: dict[str, pd.DataFrame]) -> Figure:
    """Thin lines of the units, thick ones of the means.

    Parameters
    ----------
    units : dict of name to DataFrame
        Columns ``x`` and ``r``.
    means : dict of name to DataFrame
        Columns ``x, mean, low, high``; several get a legend.
    """
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(7.2, 3.6))
        ax = chart.add_subplot()
        for own in units.values():
            own = own.sort_values("x")
            ax.plot(own["x"], own["r"], color=MUTED, lw=1, alpha=0.5)
        for paint, (name, own) in zip(CURVES * (1 + len(means) // 4), means.items(), strict=False):
            offset = _offset(list(means).index(name), len(means))
            ax.plot(own["x"] + offset, own["mean"], "o-", color=paint, lw=2.2, ms=6, label=name, zorder=4)
            ax.vlines(own["x"] + offset, own["low"].astype(float), own["high"].astype(float), color=paint, lw=1.5)
        ax.axhline(0, color=LINE, lw=0.8)
        seen = pd.concat([own["r"] for own in units.values()] + [own["mean"] for own in means.values()]).dropna()
        lows = [float(np.nanmin([*own["low"], np.inf])) for own in means.values()]
        highs = [float(np.nanmax([*own["high"], -np.inf])) for own in means.values()]
        low, high = min(float(seen.min()), max(min(lows), -0.3)), max(float(seen.max()), min(max(highs), 1.0))
        bottom, top = min(low - 0.05, 0.0), min(high + 0.06, 1.05)
        ax.set_ylim(bottom, top)
        _names(ax, units, 0.05 * (top - bottom))
        if len(means) > 1:
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(means))
    return chart


def _names(ax: Any, units: dict[str, pd.DataFrame], least: float) -> None:
    """Name the thin lines at their ends, apart by at least so much, so that none hides another."""
    ends = sorted(((own.sort_values("x").iloc[-1], name) for name, own in units.items()), key=lambda end: end[0]["r"])
    free = -np.inf
    for point, name in ends:
        free = max(float(point["r"]), free + least)
        ax.annotate(name, (point["x"], free), (9, 0), textcoords="offset points", fontsize=8, color=INK, va="center")


def _offset(position: int, n: int) -> float:
    return 0.06 * (position - (n - 1) / 2)


def _axes(chart: Figure, what: str) -> None:
    ax = chart.axes[0]
    ax.set_xlabel(what)
    ax.set_ylabel("R, mean over parcels")
    drawn = [np.asarray(line.get_xdata(), float) for line in ax.lines if line.get_marker() == "o"]
    ax.set_xticks(np.unique(np.round(np.concatenate(drawn))))
