"""Where the continuous recordings lie while windows are cut out of them: chosen by size, said in the log.

Windows of 16 s overlap about 8-fold, so the recordings are held once and gathered from by index, with no worker
processes: handing windows between processes costs more than cutting them. First choice is the accelerator, then main
memory, then a file that the page cache serves; float16 halves the size before the next slower place is taken.
Shapes: ``C`` channels, ``T`` samples.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xsite.errors import RecipeError

Place = Literal["device", "memory", "file"]
DEVICE_SHARE, MEMORY_SHARE = 0.4, 0.5
"""Shares of what is free that the recordings may take: the rest is for activations, or for the other processes."""
_GIB = 1024**3
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Residence:
    """A place, and the type of the samples there.

    Parameters
    ----------
    place : {"device", "memory", "file"}
        The accelerator itself, main memory, or a temporary file mapped into memory (removed with the last tensor).
    dtype : torch.dtype
        ``float32``, or ``float16``: 11 bits of mantissa, so within 0.06 microvolt up to 256 microvolt.
    """

    place: Place = "memory"
    dtype: torch.dtype = torch.float32

    def to_dict(self) -> dict[str, str]:
        """Plain data, for a checkpoint."""
        return {"place": self.place, "dtype": str(self.dtype).removeprefix("torch.")}

    def allocate(self, n_chans: int, n_times: int, device: torch.device | str = "cpu") -> Tensor:
        """Zeros (n_chans, n_times) in this place.

        Raises
        ------
        RecipeError
            The folder for temporary files lacks the space.
        """
        if self.place == "device":
            return torch.zeros(n_chans, n_times, dtype=self.dtype, device=device)
        if self.place == "memory":
            return torch.zeros(n_chans, n_times, dtype=self.dtype)
        return _mapped(n_chans, n_times, self.dtype)


def choose_residence(
    n_chans: int, n_times: int, *, device_free: int | None, memory_free: int, dtype: torch.dtype | None = None
) -> Residence:
    """The fastest place that holds (n_chans, n_times) samples.

    Parameters
    ----------
    device_free : int, optional
        Free bytes of the accelerator; None where there is none.
    memory_free : int
        Bytes of main memory that may be had without swapping.
    dtype : torch.dtype, optional
        Take this type and choose the place only: a training that goes on keeps the samples it began with.
    """
    samples = n_chans * n_times
    rooms: list[tuple[Place, float]] = [("memory", MEMORY_SHARE * memory_free)]
    if device_free is not None:
        rooms.insert(0, ("device", DEVICE_SHARE * device_free))
    for place, room in rooms:
        for kind in (torch.float32, torch.float16) if dtype is None else (dtype,):
            if samples * kind.itemsize <= room:
                return Residence(place, kind)
    return Residence("file", dtype or torch.float16)


def residence_for(
    n_chans: int,
    n_times: int,
    device: torch.device | str,
    *,
    dtype: torch.dtype | None = None,
    sharing: tuple[int, int] = (1, 1),
) -> Residence:
    """:func:`choose_residence` with what is free now on this machine; the choice goes into the log.

    Parameters
    ----------
    dtype : torch.dtype, optional
        Not to be chosen.
    sharing : (int, int)
        Processes on this node, and on this GPU, that hold recordings of their own: each takes its part.
    """
    per_node, per_gpu = sharing
    device = torch.device(device)
    device_free = torch.cuda.mem_get_info(device)[0] // per_gpu if device.type == "cuda" else None
    memory = available_memory() // per_node
    chosen = choose_residence(n_chans, n_times, device_free=device_free, memory_free=memory, dtype=dtype)
    size = n_chans * n_times * chosen.dtype.itemsize / _GIB
    free = f"{memory / _GIB:.1f} GiB of memory free" + (f" for each of {per_node} workers" if per_node > 1 else "")
    if device_free is not None:
        free += f", {device_free / _GIB:.1f} GiB on {device}"
    where = str(device) if chosen.place == "device" else chosen.place
    logger.info("recordings: %.2f GiB as %s in %s (%s)", size, str(chosen.dtype).removeprefix("torch."), where, free)
    return chosen


def available_memory() -> int:
    """Bytes of main memory that may be had without swapping (Linux: ``MemAvailable``; else half of all)."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        return kib * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _mapped(n_chans: int, n_times: int, dtype: torch.dtype) -> Tensor:
    n_bytes, folder = n_chans * n_times * dtype.itemsize, tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if n_bytes > free:  # writing to a mapped file on a full disk would end the process without a word
        raise RecipeError(
            f"the recordings take {n_bytes / _GIB:.1f} GiB, more than memory holds, and {folder} has "
            f"{free / _GIB:.1f} GiB free: set TMPDIR to a larger disk, or use fewer sites or channels"
        )
    kind = np.float16 if dtype == torch.float16 else np.float32
    with tempfile.TemporaryFile() as file:  # without a name already: gone with the last tensor that looks at it
        return torch.from_numpy(np.memmap(file, dtype=kind, mode="w+", shape=(n_chans, n_times)))
