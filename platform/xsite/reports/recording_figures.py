"""The charts of one recording: alignment, spectra, electrodes, coverage, lags. The carpet has a file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from xsite.recording import Float, Recording
from xsite.reports.anatomy import head_sphere, seen_from_above
from xsite.reports.markup import INK, LINE, MUTED, STYLE
from xsite.signals.lagged import BANDS, LAGS_S, band_power, chance_band, lagged_correlation
from xsite.signals.quality import robust_sd
from xsite.signals.summaries import STEP_HZ, spectrum_db, stretch

KEPT, LOST, FILLED, BEFORE = "#3d74d9", "#d0453b", "#c4a52c", "#9a9da5"
BAND_COLOURS = dict(zip(BANDS, ("#8b8f98", "#2f9e77", "#3d74d9", "#e07b28"), strict=True))
MAX_NAMED = 40  # parcels whose names fit below an axis


def alignment_chart(recording: Recording) -> Figure:
    """EEG, scan and volumes on one clock; below it, each marker against the fitted clock."""
    facts = recording.provenance.get("alignment") or {}
    scan = facts.get("scan") or {}
    start = float(facts.get("start_time") or 0.0)
    end = recording.eeg.shape[1] / recording.sfreq
    triggers_V = recording.volume_onsets - start
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 4.3))
        top, bottom = chart.subplots(2, 1, height_ratios=(1, 1.7), sharex=True)
        top.broken_barh([(0, end)], (1.05, 0.7), color=KEPT, alpha=0.25, lw=0)
        _stretches(top, ~recording.eeg_valid, recording.sfreq)
        for chosen_V, paint in ((recording.volume_valid, KEPT), (~recording.volume_valid, LOST)):
            spans = [(float(at), 0.8 * recording.t_r) for at in triggers_V[chosen_V]]
            top.broken_barh(spans, (0.0, 0.7), color=paint, lw=0)
        for name, label in (("artifact_onset", "artifact"), ("artifact_end", "artifact ends"), ("protocol_onset", "")):
            if scan.get(name) is not None:
                at = float(scan[name])
                words, height = (label, 1.95) if label else ("first volume, by the protocol", 2.4)
                top.axvline(at, color=FILLED, lw=1.4, ls="-" if label else (0, (3, 2)))
                side = {"ha": "left", "xytext": (3, 0)} if at < end / 2 else {"ha": "right", "xytext": (-3, 0)}
                top.annotate(words, (at, height), textcoords="offset points", fontsize=8, color=MUTED, **side)
        top.set_yticks([0.35, 1.4], ["volumes", "EEG"])
        top.tick_params(axis="y", labelcolor=INK)
        top.set_ylim(-0.15, 2.8)
        top.grid(False)
        _residuals(bottom, recording, triggers_V)
        bottom.set_xlabel("Seconds from the first EEG sample")
        bottom.set_xlim(-0.02 * end, 1.02 * end)
        chart.tight_layout()
    return chart


def _stretches(ax: Any, bad_T: Any, sfreq: float) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], bad_T.astype(int), [0]])))
    spans = [(float(a) / sfreq, float(b - a) / sfreq) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    ax.broken_barh(spans, (1.05, 0.7), color=LOST, lw=0)


def _residuals(ax: Any, recording: Recording, triggers_V: Float) -> None:
    markers = (recording.provenance.get("summaries") or {}).get("markers") or {}
    known = markers.get("residual_ms") or []
    spacing = float((recording.provenance.get("alignment") or {}).get("t_r_found") or recording.t_r)
    origin = float(np.median(triggers_V - spacing * np.arange(len(triggers_V))))
    number = np.arange(len(known)) + int(markers.get("first") or 0)
    residual = np.array([np.nan if value is None else value for value in known], float)
    inside = (number >= 0) & (number < len(triggers_V))
    at = origin + spacing * number
    ax.axhline(0, color=MUTED, lw=0.8)
    reach = max(1.0, 1.15 * float(np.nanmax(np.abs(residual))) if np.isfinite(residual).any() else 1.0)
    for chosen, paint, mark, words in (
        (inside & np.isfinite(residual), KEPT, ".", "marker of a volume"),
        (~inside & np.isfinite(residual), FILLED, "s", "marker before or after the image's volumes"),
    ):
        if chosen.any():
            ax.plot(at[chosen], residual[chosen], mark, ms=4, color=paint, lw=0, label=words)
    missing = inside & ~np.isfinite(residual)
    if missing.any():
        ax.plot(at[missing], np.zeros(missing.sum()), "x", ms=6, color=LOST, label="volume without a marker")
    if not len(known):
        words = "no volume markers" if "n" in markers else "marker times were not kept by this version's ingest"
        ax.annotate(words, (0.5, 0.6), xycoords="axes fraction", ha="center", color=MUTED)
    else:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=8)
    ax.set_ylim(-reach, reach)
    ax.set_ylabel("Marker minus\nclock, ms")


def spectra_chart(recording: Recording) -> Figure:
    """Median spectrum of the channels as published and as stored."""
    published = (recording.provenance.get("summaries") or {}).get("published") or {}
    line_freq = (recording.provenance.get("site") or {}).get("line_freq")
    names = [name for name in published.get("ch_names") or [] if name in recording.ch_names]
    rows = [recording.ch_names.index(name) for name in names] or list(range(len(recording.ch_names)))
    first, stop = stretch(recording.eeg.shape[1], recording.sfreq)
    after_F = spectrum_db(recording.eeg[rows, first:stop], recording.sfreq)
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 3.4))
        ax = chart.add_subplot()
        for (low, high), name in zip(BANDS.values(), BANDS, strict=True):
            ax.axvspan(low, high, color=BAND_COLOURS[name], alpha=0.08, lw=0)
        for harmonic in np.arange(line_freq, 100.1, line_freq) if line_freq else ():
            ax.axvline(harmonic, color=LINE, lw=3)
        if published.get("density_db"):
            step = float(published["step_hz"])
            density_F = np.array(published["density_db"])
            ax.plot(step * np.arange(1, len(density_F) + 1), density_F, color=BEFORE, lw=1.3, label="As published")
        ax.plot(STEP_HZ * np.arange(1, len(after_F) + 1), after_F, color=KEPT, lw=1.5, label="In the store")
        ax.set_xlim(0, min(100, recording.sfreq / 2))
        ax.set_xlabel("Hz")
        ax.set_ylabel("dB re 1 µV²/Hz")
        ax.legend(loc="upper right", ncols=2)
        chart.tight_layout()
    return chart


def channel_map(recording: Recording) -> tuple[Figure, list[str], list[str]]:
    """Electrodes seen from above, coloured by their amplitude.

    Returns
    -------
    Figure
    list of str
        Channels whose amplitude is far from the others'.
    list of str
        Channels without a position.
    """
    usable_CT = recording.eeg[:, recording.eeg_valid] if recording.eeg_valid.any() else recording.eeg
    sd_C = robust_sd(usable_CT[:, :: max(1, usable_CT.shape[1] // 20000)])  # one sample in a few tells the spread
    log_C = np.log(np.maximum(sd_C, 1e-6))
    spread = 1.4826 * float(np.median(np.abs(log_C - np.median(log_C))))
    odd_C = np.abs(log_C - np.median(log_C)) > max(3.5 * spread, np.log(2.0))
    placed = np.isfinite(recording.montage.positions).all(1)
    names = np.array(recording.ch_names)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        chart = Figure(figsize=(5.4, 4.7))
        ax = chart.add_subplot()
        ax.axis("off")
        ax.set_aspect("equal")
        angle = np.linspace(0, 2 * np.pi, 100)
        ax.plot(1.13 * np.cos(angle), 1.13 * np.sin(angle), color=MUTED, lw=0.9)
        ax.plot([-0.12, 0, 0.12], [1.12, 1.27, 1.12], color=MUTED, lw=0.9)
        if placed.any():
            flat_C2 = seen_from_above(recording.montage.positions, head_sphere(recording.montage.positions[placed]))
            edges = ["#d0453b" if odd else "none" for odd in odd_C[placed]]
            x_C, y_C = flat_C2[placed].T
            dots = ax.scatter(x_C, y_C, c=sd_C[placed], s=110, cmap="viridis", edgecolors=edges, linewidths=2)
            for name, (x, y) in zip(names[placed], flat_C2[placed], strict=True):
                ax.annotate(str(name), (x, y), (0, 7), textcoords="offset points", fontsize=6.5, color=INK, ha="center")
            bar = chart.colorbar(dots, ax=ax, shrink=0.6, pad=0.02)
            bar.outline.set_visible(False)
            bar.set_label("Robust SD, µV")
    return chart, [str(name) for name in names[odd_C]], [str(name) for name in names[~placed]]


def coverage_chart(labels: Sequence[str], coverage_R: Float, missing_R: Any) -> Figure:
    """Part of each parcel's weight that lies inside the brain mask."""
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 2.9))
        ax = chart.add_subplot()
        x = np.arange(len(labels))
        ax.bar(x, coverage_R, width=1.0 if len(x) > 150 else 0.8, color=np.where(missing_R, LOST, KEPT), lw=0)
        ax.plot(x[missing_R], np.full(int(missing_R.sum()), 0.02), "x", color=LOST, ms=5)
        ax.set_ylim(0, 1.02)
        ax.set_xlim(-0.7, len(labels) - 0.3)
        ax.set_ylabel("Coverage")
        if len(labels) <= MAX_NAMED:
            ax.set_xticks(x, labels, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
        else:
            ax.set_xlabel("Parcels in the atlas's order")
        chart.tight_layout()
    return chart


def lag_chart(recording: Recording) -> tuple[Figure, str]:
    """Band power against BOLD at a range of lags: mean parcel for each band, every parcel for alpha.

    Returns
    -------
    Figure, str
        The chart, and where the largest correlation of the mean parcel is, in words.
    """
    times_P, power_BP = band_power(recording, list(BANDS.values()))
    by_band = {name: lagged_correlation(times_P, power_BP[b], recording) for b, name in enumerate(BANDS)}
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 3.6))
        left, right = chart.subplots(1, 2, width_ratios=(1.15, 1))
        alpha = power_BP[list(BANDS).index("alpha")]
        band = chance_band(recording, times_P, alpha)
        if np.isfinite(band):
            left.axhspan(-band, band, color=LINE, lw=0)
            left.set_ylim(-1.5 * band, 1.5 * band)
        left.axvline(0, color=MUTED, lw=0.8)
        mean_of = {name: _mean_parcel(found_RL) for name, found_RL in by_band.items()}
        for name, mean_L in mean_of.items():
            left.plot(LAGS_S, mean_L, color=BAND_COLOURS[name], lw=1.6, label=name)
        largest = 1.1 * float(np.nanmax(np.abs([0.05, *np.concatenate(list(mean_of.values()))])))
        if not np.isfinite(band) or largest > 1.5 * band:
            left.set_ylim(-largest, largest)
        left.set(xlabel="Lag, s (BOLD after EEG)", ylabel="r, mean over parcels", xlim=(LAGS_S[0], LAGS_S[-1]))
        left.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, fontsize=8)
        reach = max(0.2, float(np.nanmax(np.abs(by_band["alpha"]))) if np.isfinite(by_band["alpha"]).any() else 0.2)
        extent = (LAGS_S[0] - 0.25, LAGS_S[-1] + 0.25, len(by_band["alpha"]) - 0.5, -0.5)
        picture = right.imshow(
            by_band["alpha"], aspect="auto", cmap="RdBu_r", vmin=-reach, vmax=reach, extent=extent, rasterized=True
        )
        right.grid(False)
        right.set(xlabel="Lag, s (BOLD after EEG)", ylabel="Parcel, in the atlas's order")
        right.set_title("alpha, every parcel", fontsize=9)
        bar = chart.colorbar(picture, ax=right, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("r")
        chart.tight_layout()
    return chart, _peak(mean_of, band)


def _mean_parcel(found_RL: Float) -> Float:
    known = np.isfinite(found_RL)
    counts = known.sum(0)
    return np.where(counts > 0, np.where(known, found_RL, 0).sum(0) / np.maximum(counts, 1), np.nan)


def _peak(mean_of: dict[str, Float], band: float) -> str:
    known = {name: mean_L for name, mean_L in mean_of.items() if np.isfinite(mean_L).any()}
    if not known:
        return "Too few valid volumes to tell."
    name = max(known, key=lambda n: float(np.nanmax(np.abs(known[n]))))
    at = int(np.nanargmax(np.abs(known[name])))
    r = float(known[name][at])
    shown = "outside" if abs(r) > band else "inside"
    sign = "−" if r < 0 else ""
    return (
        f"Largest: {name} at {LAGS_S[at]:+.1f} s, r {sign}{abs(r):.2f}, {shown} the 95 % band of chance for one lag "
        f"(±{band:.2f}). Many lags are looked at: read it as a picture, not as a test."
    )
