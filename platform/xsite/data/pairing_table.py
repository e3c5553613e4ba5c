"""The pairing of a site's files as a table to look at before anything is read: what, why not, and how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from xsite.data.headers import eeg_header
from xsite.data.inheritance import run_parts
from xsite.data.pairing import Pairing
from xsite.data.readers import EEG_READERS
from xsite.errors import FormatError
from xsite.site import Site
from xsite.spelling import counted

PAIRED, LEFT_OUT = "paired", "left out"
IMAGE_SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class PairRow:
    """One recording, or one file that is left out.

    Parameters
    ----------
    recording : str
        BIDS entities.
    eeg, bold : str
        Paths relative to the root; empty where there is none.
    status : {"paired", "left out"}
    reason : str
        What shows that a pair is simultaneous, or why a file is left out.
    eeg_seconds : float, optional
        From headers and file sizes; None where they do not say.
    n_volumes : int, optional
        From the image's header.
    """

    recording: str
    eeg: str
    bold: str
    status: str
    reason: str
    eeg_seconds: float | None = None
    n_volumes: int | None = None


def pairing_table(pairing: Pairing, root: Path, site: Site) -> list[PairRow]:
    """Rows of all recordings, then of all files that are left out, in the order of their names."""
    rows = []
    for files in pairing.recordings:
        reason = pairing.evidence.get(files.key.entities, "paired by the site's own adapter")
        if site.unusable:
            reason = f"{reason}; not for training: {site.unusable}"
        rows.append(_row(root, files.key.entities, PAIRED, reason, files.eeg, files.bold))
    return sorted(rows, key=lambda row: row.recording) + _left_out(pairing, root)


def _left_out(pairing: Pairing, root: Path) -> list[PairRow]:
    """One row a file, or one for EEG and BOLD that were refused as a pair."""
    refused = {bold: eeg for eeg, bold in pairing.refused.items()}
    rows = []
    for path, reason in sorted(pairing.unpaired.items()):
        if path in refused:
            continue
        run = "_".join(f"{name}-{label}" for name, label in run_parts(path).items()) or path.name
        is_bold = "_bold." in path.name or path.name.endswith(IMAGE_SUFFIXES)
        eeg, bold = (None, path) if is_bold else (path, pairing.refused.get(path))
        rows.append(_row(root, run, LEFT_OUT, reason, eeg, bold))
    return rows


def _row(root: Path, run: str, status: str, reason: str, eeg: Path | None, bold: Path | None) -> PairRow:
    return PairRow(
        run,
        "" if eeg is None else _relative(eeg, root),
        "" if bold is None else _relative(bold, root),
        status,
        reason,
        None if eeg is None else _seconds(eeg),
        None if bold is None else _volumes(bold),
    )


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _seconds(path: Path) -> float | None:
    if path.suffix.lower() not in EEG_READERS:
        return None
    try:
        return eeg_header(path).seconds
    except FormatError:
        return None


def _volumes(path: Path) -> int | None:
    if not path.name.endswith(IMAGE_SUFFIXES):
        return None
    try:
        shape = nib.load(path).shape
    except Exception:  # nibabel raises all sorts; the reason says what is wrong with the file
        return None
    return int(shape[3]) if len(shape) == 4 else None


def summary(rows: Sequence[PairRow], site: Site) -> str:
    """One line: how many recordings of how many subjects, and how many were expected."""
    paired = [row for row in rows if row.status == PAIRED]
    subjects = {row.recording.split("_")[0] for row in paired}
    expected = [
        f"{count} {name}"
        for count, name in ((site.expected.recordings, "recordings"), (site.expected.subjects, "subjects"))
        if count is not None
    ]
    return (
        f"{site.name}: {counted(len(paired), 'recording')} of {counted(len(subjects), 'subject')} paired, "
        f"{len(rows) - len(paired)} left out" + (f" (a complete download: {', '.join(expected)})" if expected else "")
    )
