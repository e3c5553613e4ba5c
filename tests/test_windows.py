"""Windows are where they should be, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xsite.data.harmonize import harmonize_eeg
from xsite.data.windows import build_source, window_starts
from xsite.errors import RecordingError

NAMES = ("Fp1", "Cz", "O1")


def one_source(recordings, **changes):
    given = {
        "ch_names": NAMES,
        "ch_index": [4, 0, 2],
        "targets": [r.bold for r in recordings],
        "window_s": 16.0,
        "sfreq": 200.0,
    }
    return build_source(recordings, **(given | changes))


def test_each_window_is_the_16_s_before_its_volume(make_recording):
    recordings = [make_recording("beta", "01"), make_recording("alpha", "02", n_volumes=40)]
    source = one_source(recordings)
    assert len(source) == 100
    assert source.sites == ("alpha", "beta")
    index = np.array([0, 59, 60, 99, 7])
    batch, target, mask = source.gather(index)
    assert batch.eeg_BCT.shape == (5, 3, 3200)
    assert batch.eeg_BCT.dtype == torch.float32
    assert batch.site_B.tolist() == [1, 1, 0, 0, 1]
    for row, window in zip(range(5), source.windows.iloc[index].itertuples(), strict=True):
        recording = recordings[window.recording]
        stop = round(recording.volume_onsets[window.volume] * 200)
        expected = harmonize_eeg(recording, NAMES)[:, stop - 3200 : stop]
        np.testing.assert_array_equal(batch.eeg_BCT[row].numpy(), expected)
        np.testing.assert_array_equal(target[row].numpy(), recording.bold[window.volume])
        assert (window.start, window.stop) == (stop - 3200, stop)
    assert mask.all()
    assert (batch.ch_index_BC == torch.tensor([4, 0, 2])).all()


def test_windows_that_leave_the_eeg_or_touch_invalid_parts_are_dropped(make_recording):
    recording = make_recording(n_volumes=60)  # volume v at 18 + 2 v s, EEG ends 2 s after the last one's start + t_r
    onsets = recording.volume_onsets.copy()
    onsets -= 4  # the first volume now begins 14 s after the EEG: no full window
    onsets[-1] = 1000.0  # beyond the EEG
    volume_valid = recording.volume_valid.copy()
    volume_valid[10] = False
    eeg_valid = recording.eeg_valid.copy()
    eeg_valid[round(onsets[30] * 200) - 1] = False  # last sample of volume 30's window; 8 windows hold it
    recording = replace(recording, volume_onsets=onsets, volume_valid=volume_valid, eeg_valid=eeg_valid)
    volumes, starts = window_starts(recording)
    gone = {0, 10, 59, *range(30, 38)}
    assert set(range(60)) - set(volumes.tolist()) == gone
    np.testing.assert_array_equal(starts + 3200, np.round(onsets[volumes] * 200))
    touched = eeg_valid[starts[:, None] + np.arange(3200)]
    assert touched.all()


def test_published_counts_575_volumes_give_567_windows(make_recording):
    recording = make_recording(n_volumes=575, t_r=2.1)
    recording = replace(recording, volume_onsets=np.arange(575) * 2.1)
    assert len(window_starts(recording)[0]) == 567


def test_missing_targets_are_masked_and_wholly_missing_rows_dropped(make_recording):
    recording = make_recording(n_volumes=20)
    target = recording.bold.copy()
    target[:, 1] = np.nan
    target[5] = np.nan
    source = one_source([recording], targets=[target])
    assert 5 not in source.windows["volume"].tolist()
    _, values, mask = source.gather(torch.arange(len(source)))
    assert torch.isfinite(values).all()
    assert not mask[:, 1].any()
    assert mask[:, [0, 2]].all()


def test_native_channels_are_padded(make_recording):
    few, many = make_recording("alpha", "01", ch_names=("Cz", "Oz")), make_recording("beta", "02")
    vocabulary = [*many.ch_names, "Oz"]

    def ch_index(names):
        return torch.tensor([vocabulary.index(name) for name in names])

    source = one_source([few, many], ch_names=None, ch_index=ch_index, reference="native")
    batch, _, _ = source.gather([0, len(source) - 1])
    assert batch.eeg_BCT.shape == (2, 13, 3200)
    assert batch.ch_index_BC[0].tolist() == [11, 13] + [-1] * 11
    assert batch.ch_index_BC[1].tolist() == list(range(13))
    assert (batch.eeg_BCT[0, 2:] == 0).all()


def test_half_precision_prediction_source_and_wrong_rate(make_recording):
    recording = make_recording(n_volumes=20)
    source = one_source([recording], targets=None, dtype=torch.float16)
    assert source.eeg_CT.dtype == torch.float16
    batch, target, _ = source.gather(torch.arange(3))
    assert target.shape == (3, 0)
    np.testing.assert_allclose(batch.eeg_BCT[0], harmonize_eeg(recording, NAMES)[:, 400:3600], atol=0.06)
    with pytest.raises(RecordingError, match="250"):
        one_source([replace(recording, sfreq=250.0)])
    with pytest.raises(RecordingError, match="target of 7 volumes"):
        one_source([recording], targets=[recording.bold[:7]])
