"""The carpet plot of one recording: every parcel at every volume, with motion and DVARS above it."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from xsite.recording import Float, Recording
from xsite.reports.markup import MUTED, STYLE
from xsite.signals.bold_cleaning import FD

FD_LIMIT_MM = 0.5  # Power et al. 2012
LOST, MOTION, CHANGE = "#d0453b", "#7a5cc4", "#e07b28"


def framewise_displacement(recording: Recording) -> Float | None:
    """Framewise displacement in mm, shape (V,), where the store has it."""
    if FD not in recording.confound_names:
        return None
    fd_V = np.asarray(recording.confounds[:, recording.confound_names.index(FD)], float)
    return fd_V if np.isfinite(fd_V).any() else None


def carpet_chart(recording: Recording) -> Figure:
    """Parcels as a picture, volume by volume; what is not used is marked in red below the carpet."""
    dvars = (recording.provenance.get("summaries") or {}).get("dvars_percent")
    fd_V = framewise_displacement(recording)
    traces = [(fd_V, "FD, mm", MOTION)] if fd_V is not None else []
    if dvars is not None and len(dvars) == recording.n_volumes:
        traces.append((np.array([np.nan if v is None else v for v in dvars], float), "DVARS, %", CHANGE))
    t = np.arange(recording.n_volumes) * recording.t_r
    heights = [1.0] * len(traces) + [3.4, 0.22]
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 0.75 * sum(heights) + 0.9))
        axes = chart.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        for ax, (values_V, name, paint) in zip(axes, traces, strict=False):
            shown_V = np.where(np.arange(len(values_V)) > 0, values_V, np.nan)  # the first volume follows none
            ax.plot(t, shown_V, color=paint, lw=1.0)
            ax.set_ylabel(name)
            ax.set_ylim(0, max(1.1 * float(np.nanmax(np.append(shown_V, 0))), 1e-3))
            if paint == MOTION:
                ax.axhline(FD_LIMIT_MM, color=MUTED, lw=0.8, ls=(0, (4, 2)))
        carpet, strip = axes[-2:]
        _carpet(carpet, recording)
        extent = (-0.5 * recording.t_r, (recording.n_volumes - 0.5) * recording.t_r, 0, 1)
        strip.imshow(
            np.where(recording.volume_valid, 0.0, 1.0)[None],
            aspect="auto",
            cmap=matplotlib.colors.ListedColormap(["#3d74d933", LOST]),
            vmin=0,
            vmax=1,
            extent=extent,
            interpolation="nearest",
        )
        strip.set_yticks([])
        strip.grid(False)
        strip.set_ylabel("used", rotation=0, ha="right", va="center")
        strip.set_xlabel("Seconds from the first volume")
        chart.align_ylabels(axes[:-1])
        chart.subplots_adjust(hspace=0.14)
    return chart


def _carpet(ax: matplotlib.axes.Axes, recording: Recording) -> None:
    valid = recording.volume_valid if recording.volume_valid.any() else np.ones(recording.n_volumes, bool)
    centre_R = recording.bold[valid].mean(0)
    spread_R = recording.bold[valid].std(0)
    z_RV = ((recording.bold - centre_R) / np.where(spread_R > 0, spread_R, 1)).T
    ax.imshow(
        z_RV,
        aspect="auto",
        cmap="gray",
        vmin=-2,
        vmax=2,
        interpolation="nearest",
        extent=(-0.5 * recording.t_r, (recording.n_volumes - 0.5) * recording.t_r, len(z_RV) - 0.5, -0.5),
    )
    ax.grid(False)
    ax.set_ylabel("Parcels (z)")
