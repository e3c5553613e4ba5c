"""The page of ``neurobolt site check``: pass or fail, what to write into the facts file, and what it rests on."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from xsite.data.site_check import Check, SiteCheck
from xsite.reports.markup import Html, figure, inline_svg, join, number, table, tag
from xsite.reports.page import Section, header, page
from xsite.reports.verdict import Tone
from xsite.signals.align import Alignment
from xsite.spelling import counted

_FOLDERS = re.compile(r"(?<![\w.:/])(?:/[^/\n:;,()]+)+/(?=[^/\s])")
TONES: dict[str, Tone] = {"pass": "good", "warn": "open", "fail": "bad"}


def site_check_page(check: SiteCheck) -> str:
    """Build the page as text: self-contained, without paths."""
    failed = [one for one in check.checks if one.state == "fail"]
    warned = [one for one in check.checks if one.state == "warn"]
    name = check.site.name
    title = f"{name}: the facts fit" if check.passed else f"{name}: {counted(len(failed), 'fact')} to correct"
    lead = (
        "Every required check passed; ingest will read this site."
        if check.passed
        else "Correct what is listed here in the facts file, then run the check again."
    )
    tiles = [
        (str(len(check.checks) - len(failed) - len(warned)), "passed"),
        (str(len(warned)), "to look at"),
        (str(len(failed)), "failed"),
        (f"{check.seconds:.0f} s", "for one recording"),
    ]
    kicker = f"Site check, read: {check.recording or 'nothing'}"
    sentences = [(TONES[one.state], _to_do(one)) for one in [*failed, *warned] if one.fix]
    top = header(kicker, title, "good" if check.passed else "bad", lead, tiles, sentences)
    sections = [Section("checks", "Checks", "All checks", _checks(check.checks))]
    if check.markers:
        sections.append(Section("markers", "Markers", "Markers in the EEG", _markers(check)))
    if check.alignment is not None:
        sections.append(Section("alignment", "Alignment", "Alignment", _alignment(check.alignment)))
    if check.channels:
        sections.append(Section("channels", "Channels", "Channels", _channels(check)))
    if check.prepared is not None:
        sections.append(Section("quality", "Quality", "Quality figures", _quality(check)))
    return page(f"{name}: site check", top, sections)


def _short(words: str) -> str:
    """File names instead of absolute paths: a page is sent around, and folders may be called after people."""
    return _FOLDERS.sub("", words)


def _to_do(check: Check) -> Html:
    return join([tag("b", f"{check.name}: "), _short(check.found), ". ", tag("b", _short(check.fix))])


def _checks(checks: Sequence[Check]) -> Html:
    rows = [
        (
            one.name,
            join([tag("span", "", class_="dot", style=f"background:var(--{TONES[one.state]})"), one.state]),
            _short(one.found),
            _short(one.fix) or "–",
            tag("code", one.fact) if one.fact else "–",
        )
        for one in checks
    ]
    header_row = ("Check", "Result", "Found", "What to do", "Fact")
    return table(header_row, rows, caption="“warn” does not stop ingest; “fail” does.", kind="words")


def _markers(check: SiteCheck) -> Html:
    rows = [
        (look.name, look.likeness, str(look.count), number(look.spacing, 4), look.place, look.words)
        for look in check.markers[:40]
    ]
    caption = (
        "Likeliest volume markers first: “volumes” keep the repetition time and count like the image, “volumes?” count "
        "otherwise, “slices” are several per volume, “clock” is regular and neither (a decoy), “event” is no train."
    )
    return table(("Marker", "Looks like", "Count", "Every s", "From", "Why"), rows, caption=caption, kind="words")


def _alignment(alignment: Alignment) -> Html:
    words = tag("ul", join(tag("li", _short(line)) for line in alignment.evidence))
    chart = Figure(figsize=(8, 2.2))
    axes = chart.subplots()
    volumes = np.arange(len(alignment.triggers))
    clock = np.polynomial.Polynomial.fit(volumes, alignment.triggers, 1) if len(volumes) > 1 else None
    off_ms = np.zeros(len(volumes)) if clock is None else (alignment.triggers - clock(volumes)) * 1e3
    axes.plot(volumes, off_ms, ".", markersize=3, color="#3d74d9")
    axes.plot(volumes[~alignment.volume_valid], off_ms[~alignment.volume_valid], "x", color="#b8432f")
    axes.set_xlabel("volume")
    axes.set_ylabel("off a straight clock, ms")
    drawn = inline_svg(chart, name="alignment", label="Volume triggers against a straight clock")
    caption = "Each dot is one volume's trigger; crosses are volumes without a trustworthy time."
    return join([tag("p", f"Verdict: {alignment.verdict}"), words, figure(drawn, caption)])


def _channels(check: SiteCheck) -> Html:
    rows = [(one.file_name, one.name, one.file_type, one.kind, one.evidence) for one in check.channels]
    caption = "What the file says of each channel, what it is taken for, and why."
    return table(("In the file", "Taken as", "Type in the file", "Type", "Why"), rows, caption=caption, kind="words")


def _quality(check: SiteCheck) -> Html:
    assert check.prepared is not None
    rows = [(name, number(float(value), 3)) for name, value in sorted(check.prepared.quality.items())]
    return table(("Figure", "Value"), rows, caption="Of the recording in the shared format, as ingest would store it.")
