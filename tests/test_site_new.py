"""A first facts file from looking at a data set: what is found, what is marked as a guess, and that it then passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_site import small_atlas, write_recording_files

from jobs.site import main
from xsite.data.marker_looks import look_at
from xsite.data.site_check import check_site
from xsite.data.site_file import Fact, load_site, site_yaml
from xsite.data.site_guess import guess_site
from xsite.errors import RecipeError, SiteError
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain, write_like
from xsite.recording import RecordingKey
from xsite.signals.parcels import load_atlas
from xsite.site import Site


def drafted(root: Path, path: Path) -> tuple[Site, dict[str, Fact]]:
    """Facts as a file that loads, and as they were found."""
    guess = guess_site(root, path.stem)
    path.write_text(site_yaml(guess.facts, guess.words), encoding="utf-8")
    return load_site(path), {fact.name: fact for fact in guess.facts}


@pytest.mark.parametrize("eeg_format", ["vhdr", "edf", "set"])
def test_facts_of_a_plain_site(eeg_format: str, tmp_path: Path) -> None:
    write_recording_files(tmp_path / "bids", eeg_format=eeg_format)
    site, facts = drafted(tmp_path / "bids", tmp_path / "mine.yaml")
    assert (site.name, site.sfreq, site.t_r, site.eeg_state) == ("mine", 500.0, 2.0, "gradient-corrected")
    assert site.volume_marker is not None
    assert site.volume_marker.endswith("R128")
    assert (site.bold_space, site.confounds) == ("derivative", "motion6")
    assert (site.expected.subjects, site.expected.recordings) == (1, 1)
    assert facts["sfreq"].certain
    assert not facts["eeg_state"].certain
    if eeg_format == "vhdr":
        assert site.decoys == ("Comment/Sync On",)
    assert check_site(site, tmp_path / "bids", small_atlas(tmp_path)).passed


def test_markers_of_a_table_in_samples_of_another_rate(tmp_path: Path) -> None:
    paths = write_recording_files(tmp_path / "bids", markers_in_file=False)
    events = paths["eeg"].with_name("sub-01_task-rest_events.tsv")
    table = pd.read_csv(events, sep="\t")
    table["onset"] = (table["onset"] * 5000).round().astype(int)
    table.to_csv(events, sep="\t", index=False, na_rep="n/a")
    site, _ = drafted(tmp_path / "bids", tmp_path / "mine.yaml")
    assert (site.volume_marker, site.events_unit, site.events_sfreq) == ("Response/R128", "samples", 5000.0)
    check = check_site(site, tmp_path / "bids", small_atlas(tmp_path))
    assert check.passed, [one for one in check.checks if one.state == "fail"]


def test_task_labels_that_differ(tmp_path: Path) -> None:
    paths = write_recording_files(tmp_path / "bids", eeg_format="edf")
    for path in sorted(paths["eeg"].parent.iterdir()):
        path.rename(path.with_name(path.name.replace("task-rest", "task-restON")))
    site, facts = drafted(tmp_path / "bids", tmp_path / "mine.yaml")
    assert site.task_pairs == {"restON": "rest"}
    assert not facts["task_pairs"].certain
    assert check_site(site, tmp_path / "bids", small_atlas(tmp_path)).passed


def odd_like(**facts: object) -> LikeSite:
    """Raw EEG with slice triggers only, a heartbeat, 60 Hz mains, and a channel that is none."""
    site = Site(
        "odd",
        1000.0,
        1.5,
        60.0,
        "Scanner/s",
        eeg_state="raw",
        triggers_per_volume=10,
        reference="FCz",
        ch_types={"ECG": "ecg"},
    )
    key = RecordingKey("odd", "07", task="watch")
    stem = f"sub-07/{{}}/{key.entities}"
    run = LikeRun(
        key, f"{stem.format('eeg')}_eeg.vhdr", f"{stem.format('func')}_bold.nii.gz", 40, lead_s=20.0, tail_s=6.0
    )
    trains = (
        MarkerTrain("Scanner/s", count=10),
        MarkerTrain("SyncStatus/Sync On", per="clock", every_s=2.0, phase_s=0.3),
    )
    names = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "O1", "O2", "Cz", "Pz", "ECG")
    return LikeSite(site, lambda _: [run], names, trains=trains, slices=10, resolution_uv=0.1, **facts)  # type: ignore[arg-type]


def test_a_raw_site_with_slice_triggers(tmp_path: Path) -> None:
    like = odd_like()
    write_like(like, tmp_path)
    site, facts = drafted(tmp_path / "odd", tmp_path / "mine.yaml")
    assert (site.volume_marker, site.triggers_per_volume) == ("Scanner/s", 10)
    assert site.eeg_state == "raw"
    assert facts["eeg_state"].certain
    assert site.line_freq == 60.0
    assert site.decoys == ("SyncStatus/Sync On",)
    assert site.reference == "FCz"
    check = check_site(site, tmp_path / "odd", load_atlas(tmp_path / "atlas" / "phantom-16.nii.gz"))
    assert check.passed, [one for one in check.checks if one.state == "fail"]
    assert check.alignment is not None
    assert check.alignment.verdict in ("ok", "repaired")


def test_every_fact_says_how_it_was_found(tmp_path: Path) -> None:
    write_recording_files(tmp_path / "bids", eeg_format="edf")
    guess = guess_site(tmp_path / "bids", "mine")
    for block in site_yaml(guess.facts, guess.words).split("\n\n")[1:]:
        assert block.startswith("# ")
    text = site_yaml([Fact("reference", "FCz", "two\nlines", certain=False), Fact("doi", "", "none", offered=True)], "")
    assert "# CHECK: two lines\nreference: FCz" in text
    assert "# none\n# doi: ''" in text


@pytest.mark.parametrize(
    ("times", "likeness"),
    [
        (5 + 2.0 * np.arange(100), "volumes"),
        (5 + 2.0 * np.arange(102), "volumes"),
        (5 + 2.0 * np.arange(120), "volumes?"),
        (5 + 0.1 * np.arange(2000), "slices"),
        (5 + 1.7 * np.arange(100), "clock"),
        (np.cumsum(np.linspace(0.5, 9, 100)), "event"),
        (np.array([3.0, 5.0]), "event"),
    ],
)
def test_looks(times: np.ndarray, likeness: str) -> None:
    look = look_at({"x": times}, 100, 2.0)[0]
    assert look.likeness == likeness
    assert look.per_volume == (20 if likeness == "slices" else 1)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recording_files(tmp_path / "bids", eeg_format="edf")
    path = tmp_path / "mine.yaml"
    assert main(["new", "--bids", str(tmp_path / "bids"), str(path)]) == 0
    said = capsys.readouterr().out
    assert "marked CHECK in the file: " in said
    assert f"neurobolt site check {path}" in said
    with pytest.raises(RecipeError, match="exists already"):
        main(["new", "--bids", str(tmp_path / "bids"), str(path)])
    assert main(["new", "--bids", str(tmp_path / "bids"), str(path), "--force"]) == 0


@pytest.mark.parametrize(("name", "says"), [("mine.txt", "YAML file"), ("my site.yaml", "letters, digits")])
def test_names_that_are_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        main(["new", "--bids", str(tmp_path), str(tmp_path / name)])


def test_a_folder_without_pairs(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(SiteError, match="could belong together"):
        guess_site(tmp_path, "mine")
