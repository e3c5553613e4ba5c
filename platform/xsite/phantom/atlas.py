"""The phantom's own atlas: 16 soft Gaussian modes at known MNI positions, and the EEG generator of each.

Nothing is downloaded. Positions are MNI152 millimetres, read off standard anatomical labels; a parcel that is too deep
for the scalp (thalamus, putamen, insula) shows itself through the cortex that it drives, as thalamic BOLD follows the
posterior alpha rhythm (Goldman 2002).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from xsite.phantom.presets import Band
from xsite.recording import Float
from xsite.signals.parcels import Atlas, save_atlas

NAME = "phantom-16"
SPACE = "MNI152NLin2009cAsym"
MODE_SD_MM = 9.0
MODE_EDGE_SD = 3.0  # the atlas is cut there; a subject's brain is not
BOX_MM = ((-78.0, 78.0), (-112.0, 78.0), (-56.0, 84.0))
"""Field of view of every phantom image, MNI x, y, z."""


@dataclass(frozen=True)
class Parcel:
    """One parcel: where its BOLD is, and what of it the scalp sees.

    Parameters
    ----------
    name : str
    mni : (x, y, z) in mm
        Centre of the BOLD mode.
    band : Band
        The band whose amplitude follows the parcel's drive.
    sign : +1 or -1
        Whether band power rises or falls with BOLD.
    generator : (x, y, z) in mm
        Dipole of the EEG source.
    direction : (x, y, z) or None
        Tangential orientation (right, anterior, superior); ``None`` is radial, as on a gyral crown.
    """

    name: str
    mni: tuple[float, float, float]
    band: Band
    sign: int
    generator: tuple[float, float, float]
    direction: tuple[float, float, float] | None = None


PARCELS: tuple[Parcel, ...] = (
    Parcel("Cuneus", (0, -84, 26), "alpha", -1, (0, -90, 22)),
    Parcel("Thalamus", (0, -16, 8), "alpha", +1, (0, -64, 56)),
    Parcel("Angular gyrus R", (48, -60, 36), "alpha", -1, (48, -62, 38)),
    Parcel("Precentral gyrus L", (-38, -20, 56), "beta", -1, (-38, -20, 58)),
    Parcel("Precentral gyrus R", (38, -20, 56), "beta", -1, (38, -20, 58)),
    Parcel("Putamen L", (-26, 4, 0), "beta", +1, (0, 10, 62)),
    Parcel("Inferior frontal gyrus L", (-48, 26, 10), "beta", -1, (-50, 28, 10)),
    Parcel("Anterior cingulate", (0, 38, 16), "theta", -1, (0, 36, 48)),
    Parcel("Middle temporal gyrus L", (-58, -32, -6), "theta", +1, (-60, -32, -4)),
    Parcel("Insula R", (40, 6, 0), "theta", -1, (54, 8, 4)),
    Parcel("Middle frontal gyrus R", (36, 44, 22), "delta", -1, (36, 46, 24)),
    Parcel("Superior parietal lobule L", (-26, -60, 58), "delta", +1, (-26, -60, 60)),
    Parcel("Lateral occipital cortex R", (44, -76, 2), "delta", -1, (44, -78, 2)),
    Parcel("Heschl gyrus L", (-46, -20, 8), "gamma", +1, (-50, -20, 10), (0.3, 0.3, 0.9)),
    Parcel("Heschl gyrus R", (48, -18, 8), "gamma", +1, (52, -18, 10), (-0.3, 0.3, 0.9)),
    Parcel("Calcarine cortex", (0, -76, 2), "gamma", +1, (0, -94, 0), (0.0, -0.8, 0.6)),
)
LABELS: tuple[str, ...] = tuple(parcel.name for parcel in PARCELS)


def grid(voxel_mm: float) -> tuple[Float, tuple[int, int, int]]:
    """Affine and shape of the field of view at one voxel size."""
    shape = tuple(int(np.floor((high - low) / voxel_mm)) + 1 for low, high in BOX_MM)
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = [low for low, _ in BOX_MM]
    return affine, (shape[0], shape[1], shape[2])


def voxel_mni(affine: Float, shape: tuple[int, int, int]) -> Float:
    """MNI coordinates of every voxel, shape (*shape, 3), in mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])


def brain_mask(mni: Float) -> Any:
    """Whether points lie inside an ellipsoid of the size of the MNI152 brain."""
    scaled = (mni - np.array([0.0, -17.0, 12.0])) / np.array([69.0, 87.0, 64.0])
    return (scaled**2).sum(-1) < 1


def modes(mni: Float, shift_mm: Float | None = None) -> Float:
    """Weight of every parcel at MNI points: Gaussian, one at the centre.

    Parameters
    ----------
    mni : array, shape (..., 3)
    shift_mm : array, shape (R, 3), optional
        Displacement of a subject's parcels against the atlas.

    Returns
    -------
    array, shape (..., R)
    """
    centres = np.array([parcel.mni for parcel in PARCELS], float)
    centres = centres if shift_mm is None else centres + shift_mm
    square = ((mni[..., None, :] - centres) ** 2).sum(-1) / MODE_SD_MM**2
    return np.asarray(np.exp(-square / 2), dtype=np.float32)


def atlas_image(voxel_mm: float = 4.0) -> Any:
    """Soft atlas as a 4D NIfTI image, one volume per parcel."""
    affine, shape = grid(voxel_mm)
    mni = voxel_mni(affine, shape)
    maps = modes(mni) * brain_mask(mni)[..., None]
    maps[maps < np.exp(-(MODE_EDGE_SD**2) / 2)] = 0
    image = nib.Nifti1Image(maps.astype(np.float32), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(affine, 4)
    image.set_qform(affine, 4)
    return image


def write_atlas(folder: str | Path) -> Atlas:
    """Write ``phantom-16.nii.gz`` and its label table below ``folder``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return save_atlas(folder / f"{NAME}.nii.gz", atlas_image(), LABELS, NAME, SPACE)
