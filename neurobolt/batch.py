"""What the model reads from a batch. Shape letters: ``B`` windows, ``C`` channels, ``T`` samples."""

# ruff: noqa: N802  (properties named like the arrays they stand for)

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class Batch(Protocol):
    """Any object with these two tensors is a batch; further attributes are not looked at."""

    @property
    def eeg_BCT(self) -> Tensor:
        """Microvolt at the model's sampling frequency, shape (B, C, T)."""
        ...

    @property
    def ch_index_BC(self) -> Tensor:
        """Index of each channel in the model's ``ch_names``, shape (B, C); -1 marks padding."""
        ...


class EegBatch(NamedTuple):
    """The smallest batch.

    Parameters
    ----------
    eeg_BCT : float tensor, shape (B, C, T)
        Microvolt.
    ch_index_BC : int64 tensor, shape (B, C)
        From :meth:`neurobolt.NeuroBOLT.channel_index`; -1 marks padding, which changes no output.
    """

    eeg_BCT: Tensor
    ch_index_BC: Tensor
