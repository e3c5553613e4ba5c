"""BIDS defaults: which EEG belongs to which BOLD (and, re-exported, how both are read).

A site whose files lie otherwise brings functions of its own; these are what ``None`` in a site means.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, field
from pathlib import Path

from xsite.data.readers import EEG_READERS, marker_onsets, read_bold, read_eeg
from xsite.errors import SiteError
from xsite.recording import RecordingKey
from xsite.site import RecordingFiles, Site

__all__ = ["Pairing", "find_recordings", "marker_onsets", "pair_files", "read_bold", "read_eeg"]

logger = logging.getLogger(__name__)

PREPROC = "space-MNI152NLin2009cAsym"
MANY_PARTS = {"echo", "part"}  # one of several images of the same run: not to be read alone
Entities = tuple[str, str, str, str]


@dataclass(frozen=True)
class Pairing:
    """What lies under a root: complete recordings, and files without a partner with the reason."""

    recordings: list[RecordingFiles]
    unpaired: dict[Path, str] = field(default_factory=dict)


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """EEG and BOLD files with equal entities; files without a partner are logged and left out.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    pairing = pair_files(root, site)
    for path, reason in pairing.unpaired.items():
        logger.warning("%s: left out: %s", path, reason)
    if not pairing.recordings:
        left_out = "; ".join(f"{path.name}: {reason}" for path, reason in list(pairing.unpaired.items())[:5])
        raise SiteError(
            f"site {site.name!r}: no simultaneous EEG and BOLD run under {root}. Expected sub-XX/[ses-YY/]eeg/*_eeg"
            f"{{{','.join(EEG_READERS)}}} and sub-XX/[ses-YY/]func/*_bold.nii.gz with the same entities. "
            f"{left_out or 'No such file was found.'}"
        )
    wanted = site.expected.recordings
    if wanted is not None and wanted != len(pairing.recordings):
        logger.warning("site %s: %d recordings under %s, expected %d", site.name, len(pairing.recordings), root, wanted)
    return pairing.recordings


def pair_files(root: Path, site: Site) -> Pairing:
    """Pair without raising on unpaired files: for dry runs.

    Raises
    ------
    SiteError
        The folder is absent.
    """
    root = Path(root)
    if not root.is_dir():
        raise SiteError(f"site {site.name!r}: no such folder: {root}")
    unpaired: dict[Path, str] = {}
    eeg = _by_entities(_listed(root, "eeg", tuple(f"_eeg{suffix}" for suffix in EEG_READERS)), unpaired)
    bold = _by_entities(_listed(root, "func", ("_bold.nii.gz", "_bold.nii")), unpaired)
    prepared = root / "derivatives" / "fmriprep"
    images = _listed(prepared, "func", ("_desc-preproc_bold.nii.gz", "_desc-preproc_bold.nii"))
    bold |= _by_entities([path for path in images if PREPROC in path.name], unpaired)
    recordings = []
    for entities in sorted(eeg.keys() & bold.keys()):
        key = RecordingKey(site.name, *_labels(eeg[entities]))
        recordings.append(_recording_files(root, key, eeg[entities], bold[entities]))
    for here, there, other in ((eeg, bold, "BOLD"), (bold, eeg, "EEG")):
        unpaired |= {here[e]: f"no {other} with the same entities" for e in sorted(here.keys() - there.keys())}
    return Pairing(recordings, unpaired)


def _listed(root: Path, folder: str, endings: tuple[str, ...]) -> list[Path]:
    found = [*root.glob(f"sub-*/{folder}/*"), *root.glob(f"sub-*/ses-*/{folder}/*")]
    return sorted(path for path in found if path.name.endswith(endings) and not path.name.startswith("."))


def _by_entities(paths: list[Path], unpaired: dict[Path, str]) -> dict[Entities, Path]:
    chosen: dict[Entities, Path] = {}
    for path in paths:
        parts = _parts(path)
        if MANY_PARTS & parts.keys():
            unpaired[path] = "one echo or part of a run; combine them first (fMRIPrep does)"
            continue
        subject, session, task, run = _labels(path)
        entities = (subject, session, task, run.lstrip("0") or run)  # run-1 and run-01 are one run
        if entities in chosen:
            unpaired[path] = f"same entities as {chosen[entities].name}"
        else:
            chosen[entities] = path
    return chosen


def _parts(path: Path) -> dict[str, str]:
    return dict(re.findall(r"(?:^|_)([a-z]+)-([A-Za-z0-9]+)", path.name))


def _labels(path: Path) -> Entities:
    parts = _parts(path)
    return parts.get("sub", ""), parts.get("ses", ""), parts.get("task", ""), parts.get("run", "")


def _recording_files(root: Path, key: RecordingKey, eeg: Path, bold: Path) -> RecordingFiles:
    stem = re.sub(r"(_space-[A-Za-z0-9]+)?(_desc-[A-Za-z0-9]+)?_bold\.nii(\.gz)?$", "", bold.name)
    below = Path(f"sub-{key.subject}", f"ses-{key.session}" if key.session else "", "func")
    confounds = root / "derivatives" / "fmriprep" / below / f"{stem}_desc-confounds_timeseries.tsv"
    truth = root / "derivatives" / "phantom" / below / f"{stem}_desc-noisefree_timeseries.tsv"
    return RecordingFiles(key, eeg, bold, confounds if confounds.exists() else None, truth if truth.exists() else None)
