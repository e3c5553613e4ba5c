"""Channels of the experiment, chosen at load time: shared ones, each recording's own, or a canonical montage.

Shapes: ``C`` channels of a recording, ``D`` channels of the experiment, ``T`` samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfiltfilt

from xsite.data.spline_plan import CANONICAL, SplinePlan, canonical_montage, check_plan, spline_plan
from xsite.errors import ChannelError
from xsite.experiment_parts import Channels, Reference
from xsite.recording import Bool, Recording

__all__ = [
    "CANONICAL",
    "HarmonizedEeg",
    "SplinePlan",
    "canonical_montage",
    "check_plan",
    "common_channels",
    "harmonize",
    "harmonize_eeg",
    "spline_plan",
]


@dataclass(frozen=True, eq=False)
class HarmonizedEeg:
    """EEG in the channels of an experiment.

    Parameters
    ----------
    eeg_DT : float32 array, shape (D, T)
        Microvolt; zero where not usable.
    usable_D : bool array, shape (D,)
        False for channels that the recording cannot give: they are masked, not invented.
    """

    eeg_DT: NDArray[np.float32]
    usable_D: Bool


@cache
def _head_order() -> dict[str, int]:
    """Front to back, left to right: the order of the 10-05 system (cached, MNE takes a moment to build it)."""
    from mne.channels import make_standard_montage

    return {name.lower(): place for place, name in enumerate(make_standard_montage("colin27_1005").ch_names)}


def common_channels(montages: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Channels that every recording has, from front to back of the head.

    Parameters
    ----------
    montages : sequence of sequences of str
        Canonical channel names of each recording.

    Raises
    ------
    ChannelError
        No recording is given, or they share no channel.
    """
    if not montages:
        raise ChannelError("no recording given: there are no channels to compare")
    shared = set(montages[0]).intersection(*montages[1:])
    if not shared:
        kinds = sorted({", ".join(names) for names in montages})
        raise ChannelError(
            f"the recordings share no channel; {len(kinds)} montages: "
            + " | ".join(kinds)
            + ". Use data.channels: native, or spline"
        )
    order = _head_order()
    return tuple(sorted(shared, key=lambda name: (order.get(name.lower(), len(order)), name)))


def harmonize(
    recording: Recording,
    ch_names: Sequence[str],
    *,
    channels: Channels = "common",
    reference: Reference = "average",
    high_pass: float | None = None,
) -> HarmonizedEeg:
    """EEG of the asked channels, in their order, re-referenced after the choice.

    Parameters
    ----------
    recording : Recording
    ch_names : sequence of str, length D
    channels : {"common", "native", "spline"}
        ``spline`` fills absent channels from their neighbours; the others demand that the recording has them all.
    reference : {"average", "native"} or sequence of str
        ``average`` subtracts the mean over the usable channels at every sample, names the mean over those electrodes.
    high_pass : float, optional
        Hz; zero-phase Butterworth of order 2, forward and backward, over the whole recording.

    Raises
    ------
    ChannelError
        The recording lacks channels, or electrodes of the reference.
    """
    place = {name: index for index, name in enumerate(recording.ch_names)}
    if channels == "spline":
        plan = spline_plan(recording.montage, ch_names)
        check_plan(plan, recording.montage, recording.key)
        eeg_DT = (plan.weights_DC.astype(np.float32) @ recording.eeg.astype(np.float32)).astype(np.float32)
        usable_D = plan.usable_D
    else:
        if missing := [name for name in ch_names if name not in place]:
            raise ChannelError(
                f"{recording.key}: lacks channels {missing}; it has {', '.join(recording.ch_names)}. Use channels that "
                "all recordings share (data.channels: common), data.channels: native, or data.channels: spline"
            )
        eeg_DT = recording.eeg[[place[name] for name in ch_names]].astype(np.float32)
        usable_D = np.ones(len(eeg_DT), dtype=bool)
    if not isinstance(reference, str):
        eeg_DT[usable_D] -= _reference(recording, reference, dict(zip(ch_names, eeg_DT, strict=True)), usable_D)
    elif reference == "average":
        eeg_DT[usable_D] -= eeg_DT[usable_D].mean(axis=0, keepdims=True)
    if high_pass is not None:  # linear like the reference, so that their order does not matter
        sos = butter(2, high_pass, "highpass", fs=recording.sfreq, output="sos")
        for row_T in eeg_DT:  # one by one: the filter works in float64
            row_T[:] = sosfiltfilt(sos, row_T)
    return HarmonizedEeg(eeg_DT, usable_D)


def _reference(recording: Recording, names: Sequence[str], rows: dict[str, Any], usable_D: Bool) -> NDArray[np.float32]:
    """Mean over the reference electrodes: as recorded, or as filled in."""
    found: dict[str, Any] = {name: row for (name, row), ok in zip(rows.items(), usable_D, strict=True) if ok}
    found |= dict(zip(recording.ch_names, recording.eeg, strict=True))
    if missing := [name for name in names if name not in found]:
        raise ChannelError(
            f"{recording.key}: data.reference names {missing}, which this recording has not (it has "
            f"{', '.join(recording.ch_names)}); use data.reference: average"
        )
    return np.asarray(np.mean([found[name] for name in names], axis=0), dtype=np.float32)


def harmonize_eeg(
    recording: Recording,
    ch_names: Sequence[str],
    reference: Reference = "average",
    channels: Channels = "common",
    high_pass: float | None = None,
) -> NDArray[np.float32]:
    """EEG of the asked channels as an array, shape (D, T): :func:`harmonize` without its mask."""
    return harmonize(recording, ch_names, channels=channels, reference=reference, high_pass=high_pass).eeg_DT
