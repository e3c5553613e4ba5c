"""EEG windows as an index into continuous recordings: nothing is cut before it is asked for.

16 s windows at one volume each overlap about 8-fold, so continuous EEG is held once and windows are gathered by index
arithmetic. Shapes: ``B`` batch, ``C`` channels, ``T`` samples, ``V`` volumes, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from xsite.data.montages import harmonize
from xsite.data.residence import Residence, residence_for
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


class Batch(NamedTuple):
    """What a model is given.

    Attributes
    ----------
    eeg_BCT : float32 tensor
        Microvolt; scaling happens inside the model.
    ch_index_BC : int64 tensor
        Each channel's index in the model's vocabulary; -1 is padding and must change no output.
    site_B : int64 tensor
        Index of the window's site in ``WindowSource.sites``.
    position_BC3 : float32 tensor
        Unit vector from the middle of the head to each electrode, axes of the head frame; zeros where unknown.
    t_r_B : float32 tensor
        Repetition time of the scan in seconds.
    statistics_BCS : float32 tensor
        What the model's ``recording_statistics`` says of the whole recording's EEG; S is 0 for a model without it.
    padded : bool
        Whether any recording of the source has padded channels: known on the host, so that no model asks the device,
        and the same for every batch, so that nothing recompiles.
    """

    eeg_BCT: Tensor
    ch_index_BC: Tensor
    site_B: Tensor
    position_BC3: Tensor
    t_r_B: Tensor
    statistics_BCS: Tensor
    padded: bool = True

    def to(self, device: torch.device | str) -> Batch:
        """Copy to a device, from pinned memory if it is an accelerator: only then does the host not wait."""
        parts: dict[str, Any] = {
            name: moved(part, device) for name, part in self._asdict().items() if isinstance(part, Tensor)
        }
        return self._replace(**parts)


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``, without waiting for what that is still computing."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class WindowSource:
    """Continuous recordings end to end, and where the windows lie in them.

    Parameters
    ----------
    eeg_CT : tensor, shape (C, T)
        All recordings one after the other; float32, or float16 to halve the memory. Rows that a recording does not
        fill are zero.
    ch_index_NC : int64 tensor, shape (N recordings, C)
    target_VR : float32 tensor
        All recordings' volumes one after the other; NaN became 0.
    mask_VR : bool tensor
        False where the target was NaN.
    windows : DataFrame
        One row per window: ``recording`` (its position in the list), ``volume``, ``start``, ``stop`` (samples of that
        recording, half-open).
    start_W, row_W, recording_W : int64 tensors, shape (windows,)
        First sample in ``eeg_CT``, row in ``target_VR``, and recording of each window.
    sites : tuple of str
    site_N : int64 tensor, shape (N recordings,)
    n_times : int
        Samples per window.
    position_NC3, t_r_N, statistics_NCS : float32 tensors
        Facts of each recording, as in :class:`Batch`.
    padded : bool
        Whether ``ch_index_NC`` holds a -1 anywhere.
    """

    eeg_CT: Tensor
    ch_index_NC: Tensor
    target_VR: Tensor
    mask_VR: Tensor
    windows: pd.DataFrame
    start_W: Tensor
    row_W: Tensor
    recording_W: Tensor
    sites: tuple[str, ...]
    site_N: Tensor
    n_times: int
    position_NC3: Tensor
    t_r_N: Tensor
    statistics_NCS: Tensor
    padded: bool = True

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.start_W)

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.eeg_CT.device

    def to(self, device: torch.device | str) -> WindowSource:
        """Copy everything to a device, once; batches are then gathered there."""
        moved: dict[str, Any] = {n: value.to(device) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def gather(self, index_B: Tensor | NDArray[np.int64]) -> tuple[Batch, Tensor, Tensor]:
        """Cut the windows ``index_B`` out.

        Returns
        -------
        batch : Batch
        target_BR : float32 tensor
            0 where there is no target.
        mask_BR : bool tensor
            True where there is one.
        """
        index_B = moved(torch.as_tensor(index_B, dtype=torch.int64), self.device)
        start_B, row_B, recording_B = self.start_W[index_B], self.row_W[index_B], self.recording_W[index_B]
        # a view (start, C, n_times): no sample is copied before the starts are known
        every_start = self.eeg_CT.unfold(1, self.n_times, 1).transpose(0, 1)
        eeg_BCT = every_start[start_B].float().contiguous()
        batch = Batch(
            eeg_BCT,
            ch_index_BC=self.ch_index_NC[recording_B],
            site_B=self.site_N[recording_B],
            position_BC3=self.position_NC3[recording_B],
            t_r_B=self.t_r_N[recording_B],
            statistics_BCS=self.statistics_NCS[recording_B],
            padded=self.padded,
        )
        return batch, self.target_VR[row_B], self.mask_VR[row_B]


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
