"""All or nothing, on a disk and behind a URL; damage is found and named."""

from __future__ import annotations

import errno
import json
import os
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr

from xsite.data import storage
from xsite.data.store import (
    check_one_parcellation,
    data_hash,
    has_recording,
    read_manifest,
    read_recording,
    rebuild_manifest,
    recording_path,
    write_recording,
)
from xsite.errors import StoreError
from xsite.recording import Parcellation, RecordingKey


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return str(tmp_path / "store") if request.param == "local" else f"memory://{uuid.uuid4().hex}/store"


def listing(store):
    fs, root = fsspec.core.url_to_fs(store)
    return sorted(path for path in fs.find(root)) if fs.exists(root) else []


def same(a, b, atol=0.0):
    assert a.key == b.key
    assert a.parcellation == b.parcellation
    assert a.ch_names == b.ch_names
    assert (a.sfreq, a.t_r, a.bold_units, a.confound_names) == (b.sfreq, b.t_r, b.bold_units, b.confound_names)
    np.testing.assert_allclose(a.eeg, b.eeg, atol=atol)
    for name in ("eeg_valid", "bold", "global_signal", "confounds", "volume_onsets", "volume_valid"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.montage.positions, b.montage.positions)


def test_round_trip(store, make_recording):
    recording = make_recording()
    positions = recording.montage.positions.copy()
    positions[2] = np.nan
    bold = recording.bold.copy()
    bold[:, 1] = np.nan
    recording = replace(
        recording,
        montage=replace(recording.montage, positions=positions),
        bold=bold,
        truth=recording.bold,
        provenance={"alignment": {"verdict": "repaired", "jitter_ms": np.float64("nan")}},
        quality={"eeg_sd_uv": np.float32(8.5)},
    )
    path = write_recording(store, recording, fingerprint="abc")
    assert path == recording_path(store, recording.key)
    assert path.endswith("alpha/sub-01_task-rest.zarr")
    again = read_recording(store, recording.key)
    same(again, recording, atol=0.05)
    assert again.eeg.dtype == np.float32
    np.testing.assert_array_equal(again.truth, recording.truth)
    assert again.provenance["alignment"] == {"verdict": "repaired", "jitter_ms": None}
    assert has_recording(store, recording.key, "abc")
    assert not has_recording(store, recording.key, "other")
    assert not has_recording(store, RecordingKey("alpha", "77"), "abc")


def test_any_zarr_reader_opens_the_group(tmp_path, make_recording):
    recording = make_recording()
    group = zarr.open_group(write_recording(str(tmp_path), recording, fingerprint="a"), mode="r")
    assert group.metadata.zarr_format == 3
    assert group["eeg"].attrs["units"] == "uV"
    assert group["eeg"].chunks == (13, 4000)
    np.testing.assert_array_equal(group["bold"][:], recording.bold)
    description = json.loads((tmp_path / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"


def test_half_precision_only_where_it_rounds_by_less_than_a_twentieth_microvolt(tmp_path, make_recording):
    quiet = make_recording(subject="01")
    quiet = replace(quiet, eeg=np.clip(quiet.eeg, -100, 100))
    drifting = replace(make_recording(subject="02"), eeg=quiet.eeg + np.float32(1234.567))
    for recording, dtype in ((quiet, "float16"), (drifting, "float32")):
        group = zarr.open_group(write_recording(str(tmp_path), recording, fingerprint="a"), mode="r")
        assert group["eeg"].dtype == dtype
        assert np.abs(read_recording(str(tmp_path), recording.key).eeg - recording.eeg).max() < 0.05


def test_overwriting_replaces_completely(store, make_recording):
    write_recording(store, make_recording(n_volumes=90), fingerprint="old")
    shorter = make_recording(n_volumes=30)
    write_recording(store, shorter, fingerprint="new")
    same(read_recording(store, shorter.key), shorter, atol=0.05)
    assert has_recording(store, shorter.key, "new")
    assert not any("partial" in path or path.rpartition("/")[2].startswith(".") for path in listing(store))


def test_damage_is_found_and_the_path_named(tmp_path, make_recording):
    recording = make_recording()
    folder = Path(write_recording(str(tmp_path), recording, fingerprint="a"))
    (folder / "eeg" / "c" / "0" / "1").unlink()  # plain zarr would read zeros here
    with pytest.raises(StoreError, match=r"sub-01_task-rest\.zarr.*SHA-256"):
        read_recording(str(tmp_path), recording.key)
    (folder / "eeg" / "c" / "0" / "2").write_bytes(b"rubbish")
    with pytest.raises(StoreError, match=r"sub-01_task-rest\.zarr.*damaged"):
        read_recording(str(tmp_path), recording.key)
    write_recording(str(tmp_path), recording, fingerprint="a")
    seal = folder / "zarr.json"
    seal.write_text(seal.read_text().replace('"Cz"', '"CZ"'))
    with pytest.raises(StoreError, match="SHA-256"):
        read_recording(str(tmp_path), recording.key)
    with pytest.raises(StoreError, match="no such recording"):
        read_recording(str(tmp_path), RecordingKey("alpha", "09"))


def failing_after(n_writes, error):
    """Low-level write that fails on its n-th call, as a full disk or an interrupt would."""
    left = [n_writes]
    genuine_local, genuine_memory = storage._write_bytes, fsspec.get_filesystem_class("memory").pipe_file

    def count():
        left[0] -= 1
        if left[0] < 0:
            raise error

    def local(path, content):
        count()
        genuine_local(path, content)

    def memory(self, path, value, **options):
        count()
        genuine_memory(self, path, value, **options)

    return local, memory


@pytest.mark.parametrize("before", [False, True], ids=["new", "replacing"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_full_disk_and_ctrl_c_leave_nothing_half_written(store, make_recording, monkeypatch, error, before):
    kept = make_recording(subject="01")
    write_recording(store, kept, fingerprint="kept")
    victim = make_recording(subject="02")
    if before:
        write_recording(store, victim, fingerprint="former")
    local, memory = failing_after(5, error)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_write_bytes", local)
        patch.setattr(fsspec.get_filesystem_class("memory"), "pipe_file", memory)
        expected = StoreError if isinstance(error, OSError) else KeyboardInterrupt
        with pytest.raises(expected) as caught:
            write_recording(store, victim, fingerprint="new")
    if expected is StoreError:
        assert "no space left" in str(caught.value)
        assert "sub-02_task-rest.zarr" in str(caught.value)
    same(read_recording(store, kept.key), kept, atol=0.05)
    on_disk = [path for path in listing(store) if "sub-02" in path]
    if before and not store.startswith("memory"):
        assert has_recording(store, victim.key, "former")  # a rename is all that replaces it
        assert all("/." not in path for path in on_disk)
    else:
        assert on_disk == []
    assert len(rebuild_manifest(store)) == 1 + (before and not store.startswith("memory"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_device_that_really_is_full():
    with pytest.raises(StoreError, match="no space left"), storage._explained("/dev/full", 10):
        storage._write_bytes(Path("/dev/full"), b"0123456789")


def test_unwritable_and_unknown_places(tmp_path, make_recording):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    with pytest.raises(StoreError, match="cannot write"):
        write_recording(str(blocker), make_recording(), fingerprint="a")
    with pytest.raises(StoreError, match="nosuchprotocol"):
        write_recording("nosuchprotocol://x", make_recording(), fingerprint="a")


def test_leftovers_of_killed_writers_are_invisible_and_swept_when_old(tmp_path, make_recording):
    recording = make_recording()
    leftover = tmp_path / "alpha" / ".sub-01_task-rest.zarr.0badcafe"
    leftover.mkdir(parents=True)
    (leftover / "zarr.json").write_text("{")
    write_recording(str(tmp_path), recording, fingerprint="a")
    assert leftover.exists()  # maybe another process is writing it
    assert len(rebuild_manifest(str(tmp_path))) == 1

    os.utime(leftover, (0, 0))
    write_recording(str(tmp_path), recording, fingerprint="a")
    assert not leftover.exists()


def test_manifest_is_rebuilt_from_the_groups(store, make_recording):
    with pytest.raises(StoreError, match="no recording"):
        read_manifest(store)
    for site, subject in (("beta", "02"), ("alpha", "10"), ("alpha", "02")):
        recording = make_recording(site, subject)
        recording = replace(recording, quality={"eeg_sd_uv": 9.5}, provenance={"alignment": {"verdict": "ok"}})
        write_recording(store, recording, fingerprint="f")
    scanned = read_manifest(store)  # no manifest written yet
    manifest = rebuild_manifest(store)
    again = read_manifest(store)
    assert again.equals(manifest)
    assert len(scanned) == 3
    assert list(zip(again.site, again.subject, strict=True)) == [("alpha", "02"), ("alpha", "10"), ("beta", "02")]
    row = again.iloc[0]
    assert (row.n_chans, row.n_volumes, row.n_valid, row.verdict, row.excluded) == (13, 60, 60, "ok", False)
    assert json.loads(row.ch_names)[0] == "Fp1"
    assert json.loads(row.parcels) == ["parcel0", "parcel1", "parcel2"]
    assert row.path == "alpha/sub-02_task-rest.zarr"
    assert row.quality_eeg_sd_uv == 9.5
    assert not row.has_truth
    assert data_hash(again) == data_hash(again.iloc[::-1])
    assert data_hash(again) != data_hash(again.iloc[:2])


def test_two_parcellations_are_refused_with_both_names(tmp_path, make_recording):
    first = make_recording("alpha", "01")
    other = Parcellation("Schaefer-3", ("a", "b", "c"), "MNI", "1" * 64)
    write_recording(str(tmp_path), first, fingerprint="f")
    check_one_parcellation(rebuild_manifest(str(tmp_path)))
    write_recording(str(tmp_path), replace(make_recording("beta", "01"), parcellation=other), fingerprint="f")
    with pytest.raises(StoreError, match=r"test-3.*alpha.*|Schaefer-3.*beta") as caught:
        check_one_parcellation(rebuild_manifest(str(tmp_path)))
    assert "test-3" in str(caught.value)
    assert "Schaefer-3" in str(caught.value)


def test_damaged_manifest_and_attributes_are_named(tmp_path, make_recording):
    folder = Path(write_recording(str(tmp_path), make_recording(), fingerprint="f"))
    rebuild_manifest(str(tmp_path))
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match=r"manifest\.parquet.*delete it"):
        read_manifest(str(tmp_path))
    (folder / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"sub-01_task-rest\.zarr/zarr\.json"):
        rebuild_manifest(str(tmp_path))
