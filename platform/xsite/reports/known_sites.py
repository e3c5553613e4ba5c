"""Known sites beside unseen ones, and the models in order: what the study says beyond one mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from xsite.reports.figures import colour
from xsite.reports.folder import Study
from xsite.reports.markup import INK, LINE, MUTED, STYLE, Html, figure, inline_svg, interval, join, number, table, tag
from xsite.reports.verdict import label


def gap_section(study: Study) -> Html:
    """In-distribution beside out-of-distribution, per site and model."""
    rows = [row for row in study.summary.get("id_ood") or [] if row["id"] is not None]
    own = next((row for row in rows if row["model"] == study.model), None)
    if own is None:
        return Html("")
    sentence = (
        f"At sites that took part in training {label(study.model)} reaches R {number(own['id'])}, at unseen ones "
        f"{number(own['ood'])}: a gap of {number(own['gap'], sign=True)} "
        f"{interval(own['gap_low'], own['gap_high'], sign=True)} over the same {own['n_subjects']} subjects. Worst "
        f"unseen site: {own['worst_site']} ({number(own['worst'])})."
    )
    unseen, both = "when it was held out", "with and without their site in the training set"
    if study.scheme == "site-to-site":  # every model has one training site: theirs, or another
        unseen, both = "by the models of the other sites, their mean", "by their own site's model and by the others"
    caption = (
        f"{label(study.model)}. Ring: validation subjects whose site trained (ID); filled: all subjects of the site "
        f"{unseen} (OOD). The gap is paired: the same people, {both}; validation subjects chose the checkpoint, so ID, "
        "and the gap, are slightly too large. The two means are over different subjects where few of a site's select; "
        f"the gap is not. Selection rule: {study.summary['selection']}. "
        f"Access to the test site: {study.summary['test_site_access']}."
    )
    chart = gap_chart(own["sites"], colour(study.model))
    picture = figure(inline_svg(chart, name="gap", label="R at known and at unseen sites"), caption)
    body = [
        [
            label(row["model"]), number(row["id"], 3), number(row["ood"], 3), number(row["gap"], 3, sign=True),
            interval(row["gap_low"], row["gap_high"], 3, sign=True), f"{row['n_subjects']}, {row['n_sites']} sites",
            f"{row['worst_site']} {number(row['worst'])}", row.get("access", "–"),
        ]
        for row in rows
    ]  # fmt: skip
    header = [
        "Model",
        "Known sites, ID",
        "Unseen, OOD",
        "Gap",
        "95 %, sites",
        "Paired subjects",
        "Worst unseen site",
        "Access",
    ]
    note = f"Mean of the site means. Selection rule: {study.summary['selection']}. {own['warning']}"
    return join([tag("p", sentence), picture, table(header, body, caption=note)])


def gap_chart(sites: Sequence[Mapping[str, Any]], paint: str) -> Figure:
    """One line per site from its R as a known site to its R as an unseen one."""
    sites = sorted(sites, key=lambda row: -(row["ood"] if row["ood"] is not None else -2))
    with matplotlib.rc_context(STYLE | {"axes.grid.axis": "x", "axes.spines.left": False}):
        chart = Figure(figsize=(8.4, 0.36 * len(sites) + 0.9))
        ax = chart.add_subplot()
        for y, row in enumerate(sites):
            if row["id"] is not None and row["ood"] is not None:
                ax.plot([row["id"], row["ood"]], [y, y], color=paint, lw=1.6, alpha=0.5)
            for name, face in (("id", "none"), ("ood", paint)):
                if row[name] is not None:
                    ax.plot(row[name], y, "o", ms=8, mfc=face, mec=paint, mew=1.6, zorder=3)
        ax.axvline(0, color=MUTED, lw=0.8)
        ax.set_yticks(range(len(sites)), [row["site"] for row in sites])
        ax.tick_params(axis="y", labelcolor=INK)
        ax.set_ylim(len(sites) - 0.4, -0.6)
        ax.set_xlabel("R, mean over parcels")
    return chart


def rank_section(study: Study) -> Html:
    """Critical-difference view of the models."""
    ranks = study.summary.get("ranks")
    if not ranks or len(ranks["ranks"]) < 2:
        return Html("")
    order = list(ranks["ranks"])
    ahead = ranks["groups"][0]
    best = f"{label(order[0])} ranks first ({number(ranks['ranks'][order[0]])} of {len(order)})"
    others = [label(name) for name in ahead if name != order[0]]
    sentence = f"{best}; " + (
        f"it cannot be told apart from {', '.join(others)}." if others else "no other model shares its group."
    )
    friedman = ranks["friedman_p"]
    tested = f"Friedman p = {friedman:.2g}. " if friedman is not None else ""
    caption = (
        f"Average rank over {ranks['n']} {ranks['unit']}, 1 is best. A bar joins models of which no two differ "
        f"(sign-flip tests, Holm-corrected over {len(ranks['pairs'])} pairs). {tested}Nemenyi's critical difference: "
        f"{number(ranks['critical_difference'])} ranks. {ranks['unit'].capitalize()} of one site share a training: "
        f"this is about these sites. Selection rule: {study.summary['selection']}. Access to the test site: "
        f"{_levels(ranks.get('access') or {}, study)}."
    )
    picture = figure(inline_svg(rank_chart(ranks), name="ranks", label="Average ranks of the models"), caption)
    rows = [
        [f"{label(p['a'])} − {label(p['b'])}", number(p["difference"], 3, sign=True), _p(p["p"]), _p(p["p_holm"])]
        for p in ranks["pairs"]
    ]
    note = f"Paired sign-flip tests over {ranks['n']} {ranks['unit']}."
    folded = tag(
        "details", join([tag("summary", "Every pair"), table(["Pair", "R", "p", "p Holm"], rows, caption=note)])
    )
    return join([tag("p", sentence), picture, folded])


def _levels(access: Mapping[str, str], study: Study) -> str:
    """The level that all have, or who has which."""
    own = str(study.summary["test_site_access"])
    others = [f"{label(name)} {level}" for name, level in access.items() if level != own]
    return own + (f", but not like for like: {', '.join(others)}" if others else "")


def _p(value: float | None) -> str:
    return "–" if value is None else (f"{value:.1e}".replace("-", "−") if value < 0.001 else f"{value:.3f}")


def rank_chart(ranks: Mapping[str, Any]) -> Figure:
    """Ranks on a line, names at both sides, bars below it (Demsar 2006, figure 1)."""
    order, m = list(ranks["ranks"].items()), len(ranks["ranks"])
    groups = [group for group in ranks["groups"] if len(group) > 1]
    half = (m + 1) // 2
    depth = 0.34 * len(groups) + 0.3
    height = depth + 0.42 * half
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        chart = Figure(figsize=(9.0, 0.62 * (height + 1.1)))
        ax = chart.add_subplot()
        ax.axis("off")
        ax.plot([1, m], [0, 0], color=INK, lw=1)
        for tick in range(1, m + 1):
            ax.plot([tick, tick], [0, -0.12], color=INK, lw=1)
            ax.text(tick, -0.2, str(tick), ha="center", va="bottom", fontsize=9, color=INK)
        for i, (name, rank) in enumerate(order):
            left = i < half
            y = depth + 0.42 * (i if left else m - 1 - i)
            end = 1 - 0.04 * m if left else m + 0.04 * m
            ax.plot([rank, rank, end], [0, y, y], color=colour(name), lw=1.4)
            words = f"{label(name)}  {number(rank)}" if left else f"{number(rank)}  {label(name)}"
            side = "right" if left else "left"
            ax.text(end + (-0.05 if left else 0.05), y, words, ha=side, va="center", fontsize=10, color=INK)
        for i, group in enumerate(groups):
            places = [ranks["ranks"][name] for name in group]
            y = 0.24 + 0.34 * i
            ax.plot([min(places) - 0.04, max(places) + 0.04], [y, y], color=MUTED, lw=4.5, solid_capstyle="round")
        width = min(ranks["critical_difference"], m - 1)
        ax.plot([1, 1 + width], [-0.75, -0.75], color=LINE, lw=4, solid_capstyle="butt")
        ax.text(1, -0.9, f"critical difference {number(ranks['critical_difference'])}", va="bottom", fontsize=9)
        ax.set_ylim(height + 0.1, -1.3)
        ax.set_xlim(1 - 0.3 * m, m + 0.3 * m)
    return chart
