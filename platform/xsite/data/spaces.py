"""Which template an image lies in, and how an image in the subject's own space gets there.

An affine transform costs nothing: it is multiplied into the image's own affine and no voxel is interpolated. A warp
needs its own software; such images are refused with the command that makes them usable.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from xsite.data.files import check_file
from xsite.errors import FormatError
from xsite.recording import Float

TEMPLATES = ("MNI152NLin2009cAsym", "MNI152NLin6Asym")
"""Spaces in which an atlas may be laid on the image, the best first: they differ by a few millimetres, less than a
parcel; other templates (symmetric, linear, paediatric, surfaces) are not taken for MNI."""

RESOLUTIONS = ("2", "02", "", "3", "1", "01")
"""``res`` entities, the best first: atlases come in 2 mm, native resolution is as good, 1 mm only costs time."""

TRANSFORMS = (".txt", ".mat", ".tfm", ".h5")
_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK counts left and posterior positive, NIfTI right and anterior


def entities(path: Path) -> dict[str, str]:
    """BIDS entities of a file name."""
    return dict(re.findall(r"(?:^|_)([a-z]+)-([A-Za-z0-9]+)", path.name))


def choose_image(paths: Sequence[Path], confounds: str = "motion6") -> Path | None:
    """The image to read among the versions of one preprocessed run; None where none can be brought to a template.

    Parameters
    ----------
    paths : sequence of Path
        Of one run: other ``space``, ``res`` or ``desc`` entities.
    confounds : str
        Strategy of the site: ``ica_aroma`` needs the image that was denoised by it.
    """
    wanted = "smoothAROMAnonaggr" if confounds == "ica_aroma" else "preproc"
    ranked = []
    for path in paths:
        parts = entities(path)
        if parts.get("desc") != wanted or {"hemi", "den"} & parts.keys():
            continue
        space = parts.get("space", "")
        if space in TEMPLATES:
            rank = TEMPLATES.index(space)
        elif (chain := find_transforms(path)) and all(link.suffix != ".h5" for link in chain):
            rank = len(TEMPLATES)
        else:
            continue
        resolution = parts.get("res", "")
        place = RESOLUTIONS.index(resolution) if resolution in RESOLUTIONS else len(RESOLUTIONS)
        ranked.append((rank, place, path))
    return min(ranked)[2] if ranked else None


def why_not(paths: Sequence[Path]) -> str:
    """Words for preprocessed images none of which :func:`choose_image` takes."""
    found = sorted({entities(path).get("space", "the subject's own space") for path in paths})
    warps = sorted({link.name for path in paths for link in find_transforms(path) if link.suffix == ".h5"})
    how = "no affine transform leads from there"
    if warps:
        how = f"{warps[0]} is a warp, which is not applied here, and nothing else leads from there"
    return (
        f"found in {', '.join(found)}; {how} to {' or '.join(TEMPLATES)}: run fMRIPrep with --output-spaces "
        f"{TEMPLATES[0]}:res-2"
    )


def find_transforms(image: Path) -> list[Path]:
    """Transforms that lead from the image's space to a template, first to last; empty where the chain has a gap.

    fMRIPrep's names: ``from-scanner_to-T1w`` (or ``from-boldref_to-T1w``) beside the image, ``from-T1w_to-MNI...`` in
    ``anat/`` of the session or the subject.
    """
    space = entities(image).get("space", "")
    if space in TEMPLATES:
        return []
    for template in TEMPLATES:
        if direct := _find(image, space or "(?:scanner|boldref|bold)", template):
            return [direct]
    to_t1w = None if space else _find(image, "(?:scanner|boldref|bold)", "T1w")
    if space not in ("", "T1w") or (not space and to_t1w is None):
        return []
    for template in TEMPLATES:
        if last := _find(image, "T1w", template):
            return [last] if to_t1w is None else [to_t1w, last]
    return []


def _find(image: Path, source: str, target: str) -> Path | None:
    """The nearest transform file of that direction, affine ones first; run entities of the name must be the image's."""
    own = entities(image)
    pattern = re.compile(rf"_from-{source}_to-{target}(?:_|\.)")
    folders = [image.parent, image.parent.parent / "anat", image.parent.parent.parent / "anat"]
    for folder in folders:
        found = []
        for path in sorted(folder.glob("*_to-*")) if folder.is_dir() else []:
            parts = entities(path)
            same = all(parts[name] == own.get(name) for name in ("sub", "ses", "task", "run") if name in parts)
            if same and path.suffix in TRANSFORMS and pattern.search(path.name) and not path.name.startswith("."):
                found.append((TRANSFORMS.index(path.suffix), path))
        if found:
            return min(found)[1]
    return None


def affine_to_template(transforms: Sequence[Path]) -> Float:
    """Product of affine ITK transforms as a matrix (4, 4) that takes image millimetres (RAS) to template millimetres.

    A transform named ``from-A_to-B`` makes images in A into images in B, so it maps *points* of B to A; its inverse is
    what an image's own affine needs.

    Raises
    ------
    FormatError
        A file is damaged, a warp, or singular.
    """
    total_44 = np.eye(4)
    for path in transforms:
        pull_44 = _FLIP @ read_affine(path) @ _FLIP
        if abs(np.linalg.det(pull_44)) < 1e-6:
            raise FormatError(f"{path}: the transform is singular; make it anew")
        total_44 = np.linalg.inv(pull_44) @ total_44
    return total_44


def read_affine(path: Path) -> Float:
    """One affine ITK transform as a matrix (4, 4) in ITK's own LPS millimetres.

    Text (``.txt``, ``.tfm``) and MATLAB files (``.mat``, as ANTs writes them), affine or identity.

    Raises
    ------
    FormatError
        Not such a file, or a composite with a warp (``.h5``): the message gives the command.
    """
    if path.suffix == ".h5":
        raise FormatError(
            f"{path}: a composite transform with a warp, which needs ITK and is not applied here. Let fMRIPrep write "
            f"the image in template space (--output-spaces {TEMPLATES[0]}:res-2), or make it with `antsApplyTransforms "
            f"-d 3 -e 3 -i BOLD -r TEMPLATE -t {path.name} -o ..._space-{TEMPLATES[0]}_desc-preproc_bold.nii.gz`"
        )
    kind, parameters, fixed = _read_matlab(path) if path.suffix == ".mat" else _read_text(path)
    if kind.startswith("IdentityTransform"):
        return np.eye(4)
    if not re.match(r"(MatrixOffsetTransformBase|AffineTransform)", kind) or len(parameters) != 12 or len(fixed) != 3:
        raise FormatError(
            f"{path}: ITK transform {kind!r} with {len(parameters)} parameters; only affine matrices (12 parameters, "
            "3 fixed ones) are applied here"
        )
    matrix_33, shift_3, centre_3 = np.reshape(parameters[:9], (3, 3)), np.array(parameters[9:]), np.array(fixed)
    affine_44 = np.eye(4)
    affine_44[:3, :3] = matrix_33
    affine_44[:3, 3] = shift_3 + centre_3 - matrix_33 @ centre_3
    return affine_44


def _read_text(path: Path) -> tuple[str, list[float], list[float]]:
    text = check_file(path).read_text(encoding="utf-8", errors="replace")
    kinds = re.findall(r"(?m)^Transform:\s*(\S+)", text)
    if "Insight Transform File" not in text or len(kinds) != 1:
        raise FormatError(f"{path}: expected one ITK transform ('#Insight Transform File V1.0'), found {len(kinds)}")
    try:
        values = {
            name: [float(word) for word in line.split()]
            for name, line in re.findall(r"(?m)^(Parameters|FixedParameters):(.*)$", text)
        }
    except ValueError as error:
        raise FormatError(f"{path}: parameters of the transform are not numbers ({error})") from error
    return kinds[0], values.get("Parameters", []), values.get("FixedParameters", [])


def _read_matlab(path: Path) -> tuple[str, list[float], list[float]]:
    try:
        content: dict[str, Any] = loadmat(check_file(path), appendmat=False)
    except (ValueError, TypeError, NotImplementedError, OSError) as error:
        raise FormatError(f"{path}: not a MATLAB file of an ITK transform ({error})") from error
    kinds = [name for name in content if "Transform" in name]
    if len(kinds) != 1 or "fixed" not in content:
        raise FormatError(f"{path}: expected one ITK transform and 'fixed', found {sorted(content)}")
    return kinds[0], content[kinds[0]].ravel().tolist(), content["fixed"].ravel().tolist()


def image_space(path: Path, bold_space: str, codes: set[int]) -> tuple[str, list[Path]]:
    """Space that an image is in once ``transforms`` are applied, in words, and these transforms.

    Parameters
    ----------
    path : Path
    bold_space : str
        Of the site: "template" takes every image for one in template space.
    codes : set of int
        The header's sform and qform codes; 4 means MNI.

    Raises
    ------
    FormatError
        The name says that the image is in another space, and no affine transform leads to a template.
    """
    parts = entities(path)
    space = parts.get("space", "")
    if space in TEMPLATES:
        return space, []
    if bold_space == "template":
        return "template, as the site says", []
    if not space and (4 in codes or "desc" not in parts):
        return ("MNI, as the header says" if 4 in codes else "as given"), []
    if transforms := find_transforms(path):
        affine_to_template(transforms)  # a warp or a damaged file is told about before the image is read
        return next(name for name in TEMPLATES if f"_to-{name}" in transforms[-1].name), transforms
    raise FormatError(f"{path}: the image is in {space or 'its own space'}, not in a template: {why_not([path])}")
