"""Phantoms of real sites: formats, faults, coupling, sidecars from facts, and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import mne
import numpy as np
import pytest
from scipy.io import loadmat
from scipy.signal import hilbert

from jobs import cli
from jobs.phantom import main
from site_adapters import LIKES, get_like
from xsite.data.bids import find_recordings, pair_files
from xsite.data.prepare import prepare_recording
from xsite.errors import FormatError, RecipeError, SiteError
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain, write_like
from xsite.phantom.like.folder import like_from_folder
from xsite.phantom.like.formats import WRITERS, Signal
from xsite.phantom.like.plan import TRIGGER_FAULTS, FileFault, TriggerFault
from xsite.phantom.like.timing import damaged
from xsite.phantom.sources import bold_series, hrf
from xsite.recording import RecordingKey
from xsite.signals.parcels import load_atlas
from xsite.site import Site

SFREQ, N_SAMPLES = 500.0, 2000
CH_NAMES = ("Fz", "Cz", "ECG")
MARKERS = ((0.5, "Response/R128"), (2.5, "Response/R128"), (3.001, "Stimulus/S  2"))
SUFFIXES = {
    "brainvision": ".vhdr",
    "brainvision-float32": ".vhdr",
    "edf": ".edf",
    "eeglab": ".set",
    "eeglab-fdt": ".set",
}
READERS = {".vhdr": mne.io.read_raw_brainvision, ".edf": mne.io.read_raw_edf, ".set": mne.io.read_raw_eeglab}


def signal(rng: np.random.Generator, ch_names: tuple[str, ...] = CH_NAMES, **more: object) -> tuple[Signal, np.ndarray]:
    rows_CN = rng.normal(0, 20, (len(ch_names), N_SAMPLES)).astype(np.float32)
    kinds = tuple("ecg" if name == "ECG" else "eeg" for name in ch_names)
    made = Signal(ch_names, kinds, zip(ch_names, rows_CN, strict=True), N_SAMPLES, SFREQ, MARKERS, **more)  # type: ignore[arg-type]
    return made, rows_CN


@pytest.mark.parametrize("eeg_format", SUFFIXES)
def test_formats_read_back(eeg_format: str, tmp_path: Path, rng: np.random.Generator) -> None:
    positions = {"Fz": np.array([0.0, 0.07, 0.07]), "Cz": np.array([0.0, 0.0, 0.1])}
    made, rows_CN = signal(rng, positions=positions)
    path = tmp_path / f"x{SUFFIXES[eeg_format]}"
    WRITERS[eeg_format](path, made)  # type: ignore[index]
    raw = READERS[path.suffix](path, preload=True, verbose="error")
    assert tuple(raw.ch_names) == CH_NAMES
    assert (raw.info["sfreq"], raw.n_times) == (SFREQ, N_SAMPLES)
    np.testing.assert_allclose(raw.get_data() * 1e6, rows_CN, atol=0.26)
    found = [a for a in raw.annotations if "R128" in a["description"] or "S  2" in a["description"]]
    np.testing.assert_allclose([a["onset"] for a in found], [onset for onset, _ in MARKERS], atol=1.01 / SFREQ)


def test_mat_holds_no_names(tmp_path: Path, rng: np.random.Generator) -> None:
    made, rows_CN = signal(rng, options={"variable": "Y", "scale": 1e-6, "fs": 500.0})
    WRITERS["mat"](tmp_path / "x.mat", made)
    content = loadmat(tmp_path / "x.mat")
    np.testing.assert_allclose(content["Y"], rows_CN * 1e-6, rtol=1e-5)
    assert float(content["fs"].item()) == 500.0


def test_tsv_holds_time_then_signal_two_values_a_line(tmp_path: Path, rng: np.random.Generator) -> None:
    made, rows_CN = signal(rng, ("Oz",))
    WRITERS["tsv-pairs"](tmp_path / "x.tsv", made)
    table = np.loadtxt(tmp_path / "x.tsv")
    assert table.shape == (N_SAMPLES, 2)
    np.testing.assert_allclose(np.split(table.ravel(), 2)[1], rows_CN[0], rtol=1e-4)


@pytest.mark.parametrize("fault", TRIGGER_FAULTS)
def test_trigger_faults(fault: TriggerFault, rng: np.random.Generator) -> None:
    triggers = 10 + 2.0 * np.arange(50)
    shown = damaged(triggers, fault, 2.0, rng)
    change = {
        "": 0,
        "none": -50,
        "first-missing": -1,
        "one-missing": -1,
        "last-missing": -1,
        "hole": -10,
        "four-missing": -4,
    }
    change |= {"extra-start": 1, "extra-end": 1, "four-missing": -4}
    if fault == "irregular":
        assert len(shown) < 50
        assert np.diff(shown).std() > 0.1
    else:
        assert len(shown) - 50 == change[fault]


def small_like(triggers: TriggerFault = "", file: FileFault = "", **facts: object) -> LikeSite:
    site = Site("small", 250.0, 2.0, 50.0, "R128", ch_types={"ECG": "ecg"}, reference="FCz")
    key = RecordingKey("small", "01", task="rest")
    stem = f"sub-01/{{}}/{key.entities}"
    eeg, bold = stem.format("eeg") + "_eeg.vhdr", stem.format("func") + "_bold.nii.gz"
    run = LikeRun(key, eeg, bold, 24, lead_s=20.0, triggers=triggers, file=file)
    return LikeSite(site, lambda _: [run], CH_NAMES, trains=(MarkerTrain("Response/R128"),), resolution_uv=0.1, **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize("file", ["eeg-pointer", "bold-pointer", "no-eeg-data", "eeg-ragged"])
def test_damaged_files_are_never_read(file: FileFault, tmp_path: Path) -> None:
    like = small_like(file=file)
    write_like(like, tmp_path)
    pairing = pair_files(tmp_path / "small", like.site)
    for files in pairing.recordings:
        with pytest.raises(FormatError):
            prepare_recording(site=like.site, files=files, atlas=load_atlas(tmp_path / "atlas" / "phantom-16.nii.gz"))
    assert pairing.recordings or pairing.unpaired


def test_published_image_is_in_the_scanners_space(tmp_path: Path) -> None:
    """Without fMRIPrep's output beside it, a raw data set is refused; its header carries the site's own TR."""
    like = small_like(derivatives=False, nifti_t_r=(2000.0, "msec"))
    write_like(like, tmp_path / "template")
    assert len(find_recordings(tmp_path / "template" / "small", like.site)) == 1
    like = small_like(nifti_t_r=(2000.0, "msec"))
    write_like(like, tmp_path)
    for path in (tmp_path / "small" / "derivatives" / "fmriprep").rglob("*space-MNI*"):
        path.unlink()
    with pytest.raises(SiteError, match="scanner's space"):
        find_recordings(tmp_path / "small", like.site)


def test_eeg_and_bold_are_coupled(tmp_path: Path) -> None:
    """Occipital alpha power, through the haemodynamic response, follows the cuneus' noise-free BOLD with its sign."""
    like = LIKES["noddi"]
    truth = write_like(like, tmp_path, subjects=1, max_volumes=100)[0]
    root = tmp_path / "noddi"
    raw = mne.io.read_raw_brainvision(root / str(truth.run.eeg), preload=True, verbose="error").pick(["O1", "O2", "Oz"])
    raw.filter(8, 12, verbose="error")
    power_T = np.log(np.abs(hilbert(raw.get_data()))).mean(0)
    seconds = 10.0 * np.arange(int(truth.duration_s * 10)) / 100
    drive = np.interp(seconds, raw.times, power_T)
    padded = np.r_[np.full(400, drive.mean()), drive]  # the drive starts 40 s before the EEG
    times_V = truth.triggers_V + like.site.t_r / 2
    predicted_V = bold_series(padded[None] - drive.mean(), hrf(), times_V)[0]
    table = next(root.rglob("*_desc-noisefree_timeseries.tsv")).read_text().splitlines()
    series_VR = np.array([row.split("\t") for row in table[1:]], float)
    r = np.corrcoef(predicted_V[10:], series_VR[10:, table[0].split("\t").index("Cuneus")])[0, 1]
    assert r < -0.4


def test_folder_of_an_unknown_site(tmp_path: Path) -> None:
    folder = tmp_path / "facts"
    (folder / "sub-07" / "eeg").mkdir(parents=True)
    (folder / "sub-07" / "func").mkdir()
    (folder / "site.yaml").write_text(
        "{name: mine, sfreq: 500, t_r: 1.5, line_freq: 50, volume_marker: 'Volume/V  1', task_pairs: {GRADON: GRAD}}"
    )
    (folder / "sub-07/eeg/sub-07_task-GRADON_eeg.json").write_text('{"TaskName": "GRADON"}')
    (folder / "sub-07/eeg/sub-07_task-GRADON_channels.tsv").write_text("name\ttype\nFP1\tEEG\nO2\tEEG\nCz\tEEG\n")
    (folder / "sub-07/func/sub-07_task-GRAD_bold.json").write_text('{"RepetitionTime": 1.5}')
    like = like_from_folder(folder)
    assert like.ch_names == ("FP1", "O2", "Cz")
    truths = write_like(like, tmp_path / "out", sidecars=folder, max_volumes=30)
    files = find_recordings(tmp_path / "out" / "mine", like.site)
    assert [str(one.key) for one in files] == [str(truth.run.key) for truth in truths] == ["mine/sub-07_task-GRAD"]
    got = prepare_recording(site=like.site, files=files[0], atlas=load_atlas(tmp_path / "out/atlas/phantom-16.nii.gz"))
    assert got.ch_names == ("Fp1", "O2", "Cz")
    assert got.volume_valid.all()


def test_folder_without_runs_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("{name: mine, sfreq: 500, t_r: 1.5, line_freq: 50, volume_marker: R128}")
    with pytest.raises(SiteError, match="no run"):
        like_from_folder(tmp_path)


def test_same_seed_same_files(tmp_path: Path) -> None:
    paths = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_like(small_like(), tmp_path / name, seed=seed)
        paths.append((tmp_path / name / "small/sub-01/eeg/sub-01_task-rest_eeg.eeg").read_bytes())
    assert paths[0] == paths[1] != paths[2]


def test_numbers_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at least one subject"):
        write_like(small_like(), tmp_path, subjects=0)
    write_like(small_like(), tmp_path)
    with pytest.raises(RecipeError, match="exists already"):
        write_like(small_like(), tmp_path)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--like", "noddi", str(tmp_path), "--subjects", "1", "--volumes", "20"]) == 0
    said = capsys.readouterr().out
    assert "1 recording, 0 runs" in said
    truth = json.loads((tmp_path / "noddi.truth.json").read_text())
    assert len(truth["noddi/sub-32_task-rest"]["triggers"]) == 20
    assert cli.run_job(main, ["--like", "nodi", str(tmp_path / "x")]) == 2
    assert "did you mean 'noddi'" in capsys.readouterr().err


def test_unknown_site() -> None:
    with pytest.raises(SiteError, match="Known: ds002336"):
        get_like("zzz")
