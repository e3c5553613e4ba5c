"""EEG of any rate to microvolt at 200 Hz: no shift, no aliasing, no silent damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest
from scipy.signal import welch

from xsite.errors import ChannelError, FormatError
from xsite.signals import eeg
from xsite.signals.eeg import clean_eeg, resample_valid
from xsite.site import Site

SITE = Site(name="here", sfreq=1000, t_r=2.0, line_freq=50, volume_marker="R128", reference="FCz")
NAMES = ("Fp1", "Fp2", "C3", "C4", "O1", "O2")


def raw_of(data_uv: np.ndarray, sfreq: float, names: tuple[str, ...] = NAMES) -> mne.io.RawArray:
    return mne.io.RawArray(data_uv * 1e-6, mne.create_info(list(names), sfreq, "eeg"), verbose="error")


def noise(rng: np.random.Generator, sfreq: float, seconds: float = 20.0, sd: float = 10.0) -> np.ndarray:
    return rng.normal(0, sd, (len(NAMES), int(seconds * sfreq)))


@pytest.mark.parametrize("sfreq", [5000, 2048, 1024, 1000, 512, 500, 256, 250, 200])
def test_sines_keep_time_phase_and_size_at_every_rate(sfreq: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(eeg, "BLOCK_S", 7.0)  # several blocks, ends included
    n = int(sfreq * 30.337)
    t = np.arange(n) / sfreq
    freqs = np.array([1.0, 4.0, 10.0, 20.0, 40.0, 80.0])[:, None]
    raw = raw_of(4e4 + 30 * np.sin(2 * np.pi * freqs * t + 0.4), sfreq)  # on an offset of 40 mV
    clean = clean_eeg(raw, SITE, notch=False, source="x.vhdr")
    assert clean.eeg_CT.dtype == np.float32
    assert clean.eeg_CT.shape == (6, int(np.floor(n / sfreq * 200 + 1e-9)))
    k = np.arange(clean.eeg_CT.shape[1]) / 200
    expected = 30 * np.sin(2 * np.pi * freqs * k + 0.4)
    expected -= expected.mean(1, keepdims=True)
    inner = slice(100, -100)
    # a shift by one source sample at 5 kHz would be 3 µV at 80 Hz
    np.testing.assert_allclose(clean.eeg_CT[:, inner], expected[:, inner], atol=0.1)
    assert np.abs(clean.eeg_CT - expected).max() < 30  # no ringing from the offset at the ends


def test_impulse_stays_where_it_is(rng: np.random.Generator):
    data = noise(rng, 5000, sd=0.5)
    data[:, 5000 * 8] += 5000
    clean = clean_eeg(raw_of(data, 5000), SITE, source="x.vhdr")
    np.testing.assert_array_equal(np.abs(clean.eeg_CT).argmax(1), 8 * 200)


def test_blocks_do_not_show(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    raw = raw_of(noise(rng, 2048), 2048)
    whole = clean_eeg(raw, SITE, source="x")
    monkeypatch.setattr(eeg, "BLOCK_S", 3.0)
    np.testing.assert_allclose(clean_eeg(raw, SITE, source="x").eeg_CT, whole.eeg_CT, atol=2e-4)


def test_nothing_aliases(rng: np.random.Generator):
    sfreq = 1000
    t = np.arange(20 * sfreq) / sfreq
    raw = raw_of(noise(rng, sfreq, sd=1.0) + 1000 * np.sin(2 * np.pi * 130 * t), sfreq)  # would fold to 70 Hz
    freqs, density = welch(clean_eeg(raw, SITE, source="x").eeg_CT, 200, nperseg=400)
    assert density[:, (freqs > 65) & (freqs < 75)].max() < 0.02  # 1 µV of noise at 1 kHz is .002 µV²/Hz; the tone 2.5e5


def test_line_noise_goes_and_the_neighbourhood_stays(rng: np.random.Generator):
    t = np.arange(30 * 1000) / 1000
    raw = raw_of(noise(rng, 1000, 30) + 50 * np.sin(2 * np.pi * 50 * t) + 20 * np.sin(2 * np.pi * 40 * t), 1000)
    clean = clean_eeg(raw, SITE, source="x")
    freqs, density = welch(clean.eeg_CT, 200, nperseg=400)
    assert density[:, np.abs(freqs - 50) < 0.6].max() < 0.5 * density[:, np.abs(freqs - 30) < 5].mean()
    assert density[:, freqs == 40].mean() == pytest.approx(20**2 / 2 / (0.5 * 1.5), rel=0.1)
    notch = next(step for step in clean.steps if step["step"] == "notch")
    assert notch["freqs_hz"] == [50.0]
    assert notch["line_noise_ratio_before"] > 20
    assert [step["step"] for step in clean.steps] == ["pick", "resample", "notch"]
    assert clean.steps[0]["reference"] == "FCz"


def test_high_pass_is_off_unless_asked_for(rng: np.random.Generator):
    t = np.arange(60 * 250) / 250
    raw = raw_of(noise(rng, 250, 60) + 100 * np.sin(2 * np.pi * 0.05 * t), 250)
    untouched, filtered = (clean_eeg(raw, SITE, l_freq=freq, source="x") for freq in (None, 0.5))
    assert untouched.eeg_CT.std() > 60
    assert filtered.eeg_CT.std() < 15
    assert filtered.steps[-1]["l_freq_hz"] == 0.5


def test_names_types_and_order(rng: np.random.Generator):
    raw = raw_of(noise(rng, 200), 200, ("EEG FP1-Ref", "FP2", "T3", "ECG", "O1", "Cz"))
    site = replace(SITE, ch_names=("O1", "T7", "Fp1"))
    clean = clean_eeg(raw, site, notch=False, source="x")
    assert clean.montage.ch_names == ("O1", "T7", "Fp1")
    expected = raw.get_data(picks=["O1", "T3", "EEG FP1-Ref"]) * 1e6
    np.testing.assert_allclose(clean.eeg_CT, expected - expected.mean(1, keepdims=True), atol=1e-4)
    assert np.isfinite(clean.montage.positions).all()


def test_file_on_disk_equals_file_in_memory(tmp_path: Path, rng: np.random.Generator):
    raw_of(noise(rng, 500), 500).save(tmp_path / "x_raw.fif", verbose="error")
    lazy, loaded = (mne.io.read_raw_fif(tmp_path / "x_raw.fif", preload=p, verbose="error") for p in (False, True))
    a, b = (clean_eeg(raw, SITE, source="x").eeg_CT for raw in (lazy, loaded))
    np.testing.assert_array_equal(a, b)
    assert not lazy.preload


def test_nan_and_infinity_are_named_with_channel_and_file(rng: np.random.Generator):
    data = noise(rng, 500)
    data[2, 100], data[4, 9000] = np.nan, np.inf
    with pytest.raises(ChannelError, match=r"sub-7\.edf: channels \['C3', 'O1'\] hold NaN"):
        clean_eeg(raw_of(data, 500), SITE, source="sub-7.edf")


def test_flat_channels(rng: np.random.Generator):
    data = noise(rng, 500)
    data[3] = 17.0
    clean = clean_eeg(raw_of(data, 500), SITE, source="x")
    assert clean.flat == ("C4",)
    assert clean.montage.ch_names == ("Fp1", "Fp2", "C3", "O1", "O2")
    assert {"step": "drop flat channels", "ch_names": ["C4"]} in clean.steps
    data[4] = 0
    with pytest.raises(ChannelError, match=r"sub-7\.edf: 2 of 6 EEG channels are flat: \['C4', 'O1'\]"):
        clean_eeg(raw_of(data, 500), SITE, source="sub-7.edf")


@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_wrong_unit_is_suspected(rng: np.random.Generator, factor: float):
    with pytest.raises(ChannelError, match=r"robust standard deviation .* the unit is probably wrong"):
        clean_eeg(raw_of(noise(rng, 500) * factor, 500), SITE, source="x")


def test_rate_too_low_is_refused(rng: np.random.Generator):
    with pytest.raises(FormatError, match="64 Hz cannot be brought to 200 Hz"):
        clean_eeg(raw_of(noise(rng, 64), 64), SITE, source="x")


def test_gaps_become_invalid(rng: np.random.Generator):
    raw = raw_of(noise(rng, 500), 500)
    raw.set_annotations(
        mne.Annotations(
            [0.0, 5.0, 10.0, 15.0], [0, 0, 2.0, 0], ["New Segment/", "boundary", "BAD_jump", "Stimulus/S 1"]
        )
    )
    valid_T = np.ones(raw.n_times, bool)
    valid_T[500 * 17 : 500 * 18] = False
    clean = clean_eeg(raw, SITE, valid_T=valid_T, source="x")
    edges = np.flatnonzero(np.diff(clean.valid_T.astype(int))) / 200
    np.testing.assert_allclose(edges, [4.75, 5.25, 9.75, 12.25, 16.75, 18.25], atol=0.02)


def test_short_invalid_stretch_survives_the_change_of_rate():
    valid_T = np.ones(50_000, bool)
    valid_T[25_007] = False  # one sample at 5 kHz, between two samples at 200 Hz
    found = resample_valid(valid_T, 5000, 2000, 200)
    assert not found[1000]
    assert (~found).sum() == pytest.approx(2 * 0.25 * 200, abs=4)


@pytest.mark.parametrize(
    "relative", ["data/real/formats/eeglab_data.set", "data/real/formats/brainvision/tests/data/test.vhdr"]
)
def test_real_files(shared_data: Callable[[str], Path], relative: str):
    path = shared_data(relative)
    read = mne.io.read_raw_eeglab if path.suffix == ".set" else mne.io.read_raw_brainvision
    raw = read(path, preload=False, verbose="error")
    site = replace(SITE, line_freq=60)
    clean = clean_eeg(raw, site, source=path.name)
    assert len(clean.montage.ch_names) >= 20
    assert clean.eeg_CT.shape[1] == int(raw.n_times / raw.info["sfreq"] * 200)
    assert np.isfinite(clean.eeg_CT).all()
    assert 0.1 < np.median(clean.eeg_CT.std(1)) < 500
