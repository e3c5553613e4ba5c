"""One seed from several integers, for everything that draws during a training."""

from __future__ import annotations

import random

import numpy as np
import torch


def mixed_seed(*parts: int) -> int:
    """One seed of 32 bits from several integers together."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def seed_everything(*parts: int) -> None:
    """Seed Python, NumPy and torch from several integers together."""
    seed = mixed_seed(*parts)
    random.seed(seed)
    np.random.seed(seed)  # a model of somebody else may use the global generator
    torch.manual_seed(seed)
