"""EEG windows as an index into continuous recordings: nothing is cut before it is asked for.

16 s windows at one volume each overlap about 8-fold, so continuous EEG is held once and windows are gathered by index
arithmetic. Shapes: ``B`` batch, ``C`` channels, ``T`` samples, ``V`` volumes, ``R`` parcels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

Gathered = tuple[Any, Tensor, Tensor]
"""Batch, target_BR and mask_BR of some windows."""


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
        there: dict[str, Any] = {n: value.to(device) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **there)

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


def on_device(gathered: Gathered, device: torch.device) -> Gathered:
    """What :meth:`WindowSource.gather` gave, on ``device``; the batch may be of any model's type."""
    batch, target_BR, mask_BR = gathered
    there = type(batch)(*(moved(part, device) if isinstance(part, Tensor) else part for part in batch))
    return there, moved(target_BR, device), moved(mask_BR, device)
