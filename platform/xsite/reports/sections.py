"""The parts of a study's page that speak in words and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from xsite.evaluation.collapse import GLOBAL_SIGNAL, UNTRAINED
from xsite.evaluation.scoring import ORACLE
from xsite.evaluation.selection import RULES
from xsite.evaluation.subjects import subject_scores
from xsite.reports import figures, verdict
from xsite.reports.answers import answers_block
from xsite.reports.chance import ALPHA
from xsite.reports.folder import Study
from xsite.reports.markup import Html, figure, inline_svg, interval, join, number, table, tag
from xsite.reports.parcel_table import parcel_table
from xsite.reports.verdict import label, rival_of
from xsite.spelling import counted


def basis(study: Study, n: str, level: str = "") -> str:
    """What every table rests on: n, unit, who selected, what its models knew of the test site."""
    return (
        f"n: {n}. Unit: Pearson R (no unit) over a whole recording, mean over parcels, then over a subject's "
        f"recordings, then over subjects. Selection rule: {study.summary['selection']}. Access to the test site: "
        f"{level or study.summary['test_site_access']}."
    )


def counts(study: Study) -> str:
    """Subjects and recordings behind the page."""
    own = study.scores[(study.scores["model"] == study.model) & ~study.scores["control"].astype(bool)]
    n_recordings = len(own.drop_duplicates(["site", "subject", "session", "task", "run"]))
    n_subjects = len(own.drop_duplicates(["site", "subject"]))
    n_sites = own["site"].nunique()
    numbers = counted(n_subjects, "subject"), counted(n_recordings, "recording"), counted(n_sites, "held-out site")
    return ", ".join(numbers)


def top(study: Study) -> Html:
    """Verdict in words, key figures, findings."""
    tone, title, detail = verdict.headline(study.summary, study.model)
    name = study.experiment.get("name", "study")
    items = [tag("li", sentence, class_=mark) for mark, sentence in verdict.findings(study.summary, study.model)]
    content = [
        tag("p", f"Study {name} · {study.scheme} · {counts(study)}", class_="kicker"),
        tag("h1", title, class_=tone),
        tag("p", detail, class_="lead"),
        answers_block(study),
        tag("div", join(_tiles(study)), class_="tiles"),
        tag("ul", join(items), class_="findings"),
    ]
    return tag("header", join(content))


def _tiles(study: Study) -> list[Html]:
    """The model, whom it must beat, and the two bounds that know the measured BOLD."""
    order = {study.model: 0, rival_of(study.model, study.summary): 1, GLOBAL_SIGNAL: 2, ORACLE: 3}
    rows = [r for r in study.summary["overall"] if not r["control"] and r["r_mean"] is not None and r["model"] in order]
    found = [
        (f"{number(r['r_mean'])}", f"{label(r['model'])}, mean R of {counted(r['n_sites'], 'site')}{_next_site(r)}")
        for r in sorted(rows, key=lambda r: order[r["model"]])
    ]
    means = {r["model"]: r["r_mean"] for r in rows}
    if means.get(ORACLE) and study.model in means:
        found.append((f"{100 * means[study.model] / means[ORACLE]:.0f} %", "of the oracle's R"))
    return [tag("div", join([tag("b", big), tag("span", small)]), class_="tile") for big, small in found]


def _next_site(row: Mapping[str, Any]) -> str:
    bounds = interval(row["ci_low"], row["ci_high"])
    return "" if bounds == "–" else f", 95 % {bounds}"


def site_section(study: Study) -> Html:
    """Chart and table of every model at every held-out site."""
    intervals = pd.DataFrame(study.summary["intervals"]).convert_dtypes().infer_objects()
    columns = ["r_mean", "ci_low", "ci_high", "null_low", "null_high"]
    intervals[columns] = intervals[columns].astype(float)
    oracle = {row["site"]: row["oracle_r_mean"] for row in study.summary["rows"]}
    chart = figures.site_scores(intervals, subject_scores(study.scores), oracle)
    picture = figure(
        inline_svg(chart, name="sites", label="Mean R per held-out site and model"),
        "Large dot: mean over subjects with its 95 % t-interval. Small dots: subjects. Grey bar: 95 % band of the "
        "surrogates. Ring: control trained on the BOLD of other subjects. A constant prediction has no R and no dot. "
        + basis(study, counts(study)),
    )
    return join([picture, *(_site_table(study, level) for level in levels(study)), _comparison_table(study)])


def levels(study: Study) -> list[str]:
    """Levels of access of the page's models, the study's own first: figures of two levels never share a table.

    Models that read no EEG at all (zero, mean, the oracles) have no level of their own and stand in every table.
    """
    own = str(study.summary["test_site_access"])
    rows = [row for row in study.summary["rows"] if row["model"] not in UNTRAINED]
    return list(dict.fromkeys([own, *(str(row.get("access", own)) for row in rows)]))


def _site_table(study: Study, level: str) -> Html:
    n = int(study.summary["surrogates"])
    header = ["Site", "Model", "Subjects", "Volumes", "Mean\u00a0R", "95 % interval", "Partial\u00a0R", "p"]
    header += ["Oracle\u00a0R", "%\u00a0of oracle", "MSE", "Skill,\u00a0%"]
    caption = (
        f"Intervals are t-based over subjects; fewer than five subjects make them wide. Partial R: without what "
        f"the measured global signal explains. p is (k+1)/(n+1) over {n:,} phase-randomised surrogates of the measured "
        f"BOLD. Skill: reduction of MSE against predicting zero. {basis(study, counts(study), level)}"
    )
    shown = table(header, _site_rows(study, n, level), caption=caption, kind="models")
    return shown if len(levels(study)) == 1 else join([tag("h3", f"Access to the test site: {level}"), shown])


def _site_rows(study: Study, n: int, level: str) -> list[list[Any]]:
    bounds = {(i["site"], i["model"], i["control"]): i for i in study.summary["intervals"]}
    partial = subject_scores(study.scores).groupby(["site", "model", "control"])["r_partial"].mean()
    zero = {r["site"]: r["mse_mean"] for r in study.summary["rows"] if r["model"] == "zero" and not r["control"]}
    rows: list[list[Any]] = []
    for row in study.summary["rows"]:
        if row["model"] not in UNTRAINED and row.get("access", level) != level:
            continue
        place = row["site"], row["model"], row["control"]
        oracle, skill = row["oracle_r_mean"], None
        if zero.get(row["site"]):
            skill = 100 * (1 - row["mse_mean"] / zero[row["site"]])
        share = 100 * row["r_mean"] / oracle if oracle and row["r_mean"] is not None else None
        cells = [_model_name(row["model"], row["control"]), row["n_subjects"], row["n_volumes"]]
        cells += [number(row["r_mean"], 3), interval(bounds[place]["ci_low"], bounds[place]["ci_high"], 3)]
        cells += [number(partial.get(place), 3), verdict.p_value(row["p_null"], n)]
        cells += [number(oracle, 3), number(share, 0), number(row["mse_mean"], 3), number(skill, 0)]
        rows.append([row["site"], *cells])
    return rows


def _model_name(model: str, control: bool) -> Html:
    paint = figures.colour(model, control=control)
    kind = "dot ring" if control else "dot"
    dot = tag("span", class_=kind, style=f"background:{paint};border-color:{paint}")
    return tag("td", join([dot, label(model) + (" (control)" if control else "")]), style="text-align:left")


def _comparison_table(study: Study) -> Html:
    pairs = study.summary["comparison"]
    if not pairs:
        return tag("p", "No baseline with a defined R to compare with.")
    caption = "Paired by subject; over all sites the unit is the site, and p flips the signs of its differences (no "
    caption += f"smaller than 2 / 2^n). {basis(study, counts(study))}"
    header = ["Held-out site", f"{label(study.model)} minus", "n", "Difference of R", "95 % interval", "p, sign flips"]
    header += ["Access"]
    whole = table(header, [_pair(p) for p in pairs if p["site"] == "all"], caption=caption)
    each = table(
        header, [_pair(p) for p in pairs if p["site"] != "all"], caption="Within a site the unit is the subject."
    )
    folded = tag("details", join([tag("summary", "Site by site"), each]))
    heading = tag("h3", f"{label(study.model)} against the other models")
    return join([heading, whole, folded, _paired_parcels(study)])


def _paired_parcels(study: Study) -> Html:
    """In how many parcels one model is better than another, folded; every parcel is among the tables to take away."""
    pairs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in study.summary.get("paired_parcels") or []:
        pairs.setdefault((row["a"], row["b"]), []).append(row)
    if not pairs:
        return Html("")
    body = []
    for (a, b), rows in pairs.items():
        total, own = rows[0], [row for row in rows[1:] if row["p_holm"] is not None]
        differ = [row for row in own if row["p_holm"] <= ALPHA]
        ahead, behind = (sum(sign * row["difference"] > 0 for row in differ) for sign in (1, -1))
        cells = [f"{total['n']} {total['unit']}", number(total["difference"], 3, sign=True), number(total["p"], 3)]
        body.append([f"{label(a)} − {label(b)}", *cells, f"{ahead} of {len(own)}", behind, total["access"]])
    head = ["Pair", "n", "Difference of R", "p", "Parcels better", "Parcels worse", "Access"]
    caption = (
        f"Paired by subject, signs flipped (no p below 2 / 2^n): about these sites, not the next. A parcel counts "
        f"below {ALPHA:g} after Holm's correction over its pair's parcels; pairs are not corrected for each other."
        f" Selection rule: {study.summary['selection']}. Every parcel: table paired_parcels at the end of the page."
    )
    return tag("details", join([tag("summary", "Parcel by parcel"), table(head, body, caption=caption)]))


def _pair(pair: Mapping[str, Any]) -> list[Any]:
    few = " (few)" if pair["few"] else ""
    site = "All sites" if pair["site"] == "all" else pair["site"]
    cells = [label(pair["b"]), f"{pair['n']} {pair['unit']}{few}", number(pair["difference"], 3, sign=True)]
    cells += [interval(pair["ci_low"], pair["ci_high"], 3, sign=True), number(pair.get("p_flip"), 3)]
    return [site, *cells, pair.get("access", "–")]


def parcel_section(study: Study) -> Html:
    """Site x parcel tables, one open, the other models folded away."""
    caption = (
        "Cell: mean R over subjects; the strip below shows every subject (hover for the value), the line marks 0. "
        "Colour follows the mean. A parcel predicted constantly counts as 0. "
    )
    parts = [parcel_table(study.scores, study.model, study.parcels, caption + basis(study, counts(study)))]
    for model in dict.fromkeys(study.scores["model"]):
        own = study.scores[(study.scores["model"] == model) & ~study.scores["control"].astype(bool)]
        if model != study.model and own["r"].notna().any():
            other = parcel_table(study.scores, model, study.parcels, caption + basis(study, counts(study)))
            parts.append(tag("details", join([tag("summary", f"The same for {label(model)}"), other])))
    return join(parts)


def method_section(study: Study) -> Html:
    """Folds, how to read the figures, experiment, versions."""
    folds = []
    for fold in study.folds:
        sizes = [_size(fold.get(side, [])) for side in ("train", "val", "test")]
        folds.append([fold["held_out"], *sizes, tag("code", fold.get("fingerprint", "–"))])
    header = ["Held-out site", "Train", "Select", "Test", "Fold hash"]
    rule, seeds = study.summary["selection"], study.experiment.get("seeds") or [study.summary["seed"]]
    caption = (
        f"Selection rule: {rule}: {RULES[rule]}. Training seeds: {', '.join(map(str, seeds))}. No model learns "
        "from the validation recordings: trained models stop, and ridge chooses its strength, by them."
    )
    versions = [[name, value] for name, value in sorted(study.versions.items())]
    return join(
        [
            table(header, folds, caption=caption),
            tag("h3", "Experiment"),
            tag("pre", study.experiment_yaml.strip()),
            tag("h3", "Versions"),
            table(["Package", "Version"], versions, caption="As found where the study ran.", kind="words")
            if versions
            else tag("p", "Not recorded."),
        ]
    )


def _size(keys: list[Any]) -> str:
    subjects = {tuple(key[:2]) if isinstance(key, list) else str(key) for key in keys}
    return f"{counted(len(subjects), 'subject')}, {counted(len(keys), 'recording')}"
