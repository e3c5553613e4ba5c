"""What the workers of all runs share with the driver: the list of jobs to take, and the events that happened.

``ray.train.report`` alone would not do: its metrics reach the driver only with a Ray checkpoint, and only at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]


class Board:
    """One actor per :func:`xsite.runtime.training.train_folds`; plain Python until Ray makes an actor of it.

    Run 0 stays when the jobs are used up, warm, until the driver adds what comes after them, or closes the board; the
    others end and free their CPUs, unless ``stay`` says that the next round is large enough for all.
    """

    def __init__(self, jobs: Sequence[Any], stay: bool = False) -> None:
        self.waiting, self.stay = list(jobs), stay
        self.taken: dict[int, Any] = {}
        self.events: list[Event] = []
        self.closed = self.stopped = False

    def take(self, run: int) -> Any:
        """Next job of a run, or ``"wait"``, or None for the end; after a crash, the job that it had not finished."""
        if run not in self.taken:
            if not self.waiting:
                return None if self.closed or (run > 0 and not self.stay) else "wait"
            self.taken[run] = self.waiting.pop(0)
        return self.taken[run]

    def take_stack(self, run: int, size: int) -> Any:
        """As :meth:`take`, up to ``size`` jobs whose ``alike`` is equal; after a crash, those not finished yet."""
        if run not in self.taken:
            first = self.take(run)
            if first is None or first == "wait":
                return first
            others = [job for job in self.waiting if job.alike == first.alike][: size - 1]
            grouped = {job.label for job in others}
            self.waiting = [job for job in self.waiting if job.label not in grouped]
            self.taken[run] = [first, *others]
        return self.taken[run]

    def finish(self, run: int, event: Event) -> None:
        """Note that a run's job is done, or has failed for good."""
        held = self.taken.pop(run, None)
        if isinstance(held, list) and (left := [job for job in held if job.label != event["label"]]):
            self.taken[run] = left
        self.events.append(event)

    def add(self, jobs: Sequence[Any], stay: bool) -> None:
        """Add the jobs of the next round; another one comes after them."""
        self.waiting += jobs
        self.stay = stay

    def close(self, last_jobs: Sequence[Any] = ()) -> None:
        """Add the last jobs; nothing comes after them."""
        self.waiting += last_jobs
        self.closed = True

    def stop(self) -> None:
        """End every run: nothing more is handed out, and the next post says so."""
        self.stopped = self.closed = True
        self.waiting, self.taken = [], {}

    def post(self, event: Event) -> bool:
        """Add an event for the driver; False when the study has been stopped."""
        self.events.append(event)
        return not self.stopped

    def drain(self) -> list[Event]:
        """Hand over the events so far."""
        events, self.events = self.events, []
        return events
