"""Where the electrodes sat (MNE) and where the scores are in the brain (nilearn)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import mne
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from xsite.recording import Float
from xsite.reports.markup import INK, MUTED, STYLE

SHARED, OWN = "#3d74d9", "#b9bcc4"


def electrode_layouts(montages: Mapping[str, Mapping[str, Any]]) -> tuple[Figure, list[str]]:
    """Draw every site's electrodes, seen from above; those that all sites share stand out.

    Parameters
    ----------
    montages : mapping of site to mapping
        ``ch_names`` and ``positions`` (C, 3), metres in MNE's head frame, None or NaN where unknown.

    Returns
    -------
    Figure, list of str
        The chart, and what could not be drawn, in words.
    """
    shared = set.intersection(*(set(m["ch_names"]) for m in montages.values()))
    n_cols = min(len(montages), 4)
    n_rows = -(-len(montages) // n_cols)
    missing: list[str] = []
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(3.0 * n_cols, 3.3 * n_rows))
        axes = chart.subplots(n_rows, n_cols, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, (site, montage) in zip(axes, montages.items(), strict=False):
            names = list(montage["ch_names"])
            positions = np.array(montage["positions"], float).reshape(len(names), 3)  # None becomes NaN
            placed = np.isfinite(positions).all(1)
            if not placed.all():
                missing.append(f"{site}: no position for {', '.join(np.array(names)[~placed])}")
            ax.set_title(f"{site}  {len(names)} channels", fontsize=10, loc="center")
            if placed.any():
                _layout(ax, [n for n, ok in zip(names, placed, strict=True) if ok], positions[placed], shared)
        chart.tight_layout()
    return chart, missing


def _layout(ax: Any, names: Sequence[str], positions: Float, shared: set[str]) -> None:
    info = mne.create_info(list(names), 200.0, "eeg")
    montage = mne.channels.make_dig_montage(dict(zip(names, positions, strict=True)), coord_frame="head")
    with mne.utils.use_log_level("ERROR"):  # no fiducials are needed to look at the electrodes
        info.set_montage(montage, on_missing="ignore")
        groups = [[i for i, name in enumerate(names) if (name in shared) is common] for common in (True, False)]
        paints = [paint for paint, group in zip((SHARED, OWN), groups, strict=True) if group]
        mne.viz.plot_sensors(
            info,
            kind="topomap",
            axes=ax,
            show=False,
            show_names=True,
            ch_groups=[group for group in groups if group],
            cmap=ListedColormap(paints),
            pointsize=22,
            linewidth=0,
            sphere=head_sphere(positions),
        )
    x, y, _, radius = head_sphere(positions)
    ax.set(xlim=(x - 1.4 * radius, x + 1.4 * radius), ylim=(y - 1.3 * radius, y + 1.35 * radius))
    for line in ax.lines:
        line.set_color(MUTED)
    for words in ax.texts:
        words.set(fontsize=5.5, color=INK)


def head_sphere(positions_C3: Float) -> tuple[float, float, float, float]:
    """Centre and radius in metres of the sphere nearest the electrodes; MNE's default where they fix none.

    The origin of the head frame lies between the ears, some 4 cm below the centre of the cap.
    """
    default = (0.0, 0.0, 0.0, 0.095)
    if len(positions_C3) < 8:
        return default
    design = np.column_stack([2 * positions_C3, np.ones(len(positions_C3))])  # |p|^2 = 2 p.c + (r^2 - |c|^2)
    *centre, offset = np.linalg.lstsq(design, (positions_C3**2).sum(1), rcond=None)[0].tolist()
    radius = float(np.sqrt(max(offset + sum(x**2 for x in centre), 0.0)))
    return (*centre, radius) if 0.07 < radius < 0.13 and max(map(abs, centre)) < 0.08 else default


def glass_brain(values_R: Float, coords_R3: Float) -> Figure:
    """Draw one marker per parcel at its MNI coordinates, coloured by its score.

    Parameters
    ----------
    values_R : array, shape (R,)
    coords_R3 : array, shape (R, 3)
        Millimetres in MNI space.
    """
    from nilearn import plotting  # a second to import, and only this function needs it

    known_R = np.isfinite(values_R) & np.isfinite(coords_R3).all(1)
    if not known_R.any():
        raise ValueError("glass brain: no parcel has both a score and coordinates")
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        chart = Figure(figsize=(9.6, 3.0))
        plotting.plot_markers(
            values_R[known_R],
            coords_R3[known_R],
            node_size=80,
            node_cmap="viridis",
            node_vmin=min(0.0, float(np.nanmin(values_R))),
            node_vmax=max(0.1, float(np.nanmax(values_R))),
            display_mode="lyrz",
            figure=chart,
            alpha=0.95,
        )
    for ax in chart.axes:  # outlines and words take the page's colours, so that the brain shows on a dark page too
        for outline in ax.patches:
            outline.set_edgecolor(INK if max(outline.get_edgecolor()[:3]) < 0.5 else MUTED)
        for words in (*ax.texts, *ax.get_yticklabels()):
            words.set_color(INK)
            words.set_bbox(None)
    return chart
