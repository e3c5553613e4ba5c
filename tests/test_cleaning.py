"""All artifacts of one recording, one after the other, from the facts of its site."""

from __future__ import annotations

import logging
from dataclasses import replace

import mne
import numpy as np
import pytest

from xsite.data.cleaning import cleaned
from xsite.data.site_file import load_site
from xsite.errors import SiteError
from xsite.signals.align import Alignment, align
from xsite.signals.artifact_figures import step_figures
from xsite.site import Site

SFREQ, T_R, N_VOLUMES, LEAD = 1000.0, 2.0, 40, 6.0
NAMES = ("Fp1", "TP9", "TP10", "O1", "ECG", "Wire 1", "Wire 2")
SITE = Site(
    name="here",
    sfreq=SFREQ,
    t_r=T_R,
    line_freq=50,
    volume_marker="R128",
    eeg_state="raw",
    loops=("Wire 1", "Wire 2"),
    pulse="aas",
    ch_types={"Wire 1": "misc", "Wire 2": "misc"},
)


@pytest.fixture
def recorded(rng: np.random.Generator) -> tuple[mne.io.RawArray, Alignment, np.ndarray]:
    """EEG (4 channels), heart, movement seen by two wires, gradients on everything."""
    n = int((LEAD + N_VOLUMES * T_R + 3) * SFREQ)
    t = np.arange(n) / SFREQ
    eeg = rng.normal(0, 5, (4, n)) + 10 * np.sin(2 * np.pi * 10.27 * t)  # no multiple of 1 / TR
    since = t % 0.85
    beat = np.exp(-((since - 0.2) ** 2) / (2 * 0.012**2))
    wave = np.exp(-((since - 0.41) ** 2) / (2 * 0.05**2))
    motion = np.cumsum(rng.normal(0, 1, (2, n)), axis=1)
    motion -= np.stack([np.convolve(row, np.ones(800) / 800, mode="same") for row in motion])
    data = np.vstack([eeg, 700 * beat[None], 20 * motion])
    data[:4] += np.outer([10, 40, -40, 20], wave) + np.array([[2, 1, 0, 1], [0, 1, 2, -1]]).T @ motion
    shape = rng.normal(0, 900, (len(NAMES), int(T_R * SFREQ)))
    shape -= shape.mean(1, keepdims=True)
    for volume in range(N_VOLUMES):
        start = int((LEAD + volume * T_R) * SFREQ)
        data[:, start : start + shape.shape[1]] += shape
    raw = mne.io.RawArray(data * 1e-6, mne.create_info(list(NAMES), SFREQ, "eeg"), verbose=False)
    alignment = align(
        LEAD + T_R * np.arange(N_VOLUMES),
        n_volumes=N_VOLUMES,
        t_r=T_R,
        start_time=0.0,
        eeg_duration=n / SFREQ,
        source="x",
    )
    return raw, alignment, eeg


def test_gradient_then_loops_then_pulse(recorded: tuple[mne.io.RawArray, Alignment, np.ndarray]):
    raw, alignment, true_eeg = recorded
    eeg, steps = cleaned(raw, alignment, T_R, SITE, sfreq=200.0, source="sub-1")
    assert eeg.montage.ch_names == ("Fp1", "TP9", "TP10", "O1")
    names = [step["step"] for step in steps]
    assert names[0] == "gradient removal"
    assert names[-2:] == ["loop regression", "pulse artifact removal"]
    assert "resample" in names
    assert steps[-1]["beats_from"] == "ECG"
    assert steps[-1]["beats_per_minute"] == pytest.approx(60 / 0.85, rel=0.01)
    assert eeg.valid_T.all()
    expected = mne.filter.resample(true_eeg, down=5, verbose="error")
    inner = slice(100, eeg.eeg_CT.shape[1] - 100)
    for got_T, true_T in zip(eeg.eeg_CT[:, inner], expected[:, inner], strict=True):
        assert np.corrcoef(got_T, true_T)[0, 1] > 0.85
    figures = step_figures(steps)
    assert figures["gradient_harmonics_before_db"] > figures["gradient_harmonics_after_db"] + 20
    assert 0.3 < figures["loops_variance_removed"] < 1
    assert figures["pulse_locked_after_uv"] < 0.3 * figures["pulse_locked_before_uv"]
    assert {"gradient_alpha_kept", "pulse_alpha_kept"} <= set(figures)


def test_without_ecg_the_eeg_tells_the_beats(recorded: tuple[mne.io.RawArray, Alignment, np.ndarray]):
    raw, alignment, _ = recorded
    raw._data[4] = 0
    _, steps = cleaned(raw, alignment, T_R, SITE, sfreq=200.0, source="sub-1")
    assert steps[-1]["beats_from"] in ("TP10 - TP9", "first principal component")
    assert "flat" in steps[-1]["why_no_ecg"][0]
    assert steps[-1]["beats_per_minute"] == pytest.approx(60 / 0.85, rel=0.02)


def test_a_recording_without_any_heart_beat_is_kept_and_says_so(
    rng: np.random.Generator, recorded: tuple[mne.io.RawArray, Alignment, np.ndarray], caplog: pytest.LogCaptureFixture
):
    _, alignment, _ = recorded
    raw = mne.io.RawArray(rng.normal(0, 1e-5, (4, 3000)), mne.create_info(list(NAMES[:4]), SFREQ, "eeg"), verbose=False)
    with caplog.at_level(logging.WARNING, logger="xsite.data.cleaning"):
        eeg, steps = cleaned(
            raw, alignment, T_R, replace(SITE, eeg_state="clean", loops=()), sfreq=200.0, source="sub-1"
        )
    assert steps[-1]["step"] == "pulse artifact left in"
    assert "sub-1: pulse artifact not removed" in caplog.text
    assert eeg.eeg_CT.shape == (4, 600)


def test_facts_are_checked(recorded: tuple[mne.io.RawArray, Alignment, np.ndarray], tmp_path):
    raw, alignment, _ = recorded
    with pytest.raises(SiteError, match=r"sub-1: loops \['CWL9'\] of site 'here' are not in the file"):
        cleaned(raw, alignment, T_R, replace(SITE, loops=("CWL9",)), sfreq=200.0, source="sub-1")
    with pytest.raises(SiteError, match="pulse is 'obs'"):
        replace(SITE, pulse="obs")
    facts = "name: here\nsfreq: 5000\nt_r: 2.0\nline_freq: 50\nvolume_marker: R128\npulse: aas\nresidual: obs\n"
    (tmp_path / "site.yaml").write_text(facts)
    assert (load_site(tmp_path / "site.yaml").pulse, load_site(tmp_path / "site.yaml").residual) == ("aas", "obs")


def test_a_hole_that_breaks_the_clock_splits_the_gradient_removal(
    recorded: tuple[mne.io.RawArray, Alignment, np.ndarray],
):
    raw, _, _ = recorded
    cut = int((LEAD + 20 * T_R) * SFREQ)  # the scanner stops for three volumes and 0.3 s
    pause = np.random.default_rng(5).normal(0, 5e-6, (len(NAMES), 6300))
    data = np.concatenate([raw.get_data(stop=cut), pause, raw.get_data(start=cut + 6000)], axis=1)
    markers = LEAD + T_R * np.arange(N_VOLUMES)
    markers = np.concatenate([markers[:20], markers[23:] + 0.3])
    raw = mne.io.RawArray(data, raw.info, verbose=False)
    alignment = align(
        markers, n_volumes=N_VOLUMES, t_r=T_R, start_time=0.0, eeg_duration=data.shape[1] / SFREQ, source="x"
    )
    assert not alignment.volume_valid.all()  # the audit takes it, without the volumes in the hole
    eeg, steps = cleaned(raw, alignment, T_R, replace(SITE, loops=(), pulse="none"), sfreq=200.0, source="sub-1")
    assert [run["corrected"] for run in steps[0]["runs"]] == [True, True]
    hole = slice(int(200 * (LEAD + 20 * T_R)) + 1, int(200 * markers[20]) - 1)
    assert not eeg.valid_T[hole].any()
    assert eeg.valid_T[: hole.start - 400].all()
    assert eeg.valid_T[hole.stop + 400 : -200].all()
