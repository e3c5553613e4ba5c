"""Small pieces of HTML. Everything that is not :class:`Html` is escaped on its way in."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK, MUTED, LINE = "#0a0b0c", "#0a0b0d", "#0a0b0e"
"""Stand-ins in figures for the page's own colours, so that a chart follows light and dark."""
PAGE_COLOURS = {INK: "currentColor", MUTED: "var(--muted)", LINE: "var(--line)"}

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a parcel may be called "V1$left"
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}


class Html(str):
    """Text that is already HTML."""


def text(value: Any) -> Html:
    """Escape a value, unless it is HTML already."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Put pieces together."""
    return Html(between.join(text(part) for part in parts))


def tag(name: str, content: Any = "", **attributes: Any) -> Html:
    """Build one element; ``class_`` and ``aria_label`` become ``class`` and ``aria-label``."""
    pairs = (f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{''.join(pairs)}>{text(content)}</{name}>")


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """Write a figure as readers expect it: a true minus, an en dash where there is none."""
    if value is None or value != value:
        return "–"
    value = round(value, digits) + 0.0  # no "−0.00"
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """Write ``[low, high]``, or an en dash where one bound is unknown."""
    if low is None or high is None or low != low or high != high:
        return "–"
    return f"[{number(low, digits, sign=sign)}, {number(high, digits, sign=sign)}]"


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]], *, caption: Any, kind: str = "") -> Html:
    """Build a table and the note on what it rests on; the first column names the row, cells may be ready ``td``."""
    head = tag("thead", tag("tr", join(tag("th", cell, scope="col") for cell in header)))
    body = []
    for first, *rest in rows:
        cells = [cell if isinstance(cell, Html) and cell.startswith("<td") else tag("td", cell) for cell in rest]
        body.append(tag("tr", join([tag("th", first, scope="row"), *cells])))
    content = tag("table", join([head, tag("tbody", join(body))]), class_=f"data {kind}".strip())
    return join([tag("div", content, class_="scroll", tabindex=0), tag("p", caption, class_="note")])


def figure(content: Html, caption: Any, *, kind: str = "") -> Html:
    """Wrap a picture with its caption."""
    return tag("figure", join([content, tag("figcaption", caption)]), class_=kind)


def inline_svg(chart: Figure, *, name: str, label: str) -> Html:
    """Draw a chart as SVG that lives inside the page and takes its colours and its font.

    Parameters
    ----------
    chart : Figure
    name : str
        Unique in the page: the ids inside the SVG are derived from it.
    label : str
        What a reader who cannot see it is told.
    """
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        file = io.StringIO()
        chart.savefig(file, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    svg = file.getvalue()
    chart.clear()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)  # HTML knows SVG; the page shall hold no address at all
    svg = _own_ids(svg, name)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{text(label)}"', 1)
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return Html(svg.strip())


def _own_ids(svg: str, name: str) -> str:
    """Keep the ids that something in the chart refers to, once each, and make them unique in the page."""
    wanted = set(re.findall(r'(?:url\(#|href="#)([^")]+)', svg))

    def keep(match: re.Match[str]) -> str:
        found = match[1] in wanted
        wanted.discard(match[1])  # what matplotlib writes twice under one id is twice the same
        return match[0] if found else ""

    svg = re.sub(r'\sid="([^"]*)"', keep, svg)
    return re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
