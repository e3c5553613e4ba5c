"""What is drawn for one recording, and from which seed.

Every recording has random streams of its own, keyed by (seed, site, subject, purpose): adding subjects or sites changes
no other recording, and the EEG's noise does not depend on the BOLD's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from xsite.phantom.eeg import ScalpEeg, Timing, simulate_scalp
from xsite.phantom.habits import Habits
from xsite.phantom.presets import Preset
from xsite.phantom.sources import Subject, draw_drive, draw_subject
from xsite.recording import Float

_CLOCK_S = 0.02  # the first trigger falls on a sample of every amplifier in the table


class Stream(IntEnum):
    """Purposes of random numbers; the values are part of the seed and never change."""

    SITE = 0
    SUBJECT = 1
    TIMING = 2
    DRIVE = 3
    SCALP = 4
    AMPLIFIER = 5
    BOLD = 6


@dataclass(frozen=True)
class Plan:
    """One recording to be made.

    Parameters
    ----------
    habits : Habits
    preset : Preset
    seed, site_index, subject_index, run_index : int
    n_volumes : int
    run : str
        BIDS run label, empty where a subject is scanned once.
    """

    habits: Habits
    preset: Preset
    seed: int
    site_index: int
    subject_index: int
    n_volumes: int
    run_index: int = 0
    run: str = ""

    @property
    def subject(self) -> str:
        """BIDS subject label."""
        return f"{self.subject_index + 1:02d}"

    @property
    def entities(self) -> str:
        """BIDS entities of the recording."""
        return f"sub-{self.subject}_task-rest" + (f"_run-{self.run}" if self.run else "")

    def rng(self, stream: Stream) -> np.random.Generator:
        """Generator of one purpose; site and subject streams are shared by the recordings that they cover."""
        subject = -1 if stream is Stream.SITE else self.subject_index
        run = -1 if stream in (Stream.SITE, Stream.SUBJECT) else self.run_index
        key = (self.site_index, subject + 1, run + 1, int(stream))
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def draw_subject(self) -> Subject:
        """Haemodynamics, peak frequencies and gains of this recording's subject."""
        return draw_subject(self.preset, self.rng(Stream.SITE), self.rng(Stream.SUBJECT))

    def timing(self) -> Timing:
        """Volume triggers and length of the EEG."""
        wait = self.habits.lead_in_s + self.rng(Stream.TIMING).uniform(0, 4)
        first = round(wait / _CLOCK_S) * _CLOCK_S
        triggers = first + np.arange(self.n_volumes) * self.habits.t_r
        markers = self.n_volumes + self.habits.extra_markers
        duration = float(np.ceil(first + markers * self.habits.t_r + self.habits.tail_s))
        return Timing(duration, triggers, self.habits.t_r)

    def draw_drive(self) -> Float:
        """Neural drive of all parcels, shape (R, D)."""
        return draw_drive(self.preset, self.rng(Stream.DRIVE), self.timing().duration_s)

    def scalp(self, drive_RD: Float) -> ScalpEeg:
        """Scalp EEG at the simulation's rate."""
        return simulate_scalp(
            self.habits, self.preset, self.draw_subject(), drive_RD, self.timing(), self.rng(Stream.SCALP)
        )

    def sample_times(self) -> Float:
        """When each volume is sampled: trigger plus slice-timing reference, seconds from the first EEG sample."""
        return self.timing().triggers_V + self.habits.reference_share * self.habits.t_r

    def markers(self) -> list[tuple[float, str]]:
        """Volume markers and decoys in order of time: (seconds from the first EEG sample, description)."""
        habits, timing = self.habits, self.timing()
        extra = timing.triggers_V[-1] + habits.t_r * (1 + np.arange(habits.extra_markers))
        found = [(float(onset), habits.marker) for onset in [*timing.triggers_V, *extra]]
        if habits.decoy:
            decoys = np.arange(habits.decoy_phase_s, timing.duration_s - 0.5, habits.decoy_every_s)
            found += [(float(onset), habits.decoy) for onset in decoys]
        return sorted(found)
