"""Many models at once against one after the other: ``python -m benchmarks.stacked small narrow --models 8 --batch 16``.

Every repeat times both, one after the other, so that a busy machine slows both alike; the table gives the median ratio
and the range of the ratios. ``--device cuda`` runs the same on a GPU.
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
from xsite.data.windows import Batch
from xsite.experiment import Optim
from xsite.learning.algorithms import ERM
from xsite.learning.parameter_stack import ParameterStack
from xsite.learning.schedule import build_optimizer

NARROW = {"dim": 32, "conv_channels": 2, "conv_groups": 1, "spectral_depth": 1}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("small", {}),
    "narrow": ("small", NARROW),
    "paper": ("paper", {}),
}
Step = Callable[[], None]


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

    def step() -> None:
        for k, algorithm in enumerate(algorithms):
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


def seconds(step: Step, n_steps: int, device: torch.device) -> float:
    """Per step, all kernels done."""
    start = time.perf_counter()
    for _ in range(n_steps):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / n_steps


def measure(
    name: str, *, n_models: int, batch_size: int, repeats: int, n_steps: int, device: torch.device, precision: Any
) -> dict[str, float]:
    """Windows per second of all models together, both ways."""
    torch.manual_seed(0)
    preset, options = SIZES[name]
    n_chans, n_outputs = (26, 1) if name == "paper" else (20, 16)
    config = NeuroBOLTConfig.preset(preset, ch_names=VU_NAMES[:n_chans], n_outputs=n_outputs, **options)
    optim = Optim(lr=1e-3, clip=1.0, precision=precision)
    data = windows(n_models, batch_size, config, device)
    ways = [
        make([ERM(NeuroBOLT(config)) for _ in range(n_models)], data, optim, device)
        for make in (eager_steps, stacked_step)
    ]
    for way in ways:
        seconds(way, 1, device)
    timed = [[seconds(way, n_steps, device) for way in ways] for _ in range(repeats)]
    ratios = [eager / stacked for eager, stacked in timed]
    n = n_models * batch_size
    return {
        "eager": n / statistics.median(eager for eager, _ in timed),
        "stacked": n / statistics.median(stacked for _, stacked in timed),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def lines(names: Sequence[str] = ("small", "narrow"), **kwargs: Any) -> Iterator[str]:
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
    shape = f"{how['n_models']} models, batch {how['batch_size']}"
    yield f"{shape}, {device}, {how['precision']}, load {os.getloadavg()[0]:.1f}"
    yield f"  {'':<10}{'in turn':>12}{'stacked':>12}   windows/s{'ratio':>10}   (lowest to highest of {how['repeats']})"
    for name in names:
        row = measure(name, **how)
        spread = f"({row['lowest']:.2f} to {row['highest']:.2f})"
        yield f"  {name:<10}{row['eager']:>12.1f}{row['stacked']:>12.1f}{'':>12}{row['ratio']:>10.2f}   {spread}"
    if device.type == "cpu":
        yield "  on a GPU: not measured (python -m benchmarks.stacked small narrow paper --device cuda --steps 20)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["small", "narrow"], metavar="|".join(SIZES))
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps per repeat and way")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    how = {"n_models": args.models, "batch_size": args.batch, "repeats": args.repeats, "n_steps": args.steps}
    for line in lines(args.names, **how, device=args.device, precision=args.precision):
        print(line, flush=True)


if __name__ == "__main__":
    main()
