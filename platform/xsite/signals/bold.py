"""Images to parcel series in percent signal change, and their cleaning in one least-squares fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nilearn.masking import compute_epi_mask
from scipy.ndimage import binary_fill_holes

from xsite.errors import FormatError
from xsite.recording import Bool, Float
from xsite.signals.parcels import Atlas, Projector

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
FD = "framewise_displacement"
HEAD_RADIUS_MM = 50.0  # Power et al. 2012
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


@dataclass(frozen=True, eq=False)
class CleanBold:
    """Parcel series, detrended and confound-regressed, neither low-passed nor scaled.

    Parameters
    ----------
    bold_VR : float32 array
        Percent signal change.
    global_signal_V : float32 array
        Same cleaning; NaN throughout where none was given.
    confounds_VK : float32 array
        The confounds that were regressed out (missing values filled), then framewise displacement where known.
    confound_names : tuple of str, length K
    fd_V : float32 array
        Framewise displacement in mm; NaN throughout where motion is unknown.
    design_VP : float64 array
        Orthonormal basis of what was removed: use :func:`clean_like` to treat another series alike.
    steps : list of dict
    fit_V : bool array, shape (V,), optional
        Volumes that the fit saw, where these were not all (dummy scans, scrubbing).
    """

    bold_VR: Float
    global_signal_V: Float
    confounds_VK: Float
    confound_names: tuple[str, ...]
    fd_V: Float
    design_VP: Float
    steps: list[dict[str, Any]]
    fit_V: Bool | None = None


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


def clean_parcels(
    series_VR: Float,
    confounds_VK: Float | None,
    confound_names: Sequence[str],
    t_r: float,
    *,
    global_signal_V: Float | None,
    regressors: Sequence[str] | None = None,
    valid_V: Bool | None = None,
) -> CleanBold:
    """Remove constant, linear and quadratic trend and the confounds in one least-squares fit.

    Of the confounds, ``regressors`` are used; without them the six motion parameters where they are present by name,
    else all that are given. Framewise displacement is kept but never regressed out. Missing values become 0 in the
    first row (derivatives), else the column's median. No low-pass, no scaling.

    Parameters
    ----------
    series_VR : array
        Percent signal change; NaN columns stay NaN.
    confounds_VK : array, optional
    confound_names : sequence of str, length K
    t_r : float
        Repetition time in seconds, for the record of steps.
    global_signal_V : array, optional
    regressors : sequence of str, optional
        Names of the confounds to regress out; empty for the trend alone.
    valid_V : bool array, shape (V,), optional
        Volumes that the fit may see; the fitted course is taken out of all volumes.

    Raises
    ------
    FormatError
        Confounds and series differ in length, or there are too many confounds for so few volumes.
    """
    n_volumes = len(series_VR)
    given_VK = np.empty((n_volumes, 0)) if confounds_VK is None else np.asarray(confounds_VK, dtype=np.float64)
    names = tuple(confound_names)
    if given_VK.shape != (n_volumes, len(names)):
        raise FormatError(f"confounds have shape {given_VK.shape}, expected ({n_volumes} volumes, {len(names)} names)")
    used = MOTION if set(MOTION) <= set(names) else tuple(name for name in names if name != FD)
    used = used if regressors is None else tuple(name for name in regressors if name != FD)
    columns = [given_VK[:, names.index(name)] for name in used]
    filled = {name: _fill(column) for name, column in zip(used, columns, strict=True) if np.isfinite(column).any()}
    used_VK = np.stack(list(filled.values()), axis=1) if filled else np.empty((n_volumes, 0))
    design_VP = _design(used_VK)
    fit_V = None if valid_V is None or np.all(valid_V) else np.asarray(valid_V, bool)
    n_fitted = n_volumes if fit_V is None else int(fit_V.sum())
    if design_VP.shape[1] > n_fitted // 2:
        raise FormatError(
            f"{len(filled)} confounds for {n_fitted} volumes: more than half of the signal would be fitted"
        )
    fd_V = _framewise_displacement(given_VK, names, _motion(given_VK, names))
    clean_VR = clean_like(series_VR, design_VP, fit_V)
    step = {
        "step": "regress",
        "trend_order": 2,
        "confounds": list(filled),
        "dropped": [name for name in used if name not in filled],
        "n_regressors": int(design_VP.shape[1]),
        "t_r": float(t_r),
    }
    if fit_V is not None:
        step["n_volumes_not_fitted"] = n_volumes - n_fitted
    unknown_V = np.full(n_volumes, np.nan, np.float32)
    motion_known = bool(np.isfinite(fd_V).all())
    return CleanBold(
        bold_VR=clean_VR,
        global_signal_V=unknown_V if global_signal_V is None else clean_like(global_signal_V, design_VP, fit_V),
        confounds_VK=np.column_stack([used_VK, fd_V] if motion_known else [used_VK]).astype(np.float32),
        confound_names=(*filled, FD) if motion_known else tuple(filled),
        fd_V=fd_V,
        design_VP=design_VP,
        steps=[step],
        fit_V=fit_V,
    )


def clean_like(series: Float | None, design_VP: Float, fit_V: Bool | None = None) -> Float:
    """Remove an orthonormal design from series, shape (V,) or (V, R), float32; NaN columns stay NaN.

    ``fit_V`` are the volumes that the fit sees, all of them by default.
    """
    values = np.asarray(series, dtype=np.float64)
    if fit_V is None:
        return np.asarray(values - design_VP @ (design_VP.T @ values), dtype=np.float32)
    return np.asarray(values - design_VP @ (np.linalg.pinv(design_VP[fit_V]) @ values[fit_V]), dtype=np.float32)


def _motion(given_VK: Float, names: tuple[str, ...]) -> dict[str, Float]:
    """The six motion parameters without gaps, whether or not they are regressed out; empty where not all are known."""
    known = set(MOTION) <= set(names) and np.isfinite(given_VK[:, [names.index(name) for name in MOTION]]).any(0).all()
    return {name: _fill(given_VK[:, names.index(name)]) for name in MOTION} if known else {}


def _fill(column: Float) -> Float:
    column = np.array(column, dtype=np.float64)
    missing = ~np.isfinite(column)
    if missing[0]:
        column[0], missing[0] = 0.0, False
    column[missing] = np.median(column[np.isfinite(column)])
    return column


def _design(confounds_VK: Float) -> Float:
    """Orthonormal basis of trend and confounds; columns that add nothing fall away."""
    trend = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(confounds_VK)), 2)
    centred = confounds_VK - confounds_VK.mean(0)
    spread = centred.std(0)
    scaled = centred[:, spread > 1e-12] / spread[spread > 1e-12]
    basis, sizes, _ = np.linalg.svd(np.column_stack([trend, scaled]), full_matrices=False)
    return np.asarray(basis[:, sizes > 1e-8 * sizes[0]])


def _framewise_displacement(given_VK: Float, names: tuple[str, ...], motion: dict[str, Float]) -> Float:
    """As given, else Power's sum of absolute changes from the six motion parameters (mm and radians)."""
    if FD in names:
        return np.nan_to_num(given_VK[:, names.index(FD)], nan=0.0).astype(np.float32)
    if not motion:
        return np.full(len(given_VK), np.nan, np.float32)
    motion_V6 = np.stack([motion[name] for name in MOTION], axis=1)
    motion_V6[:, 3:] *= HEAD_RADIUS_MM
    return np.concatenate([[0.0], np.abs(np.diff(motion_V6, axis=0)).sum(1)]).astype(np.float32)
