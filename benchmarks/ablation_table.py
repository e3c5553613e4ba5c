"""The ablation's rows as the table of docs/neurobolt_x.md: ``python -m benchmarks.ablation_table rows.jsonl``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

PAGE = Path(__file__).parents[1] / "docs" / "neurobolt_x.md"
BEGIN, END = "<!-- ablation: begin -->", "<!-- ablation: end -->"


def table(rows: pd.DataFrame) -> str:
    """Mean R at the held-out site and its difference to the full model, mean and range over seeds, one row a label."""
    sets = list(dict.fromkeys(rows["data"] + rows["channels"].map({"common": "", "native": ", native"})))
    rows = rows.assign(set=rows["data"] + rows["channels"].map({"common": "", "native": ", native"}))
    lines = ["| | " + " | ".join(sets) + " |", "| --- |" + " --- |" * len(sets)]
    for label in dict.fromkeys(rows["row"]):
        cells = [_cell(rows[rows["set"] == name], label) for name in sets]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(rows: pd.DataFrame, label: str) -> str:
    by_seed = rows.pivot_table(index="seed", columns="row", values="test")
    if label not in by_seed:
        return ""
    own = by_seed[label].dropna()
    text = f"{own.mean():.3f}"
    if label != "full" and "full" in by_seed:
        gap = (own - by_seed["full"]).dropna()
        text += f" ({_range(gap.to_numpy())})" if len(gap) else ""
    return text + f", n = {len(own)}"


def _range(gap: np.ndarray) -> str:
    if len(gap) == 1:
        return f"{gap[0]:+.3f}"
    return f"{gap.mean():+.3f}, {gap.min():+.3f} to {gap.max():+.3f}"


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
