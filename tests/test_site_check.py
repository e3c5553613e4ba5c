"""The conformance check: wrong facts are found together, each with what to write; right facts pass."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_site import small_atlas, small_site, write_recording_files
from test_site_new import odd_like

from jobs.site import main
from xsite.data.site_check import Check, SiteCheck, check_site
from xsite.errors import SiteError
from xsite.phantom.like import write_like
from xsite.reports.site_check_page import site_check_page
from xsite.signals.parcels import Atlas, load_atlas

SITE = {"ch_types": {"ECG": "ecg"}, "decoys": ("Sync On",)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_recording_files(tmp_path / "bids")
    return tmp_path / "bids"


@pytest.fixture
def atlas(tmp_path: Path) -> Atlas:
    return small_atlas(tmp_path)


def failed(check: SiteCheck) -> dict[str, Check]:
    return {one.name: one for one in check.checks if one.state == "fail"}


def test_right_facts_pass(root: Path, atlas: Atlas) -> None:
    check = check_site(small_site(**SITE), root, atlas)
    assert check.passed, failed(check)
    assert check.recording == "sub-01_task-rest"
    names = {one.name for one in check.checks}
    wanted = "recordings|EEG file|sampling frequency|channels|positions|BOLD file|repetition time|BOLD space|start time"
    wanted += "|confounds|volume marker|line frequency|alignment|gradient artifact|units|parcel coverage"
    assert set(wanted.split("|")) <= names
    assert check.markers[0].name == "Response/R128"
    assert check.markers[0].likeness == "volumes"
    assert check.prepared is not None


def test_wrong_facts_are_found_together(root: Path, atlas: Atlas) -> None:
    """One run tells of all of them, because each is put right for the rest."""
    check = check_site(small_site(**SITE, sfreq=1000.0, t_r=2.5, volume_marker="S128"), root, atlas)
    found = failed(check)
    assert found["sampling frequency"].fix == "write `sfreq: 500`"
    assert found["repetition time"].fix == "write `t_r: 2`"
    assert found["volume marker"].fix == "write `volume_marker: 'Response/R128'`"
    assert "no 'S128' among the EEG's markers" in found["recordings"].fix
    assert check.alignment is not None
    assert check.prepared is not None
    assert not check.passed


def test_a_decoy_is_no_volume_marker(root: Path, atlas: Atlas) -> None:
    """It keeps the TR and counts 38 beside 30 volumes; the check names the better one."""
    check = check_site(small_site(**SITE, volume_marker="Sync On"), root, atlas)
    one = next(one for one in check.checks if one.name == "volume marker")
    assert one.state == "warn"
    assert "R128" in one.fix
    assert "alignment" in failed(check)


def test_mains_and_artifact_are_measured(tmp_path: Path) -> None:
    write_like(odd_like(), tmp_path)
    atlas = load_atlas(tmp_path / "atlas" / "phantom-16.nii.gz")
    facts = {"name": "odd", "sfreq": 1000.0, "t_r": 1.5, "volume_marker": "Scanner/s", "triggers_per_volume": 10}
    check = check_site(small_site(**facts, line_freq=50.0, eeg_state="clean"), tmp_path / "odd", atlas)
    found = failed(check)
    assert found["line frequency"].fix == "write `line_freq: 60`"
    assert "eeg_state: raw" in found["gradient artifact"].fix


def test_image_in_the_scanners_space(root: Path, atlas: Atlas) -> None:
    func = root / "sub-01" / "func"
    func.mkdir()
    image = next((root / "derivatives" / "fmriprep").rglob("*_bold.nii.gz"))
    image.rename(func / "sub-01_task-rest_bold.nii.gz")
    image.with_name(image.name.replace(".nii.gz", ".json")).rename(func / "sub-01_task-rest_bold.json")
    found = failed(check_site(small_site(**SITE), root, atlas))
    assert "bold_space: template" in found["recordings"].fix
    assert "fMRIPrep" in found["recordings"].fix


def test_unknown_channels_say_what_to_map(root: Path, atlas: Atlas) -> None:
    header = root / "sub-01" / "eeg" / "sub-01_task-rest_eeg.vhdr"
    header.write_text(header.read_text(encoding="utf-8").replace("PZ", "Vertexial"), encoding="utf-8")
    check = check_site(small_site(**SITE), root, atlas)
    one = next(one for one in check.checks if one.name == "channels")
    assert (one.state, one.fact) == ("warn", "rename")  # typed EEG by the file, and no electrode of that name
    assert "Vertexial" in one.fix
    check = check_site(small_site(**SITE, ch_names=("Cz", "Pz")), root, atlas)
    assert "Pz" in failed(check)["channels"].found
    assert "rename" in failed(check)["channels"].fix
    assert check.alignment is not None  # the rest was looked at all the same
    assert check_site(small_site(**SITE, rename={"Vertexial": "Pz"}), root, atlas).passed


def test_a_damaged_image_and_an_empty_folder(root: Path, atlas: Atlas, tmp_path: Path) -> None:
    next((root / "derivatives" / "fmriprep").rglob("*_bold.nii.gz")).write_bytes(b"not an image")
    assert "BOLD file" in failed(check_site(small_site(**SITE), root, atlas))
    (tmp_path / "empty").mkdir()
    check = check_site(small_site(**SITE), tmp_path / "empty", atlas)
    assert list(failed(check)) == ["recordings"]
    with pytest.raises(SiteError, match="no such folder"):
        check_site(small_site(**SITE), tmp_path / "absent", atlas)


def test_subject_is_chosen(root: Path, atlas: Atlas) -> None:
    write_recording_files(root, "02")
    assert check_site(small_site(**SITE), root, atlas, subject="sub-02").recording == "sub-02_task-rest"
    with pytest.raises(SiteError, match="there are 01, 02"):
        check_site(small_site(**SITE), root, atlas, subject="03")


def test_labels_with_a_date_are_warned_of(root: Path, atlas: Atlas) -> None:
    write_recording_files(root, "20190517")
    check = check_site(small_site(**SITE), root, atlas)
    one = next(one for one in check.checks if one.name == "privacy of labels")
    assert one.state == "warn"
    assert "20190517" in one.found


def test_page_needs_nothing_else(root: Path, atlas: Atlas) -> None:
    right = site_check_page(check_site(small_site(**SITE), root, atlas))
    assert "small: the facts fit" in right
    wrong = site_check_page(check_site(small_site(**SITE, sfreq=1000.0, volume_marker="S128"), root, atlas))
    assert "write `sfreq: 500`" in wrong
    assert "Response/R128" in wrong
    for page in (right, wrong):
        assert "http" not in page
        assert "<script" not in page
        assert str(root) not in page
        assert "<svg" in page


def test_command_line(root: Path, atlas: Atlas, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"name": "small", "sfreq": 500, "t_r": 2.0, "line_freq": 50, "volume_marker": "R128"}
    path, page = tmp_path / "small.yaml", tmp_path / "page.html"
    path.write_text(yaml.safe_dump(facts))
    command = ["check", str(path), "--bids", str(root), "--atlas", str(tmp_path / "atlas.nii.gz"), "--page", str(page)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "pass  alignment" in said or "WARN  alignment" in said
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    path.write_text(yaml.safe_dump(facts | {"sfreq": 250}))
    assert main(command) == 1
    assert "-> write `sfreq: 500`" in capsys.readouterr().out
