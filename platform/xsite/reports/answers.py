"""The six questions that a sceptic asks, answered before anything else on the page, with figures and doubts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xsite.evaluation.collapse import GLOBAL_SIGNAL
from xsite.evaluation.intervals import t_interval
from xsite.evaluation.subjects import silence_as_zero, subject_scores
from xsite.reports import audit
from xsite.reports.chance import ALPHA, significant_parcels
from xsite.reports.folder import Study
from xsite.reports.markup import Html, interval, join, number, tag
from xsite.reports.verdict import EQUAL_R, Tone, digits_of, label, p_value, rival_of, wide_null
from xsite.spelling import counted

Answer = tuple[Tone, str, str]
"""Tone, question, answer."""
WORKS, PARCELS = "Does it work", "For which parcels?"
UNSEEN = {"site": "an unseen site", "training-sites": "an unseen site"}


def answers(study: Study) -> list[Answer]:
    """Questions with their answers, in the order in which they are asked."""
    rows = [r for r in study.summary["rows"] if r["model"] == study.model and not r["control"]]
    total = next((r for r in study.summary["overall"] if r["model"] == study.model and not r["control"]), None)
    if not rows or total is None or total["r_mean"] is None:
        return []
    found = [_works(study, total), _where(study, rows), _parcels(study), _global_signal(study), _ridge(study)]
    return [one for one in [*found, _sure(study, total)] if one is not None]


def answers_block(study: Study) -> Html:
    """The answers as a list of terms; where one rests on a null of a mean over sites, with the note on that."""
    note = wide_null(study.summary)
    noted = join([" (", note, ")"]) if note else note
    items = []
    for tone, question, words in answers(study):
        told = join([words, noted if question.startswith((WORKS, PARCELS)) else ""])
        items.append(tag("div", join([tag("dt", question), tag("dd", told)]), class_=f"answer {tone}"))
    return tag("dl", join(items), class_="answers") if items else Html("")


def _works(study: Study, total: Mapping[str, Any]) -> Answer:
    unseen = UNSEEN.get(study.unit)
    question = f"{WORKS} at {unseen}?" if unseen else f"{WORKS} on what was held out?"
    n = int(study.summary.get("surrogates") or 0)
    ps = [total.get("p_null"), total.get("p_shift")]
    chance = all(p is not None and p <= ALPHA for p in ps) and n > 0 and total["r_mean"] > 0
    above = total["ci_low"] is not None and total["ci_low"] > 0
    tone: Tone = "good" if chance and above else ("open" if chance or above else "bad")
    head = {"good": "Yes", "open": "Not shown beyond doubt", "bad": "No, or not shown"}[tone]
    if tone == "good" and len(_collapsed(study)) > total["n_sites"] / 2:
        tone, head = "open", "Hardly: there is a correlation, but in squared error it is no better than predicting zero"
    words = (
        f"{head}: mean R {number(total['r_mean'])} over {_sites(total['n_sites'])}; 95 % interval for a site to come "
        f"{interval(total['ci_low'], total['ci_high'])}, for exactly these "
        f"{interval(total.get('here_low'), total.get('here_high'))}"
    )
    if n:
        words += f"; p = {p_value(ps[0], n)} against phase-randomised, {p_value(ps[1], n)} against shifted surrogates"
    if study.scheme == "site-to-site":
        words += "; every model knew one site only, and the figure is the mean over them"
    if not unseen:
        words += f". This study holds out by {study.unit}: it says nothing of an unseen site"
    return tone, question, words + "."


def _collapsed(study: Study) -> list[str]:
    """Sites where the model's predictions hardly move, or have no skill."""
    return list(
        dict.fromkeys(row["site"] for row in study.summary.get("collapsed") or [] if row["model"] == study.model)
    )


def _sites(n: int) -> str:
    return counted(n, "site")


def _where(study: Study, rows: Sequence[Mapping[str, Any]]) -> Answer | None:
    n = int(study.summary.get("surrogates") or 0)
    known = sorted((r for r in rows if r["r_mean"] is not None), key=lambda r: -r["r_mean"])
    if not n or not known:
        return None
    good = [r for r in known if max(r["p_null"], r.get("p_shift") or r["p_null"]) <= ALPHA and r["r_mean"] > 0]
    each = ", ".join(f"{r['site']} {number(r['r_mean'])} (p {p_value(r['p_null'], n)})" for r in known)
    missed = len(rows) - len(good)
    tone: Tone = "good" if not missed else ("open" if good else "bad")
    words = f"Better than chance at {len(good)} of {_sites(len(rows))}, under both nulls, each site by itself: {each}"
    return tone, "Where?", words + "."


def _parcels(study: Study) -> Answer | None:
    rows, column = significant_parcels(study)
    if not rows:
        return None
    good = sorted(
        (r for r in rows if (r[column] or 1.0) <= ALPHA and (r["r_mean"] or 0) > 0), key=lambda r: -r["r_mean"]
    )
    tone: Tone = "good" if len(good) == len(rows) else ("open" if good else "bad")
    how = "Holm-corrected" if column == "p_holm" else "corrected by the maximum over parcels"
    words = f"Better than chance in {len(good)} of {len(rows)} ({how}, family-wise 5 %)"
    if good:
        words += "; best " + ", ".join(f"{r['parcel']} {number(r['r_mean'])}" for r in good[:3])
    lost = [r["parcel"] for r in rows if r not in good]
    if lost and len(lost) <= 4:
        words += f"; not shown for {', '.join(lost)}"
    return tone, PARCELS, words + "."


def _global_signal(study: Study) -> Answer:
    question = "Beyond the global signal?"
    subjects = silence_as_zero(subject_scores(study.scores))
    own = subjects[(subjects["model"] == study.model) & ~subjects["control"].astype(bool)]
    means = own.groupby("site")["r_partial"].mean().dropna()
    if means.empty:
        return "open", question, "Not known: no site of this study gives a measured global signal."
    mean, low, high = t_interval(means.tolist())
    tone: Tone = "bad" if mean <= 0 else ("good" if low > 0 else "open")
    words = (
        f"Partial R {number(mean)} {interval(low, high)} once each recording's own measured global signal is known, "
        f"above 0 at {int((means > 0).sum())} of {_sites(len(means))}"
    )
    oracle = next((r for r in study.summary["overall"] if r["model"] == GLOBAL_SIGNAL and not r["control"]), None)
    if oracle is not None and oracle["r_mean"] is not None:
        words += f"; the measured global signal alone would score R {number(oracle['r_mean'])}"
    return tone, question, words + "."


def _ridge(study: Study) -> Answer | None:
    rival = rival_of(study.model, study.summary)
    if rival is None:
        return "open", "Beyond ridge?", "Not known: no baseline with a defined R was run."
    pairs = [p for p in study.summary["comparison"] if p["a"] == study.model and p["b"] == rival]
    total = next((p for p in pairs if p["site"] == "all"), None)
    if total is None:
        return "open", f"Beyond {label(rival)}?", f"It was not compared with {label(rival)}."
    sites = [p for p in pairs if p["site"] != "all"]
    ahead = sum(p["difference"] > 0 for p in sites)
    clear, digits = total["ci_low"] is not None and total["ci_low"] > 0, digits_of(total["difference"])
    tone: Tone = "good" if clear else ("open" if total["difference"] > EQUAL_R else "bad")
    head = {"good": "Yes", "open": "Ahead, not clearly", "bad": "No"}[tone]
    words = (
        f"{head}: {number(total['difference'], digits, sign=True)} R "
        f"{interval(total['ci_low'], total['ci_high'], digits, sign=True)}, ahead at {ahead} of {_sites(len(sites))}"
    )
    if (flip := total.get("p_flip")) is not None and len(sites) > 1:
        words += f"; sign-flip p = {flip:.3g} over sites" + (
            f" (no smaller than {2 / 2 ** len(sites):.3g} with so few)" if len(sites) < 6 else ""
        )
    return tone, f"Beyond {label(rival).lower()}?", words + "."


def _sure(study: Study, total: Mapping[str, Any]) -> Answer:
    n_seeds = len(study.experiment.get("seeds") or [0])
    words = (
        f"{_sites(total['n_sites'])}, {counted(total['n_subjects'], 'subject')}, "
        f"{counted(n_seeds, 'training seed')}; selected by {study.summary['selection']}; "
        f"access to the test site: {study.summary['test_site_access']}"
    )
    doubts = []
    if total.get("few_sites"):
        doubts.append("few sites, read every site on its own")
    tone: Tone = "open" if doubts else "good"
    passed = audit.passed(study)
    if passed is None:
        doubts.append("no leakage audit was recorded")
        tone = "open"
    elif not passed:
        doubts.append("the leakage audit FAILED")
        tone = "bad"
    else:
        words += "; leakage audit passed"
    if study.summary["selection"] == "oracle":
        doubts.append("the test sites themselves selected")
        tone = "bad"
    if collapsed := _collapsed(study):
        doubts.append(f"collapsed at {', '.join(collapsed)}")
        tone = "bad"
    return tone, "How sure are we?", words + ("; but " + "; ".join(doubts) if doubts else "") + "."
