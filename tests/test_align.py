"""The trigger audit: what is accepted, what is repaired, what is refused."""

from __future__ import annotations

import mne
import numpy as np
import pytest

from xsite.data.markers import time_breaks
from xsite.errors import AlignmentError
from xsite.signals.align import Alignment, Repair, ScanEvidence, align, align_without_markers

T_R, N, LEAD = 2.1, 100, 20.0
DURATION = LEAD + N * T_R + 5


def train(n: int = N, t_r: float = T_R, first: float = LEAD) -> np.ndarray:
    return first + t_r * np.arange(n)


SCAN = ScanEvidence(artifact_onset=LEAD, artifact_end=LEAD + N * T_R)


def run(markers: np.ndarray, *, n_volumes: int = N, t_r: float = T_R, start_time: float = 0.0, **kwargs) -> Alignment:
    options = {"eeg_duration": DURATION, "source": "sub-01_eeg.vhdr", **kwargs}
    return align(np.asarray(markers), n_volumes=n_volumes, t_r=t_r, start_time=start_time, **options)


def test_exact_train_is_ok_and_start_time_is_added():
    found = run(train()[::-1], start_time=1.05, evidence=SCAN)
    assert (found.verdict, found.repairs) == ("ok", ())
    assert found.confidence > 0.9
    np.testing.assert_allclose(found.volume_onsets, train() + 1.05)
    np.testing.assert_allclose(found.triggers, train())
    assert found.volume_valid.all()
    assert found.jitter_ms < 1e-6
    assert found.t_r_found == pytest.approx(T_R)
    assert "100 volume markers, 100 volumes" in found.evidence[0]


@pytest.mark.parametrize("extra", [1, 2])
def test_extra_markers_at_an_unknown_end_are_refused(extra: int):
    with pytest.raises(AlignmentError, match=r"sub-01_eeg\.vhdr.*`extra_markers: end`.*`extra_markers: start`"):
        run(train(N + extra), eeg_duration=DURATION + 10)


@pytest.mark.parametrize("extra", [1, 2])
def test_dummy_scans_are_the_first_markers_where_the_site_says_so(extra: int):
    found = run(train(N + extra), eeg_duration=DURATION + 10, extra_markers="start")
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.volume_onsets, train() + extra * T_R)
    assert any(f"{extra} marker(s) before the first volume" in words for words in found.evidence)


def test_eeg_that_ends_within_the_extra_volume_shows_the_end():
    found = run(train(N + 1), eeg_duration=LEAD + N * T_R + 1.0)
    assert found.verdict == "unverified"  # a dummy before, and an EEG that ended too early, would look the same
    np.testing.assert_allclose(found.volume_onsets, train())
    assert any("the EEG ends 1.000 s after" in words for words in found.evidence)


@pytest.mark.parametrize("extra", [1, 2])
def test_extra_markers_at_the_end_are_ignored(extra: int):
    found = run(train(N + extra), extra_markers="end")
    assert found.verdict == "repaired"
    assert found.volume_valid.all()
    np.testing.assert_allclose(found.volume_onsets, train())
    assert any(f"{extra} marker(s) after the last volume" in words for words in found.evidence)


def test_extra_marker_off_the_grid_at_the_end_is_ignored():
    found = run(np.append(train(), train()[-1] + 0.4), evidence=SCAN)
    assert found.verdict == "repaired"
    assert [(repair.kind, repair.n) for repair in found.repairs] == [("extra-dropped", 1)]
    np.testing.assert_allclose(found.volume_onsets, train())


def test_extra_marker_off_the_grid_at_the_start_is_ignored():
    found = run(np.insert(train(), 0, LEAD - 0.4), evidence=SCAN)
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.volume_onsets, train())


def test_three_extra_markers_are_refused():
    with pytest.raises(AlignmentError, match=r"103 volume markers but only 100 volumes \(3 more\)"):
        run(train(N + 3))


def test_missing_markers_at_an_unknown_end_are_refused():
    with pytest.raises(AlignmentError, match=r"sub-01_eeg\.vhdr: 4 marker.*`missing_markers: start`"):
        run(train(N - 4))


def test_first_volumes_without_marker_are_extrapolated_where_the_site_says_so():
    found = run(train()[4:], missing_markers="start")
    assert found.verdict == "repaired"
    assert not found.volume_valid[:4].any()
    assert found.volume_valid[4:].all()
    np.testing.assert_allclose(found.volume_onsets, train())


def test_markers_that_stop_early_leave_invalid_volumes():
    found = run(train(N - 4), missing_markers="end")
    assert found.verdict == "repaired"
    assert found.volume_valid.sum() == N - 4
    assert not found.volume_valid[-4:].any()
    np.testing.assert_allclose(found.volume_onsets, train())  # still one onset per volume


def test_one_missing_marker_is_filled():
    found = run(np.delete(train(), 40), evidence=SCAN)
    assert found.verdict == "repaired"
    assert found.volume_valid.all()
    np.testing.assert_allclose(found.volume_onsets, train(), atol=1e-9)
    assert any("volume 41 is missing" in words for words in found.evidence)


def test_several_missing_markers_and_long_holes_are_filled_where_both_sides_keep_one_clock():
    for gone in ([40, 60], slice(30, 60)):
        found = run(np.delete(train(), gone), evidence=SCAN)
        assert found.verdict == "repaired"
        assert found.volume_valid.all()
        np.testing.assert_allclose(found.volume_onsets, train(), atol=1e-9)
    (repair,) = found.repairs
    assert (repair.kind, repair.n) == ("filled", 30)
    assert "volume 31 (and 29 more up to volume 60) is missing" in repair.evidence


def test_a_hole_whose_sides_do_not_agree_makes_its_volumes_invalid():
    jumped = np.delete(train() + np.where(np.arange(N) >= 45, 0.2, 0.0), slice(30, 60))
    found = run(jumped)
    assert found.verdict == "unverified"
    assert not found.volume_valid[30:60].any()
    assert found.volume_valid.sum() == N - 30
    np.testing.assert_allclose(found.volume_onsets[60:], train()[60:] + 0.2)
    with pytest.raises(AlignmentError, match=r"hole of .* s in the volume markers after 80\.90 s.*interrupted"):
        run(np.delete(train() + np.where(np.arange(N) >= 45, 0.9, 0.0), slice(30, 60)), eeg_duration=DURATION + 3)


def test_gap_and_extra_marker_that_cancel_in_the_count_are_seen():
    with pytest.raises(AlignmentError, match="extra_markers: end"):
        run(np.delete(train(N + 1), 40))
    shifted = run(np.delete(train(N + 1), 40), extra_markers="start")
    np.testing.assert_allclose(shifted.volume_onsets, train() + T_R, atol=1e-9)
    found = run(np.delete(train(N + 1), 40), extra_markers="end")
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.volume_onsets, train(), atol=1e-9)
    assert len([words for words in found.evidence if "missing" in words or "ignored" in words]) == 2


@pytest.mark.parametrize(
    ("markers", "message"),
    [
        ([], "no volume marker found"),
        ([LEAD], r"1 volume marker\(s\) for 100 volumes"),
        (train(30), r"30 volume marker\(s\) for 100 volumes"),
        (np.delete(np.insert(train(), 50, train()[49] + 0.1), -1), "markers 50 and 51 are only"),
        (train() + np.where(np.arange(N) == 30, 0.3, 0), "marker 31 at .* is .300.0 ms off"),
        (train(t_r=T_R * 1.006), r"2\.1126 s apart \(median\) but the TR is 2\.1 s"),
        (train(N, t_r=T_R / 2), "1.0500 s apart"),
        (train(first=-4.0), "2 of 100 volume markers lie outside the EEG"),
        (train(first=LEAD + 10), "outside the EEG"),
        (np.append(train(N - 1), np.nan), "NaN"),
    ],
)
def test_beyond_repair(markers: np.ndarray, message: str):
    with pytest.raises(AlignmentError, match=message) as caught:
        run(np.asarray(markers, dtype=float))
    assert "sub-01_eeg.vhdr" in str(caught.value)


def test_slice_triggers_are_recognised_by_their_spacing():
    slices = (train()[:, None] + np.arange(30) * 0.06).ravel()
    with pytest.raises(AlignmentError, match="more"):
        run(slices)
    with pytest.raises(AlignmentError, match=r"0\.0600 s apart"):
        run(slices[:N])


def test_message_lists_the_markers_that_were_found():
    with pytest.raises(AlignmentError, match=r"'Sync On' x12, 'S  1' x3|'S  1' x3, 'Sync On' x12"):
        run([], found_markers={"Sync On": 12, "S  1": 3})


def test_missing_markers_that_may_be_the_first_ones_are_refused():
    with pytest.raises(AlignmentError, match=r"the first or the last volumes may be the ones"):
        run(train(N - 2, first=0.5), eeg_duration=0.5 + N * T_R + 5)


def test_eeg_that_stops_before_the_scan_loses_its_last_volumes():
    found = run(train(N - 10), eeg_duration=train(N - 10)[-1] + 1.0)
    assert found.verdict == "unverified"  # the first one may be lost as well
    assert found.volume_valid.sum() == N - 10


def test_start_time_beyond_the_eeg_end_makes_the_volume_invalid():
    found = run(train(), start_time=1.0, eeg_duration=train()[-1] + 0.5)
    assert not found.volume_valid[-1]
    assert found.volume_valid[:-1].all()
    with pytest.raises(AlignmentError, match="not inside one TR"):
        run(train(), start_time=1050.0)


def test_drift_and_jitter_are_reported(rng: np.random.Generator):
    jitter = rng.normal(0, 0.001, N)
    scan = ScanEvidence(LEAD, LEAD + N * T_R * (1 + 50e-6))
    found = run(train(t_r=T_R * (1 + 50e-6)) + jitter, evidence=scan)
    assert (found.verdict, [repair.kind for repair in found.repairs]) == ("repaired", ["drift-fitted"])
    assert found.jitter_ms == pytest.approx(1.0, rel=0.3)
    assert (found.t_r_found / T_R - 1) * 1e6 == pytest.approx(50, abs=15)
    assert "ppm from 2.1 s" in found.evidence[-2]


def test_markers_quantised_at_low_rate_and_short_tr_pass():
    scan = ScanEvidence(LEAD, LEAD + 400 * 0.367)
    found = run(np.round(train(400, t_r=0.367) * 250) / 250, n_volumes=400, t_r=0.367, sfreq=250.0, evidence=scan)
    assert found.verdict == "ok"


def test_without_markers_the_verdict_is_unverified():
    found = align_without_markers(n_volumes=10, t_r=2.0, start_time=1.0, eeg_duration=15.0, source="x.set")
    assert found.verdict == "unverified"
    np.testing.assert_allclose(found.volume_onsets, 1.0 + 2.0 * np.arange(10))
    assert found.volume_valid.sum() == 8
    with pytest.raises(AlignmentError, match=r"x\.set: no volume inside"):
        align_without_markers(n_volumes=3, t_r=2.0, start_time=0.0, eeg_duration=9.0, source="x.set", first_onset=10.0)
    assert found.repairs[0].kind == "cropped"
    assert found.confidence < 0.5


def test_a_regular_train_alone_is_unverified_and_says_why():
    found = run(train())
    assert found.verdict == "unverified"
    assert found.volume_valid.all()
    assert "nothing beside them shows which one is the first volume" in found.evidence[-1]
    closed = run(train(first=0.5), eeg_duration=0.5 + N * T_R)
    assert (closed.verdict, closed.confidence > found.confidence) == ("unverified", True)


def test_artifact_shows_that_the_first_trigger_was_lost_and_one_came_too_many():
    found = run(np.append(train()[1:], train()[-1] + T_R), evidence=SCAN)
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.volume_onsets, train(), atol=1e-9)
    assert {repair.kind for repair in found.repairs} == {"filled", "extra-dropped"}


def test_one_end_of_the_artifact_does_not_confirm():
    for scan in (ScanEvidence(artifact_onset=LEAD), ScanEvidence(artifact_end=LEAD + N * T_R)):
        found = run(train(), evidence=scan)
        assert found.verdict == "unverified"
        np.testing.assert_allclose(found.volume_onsets, train())


def test_artifact_off_the_markers_phase_or_length_is_flagged():
    off = run(train(), evidence=ScanEvidence(LEAD + 0.7, LEAD + 0.7 + N * T_R))
    assert off.verdict == "unverified"
    assert off.confidence < 0.5
    assert any("+700 ms off the markers" in words for words in off.evidence)
    longer = run(train(), evidence=ScanEvidence(LEAD, LEAD + (N + 9) * T_R), eeg_duration=DURATION + 20)
    assert longer.verdict == "unverified"
    assert any("holds 109 volumes, the image 100" in words for words in longer.evidence)


def test_protocol_confirms_unless_it_contradicts_the_artifact():
    assert run(train(), evidence=ScanEvidence(protocol_onset=LEAD + 0.1)).verdict == "ok"
    found = run(train(), evidence=ScanEvidence(LEAD, LEAD + N * T_R, LEAD + T_R))
    assert found.verdict == "unverified"
    assert any("artifact and protocol disagree by 1 volume" in words for words in found.evidence)
    between = run(train(), evidence=ScanEvidence(protocol_onset=LEAD + 0.5 * T_R))
    assert between.verdict == "unverified"


def test_known_dummies_are_dropped():
    scan = ScanEvidence(LEAD, LEAD + (N + 3) * T_R)
    found = run(train(N + 3), dummy_volumes=3, evidence=scan, eeg_duration=DURATION + 10)
    assert (found.verdict, found.repairs[0].kind, found.repairs[0].n) == ("repaired", "dummies-dropped", 3)
    np.testing.assert_allclose(found.volume_onsets, train() + 3 * T_R)


@pytest.mark.parametrize("fill", [1.0, 0.7])
def test_slice_triggers_are_grouped_although_some_are_missing(fill: float):
    slices = (train()[:, None] + np.arange(15) * fill * T_R / 15).ravel()
    found = run(np.delete(slices, [45, 100, 101, 700]), triggers_per_volume=15, evidence=SCAN, sfreq=1000.0)
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.volume_onsets, train(), atol=1e-3)
    assert found.repairs[0].kind == "slices-grouped"
    with pytest.raises(AlignmentError, match="triggers_per_volume 40"):
        run(slices, triggers_per_volume=40)


def test_repeated_triggers_are_merged():
    found = run(np.append(train(), train()[[3, 50]] + 0.002), evidence=SCAN)
    assert (found.verdict, found.repairs[0].kind, found.repairs[0].n) == ("repaired", "merged", 2)
    np.testing.assert_allclose(found.volume_onsets, train())


def test_another_train_at_the_same_pace_casts_doubt_unless_the_artifact_decides():
    scan = ScanEvidence(protocol_onset=LEAD)
    decoys = {"Sync On": train() + 0.8, "button": train()[::7], "echo": train() + 0.001}
    assert run(train(), evidence=scan, decoys={"button": decoys["button"], "echo": decoys["echo"]}).verdict == "ok"
    found = run(train(), evidence=scan, decoys=decoys)
    assert found.verdict == "unverified"
    assert any("100 markers 'Sync On' keep the TR with another phase" in words for words in found.evidence)
    assert run(train(), evidence=SCAN, decoys=decoys).verdict == "ok"


def test_published_start_is_the_sites_word():
    closed = {"eeg_duration": 0.5 + N * T_R}
    found = run(train(first=0.5), first_onset=0.0, **closed)
    assert (found.verdict, found.repairs[0].kind) == ("repaired", "cropped")
    assert run(train(first=0.5), first_onset=9.0, **closed).verdict == "unverified"


def test_what_the_reader_repaired_is_recorded():
    told = Repair("onset-unit", 1, "onsets are samples at 5000 Hz")
    assert run(train(), evidence=SCAN, repairs=[told]).repairs == (told,)


def paused(pause: float, after: int = 40) -> np.ndarray:
    """Markers on the clock of an EEG whose recorder stood still for a while after one of the volumes."""
    true = train()
    stop = true[after - 1] + 0.5
    kept = true[(true <= stop) | (true > stop + pause)]
    return np.where(kept > stop, kept - pause, kept)


def test_an_eeg_that_was_paused_is_not_repaired_by_a_protocol():
    markers, protocol = paused(5 * T_R + 0.01), ScanEvidence(protocol_onset=LEAD)
    assert len(markers) == 95
    found = run(markers, evidence=protocol, eeg_duration=DURATION - 5 * T_R)
    assert (found.verdict, found.confidence) == ("unverified", 0.2)
    assert any("the last 5 markers are missing although the EEG runs on: was it paused?" in x for x in found.evidence)
    stopped = run(train(95), evidence=protocol, eeg_duration=train(95)[-1] + 1.0)  # the EEG ended: nothing was paused
    assert stopped.verdict == "repaired"
    np.testing.assert_allclose(stopped.volume_onsets, train(), atol=1e-9)


@pytest.mark.parametrize(
    "shown",
    [
        {"evidence": SCAN},
        {"evidence": ScanEvidence(protocol_onset=LEAD)},
        {"first_onset": LEAD},
        {"evidence": ScanEvidence(artifact_onset=LEAD)},
        {},
    ],
)
def test_a_break_inside_the_scan_casts_doubt_whatever_shows_its_begin(shown: dict):
    whole = run(train(), **shown)
    found = run(train(), breaks=[3.0, LEAD + 40.3 * T_R], **shown)
    assert found.verdict == "unverified"
    assert found.confidence < max(whole.confidence, 0.5)
    assert any(f"interrupted inside the scan, at {LEAD + 40.3 * T_R:.3f} s" in words for words in found.evidence)
    beside = run(train(), breaks=[3.0, LEAD, LEAD + N * T_R + 1], **shown)
    assert (beside.verdict, beside.evidence) == (whole.verdict, whole.evidence)


def test_breaks_are_read_from_the_marks_of_brainvision_eeglab_and_mne():
    raw = mne.io.RawArray(np.zeros((1, 1000)), mne.create_info(["Cz"], 10.0, "eeg"), verbose="error")
    marks = {"New Segment/": [0.0, 30.0], "boundary": [0.1, 40.0], "BAD_ACQ_SKIP": [50.0], "BAD boundary": [60.0]}
    others = {"Response/R128": [31.0], "BAD_jump": [32.0], "boundary condition/go": [33.0], "EDGE boundary": [60.0]}
    for name, times in (marks | others).items():
        raw.annotations.append(times, 0.0, name)
    assert time_breaks(raw) == (30.0, 40.0, 50.0, 60.0)
    assert time_breaks(raw.copy().crop(35.0)) == (5.0, 15.0, 25.0)


def slice_train(n_slices: int, t_r: float, n: int = 60) -> np.ndarray:
    return LEAD + t_r / n_slices * np.arange(n * n_slices)


def test_an_anchor_coarser_than_the_slices_does_not_choose_among_them():
    options = {"n_volumes": 60, "t_r": 1.0, "triggers_per_volume": 30, "sfreq": 5000.0}
    slices, true = slice_train(30, 1.0), LEAD + np.arange(60.0)
    late = ScanEvidence(LEAD + 0.024, LEAD + 60.024)
    found = run(slices, evidence=late, **options)
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.triggers, true, atol=1e-6)
    wrong = [
        run(slices[1:], evidence=late, **options),  # its first slice lost: the next one lies near the anchor as well
        run(slices[3:], evidence=late, **options),
        run(slices, evidence=ScanEvidence(LEAD + 0.034, LEAD + 60.034), **options),
        run(slices - LEAD + 0.01, evidence=ScanEvidence(0.012, 60.012), **options),  # no EEG before the first trigger
    ]
    for found in wrong:
        assert found.verdict == "unverified"
        assert any("nothing shows which slice is the first of a volume" in words for words in found.evidence)


def test_an_anchor_finer_than_the_slices_finds_the_first_one_though_it_was_lost():
    slices = slice_train(15, T_R, N)
    found = run(slices[1:], evidence=ScanEvidence(LEAD + 0.024, LEAD + N * T_R), triggers_per_volume=15, sfreq=5000.0)
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.triggers, train(), atol=1e-6)
    halfway = ScanEvidence(LEAD + 0.06, LEAD + N * T_R + 0.06)
    assert run(slices, evidence=halfway, triggers_per_volume=15, sfreq=5000.0).verdict == "unverified"


def test_a_published_start_between_two_markers_is_doubted():
    for lost, first_onset in ((2, LEAD + 0.5 * T_R), (0, LEAD + 0.4 * T_R)):
        found = run(train()[: N - lost], first_onset=first_onset)
        assert (found.verdict, found.confidence) == ("unverified", 0.2)
        assert any("scan_start lies between two markers" in words for words in found.evidence)
    assert run(train()[: N - 2], first_onset=LEAD + 0.2 * T_R).verdict == "repaired"


@pytest.mark.parametrize("scan", [ScanEvidence(), ScanEvidence(LEAD, LEAD + (N + 2) * T_R)])
def test_discarded_volumes_of_the_sidecar_are_the_first_markers(scan: ScanEvidence):
    options = {"evidence": scan, "eeg_duration": DURATION + 10}
    found = run(train(N + 2), discarded=2, **options)
    assert found.verdict == "repaired"
    np.testing.assert_allclose(found.volume_onsets, train() + 2 * T_R)
    assert any("the sidecar says" in words and "discarded before the image" in words for words in found.evidence)
    for odd in ({"discarded": 4, "extra_markers": "start"}, {"discarded": 2, "extra_markers": "end"}):
        doubted = run(train(N + 2), **odd, **options)
        assert (doubted.verdict, doubted.confidence) == ("unverified", 0.2)
        assert any("were discarded before the image, but" in words for words in doubted.evidence)
    with pytest.raises(AlignmentError, match="`extra_markers: end`"):
        run(train(N + 2), discarded=4, **options)
    known = run(train(N + 3), discarded=2, dummy_volumes=2, extra_markers="end", eeg_duration=DURATION + 10)
    assert known.verdict == "repaired"  # the site's dummies are those of the sidecar, one more came at the end
    np.testing.assert_allclose(known.volume_onsets, train() + 2 * T_R)
    assert run(train(), discarded=4, evidence=SCAN).verdict == "ok"  # discarded by the scanner, without triggers


def test_discarded_volumes_are_doubted_where_the_eeg_ends_with_the_last_marker():
    found = run(train(N + 1), discarded=1, eeg_duration=LEAD + N * T_R + 1.0)
    assert found.verdict == "unverified"
    assert any("as likely the last ones" in words for words in found.evidence)
    with pytest.raises(AlignmentError, match="sidecar says that 5 were discarded: dummy_volumes"):
        run(train(N + 5), discarded=5, eeg_duration=DURATION + 10)
