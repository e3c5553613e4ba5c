"""Parcel series of a 4D image: our cached projector beside nilearn's masker, in one run."""

from __future__ import annotations

import time
from collections.abc import Iterator

import nibabel
import numpy as np
from nilearn.maskers import NiftiMapsMasker

from xsite.phantom.atlas import LABELS, NAME, SPACE, atlas_image
from xsite.recording import Parcellation
from xsite.signals.parcels import Atlas, Projector

N_VOLUMES, REPEATS = 150, 3


def lines() -> Iterator[str]:
    """Time both on the same image, several times, first call apart."""
    maps = atlas_image()
    atlas = Atlas(Parcellation(NAME, tuple(LABELS), SPACE, "0" * 64), maps)
    rng = np.random.default_rng(0)
    affine, shape = np.diag([4.0, 4.0, 4.0, 1.0]), (44, 52, 44)
    affine[:3, 3] = (-86, -120, -70)
    data_XYZV = rng.normal(1000, 10, (*shape, N_VOLUMES)).astype(np.float32)
    image = nibabel.Nifti1Image(data_XYZV, affine)

    start = time.perf_counter()
    projector = Projector(atlas, affine, shape)
    projector.project(data_XYZV)
    first = time.perf_counter() - start
    masker = NiftiMapsMasker(maps, standardize=False).fit()
    ours = [_seconds(lambda: projector.project(data_XYZV)) for _ in range(REPEATS)]
    theirs = [_seconds(lambda: masker.transform(image)) for _ in range(REPEATS)]
    yield f"parcels: {N_VOLUMES} volumes of {shape} voxels onto {len(LABELS)} soft maps, {REPEATS} times"
    yield f"  projector        {_rate(ours)} (first call {first:.1f} s)"
    yield f"  NiftiMapsMasker  {_rate(theirs)}"
    yield f"  ratio            {np.median(theirs) / np.median(ours):8.1f}"


def _rate(seconds: list[float]) -> str:
    return f"{N_VOLUMES / max(seconds):8.0f} to {N_VOLUMES / min(seconds):.0f} volumes/s"


def _seconds(call: object) -> float:
    assert callable(call)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
