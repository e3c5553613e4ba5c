"""Faults of the heterogeneity catalogue that no room of the platform owns; ``test_catalogue.py`` lists all of them."""

from __future__ import annotations

from pathlib import Path

import mne
import numpy as np
import pytest
from published import N_CHANS, write_brainvision, write_eeg, write_image
from small_site import small_atlas, small_site, write_recording_files

from site_adapters import natview
from xsite.data.bids import find_recordings, pair_files, read_eeg
from xsite.data.exclusion import exclusion_reasons
from xsite.data.markers import marker_onsets
from xsite.data.prepare import prepare_recording
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain, write_like
from xsite.phantom.like.formats import WRITERS, Signal
from xsite.phantom.like.plan import EegFormat
from xsite.recording import Recording, RecordingKey
from xsite.signals.parcels import load_atlas
from xsite.site import RecordingFiles, Site


def generic(**facts: object) -> Site:
    common = {"name": "generic", "sfreq": 1000.0, "t_r": 2.0, "line_freq": 50.0, "volume_marker": "R128"}
    return Site(**(common | {"bold_space": "template"} | facts))  # type: ignore[arg-type]


def at(eeg: Path) -> RecordingFiles:
    return RecordingFiles(RecordingKey("generic", "01", task="rest"), eeg, eeg)


def signal(rng: np.random.Generator, samples: np.ndarray, text: str = "Response/R128") -> tuple[Signal, np.ndarray]:
    """Three channels of 4 s at 250 Hz with markers at known samples."""
    rows_CN = rng.normal(0, 20, (3, 1000)).astype(np.float32)
    rows = zip(("Fz", "Cz", "Pz"), rows_CN, strict=True)
    markers = [(float(sample) / 250, text) for sample in samples]
    return Signal(("Fz", "Cz", "Pz"), ("eeg",) * 3, rows, 1000, 250.0, markers), rows_CN


def phantom(out: Path, *, gradient: bool, lead_s: float = 20.0, session: str = "", **facts: object) -> Recording:
    """One prepared recording of a small phantom site."""
    site = Site("small", 1000.0, 2.0, 50.0, "R128", ch_types={"ECG": "ecg"}, reference="FCz", **facts)  # type: ignore[arg-type]
    key = RecordingKey("small", "01", session, "rest")
    folder = f"sub-01/ses-{session}" if session else "sub-01"
    eeg, bold = f"{folder}/eeg/{key.entities}_eeg.vhdr", f"{folder}/func/{key.entities}_bold.nii.gz"
    protocol = ((2.0, "Stimulus/S 99"), (22.0, "Stimulus/S  2"))
    run = LikeRun(key, eeg, bold, 24, lead_s=lead_s, protocol=protocol)
    trains = (MarkerTrain("Response/R128"),) if site.volume_marker else ()
    like = LikeSite(site, lambda _: [run], ("Fz", "Cz", "Pz", "Oz", "ECG"), trains=trains, gradient=gradient)
    (truth,) = write_like(like, out)
    (files,) = find_recordings(out / "small", site)
    got = prepare_recording(site=site, files=files, atlas=load_atlas(out / "atlas" / "phantom-16.nii.gz"))
    first, beyond = truth.kept
    error_s = got.volume_onsets - got.provenance["alignment"]["start_time"] - truth.triggers_V
    assert np.abs(error_s[first:beyond]).max() < 1e-3  # one sample of the published EEG
    return got


def test_item_5_a_set_file_that_names_another_data_file(tmp_path: Path, rng: np.random.Generator) -> None:
    """UNAM: the structure names the file of an earlier export; the one beside it is read."""
    made, rows_CN = signal(rng, np.array([100]))
    path = tmp_path / "sub-01_task-rest_eeg.set"
    WRITERS["eeglab-fdt"](path, Signal(**{**vars(made), "options": {"datfile": "export_v1.fdt"}}))
    raw = read_eeg(at(path), generic(sfreq=250.0))
    np.testing.assert_allclose(1e6 * raw.get_data(), rows_CN, atol=1e-3)


def test_item_6_an_inherited_sidecar_is_not_a_run_without_its_image(tmp_path: Path) -> None:
    """ds004478: a sidecar for all runs of a subject, beside one for each; the download is complete."""
    write_eeg(tmp_path / "sub-01/eeg/sub-01_task-checker_run-01_eeg.vhdr", ("Response/R128",) * 8)
    image = write_image(tmp_path / "sub-01/func/sub-01_task-checker_run-01_bold.nii.gz")
    image.with_name("sub-01_task-checker_bold.json").write_text('{"RepetitionTime": 2.0}')
    pairing = pair_files(tmp_path, generic())
    assert len(pairing.recordings) == 1
    assert pairing.unpaired == {}
    image.with_name("sub-01_task-checker_run-02_bold.json").write_text('{"RepetitionTime": 2.0}')
    (reason,) = pair_files(tmp_path, generic()).unpaired.values()
    assert "complete the download" in reason


def test_item_12_the_file_decides_which_channels_there_are(tmp_path: Path) -> None:
    """ds002725 counts 30 EEG channels of 31, ds003574 no ECG of two, and tables list channels that no file holds."""
    paths = write_recording_files(tmp_path, sidecar=None)
    eeg = paths["eeg"]
    eeg.with_name("sub-01_task-rest_eeg.json").write_text(
        '{"SamplingFrequency": 500, "EEGChannelCount": 12, "ECGChannelCount": 2, "ECGChannelCount": 0}'
    )
    names = ["FP1", "FP2", "GHOST1", "ECG", "GHOST2"]
    rows = [f"{name}\t{'ECG' if name == 'ECG' else 'EEG'}\tuV" for name in names]
    eeg.with_name("sub-01_task-rest_channels.tsv").write_text("\n".join(["name\ttype\tunits", *rows]) + "\n")
    (files,) = find_recordings(tmp_path, small_site())
    recording = prepare_recording(site=small_site(), files=files, atlas=small_atlas(tmp_path))
    assert len(recording.ch_names) == 13  # twelve by the count, of 14 in the file one is the ECG
    assert not {"GHOST1", "GHOST2", "ECG"} & set(recording.ch_names)
    assert "'ECGChannelCount' is given twice" in str(recording.provenance["sidecar_faults"])


@pytest.mark.parametrize(
    ("unit", "volt", "kind"),
    [
        ("\u00b5V", 1e-6, "eeg"),
        ("uV", 1e-6, "eeg"),
        ("mV", 1e-3, "eeg"),
        ("V", 1.0, "eeg"),
        ("", 1e-6, "eeg"),  # the format's default
        ("\u00b5S", 1e-6, "misc"),  # skin conductance: never EEG
        ("unknown", 1.0, "misc"),
        ("\u03bcV", 1.0, "misc"),  # MNE knows the micro sign only: 50 V, which preparation refuses with the factor
    ],
)
def test_item_15_spellings_of_units_in_headers(tmp_path: Path, unit: str, volt: float, kind: str) -> None:
    path = write_brainvision(tmp_path / "sub-01_task-rest_eeg.vhdr")
    text = path.read_text(encoding="utf-8").replace("[Common Infos]\n", "[Common Infos]\nCodepage=UTF-8\n")
    first, second = text.split("Ch2=")
    path.write_text(first.replace("\u00b5V", unit) + "Ch2=" + second, encoding="utf-8")
    samples = np.full((20000, N_CHANS), 100, "<i2")
    path.with_suffix(".eeg").write_bytes(samples.tobytes())
    with mne.utils.use_log_level("error"):
        raw = read_eeg(at(path), generic(volume_marker=None))
    assert raw.get_channel_types() == [kind, "eeg"]
    np.testing.assert_allclose(raw.get_data()[:, 0], [50 * volt, 50e-6])  # half a unit per bit


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("Response/R128", "R128"),
        ("Stimulus/S128", "S128"),  # BCGNet
        ("Scanner/Scan Start", "Scan Start"),  # NODDI
        ("Volume/V  1", "V  1"),  # two blanks inside
        ("Volume/V  1", "Volume/V 1"),
        ("Toggle/T  1", "Toggle/T  1"),  # the laboratory's own type
        ("MRI_trigger", "MRI_trigger"),  # ds003574
        ("10", "10"),  # ds002725
    ],
)
@pytest.mark.parametrize("eeg_format", ["brainvision", "edf", "eeglab"])
def test_item_17_every_spelling_of_a_volume_marker_is_found(
    tmp_path: Path, rng: np.random.Generator, eeg_format: EegFormat, written: str, wanted: str
) -> None:
    """In the header, where pairing counts markers, and when the file is read; ``Sync On`` is never among them."""
    if eeg_format != "brainvision":  # these formats keep no type
        wanted = wanted.rpartition("/")[2]
    elif "/" not in written:
        written = f"Stimulus/{written}"
    made, _ = signal(rng, np.array([250, 500, 750]), written)
    made = Signal(**{**vars(made), "markers": sorted([*made.markers, (0.4, "SyncStatus/Sync On")])})
    suffix = {"brainvision": ".vhdr", "edf": ".edf", "eeglab": ".set"}[eeg_format]
    path = tmp_path / "sub-01" / "eeg" / f"sub-01_task-rest_eeg{suffix}"
    path.parent.mkdir(parents=True)
    WRITERS[eeg_format](path, made)
    write_image(tmp_path / "sub-01/func/sub-01_task-rest_bold.nii.gz", 3)
    site = generic(sfreq=250.0, t_r=1.0, volume_marker=wanted)
    pairing = pair_files(tmp_path, site)
    assert pairing.evidence == {"sub-01_task-rest": f"3 x {wanted}"}
    raw = read_eeg(pairing.recordings[0], site)
    np.testing.assert_allclose(marker_onsets(raw, wanted), [1.0, 2.0, 3.0], atol=1e-3)


def test_item_20_eeg_cut_after_the_scan_had_begun(tmp_path: Path) -> None:
    """XP1's corrected EEG begins with the first S 99, 2 s into the scan: the first volume has no EEG."""
    policy = {"scan_marker": "S 99", "scan_start": -2.0}
    got = phantom(tmp_path, gradient=False, lead_s=-2.0, **policy)
    assert got.volume_valid.tolist() == [False] + [True] * 23


def test_item_21_onsets_from_the_first_task_marker_clipped_to_zero(tmp_path: Path, rng: np.random.Generator) -> None:
    """NATVIEW: ``onset`` counts from a task marker and is 0 before it; ``sample`` is absolute."""
    made, _ = signal(rng, np.array([]))
    path = tmp_path / "sub-01_ses-01_task-rest_eeg.set"
    WRITERS["eeglab"](path, made)
    rows = ["onset\tduration\tsample\ttrial_type"]
    rows += [f"{max(sample - 500, 0) / 250:.3f}\t0\t{20 * sample}\tR128" for sample in (200, 450, 700)]
    path.with_name("sub-01_ses-01_task-rest_events.tsv").write_text("\n".join(rows) + "\n")
    raw = natview.read_eeg(at(path), natview.SITE)  # samples at 5 kHz, file at 250 Hz
    np.testing.assert_allclose(marker_onsets(raw, "R128"), [0.8, 1.8, 2.8], atol=1e-9)


@pytest.mark.parametrize("eeg_format", ["brainvision", "eeglab"])
def test_item_21_samples_that_count_from_one(tmp_path: Path, rng: np.random.Generator, eeg_format: EegFormat) -> None:
    """Both formats call the first sample 1; a marker on sample 0 is at 0 s, not a sample later."""
    samples = np.array([0, 1, 250, 999])
    path = tmp_path / f"sub-01_task-rest_eeg{'.vhdr' if eeg_format == 'brainvision' else '.set'}"
    WRITERS[eeg_format](path, signal(rng, samples)[0])
    raw = read_eeg(at(path), generic(sfreq=250.0))
    np.testing.assert_allclose(250 * marker_onsets(raw, "R128"), samples, atol=1e-6)


def test_item_21_each_session_has_its_own_offset(tmp_path: Path) -> None:
    """The EEG starts 20 s before one scan and 3.6 s before the other: nothing is carried over from file to file."""
    for session, lead_s in (("01", 20.0), ("02", 3.6)):
        got = phantom(tmp_path / session, gradient=True, lead_s=lead_s, session=session, eeg_state="raw")
        assert abs(got.volume_onsets[0] - got.provenance["alignment"]["start_time"] - lead_s) < 1e-3


def test_item_23_one_sample_more_than_the_sidecar_says(tmp_path: Path) -> None:
    paths = write_recording_files(tmp_path)
    (files,) = find_recordings(tmp_path, small_site())
    n_times = read_eeg(files, small_site()).n_times
    facts = '{"SamplingFrequency": 500, "RecordingDuration": %.4f}' % ((n_times - 1) / 500)
    paths["eeg"].with_name("sub-01_task-rest_eeg.json").write_text(facts)
    recording = prepare_recording(site=small_site(), files=files, atlas=small_atlas(tmp_path))
    assert recording.eeg.shape[1] == round(n_times / 500 * 200)
    assert recording.volume_valid.all()


def test_item_24_several_states_of_one_run_side_by_side(tmp_path: Path) -> None:
    """ds006040, XP1: the same run raw and corrected; derivatives are read only where a site asks for them."""
    name = "sub-01_task-rest_eeg.vhdr"
    own = write_eeg(tmp_path / "sub-01" / "eeg" / name, ("Response/R128",) * 8)
    corrected = write_eeg(tmp_path / "derivatives" / "sub-01" / "eeg" / name, ("Response/R128",) * 8)
    write_image(tmp_path / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    assert [files.eeg for files in pair_files(tmp_path, generic()).recordings] == [own]
    asked = pair_files(tmp_path, generic(), eeg_under="derivatives")
    assert [files.eeg for files in asked.recordings] == [corrected]


def test_item_24_raw_that_was_corrected_is_never_ok(tmp_path: Path) -> None:
    """Called raw, without an artifact: nothing confirms the markers, and the correction that was not needed shows."""
    got = phantom(tmp_path, gradient=False, eeg_state="raw")
    assert got.provenance["alignment"]["verdict"] == "unverified"
    assert got.quality["gradient_harmonics_before_db"] < 15  # a real artifact has some 45 dB
    assert 5 < np.median(got.eeg.std(1)) < 60


@pytest.mark.parametrize(("gradient", "reasons"), [(True, 1), (False, 0)])
def test_item_24_the_artifact_in_corrected_eeg_excludes(tmp_path: Path, gradient: bool, reasons: int) -> None:
    """Called clean, with the artifact inside: stored, and not for training."""
    got = phantom(tmp_path, gradient=gradient, eeg_state="clean")
    found = exclusion_reasons(got.provenance, got.quality, len(got.ch_names))
    assert len(found) == reasons
    assert all("holds the gradient artifact, but the site says eeg_state: clean" in reason for reason in found)
