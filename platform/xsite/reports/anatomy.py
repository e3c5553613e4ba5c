"""Where the electrodes sat (MNE) and where the scores are in the brain (nilearn)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import mne
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from xsite.data.spline_plan import SplinePlan, canonical_montage, spline_plan
from xsite.recording import Bool, Float, Montage
from xsite.reports.markup import INK, MUTED, STYLE

Sphere4 = tuple[float, float, float, float]
SHARED, OWN, MASKED = "#3d74d9", "#b9bcc4", "#d0453b"


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


def canonical_layouts(
    montages: Mapping[str, Mapping[str, Any]], ch_names: Sequence[str] = ()
) -> tuple[Figure, dict[str, SplinePlan]]:
    """Draw every site's electrodes on the canonical ones: recorded, filled in by splines, masked.

    Parameters
    ----------
    montages : mapping of site to mapping
        As for :func:`electrode_layouts`.
    ch_names : sequence of str
        Canonical montage; empty means the default one.

    Returns
    -------
    Figure, dict of site to SplinePlan
    """
    canonical = canonical_montage(ch_names)
    sphere = head_sphere(canonical.positions)
    plans: dict[str, SplinePlan] = {}
    n_cols = min(len(montages), 4)
    n_rows = -(-len(montages) // n_cols)
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(3.0 * n_cols, 3.4 * n_rows))
        axes = chart.subplots(n_rows, n_cols, squeeze=False).ravel()
        for ax in axes:
            ax.axis("off")
        for ax, (site, montage) in zip(axes, montages.items(), strict=False):
            names = tuple(montage["ch_names"])
            own = Montage(names, np.array(montage["positions"], float).reshape(len(names), 3))  # None becomes NaN
            plan = plans[site] = spline_plan(own, canonical.ch_names)
            n_filled = int((plan.usable_D & ~plan.recorded_D).sum())
            title = f"{site}  {int(plan.recorded_D.sum())} recorded, {n_filled} filled in"
            n_masked = int((~plan.usable_D).sum())
            ax.set_title(title + (f", {n_masked} masked" if n_masked else ""), fontsize=9, loc="center")
            _canonical(ax, canonical, plan, own, sphere)
        chart.tight_layout()
    return chart, plans


def _canonical(ax: Any, canonical: Montage, plan: SplinePlan, own: Montage, sphere: Sphere4) -> None:
    others = [i for i, name in enumerate(own.ch_names) if name not in canonical.ch_names]
    placed = [i for i in others if np.isfinite(own.positions[i]).all()]
    _outline(ax, sphere)
    if placed:
        x, y = seen_from_above(own.positions[placed], head_sphere(own.positions)).T
        ax.plot(x * sphere[3], y * sphere[3], "o", markersize=3.2, color=OWN, markeredgewidth=0)
    flat_D2 = seen_from_above(canonical.positions, sphere) * sphere[3]
    filled_D = plan.usable_D & ~plan.recorded_D
    for chosen_D, face, edge, mark in (
        (plan.recorded_D, SHARED, SHARED, "o"),
        (filled_D, "none", SHARED, "o"),
        (~plan.usable_D, MASKED, MASKED, "x"),
    ):
        ax.plot(*flat_D2[chosen_D].T, mark, markersize=5.2, markerfacecolor=face, markeredgecolor=edge)
    for name, (x, y) in zip(canonical.ch_names, flat_D2, strict=True):
        ax.annotate(name, (x, y), (0, 3.2), textcoords="offset points", fontsize=5.5, color=INK, ha="center")


def _outline(ax: Any, sphere: Sphere4) -> None:
    """Head and nose, a little below the sphere's equator, so that Fpz keeps clear of the nose."""
    radius, angle = 1.13 * sphere[3], np.linspace(0, 2 * np.pi, 100)
    ax.plot(radius * np.cos(angle), radius * np.sin(angle), color=MUTED, linewidth=0.9)
    ax.plot(np.array([-0.12, 0, 0.12]) * radius, np.array([0.99, 1.12, 0.99]) * radius, color=MUTED, linewidth=0.9)
    ax.set(xlim=(-1.35 * radius, 1.35 * radius), ylim=(-1.3 * radius, 1.3 * radius), aspect="equal")


def seen_from_above(positions_C3: Float, sphere: Sphere4) -> Float:
    """Azimuthal equidistant map, shape (C, 2): the vertex at 0, the sphere's equator at 1."""
    outward_C3 = np.asarray(positions_C3, float) - sphere[:3]
    outward_C3 /= np.linalg.norm(outward_C3, axis=1, keepdims=True)
    from_top_C = np.arccos(np.clip(outward_C3[:, 2], -1, 1)) / (np.pi / 2)
    azimuth_C = np.arctan2(outward_C3[:, 1], outward_C3[:, 0])
    return np.column_stack([from_top_C * np.cos(azimuth_C), from_top_C * np.sin(azimuth_C)])


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


def head_sphere(positions_C3: Float) -> Sphere4:
    """Centre and radius in metres of the sphere nearest the electrodes; MNE's default where they fix none.

    The origin of the head frame lies between the ears, some 4 cm below the centre of the cap.
    """
    default = (0.0, 0.0, 0.0, 0.095)
    positions_C3 = positions_C3[np.isfinite(positions_C3).all(1)]  # some electrodes have no known place
    if len(positions_C3) < 8:
        return default
    design = np.column_stack([2 * positions_C3, np.ones(len(positions_C3))])  # |p|^2 = 2 p.c + (r^2 - |c|^2)
    *centre, offset = np.linalg.lstsq(design, (positions_C3**2).sum(1), rcond=None)[0].tolist()
    radius = float(np.sqrt(max(offset + sum(x**2 for x in centre), 0.0)))
    return (*centre, radius) if 0.07 < radius < 0.13 and max(map(abs, centre)) < 0.08 else default


def glass_brain(values_R: Float, coords_R3: Float, strong_R: Bool | None = None) -> Figure:
    """Draw one marker per parcel at its MNI coordinates, coloured by its score.

    Parameters
    ----------
    values_R : array, shape (R,)
    coords_R3 : array, shape (R, 3)
        Millimetres in MNI space.
    strong_R : bool array, shape (R,), optional
        Parcels that stand out; the others get small markers.
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
            node_size=80 if strong_R is None else np.where(strong_R[known_R], 90, 18),
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
