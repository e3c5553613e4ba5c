"""Were an EEG file and a BOLD image recorded at the same time? Equal names do not say so.

Many data sets hold EEG and fMRI of the same people in the same task on different days (ds004917, ds004718, ds004796,
ds002814, ds004196). A pair needs evidence: the site's volume markers among the EEG's markers, or the explicit policy
``scan_start`` of a site without markers. Acquisition times that lie apart refuse it, whatever else speaks for it; the
free text of a sidecar refuses only EEG that has no volume markers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from xsite.data.files import known, read_json, read_tsv
from xsite.data.headers import EegHeader
from xsite.data.inheritance import eeg_json_paths, run_parts
from xsite.errors import FormatError
from xsite.site import Site

MAX_APART_S = 12 * 3600.0  # not "another date": sleep recordings run over midnight, and clocks differ by hours
OUTSIDE = re.compile(
    r"outside (?:of )?(?:the |an )?(?:\w+ )?(?:MRI?|scanner|magnet|bore)\b(?! room)"
    r"|\bnot simultaneous|\bnon-?simultaneous|\bmock scanner\b|\bshielded (?:room|chamber|cabin)\b",
    re.IGNORECASE,
)
TOLD_IN = ("TaskName", "TaskDescription", "Instructions", "EEGPlacementScheme", "SubjectArtefactDescription")
N_NAMED = 4


@dataclass(frozen=True)
class Evidence:
    """Whether two files were recorded at the same time, and what says so."""

    simultaneous: bool
    reason: str


def evidence_of(root: Path, eeg: Path, bold: Path, header: EegHeader, site: Site) -> Evidence:
    """Look for evidence in headers, tables and sidecars.

    Parameters
    ----------
    root : Path
        Of the data set, where ``scans.tsv`` files are looked for.
    eeg, bold : Path
    header : EegHeader
        Of ``eeg``.
    site : Site
        Its ``volume_marker``, ``scan_start`` and ``scan_marker``.
    """
    if contrary := _apart(root, eeg, bold):
        return Evidence(False, f"not simultaneous: {contrary}")
    told = _told_outside(eeg)  # free text: it may speak of something else, and loses against counted markers
    if site.volume_marker is not None and (count := count_of(header, site.volume_marker)):
        return Evidence(True, f"{count} x {site.volume_marker}" + (f", although {told}" if told else ""))
    unseen = not header.looked_at or site.read_eeg is not None  # not known to be without markers
    if told and not (unseen and site.volume_marker is not None and site.scan_start is None):
        return Evidence(False, f"not simultaneous: {told}")
    if site.scan_start is not None:
        return _by_policy(header, site)
    if site.volume_marker is None:
        return Evidence(
            False,
            "nothing shows that they are simultaneous: the site names neither a volume_marker nor, as a policy for EEG "
            "without markers, scan_start" + (f" ({site.unusable})" if site.unusable else ""),
        )
    if unseen:
        return Evidence(True, "markers are looked for when the file is read")
    return Evidence(
        False,
        f"nothing shows that they are simultaneous: no {site.volume_marker!r} among the EEG's markers "
        f"({_listed(header)} in {', '.join(header.looked_at)})",
    )


def _by_policy(header: EegHeader, site: Site) -> Evidence:
    policy = f"policy of the site: the scan starts {site.scan_start:g} s after"
    if site.scan_marker is None:
        return Evidence(True, f"{policy} the first EEG sample")
    if header.looked_at and site.read_eeg is None and not count_of(header, site.scan_marker):
        return Evidence(
            False,
            f"the policy counts from {site.scan_marker!r}, which is not among the EEG's markers ({_listed(header)})",
        )
    return Evidence(True, f"{policy} the first {site.scan_marker}")


def count_of(header: EegHeader, marker: str) -> int:
    """Return how many markers have this text; ``Response/R128`` and ``R128`` match each other, blanks count as one."""
    return max((count for text, count in header.markers.items() if same_marker(text, marker)), default=0)


def same_marker(found: str, wanted: str) -> bool:
    """Whether two marker texts mean the same marker, a type before the slash being optional in either."""
    found, wanted = " ".join(found.split()), " ".join(wanted.split())
    if "/" in found and "/" in wanted:
        return found == wanted
    return found.rpartition("/")[2] == wanted.rpartition("/")[2]


def _listed(header: EegHeader) -> str:
    """The commonest marker texts, quoted: what is quoted never reaches the store unless it is a code."""
    if not header.markers:
        return "none at all"
    named = [f"{text!r} x {count}" for text, count in header.markers.most_common(N_NAMED)]
    return ", ".join(named) + (", ..." if len(header.markers) > N_NAMED else "")


def _told_outside(eeg: Path) -> str:
    facts: dict[str, Any] = {}
    for sidecar in eeg_json_paths(eeg):
        facts |= read_json(sidecar)
    for key in TOLD_IN:
        said = OUTSIDE.search(str(facts.get(key, "")))
        if said:
            return f"{key} of its eeg.json says {said[0]!r}"
    return ""


def _apart(root: Path, eeg: Path, bold: Path) -> str:
    """Words about acquisition times that cannot belong to one recording; nothing where they are not both known."""
    eeg_time, bold_time = _acquired(root, eeg, "eeg"), _acquired(root, bold, "bold")
    if eeg_time is None or bold_time is None or (eeg_time.tzinfo is None) != (bold_time.tzinfo is None):
        return ""
    hours = abs((eeg_time - bold_time).total_seconds()) / 3600
    if hours * 3600 <= MAX_APART_S:
        return ""
    return f"acq_time of scans.tsv lies {hours:.0f} h apart for EEG and BOLD (correct it if both are one recording)"


def _acquired(root: Path, path: Path, kind: str) -> datetime | None:
    """Acquisition time of a run by the ``scans.tsv`` of its subject; derivatives have that of their raw file."""
    run = run_parts(path)
    for folder in (root / f"sub-{run.get('sub')}" / f"ses-{run.get('ses')}", root / f"sub-{run.get('sub')}"):
        for scans in sorted(folder.glob("sub-*_scans.tsv")):
            for name, text in _scan_times(scans):
                if run_parts(Path(name)) == run and re.search(rf"_{kind}\.", name):
                    return _time(known(text))
    return None


@lru_cache(maxsize=256)
def _scan_times(scans: Path) -> tuple[tuple[str, str], ...]:
    try:
        table = read_tsv(scans)
    except FormatError:
        return ()
    if not {"filename", "acq_time"} <= set(table.columns):
        return ()
    rows = table[["filename", "acq_time"]].dropna()
    return tuple((Path(str(name)).name, str(text)) for name, text in rows.itertuples(index=False))


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
