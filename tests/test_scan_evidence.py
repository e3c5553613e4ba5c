"""First and last gradient artifact in raw EEG, found without its markers."""

from __future__ import annotations

from dataclasses import replace

import mne
import numpy as np
import pytest

from xsite.errors import AlignmentError
from xsite.phantom.eeg import Timing, _gradient_volume
from xsite.phantom.habits import HABITS
from xsite.signals.align import align
from xsite.signals.scan_evidence import RESOLUTION_S, ScanEvidence, scan_evidence

N, LEAD, TAIL = 40, 12.4, 7.0


def eeg(
    rng: np.random.Generator,
    *,
    sfreq: float = 1000.0,
    t_r: float = 2.1,
    n_scanned: float = N,
    lead: float = LEAD,
    tail: float = TAIL,
    gradient_uv: float = 2000.0,
    silent: float = 0.0,
    movements: int = 0,
) -> mne.io.RawArray:
    """Four EEG channels and an ECG: brain-like noise, mains, and whole or cut-off volumes of the phantom's artifact."""
    habits = replace(HABITS[3], sfreq=sfreq, t_r=t_r)
    duration = lead + n_scanned * t_r + tail
    timing = Timing(duration, lead + t_r * np.arange(int(np.ceil(n_scanned))), t_r)
    n_times = round(duration * sfreq)
    data = np.cumsum(rng.normal(0, 1.0, (5, n_times)), axis=1)
    data = 10 * (data - data.mean(1, keepdims=True)) / data.std(1, keepdims=True) + rng.normal(0, 2, (5, n_times))
    data += 5 * np.sin(2 * np.pi * 50 * np.arange(n_times) / sfreq)
    volume = _gradient_volume(habits, timing, rng)
    volume = volume[: round((1 - silent) * len(volume))]
    stop = min(n_times, round((lead + n_scanned * t_r) * sfreq))
    for start in np.round(timing.triggers_V * sfreq).astype(int):
        length = max(0, min(start + len(volume), stop) - start)
        data[:, start : start + length] += gradient_uv * np.linspace(0.5, 1, 5)[:, None] * volume[:length]
    for at in rng.integers(0, n_times - 200, movements):
        data[:, at : at + 100] += 300 * rng.normal(size=(5, 1)) * np.hanning(100)
    info = mne.create_info(["Fp1", "Cz", "O1", "O2", "ECG"], sfreq, ["eeg"] * 4 + ["ecg"])
    return mne.io.RawArray(data * 1e-6, info, verbose="error")


@pytest.mark.parametrize(("sfreq", "t_r"), [(250.0, 2.16), (1000.0, 0.8), (1000.0, 2.1), (5000.0, 2.0)])
def test_first_and_last_volume_are_found_within_the_resolution(rng, sfreq: float, t_r: float):
    found = scan_evidence(eeg(rng, sfreq=sfreq, t_r=t_r, movements=5), t_r)
    assert found.artifact_onset == pytest.approx(LEAD, abs=RESOLUTION_S)
    assert found.artifact_end == pytest.approx(LEAD + N * t_r, abs=2 * RESOLUTION_S)


@pytest.mark.parametrize("silent", [0.2, 0.5])
def test_a_silent_rest_of_the_volume_belongs_to_it(rng, silent: float):
    found = scan_evidence(eeg(rng, silent=silent), 2.1)
    assert found.artifact_onset == pytest.approx(LEAD, abs=RESOLUTION_S)
    assert found.artifact_end == pytest.approx(LEAD + N * 2.1, abs=2 * RESOLUTION_S)


def test_a_scan_stopped_by_hand_ends_inside_a_volume(rng):
    found = scan_evidence(eeg(rng, n_scanned=N + 0.4), 2.1)
    assert found.artifact_end == pytest.approx(LEAD + (N + 0.4) * 2.1, abs=0.08)
    markers = LEAD + 2.1 * np.arange(N + 1)
    aligned = align(
        markers,
        n_volumes=N,
        t_r=2.1,
        start_time=0,
        eeg_duration=LEAD + (N + 0.4) * 2.1 + TAIL,
        source="x",
        evidence=found,
    )
    assert (aligned.verdict, [repair.kind for repair in aligned.repairs]) == ("repaired", ["extra-dropped"])


def test_an_end_without_quiet_eeg_beside_it_is_not_shown(rng):
    late = scan_evidence(eeg(rng, lead=0.0), 2.1)
    assert late.artifact_onset is None
    assert late.artifact_end == pytest.approx(N * 2.1, abs=2 * RESOLUTION_S)
    early = scan_evidence(eeg(rng, tail=0.0), 2.1)
    assert early.artifact_end is None
    assert early.artifact_onset == pytest.approx(LEAD, abs=RESOLUTION_S)
    assert scan_evidence(eeg(rng, lead=0.0, tail=0.0), 2.1) == ScanEvidence()


def test_clean_eeg_shows_nothing(rng):
    assert scan_evidence(eeg(rng, gradient_uv=0.0, movements=20), 2.1) == ScanEvidence()


def test_loud_eeg_that_does_not_repeat_is_no_artifact(rng):
    raw = eeg(rng, gradient_uv=0.0)
    raw.load_data()
    raw._data[:, 20000:60000] += rng.normal(0, 500e-6, (5, 40000))
    assert scan_evidence(raw, 2.1) == ScanEvidence()


def test_protocol_gives_the_first_volume():
    raw = eeg(np.random.default_rng(0), gradient_uv=0.0)
    found = scan_evidence(raw, 2.1, protocol_first=34.4, protocol_offset=22.0)
    assert found.protocol_onset == pytest.approx(12.4)
    assert found.artifact_onset is None


def test_lost_and_extra_triggers_of_the_right_count_are_set_right_by_the_eeg(rng):
    raw = eeg(rng, movements=3)
    scanned = LEAD + 2.1 * np.arange(N)
    alike = np.append(scanned[1:], scanned[-1] + 2.1)  # the first lost, a stray one after the last
    facts = {"n_volumes": N, "t_r": 2.1, "start_time": 0.0, "eeg_duration": raw.n_times / 1000, "source": "x.vhdr"}
    assert align(alike, **facts).verdict == "unverified"
    found = align(alike, evidence=scan_evidence(raw, 2.1, alike), sfreq=1000.0, **facts)
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.triggers, scanned, atol=1e-3)
    heartbeat = 0.7 + 2.1 * np.arange(int(raw.n_times / 2100))
    with pytest.raises(AlignmentError, match="more"):
        align(heartbeat, evidence=scan_evidence(raw, 2.1, heartbeat), sfreq=1000.0, **facts)
