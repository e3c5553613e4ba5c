"""What a dry run counts."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from torch import nn

from jobs.loso_plan import recorded_rate, window_s_of, windows_of


def test_windows_are_counted_with_the_length_that_the_model_reads() -> None:
    row = {"site": "a", "subject": "01", "session": "", "task": "rest", "run": "", "t_r": 2.0, "n_valid": 100}
    model = nn.Module()
    assert list(windows_of(pd.DataFrame([row]), window_s_of(model)).values()) == [92]
    model.window_s = 30.0
    assert list(windows_of(pd.DataFrame([row]), window_s_of(model)).values()) == [85]


def test_the_recorded_rate_is_that_of_the_whole_worker(tmp_path: Path) -> None:
    """Four stacked trainings log the 400 windows/s that they have together, and their shares."""
    rows = [{"model": "x", "windows_per_s": 400.0, "lane_windows_per_s": 100.0, "stacked": 4.0}] * 4
    pd.DataFrame(rows).to_parquet(tmp_path / "histories.parquet")
    assert recorded_rate(tmp_path, "x") == pytest.approx(400)
    assert recorded_rate(tmp_path, "y") is None
    assert recorded_rate(tmp_path / "absent", "x") is None
