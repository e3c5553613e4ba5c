"""The odd parts of the sites whose EEG is published in a form of its own, on real files where there are some."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from published import write_brainvision
from scipy.io import savemat

from site_adapters import ds000116, ds002734, ds002739, ds004478, ds005127, unam_egi
from xsite.data.confounds import read_confounds
from xsite.data.files import faults, numbers, read_json, read_tsv
from xsite.errors import AlignmentError, FormatError, SiteError
from xsite.recording import Float, RecordingKey
from xsite.site import RecordingFiles

FLICKER = {  # run: frequency in Hz, ratio on/off, correlation with the blocks (sites.md, section 4)
    "sub-01_run-01": (12.0, 8.0, 0.95),
    "sub-01_run-02": (12.0, 3.1, 0.81),
    "sub-01_run-03": (7.5, 8.2, 0.94),
    "sub-02_run-01": (12.0, 1.9, 0.57),
    "sub-02_run-02": (7.5, 3.0, 0.79),
    "sub-03_run-01": (7.5, 2.4, 0.70),
}


def files_at(eeg: Path, key: RecordingKey) -> RecordingFiles:
    return RecordingFiles(key, eeg, eeg.with_suffix(".nii.gz"))


def flicker(signal_T: Float, freq: float, blocks_s: list[tuple[float, float]]) -> tuple[float, float]:
    """Ratio on/off of the amplitude at the flicker frequency in windows of 2 s, and its correlation with the blocks."""
    width = 400
    windows = signal_T[: len(signal_T) // width * width].reshape(-1, width)
    spectrum = np.abs(np.fft.rfft((windows - windows.mean(1, keepdims=True)) * np.hanning(width)))
    amplitude = spectrum[:, round(2 * freq)]
    middle = 2.0 * np.arange(len(windows)) + 1.0
    on = np.any([(begin <= middle) & (middle < begin + lasts) for begin, lasts in blocks_s], axis=0)
    return float(amplitude[on].mean() / amplitude[~on].mean()), float(np.corrcoef(amplitude, on)[0, 1])


@pytest.mark.parametrize("run", FLICKER)
def test_ds004478_signal_follows_the_flicker_of_the_scan(run: str, shared_data: Callable[[str], Path]) -> None:
    subject, number = run.split("_run-")
    folder = shared_data(f"data/real/ds004478/{subject}/func")
    path = folder / f"{subject}_task-checker_run-{number}_eeg.tsv"
    files = files_at(path, RecordingKey("ds004478", subject[4:], task="checker", run=number))
    raw = ds004478.read_eeg(files, ds004478.SITE)
    assert (raw.ch_names, raw.info["sfreq"]) == (["occipital"], 200.0)
    signal_T = 1e6 * raw.get_data()[0]
    assert len(signal_T) == len(path.read_text().splitlines())
    freq, ratio, r = FLICKER[run]
    events = path.with_name(path.name.replace("_eeg", "_events"))
    table = numbers(read_tsv(events), ["onset", "duration"], events)
    found_ratio, found_r = flicker(signal_T, freq, list(table.itertuples(index=False, name=None)))
    assert found_ratio == pytest.approx(ratio, rel=0.1)
    assert found_r == pytest.approx(r, abs=0.07)  # the taper behind the table's numbers is not known


def test_ds004478_sidecars_with_a_comma_too_many(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("data/real/ds004478/sub-01/func/sub-01_task-checker_run-01_eeg.json")
    assert read_json(path)["SamplingFrequency"] == 200.0
    assert "comma too many" in faults(path)[0]


def test_a_table_of_time_and_signal_in_columns_is_not_taken_for_the_site_s_layout() -> None:
    table_L2 = np.c_[np.arange(1000) / 200, np.zeros(1000)]
    with pytest.raises(FormatError, match=r"sub-01_eeg\.tsv: the first half .* no time vector at 200 Hz"):
        ds004478.unravel(table_L2, 200.0, "sub-01_eeg.tsv")


def test_ds005127_sidecars_are_read_with_their_faults(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("sites/ds005127/sub-00002/ses-1")
    stem = "sub-00002_ses-1_task-sleep_run-20160531_2257.json"
    eeg, bold = folder / "eeg" / stem, folder / "func" / stem
    assert read_json(eeg)["RecordingDuration"] == 1584.08
    assert read_json(bold)["RepetitionTime"] == 3.0
    assert read_json(bold)["PulseSequenceDetails"].endswith("dezwart\\amri_ep2d_bold")
    assert "control character 0x10" in " ".join(faults(eeg))
    assert "bad escape" in " ".join(faults(bold))


def test_ds005127_every_run_has_a_key_of_its_own(shared_data: Callable[[str], Path]) -> None:
    runs = ds005127.like_runs(shared_data("sites/ds005127"))
    assert len({str(run.key) for run in runs}) == len(runs) == 411
    assert sum(run.eeg is not None for run in runs) == 234
    assert sum(run.file == "eeg-twice" for run in runs) == 5
    assert sum(run.paired for run in runs) == 229


def test_ds005127_volume_train_is_the_one_with_the_step_of_the_volumes() -> None:
    clock, volumes = 1.1 + 2.0 * np.arange(60), 4.0 + 3.0 * np.arange(40)
    trains = {"SyncStatus/Sync On": clock, "Response/R128": volumes, "New Segment/": np.zeros(1)}
    assert ds005127.volume_train(trains, 3.0, ("Sync On",), "x.vhdr") == "Response/R128"
    with pytest.raises(AlignmentError, match=r"0 marker trains have the step 3 s.*Sync On' x60 every 2\.0000 s"):
        ds005127.volume_train({"SyncStatus/Sync On": clock}, 3.0, ("Sync On",), "x.vhdr")
    with pytest.raises(AlignmentError, match="2 marker trains"):
        ds005127.volume_train(trains | {"Volume/V": volumes}, 3.0, ("Sync On",), "x.vhdr")


def test_ds005127_recording_with_twice_the_bytes_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "sub-00029" / "ses-1" / "eeg"
    path = write_brainvision(folder / "sub-00029_ses-1_task-sleep_run-20160518_0125.vhdr")
    path.with_suffix(".json").write_text(json.dumps({"RecordingDuration": 20.0, "EEGChannelCount": -1}))
    assert ds005127.twice_as_long(path) == ""
    data = path.with_suffix(".eeg")
    data.write_bytes(2 * data.read_bytes())
    assert "twice as long by its bytes (40.0 s) as its sidecar says (20.0 s)" in ds005127.twice_as_long(path)
    pairing = ds005127.pair(tmp_path, ds005127.SITE)
    assert not pairing.recordings
    assert "twice as long" in pairing.unpaired[path]


def test_ds000116_volt_after_the_gain_and_microvolt_are_told_by_the_file_s_name(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    samples_CN = 20.0 * rng.standard_normal((49, 3000))
    samples_CN[47:] = 0.0
    samples_CN[47, 1000:1200], samples_CN[48, 1500:1600] = 25.0, 5.0
    key, found = RecordingKey("ds000116", "01", task="auditoryoddball", run="01"), []
    for name, scale in (("EEG_noGA", 1.0), ("EEG_raw", 1e-6 * ds000116.GAIN)):
        path = tmp_path / f"{name}.mat"
        written = np.r_[scale * samples_CN[:47], samples_CN[47:]]
        savemat(path, {"data": written})
        raw = ds000116.read_eeg(files_at(path, key), ds000116.SITE)
        found.append(raw.get_data(picks="eeg"))
        assert list(raw.annotations.description) == ["event 48/25", "event 49/5"]
        np.testing.assert_allclose(raw.annotations.onset, [1.0, 1.5])
    assert found[0].shape == (43, 3000)
    np.testing.assert_allclose(found[0], 1e-6 * samples_CN[:43], rtol=1e-6)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    savemat(tmp_path / "EEG_noGA.mat", {"data": samples_CN[:36]})
    with pytest.raises(FormatError, match=r"0 matrices with 49 channels; variables: data \(36, 3000\)"):
        ds000116.read_eeg(files_at(tmp_path / "EEG_noGA.mat", key), ds000116.SITE)


def test_ds002739_first_volume_from_trials_on_both_clocks(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("sites/ds002739/sub-01/func/sub-01_task-main_run-01_events.tsv")
    table = read_tsv(path)
    onsets = numbers(table[table["trial_type"] == ds002739.STIMULUS], ["onset"], path)["onset"].to_numpy()
    assert len(onsets) == 158
    assert ds002739.first_volume(1e3 * (onsets + 23.217), onsets, "x.mat") == pytest.approx(23.217, abs=1e-6)
    exact = np.linspace(5.2584, 1540, 158)  # printed with five digits, as the table is
    printed = [float(f"{onset:.5g}") for onset in exact]
    assert ds002739.first_volume(1e3 * (exact + 23.217), printed, "x.mat") == pytest.approx(23.217, abs=1e-3)
    with pytest.raises(FormatError, match="do not fit each other"):
        ds002739.first_volume(onsets + 23.217, onsets, "x.mat")  # seconds
    with pytest.raises(FormatError, match="157 trials in the EEG's events, 158"):
        ds002739.first_volume(onsets[1:], onsets, "x.mat")


def test_ds002739_motion_stands_in_the_rows_of_the_events(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("sites/ds002739/sub-01/func/sub-01_task-main_run-01_events.tsv")
    table = read_confounds(path, ds002739.N_VOLUMES, "motion6", image=path.with_suffix(".nii.gz"))
    assert table.values_VK is not None
    assert table.values_VK.shape == (771, 6)
    assert table.values_VK[0, table.names.index("rot_x")] == pytest.approx(0.011072)


def test_ds002739_rows_are_named_after_electrodes_not_rows() -> None:
    assert ds002739.electrode_numbers(3, [2, 4], "x.mat") == [1, 3, 5]
    assert ds002739.electrode_numbers(3, [0, 1, 0, 1, 0], "x.mat") == [1, 3, 5]
    assert ds002739.electrode_numbers(2, [], "x.mat") == [1, 2]
    with pytest.raises(FormatError, match="different numbers from 1 to 4"):
        ds002739.electrode_numbers(2, [7, 7], "x.mat")


def test_ds002734_scan_start_is_believed_only_if_the_stimuli_fit(
    tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data("sites/ds002734/sub-02/func/sub-02_task-main_run-01_events.tsv")
    table = read_tsv(path)
    onsets = numbers(table[table["trial_type"] == ds002734.STIMULUS], ["onset"], path)["onset"].to_numpy()
    assert len(onsets) == 199
    cells = np.empty(2, dtype=object)
    cells[:] = [{"tstim": 1e3 * (onsets[3:] + 28.413), "t0": t0} for t0 in (28413.0, 3413.0)]
    savemat(tmp_path / "EEG_events_sub02.mat", {"EEG_events": cells})
    first, second = (ds002734.run_events(tmp_path / "EEG_events_sub02.mat", run) for run in ("01", "02"))
    assert ds002734.scan_start(first, onsets, "x.mat") == pytest.approx(28.413)
    with pytest.raises(FormatError, match=r"with t0 = 3\.413 s only \d+% of 196 stimuli fit the 199"):
        ds002734.scan_start(second, onsets, "x.mat")
    with pytest.raises(FormatError, match="no cell 3"):
        ds002734.run_events(tmp_path / "EEG_events_sub02.mat", "03")


def test_unam_egi_needs_both_roots(tmp_path: Path) -> None:
    (tmp_path / "BIDS_dataset_MRI" / "sub-01" / "ses-001" / "func").mkdir(parents=True)
    (tmp_path / "BIDS_dataset_MRI/sub-01/ses-001/func/sub-01_ses-001_task-rest_bold.nii.gz").touch()
    with pytest.raises(SiteError, match=r"_eeg\.set \(absent\) and .* \(found\)"):
        unam_egi.find_recordings(tmp_path, unam_egi.SITE)
