"""The projection of images onto an atlas: cached least squares for soft maps, means for labels and spheres.

Twin of nilearn's ``NiftiMapsMasker``, ``NiftiLabelsMasker`` and ``NiftiSpheresMasker`` (r > .99999, tested); the atlas
is brought to an image grid once, not once per image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nilearn.image import resample_img
from nilearn.image.resampling import BoundingBoxError
from scipy.sparse import csr_array, hstack

from xsite.errors import FormatError, ParcellationError
from xsite.recording import Bool, Float
from xsite.signals.atlas import Atlas, load_atlas, parcel_coordinates, save_atlas, weights_in_blocks

__all__ = [
    "MIN_COVERAGE",
    "Atlas",
    "GridMaps",
    "Projector",
    "load_atlas",
    "maps_on_grid",
    "parcel_coordinates",
    "save_atlas",
]

MIN_COVERAGE = 0.5
"""Parcels of which the image's brain holds less than this share of their weight are missing (NaN): the average of the
smaller half of a region stands for another, unknown region. Half-brain slabs (ds002338) lose parcels by this."""

MIN_OVERLAP = 0.05  # an atlas with less of its weight inside the image's brain belongs to another space
DENSE_PARCELS = 256  # weights of more soft maps are kept sparse: 1024 maps at 2 mm would be 1 GB, twice
_GRIDS_KEPT = 2  # 64 maps at 2 mm are about 60 MB inside the brain


@dataclass(frozen=True, eq=False)
class GridMaps:
    """An atlas on an image grid: the voxels where any parcel lives, and their weights.

    Parameters
    ----------
    support_N : int array
        Flat voxel indices (C order).
    weights_NR : float32 array, or sparse array for labels, spheres and more than 256 soft maps
    share_R : float array
        Part of each parcel's weight that lies on the grid, 0 to 1.
    """

    support_N: Any
    weights_NR: Any
    share_R: Float


_grids: OrderedDict[tuple[str, bytes, tuple[int, ...]], GridMaps] = OrderedDict()


def maps_on_grid(atlas: Atlas, affine: Float, shape: tuple[int, int, int], source: str = "") -> GridMaps:
    """Bring an atlas to an image grid; the last few grids are kept in memory. ``source`` names the image."""
    key = (atlas.parcellation.sha256, np.asarray(affine, np.float64).round(6).tobytes(), tuple(shape))
    if key in _grids:
        _grids.move_to_end(key)
        return _grids[key]
    made = _spheres(atlas, affine, shape) if atlas.kind == "spheres" else _maps(atlas, affine, shape, source)
    _grids[key] = made
    while len(_grids) > _GRIDS_KEPT:
        _grids.popitem(last=False)
    return made


def _maps(atlas: Atlas, affine: Float, shape: tuple[int, int, int], source: str) -> GridMaps:
    own_total_R, blocks = [], []
    for block_NR in weights_in_blocks(atlas):
        own_total_R.append(np.abs(block_NR).sum(0, dtype=np.float64))
        if atlas.soft:
            own = block_NR.reshape(*atlas.maps.shape[:3], -1)
            blocks.append(csr_array(_resample(atlas, own, affine, shape, source).reshape(-1, own.shape[3])))
    if not atlas.soft:
        blocks = [_labels(atlas, affine, shape, source)]
    flat_NR = hstack(blocks, format="csr")
    support_N = np.flatnonzero(np.diff(flat_NR.indptr))
    weights_NR: Any = flat_NR[support_N].astype(np.float32)
    own_volume_R = np.concatenate(own_total_R) * abs(np.linalg.det(atlas.maps.affine[:3, :3]))
    grid_volume_R = _column_sums(weights_NR) * abs(np.linalg.det(np.asarray(affine)[:3, :3]))
    share_R = np.clip(grid_volume_R / np.where(own_volume_R > 0, own_volume_R, np.inf), 0, 1)
    if atlas.soft and weights_NR.shape[1] <= DENSE_PARCELS:
        weights_NR = np.ascontiguousarray(weights_NR.toarray())
    return GridMaps(support_N, weights_NR, share_R)


def _labels(atlas: Atlas, affine: Float, shape: tuple[int, int, int], source: str) -> csr_array:
    labels_N = np.rint(_resample(atlas, np.asarray(atlas.maps.dataobj), affine, shape, source)).astype(int).reshape(-1)
    places = {value: parcel for parcel, value in enumerate(atlas.label_values)}
    voxels = np.flatnonzero(labels_N)
    parcels = [places[value] for value in labels_N[voxels].tolist()]
    one_N = np.ones(len(voxels), np.float32)
    return csr_array((one_N, (voxels, parcels)), shape=(labels_N.size, len(atlas.label_values)))


def _misses(atlas: Atlas, source: str, how: str) -> ParcellationError:
    file = atlas.maps.get_filename() if atlas.maps is not None else None
    where = f" ({file})" if file else ""
    return ParcellationError(
        f"{source + ': ' if source else ''}atlas {atlas.parcellation.name!r}{where} misses the brain: {how}; "
        f"is the image in {atlas.parcellation.space}?"
    )


def _resample(atlas: Atlas, own: Any, affine: Float, shape: tuple[int, int, int], source: str) -> Any:
    if tuple(own.shape[:3]) == tuple(shape) and np.allclose(atlas.maps.affine, affine, atol=1e-5):
        return own
    # integer maps would be rounded by the interpolation; linear is what nilearn's masker uses for soft maps
    given = nib.Nifti1Image(own.astype(np.float32), atlas.maps.affine)
    how = "linear" if atlas.soft else "nearest"
    try:
        image = resample_img(given, affine, shape, interpolation=how, copy_header=True, force_resample=True)
    except BoundingBoxError as error:
        raise _misses(atlas, source, "it lies outside the image's field of view") from error
    return np.asarray(image.dataobj)


def _spheres(atlas: Atlas, affine: Float, shape: tuple[int, int, int]) -> GridMaps:
    """Voxels whose centre lies within the radius, and the voxel that holds the seed, as ``NiftiSpheresMasker`` does."""
    assert atlas.centres_R3 is not None
    rows, columns = [], []
    for parcel, voxels_N3 in enumerate(_near_voxels(atlas.centres_R3, atlas.radius, affine)):
        inside = (voxels_N3 >= 0).all(1) & (voxels_N3 < shape).all(1)
        rows.append(np.ravel_multi_index(tuple(voxels_N3[inside].T), shape))
        columns.append(np.full(int(inside.sum()), parcel))
    voxels, parcels = np.concatenate(rows), np.concatenate(columns)
    one_N = np.ones(len(voxels), np.float32)
    flat_NR = csr_array((one_N, (voxels, parcels)), shape=(int(np.prod(shape)), len(atlas.centres_R3)))
    support_N = np.flatnonzero(np.diff(flat_NR.indptr))
    return GridMaps(support_N, flat_NR[support_N], _sphere_share(atlas.centres_R3, atlas.radius, affine, shape))


def _near_voxels(centres_R3: Float, radius: float, affine: Float) -> Iterator[Any]:
    """Voxel indices of each sphere, on or off the grid, shape (N, 3)."""
    to_voxels = np.linalg.inv(affine)
    reach = np.ceil(np.sqrt(radius**2 * (to_voxels[:3, :3] ** 2).sum(1))).astype(int) + 1
    around_N3 = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1).reshape(-1, 3)
    for centre_3 in centres_R3:
        nearest_3 = np.round(apply_affine(to_voxels, centre_3)).astype(int)
        voxels_N3 = nearest_3 + around_N3
        distance_N = np.linalg.norm(apply_affine(affine, voxels_N3) - centre_3, axis=1)
        yield voxels_N3[(distance_N <= radius) | (voxels_N3 == nearest_3).all(1)]


def _sphere_share(centres_R3: Float, radius: float, affine: Float, shape: tuple[int, int, int]) -> Float:
    """Part of each sphere's volume inside the field of view, from points an eleventh of the diameter apart."""
    steps = np.linspace(-radius, radius, 12)  # an even number: no plane of points through the centre
    points_P3 = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    points_P3 = points_P3[np.linalg.norm(points_P3, axis=1) <= radius]
    voxels_RP3 = apply_affine(np.linalg.inv(affine), centres_R3[:, None] + points_P3)
    return np.asarray(((voxels_RP3 > -0.5) & (voxels_RP3 < np.array(shape) - 0.5)).all(2).mean(1))


class Projector:
    """Parcel series from images on one grid.

    Soft maps: least squares of each volume on the maps (as ``NiftiMapsMasker``); labels and spheres: mean over the
    parcel. A parcel of which the mask holds less than :data:`MIN_COVERAGE` is missing: NaN throughout.

    Parameters
    ----------
    atlas : Atlas
    image_affine : array, shape (4, 4)
    image_shape3d : tuple of int
    mask : bool array, shape (X, Y, Z), optional
        Voxels that count (a brain mask); all of them if absent.
    source : str
        File name of the image, for messages.

    Raises
    ------
    ParcellationError
        The atlas misses the image.
    """

    def __init__(
        self,
        atlas: Atlas,
        image_affine: Float,
        image_shape3d: tuple[int, int, int],
        mask: Bool | None = None,
        *,
        source: str = "",
    ) -> None:
        self.source = source
        self.shape = tuple(int(n) for n in image_shape3d)
        grid = maps_on_grid(atlas, image_affine, (self.shape[0], self.shape[1], self.shape[2]), source)
        keep_N = np.ones(len(grid.support_N), bool) if mask is None else np.asarray(mask).reshape(-1)[grid.support_N]
        self.voxels_N = grid.support_N[keep_N]
        weights_NR = grid.weights_NR[keep_N]
        all_R = _column_sums(grid.weights_NR)
        kept_R = _column_sums(weights_NR)
        self.coverage_R = grid.share_R * kept_R / np.where(all_R > 0, all_R, np.inf)
        self.covered_R = self.coverage_R >= MIN_COVERAGE
        if self.coverage_R.mean() < MIN_OVERLAP or not self.covered_R.any():
            inside = f"{self.coverage_R.mean():.1%} of its weight lies inside the image's brain mask"
            raise _misses(atlas, source, f"{inside}, best parcel {self.coverage_R.max():.1%}")
        self.mixing_RR: Float | None = None
        if not atlas.soft:
            self.matrix_RN = _means(weights_NR)
        elif isinstance(weights_NR, csr_array):
            self.matrix_RN, self.mixing_RR = weights_NR.T.tocsr(), _inverse_gram((weights_NR.T @ weights_NR).toarray())
        else:
            self.matrix_RN = _least_squares(weights_NR)

    def project_voxels(self, data_NV: Float) -> Float:
        """Parcel series, shape (V, R), float32, of the voxels ``voxels_N``; NaN for parcels that are not covered."""
        # the level is taken out first: float32 sums over 40 000 voxels of 1000 +/- 10 lose the fluctuation (r .9998)
        level_N1 = data_NV.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
        change_NV = data_NV - level_N1
        level_R1 = self.matrix_RN.astype(np.float64) @ level_N1
        bold_RV = self.matrix_RN @ change_NV + level_R1
        bold_VR = np.asarray((bold_RV if self.mixing_RR is None else self.mixing_RR @ bold_RV).T, dtype=np.float32)
        bold_VR[:, ~self.covered_R] = np.nan
        return bold_VR

    def project(self, data_XYZV: Float) -> tuple[Float, Float]:
        """Parcel series, shape (V, R), in the units of the data, and the coverage of each parcel, 0 to 1."""
        if data_XYZV.ndim != 4 or data_XYZV.shape[:3] != self.shape:
            raise FormatError(
                f"{self.source + ': ' if self.source else ''}images have shape {data_XYZV.shape}, the "
                f"projector was made for {self.shape} + volumes"
            )
        data_NV = data_XYZV.reshape(-1, data_XYZV.shape[3])[self.voxels_N].astype(np.float32, copy=False)
        return self.project_voxels(data_NV), self.coverage_R


def _column_sums(weights_NR: Any) -> Float:
    """Sum of absolute weights per parcel, float64, of an array or a sparse matrix."""
    if isinstance(weights_NR, csr_array):
        return np.asarray(abs(weights_NR.astype(np.float64)).sum(0)).ravel()
    return np.asarray(np.abs(weights_NR).sum(0, dtype=np.float64))


def _inverse_gram(gram_RR: Float) -> Float:
    """Pseudo-inverse through the Gram matrix: R is small, N is not; parcels without any voxel get a zero row."""
    return np.asarray(np.linalg.pinv(gram_RR.astype(np.float64), rcond=1e-10, hermitian=True))


def _least_squares(weights_NR: Float) -> Float:
    weights_NR64 = weights_NR.astype(np.float64)
    return np.asarray(_inverse_gram(weights_NR64.T @ weights_NR64) @ weights_NR64.T, dtype=np.float32)


def _means(weights_NR: csr_array) -> csr_array:
    count_R = _column_sums(weights_NR)
    return (weights_NR / np.where(count_R > 0, count_R, 1)).astype(np.float32).T.tocsr()
