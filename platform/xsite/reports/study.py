"""A study's folder becomes one HTML page that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from xsite.reports import audit, chance, downloads, forest, known_sites, methods, pictures, sections, transfer
from xsite.reports.folder import Study, load_study
from xsite.reports.markup import Html, join, tag, text

SECTIONS: tuple[tuple[str, str, str, Callable[[Study], Html]], ...] = (
    ("warnings", "Warnings", "Before you quote anything", audit.warning_section),
    ("forest", "Forest", "Site by site, and the next one", forest.forest_section),
    ("sites", "Sites", "Scores at each held-out site", sections.site_section),
    ("chance", "Chance", "Against chance", chance.null_section),
    ("tested", "Parcels tested", "Which parcels are better than chance", chance.parcel_section),
    ("brain", "Brain", "Where in the brain", pictures.brain_section),
    ("parcels", "Parcels", "Site by parcel", sections.parcel_section),
    ("distribution", "Distribution", "Distribution of R per parcel", pictures.distribution_section),
    ("gap", "Known sites", "Known and unseen sites", known_sites.gap_section),
    ("matrix", "Site to site", "Train on one site, test on another", transfer.matrix_section),
    ("growing", "More sites", "More and more training sites", transfer.growing_section),
    ("calibration", "Calibration", "A few labelled subjects of the new site", transfer.calibration_section),
    ("ranks", "Ranks", "The models in order", known_sites.rank_section),
    ("series", "Series", "Predicted against measured", pictures.series_section),
    ("electrodes", "Electrodes", "Electrode layouts", pictures.electrode_section),
    ("training", "Training", "Training curves", pictures.training_section),
    ("leakage", "Leakage", "Leakage audit", audit.audit_section),
    ("method", "What was run", "What was run", sections.method_section),
    ("cite", "Cite", "Methods paragraph and bibliography", methods.cite_section),
    ("tables", "Tables", "All tables to take away", downloads.download_section),
)
"""Anchor, name in the navigation, title, and the function that builds it: empty where the study has nothing to say."""


def write_report(study_dir: str | Path, *, cards: Mapping[str, Mapping[str, Any]] | None = None) -> Path:
    """Write ``report.html`` and ``tables/`` into a study's folder, each file whole or not at all.

    Parameters
    ----------
    study_dir : str or Path
        Folder with ``experiment.yaml``, ``manifest.parquet``, ``scores.parquet``, ``summary.json``,
        ``predictions.npz``, ``folds.json``, and where present ``histories.parquet``, ``versions.json``,
        ``montages.json``, ``parcels.json``, ``leakage.json``, ``cards.json`` and the tables of
        :data:`xsite.reports.folder.TABLES`.
    cards : mapping of model name to mapping, optional
        ``name, paper, year, differs`` of the models; kept as ``cards.json``, so that a later page knows them too.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FormatError
        The folder holds no complete study.
    """
    folder = Path(study_dir)
    if cards is not None:
        _replace(folder / "cards.json", json.dumps(cards, indent=1))
    study = load_study(folder)
    page = render(study)
    downloads.write_tables(study, folder)
    return _replace(folder / "report.html", page)


def _replace(path: Path, content: str) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(content, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(study: Study) -> str:
    """Build the page as text; sections that have nothing to say are left out, and out of the navigation."""
    built = [(anchor, short, title, build(study)) for anchor, short, title, build in SECTIONS]
    shown = [section for section in built if section[3]]
    nav = tag("nav", join(tag("a", short, href=f"#{anchor}") for anchor, short, *_ in shown), aria_label="Sections")
    body = [tag("section", join([tag("h2", title), content]), id=anchor) for anchor, _, title, content in shown]
    name = study.experiment.get("name", "study")
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=text(f"{name}: {study.scheme}"), body=join([sections.top(study), nav, *body], "\n")
    )
