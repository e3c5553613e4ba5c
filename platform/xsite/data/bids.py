"""BIDS defaults: where EEG and BOLD lie, and which belong together (and, re-exported, how both are read).

A site whose files lie otherwise brings functions of its own; these are what ``None`` in a site means.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import nibabel as nib

from xsite.data.bold_readers import read_bold
from xsite.data.files import check_file
from xsite.data.inheritance import name_parts, run_parts
from xsite.data.pairing import MANY_PARTS, Pairing, pair_lists
from xsite.data.readers import EEG_READERS, marker_onsets, read_eeg
from xsite.data.spaces import choose_image, why_not
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.site import RecordingFiles, Site

__all__ = [
    "Pairing",
    "find_recordings",
    "marker_onsets",
    "pair_files",
    "read_bold",
    "read_eeg",
    "recording_files",
    "recordings_of",
]

logger = logging.getLogger(__name__)

TEMPLATE_CODES = {3, 4}  # NIfTI sform/qform codes: Talairach, MNI
STEM_ENTITIES = {"sub", "ses", "task", "acq", "ce", "dir", "rec", "run", "echo"}  # what confounds and images share
EEG_ENDINGS = tuple(f"_eeg{suffix}" for suffix in EEG_READERS)
BOLD_ENDINGS = ("_bold.nii.gz", "_bold.nii")
PREPROCESSED = tuple(f"_desc-{kind}{end}" for kind in ("preproc", "smoothAROMAnonaggr") for end in BOLD_ENDINGS)
SET_ASIDE = ("rejected", "reject")
SIDECARS = {"eeg": ("_eeg.json", "_channels.tsv", "_events.tsv"), "func": ("_bold.json",)}
ABSENT = {
    "eeg": f"its sidecars are there, its EEG file ({', '.join(EEG_READERS)}) is not; complete the download",
    "func": "its sidecar is there, its image (.nii.gz, .nii) is not; complete the download",
}


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """EEG and BOLD files of the same simultaneous runs; files that are left out are logged with the reason.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    return recordings_of(pair_files(root, site), root, site)


def recordings_of(pairing: Pairing, root: Path, site: Site) -> list[RecordingFiles]:
    """Log what a pairing leaves out, and return its recordings.

    Raises
    ------
    SiteError
        There is not one.
    """
    for path, reason in pairing.unpaired.items():
        logger.warning("%s: left out: %s", path, reason)
    if not pairing.recordings:
        reasons = dict.fromkeys(pairing.unpaired.values())
        files = {reason: [path.name for path, why in pairing.unpaired.items() if why == reason] for reason in reasons}
        left_out = "; ".join(f"{', '.join(names[:4])}: {reason}" for reason, names in list(files.items())[:5])
        raise SiteError(
            f"site {site.name!r}: no simultaneous EEG and BOLD run under {root}. Expected sub-XX/[ses-YY/]eeg/*_eeg"
            f"{{{','.join(EEG_READERS)}}} and sub-XX/[ses-YY/]func/*_bold.nii.gz with the same entities. "
            f"{left_out or 'No such file was found.'}"
        )
    wanted = site.expected.recordings
    if wanted is not None and wanted != len(pairing.recordings):
        logger.warning("site %s: %d recordings under %s, expected %d", site.name, len(pairing.recordings), root, wanted)
    return pairing.recordings


def pair_files(
    root: Path, site: Site, *, eeg_under: str = "", bold_under: str = "", eeg_files: list[Path] | None = None
) -> Pairing:
    """Pair without raising on unpaired files: for dry runs.

    Parameters
    ----------
    root : Path
        Of the data set.
    site : Site
    eeg_under, bold_under : str
        Folder below the root that holds the ``sub-*`` folders, for data that are published as a derivative
        (``derivatives``, ``derivatives/eeg_pp``).
    eeg_files : list of Path, optional
        EEG files to pair instead of those that BIDS names, for sites with a layout of their own; their names hold BIDS
        entities.

    Raises
    ------
    SiteError
        The folder is absent.
    """
    root = Path(root)
    if not root.is_dir():
        raise SiteError(f"site {site.name!r}: no such folder: {root}")
    eeg = _listed(root / eeg_under, "eeg", EEG_ENDINGS) if eeg_files is None else eeg_files
    images = preprocessed_images(root)
    raw = _listed(root / bold_under, "func", BOLD_ENDINGS)
    bold = _best_images(images, raw, site)

    def refuse(path: Path) -> str:
        if path in images:
            versions = [image for image in images if run_parts(image) == run_parts(path)]
            return "" if choose_image(versions, site.confounds) else why_not(versions)
        return "" if site.bold_space == "template" else _not_template(path, images)

    pairing = pair_lists(root, site, eeg, bold, refuse)
    recordings = [
        recording_files(root, files.key, files.eeg, files.bold) if files.confounds is None else files
        for files in pairing.recordings
    ]
    unpaired = (
        pairing.unpaired | _orphans(root / eeg_under, "eeg", eeg) | _orphans(root / bold_under, "func", raw + images)
    )
    unpaired |= _set_aside(root / eeg_under, "eeg", EEG_ENDINGS) | _set_aside(root / bold_under, "func", BOLD_ENDINGS)
    return replace(pairing, recordings=recordings, unpaired=unpaired)


def preprocessed_images(root: Path) -> list[Path]:
    """All versions of the images that fMRIPrep wrote, in ``derivatives/fmriprep*`` or in ``derivatives`` itself."""
    folders = [*sorted((root / "derivatives").glob("fmriprep*")), root / "derivatives"]
    return [path for folder in folders for path in _listed(folder, "func", PREPROCESSED)]


def _best_images(images: list[Path], raw: list[Path], site: Site) -> list[Path]:
    """One preprocessed image a run, and the raw images of the runs that have none in template space."""
    versions: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for image in images:
        versions.setdefault(tuple(run_parts(image).items()), []).append(image)
    chosen = {run: choose_image(found, site.confounds) for run, found in versions.items()}
    best = [image for image in chosen.values() if image is not None]
    done = [dict(run) for run, image in chosen.items() if image is not None]
    best += [path for path in raw if MANY_PARTS & name_parts(path).keys() or run_parts(path) not in done]
    there = [run_parts(path) for path in best]
    return best + [found[0] for run, found in versions.items() if dict(run) not in there]


def _listed(root: Path, folder: str, endings: tuple[str, ...]) -> list[Path]:
    """Files of subjects; what lies deeper (``eeg/rejected``), beside (``func-complex``) or is hidden is not data."""
    found = [*root.glob(f"sub-*/{folder}/*"), *root.glob(f"sub-*/ses-*/{folder}/*")]
    return sorted(path for path in found if path.name.endswith(endings) and not path.name.startswith("."))


def _set_aside(root: Path, folder: str, endings: tuple[str, ...]) -> dict[Path, str]:
    return {
        path: f"set aside by the authors in {name}/"
        for name in SET_ASIDE
        for path in _listed(root, f"{folder}/{name}", endings)
    }


def _orphans(root: Path, folder: str, data: list[Path]) -> dict[Path, str]:
    """Runs of which only sidecars are there, one sidecar each; one with fewer entities is inherited by several."""
    there = [run_parts(path) for path in data]
    orphans: dict[Path, str] = {}
    for path in _listed(root, folder, SIDECARS[folder]):
        if not any(run_parts(path).items() <= parts.items() for parts in there):
            there.append(run_parts(path))
            orphans[path] = ABSENT[folder]
    return orphans


def _not_template(path: Path, images: Iterable[Path]) -> str:
    """Why a raw image must not be read, or nothing: parcels of an image in the scanner's space lie anywhere."""
    try:
        header = nib.load(check_file(path)).header
        if {int(header["sform_code"]), int(header["qform_code"])} & TEMPLATE_CODES:
            return ""
    except FormatError as error:
        return str(error)
    except Exception as error:  # nibabel raises all sorts on damaged files
        return f"{path.name} is not a readable NIfTI image ({error}); fetch it again"
    versions = [image for image in images if run_parts(image) == run_parts(path)]
    found = why_not(versions) if versions else "derivatives/fmriprep does not hold it: run fMRIPrep"
    return (
        f"{path.name} is in the scanner's space; {found}, or, if this image is in template space already, write "
        "`bold_space: template` into the site file"
    )


def recording_files(root: Path, key: RecordingKey, eeg: Path, bold: Path) -> RecordingFiles:
    """Files of one recording: fMRIPrep's confounds and, for phantoms, the noise-free series belong to the image."""
    stem = "_".join(part for part in bold.name.split("_") if part.partition("-")[0] in STEM_ENTITIES)
    below = Path(f"sub-{key.subject}", f"ses-{key.session}" if key.session else "", "func")
    preprocessed = bold.name.endswith(PREPROCESSED)
    folder = bold.parent if preprocessed else root / "derivatives" / "fmriprep" / below
    names = [f"{stem}_desc-confounds_{end}.tsv" for end in ("timeseries", "regressors")]  # the latter before 20.2
    confounds = next((folder / name for name in names if (folder / name).exists()), folder / names[0])
    truth = root / "derivatives" / "phantom" / below / f"{stem}_desc-noisefree_timeseries.tsv"
    # a preprocessed image always came with confounds: where they are absent the reader shall say so
    wanted = confounds.exists() or preprocessed
    return RecordingFiles(key, eeg, bold, confounds if wanted else None, truth if truth.exists() else None)
