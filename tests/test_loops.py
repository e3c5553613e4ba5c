"""Carbon-wire loops: what they see of movement goes, EEG stays, windows do not show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, sosfiltfilt

from xsite.errors import ChannelError
from xsite.signals.loops import regress_loops

SFREQ, SECONDS = 200.0, 60.0


@pytest.fixture
def moving(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """EEG, loops, and the artifact: loops with lags of up to 15 ms and a coupling that drifts."""
    n = int(SECONDS * SFREQ)
    t = np.arange(n) / SFREQ
    eeg = rng.normal(0, 8, (5, n)) + 15 * np.sin(2 * np.pi * 10 * t)
    motion = sosfiltfilt(butter(2, (0.5, 25), "bandpass", fs=SFREQ, output="sos"), rng.normal(0, 1, (3, n)))
    loops = 1e3 * motion + rng.normal(0, 5, (3, n))
    artifact = np.zeros_like(eeg)
    for channel in range(5):
        for loop in range(3):
            drift = 1 + 0.3 * np.sin(2 * np.pi * t / SECONDS + channel)
            artifact[channel] += rng.normal(0, 80) * drift * np.roll(motion[loop], int(rng.integers(-3, 4)))
    return eeg, loops, artifact


def test_what_the_loops_see_goes_and_the_rest_stays(moving: tuple[np.ndarray, np.ndarray, np.ndarray]):
    eeg, loops, artifact = moving
    clean, step = regress_loops(eeg + artifact, loops, SFREQ)
    inner = slice(20, -20)
    left = ((clean - eeg)[:, inner] ** 2).mean(1) / (artifact[:, inner] ** 2).mean(1)
    assert left.max() < 0.1
    assert 0.2 < step["variance_removed"] < 1
    assert step["n_loops"] == 3
    freqs = np.fft.rfftfreq(eeg.shape[1], 1 / SFREQ)
    alpha = (freqs > 9.5) & (freqs < 10.5)
    power = [(np.abs(np.fft.rfft(x, axis=1)) ** 2)[:, alpha].sum(1) for x in (clean, eeg)]
    np.testing.assert_allclose(power[0] / power[1], 1, atol=0.05)


def test_unrelated_loops_take_little(moving: tuple[np.ndarray, np.ndarray, np.ndarray], rng: np.random.Generator):
    eeg, loops, _ = moving
    clean, step = regress_loops(eeg + 30, rng.normal(0, 1, loops.shape), SFREQ)
    assert step["variance_removed"] < 0.03  # 33 regressors in 2400 samples
    np.testing.assert_allclose(clean.mean(1), eeg.mean(1) + 30, atol=0.3)  # constants stay


def test_flat_and_twin_loops_do_no_harm(moving: tuple[np.ndarray, np.ndarray, np.ndarray]):
    eeg, loops, artifact = moving
    odd = np.vstack([loops, loops[:1], np.zeros(loops.shape[1]), np.full(loops.shape[1], np.nan)])
    expected, _ = regress_loops(eeg + artifact, loops, SFREQ)
    clean, step = regress_loops(eeg + artifact, odd, SFREQ)
    assert step["n_loops"] == 4
    np.testing.assert_allclose(clean, expected, atol=0.5)


def test_what_cannot_be_regressed_is_refused(moving: tuple[np.ndarray, np.ndarray, np.ndarray]):
    eeg, loops, _ = moving
    with pytest.raises(ChannelError, match=r"sub-2: all 3 carbon-wire loops are flat"):
        regress_loops(eeg, 0 * loops, SFREQ, source="sub-2")
    with pytest.raises(ChannelError, match="would fit the EEG itself"):
        regress_loops(eeg, loops, SFREQ, window_s=0.5)
