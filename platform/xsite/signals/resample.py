"""Any sampling rate to another one, block by block, zero phase: 5 kHz never stands in memory as a whole.

Decimation by whole numbers is a matrix product over stretches of samples, which is several times faster than a
polyphase loop. Letters: ``C`` channels, ``T`` samples, ``K`` samples after a stage.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.signal import firwin, kaiserord, resample_poly

from xsite.errors import ChannelError, FormatError
from xsite.recording import Bool, Float

PAD_PERIODS = 100  # of the lower rate: twice half of the longest filter, whose edge is a twentieth of that rate wide
_AT_ONCE = 3_200_000  # values per block: beyond 32 MB the C library maps fresh pages for every array, which costs more
_WINDOWS = 2048  # rows per matrix product
_OUTPUTS = (16, 64)  # samples that one row yields, for short and for long filters


def resampling_ratio(sfreq_in: float, n_times: int, sfreq: float, source: str) -> Fraction:
    """Output rate over input rate as a fraction.

    Raises
    ------
    FormatError
        A rate that cannot be brought to ``sfreq`` without drift.
    """
    ratio = Fraction(sfreq / sfreq_in).limit_denominator(5000)
    drift = abs(float(ratio) * sfreq_in / sfreq - 1) * n_times / sfreq_in
    if not sfreq_in >= sfreq / 2 or ratio == 0 or drift > 0.5 / sfreq:
        raise FormatError(f"{source}: a sampling rate of {sfreq_in:.6g} Hz cannot be brought to {sfreq:g} Hz")
    return ratio


def resampled(
    raw: Any, file_names: Sequence[str], ratio: Fraction, sfreq: float, source: str, *, block_s: float
) -> tuple[Float, Bool]:
    """Microvolt at ``sfreq``, mean removed, float32 of shape (C, K), and which channels are flat.

    Raises
    ------
    ChannelError
        NaN or infinity.
    """
    sfreq_in = float(raw.info["sfreq"])
    stages = _stages(sfreq_in, ratio, sfreq)
    down = ratio.denominator
    pad = down * max(1, round(PAD_PERIODS / min(sfreq, sfreq_in) * sfreq_in / down))
    largest = max(4 * pad, _AT_ONCE // max(1, len(file_names)) - 2 * pad)
    size = down * max(1, min(round(block_s * sfreq_in), largest) // down)
    n_out = int(raw.n_times * ratio)
    eeg_CK = np.empty((len(file_names), n_out), np.float32)
    low_C, high_C = np.full(len(file_names), np.inf), np.full(len(file_names), -np.inf)
    for start, data_CT in _blocks(raw, file_names, size, pad):
        least_C, most_C = data_CT.min(1), data_CT.max(1)
        bad = [name for name, fine in zip(file_names, np.isfinite(least_C + most_C), strict=True) if not fine]
        if bad:
            raise ChannelError(f"{source}: channels {bad} hold NaN or infinity near {start / sfreq_in:.1f} s")
        low_C, high_C = np.minimum(low_C, least_C), np.maximum(high_C, most_C)
        if start == 0:
            offset_C1 = data_CT.mean(1, keepdims=True)  # float32 resolves microvolt on millivolt offsets badly
        block_CT = np.subtract(data_CT, offset_C1, dtype=np.float64, out=data_CT).astype(np.float32)
        block_CT *= np.float32(1e6)
        for up, stage_down, taps in stages:
            block_CT = _stage(block_CT, up, stage_down, taps)
        first, skip = int(start * ratio), int(pad * ratio)
        stop = min(n_out, first + int(size * ratio))
        eeg_CK[:, first:stop] = block_CT[:, skip : skip + stop - first]
    for channel_K in eeg_CK:
        channel_K -= np.float32(channel_K.mean(dtype=np.float64))
    return eeg_CK, np.asarray(high_C == low_C)


def _blocks(raw: Any, file_names: Sequence[str], size: int, pad: int) -> Iterator[tuple[int, Float]]:
    """Volt in blocks of ``size`` samples with ``pad`` more at both ends, mirrored where the file ends."""
    picks = [raw.ch_names.index(name) for name in file_names]
    for start in range(0, raw.n_times, size):
        lo, hi = max(0, start - pad), min(raw.n_times, start + size + pad)
        data_CT = raw.get_data(picks=picks, start=lo, stop=hi)
        before, after = pad - (start - lo), min(raw.n_times, start + size) + pad - hi
        if before or after:  # odd mirror: a constant or a slope goes on, so that a DC offset does not ring
            data_CT = _mirror(data_CT, before, after)
        yield start, data_CT


def _mirror(data_CT: Float, before: int, after: int) -> Float:
    reach = data_CT.shape[1] - 1
    left, right = min(before, reach), min(after, reach)
    parts = [
        2 * data_CT[:, :1] - data_CT[:, left:0:-1],
        data_CT,
        2 * data_CT[:, -1:] - data_CT[:, -2 : -2 - right : -1],
    ]
    mirrored = np.concatenate([part for part in parts if part.shape[1]], axis=1)
    return np.pad(mirrored, ((0, 0), (before - left, after - right)), mode="edge")


def _stages(sfreq_in: float, ratio: Fraction, sfreq: float) -> list[tuple[int, int, Float]]:
    """Up, down and filter of each resampling stage: a coarse one to 800 Hz or more, then a sharp one (90 to 100 Hz)."""
    if ratio == 1:
        return []
    divisors = [d for d in range(2, ratio.denominator + 1) if ratio.denominator % d == 0]
    coarse = max([1, *(d for d in divisors if sfreq_in / d >= 4 * sfreq)])
    stages = []
    if coarse > 1:
        rate = sfreq_in / coarse
        stages.append((1, coarse, _low_pass(sfreq_in, 0.45 * sfreq, rate - 0.5 * sfreq)))
    rest = ratio * coarse
    stop = 0.5 * min(sfreq, sfreq_in)
    stages.append((rest.numerator, rest.denominator, _low_pass(sfreq_in / coarse * rest.numerator, 0.9 * stop, stop)))
    return stages


def _low_pass(rate: float, pass_hz: float, stop_hz: float) -> Float:
    """Odd-length Kaiser FIR, 70 dB."""
    n_taps, beta = kaiserord(70.0, (stop_hz - pass_hz) / (rate / 2))
    taps = firwin(n_taps | 1, (pass_hz + stop_hz) / 2, window=("kaiser", beta), fs=rate)
    return np.asarray(taps, dtype=np.float32)


def _stage(data_CT: Float, up: int, down: int, taps: Float) -> Float:
    if up > 1:
        return np.asarray(resample_poly(data_CT, up, down, axis=1, window=taps))
    return np.stack([_decimated(channel_T, down, taps.tobytes()) for channel_T in data_CT])


@lru_cache(maxsize=16)
def _product(down: int, taps: bytes) -> tuple[Float, int]:
    """Matrix from a stretch of samples to a few output samples, shape (stretch, outputs), and half the filter."""
    h = np.frombuffer(taps, np.float32)
    n_outputs = _OUTPUTS[len(h) > 100]
    matrix = np.zeros((len(h) + down * (n_outputs - 1), n_outputs), np.float32)
    for output in range(n_outputs):
        matrix[output * down : output * down + len(h), output] = h[::-1]
    return matrix, len(h) // 2


def _decimated(data_T: Float, down: int, taps: bytes) -> Float:
    """Filtered with the filter centred on every ``down``-th sample, zeros beyond the ends."""
    matrix, half = _product(down, taps)
    stretch, n_outputs = matrix.shape
    n_out = -(-len(data_T) // down)
    n_rows = -(-n_out // n_outputs)
    padded_T = np.zeros((n_rows - 1) * n_outputs * down + stretch, np.float32)
    padded_T[half : half + len(data_T)] = data_T[: len(padded_T) - half]
    rows = sliding_window_view(padded_T, stretch)[:: n_outputs * down]
    parts = [np.ascontiguousarray(rows[at : at + _WINDOWS]) @ matrix for at in range(0, n_rows, _WINDOWS)]
    return np.concatenate(parts).ravel()[:n_out]
