"""The numbers of the training step beside a straightforward implementation, all ratios from one run.

``python -m benchmarks.step_full [--device cuda] [--repeats 3]``: both implementations take their steps in turn, each in
a process of its own, so that whatever else the machine does meets them alike. Only ours has the trainer's allocator
settings (:mod:`xsite.learning.memory`); further rows say what these alone would do. ``cpu`` columns are processor
seconds, which a busy machine distorts less than the clock on the wall.
Shape letters: ``B`` windows, ``C`` channels, ``T`` samples, ``R`` outputs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.step_naive import NaiveNeuroBOLT
from neurobolt.batch import EegBatch
from neurobolt.channels import VU_NAMES
from neurobolt.config import NeuroBOLTConfig
from neurobolt.model import NeuroBOLT
from xsite.learning.algorithms import ERM
from xsite.learning.memory import keep_freed_memory
from xsite.learning.throughput import count_training_flops

Precision = Literal["float32", "bfloat16"]
PEAK_SIZE = {"cpu": 2048, "cuda": 8192}
Timed = Callable[[], tuple[float, float]]
"""Runs a step once and says how many seconds and processor seconds it took."""


@dataclass(frozen=True)
class Setting:
    """How a process measures. ``keep``: with the trainer's allocator settings."""

    device: str
    threads: int
    batch_size: int
    keep: bool


MakeSteps = Callable[[Setting], Mapping[str, Callable[[], None]]]


def batch_of(n_windows: int, n_chans: int, n_times: int, device: str) -> EegBatch:
    """Seeded noise of 20 microvolt."""
    noise = torch.randn(n_windows, n_chans, n_times, generator=torch.Generator().manual_seed(0))
    return EegBatch((20 * noise).to(device), torch.arange(n_chans, device=device).expand(n_windows, -1))


def stepper(model: nn.Module, batch: EegBatch, precision: Precision, *, fused: bool) -> Callable[[], None]:
    """Forward, backward and AdamW of one batch."""
    parameters: Any = getattr(model, "twin", model)
    device = batch.eeg_BCT.device
    optimizer = torch.optim.AdamW(parameters.param_groups(3e-4, 0.05), fused=True if fused else None)
    target_BR = torch.zeros(len(batch.eeg_BCT), parameters.config.n_outputs, device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            loss = nn.functional.mse_loss(model(batch).float(), target_BR)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def matmul(dtype: torch.dtype, device: str) -> Callable[[], None]:
    """A square product into memory that is there already: the machine's peak."""
    n = PEAK_SIZE[device]
    matrix, out = torch.randn(2, n, n, device=device).to(dtype)

    def step() -> None:
        torch.mm(matrix, matrix, out=out)

    return step


def in_turn(steps: Mapping[str, Timed], repeats: int) -> dict[str, tuple[float, float]]:
    """(Seconds, processor seconds) of each, the least of ``repeats`` rounds in which all take their turn."""
    best = dict.fromkeys(steps, (float("inf"), float("inf")))
    for round_ in range(repeats + 1):
        for name, step in steps.items():
            took = step()
            if round_ > 0:  # the first round warms up
                best[name] = min(best[name][0], took[0]), min(best[name][1], took[1])
    return best


def timed(step: Callable[[], None], device: str) -> tuple[float, float]:
    """Seconds and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def here(steps: Mapping[str, Callable[[], None]], device: str) -> dict[str, Timed]:
    """Steps of this very process."""
    return {name: partial(timed, step, device) for name, step in steps.items()}


@contextmanager
def elsewhere(make: MakeSteps, setting: Setting) -> Iterator[dict[str, Timed]]:
    """Steps of a process of their own, one at a time, with their own allocator settings."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, setting), daemon=True)
    process.start()

    def call(name: str) -> tuple[float, float]:
        mine.send(name)
        answer: tuple[float, float] = mine.recv()
        return answer

    yield {name: partial(call, name) for name in mine.recv()}
    mine.send(None)
    process.join()


def _serve(pipe: Any, make: MakeSteps, setting: Setting) -> None:
    torch.set_num_threads(setting.threads)
    if setting.keep:
        keep_freed_memory()
    steps = make(setting)
    pipe.send(list(steps))
    while (name := pipe.recv()) is not None:
        pipe.send(timed(steps[name], setting.device))


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operators as they are dispatched, views included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.n: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.n += 1
        return func(*args, **(kwargs or {}))


def operator_calls(forward: Callable[[], Any]) -> int:
    """Operator calls of ``forward``."""
    calls = _Calls()
    with torch.no_grad(), calls:
        forward()
    return calls.n


def models(device: str, n_outputs: int = 1) -> tuple[NeuroBOLT, NaiveNeuroBOLT]:
    """The full model, and the straightforward one with the same weights."""
    torch.manual_seed(0)
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper", n_outputs=n_outputs)).to(device)
    return model, NaiveNeuroBOLT(model)


def naive_steps(setting: Setting) -> dict[str, Callable[[], None]]:
    """Training steps of the straightforward implementation."""
    naive, batch = models(setting.device)[1], batch_of(setting.batch_size, 26, 3200, setting.device)
    precisions: tuple[Precision, ...] = ("float32", "bfloat16")
    return {f"naive {precision}": stepper(naive, batch, precision, fused=False) for precision in precisions}


def our_steps(setting: Setting) -> dict[str, Callable[[], None]]:
    """Training steps of ours, and the machine's peak in the same process."""
    device = setting.device
    model, wide = models(device)[0], models(device, 66)[0]
    batch = batch_of(setting.batch_size, 26, 3200, device)
    peaks = {f"peak {dtype}".replace("torch.", ""): matmul(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    return {
        **peaks,
        "ours float32": stepper(model, batch, "float32", fused=True),
        "ours bfloat16": stepper(model, batch, "bfloat16", fused=True),
        "ours float32, 66 outputs": stepper(wide, batch, "float32", fused=True),
    }


def exact_rows(device: str, batch_size: int) -> Iterator[str]:
    """What no clock is needed for; the last line is the arithmetic of a window."""
    (model, naive), batch = models(device), batch_of(batch_size, 26, 3200, device)
    pairs = {"forward": (lambda: naive(batch), lambda: model(batch)), "spectral branch": _spectral(naive, model, batch)}
    for part, (theirs, ours) in pairs.items():
        n, m = operator_calls(theirs), operator_calls(ours)
        yield f"operator calls per {part}: naive {n}, ours {m}: 1/{n / m:.1f}"
    yield f"largest difference of the outputs: {_difference(model, naive, batch):.1e}"
    yield f"arithmetic of a training window: {training_flops(model, device) / 1e9:.1f} GFLOP"


def training_flops(model: NeuroBOLT, device: str) -> int:
    """Operations of forward and backward of one window."""
    some = torch.ones(1, 1, device=device)
    return count_training_flops(ERM(model), (batch_of(1, 26, 3200, device), some, some > 0))


def training_rows(repeats: int, setting: Setting) -> Iterator[str]:
    """Windows per second of both, the peak, and how much of it is used."""
    device, flop = setting.device, training_flops(models(setting.device)[0], setting.device)
    plain = replace(setting, keep=False)
    with ExitStack() as stack:
        ours = stack.enter_context(elsewhere(our_steps, setting))
        naive = stack.enter_context(elsewhere(naive_steps, plain))
        kept = stack.enter_context(elsewhere(naive_steps, setting))
        given_back = stack.enter_context(elsewhere(our_steps, plain))
        steps = {**ours, **naive, "naive float32, our allocator": kept["naive float32"]}
        steps |= {f"{name}, default allocator": given_back[name] for name in ("ours float32", "ours bfloat16")}
        took = in_turn(steps, repeats)
    for name in steps:
        if name.startswith("peak"):
            continue
        peak = peaks_of(took, name, device)
        wall, cpu = took[name]
        of_naive = took["naive float32"]
        yield (
            f"{name:<33}{setting.batch_size / wall:>9.2f} windows/s{of_naive[0] / wall:>7.2f} x naive float32 "
            f"(cpu {of_naive[1] / cpu:.2f} x) "
            f"{flop * setting.batch_size / wall / peak:>6.0%} of the peak, {peak / 1e9:.0f} GFLOP/s"
        )
    one, many = took["ours float32"], took["ours float32, 66 outputs"]
    yield f"66 outputs over 1: {many[0] / one[0]:.3f} (cpu {many[1] / one[1]:.3f})"


def _spectral(naive: NaiveNeuroBOLT, model: NeuroBOLT, batch: EegBatch) -> tuple[Callable[[], Any], Callable[[], Any]]:
    eeg_BCT, index_BC = batch
    return lambda: naive.spectral(eeg_BCT, index_BC), lambda: model.spectral(eeg_BCT, index_BC, None)


def peaks_of(took: dict[str, tuple[float, float]], name: str, device: str) -> float:
    """FLOP/s of the matrix product in the precision of the row ``name``."""
    kind = "bfloat16" if "bfloat16" in name else "float32"
    return 2 * PEAK_SIZE[device] ** 3 / took[f"peak {kind}"][0]


@torch.no_grad()
def _difference(model: NeuroBOLT, naive: NaiveNeuroBOLT, batch: EegBatch) -> float:
    """Of outputs of order one: the head starts near zero, where everything agrees."""
    head: Tensor = model.output.weight
    kept = head.clone()
    for output in (model.output, naive.twin.output):
        output.weight.copy_(kept / model.config.head_scale)
    model.eval()
    naive.eval()
    difference = float((model(batch) - naive(batch)).abs().max())
    model.train()
    naive.train()
    for output in (model.output, naive.twin.output):
        output.weight.copy_(kept)
    return difference


@torch.no_grad()
def inference_rows(repeats: int, device: str, threads: int) -> Iterator[str]:
    """One window of the full model; a 20-minute recording (TR 2.1 s) of ``small``."""
    model = NeuroBOLT(NeuroBOLTConfig.preset("paper")).to(device).eval()
    one = batch_of(1, 26, 3200, device)

    def window(precision: Precision) -> Callable[[], None]:
        context = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()

        def step() -> None:
            with torch.no_grad(), context:
                model(one)

        return step

    took = in_turn(here({"float32": window("float32"), "bfloat16": window("bfloat16")}, device), 5 * repeats)
    for name, (wall, _) in took.items():
        yield f"one window of the full model, {name}, {threads} threads: {1000 * wall:.0f} ms"
    small = NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=VU_NAMES[:20], n_outputs=16)).to(device).eval()
    many = batch_of(64, 20, 3200, device)
    torch.set_num_threads(1)
    wall, cpu = in_turn(here({"small": lambda: _run(small, many)}, device), repeats)["small"]
    torch.set_num_threads(threads)
    speed, by_cpu = 64 * 2.1 / wall, 64 * 2.1 / cpu
    yield f"small, whole recordings (a window per 2.1 s), one thread: {speed:.0f} x real time ({by_cpu:.0f} x by cpu)"


def _run(model: nn.Module, batch: EegBatch) -> None:
    with torch.no_grad():
        model(batch)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{os.cpu_count()} cores, {args.threads} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    setting = Setting(args.device, args.threads, args.batch, keep=True)
    for line in [*exact_rows(args.device, args.batch), *training_rows(args.repeats, setting)]:
        print(line, flush=True)
    keep_freed_memory()
    for line in inference_rows(args.repeats, args.device, args.threads):
        print(line, flush=True)
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
