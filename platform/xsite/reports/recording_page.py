"""The page of one recording: whether it can be trusted, and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xsite.data.attributes import Attributes
from xsite.data.refused import without_folders
from xsite.data.windows import window_starts
from xsite.recording import Recording
from xsite.reports import recording_figures as figures
from xsite.reports.carpet import carpet_chart, framewise_displacement
from xsite.reports.markup import Html, figure, inline_svg, join, number, table, tag
from xsite.reports.page import Section, header, page
from xsite.reports.recording_tables import facts_section, rule_section, step_section
from xsite.reports.verdict import Tone
from xsite.spelling import counted

TONES: Mapping[str, Tone] = {"ok": "good", "repaired": "good", "unverified": "open", "rejected": "bad"}


def recording_page(recording: Recording, attributes: Attributes) -> str:
    """Build the page of one recording.

    Parameters
    ----------
    recording : Recording
        From the store.
    attributes : Attributes
        The same recording's attributes, with its row of the manifest.
    """
    sections = [
        Section("alignment", "Alignment", "Triggers and volumes", _alignment(recording)),
        Section("spectra", "Spectra", "EEG before and after correction", _spectra(recording)),
        Section("channels", "Channels", "Channel map", _channels(recording)),
        Section("carpet", "Carpet", "Parcels, motion, DVARS", _carpet(recording)),
        Section("coverage", "Coverage", "Parcel coverage", _coverage(recording)),
        Section("lags", "EEG and BOLD", "EEG band power against BOLD", _lags(recording)),
        Section("rules", "Exclusion", "Exclusion rules", rule_section(attributes)),
        Section("steps", "Steps", "What was done", step_section(recording.provenance)),
        Section("sources", "Sources", "Source files and their faults", facts_section(recording.provenance)),
    ]
    return page(str(recording.key), _top(recording, attributes), sections)


def verdict_of(provenance: Mapping[str, Any]) -> str:
    """Alignment verdict, ``unverified`` where none is known."""
    return str((provenance.get("alignment") or {}).get("verdict") or "unverified")


def _top(recording: Recording, attributes: Attributes) -> Html:
    verdict = verdict_of(recording.provenance)
    facts = recording.provenance.get("alignment") or {}
    reason = without_folders(str((facts.get("evidence") or ["no evidence recorded"])[-1]))
    tone, sentence = TONES[verdict], f"Alignment {verdict}, {reason}."
    title, lead = "Used for training", sentence
    if attributes.excluded:
        tone, title, lead = "bad", "Excluded from training", f"{attributes.excluded}."
    elif verdict == "unverified":
        title = "Used for training, alignment unverified"
    fd_V = framewise_displacement(recording)
    tiles = [
        (f"{len(recording.ch_names)}", "EEG channels"),
        (f"{recording.eeg.shape[1] / recording.sfreq / 60:.1f} min", "of EEG"),
        (f"{int(recording.volume_valid.sum())} / {recording.n_volumes}", f"volumes of {recording.t_r:g} s kept"),
        (f"{len(window_starts(recording)[0])}", "windows of 16 s"),
        (number(facts.get("confidence")), f"confidence in the alignment ({verdict})"),
    ]
    if fd_V is not None:
        tiles.append((f"{number(float(np.nanmean(fd_V)))} mm", "mean FD"))
    findings: list[tuple[Tone, Any]] = [(TONES[verdict], sentence)] if attributes.excluded else []
    faults = recording.provenance.get("sidecar_faults") or {}
    if faults:
        n = sum(map(len, faults.values()))
        where = f"{counted(n, 'fault')} in {counted(len(faults), 'sidecar')}"
        findings.append(("open", f"{where}, read all the same: {', '.join(faults)}."))
    links = join([tag("a", recording.key.site, href="index.html"), " · "])
    return header(join(["Recording ", links, recording.key.entities]), title, tone, lead, tiles, findings)


def _alignment(recording: Recording) -> Html:
    facts = recording.provenance.get("alignment") or {}
    caption = (
        "Above: EEG (red: not valid) and the volumes of the image (red: not used) on the EEG's clock. Below: each "
        "volume marker against the fitted clock; a repair shows as a cross, a marker that belongs to no volume of the "
        "image as a square."
    )
    parts = [figure(inline_svg(figures.alignment_chart(recording), name="alignment", label="Alignment"), caption)]
    rows = [[r["kind"], r["n"], tag("td", without_folders(str(r["evidence"])))] for r in facts.get("repairs") or []]
    if rows:
        parts.append(tag("h3", "Repairs"))
        parts.append(table(["Repair", "Count", "Evidence"], rows, caption="In order.", kind="words"))
    elif "repairs" in facts:
        parts.append(tag("p", "Nothing had to be repaired."))
    evidence = [tag("li", without_folders(str(words))) for words in facts.get("evidence") or []]
    return join([*parts, tag("h3", "Evidence"), tag("ul", join(evidence)) if evidence else tag("p", "Not recorded.")])


def _spectra(recording: Recording) -> Html:
    published = (recording.provenance.get("summaries") or {}).get("published") or {}
    state = (recording.provenance.get("site") or {}).get("eeg_state", "not known")
    names = ", ".join(published.get("ch_names") or []) or "all channels"
    caption = (
        f"Median over {names}, the minute in the middle. Grey: the EEG in the published file (state: {state}), in its "
        "own reference; blue: what the store holds. Vertical lines: mains; shades: delta, theta, alpha, beta."
    )
    if not published.get("density_db"):
        caption += " The spectrum before correction was not kept by this version's ingest."
    return figure(inline_svg(figures.spectra_chart(recording), name="spectra", label="Spectra"), caption)


def _channels(recording: Recording) -> Html:
    chart, odd, unplaced = figures.channel_map(recording)
    steps = recording.provenance.get("steps") or []
    flat = [name for step in steps if step.get("step") == "drop flat channels" for name in step["ch_names"]]
    source = next((step.get("positions") for step in steps if step.get("step") == "pick"), None)
    words = [
        f"Seen from above, nose up. Positions: {source or 'not recorded'}.",
        f"Dropped because flat: {', '.join(flat)}." if flat else "No channel was flat.",
        f"Red ring: amplitude far from the others' ({', '.join(odd)})." if odd else "No amplitude stands out.",
        f"Without a position, not drawn: {', '.join(unplaced)}." if unplaced else "",
    ]
    return figure(inline_svg(chart, name="channels", label="Channel map"), " ".join(filter(None, words)))


def _carpet(recording: Recording) -> Html:
    caption = (
        "Grey: each parcel's cleaned series, z-scored (−2 to 2). Red below: volumes that are neither trained on nor "
        "scored. Dashed: 0.5 mm."
    )
    if framewise_displacement(recording) is None:
        caption += " Motion is not known."
    if "dvars_percent" not in (recording.provenance.get("summaries") or {}):
        caption += " DVARS is not known (parcel series as published, or an ingest by an older version)."
    return figure(inline_svg(carpet_chart(recording), name="carpet", label="Carpet plot"), caption)


def _coverage(recording: Recording) -> Html:
    labels = recording.parcellation.labels
    missing_R = np.atleast_1d(~np.isfinite(recording.bold).all(axis=0))
    known = (recording.provenance.get("summaries") or {}).get("coverage")
    absent = [label for label, gone in zip(labels, missing_R, strict=True) if gone]
    words = f"{len(labels) - len(absent)} of {len(labels)} parcels of {recording.parcellation.name} have data."
    if absent:
        shown = ", ".join(absent[:40]) + (f" and {len(absent) - 40} more" if len(absent) > 40 else "")
        words += f" Missing, and masked in loss and scores: {shown}."
    if known is None or len(known) != len(labels):
        return tag("p", words + " Their coverage by the brain mask was not kept.")
    coverage_R = np.array([0.0 if value is None else value for value in known], float)
    chart = figures.coverage_chart(labels, coverage_R, missing_R)
    caption = f"Part of each parcel's weight inside the image's brain mask. {words}"
    return figure(inline_svg(chart, name="coverage", label="Parcel coverage"), caption)


def _lags(recording: Recording) -> Html:
    chart, peak = figures.lag_chart(recording)
    caption = (
        "Log power in windows of 2 s, mean over channels, against each parcel; positive lags: the BOLD follows the "
        f"EEG. Grey: 95 % band of chance for one lag (Bartlett's effective sample size). {peak}"
    )
    return figure(inline_svg(chart, name="lags", label="EEG band power against BOLD at lags"), caption)
