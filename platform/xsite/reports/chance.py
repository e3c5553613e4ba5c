"""Against chance: the surrogates behind every site's figure, and the parcels that are better than theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xsite.reports.figures import colour
from xsite.reports.folder import Study
from xsite.reports.markup import INK, LINE, MUTED, STYLE, Html, figure, inline_svg, interval, join, number, table, tag
from xsite.reports.verdict import label, p_value

ALPHA = 0.05
WIDER = (
    "The null of a mean over sites is √2 wider than that of independent folds, because a tested site trains the models "
    "that are tested elsewhere; √2 is the bound for linear models. Single sites have the null as drawn, unless "
    "their own subjects stand in several folds, which ties these in the same way: then it is √2 wider too."
)


def null_section(study: Study) -> Html:
    """Histogram of the surrogate means of every site, with the observed mean."""
    own = [h for h in study.summary.get("nulls") or [] if h["model"] == study.model and not h["control"]]
    if not own:
        return Html("")
    n = int(study.summary["surrogates"])
    rows = {r["site"]: r for r in study.summary["rows"] if r["model"] == study.model and not r["control"]}
    total = next(r for r in study.summary["overall"] if r["model"] == study.model and not r["control"])
    above = sum(max(row["p_null"], row["p_shift"]) <= ALPHA for row in rows.values())
    sentence = (
        f"Surrogates of the measured BOLD that know nothing of the EEG reach the observed mean R over all sites with "
        f"p = {p_value(total['p_null'], n)} (phase-randomised) and p = {p_value(total.get('p_shift'), n)} (circularly "
        f"shifted); {above} of {len(rows)} sites are below {ALPHA:g} under both."
    )
    words = (
        f"{label(study.model)}. Filled: means of {n:,} phase-randomised surrogates; outline: {n:,} circularly shifted "
        "ones; line: what was observed. Both keep the smoothness of BOLD, which makes textbook p-values too small; "
        f"neither sees a drift that EEG and BOLD share. p is one-sided, (k + 1) / (n + 1). "
    )
    rests = (
        f" n: {total['n_subjects']} subjects, {total['n_sites']} sites. Selection rule: {study.summary['selection']}. "
        f"Access to the test site: {study.summary['test_site_access']}."
    )
    caption = join([words, tag("span", WIDER, id="wider"), rests])
    chart = null_histograms(own, {**rows, "all": total}, n, colour(study.model))
    picture = figure(inline_svg(chart, name="nulls", label="Null distributions behind the observed means"), caption)
    return join([tag("p", sentence), picture])


def null_histograms(
    histograms: Sequence[Mapping[str, Any]], rows: Mapping[str, Mapping[str, Any]], n: int, paint: str
) -> Figure:
    """One panel per site, all sites together first.

    Parameters
    ----------
    histograms : sequence of mapping
        Of :func:`xsite.evaluation.null_view.null_histograms`, of one model.
    rows : mapping of site (and ``all``) to mapping
        With ``p_null`` and ``p_shift``.
    n : int
        Surrogates.
    paint : str
    """
    sites = sorted(dict.fromkeys(h["site"] for h in histograms), key=lambda site: site != "all")
    n_cols = min(len(sites), 4)
    n_rows = -(-len(sites) // n_cols)
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "axes.spines.left": False}):
        chart = Figure(figsize=(9.6, 1.75 * n_rows + 0.3))
        axes = chart.subplots(n_rows, n_cols, squeeze=False, sharex=True).ravel()
        for ax in axes[len(sites) :]:
            ax.set_visible(False)
        for ax, site in zip(axes, sites, strict=False):
            for one in (h for h in histograms if h["site"] == site):
                edges = np.linspace(one["low"], one["high"], len(one["counts"]) + 1)
                filled = one["kind"] == "phase"
                style = {"fill": True, "color": MUTED, "alpha": 0.35} if filled else {"color": MUTED, "lw": 1.1}
                ax.stairs(np.array(one["counts"]) / (edges[1] - edges[0]) / one["n"], edges, **style)
            observed = rows[site]["r_mean"]
            if observed is not None:
                ax.axvline(observed, color=paint, lw=2.2)
            ax.axvline(0, color=LINE, lw=0.8)
            ps = [p_value(rows[site].get(name), n) for name in ("p_null", "p_shift")]
            ax.set_title(f"{'All sites' if site == 'all' else site}  p {ps[0]}, {ps[1]}", fontsize=9, color=INK)
            ax.set_yticks([])
            ax.tick_params(labelbottom=True)
        chart.supxlabel("R, mean over parcels", fontsize=9)
        chart.tight_layout()
    return chart


def significant_parcels(study: Study) -> tuple[list[Mapping[str, Any]], str]:
    """Rows of the study's model, and the corrected p-value that can reach 5 % with this number of surrogates.

    Returns
    -------
    rows : list of mapping
        Empty where the summary knows no parcels, or no surrogates were drawn.
    column : str
        ``p_holm``, or ``p_max`` where Holm's correction needs more surrogates than there are.
    """
    rows = [r for r in study.summary.get("parcels") or [] if r["model"] == study.model and not r["control"]]
    rows = [r for r in rows if r["p_holm"] is not None] if study.summary.get("surrogates") else []
    column = "p_holm" if all(r["p_floor"] <= ALPHA for r in rows) else "p_max"
    return rows, column


def parcel_section(study: Study) -> Html:
    """Every parcel with interval, partial R and corrected p-value."""
    rows, column = significant_parcels(study)
    if not rows:
        return Html("")
    rows = sorted(rows, key=lambda r: -(r["r_mean"] if r["r_mean"] is not None else -2.0))
    found = [r for r in rows if (r[column] or 1.0) <= ALPHA and (r["r_mean"] or 0) > 0]
    named = {"p_holm": "Holm's correction", "p_max": "the maximum over parcels"}[column]
    sentence = f"{len(found)} of {len(rows)} parcels are better than chance, family-wise at 5 % by {named}."
    if column == "p_max":
        sentence += (
            f" Holm's correction could not reach 5 % with {study.summary['surrogates']:,} surrogates and is not judged."
        )
    if found:
        sentence += " Best: " + ", ".join(f"{r['parcel']} ({number(r['r_mean'])})" for r in found[:3]) + "."
    caption = (
        f"{label(study.model)}, parcels by R. Filled: better than chance after correction; ring: not shown to be. "
        f"Line: 95 % t-interval over {rows[0]['n_sites']} sites. Tick: partial R, what is left when the recording's "
        f"own measured global signal is known. n: {rows[0]['n_subjects']} subjects. Selection rule: "
        f"{study.summary['selection']}. Access to the test site: {study.summary['test_site_access']}."
    )
    chart = parcel_forest(rows, column, colour(study.model))
    picture = figure(inline_svg(chart, name="tested", label="R and partial R of every parcel"), caption)
    n = int(study.summary["surrogates"])
    return join([tag("p", sentence), picture, tag("details", join([tag("summary", "As a table"), _table(rows, n)]))])


def _table(rows: Sequence[Mapping[str, Any]], n: int) -> Html:
    header = ["Parcel", "R", "95 %, sites", "Partial R", "R2", "p", "p Holm", "p maximum", "Sites", "Subjects"]
    body = [
        [
            r["parcel"], number(r["r_mean"], 3), interval(r["ci_low"], r["ci_high"]), number(r["r_partial_mean"], 3),
            number(r["r2_mean"], 3), *(p_value(r[name], n) for name in ("p_null", "p_holm", "p_max")),
            r["n_sites"], r["n_subjects"],
        ]
        for r in rows
    ]  # fmt: skip
    caption = (
        "p: one-sided, against phase-randomised surrogates, over all sites. p Holm: corrected under any dependence "
        "between parcels; p maximum: by the largest standardised score over parcels of each surrogate. Mean over "
        f"subjects, then sites. {WIDER}"
    )
    return table(header, body, caption=caption)


def parcel_forest(rows: Sequence[Mapping[str, Any]], column: str, paint: str) -> Figure:
    """Draw R with its interval, and partial R, per parcel in the given order."""
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 3.7))
        ax = chart.add_subplot()
        for x, row in enumerate(rows):
            if row["r_mean"] is None:
                continue
            good = (row[column] or 1.0) <= ALPHA and row["r_mean"] > 0
            if row["ci_low"] is not None:
                ax.plot([x, x], [row["ci_low"], row["ci_high"]], color=paint, lw=1.4, alpha=0.55, zorder=2)
            ax.plot(x, row["r_mean"], "o", ms=6, mfc=paint if good else "none", mec=paint, mew=1.4, zorder=4)
            if row["r_partial_mean"] is not None:
                ax.plot(x, row["r_partial_mean"], "_", ms=9, mew=2.2, color=INK, zorder=3)
        ax.axhline(0, color=MUTED, lw=0.8)
        seen = [r[k] for r in rows for k in ("r_mean", "r_partial_mean", "ci_low", "ci_high") if r[k] is not None]
        ax.set_ylim(max(min([*seen, 0]) - 0.05, -0.8), min(max([*seen, 0.1]) + 0.05, 1.05))
        ax.set_xlim(-0.7, len(rows) - 0.3)
        ax.set_xticks(range(len(rows)), [row["parcel"] for row in rows], fontsize=8 if len(rows) < 40 else 6)
        for words in ax.get_xticklabels():
            words.set(rotation=90 if len(rows) > 20 else 40, ha="center" if len(rows) > 20 else "right")
            words.set_rotation_mode("default" if len(rows) > 20 else "anchor")
        ax.set_ylabel("R, mean over sites")
        _legend(chart, paint)
    return chart


def _legend(chart: Figure, paint: str) -> None:
    marks = [
        Line2D([], [], marker="o", ls="", ms=6, mfc=paint, mec=paint),
        Line2D([], [], marker="o", ls="", ms=6, mfc="none", mec=paint),
        Line2D([], [], marker="_", ls="", ms=9, mew=2.2, color=INK),
    ]
    names = ["better than chance", "not shown to be", "partial R, without the global signal"]
    chart.legend(marks, names, loc="lower left", bbox_to_anchor=(0.09, 0.9), ncols=3)
