"""Files are paired and read as BIDS says, and as real data sets do it."""

from __future__ import annotations

import logging
import shutil

import nibabel as nib
import numpy as np
import pytest
from small_site import CH_NAMES, LEAD_IN, N_VOLUMES, T_R, small_site, write_recording_files

from xsite.data.bids import find_recordings, marker_onsets, pair_files, read_bold, read_eeg
from xsite.data.readers import _open
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.site import Expected, RecordingFiles


@pytest.mark.parametrize("eeg_format", ["vhdr", "edf", "set"])
def test_pairs_are_found_and_read(tmp_path, eeg_format):
    paths = write_recording_files(tmp_path, eeg_format=eeg_format)
    (files,) = find_recordings(tmp_path, small_site())
    assert files.key == RecordingKey("small", "01", task="rest")
    assert (files.eeg, files.bold, files.confounds, files.truth) == tuple(paths.values())
    raw = read_eeg(files, small_site())
    assert tuple(raw.ch_names) == CH_NAMES
    onsets = marker_onsets(raw, "R128")
    np.testing.assert_allclose(onsets, LEAD_IN + T_R * np.arange(N_VOLUMES), atol=1e-3)  # once, though twice written
    bold = read_bold(files, small_site())
    assert (bold.n_volumes, bold.t_r, bold.start_time) == (N_VOLUMES, T_R, 0.5)
    assert bold.confound_names[-1] == "framewise_displacement"
    assert np.isnan(bold.confounds_VK[0, -1])
    assert np.isfinite(bold.confounds_VK[1:]).all()


@pytest.mark.parametrize("eeg_format", ["vhdr", "edf"])
def test_markers_come_from_the_events_table_where_the_file_has_none(tmp_path, eeg_format):
    write_recording_files(tmp_path, eeg_format=eeg_format, markers_in_file=False)
    (files,) = find_recordings(tmp_path, small_site())
    raw = read_eeg(files, small_site(volume_marker="Response/R128"))
    np.testing.assert_allclose(marker_onsets(raw, "R128"), LEAD_IN + T_R * np.arange(N_VOLUMES), atol=1e-6)


def test_number_codes_and_byte_order_marks_in_events(tmp_path):
    paths = write_recording_files(tmp_path, eeg_format="edf", markers_in_file=False)
    events = paths["eeg"].with_name("sub-01_task-rest_events.tsv")
    events.write_text(
        "onset\tduration\ttrial_type\tvalue\n5.0\t0\tn/a\t10.0\n7.0\t0\tn/a\t10\n6\t0\tn/a\t47\n", "utf-8-sig"
    )
    raw = read_eeg(
        RecordingFiles(RecordingKey("small", "01"), paths["eeg"], paths["bold"]), small_site(volume_marker="10")
    )
    np.testing.assert_allclose(marker_onsets(raw, "10"), [5, 7])
    events.write_bytes(events.read_text("utf-8-sig").encode("utf-16"))
    raw = read_eeg(
        RecordingFiles(RecordingKey("small", "01"), paths["eeg"], paths["bold"]), small_site(volume_marker="10")
    )
    np.testing.assert_allclose(marker_onsets(raw, "10"), [5, 7])


def test_unpaired_files_are_left_out_with_a_reason(tmp_path, caplog):
    write_recording_files(tmp_path, "01")
    eeg_only, bold_only = write_recording_files(tmp_path, "02"), write_recording_files(tmp_path, "03")
    eeg_only["bold"].unlink()
    bold_only["eeg"].unlink()
    folder = tmp_path / "sub-01" / "eeg"
    (folder / "._sub-01_task-rest_eeg.vhdr").write_bytes(b"\x00\x05\x16\x07")
    shutil.copytree(tmp_path / "sub-02", tmp_path / "rejected" / "sub-02")
    raw_image = tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"
    raw_image.parent.mkdir()
    raw_image.write_bytes(b"raw")
    raw_image.with_name("sub-01_task-rest_echo-1_bold.nii.gz").write_bytes(b"echo")
    pairing = pair_files(tmp_path, small_site())
    assert [files.key.subject for files in pairing.recordings] == ["01"]
    assert "preproc" in pairing.recordings[0].bold.name  # rather than the raw image beside the EEG
    reasons = {path.name: reason for path, reason in pairing.unpaired.items()}
    assert reasons["sub-02_task-rest_eeg.vhdr"] == "no BOLD with the same entities"
    assert reasons[bold_only["bold"].name] == "no EEG with the same entities"
    assert "echo" in reasons["sub-01_task-rest_echo-1_bold.nii.gz"]
    with caplog.at_level(logging.WARNING):
        find_recordings(tmp_path, small_site(expected=Expected(recordings=3)))
    assert "no BOLD with the same entities" in caplog.text
    assert "expected 3" in caplog.text


def test_raw_image_and_run_labels_of_unlike_length_are_paired(tmp_path):
    paths = write_recording_files(tmp_path, "01")
    func = tmp_path / "sub-01" / "func"
    func.mkdir()
    shutil.move(paths["bold"], func / "sub-01_task-rest_run-1_bold.nii.gz")
    for path in list(paths["eeg"].parent.iterdir()):
        if path.suffix in (".vhdr", ".vmrk"):  # a header names its companions
            path.write_text(path.read_text().replace("_task-rest_", "_task-rest_run-01_"))
        path.rename(path.with_name(path.name.replace("_task-rest_", "_task-rest_run-01_")))
    (files,) = find_recordings(tmp_path, small_site(bold_space="template"))
    assert files.key == RecordingKey("small", "01", task="rest", run="01")
    assert files.bold.name == "sub-01_task-rest_run-1_bold.nii.gz"


def test_raw_images_in_scanner_space_are_refused(tmp_path):
    paths = write_recording_files(tmp_path, "01")
    raw = tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"
    raw.parent.mkdir()
    shutil.copy(paths["bold"], raw)
    other = paths["bold"].with_name(paths["bold"].name.replace("MNI152NLin2009cAsym", "T1w"))
    shutil.move(paths["bold"], other)
    with pytest.raises(SiteError, match=r"sub-01_task-rest_bold\.nii\.gz is in the scanner's space.*found in T1w"):
        find_recordings(tmp_path, small_site())
    assert "bold_space: template" in pair_files(tmp_path, small_site()).unpaired[paths["eeg"]]
    (files,) = find_recordings(tmp_path, small_site(bold_space="template"))
    assert files.bold == raw
    image = nib.load(raw)
    image.set_sform(image.affine, code=4)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header), raw)
    (files,) = find_recordings(tmp_path, small_site())  # the header itself says MNI
    assert files.bold == raw


@pytest.mark.parametrize("ending", ["timeseries", "regressors"])
def test_confounds_are_found_whatever_the_resolution_of_the_image(tmp_path, ending):
    paths = write_recording_files(tmp_path)
    paths["bold"].rename(paths["bold"].with_name(paths["bold"].name.replace("_desc", "_res-2_desc")))
    confounds = paths["confounds"].with_name(paths["confounds"].name.replace("timeseries", ending))
    paths["confounds"].rename(confounds)
    (files,) = find_recordings(tmp_path, small_site())
    assert files.bold.name == "sub-01_task-rest_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
    assert (files.confounds, files.truth) == (confounds, paths["truth"])
    confounds.unlink()
    (files,) = find_recordings(tmp_path, small_site())
    with pytest.raises(FormatError, match=r"sub-01_task-rest_desc-confounds_timeseries\.tsv: no such confounds"):
        read_bold(files, small_site())


def test_sidecars_are_inherited_and_contradictions_are_errors(tmp_path):
    paths = write_recording_files(tmp_path, sidecar={"StartTime": 1.0})
    (tmp_path / "task-rest_bold.json").write_text('{"RepetitionTime": 2.001, "StartTime": 0.0}')
    (files,) = find_recordings(tmp_path, small_site())
    bold = read_bold(files, small_site())
    assert (bold.t_r, bold.start_time) == (2.0, 1.0)  # the derivative's own folder knows no task-wide file; header TR
    paths["bold"].with_name(paths["bold"].name.replace(".nii.gz", ".json")).write_text('{"RepetitionTime": 2.5}')
    with pytest.raises(SiteError, match=r"2\.5 s.*'small' says 2 s"):
        read_bold(files, small_site())


def test_no_folder_and_no_pair_say_what_was_looked_for(tmp_path):
    with pytest.raises(SiteError, match="no such folder"):
        find_recordings(tmp_path / "absent", small_site())
    with pytest.raises(SiteError, match=r"sub-XX.*_eeg"):
        find_recordings(tmp_path, small_site())


@pytest.mark.parametrize(
    ("relative", "n_chans", "sfreq"),
    [
        ("brainvision/tests/data/test.vhdr", 32, 1000),
        ("brainvision/tests/data/testv2.vhdr", 32, 1000),
        ("brainvision/tests/data/test_units.vhdr", 32, 1000),
        ("brainvision/tests/data/test_old_layout_latin1_software_filter.vhdr", 29, 250),
        ("eeglab_data.set", 32, 128),
    ],
)
def test_real_eeg_files_are_read(shared_data, relative, n_chans, sfreq):
    path = shared_data(f"data/real/formats/{relative}")
    site = small_site(sfreq=sfreq, volume_marker=None)
    raw = read_eeg(RecordingFiles(RecordingKey("real", "01"), path, path), site)
    assert (len(raw.ch_names), raw.info["sfreq"]) == (n_chans, sfreq)
    data = raw.get_data(picks=list(range(5)))
    assert np.isfinite(data).all()
    assert 1e-7 < np.median(np.std(data, axis=1)) < 1e-2
    assert len(_open(path).annotations) > 0


@pytest.mark.parametrize(
    ("relative", "shape"),
    [("haxby2001/sub001/BOLD/task001_run001/bold_25mm.nii.gz", (6, 10, 10, 121)), ("bold.nii.gz", (40, 20, 1, 1452))],
)
def test_real_images_are_read(shared_data, relative, shape):
    path = shared_data(f"data/real/bold/pymvpa/mvpa2/data/{relative}")
    bold = read_bold(RecordingFiles(RecordingKey("real", "01"), path, path), small_site(t_r=2.5))
    assert bold.image.shape == shape
    assert np.isclose(bold.t_r, 2.5)
