"""Ingest on a real local Ray cluster, from real phantom files; one bad recording must not stop the others."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small_site import small_atlas, small_site, write_recording_files

from jobs import ingest
from site_adapters.phantom_sites import phantom_sites
from xsite.data.bids import find_recordings
from xsite.data.store import read_manifest, read_recording, rebuild_manifest
from xsite.errors import SiteError
from xsite.evaluation.folds import manifest_keys
from xsite.phantom.consortium import generate_consortium
from xsite.recording import RecordingKey
from xsite.runtime.ingest import IngestReport, _files, ingest_recording, ingest_site
from xsite.runtime.inputs import warn_of_lost_channels
from xsite.runtime.study import read_coords

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantom")
    generate_consortium(out, n_sites=2, n_subjects=2, preset="easy", seed=1, minutes=1.0)
    return out


def run(*words: str) -> int:
    return ingest.main([str(word) for word in words])


def leftovers(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.name.startswith(".")]


def test_every_site_at_once_then_nothing_again(
    ray_local: None, consortium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert run("all", "--bids", consortium, "--store", store) == 0
    first = capsys.readouterr().out
    assert "4 recordings written, 0 were there" in first
    assert first.count("markers unverified") == 4  # clean EEG with room on both sides: no second witness
    manifest = read_manifest(str(store))
    assert sorted(set(manifest["site"])) == ["siteA", "siteB"]
    assert manifest["has_truth"].all()
    recording = read_recording(str(store), manifest_keys(manifest)[0])
    coords = read_coords(str(store), recording.parcellation.sha256)
    assert coords is not None
    assert set(coords) == set(recording.parcellation.labels)
    before = sorted(path.stat().st_mtime_ns for path in store.rglob("zarr.json"))
    assert run("all", "--bids", consortium, "--store", store) == 0
    assert "0 recordings written, 4 were there" in capsys.readouterr().out
    assert sorted(path.stat().st_mtime_ns for path in store.rglob("zarr.json")) == before


def test_bad_recordings_are_listed_at_the_end_and_the_others_are_written(
    ray_local: None, consortium: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bids = tmp_path / "bids"
    shutil.copytree(consortium, bids)
    (eeg,) = (bids / "siteA" / "sub-01" / "eeg").glob("*_eeg.eeg")
    eeg.write_bytes(eeg.read_bytes()[:1000])
    (bold,) = (bids / "siteB" / "derivatives" / "fmriprep" / "sub-02" / "func").glob("*_bold.nii.gz")
    bold.write_bytes(bold.read_bytes()[: bold.stat().st_size // 2])
    store = tmp_path / "store"
    assert run("all", "--bids", bids, "--store", store) == 1
    out = capsys.readouterr()
    assert "2 recordings written" in out.out
    assert "2 recordings failed" in out.err
    assert "siteA/sub-01_task-rest: FormatError" in out.err
    assert bold.name in out.err
    assert [str(key) for key in manifest_keys(read_manifest(str(store)))] == [
        "siteA/sub-02_task-rest",
        "siteB/sub-01_task-rest",
    ]
    assert leftovers(store) == []


def test_changed_input_is_read_again(ray_local: None, consortium: Path, tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    shutil.copytree(consortium, bids)
    site, atlas = phantom_sites(bids)["siteB"], next((bids / "atlas").glob("*.nii.gz"))
    store = str(tmp_path / "store")
    report = ingest_site(site, bids / "siteB", store, atlas)
    assert len(report.done) == 2
    (confounds,) = (bids / "siteB" / "derivatives" / "fmriprep" / "sub-01" / "func").glob("*confounds*.tsv")
    confounds.write_text(confounds.read_text().replace("trans_x", "trans_q"))
    seen: list[str] = []
    report = ingest_site(site, bids / "siteB", store, atlas, progress=lambda done, total, text: seen.append(text))
    assert (report.done, report.skipped) == (["siteB/sub-01_task-rest"], ["siteB/sub-02_task-rest"])
    assert any("already in the store" in text for text in seen)


def test_files_that_were_not_fetched_say_what_to_do_and_what_is_still_in_the_store(tmp_path: Path) -> None:
    write_recording_files(tmp_path / "bids")
    small_atlas(tmp_path)
    (files,) = find_recordings(tmp_path / "bids", small_site())
    store, atlas = str(tmp_path / "store"), str(tmp_path / "atlas.nii.gz")
    whole = files.bold.read_bytes()
    files.bold.unlink()
    files.bold.symlink_to("../.git/annex/objects/absent")
    state, message = ingest_recording(small_site(), files, store, atlas)
    assert (state, message.partition(":")[0]) == ("failed", "FormatError")
    assert f"{files.bold}: a link whose content was not fetched; run `datalad get`" in message
    assert "still in the store" not in message
    files.bold.unlink()
    files.bold.write_bytes(whole)
    assert ingest_recording(small_site(), files, store, atlas)[0] == "done"
    files.bold.unlink()
    state, message = ingest_recording(small_site(), files, store, atlas)
    assert state == "failed"
    assert f"{files.bold}: no such file" in message
    assert (
        f"the version of an earlier ingest, {store}/small/sub-01_task-rest.zarr, is excluded from training" in message
    )
    (row,) = rebuild_manifest(store).itertuples()
    assert row.excluded
    assert row.reason.startswith("refused by the latest ingest: FormatError")


def taken_out(store: str) -> dict[str, str]:
    """Recordings of a store that may not train, with the reason."""
    manifest = read_manifest(store)
    return {str(row.path): str(row.reason) for row in manifest.itertuples() if row.excluded}


def test_recordings_that_the_site_takes_out_train_no_more(tmp_path: Path) -> None:
    for subject in ("01", "02", "03"):
        write_recording_files(tmp_path / "bids", subject)
    small_atlas(tmp_path)
    root, store = tmp_path / "bids", str(tmp_path / "store")
    for files in _files(small_site(), root, store, IngestReport()):
        assert ingest_recording(small_site(), files, store, str(tmp_path / "atlas.nii.gz"))[0] == "done"
    rebuild_manifest(store)
    assert taken_out(store) == {}
    shutil.move(root / "sub-03", tmp_path / "sub-03")  # a part of the data set is absent: nothing speaks against it
    shutil.move(root / "derivatives" / "fmriprep" / "sub-03", tmp_path / "func-03")
    assert len(_files(small_site(left_out={"*sub-02*": "fell asleep"}), root, store, IngestReport())) == 1
    reason = "left out by the latest ingest: left out by the site: fell asleep"
    assert taken_out(store) == {"small/sub-02_task-rest.zarr": reason}
    with pytest.raises(SiteError, match="fell asleep"):
        ingest_site(small_site(left_out={"*": "fell asleep"}), root, store)
    assert taken_out(store) == {f"small/sub-{subject}_task-rest.zarr": reason for subject in ("01", "02")}
    assert pd.read_parquet(f"{store}/manifest.parquet")["excluded"].sum() == 2  # for other readers too
    assert len(_files(small_site(), root, store, IngestReport())) == 2
    assert taken_out(store) == {}


def test_the_manifest_follows_a_second_ingest_that_is_interrupted(
    ray_local: None, consortium: Path, tmp_path: Path
) -> None:
    bids, store = tmp_path / "bids", str(tmp_path / "store")
    shutil.copytree(consortium / "siteB", bids)
    site, atlas = phantom_sites(consortium)["siteB"], next((consortium / "atlas").glob("*.nii.gz"))
    ingest_site(site, bids, store, atlas)
    before = read_manifest(store)
    for confounds in bids.rglob("*confounds*.tsv"):
        confounds.write_text(confounds.read_text().replace("trans_x", "trans_q"))

    def interrupt(finished: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest_site(site, bids, store, atlas, progress=interrupt)
    manifest = read_manifest(store)
    assert len(manifest) == 2
    assert set(manifest["sha256"]) != set(before["sha256"])
    for key, sha256 in zip(manifest_keys(manifest), manifest["sha256"], strict=True):
        attributes = json.loads((tmp_path / "store" / "siteB" / f"{key.entities}.zarr" / "zarr.json").read_text())
        assert attributes["attributes"]["sha256"] == sha256


def test_recordings_that_cost_the_study_a_channel_are_named(caplog: pytest.LogCaptureFixture) -> None:
    keys = [RecordingKey("a", "01"), RecordingKey("a", "02"), RecordingKey("b", "01")]
    with caplog.at_level(logging.WARNING):
        warn_of_lost_channels(dict.fromkeys(keys, ("Fp1", "Cz", "T8")))
        assert caplog.text == ""
        warn_of_lost_channels({keys[0]: ("Fp1", "Cz", "T8"), keys[1]: ("Fp1", "Cz"), keys[2]: ("Fp1", "Cz", "T8")})
    assert "channels T8 are left out of the whole study: 1 of 3 recordings lack them (a/sub-02)" in caplog.text
    assert caplog.text.count("to keep them, set data.channels: native (absent ones masked) or spline") == 1


def test_places_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="nowhere: no such folder"):
        run("all", "--bids", tmp_path / "nowhere", "--store", tmp_path / "store")
    with pytest.raises(SiteError, match="'all' takes the folders named like a known site"):
        run("all", "--bids", tmp_path, "--store", tmp_path / "store")
    with pytest.raises(SiteError, match="did you mean 'vanderbilt'"):
        run("vanderbild", "--bids", tmp_path, "--store", tmp_path / "store")


def test_ctrl_c_leaves_whole_recordings_only(consortium: Path, tmp_path: Path) -> None:
    for attempt in range(3):  # on a busy machine all four may be written before the signal is sent
        store = tmp_path / f"store{attempt}"
        returncode, err = interrupted_ingest(consortium, store)
        if returncode:
            break
    assert returncode == 130, err
    assert "interrupted" in err
    assert leftovers(store) == []
    written = list(store.glob("*/*.zarr"))
    assert 1 <= len(written) < 4
    for key in manifest_keys(read_manifest(str(store))):
        read_recording(str(store), key)  # verifies its hash


def interrupted_ingest(consortium: Path, store: Path) -> tuple[int, str]:
    """Exit status and messages of an ingest of four recordings that gets a Ctrl-C once the first is written."""
    command = [sys.executable, "-m", "jobs.ingest", "all", "--bids", str(consortium), "--store", str(store)]
    command += ["--cpus", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment())
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/4]"):
            break
    process.send_signal(signal.SIGINT)  # the second recording is under way
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "platform")])}
