"""BOLD as laboratories publish it: sidecars, repetition times, slice timing, dummy scans, spaces."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.io
from nibabel.affines import apply_affine
from small_site import LEAD_IN, N_VOLUMES, T_R, small_atlas, small_site, write_recording_files

from xsite.data.bids import find_recordings
from xsite.data.bold_readers import read_bold, sidecar_facts, slice_timing
from xsite.data.fingerprint import input_fingerprint, source_files
from xsite.data.prepare import prepare_recording
from xsite.data.spaces import affine_to_template, choose_image, find_transforms, image_space, read_affine
from xsite.data.windows import window_starts
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.signals.bold import image_to_parcels
from xsite.site import RecordingFiles

KEY = RecordingKey("small", "01", task="rest")


def raw_run(folder: Path, *, sidecar: dict | None = None, zoom: float = T_R, unit: str = "sec") -> RecordingFiles:
    """A raw image of 12 volumes with the sidecar and the header that a test wants."""
    path = folder / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).normal(1000, 10, (6, 6, 5, 12)).astype(np.float32)
    image = nib.Nifti1Image(data, np.diag([8.0, 8, 8, 1]))
    image.header.set_xyzt_units("mm", unit)
    image.header.set_zooms((8, 8, 8, zoom))
    nib.save(image, path)
    if sidecar is not None:
        path.with_name("sub-01_task-rest_bold.json").write_text(json.dumps(sidecar))
    return RecordingFiles(KEY, path, path)


@pytest.mark.parametrize(
    ("t_r", "sidecar", "zoom", "unit", "note"),
    [
        (2.1, None, 2.0999999, "sec", ""),  # ds003768: what float32 makes of 2.1
        (2.1, {"RepetitionTime": 2.1}, 2.0999999, "sec", ""),
        (2.0, None, 2000.0, "sec", "milliseconds marked as seconds"),
        (2.0, {"RepetitionTime": 2000}, 2.0, "sec", "milliseconds marked as seconds"),
        (2.0, None, 2000.0, "msec", ""),
        (2.0, None, 2.0, "msec", "seconds marked as milliseconds"),
        (0.367, {"RepetitionTime": 0.367}, 1.0, "sec", ""),  # ds004478
        (2.0, {"RepetitionTime": "n/a"}, 2.0, "sec", ""),  # sentinels for "not known"
        (2.0, {"RepetitionTime": -1}, 2.0, "sec", ""),
        (2.0, {"RepetitionTime": 0.0}, 0.0, "sec", "the site's is taken"),
    ],
)
def test_item_22_repetition_time(tmp_path, t_r, sidecar, zoom, unit, note):
    bold = read_bold(raw_run(tmp_path, sidecar=sidecar, zoom=zoom, unit=unit), small_site(t_r=t_r))
    assert bold.t_r == t_r  # to the last bit: no recording of a site has a clock of its own
    assert [note in text for text in bold.facts["notes"]] == [True] * bool(note)


def test_item_22_a_repetition_time_that_is_another_one_is_refused(tmp_path):
    with pytest.raises(SiteError, match=r"repetition time 2\.5 s, but site 'small' says 2 s"):
        read_bold(raw_run(tmp_path, sidecar={"RepetitionTime": 2.5}), small_site())


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        (None, {}),  # ds002725, ds000116, ds002734, ds002739
        (0.0, {}),  # ds005127
        ([], {}),
        ([0.0, "n/a"], {}),
        ([0.0] * 4, {}),
        ([0.0, 5.0], {}),
        ([0.0, 0.5, 1.0, 1.5], {"last_s": 1.5, "multiband": 1, "order": "ascending"}),
        ([1.9, 1.2, 0.6, 0.0], {"last_s": 1.9, "multiband": 1, "order": "descending"}),  # ds003574, ds003768
        ([1.0, 0.0, 1.5, 0.5], {"last_s": 1.5, "multiband": 1, "order": "interleaved"}),
        ([0.0, 0.4, 0.8, 0.0, 0.4, 0.8], {"last_s": 0.8, "multiband": 2, "order": "ascending"}),  # part of the TR only
        ([0.0, 500.0, 1000.0, 1500.0], {"last_s": 1.5, "multiband": 1, "order": "ascending"}),
    ],
)
def test_item_22_slice_timing(listed, wanted):
    facts = {} if listed is None else {"SliceTiming": listed}
    found = slice_timing(facts, 2.0)
    assert {name: found[name] for name in wanted} == wanted
    assert bool(found) == bool(wanted)


@pytest.mark.parametrize(
    ("relative", "t_r", "wanted"),
    [
        ("ds003574/sub-05/func/sub-05_task-rest_bold.json", 2.1, ("descending", 1, 36)),
        ("ds003768/sub-01/func/sub-01_task-rest_run-1_bold.json", 2.1, ("descending", 1, 35)),
        ("ds002158/sub-02/ses-001/func/sub-02_ses-001_task-main_run-001_bold.json", 1.28, ("interleaved", 4, 64)),
        ("ds004478/sub-01/func/sub-01_task-checker_bold.json", 0.367, ("interleaved", 8, 40)),
        ("ds002338/task-1dNF_bold.json", 1.0, ("interleaved", 1, 16)),
    ],
)
def test_item_22_and_25_slice_timing_of_real_sidecars(shared_data, relative, t_r, wanted):
    path = shared_data(f"sites/{relative}")
    found = slice_timing(json.loads(path.read_bytes()), t_r)
    assert (found["order"], found["multiband"], found["n_slices"]) == wanted
    assert 0.75 * t_r < found["last_s"] < t_r


@pytest.mark.parametrize(
    ("sidecar", "start_time", "origin"),
    [
        ({}, 0.0, "not corrected"),
        ({"SliceTimingCorrected": False, "SliceTiming": [0.0, 1.5]}, 0.0, "not corrected"),  # ds003768's fMRIPrep
        ({"SliceTimingCorrected": True, "StartTime": 0.965}, 0.965, "StartTime"),  # ds006040's fMRIPrep
        ({"SliceTimingCorrected": True, "StartTime": 0.0}, 0.0, "StartTime"),
        ({"SliceTimingCorrected": True}, T_R / 2, "fMRIPrep's default"),
        ({"SliceTimingCorrected": True, "StartTime": "n/a"}, T_R / 2, "fMRIPrep's default"),
        ({"SliceTimingCorrected": True, "SliceTiming": [0.0, 0.965, 1.93]}, 0.965, "middle of the slice times"),
        ({"StartTime": 965}, 0.965, "milliseconds"),
    ],
)
def test_item_22_reference_of_slice_timing(tmp_path, sidecar, start_time, origin):
    bold = read_bold(raw_run(tmp_path, sidecar={"RepetitionTime": T_R, **sidecar}), small_site())
    assert bold.start_time == pytest.approx(start_time)
    assert origin in bold.facts["start_time_from"]


def test_a_corrected_image_without_reference_shifts_every_volume_by_half_a_repetition_time(tmp_path):
    onsets = {}
    for name, facts in {"trigger": {"StartTime": 0.0}, "silent": {}}.items():
        sidecar = {"RepetitionTime": T_R, "SliceTimingCorrected": True, **facts}
        write_recording_files(tmp_path / name, sidecar=sidecar)
        (files,) = find_recordings(tmp_path / name, small_site())
        recording = prepare_recording(site=small_site(), files=files, atlas=small_atlas(tmp_path))
        onsets[name] = recording.volume_onsets
    np.testing.assert_allclose(onsets["trigger"], LEAD_IN + T_R * np.arange(N_VOLUMES), atol=1e-2)
    np.testing.assert_allclose(onsets["silent"] - onsets["trigger"], T_R / 2, atol=1e-6)


def test_item_22_sidecar_that_calls_discarded_volumes_by_another_case(tmp_path, shared_data):
    bold = read_bold(raw_run(tmp_path, sidecar={"NumberOfvolumesDiscardedByScanner": 3}), small_site())
    assert bold.discarded == 3
    both = {"NumberOfVolumesDiscardedByScanner": 4, "NumberOfVolumesDiscardedByUser": 2, "RepetitionTime": 2}
    assert read_bold(raw_run(tmp_path, sidecar=both), small_site()).discarded == 6
    assert read_bold(raw_run(tmp_path, sidecar={"NumberOfVolumesDiscardedByUser": -1}), small_site()).discarded == 0
    real = shared_data("sites/ds005127/sub-00002/ses-1/func/sub-00002_ses-1_task-wpt_run-20160531_2243.json")
    facts = sidecar_facts(real.with_suffix(".nii"), RecordingKey("nih", "00002", "1", "wpt"))
    assert slice_timing(facts, 3.0) == {}  # the scalar 0.0
    assert facts["NumberOfvolumesDiscardedByScanner"] == 0


def test_dummy_scans_are_neither_fitted_nor_trained_on(tmp_path):
    """fMRIPrep's non-steady-state volumes: three times as bright, and yet the others come out as without them."""
    paths = write_recording_files(tmp_path)
    (files,) = find_recordings(tmp_path, small_site())
    atlas = small_atlas(tmp_path)
    plain = prepare_recording(site=small_site(), files=files, atlas=atlas)
    image = nib.load(paths["bold"])
    data = np.asarray(image.dataobj, dtype=np.float32)
    data[..., :3] *= 3
    nib.save(nib.Nifti1Image(data, image.affine, image.header), paths["bold"])
    lines = paths["confounds"].read_text().splitlines()
    for number in range(3):
        lines[0] += f"\tnon_steady_state_outlier{number:02d}"
        lines[1:] = [line + ("\t1.0" if row == number else "\t0.0") for row, line in enumerate(lines[1:])]
    paths["confounds"].write_text("\n".join(lines) + "\n")
    recording = prepare_recording(site=small_site(), files=files, atlas=atlas)
    np.testing.assert_array_equal(np.flatnonzero(~recording.volume_valid), [0, 1, 2])
    assert recording.confound_names == plain.confound_names
    assert any("3 non-steady-state volumes" in note for note in recording.provenance["bold"]["notes"])
    np.testing.assert_array_equal(window_starts(recording)[0], np.arange(3, N_VOLUMES))
    for parcel in range(3):
        assert np.corrcoef(recording.bold[3:, parcel], recording.truth[3:, parcel])[0, 1] > 0.9
    assert recording.bold[3:].std() < 1.3 * plain.bold[3:].std()


# --- spaces -----------------------------------------------------------------------------------------------------------


def itk_text(path: Path, matrix: np.ndarray, shift: np.ndarray, centre: np.ndarray) -> Path:
    """An affine in ITK's text format (LPS millimetres)."""
    words = [" ".join(f"{value:.17g}" for value in values) for values in ([*matrix.ravel(), *shift], centre)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_3_3\n"
        f"Parameters: {words[0]}\nFixedParameters: {words[1]}\n"
    )
    return path


def rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


@pytest.fixture
def in_t1w(tmp_path: Path) -> tuple[RecordingFiles, np.ndarray]:
    """The small recording with its image moved into a T1w space of its own, and ITK's affine back."""
    paths = write_recording_files(tmp_path)
    image = nib.load(paths["bold"])
    matrix, shift, centre = 1.05 * rotation(20), np.array([7.0, -4, 11]), np.array([3.0, 5, -2])
    flip = np.diag([-1.0, -1, 1])

    def template_to_t1w(points: np.ndarray) -> np.ndarray:  # ITK's own rule, by points, in LPS
        lps = points @ flip
        return ((lps - centre) @ matrix.T + shift + centre) @ flip

    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    moved = template_to_t1w(apply_affine(image.affine, corners))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = (moved[1:] - moved[0]).T, moved[0]
    path = paths["bold"].with_name("sub-01_task-rest_space-T1w_desc-preproc_bold.nii.gz")
    moved_image = nib.Nifti1Image(np.asarray(image.dataobj), affine)
    moved_image.header.set_xyzt_units("mm", "sec")
    moved_image.header.set_zooms((8, 8, 8, T_R))
    nib.save(moved_image, path)
    paths["bold"].unlink()
    itk_text(
        path.parent.parent / "anat" / "sub-01_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.txt", matrix, shift, centre
    )
    return RecordingFiles(KEY, paths["eeg"], path, paths["confounds"]), image.affine


def test_image_in_the_subjects_space_comes_to_the_template_by_its_affine(tmp_path, in_t1w):
    files, affine = in_t1w
    bold = read_bold(files, small_site())
    np.testing.assert_allclose(bold.image.affine, affine, atol=1e-4)
    assert bold.facts["space"] == "MNI152NLin2009cAsym"
    assert bold.facts["transforms"] == ["sub-01_from-T1w_to-MNI152NLin2009cAsym_mode-image_xfm.txt"]
    reference = nib.Nifti1Image(np.asarray(bold.image.dataobj), affine)
    atlas = small_atlas(tmp_path)
    moved, plain = (image_to_parcels(image, atlas, source="x").series_VR for image in (bold.image, reference))
    for parcel in range(3):
        assert np.corrcoef(moved[:, parcel], plain[:, parcel])[0, 1] > 0.9999
    before = input_fingerprint(small_site(), files, atlas)
    (transform,) = find_transforms(files.bold)
    assert transform in source_files(files)
    transform.write_text(transform.read_text() + "\n")
    assert input_fingerprint(small_site(), files, atlas) != before


def test_image_in_the_subjects_space_is_found_and_chosen(tmp_path, in_t1w):
    files, _ = in_t1w
    (found,) = find_recordings(tmp_path, small_site())
    assert found.bold == files.bold
    assert found.confounds == files.confounds


def test_chain_of_two_transforms_and_matlab_files(tmp_path):
    first = itk_text(
        tmp_path / "func" / "sub-01_task-rest_from-scanner_to-T1w_mode-image_xfm.txt", np.eye(3), np.array([0, 0, 5.0]),
        np.zeros(3),
    )  # fmt: skip
    last = tmp_path / "anat" / "sub-01_from-T1w_to-MNI152NLin6Asym_mode-image_xfm.mat"
    last.parent.mkdir()
    parameters = np.array([*rotation(90).ravel(), 0, 0, 0])[:, None]
    scipy.io.savemat(last, {"AffineTransform_double_3_3": parameters, "fixed": np.zeros((3, 1))}, format="4")
    image = tmp_path / "func" / "sub-01_task-rest_desc-preproc_bold.nii.gz"
    assert find_transforms(image) == [first, last]
    assert image_space(image, "derivative", {1}) == ("MNI152NLin6Asym", [first, last])
    # ITK: template point -> rotated by 90 degrees -> shifted up by 5 in the scanner's frame
    in_template = apply_affine(affine_to_template([first, last]), np.array([0.0, 10, 5]))
    np.testing.assert_allclose(apply_affine(read_affine(last), [0, 10, 0]), [-10, 0, 0], atol=1e-9)
    np.testing.assert_allclose(in_template, [10, 0, 0], atol=1e-9)
    other_run = image.with_name("sub-01_task-rest_run-2_desc-preproc_bold.nii.gz")
    assert find_transforms(other_run) == [first, last]  # names without a run are for all runs
    assert find_transforms(image.with_name("sub-02_task-rest_desc-preproc_bold.nii.gz")) == []


def test_warps_damaged_transforms_and_other_templates_are_refused_with_the_way_out(tmp_path, in_t1w):
    files, _ = in_t1w
    (transform,) = find_transforms(files.bold)
    for text, words in [
        ("#Insight Transform File V1.0\n", "found 0"),
        ("#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\nParameters: 1 2\n", "BSplineTransform"),
        (transform.read_text().replace("Parameters: ", "Parameters: x", 1), "not numbers"),
    ]:
        whole = transform.read_text()
        transform.write_text(text)
        with pytest.raises(FormatError, match=words):
            read_bold(files, small_site())
        transform.write_text(whole)
    itk_text(transform, np.zeros((3, 3)), np.zeros(3), np.zeros(3))
    with pytest.raises(FormatError, match="singular"):
        read_bold(files, small_site())
    transform.unlink()
    with pytest.raises(FormatError, match=r"is in T1w.*no affine transform.*--output-spaces MNI152NLin2009cAsym:res-2"):
        read_bold(files, small_site())
    transform.with_suffix(".h5").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(FormatError, match=r"xfm\.h5: a composite transform with a warp.*antsApplyTransforms"):
        read_bold(files, small_site())
    assert choose_image([files.bold]) is None
    other = files.bold.rename(files.bold.with_name("sub-01_task-rest_space-MNIPediatricAsym_desc-preproc_bold.nii.gz"))
    with pytest.raises(FormatError, match="is in MNIPediatricAsym, not in a template"):
        read_bold(replace(files, bold=other), small_site())
    assert read_bold(replace(files, bold=other), small_site(bold_space="template")).n_volumes == N_VOLUMES


def test_which_of_many_versions_of_a_run_is_read(tmp_path):
    stem = "sub-01_task-rest"
    names = [
        "space-MNI152NLin6Asym_res-2_desc-preproc",
        "space-MNI152NLin2009cAsym_res-1_desc-preproc",
        "space-MNI152NLin2009cAsym_desc-preproc",
        "space-MNI152NLin2009cAsym_res-2_desc-preproc",
        "space-MNI152NLin6Asym_desc-smoothAROMAnonaggr",
        "space-T1w_desc-preproc",
        "hemi-L_space-fsaverage5",
        "desc-preproc",
    ]
    paths = [tmp_path / f"{stem}_{name}_bold.nii.gz" for name in names]
    order = [3, 2, 1, 0]
    for place, wanted in enumerate(order):
        left = [path for number, path in enumerate(paths) if number not in order[:place]]
        assert choose_image(left) == paths[wanted]
    assert choose_image([paths[5], paths[6], paths[7]]) is None  # no transform, no surface
    assert choose_image(paths, "ica_aroma") == paths[4]


def test_facts_of_a_bold_run_reach_the_provenance(tmp_path):
    write_recording_files(tmp_path)
    (files,) = find_recordings(tmp_path, small_site())
    recording = prepare_recording(site=small_site(), files=files, atlas=small_atlas(tmp_path))
    facts = recording.provenance["bold"]
    assert facts["space"] == "MNI152NLin2009cAsym"
    assert facts["start_time_from"] == "StartTime"
    assert facts["confounds"] == "motion6"
    assert facts["parcels_missing"] == []
    json.dumps(facts)


def test_real_sidecars_of_fmriprep(shared_data: Callable[[str], Path]):
    """The reference of ds006040 is the middle of its raw slice times: what is assumed where StartTime is absent."""
    raw = json.loads(shared_data("sites/ds006040/sub-001/func/sub-001_task-EO_run-1_bold.json").read_bytes())
    name = "sub-001_task-EO_run-1_space-MNI152NLin2009cAsym_desc-preproc_bold.json"
    preproc = json.loads(shared_data(f"sites/ds006040/derivatives/sub-001/func/{name}").read_bytes())
    slices = slice_timing(raw, 2.0)
    assert preproc["SliceTimingCorrected"] is True
    assert preproc["StartTime"] == pytest.approx((slices["first_s"] + slices["last_s"]) / 2)
