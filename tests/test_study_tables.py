"""What a scored study leaves in its folder: nothing of an earlier plan, and access levels model by model."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from jobs.models import BASELINES, build_model
from xsite.experiment import parse_experiment
from xsite.learning.adaptation import reads_whole_recording
from xsite.runtime.access import closed_form_access, trained_access
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
    """Ridge and vigilance z-score over the whole recording: unlabelled EEG of the test site, whatever the recipe."""
    names = ["zero", "mean", "ridge", "vigilance", "global-signal"]
    experiment = parse_experiment({"data": {"adapt": adapt}, "baselines": names}, "test")
    whole = dict.fromkeys(("ridge", "vigilance"), "unlabelled EEG")
    assert closed_form_access(experiment, BASELINES) == dict.fromkeys(names, level) | whole


def test_models_that_read_the_whole_recording_say_so() -> None:
    """neurobolt-x sets each window beside its recording's mean and spread; the published model does not."""
    variants = {name: {"model.name": name} for name in ("neurobolt", "neurobolt-x")}
    experiment = parse_experiment({"variants": variants}, "test")
    channels = {"ch_names": ("Cz", "Pz", "Oz", "Fz"), "n_outputs": 2}
    built = {name: build_model(name, "small", {}, **channels) for name in variants}
    whole = {name for name, model in built.items() if reads_whole_recording(model)}
    assert whole == {"neurobolt-x"}
    levels = {"neurobolt": "none", "neurobolt-x": "unlabelled EEG"}
    assert trained_access(experiment, whole, ["neurobolt"]) == levels | {"selected": "none"}
    assert trained_access(experiment, whole, list(variants)) == levels | {"selected": "unlabelled EEG"}
