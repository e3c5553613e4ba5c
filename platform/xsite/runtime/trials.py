"""The trials of one variant on disk: written by the driver after every fold, so that a tuning can stop anywhere."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pandas as pd

from xsite.errors import RecipeError
from xsite.evaluation.plan import folder_name
from xsite.learning.search_space import Overrides
from xsite.runtime.study import StudyFolder

FAILED = 1e6
"""Error of a configuration that could not be trained: finite, because a percentile of infinities is no number."""


@dataclass
class Trials:
    """Draws of one variant.

    Parameters
    ----------
    folder : StudyFolder
    variant : str
    identity : mapping
        What all trials share.
    folds : sequence of str
    rows : dict of draw number to row
        ``{"overrides": ..., "folds": {label: {"error": ...}}, "ended": bool}``.
    """

    folder: StudyFolder
    variant: str
    identity: Mapping[str, Any]
    folds: Sequence[str]
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: StudyFolder, variant: str, identity: Mapping[str, Any], folds: Sequence[str]) -> Trials:
        """Read what an earlier run of the same tuning has left, if any.

        Raises
        ------
        RecipeError
            The folder holds trials of another tuning.
        """
        trials = cls(folder, variant, json.loads(json.dumps(identity)), folds)
        path = folder.path / trials.file
        if path.is_file():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["identity"] != trials.identity:
                other = [name for name, value in trials.identity.items() if content["identity"].get(name) != value]
                raise RecipeError(
                    f"{path}: trials of another tuning ({', '.join(other)} differ); choose another --study"
                )
            trials.rows = {int(number): row for number, row in content["rows"].items()}
        return trials

    @property
    def file(self) -> str:
        """Name in the folder."""
        return f"trials-{folder_name(self.variant)}.json"

    @property
    def n_ended(self) -> int:
        """Trials that nothing is left to do for."""
        return sum(row["ended"] for row in self.rows.values())

    def ended(self, number: int) -> bool:
        """Whether a draw was trained on all folds, stopped by ASHA, or failed."""
        return bool(self.rows.get(number, {}).get("ended"))

    def folds_of(self, number: int) -> dict[str, Any]:
        """What is known of a draw."""
        return dict(self.rows.get(number, {}).get("folds", {}))

    def note(self, number: int, overrides: Overrides, fold: str, row: Mapping[str, Any]) -> None:
        """A fold of a draw is done."""
        own = self.rows.setdefault(number, {"overrides": overrides, "folds": {}, "ended": False})
        own["folds"][fold] = dict(row)
        self._save()

    def end(self, number: int) -> None:
        """Nothing more comes for a draw."""
        if number in self.rows:
            self.rows[number]["ended"] = True
            self._save()

    def scores(self, number: int) -> list[float]:
        """Mean error after each fold."""
        errors = [row["error"] for row in self.rows[number]["folds"].values()]
        return [math.fsum(errors[:n]) / n for n in range(1, len(errors) + 1)]

    def past(self) -> list[SimpleNamespace]:
        """Ended trials as ASHA wants them: ``trial_id`` and the ``scores`` of its rungs."""
        return [
            SimpleNamespace(trial_id=f"past-{number}", scores=self.scores(number))
            for number, row in sorted(self.rows.items())
            if row["ended"]
        ]

    def evaluated(self, space: Collection[str]) -> tuple[list[Overrides], list[float]]:
        """Points and scores of ended trials, for Optuna."""
        done = [n for n, row in sorted(self.rows.items()) if row["ended"] and set(row["overrides"]) == set(space)]
        return [dict(self.rows[n]["overrides"]) for n in done], [self.scores(n)[-1] for n in done]

    def state(self, number: int) -> str:
        """``done`` (all folds), ``stopped`` (by ASHA), ``failed`` or ``open``."""
        row = self.rows[number]
        if any(fold["error"] >= FAILED for fold in row["folds"].values()):
            return "failed"
        if len(row["folds"]) == len(self.folds):
            return "done"
        return "stopped" if row["ended"] else "open"

    def first_message(self) -> str:
        """Why the first failed draw failed."""
        said = [fold["message"] for row in self.rows.values() for fold in row["folds"].values() if fold["message"]]
        return said[0] if said else "no fold was finished"

    def table(self) -> pd.DataFrame:
        """One row per draw and fold.

        Columns ``variant, draw, state, score, n_folds, fold, error, best_epoch, epochs, seconds, message, overrides``.
        """
        return pd.DataFrame(
            [
                {
                    "variant": self.variant, "draw": number, "state": self.state(number),
                    "score": self.scores(number)[-1], "n_folds": len(row["folds"]), "fold": fold, **own,
                    "overrides": json.dumps(row["overrides"], sort_keys=True),
                }
                for number, row in sorted(self.rows.items())
                for fold, own in row["folds"].items()
            ]
        )  # fmt: skip

    def _save(self) -> None:
        rows = {str(number): row for number, row in sorted(self.rows.items())}
        content = json.dumps({"identity": self.identity, "variant": self.variant, "rows": rows}, indent=1)
        self.folder.write(self.file, content.encode())


def best_trial(trials: Trials, fold: str | None = None) -> int | None:
    """Draw with the lowest mean error among those trained on all folds; of one fold alone where ``fold`` is given.

    One fold alone is what a figure about that fold may rest on: the mean has seen, as validation recordings of other
    folds, subjects of the site that this fold holds out.
    """
    able = [number for number in sorted(trials.rows) if trials.state(number) == "done"]
    if not able:
        return None
    if fold is None:
        return min(able, key=lambda number: trials.scores(number)[-1])
    return min(able, key=lambda number: trials.rows[number]["folds"][fold]["error"])
