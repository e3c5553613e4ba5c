"""What is true of a written phantom run: when each volume was triggered, and what an honest reader must make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xsite.phantom.like.plan import LikeRun
from xsite.recording import Float


@dataclass(frozen=True, eq=False)
class LikeTruth:
    """What is true of one written run.

    Parameters
    ----------
    run : LikeRun
        As written, volumes shortened.
    triggers_V : array, shape (V,)
        Trigger of every volume of the image, in seconds from the first sample of the published EEG; those before or
        after the EEG as well.
    duration_s : float
        Seconds of EEG.
    """

    run: LikeRun
    triggers_V: Float
    duration_s: float

    @property
    def kept(self) -> tuple[int, int]:
        """First volume that a reader must keep, and one past the last: by default, those triggered inside the EEG."""
        if self.run.kept is not None:
            return self.run.kept
        inside = np.flatnonzero((self.triggers_V > -1e-6) & (self.triggers_V < self.duration_s + 1e-6))
        return (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)

    def facts(self) -> dict[str, Any]:
        """As plain data, for ``<site>.truth.json``."""
        run = self.run
        return {
            "eeg": run.eeg,
            "bold": run.bold,
            "paired": run.paired,
            "duration_s": self.duration_s,
            "triggers": [float(f"{onset:.9g}") for onset in self.triggers_V],
            "kept": list(self.kept),
            "faults": [fault for fault in (run.triggers, run.file) if fault],
            "verdicts": list(run.verdicts),
            "reason": run.reason,
        }
