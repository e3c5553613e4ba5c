"""The same small budget of tuning for every rival: ``python -m benchmarks.tune_rivals --out rows.jsonl``.

Judged by the lowest validation error on an in-memory phantom (two sites x four subjects, the last subject of each
validates), after as many windows as docs/table.md gives every network. Rates first, at weight decay .05 and one seed:
1e-3 and 3e-3, then the next one on the better side; then decay .3 at the best rate; then a second seed for the two best
settings. Shapes: ``B`` windows, ``R`` parcels.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neurobolt.rivals import RIVALS
from xsite.data.harmonize import target_scale
from xsite.data.montages import common_channels
from xsite.data.windows import build_source
from xsite.experiment import Optim
from xsite.learning.algorithms.erm import ERM
from xsite.learning.loop import fit, seed_everything
from xsite.learning.targets import TargetSpec, fold_targets, median_scale
from xsite.phantom.in_memory import simulate_recordings
from xsite.recording import Recording

LOWEST, LOW, HIGH, HIGHEST = 4e-4, 1e-3, 3e-3, 1e-2
DECAYS = (0.05, 0.3)
SEEDS = (0, 1)
OPTIM = Optim(batch_size=16, epochs=4, windows_per_epoch=512, warmup_epochs=1, clip=1.0)


class Phantom:
    """Recordings, channels and targets, made once for all trainings."""

    def __init__(self) -> None:
        recordings = simulate_recordings(2, 4, "easy", 0, n_volumes=150)
        last = {r.key.site: max(q.key.subject for q in recordings if q.key.site == r.key.site) for r in recordings}
        self.val = [r for r in recordings if r.key.subject == last[r.key.site]]
        self.train = [r for r in recordings if r.key.subject != last[r.key.site]]
        self.ch_names = common_channels([r.ch_names for r in recordings])
        scale_R = median_scale([target_scale(r.bold, r.t_r, valid_V=r.volume_valid) for r in self.train])
        self.targets = fold_targets(self.train, self.val, TargetSpec("strict", 0.15, scale_R))
        self.laid_out: dict[Any, Any] = {}

    def windows(self, side: str, model: Any) -> Any:
        """Windows of ``train`` or ``val`` for a model."""
        index = model.channel_index(self.ch_names)
        key = (side, tuple(index.tolist()))
        if key not in self.laid_out:
            recordings: list[Recording] = getattr(self, side)
            targets = [self.targets[r.key] for r in recordings]
            self.laid_out[key] = build_source(
                recordings, ch_names=self.ch_names, ch_index=model.channel_index, targets=targets
            )
        return self.laid_out[key]


def train(
    data: Phantom, name: str, optim: Optim, seed: int, options: dict[str, Any] | None = None
) -> dict[str, float | int]:
    """Train a rival's ``small`` preset: lowest validation error, that of zero, mean R of the weights kept."""
    seed_everything(seed)
    n_outputs = data.train[0].bold.shape[1]
    model = RIVALS[name].build("small", ch_names=data.ch_names, n_outputs=n_outputs, **(options or {}))
    windows, val = data.windows("train", model), data.windows("val", model)
    started = time.process_time()
    result = fit(ERM(model), windows, val, optim, seed=seed)
    model.load_state_dict(dict(result.best_state))
    errors = [h["val_loss"] for h in result.history]
    return {
        "val": min(errors),
        **_scores(model, val),
        "best_epoch": result.best_epoch,
        "train": result.history[-1]["train_loss"],
        "cpu_s": time.process_time() - started,
    }


@torch.no_grad()
def _scores(model: torch.nn.Module, source: Any) -> dict[str, float]:
    model.eval()
    parts = [source.gather(index) for index in np.array_split(np.arange(len(source)), 8)]
    predicted_BR = torch.cat([model(batch) for batch, _, _ in parts])
    target_BR, mask_BR = torch.cat([t for _, t, _ in parts]), torch.cat([m for _, _, m in parts])
    r = [_r(p[m], t[m]) for p, t, m in zip(predicted_BR.T, target_BR.T, mask_BR.T, strict=True)]
    return {"zero": float(target_BR[mask_BR].square().mean()), "r": float(np.nanmean(r))}


def _r(predicted_B: Tensor, target_B: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((predicted_B, target_B)))[0, 1])


def searched(run: Callable[[float, float, int], float]) -> list[tuple[float, float]]:
    """Settings (rate, decay) that both seeds saw, the best first; ``run(lr, decay, seed)`` is a validation error."""
    by_rate = {lr: run(lr, DECAYS[0], SEEDS[0]) for lr in (LOW, HIGH)}
    further = LOWEST if by_rate[LOW] < by_rate[HIGH] else HIGHEST
    by_rate[further] = run(further, DECAYS[0], SEEDS[0])
    best = min(by_rate, key=by_rate.__getitem__)
    first = {(lr, DECAYS[0]): error for lr, error in by_rate.items()}
    first[best, DECAYS[1]] = run(best, DECAYS[1], SEEDS[0])
    finalists = sorted(first, key=first.__getitem__)[:2]
    mean = {s: float(np.mean([first[s], *(run(*s, seed) for seed in SEEDS[1:])])) for s in finalists}
    return sorted(mean, key=mean.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(RIVALS), help="rivals; all by default")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON of model options")
    parser.add_argument("--optim", type=json.loads, default={}, help="JSON of optimiser settings beside rate and decay")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; trainings found there are not repeated")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = args.out.read_text(encoding="utf-8").splitlines() if args.out.exists() else []
    known = {(r["model"], r["lr"], r["weight_decay"], r["seed"]): r["val"] for r in map(json.loads, lines)}
    data = Phantom()
    for name in args.names:

        def run(lr: float, decay: float, seed: int, name: str = name) -> float:
            setting = {"model": name, "lr": lr, "weight_decay": decay, "seed": seed}
            if tuple(setting.values()) not in known:
                optim = OPTIM.model_copy(update={"lr": lr, "weight_decay": decay, **args.optim})
                row = setting | train(data, name, optim, seed, args.options)
                line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
                print(line, flush=True)
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
                known[tuple(setting.values())] = row["val"]
            return float(known[tuple(setting.values())])

        lr, decay = searched(run)[0]
        print(f"{name}: lr {lr:g}, weight decay {decay:g}", flush=True)


if __name__ == "__main__":
    main()
