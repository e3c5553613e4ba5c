"""What a reader must be told beside the tables: the leakage audit, collapsed models, and every other warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xsite.evaluation.collapse import CollapsedModel, by_model
from xsite.reports.folder import Study
from xsite.reports.markup import Html, join, number, table, tag
from xsite.reports.verdict import label
from xsite.spelling import counted

COLLAPSE: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("r", lambda value: number(value, 3)),
    ("r2", lambda value: number(value, 3)),
    ("variance_ratio", lambda value: f"{value:.2f}" if value >= 0.01 else f"{value:.1e}"),
)
"""Figures of a collapsed model, and how each is written."""
WORDS = {"pass": "passed", "warn": "remark", "fail": "FAILED"}


def verdict_of(study: Study) -> Mapping[str, Any]:
    """The audit's verdict, from its own file or from the summary; empty where none was made."""
    return study.leakage or study.summary.get("leakage") or {}


def passed(study: Study) -> bool | None:
    """Whether the leakage audit was passed; None where there was none."""
    verdict = verdict_of(study).get("verdict")
    return None if verdict is None else verdict != "fail"


def audit_section(study: Study) -> Html:
    """Every check of the leakage audit with its verdict and evidence."""
    audit = verdict_of(study)
    if not audit:
        return Html("")
    rows = []
    for finding in audit.get("findings", []):
        evidence = join(tag("div", line) for line in finding.get("evidence", [])) or "none found"
        kind = {"fail": "cold", "warn": "cold"}.get(finding["verdict"], "")
        share = {"fail": "--share:.45", "warn": "--share:.15"}.get(finding["verdict"], "")
        mark = tag("td", WORDS.get(finding["verdict"], finding["verdict"]), class_=kind, style=share)
        rows.append([finding["check"], mark, tag("td", finding.get("compared", "")), tag("td", evidence)])
    caption = "Before anything was trained; weights that one training hands to another, before anything was scored."
    head = ["Check", "Verdict", "Compared", "Problems"]
    return join([tag("p", audit.get("sentence", "")), table(head, rows, caption=caption, kind="words")])


def warning_section(study: Study) -> Html:
    """Warnings of the summary, one by one, and collapsed models with their figures."""
    collapsed = by_model(study.summary.get("collapsed") or [], study.summary.get("rows") or [])
    warnings = [words for words in study.summary.get("warnings") or [] if not words.startswith("Collapsed: ")]
    if not warnings and not collapsed:
        return Html("")
    items = [tag("li", words, class_="open") for words in warnings]
    if collapsed:  # one of the things counted, however many models: the table below has them one by one
        items.append(tag("li", f"{counted(len(collapsed), 'model')} collapsed: the table below.", class_="bad"))
    parts = [tag("p", f"{counted(len(items), 'thing')} to know before quoting a figure of this page.")]
    parts.append(tag("ul", join(items), class_="findings"))
    if collapsed:
        parts.append(_collapsed(collapsed, "Training" if "scores_by_fold" in study.tables else "Seed"))
    return join(parts)


def _collapsed(models: Sequence[CollapsedModel], each_is: str) -> Html:
    """One line per model, every site and seed folded below; folds that test one site are numbered like seeds."""
    body = [
        [
            label(one.model),
            one.where,
            ", ".join(one.sites),
            len(one.rows),
            *(_range(one.rows, *own) for own in COLLAPSE),
        ]
        for one in models
    ]
    head = ["Collapsed model", "Where", "Sites", "Trainings", "Mean R", "R2", "Variance, share of the target's"]
    caption = (
        "A prediction that hardly moves, or that correlates and is no better than zero in squared error: its R is "
        "no evidence that anything was learned. Trainings: sites times seeds, each judged on its own, over the "
        "recordings of the held-out site; lowest and highest of their figures."
    )
    shown = table(head, body, caption=caption, kind="words")
    rows = [
        [label(r["model"]), r["site"], r["seed"], *(write(r[name]) for name, write in COLLAPSE)]
        for one in models
        for r in one.rows
    ]
    head = ["Collapsed model", "Site", each_is, "Mean R", "R2", "Variance, share of the target's"]
    each = table(head, rows, caption="Every site and seed on its own.")
    return join(
        [shown, tag("details", join([tag("summary", "Site by site"), each])) if len(rows) > len(models) else ""]
    )


def _range(rows: Sequence[Mapping[str, Any]], name: str, write: Callable[[float], str]) -> str:
    low, high = (write(bound([row[name] for row in rows])) for bound in (min, max))
    return low if low == high else f"{low} to {high}"
