"""Training and inference speed of the presets: ``python -m benchmarks.step small --threads 1 --chans 20``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

import torch

from neurobolt.batch import EegBatch
from neurobolt.channels import VU_NAMES
from neurobolt.config import NeuroBOLTConfig
from neurobolt.model import NeuroBOLT


def measure(config: NeuroBOLTConfig, batch_size: int, seconds: float, pad: int = 0) -> dict[str, float]:
    torch.manual_seed(0)
    model = NeuroBOLT(config)
    n_chans = len(config.ch_names)
    index_C = torch.cat((torch.arange(n_chans), torch.full((pad,), -1)))
    eeg_BCT = torch.randn(batch_size, n_chans + pad, config.n_times) * 20
    batch = EegBatch(eeg_BCT, index_C.expand(batch_size, -1))
    target_BR = torch.randn(batch_size, config.n_outputs)
    optimizer = torch.optim.AdamW(model.param_groups(1e-3, 0.05))

    def train_step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(batch), target_BR).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def predict() -> None:
        with torch.no_grad():
            model(batch)

    rates = {}
    for name, step in (("train_windows_per_s", train_step), ("predict_windows_per_s", predict)):
        step()
        n, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds or n < 2:
            step()
            n += 1
        rates[name] = round(n * batch_size / (time.perf_counter() - start), 1)
    rates["parameters"] = sum(p.numel() for p in model.parameters())
    return rates


def lines() -> Iterator[str]:
    """The presets that fit a two-core machine, on one thread."""
    torch.set_num_threads(1)
    yield "training step, one thread        train windows/s   predict windows/s   parameters"
    for preset, n_chans, n_outputs, batch_size in (("small", 20, 16, 16), ("paper", 26, 1, 4)):
        config = NeuroBOLTConfig.preset(preset, ch_names=VU_NAMES[:n_chans], n_outputs=n_outputs)
        rates = measure(config, batch_size, 8.0)
        shape = f"{preset}, {n_chans} channels, batch {batch_size}"
        train, predict = rates["train_windows_per_s"], rates["predict_windows_per_s"]
        yield f"  {shape:<28}{train:>15.1f}{predict:>20.1f}{rates['parameters']:>13,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["small"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chans", type=int, default=20)
    parser.add_argument("--outputs", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pad", type=int, default=0, help="padded channels per window")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--options", type=json.loads, default={}, help="JSON of configuration options")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for preset in args.presets:
        ch_names = VU_NAMES[: args.chans]
        config = NeuroBOLTConfig.preset(preset, ch_names=ch_names, n_outputs=args.outputs, **args.options)
        print(preset, args.options, measure(config, args.batch, args.seconds, args.pad))


if __name__ == "__main__":
    main()
