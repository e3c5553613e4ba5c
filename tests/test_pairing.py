"""Finding and pairing files (sites.md, heterogeneity catalogue 1 to 6): real names, and never by names alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from published import N_VOLUMES, SECONDS, write_brainvision, write_eeg, write_image
from small_site import small_site, write_recording_files

from xsite.data.bids import find_recordings, pair_files
from xsite.data.fingerprint import source_files
from xsite.data.headers import eeg_header
from xsite.data.inheritance import channels_path, eeg_json_paths, events_path
from xsite.data.pairing import Pairing, pair_lists
from xsite.data.pairing_table import pairing_table, summary
from xsite.data.prepare import prepare_recording
from xsite.data.readers import read_channels, read_eeg
from xsite.recording import RecordingKey
from xsite.site import Expected, RecordingFiles, Site

R128 = ("Response/R128",) * 8
GENERIC = Site(name="generic", sfreq=1000.0, t_r=2.0, line_freq=50.0, volume_marker="R128", bold_space="template")


def put(root: Path, *names: str, markers=R128) -> Path:
    """EEG files and images by their names, each in its subject's folder."""
    for name in names:
        subject, session = name.split("_")[0], name.split("_")[1] if "_ses-" in name else ""
        folder = root / subject / session / ("func" if "_bold" in name else "eeg")
        (write_image if "_bold" in name else lambda path: write_eeg(path, markers))(folder / name)
    return root


def reasons(pairing: Pairing) -> dict[str, str]:
    return {path.name: reason for path, reason in pairing.unpaired.items()}


def pairs(pairing: Pairing) -> list[tuple[str, str, str]]:
    return [(files.key.entities, files.eeg.name, files.bold.name) for files in pairing.recordings]


def test_fault_1_task_labels_differ(tmp_path):
    put(tmp_path, "sub-001_task-GRADON_run-01_eeg.set", "sub-001_task-GRAD_run-01_bold.nii.gz")
    put(tmp_path, "sub-001_task-GRADOFF_run-01_eeg.set", markers=())
    site = replace(GENERIC, task_pairs={"GRADON": "GRAD"})
    pairing = pair_files(tmp_path, site)
    assert pairs(pairing) == [
        ("sub-001_task-GRAD_run-01", "sub-001_task-GRADON_run-01_eeg.set", "sub-001_task-GRAD_run-01_bold.nii.gz")
    ]
    assert reasons(pairing) == {"sub-001_task-GRADOFF_run-01_eeg.set": "no BOLD with the same entities"}
    assert pair_files(tmp_path, GENERIC).recordings == []


def test_fault_1_run_entity_on_one_side_only_when_there_is_one_of_each(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_run-01_bold.nii.gz")
    put(
        tmp_path,
        "sub-02_task-rest_eeg.vhdr",
        "sub-02_task-rest_run-1_bold.nii.gz",
        "sub-02_task-rest_run-2_bold.nii.gz",
    )
    put(tmp_path, "sub-03_task-rest_run-1_eeg.vhdr", "sub-03_task-rest_bold.nii.gz")
    pairing = pair_files(tmp_path, GENERIC)
    assert [key for key, _, _ in pairs(pairing)] == ["sub-01_task-rest_run-01", "sub-03_task-rest_run-1"]
    assert "nearest: sub-02_task-rest_run-1_bold.nii.gz" in reasons(pairing)["sub-02_task-rest_eeg.vhdr"]


def test_fault_1_a_misnamed_run_is_paired_by_the_facts_of_the_site(tmp_path):
    stem = "sub-12_ses-001_task-main_run-{}_{}"
    put(tmp_path, *(stem.format(run, "eeg.vhdr") for run in ("005", "00")))
    put(tmp_path, *(stem.format(run, "bold.nii.gz") for run in ("005", "006")))
    assert len(pair_files(tmp_path, GENERIC).recordings) == 1
    site = replace(GENERIC, task_pairs={"sub-12_ses-001_task-main_run-00": "run-006"})
    assert pairs(pair_files(tmp_path, site))[1] == (
        "sub-12_ses-001_task-main_run-006",
        stem.format("00", "eeg.vhdr"),
        stem.format("006", "bold.nii.gz"),
    )


def test_fault_1_names_outside_bids_are_listed_by_the_adapter(tmp_path):
    stem = "sub-00002_ses-1_task-sleep_run-20160531_2257"
    eeg = write_brainvision(tmp_path / f"sub-00002/ses-1/eeg/{stem}.vhdr", R128)
    bold = write_image(tmp_path / f"sub-00002/ses-1/func/{stem}.nii")
    (eeg.with_suffix(".json")).write_text('{"RecordingDuration": 20.0,}')
    (files,) = pair_lists(tmp_path, GENERIC, [eeg], [bold]).recordings
    assert (files.key.entities, files.eeg, files.bold) == ("sub-00002_ses-1_task-sleep_run-20160531", eeg, bold)
    assert eeg_json_paths(eeg) == [eeg.with_suffix(".json")]


def test_fault_1_task_and_session_differ_across_two_roots(tmp_path):
    put(tmp_path / "EEG", "sub-01_task-fmrirestingec_eeg.set", "sub-01_task-fmrirestingeo_eeg.set", markers=())
    put(tmp_path / "MRI", "sub-01_ses-001_task-rest_run-01_bold.nii.gz", "sub-01_ses-001_task-rest_run-02_bold.nii.gz")
    facts = {f"task-fmriresting{eyes}": f"ses-001_task-rest_run-{run}" for eyes, run in (("ec", "01"), ("eo", "02"))}
    site = replace(GENERIC, volume_marker=None, scan_start=0.0, task_pairs=facts)
    pairing = pair_files(tmp_path, site, eeg_under="EEG", bold_under="MRI")
    assert [key for key, _, _ in pairs(pairing)] == [
        "sub-01_ses-001_task-rest_run-01",
        "sub-01_ses-001_task-rest_run-02",
    ]
    assert pairing.recordings[1].eeg.name == "sub-01_task-fmrirestingeo_eeg.set"
    assert pairing.unpaired == {}


def test_fault_3_eeg_that_only_the_sites_own_reader_knows(tmp_path):
    put(tmp_path, "sub-01_task-checker_run-01_bold.nii.gz")
    eeg = tmp_path / "sub-01" / "func" / "sub-01_task-checker_run-01_eeg.tsv"
    eeg.write_text("0.00\t0.01\n0.01\t0.02\n")
    eeg.with_suffix(".json").write_text('{"RecordingDuration": 242,}')
    bold = sorted(tmp_path.rglob("*_bold.nii.gz"))
    site = replace(GENERIC, volume_marker=None, scan_start=0.0)
    (files,) = pair_lists(tmp_path, site, [eeg], bold).recordings
    assert (files.eeg, eeg_header(eeg).seconds) == (eeg, 242)
    assert pair_lists(tmp_path, replace(GENERIC, volume_marker=None), [eeg], bold).recordings == []


def test_two_images_of_one_eeg_are_not_guessed_between(tmp_path):
    put(
        tmp_path,
        "sub-01_task-rest_eeg.vhdr",
        "sub-01_task-rest_dir-AP_bold.nii.gz",
        "sub-01_task-rest_dir-PA_bold.nii.gz",
    )
    pairing = pair_files(tmp_path, GENERIC)
    assert pairing.recordings == []
    assert "cannot tell which belong together" in reasons(pairing)["sub-01_task-rest_eeg.vhdr"]
    site = replace(GENERIC, left_out={"*dir-PA*": "the EEG was paused"})
    pairing = pair_files(tmp_path, site)
    assert len(pairing.recordings) == 1
    assert reasons(pairing) == {"sub-01_task-rest_dir-PA_bold.nii.gz": "left out by the site: the EEG was paused"}


def test_two_recordings_never_share_a_key(tmp_path):
    for acq in ("lo", "hi"):
        put(tmp_path, f"sub-01_task-rest_acq-{acq}_eeg.vhdr", f"sub-01_task-rest_acq-{acq}_bold.nii.gz")
    pairing = pair_files(tmp_path, GENERIC)
    assert len(pairing.recordings) == 1
    assert "a second recording would be called sub-01_task-rest" in reasons(pairing)["sub-01_task-rest_acq-lo_eeg.vhdr"]


def test_fault_2_tasks_and_files_that_the_site_names_are_left_out(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz")
    put(tmp_path, "sub-01_task-game_eeg.vhdr", "sub-01_task-game_bold.nii.gz")
    put(tmp_path, "sub-02_task-rest_eeg.vhdr", "sub-02_task-rest_bold.nii.gz")
    site = replace(GENERIC, tasks=("rest",), left_out={"sub-02/*": "withdrew"})
    pairing = pair_files(tmp_path, site)
    assert [key for key, _, _ in pairs(pairing)] == ["sub-01_task-rest"]
    assert (
        "task 'game' was not recorded simultaneously (the site names rest)"
        in reasons(pairing)["sub-01_task-game_eeg.vhdr"]
    )
    assert reasons(pairing)["sub-02_task-rest_bold.nii.gz"] == "left out by the site: withdrew"


def test_fault_2_no_marker_no_pair(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz", markers=("Stimulus/S  1",) * 3)
    (reason,) = set(reasons(pair_files(tmp_path, GENERIC)).values())
    assert "no 'R128' among the EEG's markers ('Stimulus/S  1' x 3 in sub-01_task-rest_eeg.vmrk)" in reason
    (reason,) = set(reasons(pair_files(tmp_path, replace(GENERIC, volume_marker=None))).values())
    assert "neither a volume_marker nor" in reason
    pairing = pair_files(tmp_path, replace(GENERIC, volume_marker=None, scan_start=2.5))
    assert pairing.evidence == {
        "sub-01_task-rest": "policy of the site: the scan starts 2.5 s after the first EEG sample"
    }
    by_marker = replace(GENERIC, volume_marker=None, scan_start=-2.0, scan_marker="S 1")
    assert len(pair_files(tmp_path, by_marker).recordings) == 1
    (reason,) = set(reasons(pair_files(tmp_path, replace(by_marker, scan_marker="S 99"))).values())
    assert "'S 99', which is not among the EEG's markers" in reason


@pytest.mark.parametrize("suffix", [".vhdr", ".set", ".edf"])
@pytest.mark.parametrize("in_file", [True, False])
def test_fault_2_markers_are_looked_for_in_the_file_and_in_its_table(tmp_path, suffix, in_file):
    paths = write_recording_files(tmp_path, eeg_format=suffix[1:], markers_in_file=in_file)
    events = paths["eeg"].with_name("sub-01_task-rest_events.tsv")
    if in_file:
        events.unlink()
    header = eeg_header(paths["eeg"])
    assert header.seconds == pytest.approx(
        read_eeg(RecordingFiles(RecordingKey("s", "01"), paths["eeg"], paths["bold"]), small_site()).duration, abs=1
    )
    assert pair_files(tmp_path, small_site()).evidence == {"sub-01_task-rest": "30 x R128"}
    events.unlink(missing_ok=True)
    assert len(pair_files(tmp_path, small_site()).recordings) == in_file


def test_fault_2_contrary_evidence_refuses_though_markers_are_there(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz")
    scans = tmp_path / "sub-01" / "sub-01_scans.tsv"
    rows = "filename\tacq_time\neeg/sub-01_task-rest_eeg.vhdr\t{}\nfunc/sub-01_task-rest_bold.nii.gz\t{}\n"
    scans.write_text(rows.format("2018-08-15T23:58:00", "2018-08-16T00:03:00"))  # over midnight
    assert len(pair_files(tmp_path, GENERIC).recordings) == 1
    scans.write_text(rows.format("2018-08-15T10:00:00", "1970-01-01T00:00:00"))  # not known
    scans.touch()
    assert len(pair_files(tmp_path, GENERIC).recordings) == 1
    other = put(tmp_path / "other", "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz")
    (other / "sub-01" / "sub-01_scans.tsv").write_text(rows.format("2018-08-15T10:00:00", "2018-08-17T10:00:00"))
    (reason,) = set(reasons(pair_files(other, GENERIC)).values())
    assert "acq_time of scans.tsv lies 48 h apart" in reason
    scans.unlink()
    (tmp_path / "task-rest_eeg.json").write_text(
        json.dumps({"TaskDescription": "Rest, recorded outside the MR scanner"})
    )
    elsewhere = replace(GENERIC, volume_marker="S 1", scan_start=2.5)
    (reason,) = set(reasons(pair_files(tmp_path, elsewhere)).values())
    assert reason == "not simultaneous: TaskDescription of its eeg.json says 'outside the MR scanner'"


def test_fault_2_free_text_loses_against_counted_markers_and_refuses_eeg_without(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz")
    put(tmp_path, "sub-02_task-rest_eeg.vhdr", "sub-02_task-rest_bold.nii.gz", markers=("Stimulus/S  1",) * 3)
    words = "The EEG cap was applied outside the MRI scanner before the session."
    (tmp_path / "task-rest_eeg.json").write_text(json.dumps({"EEGPlacementScheme": words}))
    told = "EEGPlacementScheme of its eeg.json says 'outside the MRI scanner'"
    pairing = pair_files(tmp_path, GENERIC)
    assert pairing.evidence == {"sub-01_task-rest": f"8 x R128, although {told}"}
    assert set(reasons(pairing)) == {"sub-02_task-rest_eeg.vhdr", "sub-02_task-rest_bold.nii.gz"}
    assert set(reasons(pairing).values()) == {f"not simultaneous: {told}"}
    policy = replace(GENERIC, volume_marker=None, scan_start=0.0)
    assert pair_files(tmp_path, policy).recordings == []
    unseen = replace(GENERIC, volume_marker="V", read_eeg=read_eeg)  # only its own reader sees the markers
    assert len(pair_files(tmp_path, unseen).recordings) == 2


def test_fault_2_another_session_is_another_time(tmp_path):
    put(tmp_path, "sub-01_ses-eeg_task-rest_eeg.vhdr", "sub-01_ses-mri_task-rest_bold.nii.gz")
    words = "no {} with the same entities (that of session {} was recorded at another time)"
    assert reasons(pair_files(tmp_path, GENERIC)) == {
        "sub-01_ses-eeg_task-rest_eeg.vhdr": words.format("BOLD", "mri"),
        "sub-01_ses-mri_task-rest_bold.nii.gz": words.format("EEG", "eeg"),
    }


def test_fault_3_eeg_elsewhere_is_asked_for_and_what_was_rejected_is_not_data(tmp_path):
    put(tmp_path, "sub-32_task-rest_bold.nii.gz")
    write_brainvision(tmp_path / "derivatives/sub-32/eeg/sub-32_task-rest_eeg.vhdr", ("Scanner/Scan Start",) * 300)
    site = replace(GENERIC, volume_marker="Scan Start")
    assert pair_files(tmp_path, site).recordings == []
    assert pair_files(tmp_path, site, eeg_under="derivatives").evidence == {"sub-32_task-rest": "300 x Scan Start"}
    for folder, name in (
        ("eeg/rejected", "sub-32_task-main_eeg.vhdr"),
        ("func/reject", "sub-32_task-main_bold.nii.gz"),
    ):
        (write_image if "bold" in name else write_brainvision)(tmp_path / "sub-32" / folder / name)
    write_image(tmp_path / "sub-32" / "func-complex" / "sub-32_task-main_bold.nii.gz")
    write_image(tmp_path / "sourcedata" / "sub-32" / "func" / "sub-32_task-main_bold.nii.gz")
    found = {
        str(p.relative_to(tmp_path)): r for p, r in pair_files(tmp_path, site, eeg_under="derivatives").unpaired.items()
    }
    assert found == {"sub-32/func/reject/sub-32_task-main_bold.nii.gz": "set aside by the authors in reject/"}
    assert "set aside" in reasons(pair_files(tmp_path, site))["sub-32_task-main_eeg.vhdr"]


def test_fault_4_hidden_twins_are_nothing_and_pointers_have_a_reason(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz")
    put(tmp_path, "sub-02_task-rest_eeg.vhdr", "sub-02_task-rest_bold.nii.gz")
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07" + bytes(20))
        (path.parent / ".DS_Store").write_bytes(b"Bud1")
    bold = tmp_path / "sub-02" / "func" / "sub-02_task-rest_bold.nii.gz"
    bold.write_text("/annex/objects/MD5E-s29113571--4c8e2.nii.gz\n")
    pairing = pair_files(tmp_path, GENERIC)
    assert [key for key, _, _ in pairs(pairing)] == ["sub-01_task-rest"]
    assert set(reasons(pairing)) == {"sub-02_task-rest_eeg.vhdr", "sub-02_task-rest_bold.nii.gz"}
    assert all("a storage pointer" in reason for reason in pairing.unpaired.values())
    write_image(bold)
    header = tmp_path / "sub-02" / "eeg" / "sub-02_task-rest_eeg.vhdr"
    header.write_text("/annex/objects/MD5E-s11798--77.vhdr\n")
    assert "a storage pointer" in reasons(pair_files(tmp_path, GENERIC))[header.name]


def test_fault_5_nii_and_nii_gz_are_one_run_and_either_serves(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii", "sub-01_task-rest_bold.nii.gz")
    put(tmp_path, "sub-02_task-rest_eeg.vhdr", "sub-02_task-rest_bold.nii")
    pairing = pair_files(tmp_path, GENERIC)
    assert [bold for _, _, bold in pairs(pairing)] == ["sub-01_task-rest_bold.nii.gz", "sub-02_task-rest_bold.nii"]
    assert reasons(pairing) == {"sub-01_task-rest_bold.nii": "same entities as sub-01_task-rest_bold.nii.gz"}
    (tmp_path / "sub-01/func/sub-01_task-rest_bold.nii.gz").write_bytes(b"")
    assert pairs(pair_files(tmp_path, GENERIC))[0][2] == "sub-01_task-rest_bold.nii"


def test_fault_5_a_header_whose_data_are_not_shipped(tmp_path):
    write_image(tmp_path / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    header = write_brainvision(tmp_path / "sub-01/eeg/sub-01_task-rest_eeg.vhdr", R128, data_file="rest_original.eeg")
    reason = reasons(pair_files(tmp_path, GENERIC))[header.name]
    assert "its DataFile 'rest_original.eeg' is not beside it" in reason
    twin = write_eeg(header.with_suffix(".set"), ("R128",) * 8)
    pairing = pair_files(tmp_path, GENERIC)
    assert [files.eeg for files in pairing.recordings] == [twin]
    assert reasons(pairing) == {header.name: f"same entities as {twin.name}"}


def test_fault_6_sidecars_by_inheritance_the_nearest_wins(tmp_path):
    paths = write_recording_files(tmp_path)
    eeg = paths["eeg"]
    (tmp_path / "task-rest_channels.tsv").write_text(
        "name   type   units\n'FP1'   EEG   microV\n'ECG’   ECG   microV\n", "utf-8"
    )
    (tmp_path / "task-other_channels.tsv").write_text("name\ttype\nFP1\tMISC\n")
    (tmp_path / "eeg.json").write_text('{"EEGReference": "FCz", "PowerLineFrequency": 50}')
    (tmp_path / "sub-01" / "sub-01_eeg.json").write_text('{"EEGReference": "Cz",}')
    assert [path.name for path in eeg_json_paths(eeg)] == ["eeg.json", "sub-01_eeg.json", "sub-01_task-rest_eeg.json"]
    assert channels_path(eeg) == tmp_path / "task-rest_channels.tsv"
    files = RecordingFiles(RecordingKey("small", "01", task="rest"), eeg, paths["bold"])
    raw = read_eeg(files, small_site())
    assert dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))["ECG"] == "ecg"
    table = read_channels(eeg)
    assert table is not None
    assert list(table["units"]) == ["microV", "microV"]
    own = eeg.with_name("sub-01_task-rest_channels.tsv")
    own.write_text("name\ttype\tunits\nFP1\tEOG\tuV\nFP2\tEEG\tuV\nF3\treponse\tV\n")
    assert channels_path(eeg) == own
    types = dict(zip(raw.ch_names, read_eeg(files, small_site()).get_channel_types(), strict=True))
    assert (types["FP1"], types["FP2"], types["F3"], types["ECG"]) == ("eog", "eeg", "misc", "eeg")
    names = {path.name for path in source_files(files)}
    assert {
        "eeg.json",
        "sub-01_eeg.json",
        "sub-01_task-rest_eeg.json",
        own.name,
        "sub-01_task-rest_events.tsv",
    } <= names


def test_fault_6_a_table_for_all_subjects_is_not_on_the_clock_of_each_eeg(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz", markers=())
    (tmp_path / "task-rest_events.tsv").write_text("onset\tduration\ttrial_type\n2\t20\tR128\n")
    eeg = tmp_path / "sub-01" / "eeg" / "sub-01_task-rest_eeg.vhdr"
    assert events_path(eeg) is None
    assert pair_files(tmp_path, GENERIC).recordings == []
    own = tmp_path / "sub-01" / "sub-01_task-rest_events.tsv"
    own.write_text("onset\tduration\tcategory\n2\t20\tR128\n")
    assert events_path(eeg) == own
    assert len(pair_files(tmp_path, GENERIC).recordings) == 1


def test_the_table_says_how_long_and_why(tmp_path):
    put(tmp_path, "sub-01_task-rest_eeg.vhdr", "sub-01_task-rest_bold.nii.gz")
    put(tmp_path, "sub-02_task-rest_eeg.set", "sub-02_task-rest_run-1_bold.nii.gz", markers=())
    put(tmp_path, "sub-03_task-rest_bold.nii")
    site = replace(GENERIC, expected=Expected(subjects=3, recordings=3), unusable="a single channel")
    rows = pairing_table(pair_files(tmp_path, site), tmp_path, site)
    first, second, third = rows
    assert (first.status, first.eeg_seconds, first.n_volumes) == ("paired", SECONDS, N_VOLUMES)
    assert first.reason == "8 x R128; not for training: a single channel"
    assert (second.status, second.eeg_seconds, second.n_volumes) == ("left out", SECONDS, N_VOLUMES)
    assert (third.eeg, third.bold, third.reason) == (
        "",
        "sub-03/func/sub-03_task-rest_bold.nii",
        "no EEG with the same entities",
    )
    assert summary(rows, site) == (
        "generic: 1 recording of 1 subject paired, 2 left out (a complete download: 3 recordings, 3 subjects)"
    )


def test_sidecar_faults_are_in_the_recordings_story(tmp_path):
    from small_site import small_atlas

    paths = write_recording_files(tmp_path)
    paths["eeg"].with_name("sub-01_task-rest_eeg.json").write_text('{"ECGChannelCount": 2, "ECGChannelCount": 0,}')
    (files,) = find_recordings(tmp_path, small_site())
    recording = prepare_recording(site=small_site(), files=files, atlas=small_atlas(tmp_path))
    assert recording.provenance["sidecar_faults"] == {
        "sub-01_task-rest_eeg.json": [
            "a comma too many at line 1",
            "key 'ECGChannelCount' is given twice (2, then 0); the first is kept",
        ]
    }
    assert np.isfinite(recording.eeg).all()
