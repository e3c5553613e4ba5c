"""Spherical splines against MNE and against dipole fields, and the canonical montage of stores with mixed caps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
import torch

from xsite.data.harmonize import harmonize, harmonize_eeg
from xsite.data.spline_plan import CANONICAL, MAX_ANGLE, canonical_montage, spline_plan
from xsite.data.windows import build_source
from xsite.errors import ChannelError
from xsite.experiment import Experiment, parse_experiment
from xsite.experiment_parts import Data
from xsite.phantom.head import dipoles, electrode_positions, leadfield
from xsite.recording import Montage, Parcellation, Recording, RecordingKey
from xsite.runtime.inputs import Facts, StudyData, tell_of_filled_channels
from xsite.signals.positions import template_positions
from xsite.signals.spline import directions, fit_sphere, nearest_angle, spline_matrix

_CAP = """
    Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fz Cz Pz Oz FC1 FC2 CP1 CP2 FC5 FC6 CP5 CP6 TP9 TP10 POz P9 P10
"""
CAP = tuple(_CAP.split())
BRAIN = np.array([0, -15, 10])  # its middle in MNI space, mm
LOW = ("TP9", "TP10", "P9", "P10")
HIGH = tuple(name for name in CAP if name not in LOW)


def fields(names: tuple[str, ...], seed: int, n: int = 400) -> np.ndarray:
    """Potentials of cortical dipoles of every direction at the electrodes, microvolt, average reference."""
    rng = np.random.default_rng(seed)
    places = rng.normal(size=(n, 3))
    places *= rng.uniform(60, 85, (n, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    rr, nn = dipoles(places + BRAIN, [tuple(rng.normal(size=3)) for _ in range(n)])
    gain = leadfield(electrode_positions(names), rr, nn)
    gain = gain - gain.mean(0)
    return np.asarray(10 * gain / gain.std(0))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]))


def as_raw(data: np.ndarray) -> mne.io.RawArray:
    raw = mne.io.RawArray(data * 1e-6, mne.create_info(list(CAP), 100.0, "eeg"), verbose="error")
    places = dict(zip(CAP, electrode_positions(CAP), strict=True))
    return raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), verbose="error")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.filterwarnings("ignore")
def test_low_electrodes_come_back_as_well_as_from_interpolate_bads(seed: int):
    """mne-tools/mne-python#14153: low electrodes are lost where directions start at the wrong origin."""
    data = fields(CAP, seed)
    kept, low = [CAP.index(name) for name in HIGH], [CAP.index(name) for name in LOW]
    places = electrode_positions(CAP)
    centre = fit_sphere(places[kept]).centre
    seen = directions(places, centre)
    ours = spline_matrix(seen[kept], seen[low]) @ data[kept]
    wrong = spline_matrix(seen[kept], directions(places, np.zeros(3))[low]) @ data[kept]
    raw = as_raw(data)
    raw.info["bads"] = list(LOW)
    raw.interpolate_bads(reset_bads=False, verbose="error")  # its own origin fit
    theirs = raw.get_data(picks=list(LOW)) * 1e6
    r = correlation(ours, data[low])
    assert r >= correlation(theirs, data[low]) - 0.02
    assert r == pytest.approx(0.88, abs=0.03)
    assert correlation(wrong, data[low]) < r - 0.05


@pytest.mark.filterwarnings("ignore")
def test_same_numbers_as_mne_with_the_same_origin():
    data, places = fields(CAP, 7), electrode_positions(CAP)
    kept, low = [CAP.index(name) for name in HIGH], [CAP.index(name) for name in LOW]
    centre = fit_sphere(places[kept]).centre
    seen = directions(places, centre)
    ours = spline_matrix(seen[kept], seen[low]) @ data[kept]
    raw = as_raw(data)
    raw.info["bads"] = list(LOW)
    raw.interpolate_bads(reset_bads=False, origin=tuple(centre), verbose="error")
    np.testing.assert_allclose(raw.get_data(picks=list(LOW)) * 1e6, ours, atol=1e-8)
    target = mne.channels.make_dig_montage(dict(zip(CAP, places, strict=True)), coord_frame="head")
    moved = as_raw(data).pick(list(HIGH)).interpolate_to(target, origin=tuple(centre), method="spline", reg=1e-5)
    np.testing.assert_allclose(moved.get_data(picks=list(LOW)) * 1e6, ours, atol=1e-6)


def test_rows_sum_to_one_and_sources_come_back(rng: np.random.Generator):
    seen = directions(electrode_positions(CAP), fit_sphere(electrode_positions(CAP)).centre)
    matrix = spline_matrix(seen, directions(rng.normal(size=(50, 3)), np.zeros(3)))
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-9)
    np.testing.assert_allclose(spline_matrix(seen, seen, smoothing=0), np.eye(len(CAP)), atol=1e-6)
    np.testing.assert_allclose(nearest_angle(seen, seen), 0, atol=1e-4)


def test_sphere_is_found_in_any_unit_and_nonsense_is_refused(rng: np.random.Generator):
    points = directions(rng.normal(size=(40, 3)), np.zeros(3))
    for scale in (1e-4, 0.09, 90.0):
        centre, radius, misfit = fit_sphere((points + np.array([0.1, -0.3, 0.5])) * scale)
        np.testing.assert_allclose(centre, np.array([0.1, -0.3, 0.5]) * scale, rtol=1e-6)
        assert radius == pytest.approx(scale, rel=1e-6)
        assert misfit < 1e-6
    with pytest.raises(ValueError, match="one plane"):
        fit_sphere(points * [1, 1, 0] / np.linalg.norm(points * [1, 1, 0], axis=1, keepdims=True))
    with pytest.raises(ValueError, match="7 electrodes"):
        fit_sphere(points[:7])


def test_threshold_of_the_mask_lies_where_nine_in_ten_electrodes_still_have_a_high_r():
    """Electrodes inside the cap held out with their neighbours, and half caps: what MAX_ANGLE is chosen by."""
    more = "AFz F1 F2 C1 C2 P1 P2 CPz FC3 FC4 CP3 CP4 FT7 FT8 AF7 AF8 F5 F6 C5 C6 P5 P6 TP7 TP8 PO3 PO4 PO7 PO8 Fpz"
    names = (*CAP, *more.split())
    rng = np.random.default_rng(0)
    places = rng.normal(size=(400, 3))
    places *= rng.uniform(30, 75, (400, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    kinds = [None if i % 2 else tuple(rng.normal(size=3)) for i in range(400)]
    rr, nn = dipoles(places + BRAIN, kinds)
    gain = leadfield(electrode_positions(names), rr, nn)
    data = (gain / np.linalg.norm(gain, axis=0)) @ rng.normal(size=(400, 300))  # EEG: many dipoles at once
    data -= data.mean(0)
    seen = directions(electrode_positions(names), fit_sphere(electrode_positions(names)).centre)
    inside = [seen @ seen[held] < np.cos(np.radians(hole)) for held in range(len(names)) for hole in (18, 24, 50, 65)]
    halves = [seen @ axis > rng.uniform(-0.3, 0.3) for axis in directions(rng.normal(size=(60, 3)), np.zeros(3))]
    for splits, least in ((inside, 0.9), (halves, 0.85)):
        found = []
        for kept in (kept for kept in splits if kept.sum() >= 8):
            angle = nearest_angle(seen[kept], seen[~kept])
            filled = spline_matrix(seen[kept], seen[~kept]) @ data[kept]
            found += [(a, np.corrcoef(x, y)[0, 1]) for a, x, y in zip(angle, filled, data[~kept], strict=True)]
        angle, r = np.array(found).T
        assert np.quantile(r[angle <= MAX_ANGLE], 0.1) > least
        assert np.quantile(r[angle > 1.5 * MAX_ANGLE], 0.1) < 0.8


def real_like(make_recording: Callable[..., Recording], site: str, names: tuple[str, ...], **more: object) -> Recording:
    recording = make_recording(site, ch_names=names, **more)
    places = template_positions(names)
    data = np.random.default_rng(3).normal(size=(60, recording.eeg.shape[1]))
    whole = leadfield_of(names) @ data
    return replace(recording, montage=Montage(names, places), eeg=(20 * whole / whole.std()).astype(np.float32))


def leadfield_of(names: tuple[str, ...]) -> np.ndarray:
    rng = np.random.default_rng(5)
    places = rng.normal(size=(60, 3))
    places *= rng.uniform(40, 80, (60, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    rr, nn = dipoles(places + BRAIN, [tuple(rng.normal(size=3)) for _ in range(60)])
    gain = leadfield(electrode_positions(names), rr, nn)
    return np.asarray(gain / np.linalg.norm(gain, axis=0))


SMALL = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Fz", "Cz", "Pz", "T7", "T8", "F7", "F8")


def test_item_14_spline_fills_missing_channels_and_masks_far_ones(make_recording):
    recording = real_like(make_recording, "alpha", SMALL)
    wanted = ("Fp1", "FCz", "POz", "TP9", "Iz")
    plan = spline_plan(recording.montage, wanted)
    assert plan.which(plan.recorded_D) == ("Fp1",)
    assert set(plan.which(plan.usable_D)) >= {"Fp1", "FCz", "POz"}
    assert (plan.usable_D == (plan.recorded_D | (plan.angle_D <= MAX_ANGLE))).all()
    front = ("Fp1", "Fp2", "F3", "F4", "F7", "F8", "Fz", "C3", "C4", "Cz")
    of_front = spline_plan(Montage(front, template_positions(front)), wanted)
    assert of_front.which(~of_front.usable_D) == ("POz", "TP9", "Iz")  # nobody knows the back of this head
    assert not of_front.weights_DC[~of_front.usable_D].any()
    chosen = harmonize(recording, wanted, channels="spline", reference="native")
    np.testing.assert_allclose(chosen.eeg_DT[0], recording.eeg[0], rtol=1e-5)  # recorded ones are not touched
    assert not chosen.eeg_DT[~plan.usable_D].any()
    truth = leadfield_of(("FCz", "POz")) @ np.random.default_rng(3).normal(size=(60, recording.eeg.shape[1]))
    assert correlation(chosen.eeg_DT[1:3], truth) > 0.9


@pytest.mark.parametrize("channels", ["native", "common", "spline"])
def test_item_14_reference_of_the_recording_does_not_matter(make_recording, channels):
    """FCz, ear lobes or nobody knows: after re-referencing the same numbers."""
    recording = real_like(make_recording, "alpha", SMALL)
    other = replace(recording, eeg=recording.eeg - recording.eeg[[3]])
    wanted = CANONICAL if channels == "spline" else SMALL[:9]
    for reference in ("average", ("Cz",), ("T7", "T8")):
        a, b = (harmonize_eeg(r, wanted, reference, channels) for r in (recording, other))
        np.testing.assert_allclose(a, b, atol=1e-3)
    linked = harmonize_eeg(recording, wanted, ("T7", "T8"), channels)
    own = dict(zip(recording.ch_names, recording.eeg, strict=True))
    np.testing.assert_allclose(linked[list(wanted).index("C3")], own["C3"] - (own["T7"] + own["T8"]) / 2, atol=1e-3)
    with pytest.raises(ChannelError, match=r"alpha/sub-01.*data.reference names \['M1'\]"):
        harmonize_eeg(recording, wanted, ("M1",), channels)


def test_item_16_missing_positions_have_a_message(make_recording):
    recording = real_like(make_recording, "alpha", SMALL)
    blind = replace(recording, montage=Montage(tuple(f"X{i}" for i in range(17)), np.full((17, 3), np.nan)))
    with pytest.raises(ChannelError, match=r"alpha/sub-01.*: none of the 32 channels .*without a position: X0, X1"):
        harmonize(blind, CANONICAL, channels="spline")
    half = recording.montage.positions.copy()
    half[3] = np.nan
    plan = spline_plan(Montage(SMALL, half))
    assert plan.unplaced == ("F4",)
    assert plan.recorded_D[CANONICAL.index("F4")]  # known by its name all the same
    few = spline_plan(Montage(("Oz",), template_positions(("Oz",))))  # one occipital channel: ds004478
    assert few.which(few.usable_D) == ("Oz",)


def test_ten_twenty_system_fills_everything_between_its_electrodes():
    names = (*(name for name in SMALL), "P7", "P8")
    plan = spline_plan(Montage(names, template_positions(names)))
    assert plan.usable_D.all(), plan.which(~plan.usable_D)


def test_item_11_an_egi_net_joins_a_canonical_montage(make_recording):
    names = tuple(f"E{i}" for i in range(1, 129))
    recording = make_recording("egi", ch_names=names, n_volumes=5)
    plan = spline_plan(Montage(names, template_positions(names)))
    assert not plan.recorded_D.any()
    assert plan.usable_D.all()
    with pytest.raises(ChannelError, match=r"did you mean 'Fpz'"):
        canonical_montage(("FpzZ",))
    assert recording.eeg.shape[0] == 128


def test_mixed_channel_counts_are_one_store_in_every_mode(make_recording, tmp_path: Path):
    """Native, common and spline through the same call, from a store: 17, 31 and 65 channels and an EGI net."""
    from xsite.data.store import read_recording, write_recording

    big = (*CAP, "AFz", "F1", "F2", "C1", "C2")
    egi = tuple(f"E{i}" for i in range(1, 33))
    made = [
        real_like(make_recording, site, names, n_volumes=12) for site, names in (("a", SMALL), ("b", CAP), ("c", big))
    ]
    net = make_recording("d", ch_names=egi, n_volumes=12)
    made.append(replace(net, montage=Montage(egi, template_positions(egi))))
    for recording in made:
        write_recording(str(tmp_path), recording, fingerprint="x")
    stored = [read_recording(str(tmp_path), recording.key) for recording in made]
    rng = np.random.default_rng(0)
    targets = [rng.normal(size=(r.n_volumes, 3)).astype(np.float32) for r in stored]
    vocabulary = {name: i for i, name in enumerate((*big, *egi, "Fpz"))}

    def index(names):
        return torch.tensor([vocabulary[name] for name in names])

    shared = tuple(name for name in CAP if name in SMALL)
    for channels, names, recordings, n_chans in (
        ("native", None, stored, 38),
        ("common", shared, stored[:3], len(shared)),
        ("spline", CANONICAL, stored, 32),
    ):
        source = build_source(
            recordings,
            ch_names=names,
            ch_index=index,
            targets=targets[: len(recordings)],
            channels=channels,
            reference="average",
        )
        batch, target_BR, mask_BR = source.gather(np.arange(len(source)))
        assert batch.eeg_BCT.shape[1:] == (n_chans, 3200)
        assert batch.eeg_BCT.isfinite().all()
        silent = batch.eeg_BCT.abs().amax(-1) == 0
        assert torch.equal(silent, batch.ch_index_BC == -1)  # masked, and nothing else is zero
        assert mask_BR.all()
        assert target_BR.shape[1] == 3


def test_experiment_knows_spline_montage_and_references():
    experiment = parse_experiment({"data": {"channels": "spline", "montage": ["Cz", "Pz"], "reference": ["TP9"]}}, "x")
    assert experiment.data.reference == ("TP9",)
    assert parse_experiment(experiment.model_dump(mode="json"), "x") == experiment
    assert Experiment(data=Data(channels="spline")).fingerprint != Experiment().fingerprint
    for wrong in ("averge", []):
        with pytest.raises(ValueError, match="reference"):
            parse_experiment({"data": {"reference": wrong}}, "x")


def test_driver_chooses_channels_from_positions_alone(caplog: pytest.LogCaptureFixture):
    """The model gets the canonical montage, closed-form baselines what all recordings can give; the log tells it."""
    front = ("Fp1", "Fp2", "F3", "F4", "F7", "F8", "Fz", "C3", "C4", "Cz")
    montages = {"a": Montage(CAP, template_positions(CAP)), "b": Montage(front, template_positions(front))}
    atlas = Parcellation("p", ("one",), "MNI", "0" * 64)
    facts = {
        RecordingKey(site, "01"): Facts(m.ch_names, m.positions, atlas, np.ones(1), False)
        for site, m in montages.items()
    }
    data = StudyData("store", pd.DataFrame(), dict.fromkeys(facts), facts, ("one",))
    spline = Experiment(data=Data(channels="spline"))
    assert data.ch_names(spline, list(facts)) == CANONICAL
    names, channels = data.baseline_channels(spline)
    assert channels == "spline"
    assert set(front) <= set(names)
    assert "Oz" not in names
    assert set(data.baseline_channels(Experiment())[0]) == set(front)
    tell_of_filled_channels({key: fact.montage for key, fact in facts.items()}, ())
    assert "b, 1 recording: filled in: Fpz" in caplog.text
    assert "masked: " in caplog.text
    blind = Montage(("X1", "X2"), np.full((2, 3), np.nan))
    with pytest.raises(ChannelError, match=r"c/sub-01: none of the 32 channels(.|\n)*d/sub-01: none"):
        tell_of_filled_channels({RecordingKey("c", "01"): blind, RecordingKey("d", "01"): blind}, ())
