"""Do a site's facts fit its files? One recording, read as ingest reads it, with each finding beside what to change.

A wrong fact does not end the check: it is put right for the rest, so that one run tells of everything.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mne
import numpy as np

from xsite.data.bids import pair_files, read_bold, read_eeg
from xsite.data.check_parts import (
    Check,
    alignment_check,
    artifact_check,
    bold_checks,
    channel_checks,
    eeg_checks,
    label_check,
    line_check,
    marker_check,
    prepared_checks,
)
from xsite.data.marker_looks import MarkerLook, look_at, look_at_events, ranked
from xsite.data.markers import marker_onsets, marker_trains
from xsite.data.prepare import aligned, prepare_recording
from xsite.errors import SiteError, XsiteError
from xsite.recording import Recording
from xsite.signals.align import Alignment
from xsite.signals.channel_types import ChannelType, decide_types
from xsite.signals.parcels import Atlas
from xsite.site import BoldRun, RecordingFiles, Site

__all__ = ["Check", "SiteCheck", "check_site"]


@dataclass(eq=False)
class SiteCheck:
    """What came out of checking one recording of a site.

    Parameters
    ----------
    site : Site
    recording : str
        Entities of the recording that was read; empty where there is none.
    checks : list of Check
    markers : list of MarkerLook
        Every kind of marker, the likeliest volume markers first.
    channels : list of ChannelType
    alignment : Alignment, optional
    prepared : Recording, optional
        The whole recording in the shared format, as ingest would store it.
    seconds : float
        How long it took.
    """

    site: Site
    recording: str = ""
    checks: list[Check] = field(default_factory=list)
    markers: list[MarkerLook] = field(default_factory=list)
    channels: list[ChannelType] = field(default_factory=list)
    alignment: Alignment | None = None
    prepared: Recording | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing failed; warnings do not count."""
        return bool(self.checks) and all(check.state != "fail" for check in self.checks)


def check_site(site: Site, root: Path, atlas: Atlas | None, *, subject: str | None = None) -> SiteCheck:
    """Check a site's facts against one recording.

    Parameters
    ----------
    site : Site
    root : Path
        Its data set.
    atlas : Atlas, optional
        For coverage and parcels; None only where the site publishes parcel series.
    subject : str, optional
        Label of the subject to read; the first one by default.

    Raises
    ------
    SiteError
        There is no such folder or subject.
    """
    started = time.perf_counter()
    result = SiteCheck(site)
    files = _chosen(result, Path(root), subject)
    if files is not None:
        result.recording = files.key.entities
        with mne.utils.use_log_level("error"):
            _read(result, files, atlas)
    result.seconds = time.perf_counter() - started
    return result


def _chosen(result: SiteCheck, root: Path, subject: str | None) -> RecordingFiles | None:
    """First recording; where the facts allow none, the first pair by names alone, so that the rest can be looked at."""
    site = result.site
    found, reasons = _pairs(root, site)
    expected = site.expected.recordings
    if found:
        words = f"{len(found)} recordings of {len({files.key.subject for files in found})} subjects"
        words += f", {len(reasons)} files left out" if reasons else ""
        short = expected is not None and expected != len(found)
        fix = f"expected are {expected}: complete the download, or correct `expected`" if short else ""
        result.checks.append(Check("recordings", "warn" if short else "pass", words, fix, "expected"))
    else:
        fix = "; ".join(reasons[:3]) or "no EEG and BOLD file under the folder: is it the BIDS root?"
        result.checks.append(Check("recordings", "fail", "not one pair of EEG and BOLD", fix, "task_pairs"))
        looser = replace(site, volume_marker=None, scan_start=0.0, scan_marker=None, bold_space="template")
        found, _ = _pairs(root, looser)
    if subject is not None and found:
        mine = [files for files in found if files.key.subject == subject.removeprefix("sub-")]
        if not mine:
            raise SiteError(f"{root}: no recording of subject {subject!r}; there are {_labels(found)}")
        found = mine
    if not found:
        return None
    result.checks.append(label_check(found))
    return found[0]


def _labels(found: Sequence[RecordingFiles]) -> str:
    return ", ".join(sorted({files.key.subject for files in found})[:20])


def _pairs(root: Path, site: Site) -> tuple[list[RecordingFiles], list[str]]:
    if site.find_recordings is None:
        pairing = pair_files(root, site)
        return pairing.recordings, [f"{path.name}: {reason}" for path, reason in pairing.unpaired.items()]
    if not root.is_dir():
        raise SiteError(f"site {site.name!r}: no such folder: {root}")
    try:
        return site.find_recordings(root, site), []
    except SiteError as error:
        return [], [str(error)]


def _read(result: SiteCheck, files: RecordingFiles, atlas: Atlas | None) -> None:
    """EEG, image, markers, alignment, then the whole; each fact that is wrong is put right for what follows."""
    site, checks = result.site, result.checks
    raw = _tried(checks, "EEG file", lambda: (site.read_eeg or read_eeg)(files, site))
    if raw is not None:
        found, site = eeg_checks(raw, site, files)
        checks.extend(found)
        result.channels, channels = decide_types(raw, site), channel_checks(raw, site, files)
        checks.extend(channels)
    bold, site = _opened_bold(checks, files, site)
    if raw is None or bold is None:
        return
    result.markers = _markers(raw, files, bold)
    found, site = marker_check(result.markers, site, bold)
    checks.extend(found)
    if site.read_eeg is None:  # markers of the table come in only under the right name
        raw = _tried(checks, "events table", lambda: read_eeg(files, site)) or raw
    markers = np.zeros(0) if site.volume_marker is None else marker_onsets(raw, site.volume_marker)
    scan = (float(markers.min()), float(markers.max())) if len(markers) else None
    checks.append(line_check(raw, site, scan))
    try:
        result.alignment, _ = aligned(raw, bold, site, files)
    except XsiteError as error:
        checks.append(Check("alignment", "fail", _told(error, files), "see the message", "volume_marker"))
    else:
        checks.append(alignment_check(result.alignment))
    checks.append(artifact_check(raw, site, bold.t_r, result.alignment))
    _prepare(result, files, site, atlas)


def _markers(raw: Any, files: RecordingFiles, bold: BoldRun) -> list[MarkerLook]:
    in_file = look_at(marker_trains(raw), bold.n_volumes, bold.t_r)
    in_table = look_at_events(files.eeg, float(raw.info["sfreq"]), bold.n_volumes, bold.t_r)
    there = {look.name.rpartition("/")[2] for look in in_file}
    return ranked([*in_file, *(look for look in in_table if look.name.rpartition("/")[2] not in there)], bold.n_volumes)


def _tried(checks: list[Check], name: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except XsiteError as error:
        checks.append(Check(name, "fail", f"cannot be read: {error}", "see the message", ""))
        return None


def _opened_bold(checks: list[Check], files: RecordingFiles, site: Site) -> tuple[BoldRun | None, Site]:
    """The image as the site reads it; with the repetition time that the message gives where the site's is wrong."""
    read = site.read_bold or read_bold
    try:
        bold = read(files, site)
    except SiteError as error:
        given = re.search(r"repetition time ([\d.]+) s, but site", str(error))
        if given is None:
            checks.append(Check("BOLD file", "fail", str(error), "correct the fact that the message names", ""))
            return None, site
        t_r = float(given[1])
        t_r = round(t_r / 1000 if t_r > 20 else t_r, 6)
        checks.append(Check("repetition time", "fail", f"{t_r:g} s in the files", f"write `t_r: {t_r:g}`", "t_r"))
        site = replace(site, t_r=t_r)
        bold = _tried(checks, "BOLD file", lambda: read(files, site))
    except XsiteError as error:
        space = "space" in str(error)
        fix = "run fMRIPrep, or `bold_space: template` if the image is in template space already" if space else ""
        checks.append(Check("BOLD file", "fail", str(error), fix or "see the message", "bold_space" if space else ""))
        return None, site
    if bold is not None:
        checks.extend(bold_checks(bold, site, files))
    return bold, site


def _prepare(result: SiteCheck, files: RecordingFiles, site: Site, atlas: Atlas | None) -> None:
    try:
        # a phantom's truth belongs to the phantom's atlas, which need not be this one
        result.prepared = prepare_recording(site=site, files=replace(files, truth=None), atlas=atlas)
    except XsiteError as error:
        said = {check.found for check in result.checks}
        words = _told(error, files)
        if words not in said:
            result.checks.append(Check("preparation", "fail", words, "see the message", ""))
        return
    result.checks.extend(prepared_checks(result.prepared, site))


def _told(error: XsiteError, files: RecordingFiles) -> str:
    return str(error).replace(f"{files.eeg.parent}/", "").replace(f"{files.bold.parent}/", "")
