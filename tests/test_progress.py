"""A study tells how far its scoring is: Ray tasks are counted as they end, and a failed one is told at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from xsite.errors import FormatError
from xsite.runtime import progress
from xsite.runtime.cluster import gather, task
from xsite.runtime.progress import Progress
from xsite.runtime.study import StudyFolder


def double(number: int) -> int:
    return 2 * number


def refuse() -> None:
    raise FormatError("rec.set: no such channel")


def wait_for(path: Path) -> bool:
    while not path.exists():
        time.sleep(0.05)
    return True


@pytest.mark.ray
def test_gathered_tasks_are_counted_and_keep_their_order(ray_local: None) -> None:
    heard: list[int] = []
    assert gather([task(double).remote(n) for n in range(6)], heard.append) == [0, 2, 4, 6, 8, 10]
    assert heard == [1, 2, 3, 4, 5, 6]
    assert gather([]) == []


@pytest.mark.ray
def test_a_failed_task_is_told_while_others_still_run(ray_local: None, tmp_path: Path) -> None:
    still_running = task(wait_for).remote(tmp_path / "told")
    with pytest.raises(FormatError, match=r"rec\.set"):
        gather([still_running, task(refuse).remote()])
    (tmp_path / "told").touch()
    assert gather([still_running]) == [True]  # it has ended, and its CPU is free for whoever comes next


def test_predictions_are_told_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    events: list[dict[str, Any]] = []
    told = Progress(StudyFolder(tmp_path), events.append)
    for n_done in range(1, 41):
        now[0] += 1.0
        told.predicted(n_done, 40)
    assert [event["n_done"] for event in events] == [10, 20, 30, 40]
    assert {event["n_predictions"] for event in events} == {40}
