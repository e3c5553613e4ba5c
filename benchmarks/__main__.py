"""Run every benchmark of one process and print one table: ``make bench`` (about five minutes on two cores)."""

from __future__ import annotations

import os
import platform
import sys

import torch

from benchmarks import gradient, parcels, stacked, step
from xsite.learning.memory import keep_freed_memory


def main() -> int:
    keep_freed_memory()  # as every training worker does
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, ", end=""
    )
    print(f"Python {platform.python_version()}, torch {torch.__version__}\n")
    for line in [*step.lines(), "", *stacked.lines(), "", *parcels.lines(), "", *gradient.lines()]:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
