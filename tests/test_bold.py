"""Images to percent signal change, and the one-fit cleaning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nilearn.signal import clean
from test_parcels import CENTRES, IMAGE_SHAPE, LABELS, SPACE, grid, soft_maps

from xsite.errors import FormatError, ParcellationError
from xsite.signals.bold import image_to_parcels
from xsite.signals.bold_cleaning import FD, MOTION, clean_like, clean_parcels
from xsite.signals.parcels import Atlas, save_atlas

N_VOLUMES = 150  # more than two blocks


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    return save_atlas(tmp_path / "five.nii.gz", soft_maps(), LABELS, "five", SPACE)


@pytest.fixture
def scan(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    """A brain of uneven brightness whose parcels fluctuate by a known percentage, on disk with int16 scaling."""
    affine, points = grid((3.6, 3.6, 4.0), IMAGE_SHAPE)
    brain = ((points / [62, 76, 58]) ** 2).sum(-1) < 1
    truth_VR = rng.normal(0, 1, (N_VOLUMES, len(CENTRES)))
    truth_VR -= truth_VR.mean(0)
    maps = np.stack([np.exp(-((points - c) ** 2).sum(-1) / (2 * 12**2)) for c in CENTRES], axis=3)
    level = np.where(brain, rng.uniform(500, 1500, IMAGE_SHAPE), 15.0)
    change = (maps @ truth_VR.T) * brain[..., None] / 100
    data = level[..., None] * (1 + change + 0.005 * rng.normal(size=change.shape))
    image = nib.Nifti1Image(data.astype(np.float32), affine)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "bold.nii.gz")
    return tmp_path / "bold.nii.gz", truth_VR


def test_percent_signal_change_is_recovered_whatever_the_brightness(scan: tuple[Path, np.ndarray], atlas: Atlas):
    path, truth_VR = scan
    raw = image_to_parcels(nib.load(path), atlas, source=path.name)
    assert raw.series_VR.shape == truth_VR.shape
    for found, true in zip(raw.series_VR.T, truth_VR.T, strict=True):
        assert np.corrcoef(found, true)[0, 1] > 0.98
        assert np.polyfit(true, found, 1)[0] == pytest.approx(1, abs=0.07)
    assert raw.mean_level == pytest.approx(1000, rel=0.1)
    assert 50 < raw.tsnr < 210
    assert np.isfinite(raw.global_signal_V).all()
    assert raw.dvars_V[0] == 0
    assert raw.dvars_V[1:].min() > 0


def test_image_in_memory_equals_image_on_disk(scan: tuple[Path, np.ndarray], atlas: Atlas):
    on_disk = nib.load(scan[0])
    in_memory = nib.Nifti1Image(np.asarray(on_disk.dataobj, dtype=np.float32), on_disk.affine)
    a, b = (image_to_parcels(image, atlas, source="x") for image in (on_disk, in_memory))
    np.testing.assert_allclose(a.series_VR, b.series_VR, atol=1e-4)


def _image(scan: tuple[Path, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(scan[0])
    return np.asarray(image.dataobj[..., :20], dtype=np.float32), image.affine


def test_bad_images_are_refused_by_name(scan: tuple[Path, np.ndarray], atlas: Atlas, rng: np.random.Generator):
    data, affine = _image(scan)
    with pytest.raises(FormatError, match=r"b\.nii: image has shape \(38, 46, 34\); a 4D image"):
        image_to_parcels(nib.Nifti1Image(data[..., 0], affine), atlas, source="b.nii")
    spoiled = data.copy()
    spoiled[19, 23, 17, 5] = np.nan
    spoiled[20, 23, 17, 7] = np.inf
    with pytest.raises(FormatError, match=r"b\.nii: 2 voxels inside the brain hold NaN"):
        image_to_parcels(nib.Nifti1Image(spoiled, affine), atlas, source="b.nii")
    with pytest.raises(FormatError, match="centred on zero"):
        image_to_parcels(nib.Nifti1Image(rng.normal(size=data.shape).astype(np.float32), affine), atlas, source="b.nii")
    with pytest.raises(FormatError, match="no positive voxel"):
        image_to_parcels(nib.Nifti1Image(np.zeros_like(data), affine), atlas, source="b.nii")
    with pytest.raises(FormatError, match="no voxel inside the brain varies"):
        image_to_parcels(nib.Nifti1Image(np.repeat(data[..., :1], 9, axis=3), affine), atlas, source="b.nii")
    far = affine.copy()
    far[:3, 3] += 300
    with pytest.raises(ParcellationError, match="misses the brain"):
        image_to_parcels(nib.Nifti1Image(data, far), atlas, source="b.nii")


def test_truncated_file_is_refused_by_name(scan: tuple[Path, np.ndarray], atlas: Atlas):
    path = scan[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError, match=r"bold\.nii\.gz: volumes from \d+ cannot be read.*truncated"):
        image_to_parcels(nib.load(path), atlas, source=path.name)


def test_nan_outside_the_brain_does_no_harm(scan: tuple[Path, np.ndarray], atlas: Atlas):
    data, affine = _image(scan)
    holed = data.copy()
    holed[0, 0, 0] = np.nan
    a, b = (image_to_parcels(nib.Nifti1Image(d, affine), atlas, source="x") for d in (data, holed))
    np.testing.assert_allclose(a.series_VR, b.series_VR, atol=1e-5)


@pytest.mark.parametrize(
    "relative",
    ["data/real/bold/nitime/nitime/data/fmri1.nii.gz", "data/real/bold/pymvpa/mvpa2/data/bold.nii.gz"],
)
def test_real_images(shared_data: Callable[[str], Path], tmp_path: Path, relative: str):
    path = shared_data(relative)
    image = nib.load(path)
    shape, affine = image.shape[:3], image.affine
    thirds = np.zeros(shape, np.int16)
    for value, part in enumerate(np.array_split(np.arange(shape[0]), 3), start=1):
        thirds[part] = value
    atlas = save_atlas(tmp_path / "thirds.nii.gz", nib.Nifti1Image(thirds, affine), ("a", "b", "c"), "thirds", "native")
    raw = image_to_parcels(image, atlas, source=path.name)
    assert raw.series_VR.shape == (image.shape[3], 3)
    covered = raw.coverage_R >= 0.5
    assert covered.any()
    assert np.isfinite(raw.series_VR[:, covered]).all()
    assert np.isnan(raw.series_VR[:, ~covered]).all()
    assert 0.01 < np.std(raw.series_VR[:, covered]) < 20
    assert raw.tsnr > 3


def confounds(rng: np.random.Generator, n: int = N_VOLUMES) -> tuple[np.ndarray, tuple[str, ...]]:
    motion = np.cumsum(rng.normal(0, 0.02, (n, 6)), axis=0) * [1, 1, 1, 0.02, 0.02, 0.02]
    fd = np.concatenate([[np.nan], np.abs(np.diff(motion, axis=0) * [1, 1, 1, 50, 50, 50]).sum(1)])
    csf = rng.normal(500, 3, n)
    return np.column_stack([csf, motion, fd]), ("csf", *MOTION, FD)


def test_trend_and_motion_are_removed_and_the_signal_stays(rng: np.random.Generator):
    values_VK, names = confounds(rng)
    t = np.linspace(-1, 1, N_VOLUMES)
    signal = np.sin(2 * np.pi * np.arange(N_VOLUMES) * 0.11)
    series = (
        np.outer(signal, [1, 2]) + np.outer(3 * t + 2 * t**2 + 5, [1, 1]) + values_VK[:, [1]] * 8 + values_VK[:, [5]]
    )
    cleaned = clean_parcels(series, values_VK, names, 2.0, global_signal_V=series[:, 0])
    assert np.corrcoef(cleaned.bold_VR[:, 0], signal)[0, 1] > 0.95
    for nuisance in (np.ones_like(t), t, t**2, *values_VK[:, 1:7].T):
        assert np.abs(nuisance @ cleaned.bold_VR).max() / np.linalg.norm(nuisance) < 1e-4
    np.testing.assert_allclose(cleaned.global_signal_V, cleaned.bold_VR[:, 0], atol=1e-5)
    assert cleaned.confound_names == (*MOTION, FD)  # csf is given but not used: sites without it stay comparable
    assert cleaned.steps[0]["confounds"] == list(MOTION)
    np.testing.assert_allclose(cleaned.fd_V[1:], values_VK[1:, -1], rtol=1e-5)
    assert np.isfinite(cleaned.confounds_VK).all()


def test_fit_equals_nilearn(rng: np.random.Generator):
    values_VK, names = confounds(rng)
    series = rng.normal(size=(N_VOLUMES, 4)).cumsum(0)
    t = np.linspace(-1, 1, N_VOLUMES)
    expected = clean(
        series,
        confounds=np.column_stack([t, t**2, values_VK[:, 1:7]]),
        detrend=False,
        standardize=None,
        standardize_confounds=True,
    )
    cleaned = clean_parcels(series, values_VK, names, 2.0, global_signal_V=None)
    np.testing.assert_allclose(cleaned.bold_VR, expected - expected.mean(0), atol=1e-4)
    assert np.isnan(cleaned.global_signal_V).all()


def test_framewise_displacement_is_computed_where_it_is_not_given(rng: np.random.Generator):
    values_VK, names = confounds(rng)
    cleaned = clean_parcels(np.zeros((N_VOLUMES, 1)), values_VK[:, :-1], names[:-1], 2.0, global_signal_V=None)
    np.testing.assert_allclose(cleaned.fd_V[1:], values_VK[1:, -1], rtol=1e-4)


def test_other_confounds_missing_values_and_no_confounds(rng: np.random.Generator):
    series = rng.normal(size=(N_VOLUMES, 2))
    given = np.column_stack([rng.normal(size=N_VOLUMES), np.full(N_VOLUMES, np.nan), np.ones(N_VOLUMES)])
    given[[0, 7], 0] = np.nan
    cleaned = clean_parcels(series, given, ("acompcor", "broken", "constant"), 2.0, global_signal_V=None)
    assert cleaned.confound_names == ("acompcor", "constant")
    assert cleaned.steps[0]["dropped"] == ["broken"]
    assert cleaned.design_VP.shape[1] == 4  # three of trend, one confound; the constant one adds nothing
    assert cleaned.confounds_VK[0, 0] == 0
    assert np.isnan(cleaned.fd_V).all()
    bare = clean_parcels(series, None, (), 2.0, global_signal_V=None)
    assert bare.confounds_VK.shape == (N_VOLUMES, 0)


def test_truth_gets_the_same_projection_and_nan_columns_stay(rng: np.random.Generator):
    values_VK, names = confounds(rng)
    series = rng.normal(size=(N_VOLUMES, 3))
    series[:, 1] = np.nan
    cleaned = clean_parcels(series, values_VK, names, 2.0, global_signal_V=None)
    assert np.isnan(cleaned.bold_VR[:, 1]).all()
    np.testing.assert_array_equal(clean_like(series, cleaned.design_VP), cleaned.bold_VR)


def test_confounds_that_do_not_fit_are_refused():
    with pytest.raises(FormatError, match=r"confounds have shape \(9, 1\), expected \(10 volumes"):
        clean_parcels(np.zeros((10, 1)), np.zeros((9, 1)), ("a",), 2.0, global_signal_V=None)
    noise = np.random.default_rng(0).normal(size=(12, 9))
    with pytest.raises(FormatError, match="9 confounds for 12 volumes"):
        clean_parcels(np.zeros((12, 1)), noise, tuple("abcdefghi"), 2.0, global_signal_V=None)
