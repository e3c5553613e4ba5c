"""Many models at once against one after the other: ``python -m benchmarks.stacked small narrow --models 8 --batch 16``.

Every repeat times all ways, one after the other, so that a busy machine slows them alike; the table gives the median
ratio and the range of the ratios. ``--compiled`` adds models that are compiled one by one (``optim.compile``), in turn.
``--fit`` trains through the real loops, alone and stacked, and gives what they log: windows/s and the share of the time
spent waiting for data. ``--device cuda`` runs the same on a GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from neurobolt.channels import VU_NAMES
from neurobolt.config import NeuroBOLTConfig
from neurobolt.model import NeuroBOLT
from xsite.data.sampling import n_batches
from xsite.data.window_source import Batch
from xsite.experiment_parts import Optim
from xsite.learning.algorithms import ERM
from xsite.learning.loop import compiled, fit
from xsite.learning.memory import keep_freed_memory
from xsite.learning.parameter_stack import ParameterStack
from xsite.learning.probe import noise_windows
from xsite.learning.schedule import build_optimizer
from xsite.learning.stacked import fit_stacked

NARROW = {"dim": 32, "conv_channels": 2, "conv_groups": 1, "spectral_depth": 1}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("small", {}),
    "narrow": ("small", NARROW),
    "paper": ("paper", {}),
}
Step = Callable[[], None]
Rows = Iterator[tuple[str, dict[str, float]]]


def windows(n_models: int, batch_size: int, config: NeuroBOLTConfig, device: torch.device) -> tuple[Any, ...]:
    """One batch per model, resident on the device: (K, B, ...)."""
    lead, n_chans = (n_models, batch_size), len(config.ch_names)
    eeg_KBCT = torch.randn(*lead, n_chans, config.n_times) * 20
    facts = (torch.arange(n_chans).expand(*lead, -1), torch.zeros(lead, dtype=torch.int64))
    extras = (torch.zeros(*lead, n_chans, 3), torch.full(lead, 2.0), torch.zeros(*lead, n_chans, 0))
    target_KBR = torch.randn(*lead, config.n_outputs)
    batch = Batch(eeg_KBCT, *facts, *extras, padded=False).to(device)
    return batch, target_KBR.to(device), torch.ones_like(target_KBR, dtype=torch.bool).to(device)


def eager_steps(algorithms: Sequence[ERM], data: tuple[Any, ...], optim: Optim, device: torch.device) -> Step:
    """The same step for every model in turn, each with its own optimiser."""
    batch, target_KBR, mask_KBR = data
    parts = [[part[k] if isinstance(part, torch.Tensor) else part for part in batch] for k in range(len(algorithms))]
    batches = [type(batch)(*part) for part in parts]
    optimizers = [build_optimizer(algorithm.to(device).model, optim) for algorithm in algorithms]
    called = [compiled(algorithm) if optim.compile else algorithm for algorithm in algorithms]

    def step() -> None:
        for k, algorithm in enumerate(called):
            optimizers[k].zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=optim.precision == "bfloat16"):
                loss = algorithm(batches[k], target_KBR[k], mask_KBR[k])["loss"]
            loss.backward()
            if optim.clip is not None:
                torch.nn.utils.clip_grad_norm_(algorithm.parameters(), optim.clip)
            optimizers[k].step()

    return step


def stacked_step(algorithms: Sequence[ERM], data: tuple[Any, ...], optim: Optim, device: torch.device) -> Step:
    """All models in one step."""
    stack, rows = ParameterStack(algorithms, optim, device), range(len(algorithms))
    batch, target_KBR, mask_KBR = data

    def step() -> None:
        stack.train_step(rows, batch, target_KBR, mask_KBR, [optim.lr] * len(rows))

    return step


def compiled_steps(algorithms: Sequence[ERM], data: tuple[Any, ...], optim: Optim, device: torch.device) -> Step:
    """As :func:`eager_steps`, every model compiled."""
    return eager_steps(algorithms, data, optim.model_copy(update={"compile": True}), device)


def seconds(step: Step, n_steps: int, device: torch.device) -> float:
    """Per step, all kernels done."""
    start = time.perf_counter()
    for _ in range(n_steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / n_steps


WAYS = {"eager": eager_steps, "compiled": compiled_steps, "stacked": stacked_step}


def config_of(name: str) -> NeuroBOLTConfig:
    """20 channels and 16 parcels, or the paper's 26 and one."""
    preset, options = SIZES[name]
    n_chans, n_outputs = (26, 1) if name == "paper" else (20, 16)
    return NeuroBOLTConfig.preset(preset, ch_names=VU_NAMES[:n_chans], n_outputs=n_outputs, **options)


def measure(
    name: str, *, n_models: int, batch_size: int, repeats: int, n_steps: int, device: torch.device, precision: Any,
    ways: Sequence[str] = ("eager", "stacked"),
) -> dict[str, list[float]]:  # fmt: skip
    """Windows per second of all models together, each way in each repeat."""
    torch.manual_seed(0)
    config = config_of(name)
    optim = Optim(lr=1e-3, clip=1.0, precision=precision)
    data = windows(n_models, batch_size, config, device)
    steps = {way: WAYS[way]([ERM(NeuroBOLT(config)) for _ in range(n_models)], data, optim, device) for way in ways}
    for step in steps.values():
        seconds(step, 1, device)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, step in steps.items():
            rates[way].append(n_models * batch_size / seconds(step, n_steps, device))
    return rates


def fit_rows(name: str, *, n_models: int, batch_size: int, n_steps: int, device: torch.device, precision: Any) -> Rows:
    """What the real loops log in their second epoch, alone and stacked, over recordings that lie on the device."""
    config = config_of(name)
    optim = Optim(lr=1e-3, clip=1.0, precision=precision, batch_size=batch_size, epochs=2, warmup_epochs=0)
    models = [NeuroBOLT(config) for _ in range(n_models + 1)]
    windows = noise_windows(models[0], config.ch_names, config.n_outputs, n_steps * batch_size).to(device)
    assert n_batches(len(windows), batch_size) == n_steps
    alone, *others = (ERM(model) for model in models)
    yield "fit, one alone", fit(alone, windows, None, optim, seed=0, device=device).history[-1]
    k = len(others)
    results = fit_stacked(others, [windows] * k, [None] * k, optim, seeds=range(k), device=device)
    yield f"fit_stacked, {k}", results[0].history[-1]


def lines(
    names: Sequence[str] = ("small", "narrow"), *, compiled: bool = False, with_fit: bool = False, **kwargs: Any
) -> Iterator[str]:
    """Table for ``python -m benchmarks``: one CPU thread; the GPU's rows stay empty until one is measured."""
    how: dict[str, Any] = {
        "n_models": 8,
        "batch_size": 16,
        "repeats": 5,
        "n_steps": 2,
        "precision": "float32",
        **kwargs,
    }
    device = how.setdefault("device", torch.device("cpu"))
    if device.type == "cpu":
        torch.set_num_threads(1)
    ways = [way for way in WAYS if compiled or way != "compiled"]
    shape = f"{how['n_models']} models, batch {how['batch_size']}"
    yield f"{shape}, {device}, {how['precision']}, load {os.getloadavg()[0]:.1f}; ratios to one after the other"
    for name in names:
        rates = measure(name, ways=ways, **how)
        for way, own in rates.items():
            ratios = [mine / eager for mine, eager in zip(own, rates["eager"], strict=True)]
            spread = f"({min(ratios):.2f} to {max(ratios):.2f} of {how['repeats']})"
            rate, ratio = statistics.median(own), statistics.median(ratios)
            yield f"  {name:<10}{way:<10}{rate:>10.1f} windows/s{ratio:>8.2f} x {spread}"
        if with_fit:
            facts = {key: how[key] for key in ("n_models", "batch_size", "n_steps", "device", "precision")}
            for label, row in fit_rows(name, **facts):
                speed = f"{row['windows_per_s']:>10.1f} windows/s, {row['data_wait_fraction']:.1%} waiting for data"
                yield f"  {name:<10}{label:<18}{speed}, {row['peak_fraction']:.1%} of the matmul peak"
    if device.type == "cpu":
        yield "  on a GPU: not measured (python -m benchmarks.stacked small paper --device cuda --steps 20 --fit)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["small", "narrow"], metavar="|".join(SIZES))
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps per repeat and way")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compiled", action="store_true", help="also models compiled one by one; takes minutes")
    parser.add_argument("--fit", action="store_true", help="also the real loops, with their wait for data")
    args = parser.parse_args()
    keep_freed_memory()
    how: dict[str, Any] = {
        "n_models": args.models,
        "batch_size": args.batch,
        "repeats": args.repeats,
        "n_steps": args.steps,
    }
    how |= {"compiled": args.compiled, "with_fit": args.fit, "device": args.device, "precision": args.precision}
    for line in lines(args.names, **how):
        print(line, flush=True)


if __name__ == "__main__":
    main()
