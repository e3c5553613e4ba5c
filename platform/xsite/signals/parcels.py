"""Atlases and the projection of images onto them: cached least squares for soft maps, means for labels.

Twin of nilearn's ``NiftiMapsMasker`` / ``NiftiLabelsMasker`` (r > .99999, tested); the atlas is resampled once per
image grid, not once per image.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nilearn.image import resample_img
from nilearn.image.resampling import BoundingBoxError

from xsite.errors import FormatError, ParcellationError
from xsite.recording import Bool, Float, Parcellation

MIN_COVERAGE = 0.5  # parcels that the image covers by less become NaN
MIN_OVERLAP = 0.05  # an atlas with less of its weight inside the image's brain belongs to another space
_GRIDS_KEPT = 2  # 64 maps at 2 mm are about 60 MB inside the brain


@dataclass(frozen=True, eq=False)
class Atlas:
    """A parcellation with its maps.

    Parameters
    ----------
    parcellation : Parcellation
    maps : nibabel image
        4D soft maps (X, Y, Z, R), or 3D integer labels.
    label_values : tuple of int, length R
        Voxel value of each parcel of a 3D atlas; empty for soft maps.
    """

    parcellation: Parcellation
    maps: Any
    label_values: tuple[int, ...] = ()

    @property
    def soft(self) -> bool:
        """Whether the atlas holds weights rather than labels."""
        return not self.label_values


def _stem(path: Path) -> Path:
    if not re.search(r"\.nii(\.gz)?$", path.name):
        raise ParcellationError(f"{path}: an atlas is a NIfTI file, .nii or .nii.gz")
    return path.with_name(re.sub(r"\.nii(\.gz)?$", "", path.name))


def load_atlas(path: str | Path) -> Atlas:
    """Read an atlas: a NIfTI image and, next to it, a ``.tsv`` of the same stem with columns ``index`` and ``name``.

    Name and template space come from the ``.json`` of the same stem if there is one (keys ``Name`` and ``Space``),
    else from the file name (``space-`` or ``tpl-`` entity).

    Raises
    ------
    ParcellationError
        A file is missing or damaged, or the table does not fit the image.
    """
    path = Path(path)
    stem = _stem(path)
    table, sidecar = stem.with_name(stem.name + ".tsv"), stem.with_name(stem.name + ".json")
    for needed in (path, table):
        if not needed.is_file():
            raise ParcellationError(
                f"atlas file {needed} not found; an atlas is NAME.nii.gz with NAME.tsv (index, name)"
            )
    try:
        image = nib.load(path)
        data = np.asarray(image.dataobj)
    except Exception as error:
        raise ParcellationError(f"{path}: cannot be read as NIfTI ({error}); is it truncated?") from error
    if data.ndim == 4 and data.shape[3] == 1:
        data = data[..., 0]
        image = nib.Nifti1Image(data, image.affine)
    rows = _read_table(table)
    values: tuple[int, ...] = ()
    if data.ndim == 4:
        if len(rows) != data.shape[3]:
            raise ParcellationError(f"{table} names {len(rows)} parcels, {path} holds {data.shape[3]} maps")
    else:
        rows = [row for row in rows if row[0] != 0]
        values = tuple(index for index, _ in rows)
        _check_labels(data, values, path, table)
    facts = _read_facts(sidecar) if sidecar.is_file() else {}
    entity = re.search(r"(?:space|tpl)-([A-Za-z0-9]+)", path.name)
    parcellation = Parcellation(
        name=str(facts.get("Name", stem.name)),
        labels=tuple(name for _, name in rows),
        space=str(facts.get("Space", entity.group(1) if entity else "unknown")),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    return Atlas(parcellation, image, values)


def _read_facts(sidecar: Path) -> dict[str, Any]:
    """Read the sidecar with the suspicion of ``xsite.data.files.read_json``, which this layer must not import."""
    try:
        facts = json.loads(sidecar.read_bytes().decode("utf-8-sig"))
    except ValueError as error:  # JSON and Unicode
        raise ParcellationError(f"{sidecar}: not valid JSON in UTF-8 ({error}); correct the atlas' sidecar") from error
    if not isinstance(facts, dict):
        raise ParcellationError(f"{sidecar}: a sidecar is a JSON object, found {type(facts).__name__}")
    return facts


def _read_table(table: Path) -> list[tuple[int, str]]:
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        if not {"index", "name"} <= set(reader.fieldnames or ()):
            raise ParcellationError(f"{table}: columns are {reader.fieldnames}, 'index' and 'name' are needed")
        try:
            rows = [(int(row["index"]), row["name"]) for row in reader]
        except (TypeError, ValueError) as error:
            raise ParcellationError(f"{table}: an index is not a whole number ({error})") from error
    names = [name for _, name in rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ParcellationError(f"{table}: names stand twice: {twice}")
    return rows


def _check_labels(data: Any, values: tuple[int, ...], path: Path, table: Path) -> None:
    if data.ndim != 3:
        raise ParcellationError(f"{path}: {data.ndim} dimensions; an atlas has 3 (labels) or 4 (soft maps)")
    present = set(np.unique(np.rint(data)).astype(int).tolist()) - {0}
    absent, unnamed = sorted(set(values) - present), sorted(present - set(values))
    if absent or unnamed:
        raise ParcellationError(f"{path} and {table} disagree: labels without voxels {absent}, without name {unnamed}")


def save_atlas(path: str | Path, maps_img: Any, labels: tuple[str, ...], name: str, space: str) -> Atlas:
    """Write an atlas as :func:`load_atlas` reads it (``.nii.gz``, ``.tsv``, ``.json``) and return it as read back."""
    path = Path(path)
    stem = _stem(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(maps_img, path)
    if len(maps_img.shape) == 4:
        indices = list(range(1, maps_img.shape[3] + 1))
    else:
        indices = [int(v) for v in np.unique(np.rint(np.asarray(maps_img.dataobj))) if v != 0]
    if len(indices) != len(labels):
        raise ParcellationError(f"{path}: {len(labels)} labels for {len(indices)} parcels")
    lines = ["index\tname", *(f"{index}\t{label}" for index, label in zip(indices, labels, strict=True))]
    stem.with_name(stem.name + ".tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stem.with_name(stem.name + ".json").write_text(json.dumps({"Name": name, "Space": space}) + "\n", encoding="utf-8")
    return load_atlas(path)


def parcel_coordinates(atlas: Atlas) -> Float:
    """Centre of mass of each parcel, shape (R, 3), in millimetres of the template space."""
    data = np.asarray(atlas.maps.dataobj)
    weights_XYZR = np.abs(data) if atlas.soft else np.stack([data == value for value in atlas.label_values], axis=3)
    weights_NR = weights_XYZR.reshape(-1, weights_XYZR.shape[3]).astype(np.float64)
    voxels_N3 = np.indices(data.shape[:3]).reshape(3, -1).T
    centres_R3 = (weights_NR.T @ voxels_N3) / weights_NR.sum(0)[:, None]
    return np.asarray(apply_affine(atlas.maps.affine, centres_R3))


@dataclass(frozen=True, eq=False)
class GridMaps:
    """An atlas on an image grid: the voxels where any parcel lives, and their weights.

    Parameters
    ----------
    support_N : int array
        Flat voxel indices (C order).
    weights_NR : float32 array
    share_R : float array
        Part of each parcel's weight that lies on the grid, 0 to 1.
    """

    support_N: Any
    weights_NR: Float
    share_R: Float


_grids: OrderedDict[tuple[str, bytes, tuple[int, ...]], GridMaps] = OrderedDict()


def maps_on_grid(atlas: Atlas, affine: Float, shape: tuple[int, int, int], source: str = "") -> GridMaps:
    """Resample an atlas to an image grid; the last few grids are kept in memory. ``source`` names the image."""
    key = (atlas.parcellation.sha256, np.asarray(affine, np.float64).round(6).tobytes(), tuple(shape))
    if key in _grids:
        _grids.move_to_end(key)
        return _grids[key]
    own = np.asarray(atlas.maps.dataobj)
    if atlas.soft:
        own_total_R = np.abs(own).sum(axis=(0, 1, 2), dtype=np.float64)
    else:
        own_total_R = np.array([(np.rint(own) == value).sum() for value in atlas.label_values], np.float64)
    own_total_R *= abs(np.linalg.det(atlas.maps.affine[:3, :3]))
    flat_NR = _resample(atlas, own, affine, shape, source)
    support_N = np.flatnonzero(np.any(flat_NR != 0, axis=1))
    weights_NR = np.ascontiguousarray(flat_NR[support_N], dtype=np.float32)
    grid_total_R = np.abs(weights_NR).sum(0, dtype=np.float64) * abs(np.linalg.det(np.asarray(affine)[:3, :3]))
    share_R = np.clip(grid_total_R / np.where(own_total_R > 0, own_total_R, np.inf), 0, 1)
    _grids[key] = GridMaps(support_N, weights_NR, share_R)
    while len(_grids) > _GRIDS_KEPT:
        _grids.popitem(last=False)
    return _grids[key]


def _misses(atlas: Atlas, source: str, how: str) -> ParcellationError:
    file = atlas.maps.get_filename()
    where = f" ({file})" if file else ""
    return ParcellationError(
        f"{source + ': ' if source else ''}atlas {atlas.parcellation.name!r}{where} misses the brain: {how}; "
        f"is the image in {atlas.parcellation.space}?"
    )


def _resample(atlas: Atlas, own: Any, affine: Float, shape: tuple[int, int, int], source: str) -> Any:
    image = atlas.maps
    if tuple(own.shape[:3]) != tuple(shape) or not np.allclose(image.affine, affine, atol=1e-5):
        # integer maps would be rounded by the interpolation; linear is what nilearn's masker uses for soft maps
        given = nib.Nifti1Image(own.astype(np.float32), image.affine)
        how = "linear" if atlas.soft else "nearest"
        try:
            image = resample_img(given, affine, shape, interpolation=how, copy_header=True, force_resample=True)
        except BoundingBoxError as error:
            raise _misses(atlas, source, "it lies outside the image's field of view") from error
        own = np.asarray(image.dataobj)
    if atlas.soft:
        return own.reshape(-1, own.shape[3])
    labels_N = np.rint(own).reshape(-1)
    return np.stack([labels_N == value for value in atlas.label_values], axis=1)


class Projector:
    """Parcel series from images on one grid.

    Soft maps: least squares of each volume on the maps (as ``NiftiMapsMasker``); labels: mean over the parcel.

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
        all_R = np.abs(grid.weights_NR).sum(0, dtype=np.float64)
        kept_R = np.abs(weights_NR).sum(0, dtype=np.float64)
        self.coverage_R = grid.share_R * kept_R / np.where(all_R > 0, all_R, np.inf)
        self.covered_R = self.coverage_R >= MIN_COVERAGE
        if self.coverage_R.mean() < MIN_OVERLAP or not self.covered_R.any():
            inside = f"{self.coverage_R.mean():.1%} of its weight lies inside the image's brain mask"
            raise _misses(atlas, source, f"{inside}, best parcel {self.coverage_R.max():.1%}")
        self.matrix_RN = _least_squares(weights_NR) if atlas.soft else _means(weights_NR)

    def project_voxels(self, data_NV: Float) -> Float:
        """Parcel series, shape (V, R), float32, of the voxels ``voxels_N``; NaN for parcels that are not covered."""
        # the level is taken out first: float32 sums over 40 000 voxels of 1000 +/- 10 lose the fluctuation (r .9998)
        level_N1 = data_NV.mean(1, keepdims=True, dtype=np.float64).astype(np.float32)
        change_NV = data_NV - level_N1
        level_R1 = self.matrix_RN.astype(np.float64) @ level_N1
        bold_VR = np.asarray((self.matrix_RN @ change_NV + level_R1).T, dtype=np.float32)
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


def _least_squares(weights_NR: Float) -> Float:
    """Pseudo-inverse through the Gram matrix: R is small, N is not; parcels without any voxel get a zero row."""
    weights_NR64 = weights_NR.astype(np.float64)
    inverse_RR = np.linalg.pinv(weights_NR64.T @ weights_NR64, rcond=1e-10, hermitian=True)
    return np.asarray(inverse_RR @ weights_NR64.T, dtype=np.float32)


def _means(weights_NR: Float) -> Float:
    count_R = weights_NR.sum(0)
    return np.asarray((weights_NR / np.where(count_R > 0, count_R, 1)).T, dtype=np.float32)
