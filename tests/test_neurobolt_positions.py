"""Electrode places from names alone, against the template head of MNE."""

from __future__ import annotations

import re

import mne
import numpy as np
import pytest

from neurobolt.channels import LABRAM_NAMES
from neurobolt.positions import has_position, unit_position, unit_positions

TEN_TEN = r"(Fp|AF|F|FC|FT|C|T|CP|TP|P|PO|O)(z|\d+)"


@pytest.fixture(scope="module")
def template() -> dict[str, np.ndarray]:
    """Directions from the centre of the sphere through the 10-10 electrodes of MNE's template head, Cz upright."""
    name = "colin27_1005" if "colin27_1005" in mne.channels.get_builtin_montages() else "standard_1005"
    places = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
    inner = np.array([place for name, place in places.items() if re.fullmatch(TEN_TEN, name)])
    design = np.c_[2 * inner, np.ones(len(inner))]
    centre = np.linalg.lstsq(design, (inner**2).sum(1), rcond=None)[0][:3]
    _, y, z = places["Cz"] - centre
    upright = np.array([[1, 0, 0], [0, z, -y] / np.hypot(y, z), [0, y, z] / np.hypot(y, z)])  # turned about the ears
    seen = {name: upright @ (place - centre) for name, place in places.items()}
    return {name: place / np.linalg.norm(place) for name, place in seen.items()}


def degrees(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def test_agrees_with_the_template_head(template):
    ours = [name for name in template if re.fullmatch(TEN_TEN + "|[AM][12]|Iz", name)]
    off = {name: degrees(unit_position(name), template[name]) for name in ours}
    assert len(off) >= 74
    assert max(off.values()) < 10, sorted(off.items(), key=lambda pair: -pair[1])[:5]
    assert np.median(list(off.values())) < 5


def test_half_steps_agree_too(template):
    ours = [name for name in template if has_position(name) and not re.fullmatch(TEN_TEN + "|Nz|[AM][12]", name)]
    off = {name: degrees(unit_position(name), template[name]) for name in ours}
    assert len(off) > 150
    assert max(off.values()) < 13, sorted(off.items(), key=lambda pair: -pair[1])[:5]


def test_every_name_of_the_vocabulary_has_a_place():
    assert [name for name in LABRAM_NAMES if not has_position(name)] == []
    np.testing.assert_allclose(np.linalg.norm(unit_positions(LABRAM_NAMES), axis=1), 1, atol=1e-12)


def test_left_and_right_are_mirror_images():
    for left, right in (("F7", "F8"), ("C3", "C4"), ("FT9", "FT10"), ("O1", "O2"), ("M1", "M2"), ("FTT9h", "FTT10h")):
        np.testing.assert_allclose(unit_position(left) * (-1, 1, 1), unit_position(right), atol=1e-12)
        assert unit_position(left)[0] < 0


def test_old_names_are_the_same_places():
    np.testing.assert_array_equal(unit_position("T3"), unit_position("t7"))
    np.testing.assert_array_equal(unit_position("T6"), unit_position("P8"))


def test_unknown_names_are_refused_or_zero():
    with pytest.raises(ValueError, match="'EOG1'"):
        unit_position("EOG1")
    np.testing.assert_array_equal(unit_positions(["Cz", "EOG1"]), [[0, 0, 1], [0, 0, 0]])
