"""Images to parcel series in percent signal change, block by block, with the figures that tell their quality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nilearn.masking import compute_epi_mask
from scipy.ndimage import binary_fill_holes

from xsite.errors import FormatError
from xsite.recording import Bool, Float
from xsite.signals.parcels import Atlas, Projector

_BLOCK = 64  # volumes read at a time: 64 volumes at 2 mm are 280 MB


@dataclass(frozen=True, eq=False)
class RawParcels:
    """Parcel series before cleaning.

    Parameters
    ----------
    series_VR : float32 array
        Percent signal change from each voxel's temporal mean; NaN columns for parcels without coverage.
    global_signal_V : float32 array
        Mean over the brain mask, percent signal change.
    coverage_R : float array
        Part of each parcel's weight inside the brain mask, 0 to 1.
    mean_level : float
        Median over the brain mask of the temporal mean, in the image's units.
    tsnr : float
        Median over the brain mask of temporal mean / standard deviation.
    dvars_V : float32 array
        Root mean square over the brain mask of the change since the last volume, percent; first value 0.
    n_mask_voxels : int
    """

    series_VR: Float
    global_signal_V: Float
    coverage_R: Float
    mean_level: float
    tsnr: float
    dvars_V: Float
    n_mask_voxels: int


def image_to_parcels(image: Any, atlas: Atlas, *, source: str, valid_V: Bool | None = None) -> RawParcels:
    """Project a 4D image onto an atlas as percent signal change; neither detrended nor filtered.

    Parameters
    ----------
    image : nibabel image
        4D, in the atlas's template space. Read block by block, never as a whole.
    atlas : Atlas
    source : str
        File name for messages.
    valid_V : bool array, shape (V,), optional
        Volumes whose mean is the 100 percent: a dummy scan is brighter than all that follow.

    Raises
    ------
    FormatError
        Not 4D, too short, truncated, not finite inside the brain, or without a mean (already demeaned).
    ParcellationError
        The atlas misses the brain.
    """
    shape = tuple(image.shape)
    if len(shape) != 4 or shape[3] < 4:
        raise FormatError(f"{source}: image has shape {shape}; a 4D image with at least 4 volumes is needed")
    mask_XYZ, data_NV = _read_masked(image, source)
    bad = ~np.isfinite(data_NV)
    if bad.any():
        raise FormatError(f"{source}: {int(bad.any(1).sum())} voxels inside the brain hold NaN or infinity")
    steady = slice(None) if valid_V is None else np.asarray(valid_V, bool)
    mean_N = data_NV[:, steady].mean(1, dtype=np.float64).astype(np.float32)
    varies_N = (np.ptp(data_NV, axis=1) > 0) & (mean_N > 0.1 * np.median(mean_N))  # else percent change explodes
    if not varies_N.any():
        raise FormatError(f"{source}: no voxel inside the brain varies over time")
    mask_XYZ[mask_XYZ] = varies_N
    data_NV, mean_N = data_NV[varies_N], mean_N[varies_N]
    std_N = data_NV[:, steady].std(1)
    data_NV -= mean_N[:, None]
    data_NV *= (100.0 / mean_N)[:, None]
    projector = Projector(atlas, image.affine, (shape[0], shape[1], shape[2]), mask=mask_XYZ, source=source)
    rows_N = np.searchsorted(np.flatnonzero(mask_XYZ), projector.voxels_N)
    change_V = np.sqrt(np.mean(np.diff(data_NV, axis=1) ** 2, axis=0))
    return RawParcels(
        series_VR=projector.project_voxels(data_NV[rows_N]),
        global_signal_V=data_NV.mean(0),
        coverage_R=projector.coverage_R,
        mean_level=float(np.median(mean_N)),
        tsnr=float(np.median(mean_N / std_N)),
        dvars_V=np.concatenate([[0.0], change_V]).astype(np.float32),
        n_mask_voxels=len(mean_N),
    )


def _blocks(image: Any, source: str) -> Iterator[tuple[int, Float]]:
    """Read an image block by block; a compressed file is opened once, else each block would unpack it anew."""
    if nib.is_proxy(image.dataobj) and image.get_filename():
        image = nib.load(image.get_filename(), keep_file_open=True)
    for start in range(0, image.shape[3], _BLOCK):
        try:
            yield start, np.asarray(image.dataobj[..., start : start + _BLOCK], dtype=np.float32)
        except (OSError, EOFError, ValueError) as error:
            raise FormatError(
                f"{source}: volumes from {start + 1} cannot be read ({error}); is it truncated?"
            ) from error


def _read_masked(image: Any, source: str) -> tuple[Bool, Float]:
    """Brain mask from the first block, and the voxels inside it, shape (N, V)."""
    mask_XYZ: Bool | None = None
    data_NV = np.empty((0, 0), np.float32)
    for start, block_XYZV in _blocks(image, source):
        if mask_XYZ is None:
            mask_XYZ = brain_mask(_finite_mean(block_XYZV), image.affine, source=source)
            data_NV = np.empty((int(mask_XYZ.sum()), image.shape[3]), np.float32)
        data_NV[:, start : start + block_XYZV.shape[3]] = block_XYZV[mask_XYZ]
    assert mask_XYZ is not None
    return mask_XYZ, data_NV


def _finite_mean(block_XYZV: Float) -> Float:
    """Mean of the finite values: one spoiled volume must not hide a voxel from the checks."""
    finite = np.isfinite(block_XYZV)
    count_XYZ = np.maximum(finite.sum(3), 1)
    return np.asarray(np.where(finite, block_XYZV, 0).sum(3) / count_XYZ, dtype=np.float32)


def brain_mask(mean_XYZ: Float, affine: Float, *, source: str) -> Bool:
    """Voxels of the head with signal, from the mean image.

    nilearn's ``compute_epi_mask`` where the image is large enough for its opening step, a threshold for slabs.

    Raises
    ------
    FormatError
        The mean image has no signal, or is centred on zero (a demeaned series has no percent change).
    """
    positive = mean_XYZ[mean_XYZ > 0]
    if not positive.size:
        raise FormatError(
            f"{source}: the mean image has no positive voxel; percent signal change needs raw intensities"
        )
    negative = mean_XYZ[mean_XYZ < 0]
    if negative.size and -np.sum(negative, dtype=np.float64) > 0.5 * np.sum(positive, dtype=np.float64):
        raise FormatError(
            f"{source}: the mean image is centred on zero ({mean_XYZ.min():.3g} to {mean_XYZ.max():.3g}); it was "
            "demeaned or standardised, percent signal change needs the intensities"
        )
    above: Bool = mean_XYZ > 0.25 * np.percentile(positive, 95)
    if min(mean_XYZ.shape) < 16 or above.mean() > 0.8:
        return above
    image = nib.Nifti1Image(mean_XYZ.astype(np.float32), affine)
    mask: Bool = np.asarray(compute_epi_mask(image, opening=1).dataobj).astype(bool)
    mask = binary_fill_holes(mask) & (mean_XYZ > 0)
    return mask if mask.sum() > 0.3 * above.sum() else above
