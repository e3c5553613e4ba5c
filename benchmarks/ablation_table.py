"""The ablation's rows as the table of docs/neurobolt_x.md: ``python -m benchmarks.ablation_table rows.jsonl``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

PAGE = Path(__file__).parents[1] / "docs" / "neurobolt_x.md"
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


def table(rows: pd.DataFrame) -> str:
    """Mean R at the held-out site over seeds, and the difference on the same seeds to ``full`` (``plain + X``: to
    ``plain``): its mean, 95 % interval over seeds (t), and ``*`` where every seed has its sign and 0 is outside."""
    rows = rows.assign(set=rows["data"] + rows["channels"].map({"common": "", "native": ", native"}))
    sets = list(dict.fromkeys(rows["set"]))
    counts = [rows.loc[rows["set"] == name, "seed"].nunique() for name in sets]
    heads = [f"{name}, n = {n}" for name, n in zip(sets, counts, strict=True)]
    lines = ["| | " + " | ".join(heads) + " |", "| --- |" + " --- |" * len(sets)]
    for label in dict.fromkeys(rows["row"]):
        cells = [_cell(rows[rows["set"] == name], label, n) for name, n in zip(sets, counts, strict=True)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: pd.DataFrame, label: str, n_seeds: int) -> str:
    by_seed = rows.pivot_table(index="seed", columns="row", values="test")
    if label not in by_seed:
        return ""
    own = by_seed[label].dropna()
    text = f"{own.mean():.3f}"
    against = "plain" if label.startswith("plain + ") else "full"
    if label != against and against in by_seed:
        gap = (own - by_seed[against]).dropna()
        text += f" ({_interval(gap.to_numpy())})" if len(gap) else ""
    return text if len(own) == n_seeds else f"{text}, n = {len(own)}"


def _interval(gap: NDArray[np.float64]) -> str:
    mean = gap.mean()
    if len(gap) == 1:
        return f"{mean:+.3f}"
    half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / len(gap) ** 0.5
    shown = "*" if abs(mean) > half and bool((np.sign(gap) == np.sign(mean)).all()) else ""
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]{shown}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, nargs="+", help="files that benchmarks.ablation --out wrote")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    args = parser.parse_args()
    lines = [line for path in args.rows for line in path.read_text(encoding="utf-8").splitlines()]
    text = table(pd.DataFrame([json.loads(line) for line in lines]))
    print(text)
    if args.write:
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.split(BEGIN)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
