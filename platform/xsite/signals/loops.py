"""Carbon-wire-loop regression: what loops on the head see of movement and of the helium pump is taken out of the EEG.

Lagged least squares in overlapping windows, put together with Hann weights (van der Meer et al. 2016, Clin.
Neurophysiol. 127:2802). At 200 Hz: what loops can explain lies below 100 Hz, and a lag there is 5 ms.

Letters: ``C`` EEG channels, ``L`` loops, ``T`` samples, ``P`` regressors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xsite.errors import ChannelError
from xsite.recording import Float

WINDOW_S = 12.0
LAG_S = 0.025
_RIDGE = 1e-6  # of the mean regressor power: keeps flat or twin loops from breaking the solution


def regress_loops(
    eeg_CT: Float,
    loops_LT: Float,
    sfreq: float,
    *,
    window_s: float = WINDOW_S,
    lag_s: float = LAG_S,
    source: str = "EEG",
) -> tuple[Float, dict[str, Any]]:
    """Subtract what the loops explain.

    Parameters
    ----------
    eeg_CT : array, shape (C, T)
    loops_LT : array, shape (L, T)
        Loops at the same rate, any unit.
    sfreq : float
    window_s : float
        Length of a window; the coupling of loops to channels may change from window to window.
    lag_s : float
        Loops lead or trail by up to this much.
    source : str
        File name for messages.

    Returns
    -------
    eeg_CT : float32 array
        A new array.
    step : dict
        Parameters, and the share of variance removed (median over channels).

    Raises
    ------
    ChannelError
        All loops are flat or not a number, or more regressors than a quarter of a window's samples.
    """
    good = np.asarray([bool(np.isfinite(loop_T).all() and loop_T.std() > 0) for loop_T in loops_LT])
    if not good.any():
        raise ChannelError(f"{source}: all {len(loops_LT)} carbon-wire loops are flat or no numbers; clear site.loops")
    lags = range(-round(lag_s * sfreq), round(lag_s * sfreq) + 1)
    n_regressors = int(good.sum()) * len(lags) + 2
    size = min(round(window_s * sfreq), eeg_CT.shape[1])
    if n_regressors > size // 4:
        raise ChannelError(
            f"{source}: {n_regressors} regressors from {int(good.sum())} loops for windows of {size} samples would fit "
            "the EEG itself; use longer windows or fewer lags"
        )
    lagged_PT = _lagged(loops_LT[good], lags)
    clean_CT = np.zeros(eeg_CT.shape)
    weight_T = np.zeros(eeg_CT.shape[1])
    taper_T = np.hanning(size + 2)[1:-1]
    n_times = eeg_CT.shape[1]
    for start in [*range(0, n_times - size, size // 2), n_times - size]:
        part = slice(start, start + size)
        clean_CT[:, part] += taper_T * _residual(eeg_CT[:, part], lagged_PT[:, part])
        weight_T[part] += taper_T
    clean_CT /= weight_T
    removed_C = 1 - clean_CT.var(1) / np.maximum(eeg_CT.var(1), 1e-30)
    step = {
        "step": "loop regression",
        "n_loops": int(good.sum()),
        "window_s": window_s,
        "lag_s": lag_s,
        "variance_removed": float(np.median(removed_C)),
    }
    return clean_CT.astype(np.float32), step


def _lagged(loops_LT: Float, lags: range) -> Float:
    """Every loop at every lag, scaled to unit variance, shape (P, T); ends repeat."""
    scaled_LT = (loops_LT - loops_LT.mean(1, keepdims=True)) / loops_LT.std(1, keepdims=True)
    index_T = np.arange(loops_LT.shape[1])
    return np.concatenate([scaled_LT[:, np.clip(index_T + lag, 0, len(index_T) - 1)] for lag in lags])


def _residual(eeg_CT: Float, lagged_PT: Float) -> Float:
    """Ridge-stabilised least squares with constant and slope; these two stay in the EEG."""
    n = eeg_CT.shape[1]
    base_2T = np.stack([np.ones(n), np.linspace(-1, 1, n)])
    design_PT = np.concatenate([lagged_PT, base_2T])
    gram_PP = design_PT @ design_PT.T
    gram_PP[np.diag_indices(len(lagged_PT))] += _RIDGE * n
    coefs_PC = np.linalg.solve(gram_PP, design_PT @ eeg_CT.T.astype(np.float64))
    return np.asarray(eeg_CT - coefs_PC[: len(lagged_PT)].T @ lagged_PT)
