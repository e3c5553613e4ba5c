"""From an EEG file to a table of parcel series."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest
from study_folder import CHANNELS, build_study

from jobs import predict
from jobs.opened import open_checkpoint
from xsite.errors import AlignmentError, ChannelError, CheckpointError, FormatError
from xsite.signals.eeg import clean_eeg
from xsite.site import Site

SFREQ = 500.0


@pytest.fixture(scope="module")
def final(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_study(tmp_path_factory.mktemp("predict")) / "final"


def write_eeg(
    folder: Path,
    ch_names: tuple[str, ...] = ("FP1", "fp2", "CZ", "O1", "O2", "T7"),
    *,
    seconds: float = 40.0,
    marks: tuple[float, ...] = (),
) -> Path:
    rng = np.random.default_rng(1)
    data_CT = rng.normal(0, 15e-6, (len(ch_names), int(seconds * SFREQ)))
    raw = mne.io.RawArray(data_CT, mne.create_info(list(ch_names), SFREQ, "eeg"), verbose="error")
    raw.set_annotations(mne.Annotations(marks, [0.0] * len(marks), ["R128"] * len(marks)))
    path = folder / "sub-01_task-rest_eeg.vhdr"
    mne.export.export_raw(path, raw, fmt="brainvision", overwrite=True, verbose="error")
    return path


def read(out: Path) -> tuple[pd.DataFrame, dict[str, object]]:
    table = pd.read_csv(out / "sub-01_task-rest_timeseries.tsv", sep="\t")
    return table, json.loads((out / "sub-01_task-rest_timeseries.json").read_text())


def test_regular_grid_equals_the_model_on_the_cleaned_windows(final: Path, tmp_path: Path) -> None:
    path = write_eeg(tmp_path)
    assert (
        predict.main([str(final), str(tmp_path / "out"), "--eeg", str(path), "--t-r", "1.5", "--line-freq", "50"]) == 0
    )
    table, facts = read(tmp_path / "out")
    np.testing.assert_allclose(table["onset"], np.arange(16, 40, 1.5))
    raw = mne.io.read_raw_brainvision(path, verbose="error")
    clean = clean_eeg(raw, Site("new", SFREQ, 1.5, 50, None), source=str(path))
    eeg_CT = clean.eeg_CT[[clean.montage.ch_names.index(name) for name in CHANNELS]]
    eeg_CT = eeg_CT - eeg_CT.mean(axis=0)
    opened = open_checkpoint(final)
    start = round((16 + 4 * 1.5) * 200) - 3200
    expected_R = opened.model.predict(eeg_CT[None, :, start : start + 3200].astype(np.float32), CHANNELS)[0]
    scale_R = np.array(opened.config["target"]["scale_R"])
    np.testing.assert_allclose(table.iloc[4, 1:].to_numpy(float), expected_R * scale_R, rtol=1e-4, atol=1e-6)
    assert list(table.columns[1:]) == opened.config["parcels"]
    assert facts["RepetitionTime"] == 1.5
    assert facts["FirstRowOnset"] == 16.0
    assert "StartTime" not in facts
    assert facts["Model"]["WeightsSHA256"] == opened.weights_sha256  # type: ignore[index]


def test_one_row_per_marker_and_none_without_a_window(final: Path, tmp_path: Path) -> None:
    marks = tuple(np.arange(10.0, 38.0, 2.0))
    path = write_eeg(tmp_path, marks=marks)
    assert predict.main([str(final), str(tmp_path / "out"), "--eeg", str(path), "--marker", "R128"]) == 0
    table, facts = read(tmp_path / "out")
    np.testing.assert_allclose(table["onset"], marks, atol=1e-3)
    assert table["parcel0"].isna().tolist() == [mark < 16 for mark in marks]
    assert facts["RepetitionTime"] == pytest.approx(2.0)
    assert "n/a" in (tmp_path / "out" / "sub-01_task-rest_timeseries.tsv").read_text().splitlines()[1]


def test_start_time_is_added_to_every_marker(final: Path, tmp_path: Path) -> None:
    path = write_eeg(tmp_path, marks=(17.0, 19.0, 21.0))
    words = [str(final), str(tmp_path / "out"), "--eeg", str(path), "--line-freq", "50", "--start-time"]
    assert predict.main([*words, "0.75", "--marker", "R128"]) == 0
    table, facts = read(tmp_path / "out")
    np.testing.assert_allclose(table["onset"], [17.75, 19.75, 21.75], atol=1e-3)
    assert (facts["SliceTimingReference"], facts["RepetitionTime"]) == (0.75, pytest.approx(2.0))
    with pytest.raises(AlignmentError, match=r"--start-time 2\.5 is not inside one TR of 2 s"):
        predict.main([*words, "2.5", "--marker", "R128"])
    with pytest.raises(AlignmentError, match="needs --marker"):
        predict.main([*words, "0.75"])


@pytest.mark.parametrize("mains", [50, 60])
def test_the_mains_frequency_is_found(mains: int, capsys: pytest.CaptureFixture[str]) -> None:
    t = np.arange(20 * int(SFREQ)) / SFREQ
    data_CT = np.random.default_rng(1).normal(0, 15e-6, (3, len(t))) + 5e-6 * np.sin(2 * np.pi * mains * t)
    raw = mne.io.RawArray(data_CT, mne.create_info(["Fp1", "Cz", "O1"], SFREQ, "eeg"), verbose="error")
    assert predict.find_line_freq(raw) == mains
    assert f"mains frequency {mains} Hz (50 Hz " in capsys.readouterr().out


def test_a_missing_channel_is_named_with_what_the_model_wants(final: Path, tmp_path: Path) -> None:
    path = write_eeg(tmp_path, ("Fp1", "Fp2", "Cz", "O1", "T7"))
    with pytest.raises(ChannelError, match=r"lacks 1 of the model's 5 channels: O2\. The model wants Fp1, .*has Fp1"):
        predict.main([str(final), str(tmp_path / "out"), "--eeg", str(path)])
    assert not (tmp_path / "out").exists()


def test_an_absent_marker_lists_those_that_are_there(final: Path, tmp_path: Path) -> None:
    path = write_eeg(tmp_path, marks=(17.0, 19.0))
    with pytest.raises(AlignmentError, match=r"no marker 'R149'; markers in the file: .*R128"):
        predict.main([str(final), str(tmp_path / "out"), "--eeg", str(path), "--marker", "R149"])


def test_a_recording_shorter_than_a_window_is_refused(final: Path, tmp_path: Path) -> None:
    path = write_eeg(tmp_path, seconds=12.0, marks=(4.0, 6.0))
    with pytest.raises(FormatError, match=r"no complete 16 s window.*holds 12\.0 s"):
        predict.main([str(final), str(tmp_path / "out"), "--eeg", str(path), "--marker", "R128"])


def test_absent_files_are_named(final: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing\.vhdr"):
        predict.main([str(final), str(tmp_path / "out"), "--eeg", str(tmp_path / "nothing.vhdr")])
    with pytest.raises(CheckpointError, match="absent"):
        predict.main([str(tmp_path / "none"), str(tmp_path / "out"), "--eeg", str(tmp_path / "nothing.vhdr")])


def test_predict_needs_neither_ray_nor_the_training_loop() -> None:
    script = (
        "import sys, jobs.predict;"
        "unwanted = ('ray', 'ray.', 'xsite.runtime', 'xsite.learning.loop', 'site_adapters');"
        "print([m for m in sys.modules if m in unwanted or m.startswith(unwanted[1:])])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
