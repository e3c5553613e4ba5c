"""Which windows make which batch: indices only, the same for every number of workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def epoch_indices(n: int, *, seed: int, epoch: int, windows_per_epoch: int | None = None) -> Index:
    """Draw the windows of one epoch without replacement, in random order.

    Parameters
    ----------
    n : int
        Number of windows.
    seed, epoch : int
        The same pair gives the same order on every machine; each epoch is shuffled anew.
    windows_per_epoch : int, optional
        How many windows to draw; all where it is None or exceeds ``n``.
    """
    if n < 1:
        raise ValueError("there is no window to draw from: every volume lacks a full, valid EEG window")
    return np.random.default_rng([seed, epoch]).permutation(n)[:windows_per_epoch].astype(np.int64)


def n_batches(n_indices: int, global_batch: int) -> int:
    """Number of batches that :func:`batches` gives per epoch."""
    return max(n_indices // global_batch, min(n_indices, 1))


def batches(indices: Index, global_batch: int, rank: int = 0, world_size: int = 1) -> Iterator[Index]:
    """Deal each global batch to the workers: batch ``i`` holds the same windows whatever the number of workers.

    The last, partial batch is dropped, unless the whole epoch is smaller than one batch.

    Parameters
    ----------
    indices : int array
        The epoch's order, from :func:`epoch_indices`.
    global_batch : int
        Windows per step over all workers together; a multiple of ``world_size``, so that all shares are equal and
        the mean of the workers' gradients is the gradient of the whole batch.
    rank, world_size : int
        This worker and the number of workers.

    Raises
    ------
    ValueError
        The batch cannot be dealt evenly, or there are fewer windows than workers.
    """
    if global_batch % world_size:
        raise ValueError(
            f"a batch of {global_batch} windows cannot be dealt evenly to {world_size} workers: "
            f"use a batch size such as {-(-global_batch // world_size) * world_size}"
        )
    if len(indices) < world_size:
        raise ValueError(f"{len(indices)} windows cannot feed {world_size} workers: use fewer workers")
    for number in range(n_batches(len(indices), global_batch)):
        batch = indices[number * global_batch : (number + 1) * global_batch]
        yield np.array_split(batch, world_size)[rank]
