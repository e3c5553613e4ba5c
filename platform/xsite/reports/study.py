"""A study's folder becomes one HTML page that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from string import Template

from xsite.reports import pictures, sections
from xsite.reports.folder import Study, load_study
from xsite.reports.markup import Html, join, tag, text

SECTIONS: tuple[tuple[str, str, str, Callable[[Study], Html]], ...] = (
    ("sites", "Sites", "Scores at each held-out site", sections.site_section),
    ("parcels", "Parcels", "Site by parcel", sections.parcel_section),
    ("distribution", "Distribution", "Distribution of R per parcel", pictures.distribution_section),
    ("series", "Series", "Predicted against measured", pictures.series_section),
    ("electrodes", "Electrodes", "Electrode layouts", pictures.electrode_section),
    ("brain", "Brain", "Where in the brain", pictures.brain_section),
    ("training", "Training", "Training curves", pictures.training_section),
    ("method", "What was run", "What was run", sections.method_section),
)
"""Anchor, name in the navigation, title, and the function that builds it."""


def write_report(study_dir: str | Path) -> Path:
    """Write ``report.html`` into a study's folder, all or nothing.

    Parameters
    ----------
    study_dir : str or Path
        Folder with ``experiment.yaml``, ``manifest.parquet``, ``scores.parquet``, ``summary.json``,
        ``predictions.npz``, ``folds.json``, and where present ``histories.parquet``, ``versions.json``,
        ``montages.json``, ``parcels.json``.

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
    page = render(load_study(folder))
    path = folder / "report.html"
    partial = folder / f".report.html.{os.getpid()}.partial"
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(study: Study) -> str:
    """Build the page as text."""
    nav = tag("nav", join(tag("a", short, href=f"#{anchor}") for anchor, short, *_ in SECTIONS), aria_label="Sections")
    body = [tag("section", join([tag("h2", title), build(study)]), id=anchor) for anchor, _, title, build in SECTIONS]
    name = study.experiment.get("name", "study")
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=text(f"{name}: leave-one-site-out"), body=join([sections.top(study), nav, *body], "\n")
    )
