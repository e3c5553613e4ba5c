"""Bad input gets a message that names the file and says what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.io
from small_site import AFFINE, SHAPE, small_atlas, small_site, write_recording_files

from xsite.data.bids import find_recordings
from xsite.data.prepare import prepare_recording
from xsite.errors import AlignmentError, FormatError, RecordingError, SiteError
from xsite.recording import RecordingKey
from xsite.site import RecordingFiles


def prepare(tmp_path: Path, paths: dict[str, Path], **site_facts):
    files = RecordingFiles(RecordingKey("small", "01"), paths["eeg"], paths["bold"], paths["confounds"], paths["truth"])
    return prepare_recording(site=small_site(**site_facts), files=files, atlas=small_atlas(tmp_path))


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:n_bytes])


def one_byte_short(path: Path) -> None:
    cut(path, path.stat().st_size - 1)


def half(path: Path) -> None:
    cut(path, path.stat().st_size // 2)


def half_frames(path: Path) -> None:
    frame = 14 * 2 * 4  # 14 channels; whole frames whether 16 or 32 bits wide
    cut(path, path.stat().st_size // 2 // frame * frame)


def annex_pointer(path: Path) -> None:
    path.write_text("/annex/objects/MD5E-s1234--0123456789abcdef.eeg\n")


def lfs_pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n")


def path_as_content(path: Path) -> None:
    path.write_text("../../.git/annex/objects/Xk/9z/MD5E-s1--0/MD5E-s1--0.eeg")


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("../.git/annex/objects/absent")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    ("eeg_format", "suffix", "spoil", "words"),
    [
        ("vhdr", ".vhdr", gone, "no such file"),
        ("vhdr", ".eeg", gone, "DataFile"),
        ("vhdr", ".vmrk", gone, "MarkerFile"),
        ("vhdr", ".eeg", one_byte_short, "truncated"),
        ("vhdr", ".eeg", half_frames, "truncated"),
        ("vhdr", ".eeg", empty, "empty"),
        ("vhdr", ".eeg", annex_pointer, "pointer"),
        ("vhdr", ".eeg", lfs_pointer, "pointer"),
        ("vhdr", ".eeg", path_as_content, "pointer"),
        ("vhdr", ".eeg", dangling_link, "not fetched"),
        ("vhdr", ".vhdr", half, "sub-01_task-rest_eeg"),
        ("edf", ".edf", half, "sub-01_task-rest_eeg.edf"),
        ("edf", ".edf", path_as_content, "pointer"),
        ("set", ".set", half, "sub-01_task-rest_eeg.set"),
    ],
)
def test_eeg_files(tmp_path, eeg_format, suffix, spoil, words):
    paths = write_recording_files(tmp_path, eeg_format=eeg_format)
    spoil(paths["eeg"].with_suffix(suffix))
    with pytest.raises(FormatError, match=words) as caught:
        prepare(tmp_path, paths)
    assert "sub-01_task-rest_eeg" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "words"), [(gone, "missing|no such|absent"), (half, "truncated"), (lfs_pointer, "pointer")]
)
def test_eeglab_data_file(tmp_path, spoil, words):
    paths = write_recording_files(tmp_path, eeg_format="set")
    split_eeglab_file(paths["eeg"])
    assert prepare(tmp_path, paths).n_volumes == 30
    spoil(paths["eeg"].with_suffix(".fdt"))
    with pytest.raises(FormatError, match=words) as caught:
        prepare(tmp_path, paths)
    assert "sub-01_task-rest_eeg.fdt" in str(caught.value)


def split_eeglab_file(path: Path) -> None:
    """Put the samples of a ``.set`` file into an ``.fdt`` beside it, as EEGLAB does by default."""
    facts = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    np.asarray(facts["data"], "<f4").T.tofile(path.with_suffix(".fdt"))
    facts["data"] = facts["datfile"] = path.with_suffix(".fdt").name
    scipy.io.savemat(path, facts, appendmat=False)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(gone, "no such file"), (half, "bold"), (annex_pointer, "pointer"), (empty, "empty")],
)
def test_image_files(tmp_path, spoil, words):
    paths = write_recording_files(tmp_path)
    spoil(paths["bold"])
    with pytest.raises(FormatError, match=words) as caught:
        prepare(tmp_path, paths)
    assert "desc-preproc_bold.nii.gz" in str(caught.value)


def test_text_instead_of_an_image_and_a_3d_image(tmp_path):
    paths = write_recording_files(tmp_path)
    paths["bold"].write_bytes(gzip.compress(b"<html>404 not found</html>" * 100))
    with pytest.raises(FormatError, match="desc-preproc_bold"):
        prepare(tmp_path, paths)
    nib.save(nib.Nifti1Image(np.ones(SHAPE, np.float32), AFFINE), paths["bold"])
    with pytest.raises(FormatError, match="3D image"):
        prepare(tmp_path, paths)


@pytest.mark.parametrize("which", ["eeg", "bold"])
@pytest.mark.parametrize("text", ['{"RepetitionTime": 2.0', '["a list"]', "RepetitionTime: 2.0"])
def test_sidecars(tmp_path, which, text):
    paths = write_recording_files(tmp_path)
    name = paths[which].name.removesuffix(".nii.gz").removesuffix(".vhdr") + ".json"
    paths[which].with_name(name).write_bytes(text.encode("cp1252"))
    with pytest.raises(FormatError, match=name):
        prepare(tmp_path, paths)


def test_confounds_and_truth_tables(tmp_path):
    paths = write_recording_files(tmp_path)
    whole = paths["confounds"].read_text()
    paths["confounds"].write_text("\n".join(whole.splitlines()[:-3]) + "\n")
    with pytest.raises(FormatError, match=r"27 rows for 30 volumes"):
        prepare(tmp_path, paths)
    paths["confounds"].write_text(whole.replace("0.1\t", "oops\t", 1))
    with pytest.raises(FormatError, match="text where numbers"):
        prepare(tmp_path, paths)
    paths["confounds"].write_text(whole)
    paths["truth"].write_text(paths["truth"].read_text().replace("left", "elsewhere"))
    with pytest.raises(FormatError, match=r"noisefree.*left"):
        prepare(tmp_path, paths)


def test_markers(tmp_path):
    paths = write_recording_files(tmp_path)
    with pytest.raises(AlignmentError, match="Sync On") as caught:  # the message lists what the file has
        prepare(tmp_path, paths, volume_marker="R999")
    assert "sub-01_task-rest_eeg.vhdr" in str(caught.value)
    for n_markers in (5, 36):
        paths = write_recording_files(tmp_path, n_markers=n_markers)
        with pytest.raises(RecordingError, match="sub-01_task-rest_eeg"):
            prepare(tmp_path, paths)


def test_facts_that_contradict_the_files(tmp_path):
    paths = write_recording_files(tmp_path)
    with pytest.raises(SiteError, match=r"500 Hz.*5000 Hz"):
        prepare(tmp_path, paths, sfreq=5000.0)
    with pytest.raises(SiteError, match=r"2 s.*3 s"):
        prepare(tmp_path, paths, t_r=3.0)


def test_events_without_onset(tmp_path):
    paths = write_recording_files(tmp_path, markers_in_file=False)
    events = paths["eeg"].with_name("sub-01_task-rest_events.tsv")
    events.write_text("time\ttrial_type\n1.0\tR128\n")
    with pytest.raises(FormatError, match=r"events\.tsv.*onset"):
        prepare(tmp_path, paths)
    (found,) = find_recordings(tmp_path, small_site())
    assert found.eeg == paths["eeg"]
