"""Electrode positions in every frame and unit that was met in public data (catalogue item 16)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import mne
import numpy as np
import pytest

from xsite.data.electrodes import attach_electrodes, read_electrodes
from xsite.errors import FormatError
from xsite.signals.channel_names import canonical_name
from xsite.signals.montage import locate
from xsite.signals.positions import place_electrodes, template_positions
from xsite.signals.spline import fit_sphere

_NAMES = """
    Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fz Cz Pz Oz FC1 FC2 CP1 CP2 FC5 FC6 CP5 CP6 TP9 TP10 POz
"""
BC31 = tuple(_NAMES.split())
HEAD = template_positions(BC31)
CENTRE, RADIUS, _ = fit_sphere(HEAD)
SPHERE = (HEAD - CENTRE) / np.linalg.norm(HEAD - CENTRE, axis=1, keepdims=True)
NOSE_X = np.column_stack([SPHERE[:, 1], -SPHERE[:, 0], SPHERE[:, 2]])  # x = nose, y = left
RAS = "x=right y=nose z=up"


@pytest.mark.parametrize(
    ("numbers", "source"),
    [
        (HEAD, "file"),
        (HEAD * 1000, f"file (mm, {RAS})"),
        (HEAD * 100, f"file (cm, {RAS})"),
        (HEAD / 1000, f"file (m labelled mm, {RAS})"),
        (SPHERE, f"file (unit sphere, {RAS}, moved to the head's centre)"),
        (SPHERE / 1000, f"file (unit sphere labelled mm, {RAS}, moved to the head's centre)"),
        (NOSE_X, "file (unit sphere, x=nose y=left z=up, moved to the head's centre)"),  # EEGLAB, NATVIEW
        (NOSE_X * RADIUS, "file (m, x=nose y=left z=up, moved to the head's centre)"),
        ((HEAD - [0, 0, 0.05]) * 1000, f"file (mm, {RAS}, moved to the head's centre)"),
    ],
)
def test_item_16_unit_axes_and_origin_are_recognised(numbers: np.ndarray, source: str):
    placed = place_electrodes(numbers, BC31)
    assert placed.source == source
    assert placed.notes == {}
    limit = 0.012 if "sphere" in source or "nose y" in source else 0.002  # the template's shell is not round
    assert np.linalg.norm(placed.positions_C3 - HEAD, axis=1).max() < limit


def test_item_16_measured_positions_are_not_smoothed_away(rng: np.random.Generator):
    measured = HEAD + rng.normal(0, 0.004, HEAD.shape)
    tilt = mne.transforms.rotation(0.1, 0, 0.05)[:3, :3]  # a cap put on 6 degrees askew
    tilted = (measured - CENTRE) @ tilt.T + CENTRE
    np.testing.assert_allclose(place_electrodes(measured, BC31).positions_C3, measured)
    np.testing.assert_allclose(place_electrodes(tilted * 1000, BC31).positions_C3, tilted)


def test_item_16_scanner_coordinates_are_turned(rng: np.random.Generator):
    turn = mne.transforms.rotation(0.7, -0.5, 0.9)[:3, :3]
    placed = place_electrodes(((HEAD - CENTRE) @ turn.T * 1000) + [60, 110, 80], BC31)
    assert placed.source == "file (mm, axes turned, moved to the head's centre)"
    np.testing.assert_allclose(placed.positions_C3, HEAD, atol=1e-6)


def test_item_16_electrodes_at_the_origin_and_without_a_row(rng: np.random.Generator):
    numbers = HEAD * 1000
    numbers[3] = 0.0
    numbers[5] = np.nan
    numbers[7] = CENTRE * 1000 + 4  # zeros of a frame that was moved afterwards
    placed = place_electrodes(numbers, BC31)
    assert placed.notes["at_origin"] == ["F4"]
    assert placed.notes["off_the_head"] == ["P4"]
    assert placed.notes["from_template"] == ["F4", "C4", "P4"]
    np.testing.assert_allclose(placed.positions_C3, HEAD, atol=1e-6)


@pytest.mark.parametrize("numbers", [np.full((31, 3), np.nan), np.zeros((31, 3))])
def test_item_16_no_positions_at_all(numbers: np.ndarray):
    placed = place_electrodes(numbers, BC31)
    assert placed.source == "template 10-05"
    np.testing.assert_array_equal(placed.positions_C3, HEAD)


def test_nonsense_is_refused_with_its_reason(rng: np.random.Generator):
    for numbers, why in [
        (rng.normal(0, 1, (31, 3)), "on no sphere|disagree"),
        (rng.permutation(HEAD), "disagree"),
        (HEAD * [1, 1, 0], "one plane|no sphere|disagree"),
        (np.where(np.arange(31)[:, None] < 12, HEAD, np.nan), "only 12 of 31"),
    ]:
        placed = place_electrodes(numbers, BC31)
        assert placed.source == "template 10-05"
        np.testing.assert_array_equal(placed.positions_C3, HEAD)
        assert re.search(why, placed.notes["refused"]), placed.notes


@pytest.mark.parametrize(
    ("n", "template"), [(32, "GSN-HydroCel-32"), (64, "GSN-HydroCel-65_1.0"), (128, "GSN-HydroCel-129")]
)
def test_item_16_egi_nets_take_the_template_of_their_size(n: int, template: str):
    names = tuple(f"E{i}" for i in range(1, n + 1))
    placed = place_electrodes(np.full((n, 3), np.nan), names)
    assert placed.source == f"template {template}"
    assert np.isfinite(placed.positions_C3).all()
    assert 0.08 < fit_sphere(placed.positions_C3).radius < 0.12
    # a file with those positions in centimetres, x towards the nose
    turned = placed.positions_C3[:, [1, 0, 2]] * [100, -100, 100]
    np.testing.assert_allclose(place_electrodes(turned, names).positions_C3, placed.positions_C3, atol=1e-6)


def test_real_vhdr_of_noddi_is_a_unit_sphere(shared_data: Callable[[str], Path]):
    """NODDI's derivative header gives radius 1, theta and phi; MNE makes a sphere around the head frame's origin."""
    path = shared_data("sites/noddi-osf-94c5t/derivatives/sub-36/eeg/sub-36_task-rest_eeg.vhdr")
    text = path.read_text(encoding="utf-8", errors="replace")
    rows = [line.split("=")[1].split(",") for line in text.split("[Coordinates]")[1].splitlines() if "=" in line[:6]]
    names = [
        line.split("=")[1].split(",")[0] for line in text.split("[Channel")[1].splitlines() if line.startswith("Ch")
    ]
    radius, theta, phi = (np.array([float(row[i]) for row in rows[: len(names)]]) for i in range(3))
    theta, phi = np.radians(theta), np.radians(phi)
    xyz = radius[:, None] * np.column_stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
    kept = [i for i, name in enumerate(names) if name != "ECG"]
    placed = place_electrodes(xyz[kept], [names[i] for i in kept])
    assert placed.source == f"file (unit sphere, {RAS}, moved to the head's centre)"
    expected = template_positions([names[i] for i in kept])
    assert np.median(np.linalg.norm(placed.positions_C3 - expected, axis=1)) < 0.012


@pytest.mark.parametrize(
    ("relative", "source"),
    [
        ("ds004917/sub-05/eeg/sub-05_task-pdm_electrodes.tsv", "moved"),  # says CapTrak, is scanner space; impedances
        ("ds002814/sub-01/ses-eeg/sub-01_ses-eeg_task-categorySelectivity_electrodes.tsv", "file (mm"),
    ],
)
def test_item_16_real_electrode_tables(shared_data: Callable[[str], Path], relative: str, source: str):
    places = read_electrodes(shared_data(f"sites/lookalikes-not-simultaneous/{relative}"))
    names = [canonical_name(name) for name in places]
    placed = place_electrodes(np.stack(list(places.values())), names)
    assert source in placed.source, placed
    known = np.isfinite(template_positions(names)).all(1)
    apart = np.linalg.norm(placed.positions_C3 - template_positions(names), axis=1)[known]
    assert np.median(apart) < 0.02


def test_item_16_table_beside_the_eeg(tmp_path: Path, rng: np.random.Generator):
    """Inherited from the session's folder, an impedance column, a channel without a row, one at the origin."""
    folder = tmp_path / "sub-01" / "ses-1" / "eeg"
    folder.mkdir(parents=True)
    eeg = folder / "sub-01_ses-1_task-rest_eeg.vhdr"
    rows = [
        f"{name} \t{x * 1000:.4f}\t {y * 1000:.4f}\t{z * 1000:.4f}\t5 "
        for name, (x, y, z) in zip(BC31, HEAD, strict=True)
    ]
    rows[4] = f"{BC31[4]}\t0\t0\t0\t0"
    rows[9] = "O2\tn/a\tn/a\tn/a\t3"
    text = "\n".join(["name\tx\ty\tz\timpedance ", *rows[:-1]])
    (folder.parent / "sub-01_ses-1_electrodes.tsv").write_text(text + "\n", encoding="utf-8")
    raw = mne.io.RawArray(np.zeros((32, 10)), mne.create_info([*BC31, "ECG"], 200.0, "eeg"), verbose="error")
    assert attach_electrodes(raw, eeg) == 29
    placed = locate(raw, BC31, BC31)
    assert placed.source == f"file (mm, {RAS})"
    assert placed.notes == {"at_origin": [BC31[4]], "from_template": [BC31[4], "O2", "POz"]}
    np.testing.assert_allclose(placed.positions_C3, HEAD, atol=1e-6)
    (folder / "sub-01_ses-1_task-rest_space-CapTrak_electrodes.tsv").write_text("name\tx\ty\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"space-CapTrak_electrodes.tsv: no columns \['z'\]"):
        attach_electrodes(raw, eeg)
