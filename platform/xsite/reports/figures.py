"""The charts of a study. Each function takes tables and returns a Figure that no global state knows of."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from xsite.evaluation.collapse import GLOBAL_SIGNAL
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.recording import Float
from xsite.reports.markup import INK, LINE, MUTED, STYLE
from xsite.reports.verdict import label

COLOURS = {
    "neurobolt": "#3d74d9",
    "ridge": "#e07b28",
    "ridge-window": "#b5835a",
    "mean": "#8b8f98",
    "zero": "#a8abb3",
    ORACLE: "#2f9e77",
    GLOBAL_SIGNAL: "#5f8f2f",
    "alpha": "#c4a52c",
    "vigilance": "#a08560",
    "biot": "#7a5cc4",
    "labram": "#d0453b",
    "eegnet": "#2b9bb5",
    "neurobolt-x": "#274b9f",
    "beira": "#c2567a",
    "siren": "#12806a",
    "ffcl": "#6d7f1c",
    "cnn-transformer": "#94476b",
    "st-transformer": "#7a4a2b",
    "lag-tokens": "#e39bb4",
    "selected": "#4f5d8a",
    # variants are mostly called after their algorithm
    "erm": "#3d74d9",
    "site-balanced": "#2b9bb5",
    "coral": "#d0453b",
    "mmd": "#7a5cc4",
    "group-dro": "#6d7f1c",
    "irm": "#94476b",
    "vrex": "#7a4a2b",
    "dann": "#c2567a",
    "mixup": "#12806a",
    "mixstyle": "#e39bb4",
    "swa": "#274b9f",
    "swad": "#5aa55a",
    "site-norm": "#9a6bd0",
}
CONTROL = "#b0559e"
OTHERS = ("#8a6fdf", "#3f8fc4", "#b5651d", "#1f9d8a", "#d97fb0", "#5c6f2f", "#b23a6f", "#6b8fd6")

FINAL = "final"
"""What stands in ``held_out`` for the model that is trained on all sites."""


def colour(model: str, *, control: bool = False) -> str:
    """Keep one colour per model throughout the page."""
    return CONTROL if control else COLOURS.get(model, OTHERS[zlib.crc32(model.encode()) % len(OTHERS)])


def spread(n: int, width: float) -> Float:
    """Offsets that lay n points side by side."""
    return np.linspace(-width / 2, width / 2, n) if n > 1 else np.zeros(n)


def site_scores(intervals: pd.DataFrame, subjects: pd.DataFrame, oracle: Mapping[str, float | None]) -> Figure:
    """Mean R per site and model with its interval, every subject as a dot, the oracle as a line.

    Parameters
    ----------
    intervals : DataFrame
        Rows of :func:`xsite.evaluation.site_rows.intervals`.
    subjects : DataFrame
        Rows of :func:`xsite.evaluation.subjects.subject_scores`.
    oracle : mapping of site to mean R
    """
    shown = intervals[(intervals["model"] != ORACLE) & intervals["r_mean"].notna()]
    sites = list(dict.fromkeys(intervals["site"]))
    models = list(dict.fromkeys(zip(shown["model"], shown["control"], strict=True)))
    step = 0.72 / max(len(models), 1)
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(max(9.6, 1.1 + 1.75 * len(sites)), 3.9))
        ax = chart.add_subplot()
        for m, (model, control) in enumerate(models):
            paint = colour(model, control=control)
            for _, row in shown[(shown["model"] == model) & (shown["control"] == control)].iterrows():
                x = sites.index(row["site"]) + (m - (len(models) - 1) / 2) * step
                ax.fill_between([x - step * 0.42, x + step * 0.42], row["null_low"], row["null_high"], color=LINE, lw=0)
                mine = subjects[(subjects["site"] == row["site"]) & (subjects["model"] == model)]
                r = np.sort(mine.loc[mine["control"] == control, "r"].to_numpy())
                ax.scatter(x + spread(len(r), step * 0.45), r, s=11, color=paint, alpha=0.45, lw=0, zorder=3)
                ax.plot([x, x], [row["ci_low"], row["ci_high"]], color=paint, lw=1.8, zorder=4)
                face = "none" if control else paint
                ax.plot(x, row["r_mean"], "o", ms=7, mfc=face, mec=paint, mew=1.6, zorder=5)
        for i, site in enumerate(sites):
            value = oracle.get(site)
            if value is not None:
                ax.plot([i - 0.4, i + 0.4], [value, value], color=COLOURS[ORACLE], lw=2, ls=(0, (4, 2)), zorder=2)
        ax.axhline(0, color=MUTED, lw=0.8)
        ax.set_xticks(range(len(sites)), sites)
        ax.tick_params(axis="x", labelcolor=INK, labelsize=10)
        ax.set_xlim(-0.55, len(sites) - 0.45)
        top = float(np.nanmax([1.0, shown["r_mean"].max()])) if len(shown) else 1.0
        known = subjects.loc[subjects["r"].notna(), "r"]
        ax.set_ylim(min(-0.15, float(known.min()) - 0.05 if len(known) else 0.0), top)
        ax.set_ylabel("R, mean over parcels")
        _legend(chart, models, oracle=any(value is not None for value in oracle.values()))
    return chart


def _legend(chart: Figure, models: Sequence[tuple[str, bool]], *, oracle: bool) -> None:
    handles = [
        Line2D([], [], marker="o", ls="", ms=6, mec=colour(m, control=c), mfc="none" if c else colour(m, control=c))
        for m, c in models
    ]
    names = [label(m) + (" trained on other subjects' BOLD" if c else "") for m, c in models]
    if oracle:
        handles.append(Line2D([], [], color=COLOURS[ORACLE], lw=2, ls=(0, (4, 2))))
        names.append("Oracle")
    chart.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0.09, 0.9), ncols=min(len(names), 6), columnspacing=1.4
    )


def parcel_distribution(scores: pd.DataFrame, models: Sequence[str], parcels: Sequence[str]) -> Figure:
    """Distribution of R over all recordings, per parcel: box with quartiles, every recording as a dot.

    Parameters
    ----------
    scores : DataFrame
        Tidy scores; controls are left out.
    models, parcels : sequence of str
        Parcels in the order in which they shall appear.
    """
    own = scores[~scores["control"].astype(bool)]
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(max(9.6, 1.2 + 0.34 * len(parcels) * max(len(models), 1)), 3.8))
        ax = chart.add_subplot()
        width = 0.76 / max(len(models), 1)
        for m, model in enumerate(models):
            paint = colour(model)
            for i, parcel in enumerate(parcels):
                r = own.loc[(own["model"] == model) & (own["parcel"] == parcel), "r"].dropna().to_numpy()
                if not len(r):
                    continue
                x = i + (m - (len(models) - 1) / 2) * width
                q1, median, q3 = np.quantile(r, [0.25, 0.5, 0.75])
                ax.bar(x, q3 - q1, width * 0.72, bottom=q1, color=paint, alpha=0.22, lw=0)
                ax.plot([x - width * 0.36, x + width * 0.36], [median, median], color=paint, lw=2)
                ax.scatter(x + spread(len(r), width * 0.5), r, s=6, color=paint, alpha=0.7, lw=0, zorder=3)
        ax.axhline(0, color=MUTED, lw=0.8)
        ax.set_xticks(range(len(parcels)), parcels)
        if max(map(len, parcels), default=0) > 4:
            for words in ax.get_xticklabels():
                words.set(rotation=40, ha="right", rotation_mode="anchor")
        ax.set_xlim(-0.6, len(parcels) - 0.4)
        ax.set_ylabel("R of one recording")
        _legend(chart, [(m, False) for m in models], oracle=False)
    return chart


def series(
    predictions: Sequence[Prediction], parcels: Sequence[str], rows: Sequence[tuple[int, str]], t_r: float
) -> Figure:
    """Measured and predicted series of one recording, one panel per chosen parcel.

    Parameters
    ----------
    predictions : sequence of Prediction
        Of the same recording, the model of the study first.
    parcels : sequence of str
    rows : sequence of (parcel index, note)
        What to show; the note stands beside the parcel's name.
    t_r : float
        Seconds.
    """
    measured = predictions[0]
    t = np.arange(len(measured.valid_V)) * t_r
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 1.45 * len(rows) + 0.5))
        axes = chart.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (parcel, note) in zip(axes, rows, strict=True):
            shown = np.where(measured.valid_V, measured.target_VR[:, parcel], np.nan)
            ax.plot(t, shown, color=INK, lw=1.1, alpha=0.55, label="Measured")
            for p in reversed(predictions):
                line = np.where(p.valid_V, p.predicted_VR[:, parcel], np.nan)
                ax.plot(t, line, color=colour(p.model), lw=1.5, label=label(p.model))
            ax.set_title(f"{parcels[parcel]}: {note}", fontsize=9, pad=3)
            ax.margins(x=0.005)
        axes[-1].set_xlabel("Seconds from the first volume")
        chart.supylabel("BOLD, in units of the target", fontsize=9, x=0.055)
        chart.legend(*axes[0].get_legend_handles_labels(), loc="lower right", bbox_to_anchor=(0.905, 0.89), ncols=4)
        chart.subplots_adjust(hspace=0.5)
    return chart


def training_curves(histories: pd.DataFrame) -> Figure:
    """Training and validation loss per fold; the ring marks the epoch that validation chose.

    Parameters
    ----------
    histories : DataFrame
        Columns ``held_out, model, control, epoch, train_loss, val_loss``; ``held_out`` is ``final`` for the model that
        is trained on all sites, which has no validation.
    """
    table = histories.assign(held_out=histories["held_out"].fillna(FINAL).astype(str))
    folds = list(dict.fromkeys(table["held_out"]))
    n_cols = min(len(folds), 5)
    n_rows = -(-len(folds) // n_cols)
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(min(2.4 * max(n_cols, 2), 10.0), 2.35 * n_rows + 0.3))
        axes = chart.subplots(n_rows, n_cols, sharey=True, squeeze=False).ravel()
        for ax in axes[len(folds) :]:
            ax.set_visible(False)
        for ax, fold in zip(axes, folds, strict=False):
            for (model, control), run in table[table["held_out"] == fold].groupby(["model", "control"], sort=False):
                _curve(ax, run.sort_values("epoch"), colour(str(model), control=bool(control)))
            ax.set_title("Final model, all sites" if fold == FINAL else f"{fold} held out", fontsize=9)
            ax.set_xlabel("Epoch")
            ax.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set_ylabel("Masked MSE")
        marks = [Line2D([], [], color=MUTED, lw=1.2, ls=(0, (2, 1.5))), Line2D([], [], color=MUTED, lw=1.8)]
        kinds = dict.fromkeys(zip(table["model"], table["control"].astype(bool), strict=True))
        marks += [Line2D([], [], color=colour(m, control=c), lw=1.8) for m, c in kinds]
        names = ["training", "validation", *(label(m) + (" (control)" if c else "") for m, c in kinds)]
        chart.legend(marks, names, loc="lower left", bbox_to_anchor=(0.02, 0.985), ncols=len(names))
        chart.tight_layout(w_pad=1.5)
    return chart


def _curve(ax: Any, run: pd.DataFrame, paint: str) -> None:
    ax.plot(run["epoch"], run["train_loss"], color=paint, lw=1.2, ls=(0, (2, 1.5)), alpha=0.8)
    ax.plot(run["epoch"], run["val_loss"], color=paint, lw=1.8)
    if run["val_loss"].notna().any():
        best = run.nsmallest(1, "val_loss")
        ax.plot(best["epoch"], best["val_loss"], "o", ms=7, mfc="none", mec=paint, mew=1.6)
