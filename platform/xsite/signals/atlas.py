"""Atlases as files: soft maps, labels, or spheres around coordinates."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine

from xsite.errors import ParcellationError
from xsite.recording import Float, Parcellation

BLOCK = 64  # parcels handled at a time


@dataclass(frozen=True, eq=False)
class Atlas:
    """A parcellation with its maps, or with the centres of its spheres.

    Parameters
    ----------
    parcellation : Parcellation
    maps : nibabel image, optional
        4D soft maps (X, Y, Z, R), or 3D integer labels; None for spheres.
    label_values : tuple of int, length R
        Voxel value of each parcel of a 3D atlas; empty for soft maps and spheres.
    centres_R3 : float array, shape (R, 3), optional
        Centres of spheres in millimetres of the template space.
    radius : float
        Of the spheres, in millimetres.
    """

    parcellation: Parcellation
    maps: Any = None
    label_values: tuple[int, ...] = ()
    centres_R3: Float | None = None
    radius: float = 0.0

    @property
    def kind(self) -> Literal["soft", "labels", "spheres"]:
        """Weights, voxels with a label, or spheres around coordinates."""
        if self.centres_R3 is not None:
            return "spheres"
        return "labels" if self.label_values else "soft"

    @property
    def soft(self) -> bool:
        """Whether the atlas holds weights: parcels are then fitted together, not averaged one by one."""
        return self.kind == "soft"


def _stem(path: Path) -> Path:
    if not re.search(r"\.nii(\.gz)?$", path.name):
        raise ParcellationError(f"{path}: an atlas is a NIfTI file, .nii or .nii.gz")
    return path.with_name(re.sub(r"\.nii(\.gz)?$", "", path.name))


def load_atlas(path: str | Path) -> Atlas:
    """Read an atlas: a NIfTI image and, next to it, a ``.tsv`` of the same stem with columns ``index`` and ``name``.

    A ``.tsv`` by itself with columns ``index``, ``name``, ``x``, ``y``, ``z`` (millimetres) is an atlas of spheres;
    their radius is ``Radius`` in the ``.json`` of the same stem.

    Name and template space come from the ``.json`` of the same stem if there is one (keys ``Name`` and ``Space``),
    else from the file name (``space-`` or ``tpl-`` entity).

    Raises
    ------
    ParcellationError
        A file is missing or damaged, or the table does not fit the image.
    """
    path = Path(path)
    if path.suffix == ".tsv":
        return _load_spheres(path)
    stem = _stem(path)
    table, sidecar = stem.with_name(stem.name + ".tsv"), stem.with_name(stem.name + ".json")
    for needed in (path, table):
        if not needed.is_file():
            raise ParcellationError(
                f"atlas file {needed} not found; an atlas is NAME.nii.gz with NAME.tsv (index, name)"
            )
    rows = _read_table(table)
    facts = _read_facts(sidecar) if sidecar.is_file() else {}
    entity = re.search(r"(?:space|tpl)-([A-Za-z0-9]+)", path.name)
    space = str(facts.get("Space", entity.group(1) if entity else "unknown"))
    return atlas_from_image(path, rows, name=str(facts.get("Name", stem.name)), space=space, table=str(table))


def atlas_from_image(path: Path, rows: list[tuple[int, str]], *, name: str, space: str, table: str) -> Atlas:
    """Make an atlas of a NIfTI file and its list of parcels.

    Parameters
    ----------
    path : Path
    rows : list of (int, str)
        Index and name of each parcel: the voxel value of labels, the order of soft maps.
    name, space : str
    table : str
        Where the rows come from, for messages.

    Raises
    ------
    ParcellationError
        The file is damaged, or the rows do not fit it.
    """
    try:
        image: Any = nib.load(path)
        shape = image.shape
        # of soft maps the last one only: a thousand of them are 5 GB, and a truncated file lacks its end
        data = np.asarray(image.dataobj[..., -1] if len(shape) == 4 and shape[3] > 1 else image.dataobj)
    except Exception as error:
        raise ParcellationError(f"{path}: cannot be read as NIfTI ({error}); is it truncated?") from error
    values: tuple[int, ...] = ()
    if len(shape) == 4 and shape[3] > 1:
        if len(rows) != shape[3]:
            raise ParcellationError(f"{table} names {len(rows)} parcels, {path} holds {shape[3]} maps")
    else:
        if data.ndim == 4:
            data = data[..., 0]
            image = nib.Nifti1Image(data, image.affine)
        rows = [row for row in rows if row[0] != 0]
        values = tuple(index for index, _ in rows)
        _check_labels(data, values, path, table)
    labels = tuple(label for _, label in rows)
    return Atlas(Parcellation(name, labels, space, hashlib.sha256(path.read_bytes()).hexdigest()), image, values)


def _load_spheres(path: Path) -> Atlas:
    if not path.is_file():
        raise ParcellationError(f"atlas file {path} not found; spheres are NAME.tsv (index, name, x, y, z)")
    rows = _read_table(path)
    facts = _read_facts(path.with_suffix(".json")) if path.with_suffix(".json").is_file() else {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file, delimiter="\t"))
    try:
        centres_R3 = np.array([[float(row[axis]) for axis in "xyz"] for row in table])
        radius = float(facts["Radius"])
    except (KeyError, TypeError, ValueError) as error:
        raise ParcellationError(
            f"{path}: an atlas of spheres needs the columns x, y, z in mm and {path.stem}.json with 'Radius' in mm "
            f"({type(error).__name__}: {error})"
        ) from error
    digest = hashlib.sha256(path.read_bytes() + str(radius).encode()).hexdigest()
    name, space = str(facts.get("Name", path.stem)), str(facts.get("Space", "MNI152"))
    return sphere_atlas(name, tuple(label for _, label in rows), centres_R3, radius, space=space, sha256=digest)


def sphere_atlas(
    name: str, labels: tuple[str, ...], centres_R3: Float, radius: float, *, space: str, sha256: str
) -> Atlas:
    """Make an atlas of spheres.

    Raises
    ------
    ParcellationError
        No positive radius, coordinates that are not finite, or not one per label.
    """
    if centres_R3.shape != (len(labels), 3) or not np.isfinite(centres_R3).all() or not radius > 0:
        raise ParcellationError(
            f"atlas {name!r}: {len(labels)} labels, coordinates of shape {centres_R3.shape} and radius {radius} mm; "
            "finite coordinates (R, 3) and a positive radius are needed"
        )
    return Atlas(Parcellation(name, labels, space, sha256), centres_R3=centres_R3.astype(np.float64), radius=radius)


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


def _check_labels(data: Any, values: tuple[int, ...], path: Path, table: str) -> None:
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
    if atlas.centres_R3 is not None:
        return atlas.centres_R3
    voxels_N3 = np.indices(atlas.maps.shape[:3]).reshape(3, -1).T
    centres_R3 = np.concatenate([_centres(weights_NR, voxels_N3) for weights_NR in weights_in_blocks(atlas)])
    return np.asarray(apply_affine(atlas.maps.affine, centres_R3))


def _centres(weights_NR: Float, voxels_N3: Float) -> Float:
    weights_NR = np.abs(weights_NR).astype(np.float64)
    return np.asarray((weights_NR.T @ voxels_N3) / weights_NR.sum(0)[:, None])


def weights_in_blocks(atlas: Atlas) -> Iterator[Any]:
    """Weights of some parcels at a time on the atlas's own grid, shape (X * Y * Z, parcels); labels weigh 0 or 1.

    1024 soft maps at 2 mm are 5 GB; a compressed file is opened once, else each block would unpack it anew.
    """
    image, n_parcels = atlas.maps, len(atlas.parcellation.labels)
    if atlas.soft:
        if nib.is_proxy(image.dataobj) and image.get_filename():
            image = nib.load(image.get_filename(), keep_file_open=True)
        for start in range(0, n_parcels, BLOCK):
            block = np.asarray(image.dataobj[..., start : start + BLOCK])
            yield block.reshape(-1, block.shape[3])
        return
    labels_N = np.rint(np.asarray(image.dataobj)).reshape(-1)
    for start in range(0, n_parcels, BLOCK):
        yield np.stack([labels_N == value for value in atlas.label_values[start : start + BLOCK]], axis=1)
