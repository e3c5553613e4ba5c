"""Prediction for windows of named channels, the same for every model of this package."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neurobolt.batch import EegBatch

ArrayOrTensor = TypeVar("ArrayOrTensor", NDArray[Any], Tensor)


@torch.no_grad()
def predict_windows(model: nn.Module, eeg_BCT: ArrayOrTensor, index_C: Tensor) -> ArrayOrTensor:
    """BOLD of windows of known channels, in evaluation mode; the mode of ``model`` is left as it was.

    Parameters
    ----------
    model : nn.Module
    eeg_BCT : float32 array or tensor, shape (B, C, T)
        Microvolt at the model's sampling frequency.
    index_C : int64 tensor, shape (C,)
        From the model's ``channel_index``.

    Returns
    -------
    float32 array or tensor, shape (B, R)
        The kind of ``eeg_BCT``.

    Raises
    ------
    ValueError
        Wrong shape, values that are not finite, or values that look like volt.
    """
    eeg = torch.as_tensor(eeg_BCT)
    if eeg.ndim != 3 or eeg.shape[1] != len(index_C):
        raise ValueError(f"eeg has shape {tuple(eeg.shape)}; expected (windows, {len(index_C)} channels, samples)")
    check_microvolt(eeg)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        batch = EegBatch(eeg.to(device, torch.float32), index_C.to(device).expand(len(eeg), -1))
        bold_BR: Tensor = model(batch).float()
    finally:
        model.train(was_training)
    return bold_BR.cpu().numpy() if isinstance(eeg_BCT, np.ndarray) else bold_BR.to(eeg.device)


def check_microvolt(eeg: Tensor) -> None:
    """Refuse values that no EEG in microvolt has.

    Raises
    ------
    ValueError
        Values that are not finite, or so small that they look like volt.
    """
    if not bool(torch.isfinite(eeg).all()):
        raise ValueError("eeg holds values that are not finite; leave out such channels or windows")
    size = float(eeg.float().abs().mean()) if eeg.numel() else 0.0
    if 0 < size < 1e-2:
        raise ValueError(f"eeg has a mean magnitude of {size:.1e}; microvolt are expected, multiply volt by 1e6")
