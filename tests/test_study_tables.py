"""What a scored study leaves in its folder: nothing of an earlier plan, and access levels model by model."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from xsite.experiment import parse_experiment
from xsite.runtime.loso import closed_form_access
from xsite.runtime.study import StudyFolder


def test_tables_of_an_earlier_plan_are_out_of_the_way(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    table = pd.DataFrame({"k": [0, 1]})
    for name in ("id_scores", "scores_by_fold", "calibration", "scores"):
        folder.write_table(f"{name}.parquet", table)
    folder.write_json("summary.json", {"plan": "old"})
    folder.clear_tables("old")  # the same plan is scored again
    left = {path.name for path in tmp_path.glob("*.parquet")}
    assert left == {"calibration.parquet", "scores.parquet"}
    folder.clear_tables("new")
    left = {path.name for path in tmp_path.glob("*.parquet")}
    assert left == {"calibration-of-plan-old.parquet", "scores.parquet"}
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "calibration-of-plan-old.parquet"), table)
    folder.clear_tables("new")
    assert json.loads((tmp_path / "summary.json").read_text())["plan"] == "old"


@pytest.mark.parametrize(
    ("adapt", "level"),
    [
        ("none", "none"),
        ("recenter", "unlabelled EEG"),
        ("euclidean", "unlabelled EEG"),
        ("norm", "none"),
        ("features", "none"),
    ],
)
def test_closed_forms_know_what_their_input_knows(adapt: str, level: str) -> None:
    experiment = parse_experiment({"data": {"adapt": adapt}, "baselines": ["zero", "ridge"]}, "test")
    assert closed_form_access(experiment) == {"zero": level, "ridge": level}
