"""Which recordings must not train: each rule, what the manifest says, and that nothing excluded reaches a fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_site import small_atlas, small_site, write_recording_files

from jobs.evaluate import chosen
from xsite.data.bids import find_recordings
from xsite.data.exclusion import REJECTED, RULES, exclusion_reasons, figures_of
from xsite.data.left_out import note_left_out
from xsite.data.manifest import read_manifest, rebuild_manifest
from xsite.data.refused import forget_refused, note_refused, read_refused
from xsite.data.store import write_recording
from xsite.data.withdrawn import note_withdrawn
from xsite.errors import AlignmentError, FoldError, StoreError
from xsite.evaluation.folds import leave_one_site_out, manifest_keys
from xsite.experiment import parse_experiment
from xsite.recording import RecordingKey
from xsite.runtime.ingest import ingest_recording
from xsite.runtime.inputs import select_manifest
from xsite.site import RecordingFiles

GOOD = {
    "mean_fd_mm": 0.1,
    "bold_valid_fraction": 1.0,
    "eeg_valid_fraction": 0.9,
    "eeg_line_noise_ratio": 0.2,
    "eeg_flat_channels": 1.0,
    "bold_parcel_coverage_fraction": 0.5,
}
BAD = {
    "mean_fd_mm": (0.51, "mean framewise displacement 0.51 mm is above 0.5 mm"),
    "bold_valid_fraction": (0.49, "fraction of valid volumes 0.49 is below 0.5"),
    "eeg_valid_fraction": (0.4, "fraction of valid EEG 0.4 is below 0.5"),
    "eeg_line_noise_ratio": (10.5, "line noise 10.5 x its neighbourhood is above 10 x its neighbourhood"),
    "eeg_flat_channels": (4.0, "fraction of flat channels 0.118 is above 0.1"),
    "bold_parcel_coverage_fraction": (0.2, "fraction of parcels covered 0.2 is below 0.25"),
}


def test_a_good_recording_breaks_no_rule():
    assert exclusion_reasons({}, GOOD, 30) == []
    assert exclusion_reasons({}, {}, 30) == []  # what is not known excludes nothing
    assert exclusion_reasons({}, {"mean_fd_mm": None}, 30) == []  # as the store keeps a figure that is no number


@pytest.mark.parametrize("figure", BAD)
def test_each_rule_excludes_with_its_number(figure):
    value, words = BAD[figure]
    assert exclusion_reasons({}, GOOD | {figure: value}, 30) == [words]


def test_every_rule_is_tested_and_says_why():
    assert {rule.figure for rule in RULES} == {"eeg_flat_fraction", *BAD} - {"eeg_flat_channels"}
    assert all(len(rule.why) > 40 for rule in RULES)
    assert figures_of({"eeg_flat_channels": 3.0}, 27)["eeg_flat_fraction"] == pytest.approx(0.1)


def test_the_limit_itself_does_not_exclude():
    for rule in RULES:
        assert not rule.breaks(rule.limit)


def test_all_reasons_are_named_preparation_first():
    found = exclusion_reasons(
        {"excluded": "bipolar pairs", "alignment": {"verdict": "rejected"}}, GOOD | {"mean_fd_mm": 2.0}, 30
    )
    assert found[:2] == ["bipolar pairs", REJECTED]
    assert "2 mm" in found[2]


@pytest.mark.parametrize("verdict", ["ok", "repaired", "unverified"])
def test_an_unverified_alignment_is_usable(verdict):
    assert exclusion_reasons({"alignment": {"verdict": verdict}}, GOOD, 30) == []


@pytest.fixture
def store(tmp_path, make_recording):
    """Sites alpha, beta, gamma with two subjects; alpha/02 moved too much, all of gamma is unusable."""
    place = str(tmp_path / "store")
    for site in ("alpha", "beta", "gamma"):
        for subject in ("01", "02"):
            moved = {"mean_fd_mm": 1.2 if (site, subject) == ("alpha", "02") else 0.1}
            why = {"excluded": "single bipolar channel"} if site == "gamma" else {}
            made = replace(make_recording(site, subject), quality=GOOD | moved, provenance=why)
            write_recording(place, made, fingerprint="f")
    rebuild_manifest(place)
    return place


def test_the_manifest_says_what_is_excluded_and_why(store):
    manifest = read_manifest(store)
    said = {f"{row.site}/{row.subject}": row.reason for row in manifest.itertuples() if row.excluded}
    assert said == {
        "alpha/02": "mean framewise displacement 1.2 mm is above 0.5 mm",
        "gamma/01": "single bipolar channel",
        "gamma/02": "single bipolar channel",
    }
    assert not manifest.loc[~manifest["excluded"], "reason"].any()


def test_excluded_recordings_reach_no_fold_no_study_and_no_evaluation(store):
    out = {RecordingKey("alpha", "02", task="rest"), *(RecordingKey("gamma", s, task="rest") for s in ("01", "02"))}
    manifest = read_manifest(store)
    assert not out & set(manifest_keys(manifest))
    experiment = parse_experiment({"name": "x", "model": {"name": "ridge"}}, "test")
    selected = select_manifest(store, experiment)
    assert len(selected) == 3
    assert not out & set(manifest_keys(selected))
    assert not out & set(manifest_keys(chosen(manifest, [], store)))
    folds = leave_one_site_out(manifest, val_fraction=0.5, seed=0, held_out=["alpha"])
    assert {fold.held_out for fold in folds} == {"alpha"}
    assert not out & {key for fold in folds for key in (*fold.train, *fold.val, *fold.test)}
    with pytest.raises(FoldError, match="gamma"):
        leave_one_site_out(manifest, val_fraction=0.5, seed=0, held_out=["gamma"])


def test_a_site_that_is_asked_for_does_not_vanish_in_silence(store):
    facts = {"name": "x", "model": {"name": "ridge"}, "data": {"sites": ["alpha", "gamma"]}}
    with pytest.raises(StoreError, match=r"every recording of gamma is excluded.*single bipolar channel"):
        select_manifest(store, parse_experiment(facts, "test"))


def test_a_changed_threshold_needs_no_new_ingest(store, monkeypatch):
    assert read_manifest(store)["excluded"].sum() == 3
    loose = tuple(replace(rule, limit=5.0) if rule.figure == "mean_fd_mm" else rule for rule in RULES)
    monkeypatch.setattr("xsite.data.exclusion.RULES", loose)
    manifest = read_manifest(store)
    assert set(manifest.loc[manifest["excluded"], "site"]) == {"gamma"}
    assert set(manifest.loc[manifest["excluded"], "reason"]) == {"single bipolar channel"}
    assert len(select_manifest(store, parse_experiment({"name": "x", "model": {"name": "ridge"}}, "test"))) == 4
    strict = tuple(replace(rule, limit=0.05) if rule.figure == "mean_fd_mm" else rule for rule in RULES)
    monkeypatch.setattr("xsite.data.exclusion.RULES", strict)
    assert read_manifest(store)["excluded"].all()
    assert read_manifest(store).equals(rebuild_manifest(store))


def test_a_manifest_of_an_earlier_version_follows_the_rules_too(store, monkeypatch):
    path = f"{store}/manifest.parquet"
    pd.read_parquet(path).drop(columns="own_reason").to_parquet(path)
    monkeypatch.setattr("xsite.data.exclusion.RULES", ())
    assert set(read_manifest(store).query("excluded")["site"]) == {"gamma"}


def test_a_refused_recording_trains_no_more_until_it_is_ingested(store, tmp_path):
    key = RecordingKey("beta", "01", task="rest")
    files = RecordingFiles(key, tmp_path / "sub-01_task-rest_eeg.vhdr", tmp_path / "sub-01_task-rest_bold.nii.gz")
    note_refused(store, small_site(name="beta"), files, AlignmentError("no volume marker"))
    assert key not in manifest_keys(read_manifest(store))  # before the manifest is rebuilt, too
    row = rebuild_manifest(store).query("site == 'beta' and subject == '01'").iloc[0]
    assert (row["excluded"], row["reason"]) == (True, "refused by the latest ingest: AlignmentError: no volume marker")
    forget_refused(store, key)
    assert key in manifest_keys(read_manifest(store))
    (tmp_path / "store" / "refused" / "beta" / "x.json").write_text("[")
    with pytest.raises(StoreError, match=r"x\.json: damaged note"):
        read_manifest(store)


@pytest.fixture
def ingested(tmp_path, make_recording):
    """Two subjects of site alpha, whose provenance names their files, and those files."""
    place, found = str(tmp_path / "store"), []
    for subject in ("01", "02"):
        stem = tmp_path / f"sub-{subject}_task-rest_eeg"
        eeg, bold = stem.with_suffix(".vhdr"), tmp_path / f"sub-{subject}_task-rest_bold.nii.gz"
        made = make_recording("alpha", subject)
        names = (eeg.name, f"{stem.name}.json", bold.name)
        sources = [{"file": name, "sha256": f"{subject}{name}"} for name in names]
        write_recording(place, replace(made, quality=GOOD, provenance={"sources": sources}), fingerprint="f")
        found.append(RecordingFiles(made.key, eeg, bold))
    rebuild_manifest(place)
    return place, found


def reasons(place):
    return {row.subject: row.reason for row in read_manifest(place).itertuples() if row.excluded}


def test_what_pairing_takes_out_is_excluded_and_what_is_absent_is_not(ingested, tmp_path):
    place, (first, second) = ingested
    note_left_out(place, "alpha", {}, tmp_path)
    note_withdrawn(place, "alpha", [first])
    assert reasons(place) == {}  # the second was not fetched this time
    note_left_out(place, "alpha", {second.eeg.with_suffix(".json"): "its EEG file is not there"}, tmp_path)
    note_withdrawn(place, "alpha", [first])
    assert reasons(place) == {}  # neither is a sidecar without its file anything against it
    note_left_out(place, "alpha", {second.bold: "a pointer"}, tmp_path)
    note_withdrawn(place, "alpha", [first])
    assert reasons(place) == {"02": "left out by the latest ingest: a pointer"}
    note_withdrawn(place, "other", [])
    note_left_out(place, "alpha", {}, tmp_path)
    note_withdrawn(place, "alpha", [first])
    assert list(reasons(place)) == ["02"]  # absent now: what was said last holds
    note_withdrawn(place, "alpha", [first, second])
    assert reasons(place) == {}


def test_a_recording_whose_key_changed_is_not_there_twice(ingested, tmp_path):
    place, (first, second) = ingested
    note_left_out(place, "alpha", {}, tmp_path)
    note_withdrawn(place, "alpha", [first, replace(second, key=RecordingKey("alpha", "02", "", "rest", "1"))])
    assert reasons(place) == {"02": "left out by the latest ingest: its files belong to sub-02_task-rest_run-1 now"}


def test_one_image_under_two_keys_of_a_site_is_refused(ingested, make_recording):
    place, (first, _) = ingested
    sources = [{"file": "sub-03_task-rest_bold.nii.gz", "sha256": f"01{first.bold.name}"}]
    copy = replace(make_recording("alpha", "03"), quality=GOOD, provenance={"sources": sources})
    write_recording(place, copy, fingerprint="f")
    rebuild_manifest(place)
    experiment = parse_experiment({"name": "x", "model": {"name": "ridge"}}, "test")
    with pytest.raises(StoreError, match=r"alpha/sub-01.*alpha/sub-03.* were made of the same image"):
        select_manifest(place, experiment)
    note_left_out(place, "alpha", {first.eeg: "renamed"}, first.eeg.parent)
    note_withdrawn(place, "alpha", [])
    assert set(select_manifest(place, experiment)["subject"]) == {"02", "03"}  # what is excluded is no second


def test_an_unusable_site_is_ingested_with_its_story_and_excluded(tmp_path):
    write_recording_files(tmp_path / "bids")
    small_atlas(tmp_path)
    site = small_site(unusable="bipolar pairs")
    (files,) = find_recordings(tmp_path / "bids", site)
    state, message = ingest_recording(site, files, str(tmp_path / "store"), str(tmp_path / "atlas.nii.gz"))
    assert state == "done"
    assert message.endswith("excluded from training: bipolar pairs")
    (row,) = rebuild_manifest(str(tmp_path / "store")).itertuples()
    assert (row.excluded, row.reason) == (True, "bipolar pairs")
    assert row.quality_eeg_valid_fraction == 1.0


def test_what_ingest_refuses_is_noted_until_it_succeeds(tmp_path):
    paths = write_recording_files(tmp_path / "bids")
    small_atlas(tmp_path)
    site, place, atlas = small_site(), str(tmp_path / "store"), str(tmp_path / "atlas.nii.gz")
    (files,) = find_recordings(tmp_path / "bids", site)
    whole = paths["bold"].read_bytes()
    paths["bold"].write_bytes(whole[: len(whole) // 2])
    assert ingest_recording(site, files, place, atlas)[0] == "failed"
    (message,) = read_refused(place)["small"].values()
    assert "FormatError" in message
    assert paths["bold"].name in message
    assert str(tmp_path) not in message
    paths["bold"].write_bytes(whole)
    assert ingest_recording(site, files, place, atlas)[0] == "done"
    assert read_refused(place) == {}


def test_refused_notes_hold_no_words_of_headers(tmp_path):
    files = RecordingFiles(RecordingKey("small", "01"), tmp_path / "Jane_Doe.vhdr", tmp_path / "bold.nii.gz")
    error = AlignmentError(f"{files.eeg}: no volume marker 'R128'; markers in the file: 'Jane Doe 1970' x3")
    note_refused(str(tmp_path / "store"), small_site(), files, error)
    note_refused(
        str(tmp_path / "store"), small_site(), replace(files, key=RecordingKey("small", "02")), KeyError("Jane")
    )
    stored = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"Jane" not in stored
    assert b"1970" not in stored
    assert b"R128" in stored
    assert np.size(list(read_refused(str(tmp_path / "store"))["small"])) == 2
