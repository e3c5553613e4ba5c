"""What a reader must be told beside the tables: the leakage audit, collapsed models, and every other warning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xsite.reports.folder import Study
from xsite.reports.markup import Html, join, number, table, tag
from xsite.reports.verdict import label

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
    collapsed = study.summary.get("collapsed") or []
    told = {f"Collapsed: {row['line']}." for row in collapsed}
    warnings = [words for words in study.summary.get("warnings") or [] if words not in told]
    if not warnings and not collapsed:
        return Html("")
    n = len(warnings) + len(collapsed)
    parts = [tag("p", f"{n} thing{'s' if n != 1 else ''} to know before quoting a figure of this page.")]
    if warnings:
        parts.append(tag("ul", join(tag("li", words, class_="open") for words in warnings), class_="findings"))
    if collapsed:
        rows = [
            [
                label(r["model"]),
                r["site"],
                r["seed"],
                number(r["r"], 3),
                number(r["r2"], 3),
                f"{r['variance_ratio']:.1e}",
            ]
            for r in collapsed
        ]
        head = ["Collapsed model", "Site", "Seed", "Mean R", "R2", "Variance, share of the target's"]
        caption = (
            "A prediction that hardly moves, or that correlates and is no better than zero in squared error: its R is "
            "no evidence that anything was learned."
        )
        parts.append(table(head, rows, caption=caption))
    return join(parts)
