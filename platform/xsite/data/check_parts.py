"""The single checks of ``neurobolt site check``: what was found, whether it fits the facts, and what to write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from xsite.data.marker_looks import MarkerLook
from xsite.data.markers import same
from xsite.data.prepare import SFREQ_TOLERANCE
from xsite.data.privacy import dated_labels
from xsite.errors import ChannelError
from xsite.recording import Recording
from xsite.signals.align import Alignment
from xsite.signals.line_frequency import measured_line_frequency
from xsite.signals.montage import choose_channels, locate
from xsite.signals.scan_evidence import scan_evidence
from xsite.site import BoldRun, RecordingFiles, Site

State = Literal["pass", "warn", "fail"]
MIN_COVERAGE = 0.5  # of the parcels; half-brain protocols lie above it
MAX_LEFT_UV = 100.0  # robust standard deviation of EEG in which a gradient artifact was left


@dataclass(frozen=True)
class Check:
    """One finding.

    Parameters
    ----------
    name : str
    state : {"pass", "warn", "fail"}
        "fail" is required for ingest; "warn" is what a person should look at.
    found : str
        What the files say.
    fix : str
        What to do, empty where nothing.
    fact : str
        Which fact of the site it is about, empty where none.
    """

    name: str
    state: State
    found: str
    fix: str = ""
    fact: str = ""


def label_check(found: Sequence[RecordingFiles]) -> Check:
    """Labels become keys in the store; those that are days are replaced there."""
    labels = dated_labels(found)
    if not labels:
        return Check("privacy of labels", "pass", "no subject, session or run label holds a date")
    fix = "ingest stores their order instead (p1, day1, ...); rename them if they should have names of their own"
    return Check("privacy of labels", "warn", f"labels that look like a date: {', '.join(labels[:5])}", fix)


def eeg_checks(raw: Any, site: Site, files: RecordingFiles) -> tuple[list[Check], Site]:
    """File and rate, and the site with the rate of the file."""
    found = float(raw.info["sfreq"])
    opened = f"{files.eeg.name}: {len(raw.ch_names)} channels, {raw.n_times / found:.1f} s"
    checks = [Check("EEG file", "pass", opened)]
    if abs(found / site.sfreq - 1) > SFREQ_TOLERANCE:
        fix = f"write `sfreq: {found:g}`"
        return [*checks, Check("sampling frequency", "fail", f"{found:g} Hz", fix, "sfreq")], replace(site, sfreq=found)
    return [*checks, Check("sampling frequency", "pass", f"{found:g} Hz", "", "sfreq")], site


def channel_checks(raw: Any, site: Site, files: RecordingFiles) -> list[Check]:
    """Names, types, and where the electrodes sit."""
    try:
        picked = choose_channels(raw, site, source=files.eeg.name)
    except ChannelError as error:
        fix = "map names with `rename`, give other channels a type with `ch_types`, or correct `ch_names`"
        return [Check("channels", "fail", str(error), fix, "rename")]
    words = f"{len(picked.ch_names)} EEG channels of {len(raw.ch_names)}, all names known"
    corrected = picked.notes.get("types", [])
    if corrected:
        words += "; types corrected: " + ", ".join(f"{c['channel']} {c['from']} to {c['to']}" for c in corrected[:6])
    unnamed = picked.notes.get("unnamed", [])
    lost = [c["channel"] for c in corrected if c["from"] == "eeg" and c["evidence"].startswith("signal")]
    fix = (
        f"if {', '.join(lost)} are electrodes, name them in `rename`; else say what they are in `ch_types`"
        if lost
        else ""
    )
    checks = [Check("channels", "warn" if unnamed or lost else "pass", words, fix, "rename" if lost else "ch_types")]
    placed = locate(raw, picked.file_names, picked.ch_names)
    known = int(np.isfinite(placed.positions_C3).all(axis=1).sum())
    lacking = known < len(picked.ch_names)
    words = f"{placed.source}; {known} of {len(picked.ch_names)} known"
    fix = "electrodes without a position cannot be interpolated; publish electrodes.tsv" if lacking else ""
    return [*checks, Check("positions", "warn" if lacking else "pass", words, fix)]


def bold_checks(bold: BoldRun, site: Site, files: RecordingFiles) -> list[Check]:
    """Volumes, repetition time, space, slice-timing reference, confounds."""
    facts = bold.facts
    notes = "; ".join(str(note) for note in facts.get("notes", []))
    checks = [
        Check("BOLD file", "pass", f"{files.bold.name}: {bold.n_volumes} volumes"),
        Check("repetition time", "pass", f"{bold.t_r:g} s" + (f" ({notes})" if notes else ""), "", "t_r"),
        Check("BOLD space", "pass", str(facts.get("space") or "as the site's own reader gives it"), "", "bold_space"),
        Check(
            "start time", "pass", f"{bold.start_time:g} s after the trigger: {facts.get('start_time_from', 'reader')}"
        ),
    ]
    if bold.confounds_VK is None:
        fix = "without confounds only the trend is removed: add fMRIPrep's table, or say `confounds: none`"
        state: State = "pass" if site.confounds == "none" else "warn"
        return [*checks, Check("confounds", state, "none", "" if state == "pass" else fix, "confounds")]
    names = ", ".join(bold.confound_names[:6]) + (", ..." if len(bold.confound_names) > 6 else "")
    return [*checks, Check("confounds", "pass", f"{len(bold.confound_names)}: {names}", "", "confounds")]


def marker_check(looks: Sequence[MarkerLook], site: Site, bold: BoldRun) -> tuple[list[Check], Site]:
    """The site's volume marker among those that are there, and the site with the one that looks like it."""
    best = looks[0] if looks and looks[0].likeness in ("volumes", "slices") else None
    if site.volume_marker is None:
        if best is None:
            return [Check("volume marker", "pass", "none, as the site says", "", "volume_marker")], site
        words = f"the site says none, but {best.name!r} ({best.words})"
        return [Check("volume marker", "warn", words, _marker_fix(best), "volume_marker")], site
    mine = next((look for look in looks if same(look.name, site.volume_marker)), None)
    if mine is not None and mine.likeness in ("volumes", "slices") and mine.per_volume == site.triggers_per_volume:
        return [Check("volume marker", "pass", f"{mine.name!r}: {mine.words}", "", "volume_marker")], site
    words = f"no {site.volume_marker!r} in this recording" if mine is None else f"{mine.name!r}: {mine.words}"
    if best is None or best is mine:
        state: State = "fail" if mine is None and site.scan_start is None else "warn"
        fix = "no marker looks like the volumes; " + ("see the table of markers" if looks else "the file has no marker")
        return [Check("volume marker", state, words, fix, "volume_marker")], site
    better = f"{words}; {best.name!r} looks like the volumes ({best.words})"
    wrong: State = "fail" if mine is None or mine.likeness not in ("volumes", "volumes?") else "warn"
    check = Check("volume marker", wrong, better, _marker_fix(best), "volume_marker")
    if wrong == "warn":
        return [check], site
    site = replace(site, volume_marker=best.name, triggers_per_volume=best.per_volume)
    if best.place != "file":
        site = replace(site, events_unit=best.unit, events_sfreq=best.unit_sfreq)
    return [check], site


def _marker_fix(look: MarkerLook) -> str:
    fix = f"write `volume_marker: {look.name!r}`"
    if look.per_volume > 1:
        fix += f" and `triggers_per_volume: {look.per_volume}`"
    if look.unit != "s":
        fix += f" and `events_unit: {look.unit}`" + (
            f", `events_sfreq: {look.unit_sfreq:g}`" if look.unit_sfreq else ""
        )
    return fix


def line_check(raw: Any, site: Site, scan: tuple[float, float] | None) -> Check:
    """Mains frequency by the spectrum."""
    measured = measured_line_frequency(raw, scan)
    if measured.freq is None:
        return Check("line frequency", "pass", f"not to be seen in this EEG ({measured.words})", "", "line_freq")
    if measured.freq == site.line_freq:
        return Check("line frequency", "pass", f"{measured.freq:g} Hz ({measured.words})", "", "line_freq")
    fix = f"write `line_freq: {measured.freq:g}`"
    return Check("line frequency", "fail", f"{measured.freq:g} Hz ({measured.words})", fix, "line_freq")


def alignment_check(alignment: Alignment) -> Check:
    """Verdict of the audit."""
    valid = int(alignment.volume_valid.sum())
    words = (
        f"{alignment.verdict}, confidence {alignment.confidence:g}; {valid} of {len(alignment.volume_valid)} volumes"
    )
    words += "".join(f"; {repair.evidence}" for repair in alignment.repairs)
    if alignment.verdict in ("ok", "repaired"):
        return Check("alignment", "pass", words)
    fix = (
        "usable, but nothing beside the markers shows which one is the first volume. If a task marker's time in the "
        "scan is known, write `protocol_marker` and `protocol_onset`"
    )
    return Check("alignment", "warn" if alignment.verdict == "unverified" else "fail", words, fix, "protocol_marker")


def artifact_check(raw: Any, site: Site, t_r: float, alignment: Alignment | None) -> Check:
    """Whether the gradient artifact is in the EEG, and whether the site says so."""
    markers = None if alignment is None else alignment.triggers
    seen = scan_evidence(raw, t_r, markers)
    times = [
        f"{what} {at:.2f} s"
        for what, at in (("from", seen.artifact_onset), ("to", seen.artifact_end))
        if at is not None
    ]
    if times and site.eeg_state == "raw":
        return Check("gradient artifact", "pass", "seen " + " ".join(times), "", "eeg_state")
    if times:
        fix = "write `eeg_state: raw`, unless this is what a correction left over"
        spread = spread_uv(raw)
        state: State = "fail" if spread > MAX_LEFT_UV else "warn"
        words = f"seen {' '.join(times)} (spread {spread:.0f} µV), but the site says {site.eeg_state!r}"
        return Check("gradient artifact", state, words, fix, "eeg_state")
    if site.eeg_state == "raw":
        words = "its begin and end are not seen, but the site says 'raw'"
        fix = "fine for EEG that is cut to the scan; if the artifact was removed, write `eeg_state: gradient-corrected`"
        return Check("gradient artifact", "warn", words, fix, "eeg_state")
    return Check("gradient artifact", "pass", f"not seen, as for {site.eeg_state!r}", "", "eeg_state")


def spread_uv(raw: Any) -> float:
    """Robust standard deviation of a few EEG channels in the middle of the file, microvolt."""
    sfreq = float(raw.info["sfreq"])
    eeg = np.flatnonzero(np.array(raw.get_channel_types()) == "eeg")
    middle, half = raw.n_times // 2, round(min(10.0, raw.n_times / sfreq / 2) * sfreq / 2)
    data_CT = raw.get_data(picks=eeg[:: max(1, len(eeg) // 8)], start=max(0, middle - half), stop=middle + half) * 1e6
    centred_CT = data_CT - np.median(data_CT, axis=1, keepdims=True)
    return float(np.median(1.4826 * np.median(np.abs(centred_CT), axis=1)))


def prepared_checks(recording: Recording, site: Site) -> list[Check]:
    """What only the whole recording shows: amplitudes, coverage, whether there is anything to train on."""
    quality, steps = recording.quality, recording.provenance["steps"]
    spread = float(quality["eeg_robust_sd_uv"])
    unit: dict[str, Any] = next((step for step in steps if step.get("step") == "unit"), {})
    usual = bool(unit.get("usual", True))
    words = f"{spread:.3g} µV robust standard deviation after cleaning"
    words += f"; factor {unit['factor']:g} applied" if unit.get("factor", 1) != 1 else ""
    fix = "" if usual else "unusual for EEG: see `eeg_scale`, and whether an artifact was left in"
    checks = [Check("units", "pass" if usual else "warn", words, fix, "eeg_scale")]
    share = float(quality["bold_parcel_coverage_fraction"])
    enough = share >= MIN_COVERAGE
    fix = "" if enough else "the image covers too little of the atlas: another field of view, or not in template space"
    words = f"{share:.0%} of {recording.bold.shape[1]} parcels of {recording.parcellation.name}"
    checks.append(Check("parcel coverage", "pass" if enough else "fail", words, fix, "bold_space"))
    reason = recording.provenance.get("excluded")
    if reason:
        state: State = "warn" if site.unusable else "fail"
        return [
            *checks,
            Check("usable for training", state, str(reason), "see the alignment and the length of the EEG"),
        ]
    n_valid = int(recording.volume_valid.sum())
    return [*checks, Check("usable for training", "pass", f"{n_valid} of {recording.n_volumes} volumes")]
