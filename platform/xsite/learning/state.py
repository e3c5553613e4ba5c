"""What an interrupted training needs at an epoch boundary to go on as if nothing had happened.

No random state is stored: the loop reseeds every epoch from (seed, epoch, rank), so the state of one epoch boundary
also serves a run on another number of workers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from xsite.errors import CheckpointError
from xsite.learning.checkpoint import read_folder, tensors_from, write_folder

_TENSORS, _FACTS = "state.safetensors", "state.json"


@dataclass(frozen=True)
class TrainingState:
    """Epochs done, weights, optimiser moments, and the best weights so far.

    Parameters
    ----------
    epoch : int
        Epochs completed.
    algorithm, optimizer, best : mapping of name to tensor
        ``optimizer`` is keyed ``<parameter index>.<slot>``.
    best_epoch : int
        Epochs completed when ``best`` was kept; 0 is the untrained model.
    history : list of dict
        One row of metrics per epoch.
    """

    epoch: int
    algorithm: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    best: Mapping[str, Tensor]
    best_epoch: int
    best_loss: float
    history: list[dict[str, float]] = field(default_factory=list)

    def save(self, folder: str | Path, fingerprint: str) -> Path:
        """Write all or nothing; ``fingerprint`` says what it belongs to."""
        groups = {"algorithm": self.algorithm, "optimizer": self.optimizer, "best": self.best}
        tensors = {f"{group}/{name}": value.clone() for group, state in groups.items() for name, value in state.items()}
        facts = {
            "fingerprint": fingerprint,
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "history": self.history,
        }
        return write_folder(folder, {_TENSORS: tensors_to_bytes(tensors), _FACTS: json.dumps(facts).encode()})

    @classmethod
    def load(cls, folder: str | Path, fingerprint: str) -> TrainingState:
        """Read back.

        Raises
        ------
        CheckpointError
            Absent, incomplete, altered, or saved by another experiment.
        """
        files = read_folder(folder)
        facts: dict[str, Any] = json.loads(files[_FACTS])
        if facts.pop("fingerprint") != fingerprint:
            raise CheckpointError(f"{folder}: belongs to another experiment (fingerprint differs from {fingerprint})")
        groups: dict[str, dict[str, Tensor]] = {"algorithm": {}, "optimizer": {}, "best": {}}
        for name, value in tensors_from(files[_TENSORS], Path(folder) / _TENSORS).items():
            group, _, key = name.partition("/")
            groups[group][key] = value
        return cls(algorithm=groups["algorithm"], optimizer=groups["optimizer"], best=groups["best"], **facts)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten the moments of every parameter."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{slot}": torch.as_tensor(value).detach().cpu()
        for index, slots in state.items()
        for slot, value in slots.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`optimizer_tensors`."""
    slots: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, _, slot = name.partition(".")
        slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def cpu_state(module: nn.Module) -> dict[str, Tensor]:
    """Detached copy of a module's state on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
