"""BIDS defaults: which EEG belongs to which BOLD (and, re-exported, how both are read).

A site whose files lie otherwise brings functions of its own; these are what ``None`` in a site means.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib

from xsite.data.files import check_file
from xsite.data.readers import EEG_READERS, marker_onsets, read_bold, read_eeg
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.site import RecordingFiles, Site

__all__ = ["Pairing", "find_recordings", "marker_onsets", "pair_files", "read_bold", "read_eeg"]

logger = logging.getLogger(__name__)

SPACE = "MNI152NLin2009cAsym"
TEMPLATE_CODES = {3, 4}  # NIfTI sform/qform codes: Talairach, MNI
RUN_ENTITIES = {"sub", "ses", "task", "acq", "ce", "dir", "rec", "run", "echo"}  # what names a run, whatever its space
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
    images = _listed(root / "derivatives" / "fmriprep", "func", ("_desc-preproc_bold.nii.gz", "_desc-preproc_bold.nii"))
    bold = _by_entities([path for path in images if _parts(path).get("space") == SPACE], unpaired)
    raw = _by_entities(_listed(root, "func", ("_bold.nii.gz", "_bold.nii")), unpaired)
    refused: dict[Entities, str] = {}
    for entities in sorted(raw.keys() - bold.keys()):
        reason = "" if site.bold_space == "template" else _not_template(raw[entities], entities, images)
        if not reason:
            bold[entities] = raw[entities]
        elif entities in eeg:
            refused[entities] = unpaired[raw[entities]] = reason
    recordings = []
    for entities in sorted(eeg.keys() & bold.keys()):
        key = RecordingKey(site.name, *_labels(eeg[entities]))
        recordings.append(_recording_files(root, key, eeg[entities], bold[entities]))
    for here, there, other in ((eeg, bold, "BOLD"), (bold, eeg, "EEG")):
        for entities in sorted(here.keys() - there.keys()):
            unpaired[here[entities]] = refused.get(entities, f"no {other} with the same entities")
    return Pairing(recordings, unpaired)


def _listed(root: Path, folder: str, endings: tuple[str, ...]) -> list[Path]:
    found = [*root.glob(f"sub-*/{folder}/*"), *root.glob(f"sub-*/ses-*/{folder}/*")]
    return sorted(path for path in found if path.name.endswith(endings) and not path.name.startswith("."))


def _by_entities(paths: list[Path], unpaired: dict[Path, str]) -> dict[Entities, Path]:
    chosen: dict[Entities, Path] = {}
    for path in paths:
        if MANY_PARTS & _parts(path).keys():
            unpaired[path] = "one echo or part of a run; combine them first (fMRIPrep does)"
            continue
        entities = _entities(path)
        if entities in chosen:
            unpaired[path] = f"same entities as {chosen[entities].name}"
        else:
            chosen[entities] = path
    return chosen


def _not_template(path: Path, entities: Entities, images: Iterable[Path]) -> str:
    """Why a raw image must not be read, or nothing: parcels of an image in the scanner's space lie anywhere."""
    try:
        header = nib.load(check_file(path)).header
        if {int(header["sform_code"]), int(header["qform_code"])} & TEMPLATE_CODES:
            return ""
    except FormatError as error:
        return str(error)
    except Exception as error:  # nibabel raises all sorts on damaged files
        return f"{path.name} is not a readable NIfTI image ({error}); fetch it again"
    found = sorted(
        {_parts(image).get("space", "the subject's own") for image in images if _entities(image) == entities}
    )
    return (
        f"{path.name} is in the scanner's space and derivatives/fmriprep holds it in {', '.join(found) or 'no space'}, "
        f"not in {SPACE}: run fMRIPrep with --output-spaces {SPACE}, or, if this image is in template space already, "
        "write `bold_space: template` into the site file"
    )


def _entities(path: Path) -> Entities:
    subject, session, task, run = _labels(path)
    return subject, session, task, run.lstrip("0") or run  # run-1 and run-01 are one run


def _parts(path: Path) -> dict[str, str]:
    return dict(re.findall(r"(?:^|_)([a-z]+)-([A-Za-z0-9]+)", path.name))


def _labels(path: Path) -> Entities:
    parts = _parts(path)
    return parts.get("sub", ""), parts.get("ses", ""), parts.get("task", ""), parts.get("run", "")


def _recording_files(root: Path, key: RecordingKey, eeg: Path, bold: Path) -> RecordingFiles:
    stem = "_".join(part for part in bold.name.split("_") if part.partition("-")[0] in RUN_ENTITIES)
    below = Path(f"sub-{key.subject}", f"ses-{key.session}" if key.session else "", "func")
    folder = root / "derivatives" / "fmriprep" / below
    names = [
        f"{stem}_desc-confounds_{end}.tsv" for end in ("timeseries", "regressors")
    ]  # the latter before fMRIPrep 20.2
    confounds = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
    truth = root / "derivatives" / "phantom" / below / f"{stem}_desc-noisefree_timeseries.tsv"
    # a preprocessed image always came with confounds: where they are absent the reader shall say so
    wanted = confounds.exists() or "desc-preproc" in bold.name
    return RecordingFiles(key, eeg, bold, confounds if wanted else None, truth if truth.exists() else None)
