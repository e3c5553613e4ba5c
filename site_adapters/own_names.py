"""Pairing for data sets whose EEG files carry names of their own: the adapter says which run each file is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xsite.data.bids import preprocessed_images, recording_files
from xsite.data.files import check_file
from xsite.data.headers import eeg_header
from xsite.data.inheritance import run_parts
from xsite.data.pairing import Pairing
from xsite.data.simultaneity import evidence_of
from xsite.data.spaces import choose_image, why_not
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.site import Site


def pair_named(
    root: Path,
    site: Site,
    eeg: Mapping[Path, RecordingKey],
    bold: Mapping[Path, RecordingKey],
    refused: Mapping[Path, str] | None = None,
) -> Pairing:
    """Pair EEG files with fMRIPrep's images of the same run.

    Parameters
    ----------
    root : Path
        Of the data set; fMRIPrep's images lie below ``derivatives``, named like the keys' entities.
    site : Site
    eeg, bold : mapping of Path to RecordingKey
        The published files and the run that each belongs to; ``bold`` only tells what is missing.
    refused : mapping of Path to str, optional
        EEG files that the adapter does not use, with the reason.

    Raises
    ------
    SiteError
        The folder is absent.
    """
    if not root.is_dir():
        raise SiteError(f"site {site.name!r}: no such folder: {root}")
    pairing = Pairing(unpaired=dict(refused or {}))
    versions: dict[str, list[Path]] = {}
    for image in preprocessed_images(root):
        versions.setdefault(_run(image), []).append(image)
    published = {_run(Path(key.entities)): path for path, key in bold.items()}
    with_eeg = {_run(Path(key.entities)) for key in eeg.values()}
    for path, key in sorted(eeg.items()):
        run = _run(Path(key.entities))
        there = versions.get(run, [])
        if path in pairing.unpaired:
            continue
        if not there:
            pairing.unpaired[path] = _not_preprocessed(key) if run in published else "no BOLD of this run"
            continue
        _add(pairing, root, site, key, path, there)
    for path, key in bold.items():
        if _run(Path(key.entities)) not in with_eeg:
            pairing.unpaired[path] = "no EEG of this run"
    return pairing


def _add(pairing: Pairing, root: Path, site: Site, key: RecordingKey, eeg: Path, versions: list[Path]) -> None:
    image = choose_image(versions, site.confounds)
    if image is None:
        pairing.unpaired[eeg] = why_not(versions)
        return
    try:
        check_file(image)
        evidence = evidence_of(root, eeg, image, eeg_header(eeg), site)
    except FormatError as error:
        pairing.unpaired[eeg] = str(error).replace(f"{root}/", "")
        return
    if not evidence.simultaneous:
        pairing.unpaired[eeg] = evidence.reason
        pairing.refused[eeg] = image
        return
    pairing.recordings.append(recording_files(root, key, eeg, image))
    pairing.evidence[key.entities] = evidence.reason


def _run(path: Path) -> str:
    return "_".join(f"{name}-{label}" for name, label in run_parts(path).items())


def _not_preprocessed(key: RecordingKey) -> str:
    return (
        f"derivatives/fmriprep does not hold it: run fMRIPrep on a BIDS copy whose image is called {key.entities}"
        "_bold.nii.gz"
    )
