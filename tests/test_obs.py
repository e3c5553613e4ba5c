"""Optimal basis set: what templates leave of a changing artifact goes, what cannot be told from EEG stays."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from xsite.signals.gradient import remove_gradient
from xsite.signals.obs import principal_shapes

SFREQ, N_VOLUMES, SIZE = 1000.0, 60, 1000


@pytest.fixture
def changing_scan(rng: np.random.Generator) -> tuple[mne.io.RawArray, np.ndarray, np.ndarray]:
    """Artifact of 700 µV and a second shape (fast: above 30 Hz) whose size changes from volume to volume."""
    n = N_VOLUMES * SIZE + 2000
    t = np.arange(n) / SFREQ
    eeg = rng.normal(0, 5e-6, (2, n)) + 15e-6 * np.sin(2 * np.pi * 10.3 * t)
    fixed = rng.normal(0, 700e-6, (2, SIZE))
    changing = np.sin(2 * np.pi * 47 * t[:SIZE]) * 60e-6
    artifact = np.zeros_like(eeg)
    for volume in range(N_VOLUMES):
        part = slice(1000 + volume * SIZE, 1000 + (volume + 1) * SIZE)
        artifact[:, part] = fixed + rng.normal() * changing
    raw = mne.io.RawArray(eeg + artifact, mne.create_info(["Cz", "O1"], SFREQ, "eeg"), verbose=False)
    return raw, eeg, 1.0 + np.arange(N_VOLUMES)


def power_at(data: np.ndarray, freq: float) -> float:
    spectrum = np.abs(np.fft.rfft(data[:, 1000 : 1000 + N_VOLUMES * SIZE], axis=1)) ** 2
    freqs = np.fft.rfftfreq(N_VOLUMES * SIZE, 1 / SFREQ)
    return float(spectrum[:, np.abs(freqs - freq) < 0.7].sum())


def test_a_changing_residual_goes_and_alpha_stays(changing_scan: tuple[mne.io.RawArray, np.ndarray, np.ndarray]):
    raw, eeg, triggers = changing_scan
    plain = remove_gradient(raw, triggers, 1.0, source="x")[0].get_data()
    corrected, _, steps = remove_gradient(raw, triggers, 1.0, residual="obs", source="x")
    with_obs = corrected.get_data()
    assert steps[0]["residual"] == "obs"
    assert power_at(plain, 47.0) > 100 * power_at(eeg, 47.0)
    assert power_at(with_obs, 47.0) < 0.01 * power_at(plain, 47.0)
    assert power_at(with_obs, 10.3) == pytest.approx(power_at(plain, 10.3), rel=0.05)
    parts = [corrected.get_data(None, start, start + 777) for start in range(0, raw.n_times, 777)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), with_obs, atol=1e-15)


def test_shapes_are_orthonormal_and_fast(rng: np.random.Generator):
    shapes_KS = principal_shapes(rng.normal(0, 1, (30, 500)), 500.0, 3, 20.0)
    np.testing.assert_allclose(shapes_KS @ shapes_KS.T, np.eye(3), atol=1e-10)
    spectrum = np.abs(np.fft.rfft(shapes_KS, axis=1)) ** 2
    assert spectrum[:, :20].sum() < 1e-2 * spectrum.sum()
    np.testing.assert_array_equal(principal_shapes(np.zeros((30, 500)), 500.0, 3, 20.0), 0)


def test_volumes_a_sample_short_and_cut_ones_are_fitted_too(rng: np.random.Generator):
    period, n_volumes = 999.6, 40
    starts = np.rint(1500 + period * np.arange(n_volumes)).astype(int)
    n = int(starts[-1]) + 800  # the last volume is cut by the end of the file
    t = np.arange(n)
    eeg = rng.normal(0, 5e-6, (2, n))
    phase = (t - 1500) % period / period
    sizes = rng.normal(size=n_volumes + 1)[np.clip((t - 1500) // period, 0, n_volumes).astype(int)]
    fixed = sum(400e-6 * np.sin(2 * np.pi * (k * phase + rng.uniform())) for k in range(30, 60))
    artifact = (fixed + 100e-6 * sizes * np.sin(2 * np.pi * 47 * phase)) * (t >= 1500)
    raw = mne.io.RawArray(
        (eeg + artifact)[:, 1800:], mne.create_info(["Cz", "O1"], SFREQ, "eeg"), verbose=False
    )  # and the first one by its start
    eeg, starts = eeg[:, 1800:], starts - 1800
    corrected, _, _ = remove_gradient(raw, starts / SFREQ, period / SFREQ, residual="obs", source="x")
    left = corrected.get_data() - eeg
    rms = [1e6 * left[:, max(0, s) + 2 : min(left.shape[1], s + 998)].std() for s in starts]
    assert set(np.diff(starts)) == {999, 1000}
    assert max(rms) < 12  # what templates leave alone is 70 in the median volume
    plain = remove_gradient(raw, starts / SFREQ, period / SFREQ, source="x")[0].get_data() - eeg
    assert np.median([1e6 * plain[:, max(0, s) + 2 : s + 998].std() for s in starts]) > 30
