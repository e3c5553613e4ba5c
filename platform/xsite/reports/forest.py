"""The forest plot: every site on its own line, and below it what all of them say together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from xsite.evaluation.subjects import subject_scores
from xsite.reports.figures import colour, spread
from xsite.reports.folder import Study
from xsite.reports.markup import INK, LINE, MUTED, STYLE, Html, figure, inline_svg, interval, join, number, tag
from xsite.reports.verdict import label, rival_of


def forest_section(study: Study) -> Html:
    """Interval of every site over its subjects, of the next site over the sites, and of these sites."""
    rows = [r for r in study.summary["intervals"] if r["model"] == study.model and not r["control"]]
    rows = sorted((r for r in rows if r["r_mean"] is not None), key=lambda r: -r["r_mean"])
    total = next((r for r in study.summary["overall"] if r["model"] == study.model and not r["control"]), None)
    if not rows or total is None or total["r_mean"] is None:
        return Html("")
    rival = rival_of(study.model, study.summary)
    theirs = {r["site"]: r for r in study.summary["intervals"] if r["model"] == rival and not r["control"]}
    subjects = subject_scores(study.scores)
    mine = subjects[(subjects["model"] == study.model) & ~subjects["control"].astype(bool)]
    dots = {str(site): group["r"].dropna().tolist() for site, group in mine.groupby("site")}
    chart = forest(rows, theirs, dots, total, (study.model, rival))
    below = f" Ring: {label(rival)}." if rival else ""
    caption = (
        f"{label(study.model)}. Square: mean over the site's subjects, its area their number; line: 95 % t-interval "
        f"over subjects; dots: subjects; grey bar: where 95 % of the site's own "
        f"surrogates lie ({_width(study)}).{below} Diamonds: mean over the "
        f"sites, with the 95 % interval for a site to come (t over {total['n_sites']} site means) and for exactly "
        f"these sites (Welch, over {total['n_subjects']} subjects). Selection rule: {study.summary['selection']}. "
        f"Access to the test site: {study.summary['test_site_access']}."
    )
    picture = figure(inline_svg(chart, name="forest", label="Forest plot over the held-out sites"), caption)
    return join([tag("p", _sentence(rows, total, study)), picture, _few(rows, total)])


def _sentence(rows: Sequence[Mapping[str, Any]], total: Mapping[str, Any], study: Study) -> str:
    best, worst = rows[0], rows[-1]
    bounds = interval(total["ci_low"], total["ci_high"])
    expected = f"A site to come may expect R {number(total['r_mean'])}, 95 % interval {bounds}"
    if bounds == "–":
        expected = f"One site, R {number(total['r_mean'])}: it says nothing about a site to come"
    return (
        f"{expected}. {label(study.model)} is best at {best['site']} ({number(best['r_mean'])}) and worst at "
        f"{worst['site']} ({number(worst['r_mean'])})."
    )


def _width(study: Study) -> str:
    if study.summary.get("crossed_sites"):
        return "null √2 wider where a site's own folds train on one another's subjects"
    return "null as drawn, not widened"


def _few(rows: Sequence[Mapping[str, Any]], total: Mapping[str, Any]) -> Html:
    few = [r["site"] for r in rows if r["few"]]
    words = [total.get("warning") or ""]
    words += [f"Fewer than five subjects at {', '.join(few)}: those intervals are wide."] if few else []
    return join(tag("p", sentence, class_="warn") for sentence in words if sentence)


def forest(
    rows: Sequence[Mapping[str, Any]],
    rivals: Mapping[str, Mapping[str, Any]],
    dots: Mapping[str, Sequence[float]],
    total: Mapping[str, Any],
    names: tuple[str, str | None],
) -> Figure:
    """Draw one line per site, in the given order, and two diamonds.

    Parameters
    ----------
    rows : sequence of mapping
        ``site, r_mean, ci_low, ci_high, null_low, null_high, n_subjects``.
    rivals : mapping of site to mapping
        The same of the model that is shown beside.
    dots : mapping of site to sequence of float
        Subjects.
    total : mapping
        ``r_mean, ci_low, ci_high, here_low, here_high``.
    names : tuple
        The model and its rival.
    """
    paint, n = colour(names[0]), len(rows)
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x", "axes.spines.left": False}):
        chart = Figure(figsize=(9.6, 0.46 * (n + 2) + 0.9))
        ax = chart.add_subplot()
        largest = max(row["n_subjects"] for row in rows)
        for y, row in enumerate(rows):
            _line(ax, y, row, rivals.get(row["site"]), dots.get(row["site"], ()), paint, names[1], largest)
        for y, (low, high) in enumerate((("ci_low", "ci_high"), ("here_low", "here_high")), start=n):
            _diamond(ax, y + 0.3, total["r_mean"], total.get(low), total.get(high), paint)
        ax.axvline(0, color=MUTED, lw=0.8)
        ax.axhline(n - 0.35, color=LINE, lw=1)
        words = [f"{row['site']}  n {row['n_subjects']}" for row in rows] + ["A site to come", "Exactly these sites"]
        ax.set_yticks([*range(n), n + 0.3, n + 1.3], words)
        ax.tick_params(axis="y", labelcolor=INK)
        ax.set_ylim(n + 1.9, -0.6)
        ax.set_xlabel("R, mean over parcels")
        ends = [(row["r_mean"], row["ci_low"], row["ci_high"]) for row in rows]
        ends += [(total["r_mean"], total.get(f"{kind}_low"), total.get(f"{kind}_high")) for kind in ("ci", "here")]
        heights = [*range(n), n + 0.3, n + 1.3]
        for y, (mean, low, high) in zip(heights, ends, strict=True):
            written = f"{number(mean)}  {interval(low, high)}"
            ax.text(1.02, y, written, transform=ax.get_yaxis_transform(), va="center", fontsize=9, color=INK)
        _limits(ax, [*rows, *(rivals[row["site"]] for row in rows if row["site"] in rivals)], dots, total)
    return chart


def _line(
    ax: Any,
    y: int,
    row: Mapping[str, Any],
    other: Mapping[str, Any] | None,
    subjects: Sequence[float],
    paint: str,
    rival: str | None,
    largest: int,
) -> None:
    if row["null_low"] is not None:
        ax.barh(y, row["null_high"] - row["null_low"], 0.62, left=row["null_low"], color=LINE, lw=0, zorder=1)
    ax.scatter(sorted(subjects), y + spread(len(subjects), 0.4), s=10, color=paint, alpha=0.4, lw=0, zorder=3)
    if row["ci_low"] is not None:
        ax.plot([row["ci_low"], row["ci_high"]], [y, y], color=paint, lw=1.8, zorder=4)
    size = 30 + 60 * row["n_subjects"] / largest
    ax.scatter([row["r_mean"]], [y], marker="s", s=size, color=paint, lw=0, zorder=5)
    if other is not None and rival and other["r_mean"] is not None:
        ax.plot(other["r_mean"], y, "o", ms=7, mfc="none", mec=colour(rival), mew=1.7, zorder=6)


def _diamond(ax: Any, y: float, mean: float, low: float | None, high: float | None, paint: str) -> None:
    if low is None or high is None:
        ax.plot(mean, y, "D", ms=7, color=paint)
        return
    ax.fill([low, mean, high, mean], [y, y - 0.28, y, y + 0.28], color=paint, alpha=0.9, lw=0, zorder=5)


def _limits(
    ax: Any, rows: Sequence[Mapping[str, Any]], dots: Mapping[str, Sequence[float]], total: Mapping[str, Any]
) -> None:
    """From what is measured, not from intervals that few subjects make as wide as the page."""
    seen = [value for own in dots.values() for value in own]
    seen += [row["r_mean"] for row in rows if row["r_mean"] is not None]
    seen += [row[name] for row in rows for name in ("null_low", "null_high") if row[name] is not None]
    low, high = float(np.min(seen)), float(np.max(seen))
    room = 0.12 * (high - low) + 0.05
    bounds = [total.get("ci_low"), total.get("ci_high")]
    if bounds[0] is not None and bounds[1] is not None:
        low, high = min(low, max(bounds[0], -0.6)), max(high, min(bounds[1], 1.0))
    ax.set_xlim(max(low - room, -1.0), min(high + room, 1.02))
