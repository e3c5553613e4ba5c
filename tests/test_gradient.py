"""Gradient removal: what it removes, what it leaves, and that the rest is marked."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from xsite.errors import AlignmentError
from xsite.signals.gradient import remove_gradient

SFREQ, T_R, N_VOLUMES, LEAD = 1000.0, 1.0, 30, 5.0
NAMES = ["Fp1", "Cz", "O1", "ECG", "Status"]


@pytest.fixture
def scan(rng: np.random.Generator) -> tuple[mne.io.RawArray, np.ndarray, np.ndarray]:
    """EEG, its artifact of about 700 µV during the volumes, and the volume triggers."""
    n = int((LEAD + N_VOLUMES * T_R + 4) * SFREQ)
    eeg = rng.normal(0, 10e-6, (len(NAMES), n))
    template = rng.normal(0, 700e-6, (len(NAMES), int(T_R * SFREQ)))
    artifact = np.zeros_like(eeg)
    for volume in range(N_VOLUMES):
        start = int((LEAD + volume * T_R) * SFREQ)
        artifact[:, start : start + template.shape[1]] = template
    artifact[4] = 0
    raw = mne.io.RawArray(
        eeg + artifact, mne.create_info(NAMES, SFREQ, ["eeg", "eeg", "eeg", "eeg", "stim"]), verbose=False
    )
    return raw, eeg, LEAD + T_R * np.arange(N_VOLUMES)


def test_artifact_goes_where_valid_and_is_marked_elsewhere(scan: tuple[mne.io.RawArray, np.ndarray, np.ndarray]):
    raw, eeg, triggers = scan
    corrected, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    left = corrected.get_data() - eeg
    inside = valid_T.copy()
    inside[: int(LEAD * SFREQ)] = False
    assert left[:4, inside].std() < 8e-6  # the template of 8 volumes carries EEG of 10/sqrt(8) µV, and detrending some
    assert left[:4, ~valid_T].std() > 300e-6
    assert np.abs(left[:, : int(LEAD * SFREQ)]).max() == 0  # before the scan nothing is touched, and it is usable
    assert valid_T[: int(LEAD * SFREQ)].all()
    np.testing.assert_array_equal(left[4], 0)  # the stimulus channel is left alone
    edges = np.flatnonzero(np.diff(valid_T.astype(int))) + 1
    np.testing.assert_array_equal(edges / SFREQ, [LEAD, LEAD + 4, LEAD + N_VOLUMES - 4])
    (step,) = steps
    assert step["rms_before_uv"] > 500
    assert step["rms_after_uv"] < 15
    assert step["n_channels"] == 4
    assert step["n_volumes"] == N_VOLUMES


def test_last_volume_cut_by_the_end_of_the_file(scan: tuple[mne.io.RawArray, np.ndarray, np.ndarray]):
    raw, _, triggers = scan
    raw.crop(0, LEAD + N_VOLUMES * T_R - 0.5)
    _, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    assert steps[0]["n_volumes"] == N_VOLUMES - 1
    assert not valid_T[-int(4.4 * SFREQ) :].any()


def test_few_volumes_and_jitter_are_refused(scan: tuple[mne.io.RawArray, np.ndarray, np.ndarray]):
    raw, _, triggers = scan
    with pytest.raises(AlignmentError, match=r"sub-3\.vhdr: gradient removal needs at least 9 whole volumes.*holds 8"):
        remove_gradient(raw, triggers[:8], T_R, source="sub-3.vhdr")
    wobbly = triggers + np.where(np.arange(N_VOLUMES) == 12, 0.004, 0)
    with pytest.raises(AlignmentError, match=r"sub-3\.vhdr: volume triggers deviate by up to 4 samples"):
        remove_gradient(raw, wobbly, T_R, source="sub-3.vhdr")


def test_repetition_time_between_samples(rng: np.random.Generator):
    t_r = 1.0004  # 1000.4 samples: triggers fall on unlike phases
    n = int((LEAD + 25 * t_r) * SFREQ) + 2000
    raw = mne.io.RawArray(rng.normal(0, 1e-5, (2, n)), mne.create_info(["Fp1", "Cz"], SFREQ, "eeg"), verbose=False)
    _, valid_T, steps = remove_gradient(raw, LEAD + t_r * np.arange(25), t_r, source="x")
    assert steps[0]["samples_per_volume"] == 1000
    assert valid_T[int((LEAD + 5 * t_r) * SFREQ)]
