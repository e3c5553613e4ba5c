"""Atlases and projection, against nilearn's maskers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from nilearn.maskers import NiftiLabelsMasker, NiftiMapsMasker, NiftiSpheresMasker

from xsite.data.atlases import get_atlas
from xsite.errors import FormatError, ParcellationError
from xsite.signals import parcels
from xsite.signals.atlas import sphere_atlas
from xsite.signals.bold import image_to_parcels
from xsite.signals.parcels import (
    MIN_COVERAGE,
    Atlas,
    Projector,
    load_atlas,
    maps_on_grid,
    parcel_coordinates,
    save_atlas,
)

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


def test_labels_equal_nilearn_inside_a_brain_mask(tmp_path: Path, rng: np.random.Generator):
    atlas = save_atlas(tmp_path / "labels.nii.gz", label_map(), LABELS, "labels", SPACE)
    image, brain = real_like(rng)
    bold_VR, _ = Projector(atlas, image.affine, IMAGE_SHAPE, mask=brain).project(np.asarray(image.dataobj))
    mask = nib.Nifti1Image(brain.astype(np.uint8), image.affine)
    masker = NiftiLabelsMasker(atlas.maps, mask_img=mask, resampling_target="data", standardize=None)
    np.testing.assert_allclose(bold_VR, masker.fit_transform(image), rtol=1e-4)


@pytest.mark.parametrize("masked", [True, False])
def test_power_spheres_equal_nilearn(rng: np.random.Generator, masked: bool):
    atlas = get_atlas("power264")
    affine, points = grid((3.5, 3.5, 3.5), (46, 56, 48))
    affine[:3, 3] += [0, -15, 15]
    brain = ((points / [80, 97, 83]) ** 2).sum(-1) < 1
    data = (1000 + 10 * rng.normal(size=(46, 56, 48, 12))).astype(np.float32)
    image, mask = nib.Nifti1Image(data, affine), nib.Nifti1Image(brain.astype(np.uint8), affine)
    projector = Projector(atlas, affine, (46, 56, 48), mask=brain if masked else None)
    bold_VR, coverage_R = projector.project(data)
    covered = coverage_R >= MIN_COVERAGE
    assert covered.sum() > 200
    seeds = [tuple(centre) for centre in atlas.centres_R3[covered]]
    masker = NiftiSpheresMasker(
        seeds, radius=atlas.radius, mask_img=mask if masked else None, allow_overlap=True, standardize=None
    )
    expected_VR = masker.fit_transform(image)
    np.testing.assert_allclose(bold_VR[:, covered], expected_VR, rtol=1e-4)
    assert np.isnan(bold_VR[:, ~covered]).all()
    sizes = np.asarray(projector.matrix_RN.astype(bool).sum(1)).ravel()[covered]
    assert 4 <= sizes.min() <= sizes.max() < 20  # 524 mm3 in voxels of 43 mm3


def test_spheres_at_the_edge_of_the_field_of_view_and_in_coarse_voxels(rng: np.random.Generator):
    affine, _ = grid((4.0,) * 3, (20, 20, 20))  # from -40 to 36 mm
    centres = np.array([[0.0, 0, 0], [0, 0, -42], [0, 0, -47.5], [0, 0, 90]])
    atlas = sphere_atlas("four", ("in", "half", "out", "far"), centres, 5.0, space=SPACE, sha256="s" * 64)
    bold_VR, coverage_R = Projector(atlas, affine, (20, 20, 20)).project(rng.normal(size=(20, 20, 20, 5)))
    np.testing.assert_allclose(coverage_R, [1, 0.5, 0, 0], atol=0.06)
    assert np.isfinite(bold_VR[:, 0]).all()
    assert np.isnan(bold_VR[:, 2:]).all()
    coarse = grid((12.0,) * 3, (10, 10, 10))[0]
    bold_VR, coverage_R = Projector(atlas, coarse, (10, 10, 10)).project(rng.normal(size=(10, 10, 10, 5)))
    assert coverage_R[0] == 1
    assert np.isfinite(bold_VR[:, 0]).all()  # the voxel that holds the seed, though no centre is within the radius


def test_many_soft_maps_are_handled_in_blocks_and_kept_sparse(
    atlas: Atlas, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
):
    image, brain = real_like(rng)
    data = np.asarray(image.dataobj)
    plain_VR, plain_R = Projector(atlas, image.affine, IMAGE_SHAPE, mask=brain).project(data)
    parcels._grids.clear()
    monkeypatch.setattr("xsite.signals.atlas.BLOCK", 2)
    blocks_VR, blocks_R = Projector(atlas, image.affine, IMAGE_SHAPE, mask=brain).project(data)
    np.testing.assert_array_equal(blocks_VR, plain_VR)
    np.testing.assert_allclose(blocks_R, plain_R, rtol=1e-12)
    np.testing.assert_allclose(parcel_coordinates(atlas), CENTRES, atol=0.5)
    parcels._grids.clear()
    monkeypatch.setattr(parcels, "DENSE_PARCELS", 3)
    sparse_VR, sparse_R = Projector(atlas, image.affine, IMAGE_SHAPE, mask=brain).project(data)
    np.testing.assert_allclose(sparse_VR, plain_VR, rtol=2e-5)
    np.testing.assert_allclose(sparse_R, plain_R, rtol=1e-6)
    parcels._grids.clear()


@pytest.mark.parametrize("kind", ["soft", "labels", "spheres"])
def test_item_25_half_a_brain_loses_the_parcels_of_the_other_half(tmp_path: Path, rng: np.random.Generator, kind: str):
    if kind == "spheres":
        atlas = sphere_atlas("five", LABELS, CENTRES, 12.0, space=SPACE, sha256="h" * 64)
    else:
        maps = soft_maps() if kind == "soft" else label_map()
        atlas = save_atlas(tmp_path / "atlas.nii.gz", maps, LABELS, kind, SPACE)
    shape = (38, 46, 17)
    affine, points = grid((3.6, 3.6, 4.0), (38, 46, 34))
    brain = ((points / [62, 76, 58]) ** 2).sum(-1) < 1
    slab = slice(17, 34)  # the upper half: CENTRES at z = 20 and 40 are in, those at z = 0 lie half out
    affine[:3, 3] = apply_affine(affine, [0, 0, 17])
    data = 1000 * brain[:, :, slab, None] * (1 + 0.01 * rng.normal(size=(*shape, 15)))
    raw = image_to_parcels(nib.Nifti1Image(data.astype(np.float32), affine), atlas, source="half.nii")
    covered = raw.coverage_R >= MIN_COVERAGE
    assert covered[2:].all()
    assert ((raw.coverage_R[:2] > 0.25) & (raw.coverage_R[:2] < 0.6)).all()
    assert np.isfinite(raw.series_VR[:, covered]).all()
    assert np.isnan(raw.series_VR[:, ~covered]).all()
    higher = affine.copy()
    higher[2, 3] += 12  # the slab starts at 12 mm
    raw = image_to_parcels(nib.Nifti1Image(data.astype(np.float32), higher), atlas, source="half.nii")
    assert np.isnan(raw.series_VR[:, :2]).all()
    assert np.isfinite(raw.series_VR[:, 4]).all()
