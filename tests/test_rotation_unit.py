"""Rotations of motion files that are not fMRIPrep's: the site's unit, or one told from their size, with a note."""

from __future__ import annotations

import numpy as np
import pytest
from small_site import small_site
from test_confounds import IMAGE, columns, read

from site_adapters import SITES
from xsite.data.confounds import read_confounds
from xsite.errors import SiteError


def still(n_volumes: int = 200) -> np.ndarray:
    """A subject who hardly moves: rotations below 0.3 degrees, in radians; shifts of 3 µm from volume to volume."""
    rng = np.random.default_rng(3)
    values = np.cumsum(rng.normal(0, 1, (n_volumes, 6)), axis=0)
    return values / np.abs(values).max(0) * [0.05, 0.05, 0.05, *np.deg2rad([0.27, 0.2, 0.15])]


def displacement(table) -> float:
    return float(np.abs(np.diff(columns(table), axis=0) * [1, 1, 1, 50, 50, 50]).sum(1).mean())


def test_degrees_of_a_still_subject_are_not_taken_for_radians(tmp_path):
    path = tmp_path / "rp_asub-01.txt"
    np.savetxt(path, still())
    radians = read(path, 200)
    np.testing.assert_allclose(columns(radians), still())
    assert "taken for radians" in radians.notes[-1]
    assert "guessed" in radians.notes[-1]
    np.savetxt(path, still() * [1, 1, 1, *[180 / np.pi] * 3])
    degrees = read(path, 200)  # 0.27 at most: the maximum alone says nothing
    np.testing.assert_allclose(columns(degrees), still(), atol=1e-12)
    assert displacement(degrees) == pytest.approx(displacement(radians))
    assert "taken for degrees" in degrees.notes[-1]
    assert "guessed" in degrees.notes[-1]


def test_the_sites_rotation_unit_has_the_last_word(tmp_path):
    path = tmp_path / "rp_asub-01.txt"
    np.savetxt(path, still())
    given = read_confounds(path, 200, "motion6", image=IMAGE, rotation_unit="deg")
    np.testing.assert_allclose(columns(given)[:, 3:], np.deg2rad(still()[:, 3:]))
    assert "as the site says" in given.notes[-1]
    np.savetxt(path, still() * [1, 1, 1, *[180 / np.pi] * 3])
    given = read_confounds(path, 200, "motion6", image=IMAGE, rotation_unit="rad")
    np.testing.assert_allclose(columns(given)[:, 3:], np.rad2deg(still()[:, 3:]))
    assert given.notes[-1] == "rotations taken for radians (as the site says)"
    with pytest.raises(SiteError, match="rotation_unit is 'degrees', expected 'rad', 'deg' or nothing"):
        small_site(rotation_unit="degrees")


@pytest.mark.parametrize(
    ("path", "n_volumes"),
    [
        ("ds002336/derivatives/sub-xp101/head_motion/d_sub-xp101_task-eegNF_headmotion.tsv", 205),
        ("ds002338/derivatives/sub-xp201/head_motion/d_sub-xp201_task-MIpre_headmotion.tsv", 332),
        ("ds002739/sub-01/func/sub-01_task-main_run-01_events.tsv", 771),
    ],
)
def test_published_motion_files_hold_radians_and_their_sites_say_so(shared_data, path, n_volumes):
    table = read(shared_data(f"sites/{path}"), n_volumes)
    assert "rotations taken for radians" in table.notes[-1]
    assert SITES[path.split("/")[0]].rotation_unit == "rad"
    assert 0.05 < displacement(table) < 0.4
