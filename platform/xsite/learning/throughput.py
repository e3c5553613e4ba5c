"""How fast a training is, and how near to what the machine could do: logged with every epoch.

Nothing here makes the host wait for the device inside an epoch: on CUDA the times are events, read at its end.
Shapes: ``B`` batch, ``R`` parcels.
"""

from __future__ import annotations

import copy
import resource
import time
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from xsite.experiment_parts import Precision

PEAK_SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows of the square matrices that measure the peak: larger ones are no faster, and a fold should start at once."""
COUNTED_WINDOWS = 4
"""Windows of the batch that is counted: operations grow in proportion."""


class Clock:
    """Seconds per step and the share of them spent waiting for data."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._marks: list[Any] = [self._now()]  # start, then for each step: data arrived, step done

    def data_arrived(self) -> None:
        """The batch is there; the step begins."""
        self._marks.append(self._now())

    def step_done(self) -> None:
        """The optimiser has stepped."""
        self._marks.append(self._now())

    def metrics(self, n_windows: float) -> dict[str, float]:
        """``windows_per_s, step_s_p50, step_s_p95, data_wait_fraction``; on CUDA this waits for the last step."""
        seconds = np.array(self._intervals())
        waits, steps = seconds[::2], seconds[::2] + seconds[1::2]
        p50, p95 = np.percentile(steps, [50, 95])
        return {
            "windows_per_s": float(n_windows / steps.sum()),
            "step_s_p50": float(p50),
            "step_s_p95": float(p95),
            "data_wait_fraction": float(waits.sum() / steps.sum()),
        }

    def work(self) -> list[float]:
        """Seconds of each step without its wait."""
        return self._intervals()[1::2]

    def _now(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def _intervals(self) -> list[float]:
        pairs = list(zip(self._marks, self._marks[1:], strict=False))
        if self.device.type != "cuda":
            return [after - before for before, after in pairs]
        self._marks[-1].synchronize()
        return [before.elapsed_time(after) / 1000 for before, after in pairs]


class Arithmetic:
    """Floating-point operations of a training beside the machine's peak.

    Parameters
    ----------
    algorithm : nn.Module
        ``forward(batch, target_BR, mask_BR) -> {"loss": ...}``; a copy of it is run once.
    gathered : tuple
        Batch, target and mask of a few windows, on ``device``.
    """

    def __init__(
        self, algorithm: nn.Module, gathered: tuple[Any, Tensor, Tensor], device: torch.device, precision: Precision
    ) -> None:
        self.flop_per_window = count_training_flops(algorithm, gathered) / len(gathered[1])
        self.peak = matmul_peak(device.type, precision, torch.get_num_threads())

    def metrics(self, windows_per_s: float, world_size: int = 1) -> dict[str, float]:
        """``gflop_per_s`` of all ranks together, and ``peak_fraction`` of what their matrix products could reach."""
        achieved = windows_per_s * self.flop_per_window
        return {"gflop_per_s": achieved / 1e9, "peak_fraction": achieved / (self.peak * world_size)}


def count_training_flops(algorithm: nn.Module, gathered: tuple[Any, Tensor, Tensor]) -> int:
    """Operations of forward and backward, as torch counts matrix products and convolutions, attention included.

    Fourier transforms, norms, activations and the optimiser are not counted. Runs on a copy and leaves the random state
    as it was, so that a run with and one without it end with the same weights.
    """
    twin = copy.deepcopy(algorithm).train()
    with torch.random.fork_rng(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        twin(*gathered)["loss"].backward()
    return int(counter.get_total_flops())


@lru_cache
def matmul_peak(device: str, precision: Precision, n_threads: int) -> float:
    """FLOP/s of a large matrix product, the best of five, measured once per process.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``.
    n_threads : int
        Threads in use: it names the measurement, and is not set here.
    """
    del n_threads
    n = PEAK_SIZE.get(device, 1024)
    matrix = torch.ones(n, n, device=device, dtype=torch.bfloat16 if precision == "bfloat16" else torch.float32)
    out = torch.empty_like(matrix)
    clock = Clock(torch.device(device))
    for _ in range(6):
        clock.data_arrived()
        torch.mm(matrix, matrix, out=out)
        clock.step_done()
    return float(2 * n**3 / min(clock.work()[1:]))


def forget_peak_memory(device: torch.device) -> None:
    """Let a GPU's peak start anew: a warm worker trains many models, and the largest must not speak for all."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> dict[str, float]:
    """``peak_rss_mb`` of this process so far, and on a GPU ``peak_cuda_mb`` since :func:`forget_peak_memory`."""
    row = {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        row["peak_cuda_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return row
