"""Source files to the shared format: what comes out is what went in, on one clock, with its history."""

from __future__ import annotations

import functools
import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
from small_site import LABELS, LEAD_IN, N_VOLUMES, T_R, small_atlas, small_site, write_recording_files

from xsite.data.bids import find_recordings
from xsite.data.fingerprint import input_fingerprint, source_files
from xsite.data.prepare import prepare_recording
from xsite.data.store import has_recording, read_recording, write_recording
from xsite.data.windows import window_starts
from xsite.errors import AlignmentError, FormatError
from xsite.recording import RecordingKey
from xsite.site import BoldRun, RecordingFiles, Site


@pytest.fixture
def prepared(tmp_path):
    write_recording_files(tmp_path / "bids")
    (files,) = find_recordings(tmp_path / "bids", small_site())
    atlas = small_atlas(tmp_path)
    return prepare_recording(site=small_site(), files=files, atlas=atlas), files, atlas


def test_a_recording_comes_out_whole(prepared):
    recording, _, atlas = prepared
    assert recording.ch_names[:2] == ("Fp1", "Fp2")
    assert "ECG" not in recording.ch_names
    assert recording.sfreq == 200
    assert recording.eeg.shape == (13, round((LEAD_IN + T_R * N_VOLUMES + 3) * 200))
    assert 5 < np.median(recording.eeg.std(1)) < 40  # microvolt
    assert recording.parcellation == atlas.parcellation
    assert recording.parcellation.labels == LABELS
    np.testing.assert_allclose(recording.volume_onsets, LEAD_IN + 0.5 + T_R * np.arange(N_VOLUMES), atol=1e-2)
    assert recording.volume_valid.all()
    assert len(window_starts(recording)[0]) == N_VOLUMES
    assert "framewise_displacement" in recording.confound_names
    assert np.isfinite(recording.bold).all()
    assert np.isfinite(recording.global_signal).all()


def test_measured_parcels_follow_the_truth_through_the_same_path(prepared):
    recording, _, _ = prepared
    for parcel in range(3):
        assert np.corrcoef(recording.bold[:, parcel], recording.truth[:, parcel])[0, 1] > 0.9
    trend = np.polyfit(np.arange(N_VOLUMES), recording.truth, 1)[0]
    np.testing.assert_allclose(trend, 0, atol=1e-4)


def test_provenance_tells_sources_steps_and_verdict_and_no_private_matter(prepared, tmp_path):
    recording, files, _ = prepared
    facts = recording.provenance
    assert facts["alignment"]["verdict"] == "unverified"  # clean EEG without protocol: only the count speaks
    assert facts["alignment"]["repairs"] == []
    assert 0.5 < facts["alignment"]["confidence"] < 0.9
    assert facts["alignment"]["scan"]["artifact_onset"] is None
    assert any("30 volume" in line for line in facts["alignment"]["evidence"])
    names = {source["file"] for source in facts["sources"]}
    assert names == {path.name for path in source_files(files)}
    assert {".vhdr", ".eeg", ".vmrk", ".tsv", ".json", ".gz"} <= {path.suffix for path in source_files(files)}
    assert all(len(source["sha256"]) == 64 for source in facts["sources"])
    assert {"resample", "regress"} <= {step["step"] for step in facts["steps"]}
    assert facts["versions"]["mne"]
    assert recording.quality["eeg_valid_fraction"] > 0.9
    text = json.dumps(facts, default=str)
    assert str(tmp_path) not in text.replace(facts["alignment"]["evidence"][0], "")


def test_prepared_recordings_survive_the_store(prepared, tmp_path):
    recording, files, atlas = prepared
    fingerprint = input_fingerprint(small_site(), files, atlas)
    write_recording(str(tmp_path / "store"), recording, fingerprint=fingerprint)
    assert has_recording(str(tmp_path / "store"), files.key, input_fingerprint(small_site(), files, atlas))
    again = read_recording(str(tmp_path / "store"), files.key)
    np.testing.assert_allclose(again.eeg, recording.eeg, atol=0.05)
    np.testing.assert_array_equal(again.truth, recording.truth)


def test_the_fingerprint_follows_sources_settings_site_and_atlas(prepared, tmp_path):
    _, files, atlas = prepared
    first = input_fingerprint(small_site(), files, atlas)
    assert first == input_fingerprint(small_site(), files, atlas, {"sfreq": 200.0})
    other_atlas = replace(atlas, parcellation=replace(atlas.parcellation, sha256="f" * 64))
    others = [
        input_fingerprint(small_site(), files, atlas, {"sfreq": 100.0}),
        input_fingerprint(small_site(line_freq=60.0), files, atlas),
        input_fingerprint(small_site(), files, other_atlas),
    ]
    marker_file = files.eeg.with_suffix(".vmrk")
    marker_file.write_text(marker_file.read_text() + "\n; touched\n")
    others.append(input_fingerprint(small_site(), files, atlas))
    assert len({first, *others}) == 5


def test_the_fingerprint_follows_the_source_of_a_reader(prepared, tmp_path, monkeypatch):
    _, files, atlas = prepared
    module = tmp_path / "laboratory_reader.py"
    monkeypatch.syspath_prepend(tmp_path)
    prints = []
    for line in ("raise OSError", "raise ValueError"):
        module.write_text(f"def read_eeg(files, site, *, gain=1):\n    {line}\n")
        importlib.invalidate_caches()
        reader = importlib.reload(importlib.import_module("laboratory_reader")).read_eeg
        prints.append(input_fingerprint(small_site(read_eeg=reader), files, atlas))
    partial = functools.partial(reader, gain=2)
    prints.append(input_fingerprint(small_site(read_eeg=partial), files, atlas))
    assert len(set(prints)) == 3, "the corrected reader, and the one with another gain, are other readers"


def test_the_fingerprint_follows_inherited_sidecars_and_the_names_of_parcels(prepared, tmp_path):
    _, files, atlas = prepared
    found = {input_fingerprint(small_site(), files, atlas)}
    shared = tmp_path / "bids" / "derivatives" / "fmriprep" / "task-rest_bold.json"
    for start_time in (0.0, 1.0):
        shared.write_text(json.dumps({"StartTime": start_time}))
        assert shared in source_files(files)
        found.add(input_fingerprint(small_site(), files, atlas))
    renamed = replace(atlas, parcellation=replace(atlas.parcellation, labels=("l", "r", "f")))
    found.add(input_fingerprint(small_site(), files, renamed))
    assert len(found) == 4


@pytest.mark.parametrize("which", ["eeg", "bold", "confounds", "truth", "sidecar"])
def test_the_fingerprint_of_files_that_were_not_fetched_says_what_to_do(prepared, which):
    _, files, atlas = prepared
    path = files.eeg.with_name("sub-01_task-rest_eeg.json") if which == "sidecar" else getattr(files, which)
    path.unlink()
    path.symlink_to("../.git/annex/objects/absent")
    with pytest.raises(FormatError, match="git annex get"):
        input_fingerprint(small_site(), files, atlas)


def published(files: RecordingFiles, site: Site) -> BoldRun:
    series = np.random.default_rng(0).normal(0, 1, (N_VOLUMES, 4))
    return BoldRun(t_r=T_R, series_VR=series, labels=("extra", *LABELS), global_signal_V=series[:, 0], units="z")


def test_published_series_are_taken_as_they_are(prepared):
    _, files, atlas = prepared
    site = small_site(read_bold=published)
    with_atlas = prepare_recording(site=site, files=replace(files, truth=None), atlas=atlas)
    assert with_atlas.parcellation == atlas.parcellation
    np.testing.assert_allclose(with_atlas.bold, published(files, site).series_VR[:, 1:], rtol=1e-6)
    assert with_atlas.bold_units == "z"
    alone = prepare_recording(site=site, files=replace(files, truth=None), atlas=None)
    assert alone.parcellation.labels == ("extra", *LABELS)
    assert alone.parcellation.name == "parcel-table-4"


def test_without_markers_only_an_explicit_policy_places_the_scan(prepared):
    _, files, atlas = prepared
    with pytest.raises(AlignmentError, match=r"no volume_marker and no policy.*`scan_start`"):
        prepare_recording(site=small_site(volume_marker=None), files=files, atlas=atlas)
    recording = prepare_recording(site=small_site(volume_marker=None, scan_start=0.0), files=files, atlas=atlas)
    assert recording.provenance["alignment"]["verdict"] == "unverified"
    assert recording.provenance["alignment"]["repairs"][0]["kind"] == "cropped"
    assert recording.volume_onsets[0] == 0.5
    by_marker = small_site(volume_marker=None, scan_marker="R128", scan_start=-2.0)
    assert prepare_recording(site=by_marker, files=files, atlas=atlas).volume_onsets[0] == LEAD_IN - 1.5
    with pytest.raises(AlignmentError, match=r"no marker 'S 99'.*'Response/R128' x30"):
        prepare_recording(site=replace(by_marker, scan_marker="S 99"), files=files, atlas=atlas)


def test_a_protocol_marker_confirms_the_alignment(prepared):
    _, files, atlas = prepared
    site = small_site(protocol_marker="R128", protocol_onset=0.0)
    assert prepare_recording(site=site, files=files, atlas=atlas).provenance["alignment"]["verdict"] == "ok"


def test_a_recording_without_any_window_says_that_it_is_excluded(tmp_path):
    write_recording_files(tmp_path, n_volumes=8)
    (files,) = find_recordings(tmp_path, small_site())
    files = RecordingFiles(RecordingKey("small", "01"), files.eeg, files.bold)
    site = small_site(volume_marker=None, scan_start=0.0)
    recording = prepare_recording(site=site, files=files, atlas=small_atlas(tmp_path))
    assert "16 s" in recording.provenance["excluded"]


def test_an_image_needs_an_atlas(prepared):
    _, files, _ = prepared
    with pytest.raises(FormatError, match="needs an atlas"):
        prepare_recording(site=small_site(), files=files, atlas=None)
