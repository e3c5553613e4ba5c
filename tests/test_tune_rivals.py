"""The search of benchmarks.tune_rivals, on error surfaces that are known, and the ablation's table."""

from __future__ import annotations

import pandas as pd

from benchmarks.ablation_table import table
from benchmarks.tune_rivals import searched


def test_the_rates_go_on_towards_the_better_side_and_every_rival_has_six_trainings() -> None:
    tried: list[tuple[float, float, int]] = []

    def run(lr: float, decay: float, seed: int) -> float:
        tried.append((lr, decay, seed))
        return abs(lr - 1e-3) + decay / 1e4

    assert searched(run) == [(1e-3, 0.05), (1e-3, 0.3)]
    assert [lr for lr, _, _ in tried[:3]] == [1e-3, 3e-3, 4e-4]
    assert tried[3:] == [(1e-3, 0.3, 0), (1e-3, 0.05, 1), (1e-3, 0.3, 1)]


def test_a_second_seed_may_turn_the_order() -> None:
    def run(lr: float, decay: float, seed: int) -> float:
        return -lr - decay * (1e-3 if seed == 0 else -1.0)

    assert searched(run) == [(1e-2, 0.05), (1e-2, 0.3)]


def _rows(gaps: list[float]) -> pd.DataFrame:
    rows = [(s, "full", 0.6 + s) for s in range(3)] + [(s, "without it", 0.6 + s + gap) for s, gap in enumerate(gaps)]
    return pd.DataFrame(rows, columns=["seed", "row", "test"]).assign(data="easy", channels="common")


def test_differences_are_taken_within_a_seed_and_starred_where_shown() -> None:
    shown = table(_rows([-0.10, -0.11, -0.12])).splitlines()[-1]
    assert shown == "| without it | 1.490 (-0.110 [-0.135, -0.085]*) |"
    assert "*" not in table(_rows([-0.10, -0.11, 0.01]))
