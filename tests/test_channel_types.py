"""Types and units by content, where the sidecar is wrong (catalogue items 12, 13 and 15)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest

from xsite.errors import ChannelError, SiteError
from xsite.signals.channel_types import content_type, decide_types
from xsite.signals.eeg import clean_eeg
from xsite.signals.units import fitting_factor, robust_spread
from xsite.site import Site

SITE = Site(name="here", sfreq=500, t_r=2.0, line_freq=50, volume_marker="R128")
SFREQ, SECONDS = 500.0, 60
T = np.arange(int(SFREQ * SECONDS)) / SFREQ
NAMES = ("Fp1", "Fp2", "C3", "C4", "O1", "O2")


def eeg(rng: np.random.Generator, n: int = 1) -> np.ndarray:
    """Pink noise with alpha, 15 µV."""
    freqs = np.fft.rfftfreq(len(T), 1 / SFREQ)
    spectrum = np.fft.rfft(rng.normal(size=(n, len(T))), axis=1) / np.maximum(freqs, 0.5) ** 0.7
    noise = np.fft.irfft(spectrum, len(T), axis=1)
    return 15 * noise / noise.std(1, keepdims=True) + 8 * np.sin(2 * np.pi * 10 * T)


def beats(rng: np.random.Generator, rate: float = 1.15) -> np.ndarray:
    """Onsets of heartbeats with a natural variability of some percent."""
    return np.cumsum(rng.normal(1 / rate, 0.04 / rate, int(SECONDS * rate * 1.2)))


def ecg(rng: np.random.Generator, size: float = 900.0) -> np.ndarray:
    wave = sum(
        size * (np.exp(-(((T - b) / 0.012) ** 2)) + 0.2 * np.exp(-(((T - b - 0.25) / 0.05) ** 2))) for b in beats(rng)
    )
    return wave + rng.normal(0, 5, len(T))


def ballistocardiogram(rng: np.random.Generator) -> np.ndarray:
    pulse = sum(60 * np.exp(-(((T - b - 0.2) / 0.06) ** 2)) * np.sin(25 * (T - b)) for b in beats(rng))
    return eeg(rng)[0] + pulse


def raw_of(rows: dict[str, np.ndarray], types: str | list[str] = "eeg", unit: float = 1e-6) -> mne.io.RawArray:
    return mne.io.RawArray(
        np.stack(list(rows.values())) * unit, mne.create_info(list(rows), SFREQ, types), verbose="error"
    )


def with_eeg(rng: np.random.Generator, **others: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, eeg(rng, len(NAMES)), strict=True)) | others


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda rng: ecg(rng), "ecg"),
        (lambda rng: -ecg(rng, 400), "ecg"),
        (lambda rng: ballistocardiogram(rng), None),
        (lambda rng: eeg(rng)[0], None),
        (lambda rng: eeg(rng)[0] + 3000 * np.sin(2 * np.pi * 0.01 * T), None),  # drift of a DC amplifier
        (lambda rng: np.round(eeg(rng)[0] * 2) / 2, None),  # int16 at half a microvolt
        (lambda rng: 4 + sum(np.exp(-(((T - b) / 3) ** 2)) for b in (5, 19, 33, 51)), "gsr"),
        (lambda rng: 5 * np.repeat(rng.integers(0, 4, 60), int(SFREQ)), "stim"),
        (lambda rng: 20 * np.diff(rng.normal(size=len(T) + 1)), "emg"),
        (lambda rng: np.full(len(T), 7.0), "misc"),
        (lambda rng: np.full(len(T), np.nan), None),
        (lambda rng: ecg(rng)[:1000], None),  # two seconds tell nothing
    ],
)
def test_content_type(build: Callable[[np.random.Generator], np.ndarray], kind: str | None, rng: np.random.Generator):
    found, evidence = content_type(build(rng), SFREQ, typical=25.0)
    assert found == kind, evidence
    assert evidence


def test_item_12_ecg_typed_misc_and_loops_typed_misc(rng: np.random.Generator):
    rows = with_eeg(rng, BIP7=ecg(rng), heartish=ecg(rng), CWL1=10 * eeg(rng)[0], Oz=eeg(rng)[0])
    raw = raw_of(rows, ["eeg"] * 6 + ["misc"] * 4)
    verdicts = {v.file_name: v for v in decide_types(raw, SITE)}
    assert verdicts["heartish"].kind == "ecg"
    assert "per minute" in verdicts["heartish"].evidence
    assert verdicts["CWL1"].kind == "misc"
    assert verdicts["Oz"].kind == "eeg"  # typed MISC, named as an electrode, and it looks like one
    loops = decide_types(raw, replace(SITE, loops=("heartish",)))
    assert {v.file_name: v.kind for v in loops}["heartish"] == "misc"


def test_item_12_everything_typed_eeg(rng: np.random.Generator):
    """Names first (ECG, EMG, GSR, Niazy's all-EEG file), then content; every correction leaves its evidence."""
    held = np.repeat(rng.integers(0, 5, 20).astype(float), len(T) // 20)
    rows = with_eeg(rng, ECG=ecg(rng), EMG=eeg(rng)[0], GSR=T * 0.1, chan40=ecg(rng), ft_x=held, HEOG=eeg(rng)[0])
    clean = clean_eeg(raw_of(rows), SITE, notch=False, source="x.edf")
    assert clean.montage.ch_names == NAMES
    types = {fix["channel"]: fix for fix in clean.steps[0]["types"]}
    assert {name: fix["to"] for name, fix in types.items()} == {
        "ECG": "ecg",
        "EMG": "emg",
        "GSR": "gsr",
        "chan40": "ecg",
        "ft_x": "stim",
        "HEOG": "eog",
    }
    assert types["ECG"]["evidence"] == "name 'ECG'"
    assert types["chan40"]["evidence"].startswith("signal: peaks of")
    assert types["ft_x"]["evidence"].startswith("signal: 5 levels, held")


def test_item_12_unknown_channel_that_could_be_eeg_is_not_guessed(rng: np.random.Generator):
    with pytest.raises(ChannelError, match=r"unknown channel names without position: \['chan40'\]"):
        clean_eeg(raw_of(with_eeg(rng, chan40=eeg(rng)[0])), SITE, source="x.edf")


def test_item_13_ecg_in_the_middle_two_of_them_and_behaviour(rng: np.random.Generator):
    rows = with_eeg(rng)
    rows = dict(list(rows.items())[:3]) | {"ECG": ecg(rng)} | dict(list(rows.items())[3:])
    rows |= {"ECG2": ecg(rng), "EOGh": eeg(rng)[0], "EOGv": eeg(rng)[0], "reponse": T}
    clean = clean_eeg(raw_of(rows), SITE, notch=False, source="x.edf")
    assert clean.montage.ch_names == NAMES
    expected = np.stack([rows[name] for name in NAMES])
    r = [np.corrcoef(a, b[:: len(b) // len(a)][: len(a)])[0, 1] for a, b in zip(clean.eeg_CT, expected, strict=True)]
    assert len(r) == 6  # rows stayed with their names across the ECG
    assert clean.eeg_CT.shape[0] == len(NAMES)


def test_item_13_no_ecg_at_all_changes_nothing(rng: np.random.Generator):
    clean = clean_eeg(raw_of(with_eeg(rng)), SITE, notch=False, source="x.edf")
    assert "types" not in clean.steps[0]
    assert [step["step"] for step in clean.steps] == ["pick", "resample"]


def test_item_15_volt_labelled_microvolt_is_refused_with_the_factor(rng: np.random.Generator):
    for unit, factor in ((1e-12, "1e+06"), (1e-9, "1000"), (1e-3, "0.001"), (1.0, "1e-06")):
        with pytest.raises(ChannelError, match=rf"sub-3: .*write eeg_scale: {factor} into".replace("+", r"\+")):
            clean_eeg(raw_of(with_eeg(rng), unit=unit), SITE, source="sub-3")


@pytest.mark.parametrize("unit", [1e-12, 1e-9, 1e-6, 1e-3, 1.0])
def test_item_15_unit_is_corrected_where_the_site_says_so(rng: np.random.Generator, unit: float):
    rows = with_eeg(rng)
    expected = clean_eeg(raw_of(rows), SITE, source="x").eeg_CT
    for scale in ("detect", 1e-6 / unit):
        clean = clean_eeg(raw_of(rows, unit=unit), replace(SITE, eeg_scale=scale), source="x")
        np.testing.assert_allclose(clean.eeg_CT, expected, rtol=1e-3, atol=1e-3)
        steps = [step for step in clean.steps if step["step"] == "unit"]
        assert len(steps) == (unit != 1e-6)
        if steps:
            assert steps[0]["factor"] == pytest.approx(1e-6 / unit)
            assert "detect" in steps[0]["evidence"] or "eeg_scale" in steps[0]["evidence"]


def test_item_15_one_channel_of_another_unit_is_named(rng: np.random.Generator):
    rows = with_eeg(rng)
    rows["C3"] = rows["C3"] * 1000
    step = next(s for s in clean_eeg(raw_of(rows), SITE, source="x").steps if s["step"] == "unit")
    assert len(step["outlying"]) == 1
    assert step["outlying"][0].startswith("C3 ")


def test_scale_is_a_positive_factor():
    with pytest.raises(SiteError, match="eeg_scale is -1"):
        replace(SITE, eeg_scale=-1)


def test_spread_ignores_drift_and_factor_is_unique(rng: np.random.Generator):
    rows = np.stack([eeg(rng)[0], eeg(rng)[0] + 5000 * np.sin(2 * np.pi * 0.005 * T)])
    plain, drifting = robust_spread(rows, SFREQ)
    assert drifting == pytest.approx(plain, rel=0.6)
    for spread in np.geomspace(1.01, 199, 9):
        assert fitting_factor(spread) == 1
        assert fitting_factor(spread * 1e3) in (1e-3,)
        assert fitting_factor(spread * 1e-6) == 1e6
    assert fitting_factor(500.0) is None


def test_item_15_excluded_channels_removed_from_the_matrix_need_names(rng: np.random.Generator):
    """ds002739: row i is not electrode i; only a list of names of the kept rows makes such a file readable."""
    raw = raw_of({f"row{i}": row for i, row in enumerate(eeg(rng, 4))})
    with pytest.raises(ChannelError, match="unknown channel names"):
        clean_eeg(raw, SITE, source="sub-01.mat")
    named = replace(SITE, rename={"row0": "Fp1", "row1": "Fz", "row2": "Cz", "row3": "Oz"})
    assert clean_eeg(raw, named, source="sub-01.mat").montage.ch_names == ("Fp1", "Fz", "Cz", "Oz")


def test_real_mixed_units(shared_data: Callable[[str], Path]):
    """MNE's BrainVision test header gives every channel another unit; samples are the same as in the plain header."""
    folder = "data/real/formats/brainvision/tests/data"
    plain, mixed = (
        mne.io.read_raw_brainvision(shared_data(f"{folder}/{name}.vhdr"), verbose="error")
        for name in ("test", "test_units")
    )
    assert {v.kind for v in decide_types(plain, SITE)} >= {"eeg"}
    kinds = {v.file_name: v.kind for v in decide_types(mixed, SITE)}
    assert kinds["Fz"] == "eeg"
