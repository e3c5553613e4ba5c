"""A study begun over a finished one: its folder holds scores of one plan and the recipe of another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.loso import warn_of_another_plan
from xsite.errors import FormatError
from xsite.reports.folder import refuse_mixed


def _folder(tmp_path: Path, *, scored: str | None, planned: str | None) -> Path:
    (tmp_path / "summary.json").write_text(json.dumps({"rows": []} | ({"plan": scored} if scored else {})))
    if planned:
        (tmp_path / "plan.json").write_text(json.dumps({"hash": planned}))
    return tmp_path


def test_scores_of_another_plan_are_refused_with_both_names(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"scores are of plan aaa, its recipe of plan bbb"):
        refuse_mixed(_folder(tmp_path, scored="aaa", planned="bbb"))


@pytest.mark.parametrize(("scored", "planned"), [("aaa", "aaa"), (None, "bbb"), ("aaa", None)])
def test_one_plan_and_folders_older_than_plans_pass(tmp_path: Path, scored: str | None, planned: str | None) -> None:
    folder = _folder(tmp_path, scored=scored, planned=planned)
    refuse_mixed(folder)
    (folder / "summary.json").write_text(json.dumps({"plan": "ccc"}))
    (folder / "plan.json").write_text(json.dumps({"hash": "ddd"}))
    with pytest.raises(FormatError, match="plan ccc"):  # the very same folder, once both are known and differ
        refuse_mixed(folder)


def test_a_study_over_another_one_says_what_it_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder(tmp_path, scored="aaa", planned="aaa")
    warn_of_another_plan(folder, "aaa")
    warn_of_another_plan(tmp_path / "new", "bbb")
    assert capsys.readouterr().err == ""
    warn_of_another_plan(folder, "bbb")
    assert "finished study of another plan (aaa)" in capsys.readouterr().err
