"""The page of a whole store: its sites side by side, what was left out and why, montages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from xsite.data.attributes import Attributes
from xsite.data.exclusion import RULES
from xsite.recording import Float
from xsite.reports.anatomy import electrode_layouts
from xsite.reports.figures import spread
from xsite.reports.markup import INK, MUTED, STYLE, Html, figure, inline_svg, join, number, table, tag
from xsite.reports.outliers import Column, figure_values, settings_of
from xsite.reports.page import Section, header, page
from xsite.reports.site_page import LEFT_OUT, USED, hours, known_columns, name_of, subjects_of
from xsite.reports.verdict import Tone
from xsite.spelling import counted

Sites = Mapping[str, Sequence[Attributes]]


def consortium_page(
    sites: Sites, refused: Mapping[str, Mapping[str, str]], linked: Mapping[str, Collection[str]] | None = None
) -> str:
    """Build the page of a store.

    Parameters
    ----------
    sites : mapping of site to sequence of Attributes
    refused : mapping of site to (entities to message)
        Recordings that ingest could not use at all.
    linked : mapping of site to collection of str
        Sites that have a page, and the entities of their recordings that have one.
    """
    linked = linked or {}
    sections = [
        Section("sites", "Sites", "Sites side by side", _sites(sites, refused, linked)),
        Section("figures", "Figures", "Quality figures by site", _figures(sites)),
        Section("left-out", "Left out", "What was left out, and why", _left_out(sites, refused, linked)),
        Section("protocols", "Protocols", "Protocols", _protocols(sites)),
        Section("montages", "Montages", "Electrode layouts", _montages(sites)),
        Section("rules", "Rules", "Exclusion rules", _rules(sites)),
    ]
    return page("Quality of the consortium", _top(sites, refused), sections)


def _all(sites: Sites) -> list[Attributes]:
    return [item for recordings in sites.values() for item in recordings]


def _top(sites: Sites, refused: Mapping[str, Mapping[str, str]]) -> Html:
    every = _all(sites)
    kept = [item for item in every if not item.excluded]
    n_refused = sum(map(len, refused.values()))
    usable = [site for site, recordings in sites.items() if any(not item.excluded for item in recordings)]
    shared = set.intersection(*(set(item.ch_names) for item in kept)) if kept else set()
    tone: Tone = "good" if len(usable) > 1 else ("open" if usable else "bad")
    findings: list[tuple[Tone, Any]] = []
    gone = [site for site in sites if site not in usable]
    if gone:
        findings.append(("bad", f"No recording may train at {', '.join(gone)}."))
    n_out = len(every) - len(kept)
    out = f"Excluded: {counted(n_out, 'recording')}."
    findings.append(("open", out) if n_out else ("good", "No recording is excluded."))
    if n_refused:
        findings.append(("bad", f"Refused at ingest: {counted(n_refused, 'recording')}."))
    n_open = sum(item.row["verdict"] == "unverified" for item in kept)
    if n_open:
        words = f"{n_open} of {len(kept)} recordings that may train have an unverified alignment: regular markers, but "
        findings.append(("open", words + "nothing beside them shows which one is the first volume."))
    if len(usable) > 1:
        mark: Tone = "good" if len(shared) >= 8 else "open"
        findings.append((mark, f"{len(shared)} channels are common to all recordings that may train."))
    tiles = [
        (f"{len(usable)} / {len(sites)}", "sites that may train"),
        (str(sum(subjects_of(recordings) for recordings in sites.values())), "subjects"),
        (f"{len(kept)} / {len(every)}", "recordings that may train"),
        (f"{hours(kept):.1f} h", "of EEG that may train"),
        (f"{sum(int(item.row['n_valid']) for item in kept):,}", "valid volumes"),
    ]
    title = f"{len(kept)} of {counted(len(every), 'recording')} of {counted(len(usable), 'site')} may train"
    lead = "Made from the store alone. Every site and every recording has a page of its own."
    return header("Consortium", title, tone, lead, tiles, findings)


def _site_name(site: str, linked: Collection[str]) -> Html:
    return tag("a", site, href=f"{site}/index.html") if site in linked else Html(tag("span", site))


def _sites(sites: Sites, refused: Mapping[str, Mapping[str, str]], linked: Collection[str]) -> Html:
    columns = known_columns(_all(sites))
    rows = []
    for site, recordings in sites.items():
        kept = [item for item in recordings if not item.excluded]
        verdicts = Counter(str(item.row["verdict"]) for item in recordings)
        counts = [f"{subjects_of(recordings)}", f"{len(recordings)}", f"{len(kept)}"]
        counts += [f"{len(recordings) - len(kept)}", f"{len(refused.get(site, {}))}", f"{hours(kept):.1f}"]
        said = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
        rows.append([_site_name(site, linked), *counts, said, *(_median(recordings, c) for c in columns)])
    head = ["Site", "Subjects", "In the store", "Used", "Excluded", "Refused", "Hours used", "Alignment"]
    head += [column.label for column in columns]
    caption = "Figures: median over all recordings of the site in the store. Refused: ingest could not use the files."
    return table(head, rows, caption=caption, kind="models dense")


def _median(recordings: Sequence[Attributes], column: Column) -> str:
    values = figure_values(recordings, column)
    return number(float(np.nanmedian(values)) if np.isfinite(values).any() else None, column.digits)


def _figures(sites: Sites) -> Html:
    columns = known_columns(_all(sites))
    if not columns:
        return tag("p", "No quality figures are known.")
    caption = (
        "Each dot is a recording; blue: may train, grey ring: excluded. Dashed: where a rule excludes. Line: median."
    )
    return figure(inline_svg(_dots(sites, columns), name="figures", label="Quality figures by site"), caption)


def _dots(sites: Sites, columns: Sequence[Column]) -> Figure:
    n_cols = 3 if len(sites) <= 8 else 2
    n_rows = -(-len(columns) // n_cols)
    limits = {rule.figure: rule.limit for rule in RULES}
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, (1.9 if len(sites) <= 8 else 2.3) * n_rows + 0.2))
        axes = chart.subplots(n_rows, n_cols, squeeze=False).ravel()
        for ax in axes[len(columns) :]:
            ax.axis("off")
        for ax, column in zip(axes, columns, strict=False):
            for x, recordings in enumerate(sites.values()):
                _site_dots(ax, x, recordings, figure_values(recordings, column))
            low, high = ax.get_ylim()
            limit = limits.get(column.figure)
            if limit is not None and low - (high - low) < limit < high + (high - low):
                ax.axhline(limit, color="#d0453b", lw=1, ls=(0, (4, 2)))
            else:
                ax.set_ylim(low, max(high, low + column.grain))
            ax.set_title(column.label, fontsize=9, color=INK)
            crowded = len(sites) > 5
            ax.set_xticks(range(len(sites)), list(sites), fontsize=7.5)
            if crowded or max(map(len, sites)) > 8:
                for words in ax.get_xticklabels():
                    words.set(rotation=35, ha="right", rotation_mode="anchor")
            ax.set_xlim(-0.6, len(sites) - 0.4)
        chart.tight_layout()
    return chart


def _site_dots(ax: Any, x: int, recordings: Sequence[Attributes], values: Float) -> None:
    kept = np.array([not item.excluded for item in recordings])
    at = x + spread(len(values), 0.5)
    ax.plot(at[kept], values[kept], "o", ms=3.6, color=USED, alpha=0.7, mew=0)
    ax.plot(at[~kept], values[~kept], "o", ms=3.6, mfc="none", mec=LEFT_OUT)
    if np.isfinite(values).any():
        ax.plot([x - 0.35, x + 0.35], [np.nanmedian(values)] * 2, color=MUTED, lw=1.2)


def _left_out(sites: Sites, refused: Mapping[str, Mapping[str, str]], linked: Mapping[str, Collection[str]]) -> Html:
    rows: list[list[Any]] = []
    for item in _all(sites):
        if item.excluded:
            name = name_of(item, linked.get(item.key.site, ()), f"{item.key.site}/")
            rows.append([item.key.site, tag("td", name), "excluded", tag("td", item.excluded)])
    for site, messages in sorted(refused.items()):
        rows += [[site, name, "refused at ingest", tag("td", words)] for name, words in sorted(messages.items())]
    if not rows:
        return tag("p", "Nothing: every recording of the store may train.")
    caption = (
        "Excluded: in the store, with its story, but marked in the manifest (columns excluded, reason) and never in a "
        "fold. Refused: the files could not be used at all."
    )
    return table(["Site", "Recording", "What", "Why"], rows, caption=caption, kind="words")


def _protocols(sites: Sites) -> Html:
    rows = []
    names = ["EEG sampling frequency", "EEG channels", "Reference", "Electrode positions", "Repetition time"]
    names += ["Volumes", "Volume markers", "EEG state"]
    for site, recordings in sites.items():
        settings = settings_of(recordings)
        rows.append([site, *(tag("td", _values(settings[name])) for name in names)])
    caption = "As found in the files; with several values at a site, the most frequent first."
    return table(["Site", *names], rows, caption=caption, kind="words")


def _values(values: Mapping[str, Sequence[Attributes]]) -> str:
    if not values:
        return "–"
    words = [f"{value.count(', ') + 1} channels" if value.count(", ") > 5 else value for value in values]
    unique = list(dict.fromkeys(words))
    return "; ".join(unique[:4]) + (f" and {len(unique) - 4} more" if len(unique) > 4 else "")


def _montages(sites: Sites) -> Html:
    layouts = {
        site: {"ch_names": recordings[0].ch_names, "positions": recordings[0].positions}
        for site, recordings in sites.items()
    }
    chart, missing = electrode_layouts(layouts)
    caption = (
        f"Seen from above, nose up. Blue: channels that all {len(sites)} sites have; grey: the site's own. The first "
        "recording speaks for its site. " + " ".join(f"Not drawn, {words}." for words in missing)
    )
    return figure(inline_svg(chart, name="electrodes", label="Electrode layouts of the sites"), caption)


def _rules(sites: Sites) -> Html:
    reasons = [item.excluded for item in _all(sites)]
    rows = []
    for rule in RULES:
        hit = sum(rule.name in words for words in reasons)
        rows.append([rule.name, f"{rule.side} {rule.limit:g}{rule.unit}", str(hit), tag("td", rule.why)])
    words = (
        "A site whose published EEG cannot serve (Site.unusable), a rejected alignment, and a recording without a "
        "single window of 16 s exclude as well."
    )
    caption = "Thresholds stand in xsite/data/exclusion.py and are applied whenever the manifest is read."
    return join(
        [tag("p", words), table(["Figure", "Excluded", "Recordings", "Why"], rows, caption=caption, kind="words")]
    )
