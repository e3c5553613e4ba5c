"""A phantom consortium on disk: genuine BIDS, readable by everybody, repeatable, all or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import mne
import mne_bids
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from jobs import phantom as job
from jobs.cli import run_job
from site_adapters.phantom_sites import phantom_sites
from xsite.data.bids import find_recordings
from xsite.data.prepare import prepare_recording
from xsite.data.site_file import load_site
from xsite.errors import RecipeError, SiteError, StoreError
from xsite.phantom import sites as sites_module
from xsite.phantom.consortium import Consortium, generate_consortium
from xsite.phantom.oracle import oracle_r
from xsite.recording import Recording
from xsite.signals.parcels import load_atlas

MINUTES = 1.5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    """Four sites, one subject each."""
    out = tmp_path_factory.mktemp("phantom") / "consortium"
    return generate_consortium(out, n_sites=4, n_subjects=1, minutes=MINUTES, seed=7)


@pytest.fixture(scope="module")
def prepared(made: Consortium) -> dict[str, Recording]:
    """The one recording of every site in the shared format."""
    assert made.atlas is not None
    atlas = load_atlas(made.atlas)
    found = {}
    for name, site in phantom_sites(made.root).items():
        (files,) = find_recordings(made.root / name, site)
        found[name] = prepare_recording(site=site, files=files, atlas=atlas)
    return found


def validator() -> str | None:
    beside = Path(sys.executable).with_name("bids-validator-deno")
    return str(beside) if beside.exists() else shutil.which("bids-validator-deno")


@pytest.mark.parametrize("below", ["", "derivatives/fmriprep", "derivatives/phantom"])
@pytest.mark.parametrize("site", ["siteA", "siteB", "siteC", "siteD"])
def test_bids_validator_reports_no_error(made: Consortium, site: str, below: str) -> None:
    program = validator()
    if program is None:
        pytest.skip("bids-validator-deno is not installed (pip install -e .[test])")
    # derivatives one by one: the validator's --recursive overlooks their .bidsignore
    call = [program, str(made.root / site / below), "--format", "json"]
    result = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [(issue["code"], issue.get("location")) for issue in issues if issue["severity"] == "error"] == []
    assert result.returncode == 0


def test_mne_bids_reads_every_site(made: Consortium) -> None:
    for site in made.sites:
        path = mne_bids.BIDSPath(subject="01", task="rest", datatype="eeg", suffix="eeg", root=made.root / site)
        raw = mne_bids.read_raw_bids(path, on_ch_mismatch="raise", verbose="ERROR")
        facts = load_site(made.root / "sites" / f"{site}.yaml")
        assert raw.info["sfreq"] == facts.sfreq
        assert raw.info["line_freq"] == facts.line_freq
        assert "ecg" in raw.get_channel_types()


def test_sites_keep_their_habits(made: Consortium) -> None:
    readable = (".vhdr", ".edf", ".set")
    formats = {
        site: [path.suffix for path in (made.root / site / "sub-01" / "eeg").iterdir() if path.suffix in readable]
        for site in made.sites
    }
    assert formats == {"siteA": [".vhdr"], "siteB": [".edf"], "siteC": [".set"], "siteD": [".vhdr"]}
    raw = mne.io.read_raw_brainvision(made.root / "siteA/sub-01/eeg/sub-01_task-rest_eeg.vhdr", verbose="ERROR")
    counts = pd.Series(raw.annotations.description).value_counts()
    n_volumes = round(MINUTES * 60 / 2.0)
    assert counts["Response/R128"] == n_volumes
    assert counts["SyncStatus/Sync On"] > n_volumes  # as plausible as it is wrong
    edf = mne.io.read_raw_edf(made.root / "siteB/sub-01/eeg/sub-01_task-rest_eeg.edf", verbose="ERROR")
    assert len(edf.annotations) == 0
    assert "FP1" in edf.ch_names
    old = mne.io.read_raw_eeglab(made.root / "siteC/sub-01/eeg/sub-01_task-rest_eeg.set", verbose="ERROR")
    assert {"T3", "T4", "T5", "T6"} <= set(old.ch_names)


def test_gradient_artifact_is_millivolts_locked_to_the_volumes(made: Consortium) -> None:
    raw = mne.io.read_raw_brainvision(made.root / "siteD/sub-01/eeg/sub-01_task-rest_eeg.vhdr", verbose="ERROR")
    starts = raw.annotations.onset[raw.annotations.description == "Response/R149"]
    data = raw.get_data(picks=["Cz"])[0] * 1e6
    first, n_volume = round(starts[0] * 5000), round(2.1 * 5000)
    assert np.abs(data[: first - 10]).max() < 200
    volumes = np.stack([data[round(s * 5000) : round(s * 5000) + n_volume] for s in starts])
    assert 500 < np.abs(volumes).max() < 16000
    assert volumes.mean(0).std() > 5 * (volumes - volumes.mean(0)).std()


def test_image_and_sidecars_agree(made: Consortium) -> None:
    for site in made.sites:
        func = made.root / site / "derivatives" / "fmriprep" / "sub-01" / "func"
        image = nib.load(next(func.glob("*_desc-preproc_bold.nii.gz")))
        facts = json.loads(next(func.glob("*_desc-preproc_bold.json")).read_text())
        confounds = pd.read_csv(next(func.glob("*_desc-confounds_timeseries.tsv")), sep="\t", na_values="n/a")
        assert image.header.get_zooms()[3] == pytest.approx(facts["RepetitionTime"])
        assert image.get_data_dtype() == np.int16
        assert image.header["sform_code"] == 4
        assert len(confounds) == image.shape[3]
        assert np.isnan(confounds["framewise_displacement"][0])
        assert facts["StartTime"] == pytest.approx(1.0 if site == "siteA" else 0.0)
        raw = json.loads((made.root / site / "sub-01/func/sub-01_task-rest_bold.json").read_text())
        assert len(raw["SliceTiming"]) == image.shape[2]
        assert max(raw["SliceTiming"]) < raw["RepetitionTime"]
        level = np.asarray(image.dataobj)[..., 0]
        assert 500 < level[level > 100].mean() < 2000


def test_oracle_of_the_files_equals_the_generators(made: Consortium, prepared: dict[str, Recording]) -> None:
    for site, recording in prepared.items():
        rows = made.oracle[made.oracle["site"] == site]
        assert tuple(rows["parcel"]) == recording.parcellation.labels
        assert oracle_r(recording) == pytest.approx(rows["oracle_r"].to_numpy(), abs=0.01)
        assert 0.6 < rows["oracle_r"].mean() < 0.95


def test_prepared_sites_are_alike_although_their_files_are_not(prepared: dict[str, Recording]) -> None:
    shared = set.intersection(*(set(r.ch_names) for r in prepared.values()))
    assert {"Fp1", "T7", "P8", "O1"} <= shared
    assert len(shared) >= 19
    for recording in prepared.values():
        usable = recording.eeg[:, recording.eeg_valid]
        assert 5 < np.median(usable.std(1)) < 60
        assert recording.volume_valid.all()
    verdicts = {site: recording.provenance["alignment"]["verdict"] for site, recording in prepared.items()}
    assert verdicts["siteA"] == "unverified"  # clean EEG: a lost first trigger would not show
    assert verdicts["siteC"] == "repaired"  # one marker too many, at the end by the site's word
    assert verdicts["siteD"] == "ok"  # its gradient artifact shows the first and the last volume
    assert prepared["siteD"].eeg_valid.mean() > 0.99  # every volume of the gradient artifact is corrected
    assert prepared["siteD"].quality["gradient_harmonics_before_db"] > 20
    assert prepared["siteD"].quality["gradient_harmonics_after_db"] < 6
    assert 0.9 < prepared["siteD"].quality["gradient_alpha_kept"] < 1.4
    facts = prepared["siteA"].provenance["alignment"]
    assert facts["start_time"] == pytest.approx(1.0)  # fMRIPrep's middle of the volume


def digest(folder: Path) -> dict[str, str]:
    skip = {".json", ".md"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in skip
    }


def test_same_seed_gives_the_same_bytes_and_more_subjects_change_nothing(made: Consortium, tmp_path: Path) -> None:
    again = generate_consortium(tmp_path / "more", n_sites=1, n_subjects=2, minutes=MINUTES, seed=7, n_jobs=2)
    first = {name: hash_ for name, hash_ in digest(made.root / "siteA").items() if "sub-01" in name}
    second = {name: hash_ for name, hash_ in digest(again.root / "siteA").items() if "sub-01" in name}
    assert len(first) >= 9
    for name in [name for name in first if "noisefree" in name]:  # a projection: its last digit depends on threads
        first.pop(name), second.pop(name)
        tables = [np.loadtxt(root / "siteA" / name, skiprows=1) for root in (made.root, again.root)]
        np.testing.assert_allclose(*tables, rtol=1e-4, atol=1e-4)
    assert first == second
    other = generate_consortium(tmp_path / "other", n_sites=1, n_subjects=1, minutes=MINUTES, seed=8)
    eeg = "siteA/sub-01/eeg/sub-01_task-rest_eeg.eeg"
    assert (other.root / eeg).read_bytes()[:100_000] != (made.root / eeg).read_bytes()[:100_000]


def test_a_foreign_or_different_folder_is_refused(made: Consortium, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RecipeError, match="not empty"):
        generate_consortium(tmp_path, n_sites=1, n_subjects=1)
    with pytest.raises(RecipeError, match="seed differ"):
        generate_consortium(made.root, n_sites=4, n_subjects=1, minutes=MINUTES, seed=8)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_same_call_completes_what_was_interrupted(tmp_path: Path) -> None:
    options = {"n_sites": 2, "n_subjects": 1, "minutes": 1.0}

    def interrupt(done: int, total: int, text: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_consortium(tmp_path / "out", **options, progress=interrupt)
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if "site" in p.name) == ["siteA", "sites"]
    before = (tmp_path / "out" / "siteA" / "README.md").stat().st_mtime_ns
    whole = generate_consortium(tmp_path / "out", **options)
    assert (tmp_path / "out" / "siteA" / "README.md").stat().st_mtime_ns == before
    assert set(whole.oracle["site"]) == {"siteA", "siteB"}
    assert not list((tmp_path / "out").glob(".*"))


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(sites_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StoreError, match="make room"):
        generate_consortium(tmp_path / "out", n_sites=1, n_subjects=1)
    assert not (tmp_path / "out").exists()


def test_adapter_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"consortium\.json is missing"):
        phantom_sites(tmp_path)


def test_job_writes_reports_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert job.main([str(out), "--sites", "1", "--subjects", "1", "--minutes", "1"]) == 0
    printed = capsys.readouterr().out
    assert "[1/1] siteA sub-01_task-rest" in printed
    assert "oracle R 0." in printed
    assert run_job(job.main, [str(out), "--sites", "9"]) == 2
    assert "between 1 and 8" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        job.main(["--help"])
    assert "example:" in capsys.readouterr().out
