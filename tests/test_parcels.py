"""Atlases and projection, against nilearn's maskers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nilearn.maskers import NiftiLabelsMasker, NiftiMapsMasker

from xsite.errors import FormatError, ParcellationError
from xsite.signals.parcels import Atlas, Projector, load_atlas, maps_on_grid, parcel_coordinates, save_atlas

CENTRES = np.array([[-30, -40, 0], [30, -40, 0], [-20, 20, 20], [20, 20, 20], [0, -10, 40.0]])
LABELS = ("left", "right", "front left", "front right", "top")
SPACE = "MNI152NLin2009cAsym"
IMAGE_SHAPE = (38, 46, 34)


def grid(voxel: tuple[float, float, float], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    affine = np.diag([*voxel, 1.0])
    affine[:3, 3] = [-0.5 * size * n for size, n in zip(voxel, shape, strict=True)]
    return affine, apply_affine(affine, np.indices(shape).reshape(3, -1).T).reshape(*shape, 3)


def soft_maps(voxel: float = 4.0, shape: tuple[int, int, int] = (40, 50, 40)) -> nib.Nifti1Image:
    affine, points = grid((voxel,) * 3, shape)
    maps = np.stack([np.exp(-((points - c) ** 2).sum(-1) / (2 * 12**2)) for c in CENTRES], axis=3)
    return nib.Nifti1Image(np.where(maps > 0.05, maps, 0).astype(np.float32), affine)


def label_map() -> nib.Nifti1Image:
    affine, points = grid((4.0,) * 3, (40, 50, 40))
    labels = np.zeros((40, 50, 40), np.int16)
    for value, centre in zip((10, 20, 30, 40, 50), CENTRES, strict=True):
        labels[((points - centre) ** 2).sum(-1) < 14**2] = value
    return nib.Nifti1Image(labels, affine)


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    return save_atlas(tmp_path / "five.nii.gz", soft_maps(), LABELS, "five", SPACE)


def real_like(rng: np.random.Generator, n_volumes: int = 20) -> tuple[nib.Nifti1Image, np.ndarray]:
    affine, points = grid((3.6, 3.6, 4.0), IMAGE_SHAPE)
    brain = ((points / [62, 76, 58]) ** 2).sum(-1) < 1
    level = 800 * brain + 20 * rng.random(IMAGE_SHAPE)
    data = level[..., None] * (1 + 0.01 * rng.normal(size=(*IMAGE_SHAPE, n_volumes)))
    return nib.Nifti1Image(data.astype(np.float32), affine), brain


def test_save_and_load_agree_and_the_hash_is_of_the_content(tmp_path: Path, atlas: Atlas):
    again = save_atlas(tmp_path / "elsewhere" / "five.nii.gz", soft_maps(), LABELS, "five", SPACE)
    assert again.parcellation == atlas.parcellation == load_atlas(tmp_path / "five.nii.gz").parcellation
    assert atlas.parcellation.labels == LABELS
    assert atlas.parcellation.space == SPACE
    assert atlas.soft
    other = save_atlas(tmp_path / "other.nii.gz", soft_maps(voxel=4.2), LABELS, "five", SPACE)
    assert other.parcellation.sha256 != atlas.parcellation.sha256


def test_coordinates_are_the_centres(atlas: Atlas):
    np.testing.assert_allclose(parcel_coordinates(atlas), CENTRES, atol=0.5)


def test_soft_maps_equal_nilearn_on_another_grid(atlas: Atlas, rng: np.random.Generator):
    image, brain = real_like(rng)
    bold_VR, coverage_R = Projector(atlas, image.affine, IMAGE_SHAPE, mask=brain).project(np.asarray(image.dataobj))
    mask = nib.Nifti1Image(brain.astype(np.uint8), image.affine)
    masker = NiftiMapsMasker(
        atlas.maps, mask_img=mask, resampling_target="data", standardize=None, keep_masked_maps=False
    )
    expected_VR = masker.fit_transform(image)
    r = [np.corrcoef(bold_VR[:, i], expected_VR[:, i])[0, 1] for i in range(len(LABELS))]
    assert min(r) > 0.99999
    np.testing.assert_allclose(bold_VR, expected_VR, rtol=1e-3)
    assert bold_VR.dtype == np.float32
    assert (coverage_R > 0.9).all()


def test_labels_equal_nilearn_on_another_grid(tmp_path: Path, rng: np.random.Generator):
    atlas = save_atlas(tmp_path / "labels.nii.gz", label_map(), LABELS, "labels", SPACE)
    assert atlas.label_values == (10, 20, 30, 40, 50)
    image, _ = real_like(rng)
    bold_VR, _ = Projector(atlas, image.affine, IMAGE_SHAPE).project(np.asarray(image.dataobj))
    expected_VR = NiftiLabelsMasker(atlas.maps, resampling_target="data", standardize=None).fit_transform(image)
    np.testing.assert_allclose(bold_VR, expected_VR, rtol=1e-4)


def test_known_amplitudes_come_back(atlas: Atlas, rng: np.random.Generator):
    affine, _ = grid((3.6, 3.6, 4.0), IMAGE_SHAPE)
    maps = maps_on_grid(atlas, affine, IMAGE_SHAPE)
    truth_VR = rng.normal(size=(7, 5)).astype(np.float32)
    data = np.zeros((np.prod(IMAGE_SHAPE), 7), np.float32)
    data[maps.support_N] = maps.weights_NR @ truth_VR.T
    bold_VR, _ = Projector(atlas, affine, IMAGE_SHAPE).project(data.reshape(*IMAGE_SHAPE, 7))
    np.testing.assert_allclose(bold_VR, truth_VR, atol=1e-4)


def test_resampling_is_done_once_per_grid(atlas: Atlas):
    affine, _ = grid((3.6, 3.6, 4.0), IMAGE_SHAPE)
    first = maps_on_grid(atlas, affine, IMAGE_SHAPE)
    assert maps_on_grid(atlas, affine.copy(), IMAGE_SHAPE) is first
    assert maps_on_grid(atlas, affine * 1.01, IMAGE_SHAPE) is not first


def test_uncovered_parcel_is_nan_and_the_others_are_right(atlas: Atlas, rng: np.random.Generator):
    image, _ = real_like(rng)
    affine, points = grid((3.6, 3.6, 4.0), IMAGE_SHAPE)
    mask = points[..., 2] < 22  # the slab stops below "top"
    bold_VR, coverage_R = Projector(atlas, affine, IMAGE_SHAPE, mask=mask).project(np.asarray(image.dataobj))
    assert np.isnan(bold_VR[:, 4]).all()
    assert coverage_R[4] < 0.5
    assert np.isfinite(bold_VR[:, :2]).all()


def test_atlas_that_misses_the_image_is_refused(atlas: Atlas):
    affine, points = grid((3.6, 3.6, 4.0), IMAGE_SHAPE)
    far = affine.copy()
    far[:3, 3] += 400
    with pytest.raises(ParcellationError, match=r"sub-1_bold\.nii: atlas 'five' \(.*five\.nii\.gz\) misses the brain"):
        Projector(atlas, far, IMAGE_SHAPE, source="sub-1_bold.nii")
    with pytest.raises(ParcellationError, match=r"sub-1_bold\.nii: atlas 'five'"):
        Projector(atlas, affine, IMAGE_SHAPE, mask=points[..., 1] < -75, source="sub-1_bold.nii")
    with pytest.raises(ParcellationError, match="misses the brain"):
        Projector(atlas, affine, IMAGE_SHAPE, mask=points[..., 1] < -75)


def test_wrong_shapes_are_refused(atlas: Atlas):
    affine, _ = grid((3.6, 3.6, 4.0), IMAGE_SHAPE)
    projector = Projector(atlas, affine, IMAGE_SHAPE)
    with pytest.raises(FormatError, match="projector was made for"):
        projector.project(np.zeros((5, 5, 5, 2), np.float32))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "five.tsv").unlink(), r"five\.tsv not found"),
        (lambda folder: (folder / "five.tsv").write_text("index\tname\n1\ta\n"), "names 1 parcels.*holds 5 maps"),
        (lambda folder: (folder / "five.tsv").write_text("number\tname\n1\ta\n"), "'index' and 'name' are needed"),
        (lambda folder: (folder / "five.tsv").write_text("index\tname\n1\ta\n2\ta\n"), r"stand twice: \['a'\]"),
        (lambda folder: (folder / "five.tsv").write_text("index\tname\none\ta\n"), "not a whole number"),
        (lambda folder: (folder / "five.json").write_text("{,}"), r"five\.json: not valid JSON"),
        (lambda folder: (folder / "five.json").write_text("[]"), r"five\.json: a sidecar is a JSON object"),
        (lambda folder: (folder / "five.nii.gz").write_bytes(b"../annex/objects/five"), "cannot be read as NIfTI"),
        (lambda folder: _truncate(folder / "five.nii.gz"), "truncated"),
    ],
)
def test_damaged_atlas_is_named(tmp_path: Path, atlas: Atlas, spoil, message: str):
    spoil(tmp_path)
    with pytest.raises(ParcellationError, match=message):
        load_atlas(tmp_path / "five.nii.gz")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def test_labels_without_voxels_are_named(tmp_path: Path):
    save_atlas(tmp_path / "labels.nii.gz", label_map(), LABELS, "labels", SPACE)
    (tmp_path / "labels.tsv").write_text("index\tname\n0\tbackground\n10\ta\n20\tb\n30\tc\n40\td\n60\te\n")
    with pytest.raises(ParcellationError, match=r"without voxels \[60\], without name \[50\]"):
        load_atlas(tmp_path / "labels.nii.gz")
