"""How often each kind of interval holds the truth: the table of docs/evaluation.md (a minute on an idle core).

::

    python -m benchmarks.coverage [--simulations 4000]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from xsite.evaluation.intervals import METHODS, coverage

SITES, SUBJECTS = (3, 4, 8, 16), (3, 10)


def lines(simulations: int = 4000) -> Iterator[str]:
    """Rows of the table: coverage in per cent, mean width in brackets."""
    yield "| sites | subjects per site | site effects | " + " | ".join(METHODS) + " |"
    yield "|---" * (3 + len(METHODS)) + "|"
    for skewed in (False, True):
        for n_sites in SITES:
            for n_subjects in SUBJECTS:
                cells = [str(n_sites), str(n_subjects), "skewed" if skewed else "normal"]
                for method in METHODS:
                    n = simulations if method in ("t", "welch") else simulations // 4  # a bootstrap costs a hundredfold
                    known = {"method": method, "skewed": skewed, "simulations": n}
                    share, width = coverage(n_sites, n_subjects, samples=400, **known)  # type: ignore[arg-type]
                    cells.append(f"{100 * share:.1f} ({width:.2f})")
                yield "| " + " | ".join(cells) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=4000)
    for line in lines(parser.parse_args(argv).simulations):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
