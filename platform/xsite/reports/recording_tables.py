"""The tables of one recording's page: exclusion rules, processing steps, source files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xsite.data.attributes import Attributes
from xsite.data.exclusion import RULES, figures_of
from xsite.data.refused import without_folders
from xsite.reports.markup import Html, join, number, table, tag

MAX_WORDS = 400


def rule_section(attributes: Attributes) -> Html:
    """Each rule with its threshold and this recording's value."""
    figures = figures_of(attributes.quality, len(attributes.ch_names))
    rows = []
    for rule in RULES:
        value = figures.get(rule.figure)
        broken = value is not None and rule.breaks(value)
        said = "not known" if value is None else ("excludes" if broken else "passes")
        cell = tag("td", said, class_="cold" if broken else "", style="--share:.5" if broken else "")
        limit = f"{rule.side} {rule.limit:g}{rule.unit}"
        rows.append([rule.name, number(value, 3), limit, cell, tag("td", rule.why)])
    words = attributes.excluded
    lead = f"Excluded: {words}." if words else "No rule excludes this recording."
    header = ["Figure", "Here", "Excluded", "Verdict", "Why"]
    caption = "Thresholds stand in xsite/data/exclusion.py and are applied whenever the manifest is read."
    others = sorted(name for name in attributes.quality if name not in {rule.figure for rule in RULES})
    more = [[name.replace("_", " "), number(_plain(attributes.quality[name]), 3)] for name in others]
    details = tag(
        "details", join([tag("summary", "All quality figures"), table(["Figure", "Value"], more, caption="")])
    )
    return join([tag("p", lead), table(header, rows, caption=caption, kind="words"), details])


def _plain(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def step_section(provenance: Mapping[str, Any]) -> Html:
    """Every step in order, with its parameters and what it measured."""
    rows = []
    for at, step in enumerate(provenance.get("steps") or [], start=1):
        given = {name: value for name, value in step.items() if name != "step"}
        rows.append([f"{at}. {step.get('step', '?')}", tag("td", said(given))])
    bold = provenance.get("bold") or {}
    if bold:
        rows.append(["BOLD, as found", tag("td", said(bold))])
    site = provenance.get("site") or {}
    if site:
        rows.append(["Site, by its facts", tag("td", said(site))])
    if not rows:
        return tag("p", "Not recorded.")
    return table(["Step", "Parameters and findings"], rows, caption="In the order in which they ran.", kind="words")


def facts_section(provenance: Mapping[str, Any]) -> Html:
    """Source files with hashes, faults of sidecars, versions."""
    faults = provenance.get("sidecar_faults") or {}
    rows = [[name, tag("td", "; ".join(map(str, found)))] for name, found in faults.items()]
    parts = [tag("h3", "Faults of sidecars")]
    caption = "Read leniently; nothing was changed in the files."
    parts.append(
        table(["File", "Fault"], rows, caption=caption, kind="words") if rows else tag("p", "No fault was found.")
    )
    sources = [[item["file"], tag("code", str(item["sha256"])[:16])] for item in provenance.get("sources") or []]
    parts += [tag("h3", "Files"), table(["File", "SHA-256"], sources, caption="First 16 digits.", kind="words")]
    versions = [[name, value] for name, value in sorted((provenance.get("versions") or {}).items())]
    packages = table(["Package", "Version"], versions, caption="At ingest.", kind="words")
    return join([*parts, tag("details", join([tag("summary", "Versions"), packages]))])


def said(value: Any) -> str:
    """Write parameters as a person reads them; long lists are cut, with their length."""
    if isinstance(value, Mapping) and value:
        return "; ".join(f"{str(name).replace('_', ' ')}: {said(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], Mapping):
            return " | ".join(said(item) for item in value)
        words = ", ".join(said(item) for item in value) or "none"
        return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]} … ({len(value)} values)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value == {} else "not known" if value is None or value == "" else without_folders(str(value))
