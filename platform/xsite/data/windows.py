"""From recordings to windows: which volumes have one, and all recordings laid end to end behind one index.

Shapes: ``C`` channels, ``D`` channels of one recording, ``T`` samples, ``V`` volumes, ``N`` recordings, ``W`` windows,
``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsite.data.montages import harmonize
from xsite.data.residence import Residence, residence_for
from xsite.data.window_source import WindowSource
from xsite.errors import RecordingError
from xsite.experiment_parts import Channels, Reference
from xsite.recording import Float, Recording

ChannelIndex = Callable[[Sequence[str]], Tensor] | Sequence[int] | Tensor
Align = Callable[[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float32]]
"""(eeg_CT microvolt, usable_C, valid_T) of one whole recording -> aligned eeg_CT."""
Statistics = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(eeg_CT microvolt, ch_index_C with -1 for padding, valid_T) of one whole recording -> statistics_CS."""

HEAD_CENTRE_M = (0.0, 0.02, 0.04)
"""Middle of the head in MNE's head frame, whose origin lies between the ears: seen from here, template electrodes lie
within 13 degrees of their places on the ideal 10-20 sphere (from the origin: 36)."""


def window_starts(recording: Recording, window_s: float = 16.0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Volumes of a recording that have a full, valid window, and the window's first sample.

    The window of a volume is the ``window_s`` seconds before it, half-open. It is left out where it begins before the
    recording or ends after it, touches an invalid sample, or its volume is invalid.

    Returns
    -------
    volumes, starts : int64 arrays, shape (windows,)
    """
    n_times = round(window_s * recording.sfreq)
    onsets_V = np.where(np.isfinite(recording.volume_onsets), recording.volume_onsets, -1.0)
    stop_V = np.round(onsets_V * recording.sfreq).astype(np.int64)
    start_V = stop_V - n_times
    inside_V = (start_V >= 0) & (stop_V <= recording.eeg.shape[1]) & recording.volume_valid
    bad_T = np.concatenate([[0], np.cumsum(~recording.eeg_valid)])
    clipped = np.clip(np.stack([start_V, stop_V]), 0, recording.eeg.shape[1])
    inside_V &= bad_T[clipped[1]] == bad_T[clipped[0]]
    volumes = np.flatnonzero(inside_V).astype(np.int64)
    return volumes, start_V[volumes]


def build_source(
    recordings: Sequence[Recording],
    *,
    ch_names: Sequence[str] | None,
    ch_index: ChannelIndex,
    targets: Sequence[Float] | None,
    window_s: float = 16.0,
    sfreq: float = 200.0,
    channels: Channels = "common",
    reference: Reference = "average",
    high_pass: float | None = None,
    sites: Sequence[str] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    residence: Residence | None = None,
    statistics: Statistics | None = None,
    align: Align | None = None,
) -> WindowSource:
    """Lay recordings end to end and list their windows.

    Parameters
    ----------
    recordings : sequence of Recording
    ch_names : sequence of str, optional
        Channels to take from every recording; None takes each recording's own and pads.
    ch_index : callable, or sequence of int
        The model's ``channel_index`` (names to indices), or its result for ``ch_names``.
    targets : sequence of float arrays (V, R), optional
        One per recording, NaN where there is none; None where only predictions are wanted. A window without any
        target is left out.
    window_s, sfreq : float
        Length of a window in seconds; sampling frequency that the model expects.
    channels : {"common", "native", "spline"}
        ``spline`` fills absent ones of ``ch_names`` from their neighbours, and masks those that are too far away.
    reference : {"average", "native"} or sequence of str
    high_pass : float, optional
        Hz, as :func:`xsite.data.montages.harmonize` takes it.
    sites : sequence of str, optional
        Order behind ``site_B``; the sorted sites of the recordings by default.
    dtype : torch.dtype
        ``float32``, or ``float16`` to halve the memory (coarser than 0.1 microvolt above 256 microvolt).
    device : torch.device, optional
        Where the model computes: place and type are then chosen by size (:mod:`xsite.data.residence`) instead of
        ``dtype`` in memory.
    residence : Residence, optional
        Place and type, not to be chosen by size.
    statistics : callable, optional
        The model's ``recording_statistics``, if it has one: called once per recording.
    align : callable, optional
        Of :func:`xsite.learning.adaptation.input_alignment`: called once per recording, on the chosen channels.

    Raises
    ------
    RecordingError
        A recording has another sampling frequency, or its target has another number of volumes.
    ChannelError
        A recording lacks one of ``ch_names``.
    """
    if not recordings:
        raise ValueError("a window source needs at least one recording")
    if targets is None:
        targets = [np.full((r.n_volumes, 0), np.nan, np.float32) for r in recordings]
        wanted = [np.ones(r.n_volumes, dtype=bool) for r in recordings]
    else:
        wanted = [np.atleast_1d(np.isfinite(target).any(axis=1)) for target in targets]
    _check(recordings, targets, sfreq)
    tables = [_table(n, r, w, window_s) for n, (r, w) in enumerate(zip(recordings, wanted, strict=True))]
    windows = pd.concat(tables, ignore_index=True)
    recording_W = windows["recording"].to_numpy()
    first_T = np.cumsum([0, *(r.eeg.shape[1] for r in recordings)])
    names = [tuple(r.ch_names if ch_names is None else ch_names) for r in recordings]
    n_chans = max(len(own) for own in names)
    if residence is None:
        chosen = residence_for(n_chans, int(first_T[-1]), device) if device is not None else Residence("memory", dtype)
    else:
        chosen = residence
    eeg_CT = chosen.allocate(n_chans, int(first_T[-1]), device or "cpu")
    first_V = np.cumsum([0, *(r.n_volumes for r in recordings)])
    target_VR = torch.from_numpy(np.concatenate([np.asarray(target, np.float32) for target in targets]))
    sites = tuple(sites or sorted({r.key.site for r in recordings}))
    ch_index_NC, position_NC3 = _lay_out(eeg_CT, recordings, names, ch_index, channels, reference, high_pass, align)
    source = WindowSource(
        eeg_CT=eeg_CT,
        ch_index_NC=ch_index_NC,
        target_VR=target_VR.nan_to_num(nan=0.0),
        mask_VR=target_VR.isfinite(),
        windows=windows,
        start_W=torch.from_numpy(windows["start"].to_numpy() + first_T[recording_W]),
        row_W=torch.from_numpy(windows["volume"].to_numpy() + first_V[recording_W]),
        recording_W=torch.from_numpy(recording_W.copy()),
        sites=sites,
        site_N=torch.tensor([sites.index(r.key.site) for r in recordings]),
        n_times=round(window_s * sfreq),
        position_NC3=position_NC3,
        t_r_N=torch.tensor([r.t_r for r in recordings], dtype=torch.float32),
        statistics_NCS=_statistics(recordings, eeg_CT, ch_index_NC, statistics),
        padded=bool((ch_index_NC < 0).any()),
    )
    return source.to(eeg_CT.device)


def _check(recordings: Sequence[Recording], targets: Sequence[Float], sfreq: float) -> None:
    for recording, target in zip(recordings, targets, strict=True):
        if abs(recording.sfreq - sfreq) > 1e-6:
            raise RecordingError(
                f"{recording.key}: EEG at {recording.sfreq} Hz, the model expects {sfreq} Hz; ingest it anew at that"
            )
        if len(target) != recording.n_volumes:
            raise RecordingError(
                f"{recording.key}: target of {len(target)} volumes, recording of {recording.n_volumes}"
            )


def _table(number: int, recording: Recording, wanted_V: NDArray[np.bool_], window_s: float) -> pd.DataFrame:
    volumes, starts = window_starts(recording, window_s)
    volumes, starts = volumes[wanted_V[volumes]], starts[wanted_V[volumes]]
    stops = starts + round(window_s * recording.sfreq)
    return pd.DataFrame(
        {"recording": np.full(len(volumes), number, np.int64), "volume": volumes, "start": starts, "stop": stops}
    )


def _lay_out(
    eeg_CT: Tensor,
    recordings: Sequence[Recording],
    names: Sequence[tuple[str, ...]],
    ch_index: ChannelIndex,
    channels: Channels,
    reference: Reference,
    high_pass: float | None,
    align: Align | None = None,
) -> tuple[Tensor, Tensor]:
    """Write the recordings into ``eeg_CT``, one after the other, and say which channel lies in which row."""
    n_chans, largest = len(eeg_CT), torch.finfo(eeg_CT.dtype).max
    ch_index_NC = torch.full((len(recordings), n_chans), -1, dtype=torch.int64)
    position_NC3 = torch.zeros(len(recordings), n_chans, 3)
    first = 0
    for number, (recording, own) in enumerate(zip(recordings, names, strict=True)):
        stop = first + recording.eeg.shape[1]
        chosen = harmonize(recording, own, channels=channels, reference=reference, high_pass=high_pass)
        eeg_DT = chosen.eeg_DT if align is None else align(chosen.eeg_DT, chosen.usable_D, recording.eeg_valid)
        # float16 ends at 65504 microvolt: beyond, an amplifier is saturated, and infinity would poison the window
        eeg_CT[: len(own), first:stop] = torch.from_numpy(eeg_DT).clamp(-largest, largest)
        index_C = torch.as_tensor(ch_index(own) if callable(ch_index) else ch_index, dtype=torch.int64)
        usable_D = torch.from_numpy(chosen.usable_D)
        ch_index_NC[number, : len(own)] = torch.where(usable_D, index_C, -1)
        position_NC3[number, : len(own)] = torch.where(usable_D[:, None], _directions(recording, own), 0.0)
        first = stop
    return ch_index_NC, position_NC3


def _directions(recording: Recording, names: Sequence[str]) -> Tensor:
    """Directions of electrodes from the middle of the head, shape (names, 3); zeros where unknown or not recorded."""
    place = {name: index for index, name in enumerate(recording.ch_names)}
    nowhere = np.full(3, np.nan)
    metres_D3 = np.stack([recording.montage.positions[place[n]] if n in place else nowhere for n in names])
    metres_D3 = metres_D3 - HEAD_CENTRE_M
    length_D1 = np.linalg.norm(metres_D3, axis=1, keepdims=True)
    unit_D3 = np.where(np.isfinite(length_D1), metres_D3 / length_D1, 0.0)
    return torch.from_numpy(unit_D3.astype(np.float32))


def _statistics(
    recordings: Sequence[Recording], eeg_CT: Tensor, ch_index_NC: Tensor, statistics: Statistics | None
) -> Tensor:
    if statistics is None:
        return torch.zeros(*ch_index_NC.shape, 0)
    parts, first = [], 0
    for recording, ch_index_C in zip(recordings, ch_index_NC, strict=True):
        stop = first + recording.eeg.shape[1]
        valid_T = torch.from_numpy(np.asarray(recording.eeg_valid))
        parts.append(statistics(eeg_CT[:, first:stop].float().cpu(), ch_index_C, valid_T).float())
        first = stop
    return torch.stack(parts)
