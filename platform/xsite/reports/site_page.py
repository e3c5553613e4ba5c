"""The page of one site: its recordings side by side, those that stand out, settings that changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from xsite.data.attributes import Attributes
from xsite.recording import Float
from xsite.reports.markup import INK, LINE, MUTED, STYLE, Html, figure, inline_svg, join, number, table, tag, text
from xsite.reports.outliers import (
    COLUMNS,
    FEWEST,
    LIMIT_Z,
    Column,
    Outlier,
    by_session,
    difference,
    figure_values,
    outliers,
    robust_z,
    settings_of,
)
from xsite.reports.page import Section, header, page
from xsite.reports.verdict import Tone
from xsite.spelling import counted

USED, LEFT_OUT, ODD = "#3d74d9", "#8b8f98", "#d0453b"


def site_page(
    site: str,
    recordings: Sequence[Attributes],
    refused: Mapping[str, str],
    left_out: Mapping[str, str],
    linked: Collection[str] = (),
) -> str:
    """Build the page of one site.

    Parameters
    ----------
    site : str
    recordings : sequence of Attributes
        In the order of the manifest.
    refused : mapping of entities to message
        Recordings that ingest could not use at all.
    left_out : mapping of file name to reason
        Files that pairing left out.
    linked : collection of str
        Entities of the recordings that have a page.
    """
    odd = outliers(recordings)
    sections = [
        Section("recordings", "Recordings", "Recordings", _recordings(recordings, linked)),
        Section("figures", "Figures", "Quality figures", _figures(recordings, odd)),
        Section("outliers", "Outliers", "What stands out", _outliers(recordings, odd, linked)),
        Section("settings", "Settings", "Settings between sessions", _settings(recordings)),
        Section("refused", "Refused", "Refused at ingest", refused_table(refused)),
        Section("left-out", "Left out", "Files left out", _left_out(left_out)),
    ]
    return page(f"Quality of {site}", _top(site, recordings, odd, refused), sections)


def file_name(item: Attributes) -> str:
    """Name of a recording's page, beside its site's."""
    return f"{item.key.entities}.html"


def name_of(item: Attributes, linked: Collection[str], folder: str = "") -> Html:
    """Entities of a recording, with a link to its page where there is one."""
    entities = item.key.entities
    return tag("a", entities, href=folder + file_name(item)) if entities in linked else text(entities)


def subjects_of(recordings: Sequence[Attributes]) -> int:
    """Number of subjects."""
    return len({item.key.subject for item in recordings})


def _top(site: str, recordings: Sequence[Attributes], odd: Sequence[Outlier], refused: Mapping[str, str]) -> Html:
    kept = [item for item in recordings if not item.excluded]
    changed = [name for name, values in settings_of(recordings).items() if len(values) > 1]
    verdicts = [str(item.row["verdict"]) for item in recordings]
    tone: Tone = "good" if len(kept) == len(recordings) and not refused else ("open" if kept else "bad")
    usual = {name: next(iter(values), None) for name, values in settings_of(recordings).items()}
    parts = ["EEG sampling frequency", "Repetition time", "Reference", "EEG state"]
    lead = "; ".join(f"{name}: {usual[name]}" for name in parts if usual[name]) or "Its settings are not known."
    findings: list[tuple[Tone, Any]] = []
    for verdict, mark in (("rejected", "bad"), ("unverified", "open")):
        if n := verdicts.count(verdict):
            findings.append((mark, f"Alignment {verdict} in {n} of {len(recordings)} recordings."))  # type: ignore[arg-type]
    if changed:
        findings.append(("open", f"Not the same in all recordings: {', '.join(changed)}."))
    names = sorted({str(o.attributes.key.entities) for o in odd})
    if names:
        who = counted(len(names), "recording stands", "recordings stand")
        findings.append(("open", f"{who} out in some figure: {', '.join(names[:8])}."))
    if refused:
        findings.append(("bad", f"Refused at ingest: {counted(len(refused), 'recording')}."))
    tiles = [
        (str(subjects_of(recordings)), "subjects"),
        (str(len(recordings)), "recordings"),
        (str(len(recordings) - len(kept)), "excluded"),
        (f"{hours(kept):.1f} h", "of EEG that may train"),
        (f"{verdicts.count('ok') + verdicts.count('repaired')}", "alignments shown by evidence"),
    ]
    kicker = join([tag("a", "Consortium", href="../index.html"), f" · Site {site}"])
    title = f"{site}: {len(kept)} of {counted(len(recordings), 'recording')} used"
    return header(kicker, title, tone, lead, tiles, findings)


def hours(recordings: Sequence[Attributes]) -> float:
    """EEG in hours."""
    return sum(float(item.row["n_times"]) / float(item.row["sfreq"]) for item in recordings) / 3600


def known_columns(recordings: Sequence[Attributes]) -> list[Column]:
    """Figures that at least one recording has."""
    return [column for column in COLUMNS if np.isfinite(figure_values(recordings, column)).any()]


def _recordings(recordings: Sequence[Attributes], linked: Collection[str]) -> Html:
    columns = known_columns(recordings)
    values = {column: figure_values(recordings, column) for column in columns}
    z = {column: robust_z(values[column], column.grain) for column in columns}
    rows = []
    for at, item in enumerate(recordings):
        link = name_of(item, linked)
        kept = f"{int(item.row['n_valid'])}/{int(item.row['n_volumes'])}"
        cells = [_cell(float(values[column][at]), float(z[column][at]), column) for column in columns]
        rows.append([link, status(item), str(item.row["verdict"]), item.row["n_chans"], kept, *cells])
    head = ["Recording", "Training", "Alignment", "Channels", "Volumes", *(column.label for column in columns)]
    caption = (
        f"Red: more than {LIMIT_Z:g} robust standard deviations (scaled MAD) from the site's median; needs at least "
        f"{FEWEST} recordings. Worst channel: its amplitude over the median channel's. Line noise: after the notch, "
        "over its neighbourhood."
    )
    return table(head, rows, caption=caption, kind="models dense")


def status(item: Attributes) -> Html:
    """Whether a recording may train, as a cell with the reason behind it."""
    if item.excluded:
        return tag("td", "excluded", class_="cold", style="--share:.45", title=item.excluded)
    return tag("td", "used")


def _cell(value: float, z: float, column: Column) -> Html:
    words = number(value, column.digits)
    if abs(z) > LIMIT_Z:
        return tag("td", words, class_="cold", style="--share:.45", title=f"robust z {number(z, 1)}")
    return tag("td", words)


def _figures(recordings: Sequence[Attributes], odd: Sequence[Outlier]) -> Html:
    columns = known_columns(recordings)
    if not columns:
        return tag("p", "No quality figures are known.")
    chart = _dots(recordings, columns, {(o.column.figure, str(o.attributes.key)) for o in odd})
    caption = (
        "Every recording in the manifest's order. Blue: may train; grey ring: excluded; red ring: stands out. "
        "Line: median."
    )
    return figure(inline_svg(chart, name="figures", label="Quality figures of every recording"), caption)


def _dots(recordings: Sequence[Attributes], columns: Sequence[Column], odd: set[tuple[str, str]]) -> Figure:
    n_cols = 4
    n_rows = -(-len(columns) // n_cols)
    x = np.arange(len(recordings))
    kept = np.array([not item.excluded for item in recordings])
    with matplotlib.rc_context(STYLE):
        chart = Figure(figsize=(9.6, 1.65 * n_rows + 0.2))
        axes = chart.subplots(n_rows, n_cols, squeeze=False).ravel()
        for ax in axes[len(columns) :]:
            ax.axis("off")
        for ax, column in zip(axes, columns, strict=False):
            values = figure_values(recordings, column)
            ax.axhline(float(np.nanmedian(values)), color=MUTED, lw=0.9)
            ax.plot(x[kept], values[kept], "o", ms=4, color=USED, alpha=0.8, mew=0)
            ax.plot(x[~kept], values[~kept], "o", ms=4, mfc="none", mec=LEFT_OUT)
            marked = np.array([(column.figure, str(item.key)) in odd for item in recordings])
            ax.plot(x[marked], values[marked], "o", ms=9, mfc="none", mec=ODD, mew=1.4)
            ax.set_title(column.label, fontsize=9, color=INK)
            ax.set_xticks([])
            ax.set_ylim(*_limits(values, column))
            ax.spines["bottom"].set_color(LINE)
        chart.tight_layout()
    return chart


def _limits(values_N: Float, column: Column) -> tuple[float, float]:
    low, high = float(np.nanmin(values_N)), float(np.nanmax(values_N))
    room = max(0.12 * (high - low), 3 * column.grain)
    return (max(0.0, low - room) - 0.3 * column.grain if low >= 0 else low - room), high + room


def _outliers(recordings: Sequence[Attributes], odd: Sequence[Outlier], linked: Collection[str]) -> Html:
    if len(recordings) < FEWEST:
        return tag("p", f"{counted(len(recordings), 'recording')}: too few to say what is usual at this site.")
    if not odd:
        return tag("p", f"No figure lies beyond {LIMIT_Z:g} robust standard deviations of the site's median.")
    rows = []
    for outlier in odd:
        name = name_of(outlier.attributes, linked)
        usual = float(np.nanmedian(figure_values(recordings, outlier.column)))
        digits = outlier.column.digits
        cells = [outlier.column.label, number(outlier.value, digits), number(usual, digits)]
        rows.append([name, *cells, number(outlier.z, 1, sign=True), status(outlier.attributes)])
    caption = "Standing out excludes nothing by itself: look at the recording's page. The farthest first."
    return table(["Recording", "Figure", "Value", "Median", "Robust z", "Training"], rows, caption=caption)


def _settings(recordings: Sequence[Attributes]) -> Html:
    rows = []
    for name, values in settings_of(recordings).items():
        if not values:
            rows.append([name, "not known", "", ""])
            continue
        usual = next(iter(values))
        words = usual if len(usual) <= 60 else f"{usual.count(', ') + 1} channels"
        if len(values) == 1:
            rows.append([name, tag("td", words), "same in all", ""])
            continue
        lines = [tag("div", f"{difference(value, usual)}: {_who(items)}") for value, items in list(values.items())[1:]]
        kind = "changes between sessions" if by_session(values) else f"{len(values)} values"
        rows.append(
            [name, tag("td", words), tag("td", kind, class_="cold", style="--share:.3"), tag("td", join(lines))]
        )
    head = ["Setting", "Usual", "Constant", "Others"]
    return table(head, rows, caption="As found in each recording's files.", kind="words")


def _who(items: Sequence[Attributes]) -> str:
    names = [item.key.entities for item in items]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _left_out(files: Mapping[str, str]) -> Html:
    if not files:
        return tag("p", "No file, as far as the store knows.")
    by_reason: dict[str, list[str]] = {}
    for name, reason in sorted(files.items()):
        by_reason.setdefault(reason, []).append(name)
    rows = [[reason, f"{len(names)}", tag("td", ", ".join(names))] for reason, names in by_reason.items()]
    caption = "Not simultaneous, without a partner, or named in the site's facts; as of the latest ingest."
    return table(["Why", "Count", "Files"], rows, caption=caption, kind="words")


def refused_table(refused: Mapping[str, str]) -> Html:
    """Recordings that ingest could not use, with its message."""
    if not refused:
        return tag("p", "No recording, as far as the store knows.")
    rows = [[name, tag("td", message)] for name, message in sorted(refused.items())]
    caption = "Correct the files or the site's facts and ingest again; what then succeeds leaves this list."
    return table(["Recording", "Why"], rows, caption=caption, kind="words")
