"""The log of a study: sessions, and the share of their time that was training."""

from __future__ import annotations

from pathlib import Path

import pytest

from xsite.runtime.study import StudyFolder
from xsite.runtime.timeline import FILE, Timeline, read_timeline, session_times


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the log is told; tests move it."""
    now = [1000.0]
    monkeypatch.setattr("xsite.runtime.timeline.time.time", lambda: now[0])
    return now


def one_session(folder: Path, clock: list[float], *, epochs: int) -> None:
    """Start 20 s after the plan, epochs of 10 s in each of two places, then 5 s of scoring."""
    timeline = Timeline(StudyFolder(folder))
    timeline.note({"kind": "plan"})
    timeline.note({"kind": "fold_done", "label": "old", "skipped": True})
    timeline.note({"kind": "runs", "places": 2})
    clock[0] += 20
    for label in "ab":
        timeline.note({"kind": "fold_started", "label": label, "resumed": False, "model": "not kept"})
    for epoch in range(epochs):
        clock[0] += 12
        for label in "ab":
            timeline.note({"kind": "epoch", "label": label, "epoch": epoch + 1, "metrics": {"seconds": 9.0}})
    for label in "ab":
        timeline.note({"kind": "fold_done", "label": label, "skipped": False})
    clock[0] += 5
    timeline.note({"kind": "summary"})


def test_sessions_are_told_apart_and_what_is_not_training_is_counted(tmp_path: Path, clock: list[float]) -> None:
    one_session(tmp_path, clock, epochs=3)
    clock[0] += 3600
    one_session(tmp_path, clock, epochs=1)
    first, second = session_times(read_timeline(tmp_path))
    assert (first.wall_s, first.warm_s, first.training_s, first.places) == (61, 36, 54, 2)
    assert (first.n_trainings, first.n_epochs) == (2, 6)
    assert first.overhead == pytest.approx(1 - 54 / 72)
    assert (second.warm_s, second.training_s, second.n_epochs) == (12, 18, 2)


def test_a_session_killed_in_the_middle_of_a_line_is_still_read(tmp_path: Path, clock: list[float]) -> None:
    timeline = Timeline(StudyFolder(tmp_path))
    timeline.note({"kind": "plan"})
    timeline.note({"kind": "fold_started", "label": "a", "resumed": False})
    clock[0] += 10
    timeline.note({"kind": "epoch", "label": "a", "epoch": 1, "metrics": {"seconds": 8.0}})
    path = tmp_path / FILE
    text = path.read_text()
    path.write_text(text + "\n" + text.splitlines()[-1][:20])
    (only,) = session_times(read_timeline(tmp_path))
    assert (only.n_epochs, only.n_trainings, only.warm_s) == (1, 0, 10)
    timeline = Timeline(StudyFolder(tmp_path))
    timeline.note({"kind": "plan"})  # a new session after the torn line loses nothing of its own
    assert len(session_times(read_timeline(tmp_path))) == 2


def test_no_log_and_a_session_without_training(tmp_path: Path) -> None:
    assert session_times(read_timeline(tmp_path)) == []
    Timeline(StudyFolder(tmp_path)).note({"kind": "plan"})
    (only,) = session_times(read_timeline(tmp_path))
    assert only.n_epochs == 0
    assert only.overhead != only.overhead
