"""Gradient artifact: average artifact subtraction (Allen et al. 2000, NeuroImage 12:230), every volume included.

The template of a volume is the mean of its neighbours; the first and last volumes take the nearest ones. On an even
sample grid this is what ``mne.preprocessing.remove_fmri_gradient_artifact`` (1.13.2) computes, except that MNE leaves
the first and last volumes as they are. Where volumes fall between samples, templates are formed and put back by
linear-phase shifts; the EEG itself is never interpolated.

Nothing is loaded as a whole: :class:`CorrectedRaw` corrects what is asked for, when it is asked for.

Letters: ``C`` channels, ``T`` samples, ``V`` volumes, ``S`` samples of one volume, ``N`` the same with margins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from xsite.recording import Bool, Float
from xsite.signals.artifact_figures import gradient_figures
from xsite.signals.montage import type_from_name
from xsite.signals.obs import residual_basis
from xsite.signals.templates import ROWS, Trend, blocks, correct_block
from xsite.signals.uncorrected import run_steps, uncovered, valid_after_removal
from xsite.signals.volume_runs import volume_train
from xsite.signals.volume_train import PAD, VolumeTrain

WINDOW = (4, 4)
Residual = Literal["none", "obs"]
_PIECE = 1 << 22  # values read at once (32 MB)
_READ = 1 << 21  # values that MNE reads at once
_FIGURES_CHANS = 8


def remove_gradient(
    raw: Any,
    triggers: Float,
    t_r: float,
    *,
    window: tuple[int, int] = WINDOW,
    tolerance_samples: int = 2,
    residual: Residual = "none",
    trend: Trend = "removed",
    also: Sequence[str] = (),
    source: str,
) -> tuple[CorrectedRaw, Bool, list[dict[str, Any]]]:
    """Subtract average artifact templates from the EEG and ECG channels.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        At its own rate, in memory or not; it is not changed.
    triggers : array
        Triggers in seconds from the first sample of the volumes that were acquired. Slice triggers do as well, with
        the time from slice to slice as ``t_r``, as long as slices are evenly spaced. At a hole the train falls into
        runs, each with its own clock and templates; runs too short for a template stay uncorrected.
    t_r : float
        Repetition time in seconds.
    window : tuple of int
        Volumes before and after that form a template; fewer follow a moving head better and keep more EEG noise.
    tolerance_samples : int
        Largest deviation of a volume's length from the median, in samples of ``raw``.
    residual : {"none", "obs"}
        Whether to fit and subtract an optimal basis set of what templates leave (:mod:`xsite.signals.obs`).
    trend : {"removed", "kept"}
        "removed": each volume comes out without its straight line, as in MNE. "kept": slow EEG goes on through the
        volumes, without steps from volume to volume and at the start of the scan.
    also : sequence of str
        Channels to correct besides EEG and ECG, such as carbon-wire loops.
    source : str
        File name for messages.

    Returns
    -------
    corrected : CorrectedRaw
        Reads like ``raw``.
    valid_T : bool array
        At the rate of ``raw``; False in holes and short runs, and where something loud beside the volumes was left.
    steps : list of dict
        Parameters, and figures before and after.

    Raises
    ------
    AlignmentError
        Too few volumes for a template, or triggers of a run that jitter by more than the tolerance.
    """
    picks = _artifact_channels(raw, also)
    train = volume_train(
        raw,
        triggers,
        picks=picks,
        t_r=t_r,
        n_least=sum(window) + 1,
        tolerance=tolerance_samples,
        source=source,
    )
    corrected = CorrectedRaw(raw, train, picks, window, trend)
    if residual == "obs":
        corrected.basis = residual_basis(corrected, picks, train)
    valid_T = valid_after_removal(raw, corrected, picks, train)
    return corrected, valid_T, [_step(corrected, raw, residual, valid_T)]


def _step(corrected: CorrectedRaw, raw: Any, residual: Residual, valid_T: Bool) -> dict[str, Any]:
    train, picks = corrected.train, corrected.artifact_picks
    some = picks[:: max(1, len(picks) // _FIGURES_CHANS)]
    rows = train.sources
    return {
        "step": "gradient removal",
        "method": "average artifact subtraction",
        "window": list(corrected.window),
        "trend": corrected.trend,
        "residual": residual,
        "n_volumes": len(rows),
        "n_beyond_triggers": len(train) - len(rows),
        "samples_per_volume": train.spacing,
        "phase_shift": not train.even,
        "n_channels": len(picks),
        "uncorrected_s": round(float((~valid_T).sum()) / raw.info["sfreq"], 3),
        "runs": run_steps(train, raw.info["sfreq"]),
        **gradient_figures(raw, corrected, some, train),
    }


@dataclass
class _Held:
    """Uncorrected samples of the last call, in a buffer that is used again: fresh pages cost more than copies."""

    chosen: tuple[int, ...] = ()
    start: int = 0
    stop: int = 0
    origin: int = 0  # sample that stands in the first column
    data_CT: Float = field(default_factory=lambda: np.empty((0, 0)))


class CorrectedRaw:
    """A recording without its gradient artifact, corrected block by block as it is read.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    train : VolumeTrain
    picks : sequence of int
        Channels to correct; the others are passed on.
    window, trend
        As in :func:`remove_gradient`.
    """

    def __init__(
        self, raw: Any, train: VolumeTrain, picks: Sequence[int], window: tuple[int, int], trend: Trend
    ) -> None:
        self.raw = raw
        self.train = train
        self.artifact_picks = [int(pick) for pick in picks]
        self.window = window
        self.trend = trend
        self.basis: dict[int, Float] = {}
        self._held = _Held()

    def __getattr__(self, name: str) -> Any:
        if name == "raw":  # not yet there while unpickling
            raise AttributeError(name)
        return getattr(self.raw, name)

    def get_data(self, picks: Any = None, start: int = 0, stop: int | None = None) -> Float:
        """Volt, shape (C, T): like ``mne.io.BaseRaw.get_data`` for these arguments, corrected."""
        chosen = self._indices(picks)
        stop = int(self.raw.n_times) if stop is None else min(int(stop), int(self.raw.n_times))
        out_CT = np.empty((len(chosen), max(0, stop - start)))
        # a file holds all channels of a moment together, memory all moments of a channel: small pieces stay in cache
        at_once = 1 if self.raw.preload else max(1, len(chosen))
        step = max(self.train.spacing * 4 * ROWS, _PIECE // at_once)
        for lo in range(start, stop, step):
            hi = min(stop, lo + step)
            for at in range(0, len(chosen), at_once):
                self._correct(chosen[at : at + at_once], lo, hi, out_CT[at : at + at_once, lo - start : hi - start])
        return out_CT

    def apply(self) -> Any:
        """Write the correction into the recording, which has to be in memory, channel by channel, and return it."""
        train, held_T = self.train, np.empty(int(self.raw.n_times))
        groups = blocks(train, np.arange(len(train)), self.window, self.trend)

        def correct(data_T: Float, pick: int) -> Float:
            held_T[:] = data_T
            for group in groups:
                for first, left_T in correct_block(held_T, 0, train, group, self.trend, self.basis.get(pick)):
                    data_T[first : first + len(left_T)] = left_T
            return data_T

        for pick in self.artifact_picks:
            self.raw.apply_function(correct, [pick], pick=pick, verbose="error")
        return self.raw

    def _indices(self, picks: Any) -> tuple[int, ...]:
        names = self.raw.ch_names
        if picks is None:
            return tuple(range(len(names)))
        return tuple(names.index(pick) if isinstance(pick, str) else int(pick) for pick in np.atleast_1d(picks))

    def _read(self, chosen: tuple[int, ...], start: int, stop: int) -> Float:
        """Uncorrected samples. Blocks need their neighbours: what the last call read is moved, not read again."""
        if self.raw.preload:
            return np.asarray(self.raw.get_data(picks=list(chosen), start=start, stop=stop))
        held = self._held
        if held.chosen != chosen or not held.start <= start <= held.stop:
            held.chosen, held.start, held.stop, held.origin = chosen, start, start, start
        if stop - held.origin > held.data_CT.shape[1] or len(held.data_CT) != len(chosen):
            self._make_room(start, stop)
        step = max(1, _READ // len(chosen))
        for lo in range(held.stop, stop, step):
            hi = min(stop, lo + step)
            fresh_CT = self.raw.get_data(picks=list(chosen), start=lo, stop=hi)
            held.data_CT[:, lo - held.origin : hi - held.origin] = fresh_CT
        held.stop = max(held.stop, stop)
        return held.data_CT[:, start - held.origin : stop - held.origin]

    def _make_room(self, start: int, stop: int) -> None:
        """Move what is still needed to the front; the buffer holds three calls, so that most calls move nothing."""
        held = self._held
        kept_CT: Float = np.empty((len(held.chosen), 0))
        if len(held.data_CT) == len(held.chosen):
            kept_CT = held.data_CT[:, start - held.origin : held.stop - held.origin].copy()
        if len(held.data_CT) != len(held.chosen) or held.data_CT.shape[1] < 2 * (stop - start):
            held.data_CT = np.empty((len(held.chosen), 3 * (stop - start)))
        held.data_CT[:, : kept_CT.shape[1]] = kept_CT
        held.start, held.origin, held.stop = start, start, start + kept_CT.shape[1]

    def _correct(self, chosen: tuple[int, ...], start: int, stop: int, out_CT: Float) -> None:
        train = self.train
        rows_V = np.flatnonzero((train.stops_V > start) & (train.firsts_V < stop))
        groups = blocks(train, rows_V, self.window, self.trend)
        used_V = np.unique([row for group in groups for row in (*group.rows_V, *group.sources_W)]).astype(int)
        lo = min([start, *(train.starts_V[used_V] - PAD).tolist()])
        hi = max([stop, *(train.starts_V[used_V] + train.spacing + PAD).tolist()])
        lo, hi = max(0, lo), min(int(self.raw.n_times), hi)
        data_CT = self._read(chosen, lo, hi)
        left = uncovered(train, start, stop)
        for index, pick in enumerate(chosen):
            if pick not in self.artifact_picks:
                out_CT[index] = data_CT[index, start - lo : stop - lo]
                continue
            for first, end in left:
                out_CT[index, first - start : end - start] = data_CT[index, first - lo : end - lo]
            for group in groups:
                parts = correct_block(data_CT[index], lo, train, group, self.trend, self.basis.get(pick))
                for first, left_T in parts:
                    begin, end = max(first, start), min(first + len(left_T), stop)
                    if begin < end:
                        out_CT[index, begin - start : end - start] = left_T[begin - first : end - first]


def _artifact_channels(raw: Any, also: Sequence[str]) -> list[int]:
    picks = []
    for index, (name, kind) in enumerate(zip(raw.ch_names, raw.get_channel_types(), strict=True)):
        if name in also or (type_from_name(name) or kind) in ("eeg", "ecg"):
            picks.append(index)
    return picks
