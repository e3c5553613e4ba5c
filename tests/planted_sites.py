"""Windows of three planted sites and a small model in two parts, for the tests of algorithms.

Six channels; sites of 36, 18 and 10 windows differ in offset and gain of the EEG, and in what a spurious channel says
of the two targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xsite.data.window_source import Batch
from xsite.experiment_parts import Optim
from xsite.learning.algorithms import build_algorithm
from xsite.learning.algorithms.sites import site_risks
from xsite.learning.hooks import KnowsSites, Timed
from xsite.learning.seeds import seed_everything

SITES = ("a", "b", "c")
N_WINDOWS = (36, 18, 10)
IS_ERM = {
    "erm": {}, "coral": {"weight": 0}, "mmd": {"weight": 0}, "irm": {"weight": 0}, "vrex": {"weight": 0},
    "dann": {"weight": 0}, "mixup": {"alpha": 0}, "mixstyle": {"p": 0}, "swa": {"start": 1}, "swad": {},
}  # fmt: skip
OWN_DRAWS = ("mixup", "mixstyle")
"""Pairs are drawn on each rank: equal to one process in expectation only."""
OPTIM = Optim(epochs=5, warmup_epochs=1, batch_size=16, lr=1e-2)


class TwoPart(nn.Module):
    def __init__(self, n_chans: int = 6, width: int = 8, n_outputs: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(n_chans * 4, width), nn.Tanh(), nn.Linear(width, width))
        self.readout = nn.Linear(width, n_outputs)

    def features(self, batch: Any) -> Tensor:
        return self.body(batch.eeg_BCT)

    def head(self, z_BD: Tensor) -> Tensor:
        return self.readout(z_BD)

    def forward(self, batch: Any) -> Tensor:
        return self.head(self.features(batch))


class Planted:
    """Windows of three sites; a tenth of the targets is masked, and NaN there."""

    sites = SITES

    def __init__(self, seed: int = 0, n_windows: tuple[int, ...] = N_WINDOWS) -> None:
        rng = np.random.default_rng(seed)
        site_W = np.repeat(np.arange(len(n_windows)), n_windows)
        eeg_WCT = rng.normal(0, 1, (len(site_W), 6, 4))
        drive_W = eeg_WCT[:, 0].mean(1) * 2
        target_WR = np.stack([drive_W, -drive_W], 1) + rng.normal(0, 0.3, (len(site_W), 2))
        eeg_WCT[:, 1] = (target_WR[:, :1] + 0.2 * rng.normal(0, 1, (len(site_W), 4))) * np.array([1, 0.8, -1])[
            site_W, None
        ]
        eeg_WCT = eeg_WCT * np.array([1, 1.5, 0.6])[site_W, None, None] + np.array([0, 0.7, -0.7])[site_W, None, None]
        mask_WR = rng.random(target_WR.shape) > 0.1
        self.eeg_WCT, self.site_W = torch.tensor(eeg_WCT, dtype=torch.float32), torch.from_numpy(site_W)
        self.target_WR = torch.tensor(np.where(mask_WR, target_WR, np.nan), dtype=torch.float32)
        self.mask_WR = torch.from_numpy(mask_WR)

    def __len__(self) -> int:
        return len(self.site_W)

    def gather(self, index_B: Any) -> tuple[Batch, Tensor, Tensor]:
        index_B = torch.as_tensor(index_B)
        n = len(index_B)
        batch = Batch(
            self.eeg_WCT[index_B], torch.arange(6).expand(n, 6).clone(), self.site_W[index_B], torch.zeros(n, 6, 3),
            torch.full((n,), 2.0), torch.zeros(n, 6, 0), padded=False,
        )  # fmt: skip
        return batch, self.target_WR[index_B], self.mask_WR[index_B]

    def everything(self) -> tuple[Batch, Tensor, Tensor]:
        return self.gather(np.arange(len(self)))


def built(name: str, options: Mapping[str, Any] | None = None, *, seed: int = 0, epoch: int = 9) -> Any:
    """The algorithm around the same model, as the loop would prepare it for the last of ten epochs."""
    seed_everything(seed)
    algorithm: Any = build_algorithm(name, dict(options or {}), TwoPart())
    seed_everything(seed)
    if isinstance(algorithm, KnowsSites):
        algorithm.prepare(len(SITES), Planted().gather(np.arange(4))[0])
    if isinstance(algorithm, Timed):
        algorithm.start_epoch(epoch, 10)
    return algorithm.train()


def gradients(algorithm: Any, arrays: tuple[Batch, Tensor, Tensor]) -> dict[str, Tensor]:
    algorithm.zero_grad()
    seed_everything(5)
    algorithm(*arrays)["loss"].backward()
    return {name: p.grad.clone() for name, p in algorithm.model.named_parameters() if p.grad is not None}


def trained(name: str, options: Mapping[str, Any] | None = None, steps: int = 150, lr: float = 1e-2) -> Any:
    algorithm, arrays = built(name, options), Planted().everything()
    optimizer = torch.optim.Adam([p for p in algorithm.parameters() if p.requires_grad], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        algorithm(*arrays)["loss"].backward()
        optimizer.step()
    return algorithm


def risks_of(algorithm: Any) -> Any:
    batch, target_BR, mask_BR = Planted().everything()
    with torch.no_grad():
        return site_risks(algorithm.model(batch), target_BR, mask_BR, batch.site_B, 3)


def features_of(algorithm: Any) -> Tensor:
    with torch.no_grad():
        return algorithm.model.features(Planted().everything()[0])


def same(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)
