"""Faults that single data sets really have, each met with the policy that its adapter's docstring states."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from site_adapters import LIKES, SITES, ds002338, ds002725, ds003768, ds006040
from xsite.data.bids import pair_files
from xsite.data.pairing import Pairing
from xsite.data.prepare import prepare_recording
from xsite.errors import RecordingError
from xsite.phantom.like import LikeRun, LikeTruth, write_like
from xsite.recording import Recording, RecordingKey
from xsite.signals.parcels import load_atlas
from xsite.site import Site

Chosen = Callable[[LikeRun], bool]


def written(name: str, out: Path, wanted: Chosen, volumes: int = 10) -> tuple[Path, Pairing, list[LikeTruth]]:
    """A phantom of some runs of a site, from its facts, and what the adapter finds in it."""
    like = LIKES[name]
    few = replace(like, runs=lambda folder: [run for run in like.runs(folder) if wanted(run)])
    truths = write_like(few, out, max_volumes=volumes)
    return out / name, pair_files(out / name, like.site), truths


def prepared(out: Path, pairing: Pairing, site: Site) -> Recording:
    atlas = load_atlas(out / "atlas" / "phantom-16.nii.gz")
    return prepare_recording(site=site, files=pairing.recordings[0], atlas=atlas)


@pytest.mark.parametrize(
    ("name", "folder"),
    [(name, name) for name in ("ds002338", "ds002158", "ds002725", "ds003768", "ds006040")],
)
def test_expected_recordings_are_those_of_the_published_list_of_files(
    name: str, folder: str, shared_data: Callable[[str], Path]
) -> None:
    runs = LIKES[name].runs(shared_data(f"sites/{folder}"))
    usable = [run for run in runs if run.paired and "by hand" not in run.reason]
    assert len(usable) == SITES[name].expected.recordings
    assert len({run.key.subject for run in usable}) == SITES[name].expected.subjects
    assert len({str(run.key) for run in runs}) == len(runs)


def test_ds002338_parcels_below_the_half_brain_are_missing_and_named(tmp_path: Path) -> None:
    _, pairing, _ = written("ds002338", tmp_path, lambda run: run.key.task == "1dNF" and run.paired, 20)
    got = prepared(tmp_path, pairing, SITES["ds002338"])
    missing = [
        label for label, column in zip(got.parcellation.labels, got.bold.T, strict=True) if np.isnan(column).all()
    ]
    assert missing == got.provenance["bold"]["parcels_missing"]
    assert 1 <= len(missing) < len(got.parcellation.labels)
    assert np.isfinite(got.bold).any(axis=0).sum() == len(got.parcellation.labels) - len(missing)


def test_ds002338_task_comes_from_the_file_name_not_from_the_sidecar(
    tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    real = shared_data("sites/ds002338")
    assert '"1dNF_run-01"' in (real / "task-1dNF_eeg.json").read_text()
    write_like(ds002338.LIKE, tmp_path, sidecars=real, subjects=1, max_volumes=10, max_runs=1)
    found = pair_files(tmp_path / "ds002338", SITES["ds002338"]).recordings
    assert [files.key.entities for files in found] == ["sub-xp201_task-1dNF_run-01"]


def test_ds002338_corrected_eeg_has_a_prefix_before_its_subject(tmp_path: Path) -> None:
    like = LIKES["ds002338_pp"]
    write_like(like, tmp_path, subjects=1, max_volumes=20, max_runs=1)
    assert like.site.find_recordings is not None
    found = like.site.find_recordings(tmp_path / "ds002338_pp", like.site)
    assert found[0].eeg.name.startswith("d_sub-xp201_")
    assert found[0].key.subject == "xp201"


def test_ds002158_foreign_fmriprep_folder_rejected_runs_and_channel_names(tmp_path: Path) -> None:
    root, pairing, _ = written("ds002158", tmp_path, lambda run: run.key.subject == "02" and run.key.run == "001", 20)
    assert list(root.glob("derivatives/fmriprep/sub-02/ses-001/func/*_preproc.nii"))
    assert [files.bold.relative_to(root).parts[1] for files in pairing.recordings] == ["fmriprep-own"]
    assert {reason for path, reason in pairing.unpaired.items() if path.parent.name.startswith("reject")} == {
        "set aside by the authors in rejected/",
        "set aside by the authors in reject/",
    }
    assert not [path for path in pairing.unpaired if path.name.startswith("._")]
    assert not [*root.rglob("*_channels.tsv"), *root.rglob("*_eeg.json")]
    got = prepared(tmp_path, pairing, SITES["ds002158"])  # names stand in the header alone
    assert set(got.ch_names) == set(LIKES["ds002158"].ch_names) - {"ECG"}


def test_ds002725_relay_that_keeps_the_tr_is_not_taken_for_the_scanner(tmp_path: Path) -> None:
    root, pairing, truths = written("ds002725", tmp_path, lambda run: run.key.task == "washout", 30)
    assert filecmp.cmp(*sorted(root.glob("sub-01/*/*_events.tsv")), shallow=False)  # one clock for eeg/ and func/
    got = prepared(tmp_path, pairing, SITES["ds002725"])
    np.testing.assert_allclose(got.volume_onsets, truths[0].triggers_V, atol=1e-3)
    relay = replace(SITES["ds002725"], volume_marker=ds002725.RELAY, decoys=())
    with pytest.raises(RecordingError, match="at most 2 extra markers"):
        prepared(tmp_path, pairing, relay)


def test_ds002725_corrected_eeg_with_four_triggers_too_few_is_refused(tmp_path: Path) -> None:
    """Without an artifact nothing tells at which end the volumes without a trigger are."""
    like = LIKES["ds002725"]
    runs = [run for run in like.runs(None) if run.triggers == "four-missing"]
    write_like(replace(like, runs=lambda _: runs, gradient=False), tmp_path, max_volumes=20)
    pairing = pair_files(tmp_path / "ds002725", like.site)
    with pytest.raises(RecordingError, match=r"4 marker\(s\) fewer than volumes"):
        prepared(tmp_path, pairing, like.site)


def test_ds002725_triggers_of_the_real_tables(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("sites/ds002725/sub-01/eeg")
    hole = np.diff(ds002725.triggers(folder / "sub-01_task-genMusic01_events.tsv"))
    assert (len(hole) + 1, hole.argmax(), round(float(hole.max()))) == (279, 4, 126)
    assert len(ds002725.triggers(folder / "sub-01_task-classicalMusic_events.tsv")) == 930


def test_ds003768_t_r_of_a_float32_header_and_sleep_stages(tmp_path: Path) -> None:
    root, pairing, _ = written("ds003768", tmp_path, lambda run: run.key.subject == "01" and run.key.task == "rest", 20)
    assert not [path for path in root.glob("sub-*/eeg/*") if path.suffix in (".json", ".tsv")]
    header = nib.load(next(root.glob("sub-01/func/*_bold.nii.gz"))).header
    assert float(header.get_zooms()[3]) != 2.1
    got = prepared(tmp_path, pairing, SITES["ds003768"])
    assert got.t_r == 2.1
    assert got.provenance["bold"]["sleep_stages"] == ["W", "1"]


def test_ds003768_sleep_stages_of_the_real_tables(shared_data: Callable[[str], Path]) -> None:
    root = shared_data("sites/ds003768")
    stages = {
        subject: ds003768.sleep_stages(root, RecordingKey("ds003768", subject, task="rest", run="1"))
        for subject in ("01", "16", "02")
    }
    assert stages["01"][:4] == ["2", "2", "2", "2"]
    assert stages["16"][:3] == ["2", "2", "1"]  # a table without the column of subjects
    assert stages["02"] == []  # no table at hand


def test_ds006040_run_01_and_the_hidden_subject_are_paired(tmp_path: Path) -> None:
    root, pairing, _ = written("ds006040", tmp_path, lambda run: run.key.subject in ("015", "024", "025"))
    assert "sub-024/eeg" in (root / ".bidsignore").read_text()
    assert [(files.key.entities, files.bold.name.partition("_space")[0]) for files in pairing.recordings] == [
        ("sub-015_task-CB_run-1", "sub-015_task-CB_run-01"),
        ("sub-024_task-CB_run-1", "sub-024_task-CB_run-1"),
    ]
    by_hand = [reason for path, reason in pairing.unpaired.items() if "sub-025" in path.name]
    assert by_hand[0].endswith(ds006040.BY_HAND)
    table = pairing.recordings[0].confounds
    assert table is not None
    assert table.parent == root / "derivatives" / "sub-015" / "func"
    assert "n/a" in table.read_text().splitlines()[1]  # the first row of fMRIPrep's derivatives of time


def test_ds006040_number_of_volumes_by_subject_and_task() -> None:
    volumes = {run.key.entities: run.n_volumes for run in ds006040.like_runs(None) if run.bold}
    assert volumes["sub-024_task-CB_run-1"] == 184
    assert volumes["sub-001_task-GRAD_run-1"] == 190
