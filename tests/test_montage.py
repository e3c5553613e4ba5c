"""Names, types and positions of channels as real files spell them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest

from xsite.errors import ChannelError
from xsite.signals.montage import canonical_name, pick_eeg, read_montage, template_positions, type_from_name
from xsite.site import Site

SITE = Site(name="here", sfreq=200, t_r=2.0, line_freq=50, volume_marker="R128")


def raw_of(names: list[str], types: str | list[str] = "eeg") -> mne.io.RawArray:
    return mne.io.RawArray(np.zeros((len(names), 10)), mne.create_info(names, 200.0, types), verbose="error")


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("FP1", "Fp1"),
        ("EEG Fp1-Ref", "Fp1"),
        ("EEG F1-REF", "F1"),
        ("fp1 ", "Fp1"),
        ("CP5\u00a0", "CP5"),
        ("Fc5.", "FC5"),
        ("T3", "T7"),
        ("t4", "T8"),
        ("T5", "P7"),
        ("EEG T6-A1", "P8"),
        ("FCZ", "FCz"),
        ("POZ", "POz"),
        ("TP9", "TP9"),
        ("AFp1", "AFp1"),
        ("Fp1-F7", "Fp1-F7"),  # bipolar: no single electrode
        ("E17", "E17"),
        ("ECG", "ECG"),
    ],
)
def test_canonical_name(spelling: str, canonical: str):
    assert canonical_name(spelling) == canonical


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ECG", "ecg"),
        ("EKG1", "ecg"),
        ("HEOG", "eog"),
        ("VEOG", "eog"),
        ("EOG1", "eog"),
        ("EEG ECG", "ecg"),
        ("EMG", "emg"),
        ("CWL1", "misc"),
        ("CWL 4", "misc"),
        ("GSR", "gsr"),
        ("Status", "stim"),
        ("STI 014", "stim"),
        ("Resp", "resp"),
        ("reponse", "misc"),
        ("EXG3", "misc"),
        ("Fp1", None),
        ("Cz", None),
        ("C4", None),
        ("E17", None),
        ("TP10", None),
    ],
)
def test_type_from_name(name: str, kind: str | None):
    assert type_from_name(name) == kind


def test_pick_takes_eeg_only_whatever_the_file_types_say():
    raw = raw_of(["FP1", "fp2", "ECG", "CWL1", "Cz", "Status", "GSR"])  # an EDF file types everything EEG
    assert pick_eeg(raw, SITE, source="x.edf") == (("FP1", "fp2", "Cz"), ("Fp1", "Fp2", "Cz"))


def test_site_facts_win():
    site = replace(SITE, rename={"E1": "Fp1", "E2": "Oz"}, ch_types={"Cz": "misc"}, ch_names=("Oz", "Fp1"))
    raw = raw_of(["E1", "E2", "Cz", "E9"], ["misc", "eeg", "eeg", "eeg"])
    assert pick_eeg(raw, site, source="x.set") == (("E2", "E1"), ("Oz", "Fp1"))


def test_all_problems_are_named_at_once():
    site = replace(SITE, ch_names=("Fp1", "Pz", "TP9"))
    with pytest.raises(ChannelError, match=r"sub-1\.edf: channels missing that site 'here' lists: \['Pz', 'TP9'\]"):
        pick_eeg(raw_of(["FP1", "Cz"]), site, source="sub-1.edf")
    with pytest.raises(ChannelError, match=r"unknown channel names without position: \['E17', 'foo'\].*both Fp1"):
        pick_eeg(raw_of(["Fp1", "E17", "foo", "EEG Fp1-Ref"]), SITE, source="sub-1.edf")
    with pytest.raises(ChannelError, match="no EEG channel among"):
        pick_eeg(raw_of(["ECG", "EOG"]), SITE, source="sub-1.edf")


def test_unknown_name_with_a_position_is_kept():
    raw = raw_of(["Fp1", "E17"])
    positions = {"Fp1": [-0.03, 0.11, 0.03], "E17": [0.0, 0.11, 0.05]}
    raw.set_montage(mne.channels.make_dig_montage(positions, coord_frame="head"))
    assert pick_eeg(raw, SITE, source="x")[1] == ("Fp1", "E17")


def _with_positions(positions: np.ndarray, names: tuple[str, ...]) -> mne.io.RawArray:
    raw = raw_of(list(names))
    pairs = dict(zip(names, positions, strict=True))
    return raw.set_montage(mne.channels.make_dig_montage(pairs, coord_frame="head"), verbose="error")


NAMES = ("Fp1", "Fp2", "C3", "C4", "O1", "O2", "Cz", "Pz")


def test_sane_positions_of_the_file_are_kept(rng: np.random.Generator):
    measured = template_positions(NAMES) + rng.normal(0, 0.004, (len(NAMES), 3))
    montage, where = read_montage(_with_positions(measured, NAMES), NAMES, NAMES)
    assert where == "file"
    np.testing.assert_allclose(montage.positions, measured, atol=1e-6)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p / np.linalg.norm(p, axis=1, keepdims=True),  # unit sphere
        lambda p: p * 1000,  # millimetres read as metres
        lambda p: p[:, [1, 0, 2]],  # x towards the nose
        lambda p: p * 0,  # all at the origin
    ],
)
def test_insane_positions_give_way_to_the_template(spoil):
    expected = template_positions(NAMES)
    montage, where = read_montage(_with_positions(spoil(expected), NAMES), NAMES, NAMES)
    assert where == "template 10-05"
    np.testing.assert_allclose(montage.positions, expected)


def test_template_is_a_head():
    positions = template_positions((*NAMES, "nowhere"))
    assert np.isnan(positions[-1]).all()
    assert np.linalg.norm(positions[:-1], axis=1).min() > 0.07
    assert np.linalg.norm(positions[:-1], axis=1).max() < 0.15
    assert positions[0, 0] < 0 < positions[1, 0]  # Fp1 is left
    assert positions[0, 1] > 0 > positions[4, 1]  # and in front of O1


def test_real_eeglab_file(shared_data: Callable[[str], Path]):
    raw = mne.io.read_raw_eeglab(shared_data("data/real/formats/eeglab_data.set"), verbose="error")
    file_names, ch_names = pick_eeg(raw, SITE, source="eeglab_data.set")
    assert len(ch_names) == 30  # 32 channels, EOG1 and EOG2 among them
    assert not {"EOG1", "EOG2"} & set(ch_names)
    montage, where = read_montage(raw, file_names, ch_names)
    assert where == "file"
    r = [np.corrcoef(montage.positions[:, i], template_positions(ch_names)[:, i])[0, 1] for i in range(3)]
    assert min(r) > 0.9
