"""Parcel series of a 4D image: our cached projector beside nilearn's maskers, in one run, turn by turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import nibabel
import numpy as np
from nilearn.maskers import NiftiLabelsMasker, NiftiMapsMasker, NiftiSpheresMasker

from xsite.data.atlases import get_atlas
from xsite.phantom.atlas import LABELS, NAME, SPACE, atlas_image
from xsite.recording import Parcellation
from xsite.signals.parcels import Atlas, Projector

N_VOLUMES, REPEATS = 150, 5
SHAPE = (44, 52, 44)


def lines() -> Iterator[str]:
    """Time both on the same image, first call apart; the ratio is of neighbours in time."""
    rng = np.random.default_rng(0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-86, -120, -70)
    data_XYZV = rng.normal(1000, 10, (*SHAPE, N_VOLUMES)).astype(np.float32)
    image = nibabel.Nifti1Image(data_XYZV, affine)
    for name, atlas, masker in _contestants():
        start = time.perf_counter()
        projector = Projector(atlas, affine, SHAPE)
        mine_VR, _ = projector.project(data_XYZV)
        first = time.perf_counter() - start
        theirs_VR = masker.fit().transform(image)
        pairs = [
            (_seconds(lambda: projector.project(data_XYZV)), _seconds(lambda: masker.transform(image)))  # noqa: B023
            for _ in range(REPEATS)
        ]
        ratios = [theirs / ours for ours, theirs in pairs]
        covered = np.flatnonzero(projector.covered_R)
        r = min(np.corrcoef(mine_VR[:, k], theirs_VR[:, k])[0, 1] for k in covered)
        yield f"parcels: {N_VOLUMES} volumes of {SHAPE} voxels onto {name}, {REPEATS} times"
        yield f"  projector  {_rate([ours for ours, _ in pairs])} (first call {first:.1f} s)"
        yield f"  {type(masker).__name__}  {_rate([theirs for _, theirs in pairs])}"
        yield f"  ratio      {np.median(ratios):8.1f} ({min(ratios):.1f} to {max(ratios):.1f}), r at least {r:.7f}"


def _contestants() -> Iterator[tuple[str, Atlas, Any]]:
    maps = atlas_image()
    soft = Atlas(Parcellation(NAME, tuple(LABELS), SPACE, "0" * 64), maps)
    yield f"{len(LABELS)} soft maps", soft, NiftiMapsMasker(maps, standardize=None, keep_masked_maps=False)
    weights = np.asarray(maps.dataobj)
    values = np.where(weights.max(3) > 0.1 * weights.max(), weights.argmax(3) + 1, 0).astype(np.int16)
    present = tuple(int(value) for value in np.unique(values) if value)
    labels = nibabel.Nifti1Image(values, maps.affine)
    names = tuple(str(value) for value in present)
    hard = Atlas(Parcellation("hard", names, SPACE, "1" * 64), labels, present)
    yield f"{len(present)} labels", hard, NiftiLabelsMasker(labels, standardize=None, resampling_target="data")
    power = get_atlas("power264")
    assert power.centres_R3 is not None
    seeds = [tuple(centre) for centre in power.centres_R3]
    yield "264 spheres", power, NiftiSpheresMasker(seeds, radius=power.radius, allow_overlap=True, standardize=None)


def _rate(seconds: list[float]) -> str:
    return f"{N_VOLUMES / max(seconds):8.0f} to {N_VOLUMES / min(seconds):.0f} volumes/s"


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
