"""Every table of the page as CSV and Parquet: files beside it and, where small, inside it, so that it can be mailed."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from xsite.reports.folder import Study
from xsite.reports.markup import Html, join, table, tag
from xsite.reports.transfer import calibration_means, fold_means

FOLDER = "tables"
INSIDE = 120_000
"""Bytes of a file up to which it travels inside the page; what is larger is a link to the file beside it."""
TEXTS = {
    "sites": "each model at each held-out site",
    "overall": "each model over all sites",
    "comparison": "model against model, paired",
    "parcels": "each model and parcel over all sites, corrected p-values",
    "paired_parcels": "model against model in each parcel, sign-flip tests",
    "ranks": "every pair of models, sign-flip tests",
    "id_ood": "known and unseen sites, per site and model",
    "site_figures": "coherence, lag, connectivity and effective volumes per site",
    "nulls": "histograms of the surrogate means",
    "folds": "each fold at each site that it tests",
    "calibration": "labelled subjects of the held-out site, per fold, paired with k = 0",
    "scores": "one row per recording, model, seed and parcel",
    "figures": "further figures of every recording and parcel",
    "scores_by_fold": "scores of every fold on its own",
    "id_scores": "validation recordings of the training sites",
    "calibration_subjects": "labelled subjects of the held-out site, per subject and draw",
}


def tables(study: Study) -> dict[str, pd.DataFrame]:
    """Every table that the study has, by name, smallest first."""
    summary = study.summary
    found = {
        "sites": pd.DataFrame(summary["rows"]),
        "overall": pd.DataFrame(summary["overall"]),
        "comparison": pd.DataFrame(summary["comparison"]),
        "parcels": pd.DataFrame(summary.get("parcels") or []),
        "paired_parcels": pd.DataFrame(summary.get("paired_parcels") or []),
        "ranks": pd.DataFrame((summary.get("ranks") or {}).get("pairs", [])),
        "id_ood": pd.DataFrame(_flat(summary.get("id_ood") or [])),
        "site_figures": pd.DataFrame(summary.get("figures") or []),
        "nulls": pd.DataFrame(_binned(summary.get("nulls") or [])),
        "folds": fold_means(study),
    }
    subjects = study.tables.get("calibration")
    if subjects is not None and len(subjects):
        found |= {"calibration": calibration_means(subjects), "calibration_subjects": subjects}
    large = {name: study.tables[name] for name in ("scores", "figures", "scores_by_fold", "id_scores")
             if name in study.tables}  # fmt: skip
    return {name: content for name, content in {**found, **large}.items() if len(content)}


def _flat(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per model and site, and one per model over all sites."""
    flat: list[dict[str, Any]] = []
    for row in rows:
        whole = {"model": row["model"], "site": "all", **{name: row[name] for name in ("id", "ood", "gap")}}
        flat.append(whole | {name: row[name] for name in ("gap_low", "gap_high", "n_subjects")})
        flat += [{"model": row["model"], **site} for site in row["sites"]]
    return flat


def _binned(histograms: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per bin."""
    rows = []
    for one in histograms:
        width = (one["high"] - one["low"]) / len(one["counts"])
        label = {name: one[name] for name in ("site", "model", "control", "kind", "observed")}
        for i, count in enumerate(one["counts"]):
            rows.append(label | {"low": one["low"] + i * width, "high": one["low"] + (i + 1) * width, "count": count})
    return rows


def files_of(content: pd.DataFrame) -> dict[str, bytes]:
    """A table as CSV (full precision) and as Parquet."""
    buffer = io.BytesIO()
    content.to_parquet(buffer, index=False)
    return {"csv": content.to_csv(index=False).encode(), "parquet": buffer.getvalue()}


def write_tables(study: Study, folder: Path) -> list[Path]:
    """Write all tables into ``tables/`` beside the page, each file whole or not at all; older ones are removed."""
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    written: list[Path] = []
    found = tables(study)
    for name in set(TEXTS) - set(found):
        for kind in TYPES:
            (place / f"{name}.{kind}").unlink(missing_ok=True)
    for name, content in found.items():
        for kind, data in files_of(content).items():
            path = place / f"{name}.{kind}"
            partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
            try:
                partial.write_bytes(data)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)
            written.append(path)
    return written


TYPES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}


def download_section(study: Study) -> Html:
    """One line per table with its links."""
    rows = []
    for name, content in tables(study).items():
        links = [_link(name, kind, data) for kind, data in files_of(content).items()]
        rows.append([name, tag("td", TEXTS[name]), f"{len(content):,}", *links])
    caption = (
        f"“In the page”: the link holds the file itself. “Beside”: in the folder {FOLDER}/, which must be "
        "sent along with the page. Units: R, R2 and coherence have none; MSE is in squared units of the target; lags "
        "are in seconds."
    )
    return table(["Table", "One row is", "Rows", "CSV", "Parquet"], rows, caption=caption, kind="words")


def _link(name: str, kind: str, data: bytes) -> Html:
    file, size = f"{name}.{kind}", f"{max(len(data) / 1000, 1):,.0f} kB"
    if len(data) > INSIDE:
        return tag("td", join([tag("a", "Beside", href=f"{FOLDER}/{file}", download=file), f" {size}"]))
    address = f"data:{TYPES[kind]};base64,{base64.b64encode(data).decode()}"
    return tag("td", join([tag("a", "In the page", href=address, download=file), f" {size}"]))
