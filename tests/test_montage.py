"""Names, types and positions of channels as real files spell them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pytest

from xsite.errors import ChannelError
from xsite.signals.channel_names import bipolar_pair, egi_net, shared_cathode
from xsite.signals.montage import (
    canonical_name,
    choose_channels,
    pick_eeg,
    read_montage,
    template_positions,
    type_from_name,
)
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
        ("CP5\u202f", "CP5"),
        ("\ufeffFp1", "Fp1"),
        ("'Fp1'", "Fp1"),
        ("\u2018O2\u2019", "O2"),
        ("EEG\u00a0C3", "C3"),
        ("EEGFp1", "Fp1"),
        ("EEG Fp1-LE", "Fp1"),
        ("PzV", "PzV"),  # a letter too many takes a fact of the site
        ("e007", "E7"),
        ("EEG 017", "EEG 017"),
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
        ("'ECG\u2019", "ecg"),
        ("ECG2", "ecg"),
        ("EOGL", "eog"),
        ("EOG left", "eog"),
        ("HEOGR", "eog"),
        ("EEGraph", None),
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
    with pytest.raises(ChannelError, match=r"unknown channel names without position: \['E17', 'foo'\].*both 'Fp1'"):
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
def test_insane_positions_are_recognised_or_give_way_to_the_template(spoil):
    expected = template_positions(NAMES)
    montage, where = read_montage(_with_positions(spoil(expected), NAMES), NAMES, NAMES)
    assert where != "file"
    np.testing.assert_allclose(montage.positions, expected, atol=0.01)


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
    assert where.startswith("file (m")  # its sphere lies around the origin, not around the head's centre
    r = [np.corrcoef(montage.positions[:, i], template_positions(ch_names)[:, i])[0, 1] for i in range(3)]
    assert min(r) > 0.9


def test_item_11_names_of_real_sites():
    """FP1 (ds002725), T3 to T6 (Niazy), a no-break space and PzV (ds003574), quotes (ds002336), E1.. (UNAM)."""
    raw = raw_of(["FP1", "T3", "T6", "CP5\u00a0", "PzV", "'Oz'"])
    with pytest.raises(ChannelError, match=r"unknown channel names without position: \['PzV'\]"):
        pick_eeg(raw, SITE, source="sub-01.edf")
    site = replace(SITE, rename={"PzV": "Pz"})
    assert pick_eeg(raw, site, source="sub-01.edf")[1] == ("Fp1", "T7", "P8", "CP5", "Pz", "Oz")
    net = [f"E{i}" for i in range(1, 33)]
    assert pick_eeg(raw_of([*net, "ECG"]), SITE, source="x.set")[1] == tuple(net)
    montage, where = read_montage(raw_of(net), net, net)
    assert where == "template GSN-HydroCel-32"
    assert np.isfinite(montage.positions).all()


def test_item_11_duplicates_after_normalising_are_named():
    with pytest.raises(ChannelError, match=r"'F1' and 'EEG F1-Ref' are both 'F1'; 'T7' and 'T3' are both 'T7'"):
        pick_eeg(raw_of(["F1", "EEG F1-Ref", "T7", "T3"]), SITE, source="x.edf")


def test_item_11_no_names_at_all():
    """ds002734: a matrix without names is refused for training, and read where the site says so."""
    raw = raw_of([str(i) for i in range(1, 9)])
    with pytest.raises(ChannelError, match="unknown channel names without position"):
        pick_eeg(raw, SITE, source="sub-01.mat")
    picked = choose_channels(raw, replace(SITE, unusable="no channel names"), source="sub-01.mat")
    assert picked.ch_names == tuple(str(i) for i in range(1, 9))
    assert picked.notes["unnamed"] == list(picked.ch_names)


@pytest.mark.parametrize(
    ("names", "size"),
    [
        ([f"E{i}" for i in range(1, 33)], 32),
        ([f"E{i}" for i in range(1, 66)], 64),
        ([f"E{i:03d}" for i in range(1, 129)], 128),
        ([f"EEG E{i}" for i in range(1, 258)], 256),
        (["E1", "E2", "Fp1", "Cz"], None),  # eye electrodes of a sleep montage
        (["Fp1", "Cz"], None),
    ],
)
def test_egi_net(names: list[str], size: int | None):
    assert egi_net(names) == size


def test_item_14_bipolar_pairs_are_refused_by_name():
    """ds000116: 43 pairs."""
    raw = raw_of(["F7-T3", "EEG T3-T5", "Fp1", "C4-A1", "ECG"])
    with pytest.raises(ChannelError, match=r"bipolar pairs \['F7-T3', 'EEG T3-T5'\]: each is the difference of two"):
        pick_eeg(raw, SITE, source="sub-01.mat")
    picked = choose_channels(raw, replace(SITE, unusable="bipolar"), source="sub-01.mat")
    assert picked.file_names == ("F7-T3", "EEG T3-T5", "Fp1", "C4-A1")
    facts = {"F7-T3": "bio", "EEG T3-T5": "bio"}
    assert pick_eeg(raw, replace(SITE, ch_types=facts), source="x")[1] == ("Fp1", "C4")


def test_item_14_a_reference_in_every_name_is_no_bipolar_montage():
    names = ["Fp1-Cz", "Fp2-Cz", "O1-Cz", "O2-Cz"]
    assert shared_cathode(names) == "Cz"
    picked = choose_channels(raw_of(names), SITE, source="x.edf")
    assert picked.ch_names == ("Fp1", "Fp2", "O1", "O2")
    assert picked.notes["reference_in_names"] == "Cz"
    assert bipolar_pair("Fp1-Cz") == ("Fp1", "Cz")
    assert shared_cathode(["Fp1-F7", "F7-T3", "T3-T5", "T5-O1"]) is None
