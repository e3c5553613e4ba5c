"""Images of a phantom run: the published one in the scanner's space, and fMRIPrep's beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from xsite.phantom.bold import SimulatedBold
from xsite.phantom.like.plan import LikeRun, LikeSite
from xsite.phantom.write import SPACE, save_image, write_json, write_table
from xsite.signals.bold import image_to_parcels
from xsite.signals.parcels import Atlas

TILT = 0.26
"""Radians by which the slices of a published image are tilted: as laboratories place them, 15 degrees."""


def preprocessed_path(like: LikeSite, run: LikeRun) -> str:
    """Path of the fMRIPrep-style image below the site's root."""
    if like.preprocessed is not None:
        return like.preprocessed(run)
    key = run.key
    folder = "/".join(filter(None, (f"sub-{key.subject}", f"ses-{key.session}" if key.session else "", "func")))
    stem = re.sub(r"(_bold)?\.nii(\.gz)?$", "", str(run.bold).rpartition("/")[2])
    if not stem.startswith("sub-"):  # published outside BIDS: fMRIPrep saw a BIDS copy of it
        stem = key.entities
    return f"derivatives/fmriprep/{folder}/{stem}_space-{SPACE}_desc-preproc_bold.nii.gz"


def write_images(like: LikeSite, run: LikeRun, bold: SimulatedBold, root: Path) -> None:
    """Write the published image and, where the site needs one, the preprocessed image with sidecar and confounds."""
    assert run.bold is not None
    published = root / run.bold
    published.parent.mkdir(parents=True, exist_ok=True)
    measured = _covered(bold.measured, like.coverage)
    save_image(_published(like, measured), published)
    if not like.derivatives:
        return
    path = root / preprocessed_path(like, run)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(measured, path)
    facts: dict[str, Any] = {"RepetitionTime": like.site.t_r, "TaskName": run.key.task or "rest"}
    facts |= {"SkullStripped": False, "SliceTimingCorrected": like.reference_share >= 0}
    if like.reference_share >= 0:
        facts["StartTime"] = round(like.reference_share * like.site.t_r, 6)
    write_json(path.with_name(re.sub(r"\.nii(\.gz)?$", ".json", path.name)), facts)
    stem = re.sub(r"_space-.*$", "", path.name)
    write_table(path.with_name(f"{stem}_desc-confounds_timeseries.tsv"), bold.confounds, decimals=8)


def write_noise_free(like: LikeSite, run: LikeRun, bold: SimulatedBold, atlas: Atlas, root: Path) -> None:
    """Write the noise-free parcel series where the readers of phantoms look for it: below ``derivatives/phantom``."""
    image = Path(preprocessed_path(like, run))
    stem = re.sub(r"_space-.*$", "", image.name)
    below = Path(f"sub-{run.key.subject}", f"ses-{run.key.session}" if run.key.session else "", "func")
    series_VR = image_to_parcels(bold.noise_free, atlas, source=f"{stem}, noise-free").series_VR
    path = root / "derivatives" / "phantom" / below / f"{stem}_desc-noisefree_timeseries.tsv"
    labels = atlas.parcellation.labels
    write_table(path, {label: series_VR[:, r] for r, label in enumerate(labels)}, decimals=8)


def _covered(image: Any, share: float) -> Any:
    """The image without what lies below the covered slices: zero there, as fMRIPrep leaves it."""
    if share >= 1:
        return image
    stored = np.array(image.dataobj)
    heights = np.flatnonzero(stored.any(axis=(0, 1, 3)))
    stored[:, :, : heights[-1] + 1 - round(share * len(heights))] = 0
    return nib.Nifti1Image(stored, image.affine, image.header)


def _published(like: LikeSite, image: Any) -> Any:
    """The same voxels with the header of a scanner: tilted affine, scanner codes, the site's own TR and unit."""
    affine, code = image.affine.copy(), 4
    if like.site.bold_space == "derivative" and like.derivatives:
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(TILT), -np.sin(TILT)], [np.sin(TILT), np.cos(TILT)]]
        turn[:3, 3] = (1.5, -28.0, 17.0)
        affine, code = turn @ affine, 1
    published = nib.Nifti1Image(np.asanyarray(image.dataobj), affine, image.header.copy())
    t_r, unit = like.nifti_t_r or (like.site.t_r, "sec")
    published.header.set_zooms((*image.header.get_zooms()[:3], t_r))
    published.header.set_xyzt_units("mm", unit)
    published.set_sform(affine, code)
    published.set_qform(affine, code)
    return published
