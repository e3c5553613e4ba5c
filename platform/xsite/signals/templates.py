"""Average artifact templates of volumes, one channel and a few volumes at a time: one matrix product, cache-sized.

Letters: ``V`` volumes to correct, ``W`` volumes that form their templates, ``S`` samples of one volume, ``N`` the same
with margins, ``T`` samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len
from scipy.linalg.blas import dgemm

from xsite.recording import Float
from xsite.signals.volume_train import PAD, VolumeTrain, tapered_spectrum

Trend = Literal["removed", "kept"]
ROWS = 8  # volumes per matrix product: more of them multiply more zeros


@dataclass(frozen=True, eq=False)
class Block:
    """Neighbouring volumes and the ones that form their templates.

    Parameters
    ----------
    rows_V : int array
        Volumes to correct.
    sources_W : int array
        Whole volumes, consecutive in the train.
    mean_VW : array
        Weights of a template: 1/n for the n neighbours, 0 for the volume itself.
    drift_VW : array
        Weights of the same neighbours' mean change of level per volume.
    """

    rows_V: NDArray[np.int64]
    sources_W: NDArray[np.int64]
    mean_VW: Float
    drift_VW: Float


def neighbours(train: VolumeTrain, row: int, window: tuple[int, int]) -> NDArray[np.int64]:
    """Whole volumes that form the template of a volume: ``window`` before and after, at the ends the nearest ones."""
    sources = train.sources_of(row)
    n = sum(window)
    place = int(np.searchsorted(sources, row))
    if place == len(sources) or sources[place] != row:  # cut by the end of the file, or without trigger
        first = min(max(0, place - window[0]), len(sources) - n)
        return sources[first : first + n]
    first = min(max(0, place - window[0]), len(sources) - n - 1)
    return np.delete(sources[first : first + n + 1], place - first)


def blocks(train: VolumeTrain, rows_V: NDArray[np.int64], window: tuple[int, int], trend: Trend) -> list[Block]:
    """Group volumes that are corrected together; cut ones stand alone, and no group crosses a hole."""
    groups: list[list[int]] = []
    for row in rows_V.tolist():
        alone = not train.whole_V[row] or not groups or not train.whole_V[groups[-1][-1]]
        if alone or len(groups[-1]) == ROWS or train.run_V[row] != train.run_V[groups[-1][-1]]:
            groups.append([])
        groups[-1].append(row)
    return [_block(train, group, window, 2 if trend == "kept" else 0) for group in groups]


def _block(train: VolumeTrain, group: list[int], window: tuple[int, int], margin: int) -> Block:
    windows = [neighbours(train, row, window) for row in group]
    whole = [row for row in group if train.whole_V[row]]
    sources = train.sources_of(group[0])
    first, last = int(sources[0]), int(sources[-1])
    low = max(first, min([*(int(w[0]) for w in windows), *whole]) - margin)
    high = min(last, max([*(int(w[-1]) for w in windows), *whole]) + margin)
    mean_VW = np.zeros((len(group), high + 1 - low))
    for index, window_W in enumerate(windows):
        mean_VW[index, window_W - low] = 1 / len(window_W)
    change_WW = np.gradient(np.eye(high + 1 - low), axis=0, edge_order=2 if high - low > 1 else 1)
    return Block(np.array(group), np.arange(low, high + 1), mean_VW, mean_VW @ change_WW)


@lru_cache(maxsize=64)
def line_basis(size: int) -> Float:
    """Orthonormal constant and slope, shape (2, S)."""
    slope = np.arange(size) - (size - 1) / 2
    return np.stack([np.full(size, size**-0.5), slope / max(float(np.linalg.norm(slope)), 1.0)])


def correct_block(
    data_T: Float, origin: int, train: VolumeTrain, block: Block, trend: Trend, basis_KS: Float | None
) -> list[tuple[int, Float]]:
    """Corrected stretches of one channel, each with its first sample.

    Parameters
    ----------
    data_T : array
        One channel, from sample ``origin`` on, holding all sources of the block with their margins.
    origin : int
    train, block
    trend : {"removed", "kept"}
    basis_KS : array, optional
        Optimal basis set of the residual.
    """
    if train.even and train.whole_V[block.rows_V].all():
        return [_even_rows(data_T, origin, train, block, trend, basis_KS)]
    template_VN, coefs_W2 = _templates(data_T, origin, train, block)
    line_V2 = template_VN[:, : train.spacing] @ line_basis(train.spacing).T
    line_V2[:, 1] -= _artifact_slope(train, block, coefs_W2)
    return [
        _one(data_T, origin, train, int(row), template_T, line_2, trend, basis_KS)
        for row, template_T, line_2 in zip(block.rows_V, template_VN, line_V2, strict=True)
    ]


def _even_rows(
    data_T: Float, origin: int, train: VolumeTrain, block: Block, trend: Trend, basis_KS: Float | None
) -> tuple[int, Float]:
    """Whole volumes on an even grid: volume minus template is one matrix product, its line another."""
    line_2S = line_basis(train.spacing)
    sources_WS = _even_sources(data_T, origin, train, block)
    left_VS = (np.eye(len(block.sources_W))[block.rows_V - block.sources_W[0]] - block.mean_VW) @ sources_WS
    line_V2 = left_VS @ line_2S.T
    if trend == "kept":
        coefs_W2 = sources_WS @ line_2S.T
        line_V2 -= coefs_W2[block.rows_V - block.sources_W[0]]
        line_V2[:, 1] += _artifact_slope(train, block, coefs_W2)
    dgemm(-1.0, line_2S.T, line_V2.T, beta=1.0, c=left_VS.T, overwrite_c=True)  # left_VS -= line_V2 @ line_2S, in place
    if basis_KS is not None:
        left_VS -= (left_VS @ basis_KS.T) @ basis_KS
    return int(train.starts_V[block.rows_V[0]]), left_VS.ravel()


def _even_sources(data_T: Float, origin: int, train: VolumeTrain, block: Block) -> Float:
    first = int(train.starts_V[block.sources_W[0]]) - origin
    return data_T[first : first + train.spacing * len(block.sources_W)].reshape(-1, train.spacing)


def _one(
    data_T: Float,
    origin: int,
    train: VolumeTrain,
    row: int,
    template_T: Float,
    line_2: Float,
    trend: Trend,
    basis_KS: Float | None,
) -> tuple[int, Float]:
    """A volume whose length is its own: cut by the end of the file, or a sample longer than the others."""
    first, stop = int(train.firsts_V[row]), int(train.stops_V[row])
    begin, size = first - int(train.starts_V[row]), train.spacing
    where_T = np.arange(begin, begin + stop - first)
    slope_norm = line_basis(size)[1, -1] / ((size - 1) / 2)
    line_T = line_2[0] * size**-0.5 + line_2[1] * (where_T - (size - 1) / 2) * slope_norm
    left_T = data_T[first - origin : stop - origin] - (template_T[where_T] - line_T)
    if trend == "removed":
        own_2T = line_basis(len(left_T))[: 2 if len(left_T) > size // 2 else 1]
        left_T = left_T - (own_2T @ left_T) @ own_2T
    if basis_KS is not None and len(left_T) > size // 2:  # less of a volume would be fitted too well
        own_KT = basis_KS[:, begin : begin + len(left_T)]  # a part of the shapes is not orthonormal any more
        n = own_KT.shape[1]
        left_T[:n] -= np.linalg.lstsq(own_KT.T, left_T[:n], rcond=None)[0] @ own_KT
    return first, left_T


def _artifact_slope(train: VolumeTrain, block: Block, coefs_W2: Float) -> Float:
    """Slope of the artifact inside a volume, without that of the slow drift which goes on from volume to volume."""
    size = train.spacing
    per_volume_V = block.drift_VW @ coefs_W2[:, 0] * size**-0.5
    norm = float(np.linalg.norm(np.arange(size) - (size - 1) / 2))
    return np.asarray(block.mean_VW @ coefs_W2[:, 1] - per_volume_V / size * norm)


def _templates(data_T: Float, origin: int, train: VolumeTrain, block: Block) -> tuple[Float, Float]:
    """Templates in each volume's own phase, shape (V, S or longer), and straight lines of the sources, shape (W, 2)."""
    size, sources = train.spacing, block.sources_W
    line_2S = line_basis(size)
    if train.even:
        sources_WS = _even_sources(data_T, origin, train, block)
        return block.mean_VW @ sources_WS, sources_WS @ line_2S.T
    sources_WN = np.stack([_with_margins(data_T, int(train.starts_V[row]) - origin, size) for row in sources])
    spectrum_WF, omega_F = tapered_spectrum(sources_WN)
    spectrum_WF *= np.exp(1j * np.outer(train.phase_V[sources], omega_F))
    template_VF = (block.mean_VW @ spectrum_WF) * np.exp(-1j * np.outer(train.phase_V[block.rows_V], omega_F))
    template_VN = irfft(template_VF, next_fast_len(size + 2 * PAD, real=True), axis=1)[:, PAD : size + PAD + PAD // 4]
    return template_VN, sources_WN[:, PAD : PAD + size] @ line_2S.T


def _with_margins(data_T: Float, start: int, size: int) -> Float:
    lo, hi = max(0, start - PAD), min(len(data_T), start + size + PAD)
    return np.pad(data_T[lo:hi], (lo - (start - PAD), start + size + PAD - hi), mode="edge")
