"""Optimal basis set of what average templates leave (Niazy et al. 2005, NeuroImage 28:720).

The principal components of a channel's residual volumes, high-passed so that they cannot describe EEG rhythms, are
fitted to each volume and subtracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xsite.recording import Float
from xsite.signals.templates import line_basis
from xsite.signals.volume_train import VolumeTrain

N_COMPONENTS = 4
HIGH_PASS_HZ = 20.0  # above alpha: the EEG's strongest rhythm would be the first component otherwise
MAX_VOLUMES = 64  # evenly spread; components of a stationary residual need no more
_CHANS = 8


def residual_basis(
    corrected: Any,
    picks: Sequence[int],
    train: VolumeTrain,
    *,
    n_components: int = N_COMPONENTS,
    high_pass_hz: float = HIGH_PASS_HZ,
) -> dict[int, Float]:
    """Components of the corrected volumes of each channel.

    Parameters
    ----------
    corrected : object with ``get_data(picks, start, stop)`` and ``info``
        The recording after subtraction of templates.
    picks : sequence of int
    train : VolumeTrain
    n_components : int
    high_pass_hz : float

    Returns
    -------
    dict of int to array, shape (K, S)
        Orthonormal rows without slow content, K = ``n_components``, by channel.
    """
    rows = train.sources[np.linspace(0, len(train.sources) - 1, min(MAX_VOLUMES, len(train.sources))).astype(int)]
    starts, size = train.starts_V[rows], train.spacing
    basis = {}
    for at in range(0, len(picks), _CHANS):
        some = list(picks[at : at + _CHANS])
        parts = [corrected.get_data(some, int(start), int(start) + size) for start in starts]
        residual_CVS = np.stack(parts, axis=1)
        for pick, residual_VS in zip(some, residual_CVS, strict=True):
            basis[pick] = principal_shapes(residual_VS, float(corrected.info["sfreq"]), n_components, high_pass_hz)
    return basis


def principal_shapes(residual_VS: Float, sfreq: float, n_components: int, high_pass_hz: float) -> Float:
    """First principal components of high-passed rows, orthonormal, shape (K, S); flat channels give zeros."""
    n_times = residual_VS.shape[1]
    spectrum_VF = np.fft.rfft(residual_VS - residual_VS.mean(1, keepdims=True), axis=1)
    spectrum_VF[:, : int(np.ceil(high_pass_hz * n_times / sfreq))] = 0
    fast_VS = np.fft.irfft(spectrum_VF, n_times, axis=1)
    line_2S = line_basis(n_times)
    fast_VS -= (fast_VS @ line_2S.T) @ line_2S
    values, vectors = np.linalg.eigh(fast_VS @ fast_VS.T)
    order = np.argsort(-values)[:n_components]
    shapes_KS = vectors[:, order].T @ fast_VS
    norms_K = np.linalg.norm(shapes_KS, axis=1)
    return np.asarray(shapes_KS / np.where(norms_K > 1e-9 * max(norms_K.max(), 1e-300), norms_K, np.inf)[:, None])
