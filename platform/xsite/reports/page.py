"""The frame that every page shares: header, navigation, sections, all in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from xsite.reports.markup import Html, join, tag, text
from xsite.reports.verdict import Tone


class Section(NamedTuple):
    """Anchor, name in the navigation, title, and content."""

    anchor: str
    short: str
    title: str
    content: Html


def header(
    kicker: object,
    title: str,
    tone: Tone,
    lead: object,
    tiles: Sequence[tuple[str, str]],
    findings: Sequence[tuple[Tone, object]] = (),
) -> Html:
    """Build the first lines of a page: what it is of, the verdict, key figures, findings."""
    boxes = [tag("div", join([tag("b", big), tag("span", small)]), class_="tile") for big, small in tiles]
    content = [tag("p", kicker, class_="kicker"), tag("h1", title, class_=tone), tag("p", lead, class_="lead")]
    content.append(tag("div", join(boxes), class_="tiles"))
    if findings:
        items = [tag("li", sentence, class_=mark) for mark, sentence in findings]
        content.append(tag("ul", join(items), class_="findings"))
    return tag("header", join(content))


def page(title: str, top: Html, sections: Sequence[Section]) -> str:
    """Build a page that needs no other file."""
    links = join(tag("a", section.short, href=f"#{section.anchor}") for section in sections)
    nav = tag("nav", links, aria_label="Sections")
    body = [tag("section", join([tag("h2", s.title), s.content]), id=s.anchor) for s in sections]
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(title=text(title), body=join([top, nav, *body], "\n"))
