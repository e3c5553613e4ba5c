"""Gradient removal: MNE's result in the interior, every other volume as good, whatever the triggers look like."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from xsite.errors import AlignmentError
from xsite.signals.gradient import remove_gradient

SFREQ, T_R, N_VOLUMES, LEAD = 1000.0, 1.0, 30, 5.0
NAMES = ["Fp1", "Cz", "O1", "ECG", "Status"]
Scan = tuple[mne.io.RawArray, np.ndarray, np.ndarray]


@pytest.fixture
def scan(rng: np.random.Generator) -> Scan:
    """EEG, its artifact of about 700 µV during the volumes, and the volume triggers."""
    n = int((LEAD + N_VOLUMES * T_R + 4) * SFREQ)
    eeg = rng.normal(0, 10e-6, (len(NAMES), n))
    template = rng.normal(0, 700e-6, (len(NAMES), int(T_R * SFREQ)))
    template -= template.mean(1, keepdims=True)  # gradients swing both ways, and amplifiers pass no constant
    artifact = np.zeros_like(eeg)
    for volume in range(N_VOLUMES):
        start = int((LEAD + volume * T_R) * SFREQ)
        artifact[:, start : start + template.shape[1]] = template
    artifact[4] = 0
    raw = mne.io.RawArray(
        eeg + artifact, mne.create_info(NAMES, SFREQ, ["eeg", "eeg", "eeg", "eeg", "stim"]), verbose=False
    )
    return raw, eeg, LEAD + T_R * np.arange(N_VOLUMES)


def continuous_scan(
    rng: np.random.Generator, t_r: float, n_volumes: int = 40, eeg_sd: float = 10e-6
) -> tuple[mne.io.RawArray, np.ndarray, np.ndarray]:
    """An artifact that is defined between samples: harmonics of the volume up to 250 Hz, 700 µV."""
    n = int((LEAD + n_volumes * t_r + 4) * SFREQ)
    eeg = rng.normal(0, eeg_sd, (3, n))
    volumes = (np.arange(n) / SFREQ - LEAD) / t_r
    phases = rng.uniform(0, 2 * np.pi, (3, int(250 * t_r)))
    artifact = np.zeros_like(eeg)
    for k in range(1, phases.shape[1]):
        artifact += np.sin(2 * np.pi * k * volumes + phases[:, k : k + 1])
    artifact *= 700e-6 / artifact.std()
    artifact[:, (volumes < 0) | (volumes >= n_volumes)] = 0
    raw = mne.io.RawArray(eeg + artifact, mne.create_info(["Fp1", "Cz", "O1"], SFREQ, "eeg"), verbose=False)
    return raw, eeg, LEAD + t_r * np.arange(n_volumes)


def left_per_volume(left: np.ndarray, triggers: np.ndarray, t_r: float) -> np.ndarray:
    """RMS in µV of what is left in each volume, a sample at either end apart."""
    bounds = [(int(np.ceil(t * SFREQ)) + 1, int((t + t_r) * SFREQ) - 1) for t in triggers]
    return np.array([1e6 * left[:, lo:hi].std() for lo, hi in bounds])


@pytest.mark.parametrize("window", [(4, 4), (3, 5), (6, 0)])
def test_interior_is_what_mne_computes(scan: Scan, window: tuple[int, int]):
    raw, _, triggers = scan
    events = np.rint(triggers * SFREQ).astype(int)
    theirs = mne.preprocessing.remove_fmri_gradient_artifact(raw, events, window=window, picks=[0, 1, 2, 3])
    ours, _, _ = remove_gradient(raw, triggers, T_R, window=window, source="x")
    inside = slice(events[window[0]], events[N_VOLUMES - window[1] - 1] + int(T_R * SFREQ))
    assert np.abs(ours.get_data() - theirs.get_data())[:, inside].max() < 1e-12
    assert np.abs(raw.get_data()[:4, inside]).max() > 1e-3  # the recording itself is not changed


def test_every_volume_is_corrected_and_everything_is_usable(scan: Scan):
    raw, eeg, triggers = scan
    corrected, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    left = corrected.get_data() - eeg
    rms = left_per_volume(left[:4], triggers, T_R)
    assert rms.max() < 5  # the template of 8 volumes carries EEG of 10 / sqrt(8) µV
    assert rms[[0, 1, 2, 3, -4, -3, -2, -1]].max() < 1.15 * rms[4:-4].max()
    assert np.abs(left[:, : int(LEAD * SFREQ)]).max() == 0  # before and after the scan nothing is touched
    assert np.abs(left[:, int((LEAD + N_VOLUMES * T_R) * SFREQ) :]).max() == 0
    np.testing.assert_array_equal(left[4], 0)  # nor the stimulus channel
    assert valid_T.all()
    (step,) = steps
    assert step["rms_before_uv"] > 500
    assert step["rms_after_uv"] < 15
    assert step["harmonics_before_db"] > 30
    assert step["harmonics_after_db"] < 3
    assert step["alpha_kept"] == pytest.approx(1.125, abs=0.15)
    assert step["alpha_to_lead_in"] == pytest.approx(1.125, abs=0.6)  # 5 s of lead-in tell it badly
    assert (step["n_channels"], step["n_volumes"], step["n_beyond_triggers"]) == (4, N_VOLUMES, 0)


def test_blocks_channels_and_in_place_agree(scan: Scan):
    raw, _, triggers = scan
    corrected, _, _ = remove_gradient(raw, triggers, T_R, source="x")
    whole = corrected.get_data()
    parts = [corrected.get_data(None, start, start + 1234) for start in range(0, raw.n_times, 1234)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, atol=1e-15)
    np.testing.assert_allclose(corrected.get_data(["O1", "Status"], 5500, 9000), whole[[2, 4], 5500:9000], atol=1e-15)
    np.testing.assert_array_equal(corrected.apply().get_data(), whole)


def test_a_file_on_disk_is_read_block_by_block_with_the_same_result(scan: Scan, tmp_path):
    raw, _, triggers = scan
    raw.save(tmp_path / "scan_raw.fif", fmt="double", verbose="error")
    on_disk = mne.io.read_raw_fif(tmp_path / "scan_raw.fif", verbose="error")
    lazily, _, _ = remove_gradient(on_disk, triggers, T_R, source="x")
    assert not on_disk.preload
    parts = [lazily.get_data(None, max(0, start - 100), start + 1500) for start in range(0, raw.n_times, 1500)]
    joined = np.concatenate([part[:, 100 if i else 0 :] for i, part in enumerate(parts)], axis=1)
    expected = remove_gradient(raw, triggers, T_R, source="x")[0].get_data()
    np.testing.assert_allclose(joined, expected, atol=1e-15)
    assert not on_disk.preload


def test_kept_trends_make_no_steps(rng: np.random.Generator, scan: Scan):
    raw, eeg, triggers = scan
    t = np.arange(raw.n_times) / SFREQ
    slow = 5e-3 + 300e-6 * np.sin(2 * np.pi * 0.05 * t) + 20e-6 * t  # offset, slow wave, drift
    raw._data[:4] += slow
    left = remove_gradient(raw, triggers, T_R, trend="kept", source="x")[0].get_data()[:4] - eeg[:4] - slow
    assert 1e6 * left.std() < 8
    removed = remove_gradient(raw, triggers, T_R, source="x")[0].get_data()[:4] - eeg[:4]
    at_start = int(LEAD * SFREQ)
    assert np.abs(removed[:, at_start - 1] - removed[:, at_start]).min() > 4e-3  # MNE's definition steps by the offset
    assert np.abs(left[:, at_start - 1] - left[:, at_start]).max() < 40e-6


def test_last_volume_cut_by_the_end_of_the_file_is_corrected_as_far_as_it_goes(scan: Scan):
    raw, eeg, triggers = scan
    raw.crop(0, LEAD + N_VOLUMES * T_R - 0.5)
    corrected, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    assert steps[0]["n_volumes"] == N_VOLUMES - 1
    assert steps[0]["n_beyond_triggers"] == 1
    left = corrected.get_data()[:4] - eeg[:4, : raw.n_times]
    assert 1e6 * left[:, -int(0.5 * SFREQ) :].std() < 6
    assert valid_T.all()


@pytest.mark.parametrize(("first", "last"), [(3, N_VOLUMES), (0, N_VOLUMES - 2), (2, N_VOLUMES - 1)])
def test_volumes_without_trigger_are_found_in_the_data(scan: Scan, first: int, last: int):
    raw, eeg, triggers = scan  # dummy scans before the first trigger, volumes after the last one
    corrected, _, steps = remove_gradient(raw, triggers[first:last], T_R, source="x")
    assert steps[0]["n_beyond_triggers"] == N_VOLUMES - (last - first)
    left = corrected.get_data()[:4] - eeg[:4]
    assert left_per_volume(left, triggers, T_R).max() < 6
    assert np.abs(left[:, : int(LEAD * SFREQ)]).max() == 0


def test_a_scan_stopped_inside_a_volume_gets_no_artifact_added(rng: np.random.Generator, scan: Scan):
    raw, eeg, triggers = scan
    stop = int((LEAD + (N_VOLUMES - 0.5) * T_R) * SFREQ)
    raw._data[:, stop:] = eeg[:, stop:]
    left = remove_gradient(raw, triggers[:-1], T_R, source="x")[0].get_data()[:4] - eeg[:4]
    assert 1e6 * left[:, stop - 500 :].std() < 6


@pytest.mark.parametrize("t_r", [1.0004, 0.99973])
@pytest.mark.parametrize("jitter", [0, 1])
def test_volumes_between_samples_and_jittering_triggers(rng: np.random.Generator, t_r: float, jitter: int):
    raw, eeg, triggers = continuous_scan(rng, t_r)
    written = (np.rint(triggers * SFREQ) + rng.integers(-jitter, jitter + 1, len(triggers))) / SFREQ
    corrected, _, steps = remove_gradient(raw, written, t_r, source="x")
    assert steps[0]["phase_shift"]
    rms = left_per_volume(corrected.get_data() - eeg, triggers, t_r)
    assert rms.max() < 6
    assert rms[4:-4].max() < 5  # 3.5 on an even grid: phases are found to a hundredth of a sample
    events = np.rint(written * SFREQ).astype(int)
    theirs = mne.preprocessing.remove_fmri_gradient_artifact(raw, events, tr_tol=4)
    assert left_per_volume(theirs.get_data() - eeg, triggers, t_r)[4:-4].mean() > 20 * rms.mean()


def test_slice_triggers(rng: np.random.Generator):
    n_slices = 20  # 50 ms each: templates from slices, of the slice before and after
    raw, eeg, _ = continuous_scan(rng, 0.05, n_volumes=20 * n_slices)
    slices = LEAD + 0.05 * np.arange(20 * n_slices)
    corrected, _, steps = remove_gradient(raw, slices, 0.05, window=(10, 10), source="x")
    assert steps[0]["samples_per_volume"] == 50
    assert 1e6 * (corrected.get_data() - eeg).std() < 5


def test_a_short_window_follows_a_moving_head(scan: Scan):
    raw, eeg, triggers = scan
    rest = int((LEAD + 15 * T_R) * SFREQ)
    raw._data[:4, rest:] = eeg[:4, rest:] + 1.1 * (raw._data[:4, rest:] - eeg[:4, rest:])  # moves at volume 15
    spoiled = [
        int((left_per_volume(corrected.get_data()[:4] - eeg[:4], triggers, T_R) > 10).sum())
        for corrected, _, _ in (remove_gradient(raw, triggers, T_R, window=w, source="x") for w in ((8, 8), (2, 2)))
    ]
    assert spoiled[0] >= 12
    assert spoiled[1] == 4


def test_few_volumes_and_irregular_triggers_are_refused(scan: Scan):
    raw, _, triggers = scan
    with pytest.raises(AlignmentError, match=r"sub-3\.vhdr: gradient removal needs at least 9 whole volumes.*holds 8"):
        remove_gradient(raw, triggers[:8], T_R, source="sub-3.vhdr")
    wobbly = triggers + np.where(np.arange(N_VOLUMES) == 12, 0.004, 0)
    with pytest.raises(AlignmentError, match=r"sub-3\.vhdr: volume triggers deviate by up to 4 samples"):
        remove_gradient(raw, wobbly, T_R, source="sub-3.vhdr")


def test_artifacts_of_other_sequences_beside_the_scan_are_invalid(rng: np.random.Generator, scan: Scan):
    raw, _, triggers = scan
    end = int((LEAD + N_VOLUMES * T_R) * SFREQ)
    foreign = [(4000, 4900), (end + 1500, end + 2300)]  # a reference scan just before, a field map after
    for start, stop in foreign:
        raw._data[:4, start:stop] += rng.normal(0, 700e-6, (4, stop - start))
    _, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    for start, stop in foreign:
        assert not valid_T[start:stop].any()
    assert valid_T[:3900].all()
    assert valid_T[int(LEAD * SFREQ) : end + 1400].all()  # the scan itself, and the quiet after it
    assert steps[0]["uncorrected_s"] == pytest.approx(1.7, abs=0.41)


def test_livelier_eeg_beside_the_scan_stays_valid(scan: Scan):
    raw, eeg, triggers = scan
    raw._data[:4, : int(LEAD * SFREQ)] = 2.5 * eeg[:4, : int(LEAD * SFREQ)]  # muscles
    _, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    assert valid_T.all()
    assert steps[0]["uncorrected_s"] == 0
