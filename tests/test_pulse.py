"""Pulse artifact: beats where they are, with an ECG and without; the artifact goes, alpha stays."""

from __future__ import annotations

import numpy as np
import pytest

from xsite.errors import ChannelError
from xsite.signals.beats import beats_from_ecg, beats_from_eeg
from xsite.signals.pulse import DELAY_S, locked_amplitude, remove_pulse

SFREQ, SECONDS, DELAY = 200.0, 240.0, DELAY_S
NAMES = ("Fp1", "Fp2", "TP9", "TP10", "O1", "O2", "Cz", "Pz")
SIZES_UV = np.array([35, -30, 60, -55, 25, -20, 8, 5.0])


def bump(t: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-((t - centre) ** 2) / (2 * width**2))


@pytest.fixture
def heart(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Four minutes: beats with breathing in their rhythm, ECG in a magnet, EEG with alpha, the artifact on top."""
    gaps = 0.9 + 0.08 * np.sin(np.arange(400) / 4) + rng.normal(0, 0.03, 400)
    beats = np.cumsum(gaps)
    beats = beats[beats < SECONDS - 2]
    t = np.arange(int(SECONDS * SFREQ)) / SFREQ
    ecg, shape = np.zeros(len(t)), np.zeros(len(t))
    for beat in beats:
        near = slice(int(max(0, beat - 0.5) * SFREQ), int((beat + 0.9) * SFREQ))
        s, strength = t[near] - beat, 1 + 0.1 * rng.normal()
        ecg[near] += bump(s, 0, 0.012) - 0.25 * bump(s, 0.03, 0.012) + 0.9 * bump(s, 0.27, 0.05)  # a T wave as high
        shape[near] += strength * (bump(s, DELAY, 0.05) - 0.7 * bump(s, DELAY + 0.13, 0.06))
    ecg = -600 * ecg + rng.normal(0, 25, len(t)) + 150 * np.sin(2 * np.pi * 0.2 * t)  # upside down, and wandering
    noise = rng.normal(0, 5, (len(NAMES), len(t)))
    alpha = 12 * np.sin(2 * np.pi * 10 * t + np.cumsum(rng.normal(0, 0.05, len(t))))
    eeg = noise + np.linspace(0.3, 1.0, len(NAMES))[:, None] * alpha
    return {"beats": beats, "ecg": ecg, "eeg": eeg, "artifact": SIZES_UV[:, None] * shape}


def hits(found: np.ndarray, true: np.ndarray, within: float) -> tuple[float, float]:
    """Share of the true beats that were found, and of the found ones that are true."""
    distances = np.abs(found[:, None] - true[None, :])
    return float((distances.min(0) <= within).mean()), float((distances.min(1) <= within).mean())


def test_r_peaks_are_found_within_20_ms_in_spite_of_the_t_wave(heart: dict[str, np.ndarray]):
    for sign in (1, -1):
        found = beats_from_ecg(sign * heart["ecg"], SFREQ)
        recall, precision = hits(found, heart["beats"], 0.02)
        assert recall > 0.98
        assert precision > 0.98


@pytest.mark.parametrize("names", [NAMES, ("F7", "F8", "T3x", "T4x", "O1", "O2", "Cz", "Pz")])
def test_without_ecg_beats_are_found_in_the_eeg(heart: dict[str, np.ndarray], names: tuple[str, ...]):
    found, where = beats_from_eeg(heart["eeg"] + heart["artifact"], names, SFREQ)
    assert where in ("TP10 - TP9", "first principal component")
    lag = float(np.median(found - heart["beats"][np.abs(found[:, None] - heart["beats"]).argmin(1)]))
    recall, precision = hits(found - lag, heart["beats"], 0.05)
    assert recall > 0.9
    assert precision > 0.9


def alpha_power(eeg: np.ndarray) -> np.ndarray:
    freqs = np.fft.rfftfreq(eeg.shape[1], 1 / SFREQ)
    return (np.abs(np.fft.rfft(eeg, axis=1)) ** 2)[:, (freqs > 9) & (freqs < 11)].sum(1)


@pytest.mark.parametrize(("method", "factor"), [("aas", 0.08), ("pca-obs", 0.12)])
def test_artifact_goes_and_the_step_says_what_became_of_alpha(heart: dict[str, np.ndarray], method: str, factor: float):
    given = heart["eeg"] + heart["artifact"]
    clean, step = remove_pulse(given, beats_from_ecg(heart["ecg"], SFREQ), SFREQ, method=method)
    strong = np.abs(SIZES_UV) > 20
    left = ((clean - heart["eeg"])[strong] ** 2).mean(1)
    before = (heart["artifact"][strong] ** 2).mean(1)
    if method == "aas":  # PCA-OBS takes more EEG than there was artifact
        assert np.median(left / before) < 0.2  # power; beats differ by 10 %, and templates carry EEG
    assert step["locked_after_uv"] < factor * step["locked_before_uv"]
    kept = alpha_power(clean) / alpha_power(heart["eeg"])
    assert step["alpha_kept"] == pytest.approx(float(np.median(kept)), abs=0.06)
    if method == "aas":
        np.testing.assert_allclose(kept, 1, atol=0.06)
    else:
        assert np.median(kept) < 0.5  # strong alpha is the first component: MNE's PCA-OBS takes most of it
    assert clean.shape == given.shape
    assert np.isfinite(clean).all()
    assert step["beats_per_minute"] == pytest.approx(60 / 0.9, abs=4)


def test_every_beat_is_corrected_the_first_and_last_included(heart: dict[str, np.ndarray]):
    given = heart["eeg"] + heart["artifact"]
    clean, _ = remove_pulse(given, heart["beats"], SFREQ, method="aas")
    for part in (slice(0, int(10 * SFREQ)), slice(-int(10 * SFREQ), None)):
        assert (clean - heart["eeg"])[2, part].std() < 0.4 * heart["artifact"][2, part].std()


def test_eeg_without_artifact_is_hardly_changed(heart: dict[str, np.ndarray]):
    clean, step = remove_pulse(heart["eeg"], heart["beats"], SFREQ, method="aas")
    assert (clean - heart["eeg"]).std() < 0.35 * heart["eeg"].std()  # 1 / sqrt(20) of it, and what is locked by chance
    assert step["alpha_kept"] == pytest.approx(1, abs=0.1)
    assert locked_amplitude(heart["eeg"], heart["beats"], SFREQ) < 2


def test_what_is_no_heart_beat_is_refused(rng: np.random.Generator, heart: dict[str, np.ndarray]):
    with pytest.raises(ChannelError, match="sub-1: the ECG is flat"):
        beats_from_ecg(np.zeros(8000), SFREQ, source="sub-1")
    slow = bump(np.arange(24000) / SFREQ % 3.0, 1.5, 0.015) * 500 + rng.normal(0, 1, 24000)
    with pytest.raises(ChannelError, match="beats at 20 per minute"):
        beats_from_ecg(slow, SFREQ)
    with pytest.raises(ChannelError, match="3 heart beats; pulse correction needs at least 10"):
        remove_pulse(heart["eeg"], heart["beats"][:3], SFREQ, method="aas")
