"""Markers of a file and of its events table: names, units, what a site's policy makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from small_site import LEAD_IN, N_VOLUMES, T_R, small_atlas, small_site, write_recording_files

from xsite.data.bids import find_recordings, read_eeg
from xsite.data.markers import first_marker, is_known, marker_onsets, marker_trains, reading_notes
from xsite.data.prepare import prepare_recording
from xsite.errors import FormatError

TRUE = LEAD_IN + T_R * np.arange(N_VOLUMES)


def events(root, onsets, label="Response/R128"):
    """A recording whose markers stand in the table only, with these onsets."""
    paths = write_recording_files(root, markers_in_file=False)
    rows = ["onset\tduration\ttrial_type", *(f"{onset:.6g}\t0\t{label}" for onset in onsets)]
    paths["eeg"].with_name("sub-01_task-rest_events.tsv").write_text("\n".join(rows) + "\n")


def read(root, **facts):
    site = small_site(**facts)
    (files,) = find_recordings(root, site)
    return read_eeg(files, site), files, site


@pytest.mark.parametrize(
    ("factor", "facts"),
    [
        (5000.0, {"events_unit": "samples", "events_sfreq": 5000.0}),  # ds003574: 5 kHz samples of a 500 Hz file
        (500.0, {"events_unit": "samples"}),
        (1000.0, {"events_unit": "ms"}),  # ds002734
    ],
)
def test_onsets_in_samples_of_another_rate_or_in_ms(tmp_path, factor, facts):
    events(tmp_path, TRUE * factor)
    raw, files, site = read(tmp_path, **facts)
    np.testing.assert_allclose(marker_onsets(raw, "R128"), TRUE, atol=1 / 500)
    assert "not seconds: 30 converted" in reading_notes(raw)[0]
    recording = prepare_recording(site=site, files=files, atlas=small_atlas(tmp_path))
    kinds = [repair["kind"] for repair in recording.provenance["alignment"]["repairs"]]
    assert kinds == ["onset-unit"]
    np.testing.assert_allclose(recording.volume_onsets, TRUE + 0.5, atol=1 / 500)


def test_a_wrong_unit_is_refused_with_the_one_that_fits(tmp_path):
    events(tmp_path, TRUE * 5000)
    with pytest.raises(FormatError, match=r"30 of 30 volume markers.*TR in samples at 5000 Hz.*events_unit"):
        read(tmp_path)


def test_seconds_need_no_note(tmp_path):
    events(tmp_path, TRUE)
    assert reading_notes(read(tmp_path)[0]) == ()


def test_rows_of_the_table_do_not_double_the_markers_of_the_file(tmp_path):
    write_recording_files(tmp_path)
    raw, _, _ = read(tmp_path, volume_marker="R129", scan_start=0.0)
    assert len(marker_onsets(raw, "R128")) == N_VOLUMES
    assert first_marker(raw, "R128") == pytest.approx(LEAD_IN)
    assert first_marker(raw, "S 99") is None
    assert first_marker(raw, None) is None
    trains = marker_trains(raw)
    np.testing.assert_allclose(trains["Response/R128"], TRUE)


def test_what_the_site_names_is_known():
    site = small_site(decoys=("Sync On",), protocol_marker="S  2", protocol_onset=1.0)
    names = ("Response/R128", "SyncStatus/Sync On", "Stimulus/S  2", "Stimulus/S  3")
    assert [is_known(name, site) for name in names] == [True, True, True, False]
