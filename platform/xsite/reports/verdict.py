"""The first lines of a report: what was found, in words, the unwelcome part first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from xsite.evaluation.collapse import by_model
from xsite.evaluation.intervals import few_sites_warning
from xsite.evaluation.paired import main_rival
from xsite.reports.markup import Html, interval, join, number, tag

Tone = Literal["good", "bad", "open"]
LABELS = {
    "neurobolt": "NeuroBOLT",
    "neurobolt-x": "NeuroBOLT-X",
    "labram": "LaBraM",
    "biot": "BIOT",
    "ffcl": "FFCL",
    "eegnet": "EEGNet",
    "beira": "BEIRA",
    "siren": "SIREN",
    "cnn-transformer": "CNN-Transformer",
    "st-transformer": "ST-Transformer",
    "lag-tokens": "Lag tokens",
    "selected": "Selected variant",
    "ridge": "Ridge",
    "ridge-window": "Ridge, window alone",
    "mean": "Training mean",
    "zero": "Zero",
    "alpha": "Alpha power",
    "vigilance": "Vigilance index",
    "global-signal": "Measured global signal",
    "oracle": "Oracle",
}


EQUAL_R = 0.005
"""Two means of R that are nearer than this look equal on the page."""


def digits_of(difference: float) -> int:
    """So many that a small difference is not written as none."""
    return 2 if abs(difference) >= 2 * EQUAL_R else 3


def label(model: str) -> str:
    """How a model is called on the page."""
    return LABELS.get(model, model)


def rival_of(model: str, summary: Mapping[str, Any]) -> str | None:
    """Who the model must beat (:func:`xsite.evaluation.paired.main_rival`): never an oracle or another variant."""
    return main_rival(model, summary["rows"], summary.get("trained") or ())


def _of(items: Sequence[Mapping[str, Any]], **wanted: Any) -> list[Mapping[str, Any]]:
    return [item for item in items if all(item[key] == value for key, value in wanted.items())]


def headline(summary: Mapping[str, Any], model: str) -> tuple[Tone, str, str]:
    """Say who wins and by how much.

    Returns
    -------
    tone, title, detail : str
    """
    own = _of(summary["overall"], model=model, control=False)
    if not own or own[0]["r_mean"] is None:
        return "bad", f"{label(model)} has no score", "Its predictions are constant, or it was not run."
    mean = own[0]["r_mean"]
    rival = rival_of(model, summary)
    if rival is None:
        return "open", f"{label(model)} reaches a mean R of {number(mean)}", "No baseline with a defined R was run."
    pairs = _of(summary["comparison"], a=model, b=rival)
    everywhere = _of(pairs, site="all")
    if not everywhere:
        return "open", f"{label(model)} reaches a mean R of {number(mean)}", f"It was not compared with {label(rival)}."
    return _against(model, rival, everywhere[0], [pair for pair in pairs if pair["site"] != "all"], summary)


def _against(
    model: str, rival: str, total: Mapping[str, Any], sites: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> tuple[Tone, str, str]:
    mine, theirs = (_of(summary["overall"], model=name, control=False)[0]["r_mean"] for name in (model, rival))
    means = f"{number(mine)} against {number(theirs)}, mean R over {len(sites)} held-out sites"
    difference, low, high = total["difference"], total["ci_low"], total["ci_high"]
    clear = low is not None and (low > 0 or high < 0)
    digits = digits_of(difference)
    ahead, behind = (model, rival) if difference > 0 else (rival, model)
    tone: Tone = "bad" if ahead == rival else ("good" if clear else "open")
    title = f"{label(ahead)} beats {label(behind)}"
    if not clear:
        title = f"{label(ahead)} is ahead of {label(behind)}, not clearly"
        if abs(difference) < EQUAL_R:
            tone, title = "bad", f"{label(model)} is not better than {label(rival)}"
    bounds = "one site, no interval"
    if low is not None:
        bounds = f"95 % interval over sites {interval(low, high, digits, sign=True)}"
    per_site = "; ".join(
        f"{pair['site']} {number(pair['difference'], digits, sign=True)} "
        f"{interval(pair['ci_low'], pair['ci_high'], digits, sign=True)}"
        for pair in sites
    )
    detail = (
        f"{label(model)} {means}: difference {number(difference, digits, sign=True)} ({bounds}). "
        f"Per site, with 95 % intervals over subjects: {per_site}."
    )
    return tone, title, detail


def findings(summary: Mapping[str, Any], model: str) -> list[tuple[Tone, str]]:
    """Further sentences: oracle, control, squared error, few sites (chance stands among the answers)."""
    rows = _of(summary["rows"], model=model, control=False)
    found = [_oracle(rows, model), _control(summary), _skill(rows, summary, model)]
    found.append(_collapsed(summary))
    if (warning := few_sites_warning(len(rows))) and warning not in (summary.get("warnings") or []):
        found.append(("open", warning))
    return [item for item in found if item is not None]


def _oracle(rows: Sequence[Mapping[str, Any]], model: str) -> tuple[Tone, str] | None:
    shares = {r["site"]: (r["r_mean"] or 0.0) / r["oracle_r_mean"] for r in rows if r["oracle_r_mean"]}
    if not shares:
        return "open", "Oracle: not known; real recordings carry no noise-free truth."
    half = sum(share >= 0.5 for share in shares.values())
    each = ", ".join(f"{site} {100 * share:.0f} %" for site, share in shares.items())
    verdict = "at every site" if half == len(shares) else f"at {half} of {len(shares)} sites"
    tone: Tone = "good" if half == len(shares) else "bad"
    return tone, f"Oracle: {label(model)} reaches at least half of the oracle's R {verdict} ({each})."


def p_value(p: float | None, n: int) -> str:
    """Write a surrogate p-value with the digits that n surrogates can carry."""
    if p is None or math.isnan(p):
        return "–"
    return f"{p:.{max(2, math.ceil(math.log10(max(n + 1, 2)) - 0.03))}f}"  # 1 / 1,001 is 0.001, 1 / 2,001 is 0.0005


def wide_null(summary: Mapping[str, Any]) -> Html:
    """Beside every p-value and band of a mean over sites: their null is widened, and where that is explained."""
    tied = any(row["n_sites"] > 1 for row in summary["overall"]) or summary.get("crossed_sites")
    if not summary.get("surrogates") or not tied:
        return Html("")
    words = "null √2 wider, as folds are not independent"
    return tag("a", words, href="#wider") if summary.get("nulls") else Html(words)


def _control(summary: Mapping[str, Any]) -> tuple[Tone, str]:
    controls = _of(summary["overall"], control=True)
    if not controls:
        return "open", "Control: none was run; name a model under controls in the recipe to train it on others' BOLD."
    parts, leaks = [], 0
    for row in controls:
        above = row["inside_band"] is False and row["r_mean"] > row["null_high"]
        leaks += above
        place = {True: "inside", False: "above" if above else "below", None: "without"}[row["inside_band"]]
        band = interval(row["null_low"], row["null_high"])
        parts.append(f"{label(row['model'])} {number(row['r_mean'], 3)}, {place} its 95 % band of chance {band}")
    sentence = "Control, trained on other subjects' BOLD: " + "; ".join(parts) + "." + " Suspect a leak." * (leaks > 0)
    wide = wide_null(summary)
    return "bad" if leaks else "good", join([sentence, " (", wide, ")"]) if wide else sentence


def _collapsed(summary: Mapping[str, Any]) -> tuple[Tone, str] | None:
    rows = summary.get("collapsed") or []
    if not rows:
        return None
    models = by_model(rows, summary["rows"])
    lines = [rows[0]["line"]] if len(rows) == 1 else [f"{label(one.model)} {one.where}" for one in models]
    return "bad", "Collapsed: " + "; ".join(lines) + ". A correlation alone would hide this."


def _skill(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], model: str) -> tuple[Tone, str] | None:
    zero = {row["site"]: row["mse_mean"] for row in _of(summary["rows"], model="zero", control=False)}
    skills = {r["site"]: 1 - r["mse_mean"] / zero[r["site"]] for r in rows if zero.get(r["site"]) and r["mse_mean"]}
    if not skills:
        return None
    better = sum(skill > 0 for skill in skills.values())
    each = ", ".join(f"{site} {number(100 * skill, 0, sign=True)} %" for site, skill in skills.items())
    tone: Tone = "good" if better == len(skills) else "bad"
    return (
        tone,
        f"Squared error: {label(model)} is better than predicting zero at {better} of {len(skills)} sites ({each}).",
    )
