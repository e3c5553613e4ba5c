"""Gradient removal around holes: runs keep their own clock and templates, what lies between them is invalid."""

from __future__ import annotations

import mne
import numpy as np
import pytest
from test_gradient import SFREQ, T_R, Scan, left_per_volume

from xsite.errors import AlignmentError
from xsite.signals.gradient import remove_gradient


def with_hole(rng: np.random.Generator, counts: tuple[int, ...], pause: int) -> Scan:
    """Runs of volumes with ``pause`` samples between them, which the clock of the volumes does not divide."""
    size, firsts = 1000, []
    at = 2000
    for count in counts:
        firsts += [at + size * volume for volume in range(count)]
        at += size * count + pause
    eeg = rng.normal(0, 10e-6, (3, at + 1000))
    template = rng.normal(0, 700e-6, (3, size))
    artifact = np.zeros_like(eeg)
    for first in firsts:
        artifact[:, first : first + size] = template
    raw = mne.io.RawArray(eeg + artifact, mne.create_info(["Fp1", "Cz", "O1"], SFREQ, "eeg"), verbose=False)
    return raw, eeg, np.array(firsts) / SFREQ


def test_runs_on_both_sides_of_a_hole_keep_their_own_clock_and_templates(rng: np.random.Generator):
    raw, eeg, triggers = with_hole(rng, (15, 12), 2300)
    late = slice(19000, 32000)
    raw._data[:, late] = eeg[:, late] + 1.5 * (raw._data[:, late] - eeg[:, late])  # another artifact after the hole
    corrected, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    left = corrected.get_data() - eeg
    assert left_per_volume(left, triggers, T_R).max() < 6
    np.testing.assert_array_equal(np.flatnonzero(~valid_T), np.arange(17000, 19300))
    assert steps[0]["uncorrected_s"] == 2.3
    assert steps[0]["runs"] == [
        {"start_s": 2.0, "stop_s": 17.0, "n_volumes": 15, "corrected": True},
        {"start_s": 19.3, "stop_s": 31.3, "n_volumes": 12, "corrected": True},
    ]
    parts = [corrected.get_data(None, start, start + 1234) for start in range(0, raw.n_times, 1234)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), corrected.get_data(), atol=1e-15)


def test_a_run_too_short_for_a_template_is_left_and_invalid(rng: np.random.Generator):
    raw, eeg, triggers = with_hole(rng, (15, 4, 12), 1300)
    corrected, valid_T, steps = remove_gradient(raw, triggers, T_R, source="x")
    assert [run["corrected"] for run in steps[0]["runs"]] == [True, False, True]
    np.testing.assert_array_equal(np.flatnonzero(~valid_T), np.arange(17000, 23600))
    kept = np.concatenate([triggers[:15], triggers[19:]])
    assert left_per_volume(corrected.get_data() - eeg, kept, T_R).max() < 6
    raw, _, triggers = with_hole(rng, (8, 7, 8), 1300)
    with pytest.raises(AlignmentError, match="at least 9 whole volumes, the EEG holds 8 of 23, in 3 runs"):
        remove_gradient(raw, triggers, T_R, source="x")
