"""What the study's page says: its figures are those of the tables, and what was not measured is not on it."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_report import HABITS, Reader, make_study

from xsite.evaluation.calibration import calibration_curve
from xsite.evaluation.collapse import by_model
from xsite.evaluation.folds import ENTITIES
from xsite.evaluation.json_values import json_safe
from xsite.evaluation.null_view import null_histograms
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.subjects import subject_scores
from xsite.evaluation.surrogates import Nulls
from xsite.evaluation.tables import study_summary
from xsite.reports import audit, chance, downloads, known_sites, methods, transfer
from xsite.reports import sections as study_sections
from xsite.reports.answers import answers, answers_block
from xsite.reports.folder import load_study
from xsite.reports.markup import interval, number
from xsite.reports.references import ALGORITHMS, LIBRARIES, STATISTICS, algorithm_reference
from xsite.reports.study import SECTIONS, render, write_report
from xsite.reports.verdict import findings, p_value, rival_of
from xsite.runtime.held_out import known_scores

SITES = list(HABITS)
CARD = {
    "name": "NeuroBOLT",
    "paper": "Li et al., 50 % & more, NeurIPS 2024 (arXiv 2410.05341)",
    "year": 2024,
    "differs": [],
}


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("parts") / "study"


@pytest.fixture
def folder(once, tmp_path, make_recording, rng):
    """A fresh copy of one study without coordinates, whose page is quick to draw."""
    if not once.exists():
        make_study(once, make_recording, rng, n_parcels=3, n_volumes=70)
        (once / "parcels.json").unlink()
        (once / "montages.json").unlink()
    return Path(shutil.copytree(once, tmp_path / "study"))


@pytest.fixture
def study(folder):
    return load_study(folder)


def words(content):
    return Reader(content).text


def own(rows, **wanted):
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def asked(study):
    """Question to (tone, answer)."""
    return {question: (tone, answer) for tone, question, answer in answers(study)}


def test_first_lines_answer_with_the_figures_of_the_tables(study):
    found = asked(study)
    total = own(study.summary["overall"], model="neurobolt", control=False)[0]
    _, works = found["Does it work at an unseen site?"]
    for figure in (number(total["r_mean"]), interval(total["ci_low"], total["ci_high"]), p_value(total["p_null"], 99)):
        assert figure in works
    assert interval(total["here_low"], total["here_high"]) in works
    assert p_value(total["p_shift"], 99) in works
    rows = own(study.summary["rows"], model="neurobolt", control=False)
    for row in rows:
        assert f"{row['site']} {number(row['r_mean'])} (p {p_value(row['p_null'], 99)})" in found["Where?"][1]
    better = sum(max(row["p_null"], row["p_shift"]) <= 0.05 for row in rows)
    assert f"at {better} of 3 sites" in found["Where?"][1]
    subjects = subject_scores(study.scores)
    mine = subjects[(subjects["model"] == "neurobolt") & ~subjects["control"]]
    partial = float(mine.groupby("site")["r_partial"].mean().mean())
    assert f"Partial R {number(partial)} [" in found["Beyond the global signal?"][1]
    pair = own(study.summary["comparison"], b="ridge", site="all")[0]
    tone, ridge = found["Beyond ridge?"]
    assert (tone, ridge.startswith("No: ")) == ("bad", True)
    assert interval(pair["ci_low"], pair["ci_high"], sign=True) in ridge
    assert "no smaller than 0.25 with so few" in ridge  # three sites: 2 / 2 ** 3
    tone, sure = found["How sure are we?"]
    assert tone == "bad"
    assert "collapsed at north" in sure  # noise beside the truth: it correlates, and is no better than zero
    assert "3 sites, 9 subjects, 1 training seed;" in sure
    assert "few sites" in sure
    assert "no leakage audit was recorded" in sure


def test_answers_turn_with_what_is_found(study):
    swapped = study_summary(study.scores, study.predictions, model="ridge", rivals=("neurobolt",), surrogates=99)
    found = asked(replace(study, summary=swapped))
    assert found["Beyond neurobolt?"][0] == "good"
    control = study.scores[study.scores["control"]].assign(control=False)  # noise under the model's name
    others = study.scores[~study.scores["control"] & (study.scores["model"] != "neurobolt")]
    noise = [replace(p, control=False) for p in study.predictions if p.control]
    predictions = noise + [p for p in study.predictions if not p.control and p.model != "neurobolt"]
    scores = pd.concat([control, others], ignore_index=True)
    bad = study_summary(scores, predictions, model="neurobolt", rivals=("ridge",), surrogates=99)
    found = asked(replace(study, summary=bad, scores=scores))
    assert found["Does it work at an unseen site?"][0] == "bad"
    assert found["Does it work at an unseen site?"][1].startswith("No, or not shown: ")
    assert found["For which parcels?"] == (
        "bad", "Better than chance in 0 of 3 (Holm-corrected, family-wise 5 %); not shown for "
        "parcel 0 <L>, parcel 1 <R>, parcel 2 <L>.",
    )  # fmt: skip
    assert asked(replace(study, scores=study.scores.assign(r_partial=np.nan)))["Beyond the global signal?"] == (
        "open", "Not known: no site of this study gives a measured global signal.",
    )  # fmt: skip


def test_a_correlation_without_skill_at_most_sites_is_no_plain_yes(study):
    sure = [{**row, "p_null": 0.01, "p_shift": 0.01, "ci_low": 0.05} for row in study.summary["overall"]]
    for n, tone, head in ((1, "good", "Yes: "), (2, "open", "Hardly: ")):
        collapsed = [{"model": "neurobolt", "site": site} for site in SITES[:n]]
        summary = {**study.summary, "overall": sure, "collapsed": collapsed}
        found = asked(replace(study, summary=summary))["Does it work at an unseen site?"]
        assert found[0] == tone
        assert found[1].startswith(head)


def test_study_of_subjects_claims_nothing_about_sites(study):
    folds = [{**fold, "unit": "subject"} for fold in study.folds]
    found = asked(replace(study, folds=folds))
    assert "it says nothing of an unseen site" in found["Does it work on what was held out?"][1]
    assert "Does it work at an unseen site?" not in found


def test_no_section_is_empty_and_none_tells_of_what_is_absent(folder):
    for name in ("versions.json", "histories.parquet"):
        (folder / name).unlink()
    page = write_report(folder).read_text(encoding="utf-8")
    sections = dict(re.findall(r'<section id="([^"]+)">(.*?)</section>', page, flags=re.DOTALL))
    assert not {"gap", "matrix", "growing", "calibration", "leakage"} & set(sections)
    titles = {anchor: title for anchor, _, title, _ in SECTIONS}
    for anchor, content in sections.items():
        assert len(words(content)) > len(titles[anchor]) + 20
    links = re.findall(r"<nav.*?</nav>", page, flags=re.DOTALL)[0]
    assert re.findall(r'href="#([^"]+)"', links) == list(sections)
    text = words(page)
    assert not re.search(r"\bnan\b|\bNone\b|\bNaN\b", text)
    assert "Calibration" not in links


def test_forest_has_every_site_with_its_interval_and_both_overall(study):
    page = render(study)
    section = words(re.search(r'<section id="forest">(.*?)</section>', page, flags=re.DOTALL)[1])
    total = own(study.summary["overall"], model="neurobolt", control=False)[0]
    for row in own(study.summary["intervals"], model="neurobolt", control=False):
        assert f"{number(row['r_mean'])} {interval(row['ci_low'], row['ci_high'])}" in section
        assert f"{row['site']} n 3" in section
    assert f"A site to come may expect R {number(total['r_mean'])}" in section
    assert f"{number(total['r_mean'])} {interval(total['here_low'], total['here_high'])}" in section
    assert "Few sites: 3" in section
    assert "Fewer than five subjects at" in section


def test_null_histograms_hold_every_surrogate_and_agree_with_p(study):
    summary = study.summary
    found = summary["nulls"]
    assert {h["site"] for h in own(found, model="neurobolt", control=False)} == {"all", *SITES}
    ps = {r["site"]: r for r in own(summary["rows"], model="neurobolt", control=False)}
    ps["all"] = own(summary["overall"], model="neurobolt", control=False)[0]
    for one in own(found, model="neurobolt", control=False):
        assert sum(one["counts"]) == one["n"]
        assert one["observed"] == ps[one["site"]]["r_mean"]
        name = {"phase": "p_null", "shift": "p_shift"}[one["kind"]]
        edges = np.linspace(one["low"], one["high"], len(one["counts"]) + 1)
        inside = np.array(one["counts"])
        least, most = inside[edges[:-1] >= one["observed"]].sum(), inside[edges[1:] >= one["observed"]].sum()
        assert least <= ps[one["site"]][name] * (one["n"] + 1) - 1 <= most
    assert "zero" not in {h["model"] for h in found}  # a constant prediction has no distribution
    quiet = null_histograms([{"site": "a", "model": "m", "control": False, "r_mean": None}], [], {"phase": Nulls()})
    assert quiet == []
    section = words(chance.null_section(study))
    assert f"p = {p_value(ps['all']['p_null'], 99)} (phase-randomised)" in section


def test_parcels_say_which_correction_they_stand_on(study):
    rows, column = chance.significant_parcels(study)
    assert (len(rows), column) == (3, "p_holm")
    section = words(chance.parcel_section(study))
    for row in rows:
        for name in ("p_null", "p_holm", "p_max"):
            assert p_value(row[name], 99) in section
        assert number(row["r_partial_mean"], 3) in section
    few = {**study.summary, "surrogates": 19}
    few["parcels"] = [{**row, "p_floor": 3 / 20} for row in study.summary["parcels"]]
    section = words(chance.parcel_section(replace(study, summary=few)))
    assert "Holm's correction could not reach 5 % with 19 surrogates" in section
    assert not chance.parcel_section(replace(study, summary={**few, "surrogates": 0}))


def test_gap_shows_what_id_ood_holds(study):
    inside = study.scores.assign(r=study.scores["r"] + 0.1, held_out="elsewhere")
    summary = study_summary(
        study.scores, study.predictions, model="neurobolt", rivals=("ridge",), surrogates=0, id_scores=inside
    )
    told = words(known_sites.gap_section(replace(study, summary=summary)))
    row = own(summary["id_ood"], model="neurobolt")[0]
    assert row["gap"] == pytest.approx(0.1)
    for figure in (number(row["id"]), number(row["ood"]), f"{row['worst_site']} ({number(row['worst'])})"):
        assert figure in told
    assert "a gap of +0.10" in told
    assert "filled: all subjects of the site when it was held out (OOD)" in told
    recipe = {**study.experiment, "folds": {"scheme": "site-to-site"}}
    crossed = words(known_sites.gap_section(replace(study, summary=summary, experiment=recipe)))
    assert "filled: all subjects of the site by the models of the other sites, their mean (OOD)" in crossed


def test_ranks_name_the_best_and_whom_it_shares_a_group_with(study):
    told = words(known_sites.rank_section(study))
    ranks = study.summary["ranks"]
    best = min(ranks["ranks"], key=ranks["ranks"].get)
    assert best == "ridge"
    assert f"Ridge ranks first ({number(ranks['ranks']['ridge'])}" in told
    for pair in ranks["pairs"]:
        assert number(pair["difference"], 3, sign=True) in told
    assert not known_sites.rank_section(replace(study, summary={**study.summary, "ranks": None}))


def by_fold(study, folds):
    """Scores of folds over training sites: what each fold's test side scored, a little worse with fewer sites."""
    tables = []
    for fold in folds:
        tested = {tuple(key) for key in fold["test"]}
        keys = study.scores[list(ENTITIES)].fillna("").apply(tuple, axis=1)
        table = study.scores[keys.isin(tested)].copy()
        n = len({key[0] for key in fold["train"]})
        table["r"] -= 0.2 / n
        tables.append(table.assign(fold=fold["held_out"], n_train_sites=n))
    return pd.concat(tables, ignore_index=True)


def keys_of(study, sites):
    rows = study.scores[study.scores["site"].isin(sites)][list(ENTITIES)].fillna("").drop_duplicates()
    return rows.to_numpy().tolist()


def fold(study, label, train, test):
    sides = {"train": keys_of(study, train), "val": keys_of(study, train[:1]), "test": keys_of(study, test)}
    return {"held_out": label, "unit": "training-sites", "fingerprint": "0", **sides}


def test_matrix_cells_are_the_means_of_their_folds(study):
    folds = [fold(study, f"all-but-{site}", [site], [s for s in SITES if s != site]) for site in SITES]
    recipe = {**study.experiment, "folds": {"scheme": "site-to-site"}}
    table = by_fold(study, folds)
    matrix = replace(study, folds=folds, experiment=recipe, tables={"scores_by_fold": table})
    means = transfer.fold_means(matrix)
    mine = means[means["model"] == "neurobolt"]
    assert set(zip(mine["train"], mine["site"], strict=True)) == set(itertools.permutations(SITES, 2))
    section = transfer.matrix_section(matrix)
    rows = {
        re.sub(r"<.*?>", "", head): body for head, body in re.findall(r"<tr><th[^>]*>(.*?)</th>(.*?)</tr>", section)
    }
    for train in SITES:
        cells = re.findall(r"<td[^>]*>(.*?)</td>", rows[train])
        for cell, site in zip(cells, sorted(SITES), strict=False):
            expected = mine[(mine["train"] == train) & (mine["site"] == site)]["r"]
            assert cell == (number(float(expected.iloc[0])) if len(expected) else "–")
    assert "was not scored" in words(section)
    truth = subject_scores(table[table["fold"] == "all-but-west"].drop(columns="fold"))
    truth = truth[(truth["model"] == "neurobolt") & ~truth["control"] & (truth["site"] == "north")]["r"].mean()
    assert number(float(truth)) in rows["west"]
    assert not transfer.growing_section(matrix)
    assert not transfer.matrix_section(study)


def test_the_diagonal_is_the_known_site_and_in_no_mean(study):
    folds = [fold(study, f"all-but-{site}", [site], [s for s in SITES if s != site]) for site in SITES]
    recipe = {**study.experiment, "folds": {"scheme": "site-to-site"}}
    own_site = study.scores[study.scores["site"] == "west"].assign(held_out="all-but-west", r=0.625)
    two = own_site[own_site["subject"].isin(sorted(own_site["subject"].unique())[:2])]
    elsewhere = two.assign(held_out="all-but-north")  # a validation subject of another site's fold says nothing here
    known = pd.concat([two, elsewhere.assign(r=0.1)], ignore_index=True)
    tables = {"scores_by_fold": by_fold(study, folds), "id_scores": known}
    with_home = replace(study, folds=folds, experiment=recipe, tables=tables)
    section = transfer.matrix_section(with_home)
    assert re.findall(r'<td class="known">(.*?)</td>', section) == [f"({number(0.625)}; 2)"]
    assert "slightly too good" in words(section)
    without = transfer.matrix_section(replace(with_home, tables={"scores_by_fold": tables["scores_by_fold"]}))
    means = re.compile(r"<tr><th[^>]*><b>Mean</b>.*?</tr>")
    assert means.findall(section) == means.findall(without)


def test_learning_curve_over_sites_is_paired(study):
    folds = []
    for site in SITES:
        others = [s for s in SITES if s != site]
        folds += [fold(study, f"{site}_from-{n}", others[:n], [site]) for n in (1, 2)]
    recipe = {**study.experiment, "folds": {"scheme": "growing-sites"}}
    growing = replace(study, folds=folds, experiment=recipe, tables={"scores_by_fold": by_fold(study, folds)})
    told = words(transfer.growing_section(growing))
    assert "a gain of +0.10 [+0.10, +0.10] over the same test sites" in told  # 0.2 / 1 against 0.2 / 2, everywhere
    means = transfer.fold_means(growing)
    last = means[(means["model"] == "neurobolt") & (means["n_train_sites"] == 2)]["r"].mean()
    assert f"with 2 sites {number(float(last))}" in told
    assert not transfer.matrix_section(growing)


CALIBRATED = (  # variant, held_out, draw, k, part, site, subject, r
    ("m", "west", 0, 0, "none", "west", "1", 0.1),
    ("m", "west", 0, 1, "head", "west", "1", 0.2),
    ("m", "west", 1, 0, "none", "west", "1", 0.1),
    ("m", "west", 1, 1, "head", "west", "1", 0.4),
    ("m", "west", 0, 0, "none", "west", "2", 0.2),
    ("m", "west", 0, 1, "head", "west", "2", 0.5),
    ("m", "north", 0, 0, "none", "north", "1", 0.3),
    ("m", "north", 0, 1, "head", "north", "1", 0.6),
    ("m", "north", 0, 1, "all", "north", "1", 0.35),
    ("other", "north", 0, 0, "none", "north", "1", -0.5),
    ("other", "north", 0, 1, "head", "north", "1", -0.25),
)


def calibrated():
    """A table as calibration writes it: both ``site`` and ``held_out``, and k = 0 of the part ``none``."""
    names = ["variant", "held_out", "draw", "k", "part", "site", "subject", "r"]
    table = pd.DataFrame(CALIBRATED, columns=names)
    access = table["k"].map({0: "none", 1: "1 labelled subjects"})
    return table.assign(r_partial=0.0, mse=1.0, r2=0.0, n_volumes=9, seed=0, best_epoch=3, calibrated_on="[]",
                        access=access, run="0")  # fmt: skip


def test_draws_of_two_calls_that_share_a_number_count_once_each():
    names = ["draw", "k", "part", "subject", "r"]
    rows = [(0, 0, "none", "01", 0.1), (0, 1, "head", "01", 0.3), (0, 0, "none", "01", 0.1), (1, 1, "head", "01", 0.5)]
    rows += [(1, 0, "none", "01", 0.1)]
    table = pd.DataFrame(rows, columns=names).assign(variant="m", held_out="a", site="a")
    means = transfer.calibration_means(table).set_index("k")
    assert means.loc[1, ["r", "gain"]].tolist() == pytest.approx([0.4, 0.3])


def test_calibration_is_averaged_over_draws_then_subjects_then_folds(study):
    means = transfer.calibration_means(calibrated()).set_index(["variant", "part", "held_out", "k"])
    assert means.loc[("m", "head", "west", 1), "r"] == pytest.approx(0.4)
    assert means.loc[("m", "head", "west", 0), "r"] == pytest.approx(0.15)
    assert means.loc[("m", "head", "west", 1), "gain"] == pytest.approx(0.25)
    assert means.loc[("m", "head", "west", 1), "n_subjects"] == 2
    assert means.loc[("m", "all", "north", 0), "r"] == pytest.approx(0.3)
    assert set(means.index.get_level_values("part")) == {"head", "all"}
    curve = calibration_curve(calibrated()).set_index(["variant", "part"])  # what neurobolt calibrate prints
    assert curve.loc[("m", "head"), "r"] == pytest.approx(0.5)
    section = transfer.calibration_section(replace(study, tables={"calibration": calibrated()}))
    told = words(section)
    assert "m, head: 0.23 at k = 0, 0.50 at k = 1, a paired gain of +0.28" in told
    assert "other, head: −0.50 at k = 0, −0.25 at k = 1, a paired gain of +0.25" in told
    assert "every k, 0 too, is scored on the same subjects" in told
    assert "Access to the test site: k labelled subjects (none at k = 0)" in told
    found = downloads.tables(replace(study, tables={**study.tables, "calibration": calibrated()}))
    assert len(found["calibration_subjects"]) == len(CALIBRATED)
    assert len(found["calibration"]) == 8
    only = calibrated().query("variant == 'm' and part != 'all'")
    assert "Fine-tuning m with" in words(transfer.calibration_section(replace(study, tables={"calibration": only})))
    assert not transfer.calibration_section(study)
    assert not transfer.calibration_section(replace(study, tables={"calibration": calibrated().query("k == 0")}))


def test_the_rival_is_a_closed_form(study):
    rows = [
        {"site": "a", "model": name, "control": name == "leaky", "r_mean": r}
        for name, r in (("net", 0.3), ("biot", 0.6), ("selected", 0.6), ("global-signal", 0.7), ("oracle", 0.9),
                        ("mean", 0.05), ("alpha", 0.1), ("leaky", 0.8), ("zero", None))
    ]  # fmt: skip
    summary = {"rows": rows, "trained": ["net", "biot"]}
    assert rival_of("net", summary) == "alpha"
    ridge = {"site": "a", "model": "ridge", "control": False, "r_mean": -0.1}
    assert rival_of("net", {**summary, "rows": [*rows, ridge]}) == "ridge"
    assert rival_of("net", {**summary, "rows": rows[:5]}) is None
    assert study.summary["trained"] == []


def test_an_older_summary_is_told_what_was_trained(folder):
    summary = json.loads((folder / "summary.json").read_text())
    del summary["trained"]
    (folder / "summary.json").write_text(json.dumps(summary))
    assert load_study(folder).summary["trained"] == ["neurobolt"]


def test_parcels_of_two_models_are_compared_in_a_folded_table(study):
    told = words(study_sections._comparison_table(study))
    rows = own(study.summary["paired_parcels"], a="neurobolt", b="ridge")
    worse = sum(row["p_holm"] <= 0.05 for row in rows[1:])
    assert len(rows) == 1 + 3
    assert worse > 0  # ridge was made the better one
    assert f"NeuroBOLT − Ridge 9 subjects {number(rows[0]['difference'], 3, sign=True)}" in told
    assert f"0 of 3 {worse} none" in told
    assert len(downloads.tables(study)["paired_parcels"]) == len(study.summary["paired_parcels"])


def test_captions_name_the_wider_null_and_its_limit(study):
    for content in (chance.null_section(study), chance.parcel_section(study)):
        assert "√2 wider than that of independent folds" in words(content)
        assert "√2 is the bound for linear models" in words(content)
    assert "Nulls of means over sites were widened by √2, the bound for linear models" in methods.paragraph(study)


def test_tables_of_an_earlier_page_are_removed(folder):
    (folder / "tables").mkdir()
    (folder / "tables" / "calibration.csv").write_text("old")
    downloads.write_tables(load_study(folder), folder)
    assert not (folder / "tables" / "calibration.csv").exists()
    assert (folder / "tables" / "scores.csv").exists()


@pytest.mark.parametrize(("verdict", "tone", "said"), [("fail", "bad", "FAILED"), ("pass", "open", "audit passed")])
def test_leakage_verdict_reaches_the_first_lines(study, verdict, tone, said):
    finding = {
        "check": "duplicated recordings",
        "verdict": verdict,
        "compared": "9 recordings",
        "evidence": ["a <b> c"],
    }
    content = {"verdict": verdict, "sentence": "Seven checks.", "findings": [finding]}
    summary = {**study.summary, "collapsed": []}
    found = asked(replace(study, leakage=content, summary=summary))["How sure are we?"]
    assert found[0] == tone
    assert said in found[1]
    section = audit.audit_section(replace(study, leakage=content))
    assert "a &lt;b&gt; c" in section
    assert "Seven checks. " in words(section)
    assert not audit.audit_section(study)


def test_warnings_and_collapsed_models_are_listed_once(study):
    row = {"site": "west", "model": "biot", "seed": 1, "r": 0.151, "r2": -0.002, "variance_ratio": 1e-4, "line": "LINE"}
    summary = {**study.summary, "warnings": ["Collapsed: LINE.", "Mind the gap."], "collapsed": [row]}
    told = words(audit.warning_section(replace(study, summary=summary)))
    assert "2 things to know" in told
    assert "1 model collapsed: the table below" in told
    assert "Mind the gap." in told
    assert "LINE" not in told
    for figure in ("BIOT", "0.151", "−0.002", "1.0e-04"):
        assert figure in told
    assert not audit.warning_section(replace(study, summary={**summary, "warnings": [], "collapsed": []}))
    several = [{**row, "model": name, "variance_ratio": 1.25} for name in ("biot", "labram", "ffcl")]
    section = audit.warning_section(replace(study, summary={**summary, "collapsed": several}))
    assert "2 things to know" in words(section)
    assert section.count("<li") == 2
    assert "1.25" in words(section)


def test_a_model_that_collapsed_everywhere_is_one_line(study):
    one = {"model": "biot", "r": 0.1, "r2": -0.002, "variance_ratio": 1e-4, "line": "LINE"}
    rows = [{**one, "site": site, "seed": seed, "r": 0.1 + seed / 10} for site in SITES for seed in (0, 1)]
    scored = [{"model": "biot", "site": site, "control": False} for site in (*SITES, "east")]
    told = by_model(rows, scored)[0]
    assert told.line == f"biot at 3 of 4 sites ({', '.join(SITES)}): mean R 0.100 to 0.200, R2 -0.002 to -0.002"
    summary = {**study.summary, "warnings": [f"Collapsed: {told.line}."], "collapsed": rows}
    summary["rows"] = [*summary["rows"], *scored]
    section = audit.warning_section(replace(study, summary=summary))
    assert "1 thing to know" in words(section)
    shown, folded = section.split("<details>")
    assert shown.count("BIOT") == 1
    assert "at 3 of 4 sites" in words(shown)
    assert folded.count("BIOT") == len(rows)


def test_every_p_over_sites_leads_to_the_note_on_its_null(study, folder):
    page = write_report(folder).read_text(encoding="utf-8")
    assert page.count('id="wider"') == 1
    items = re.findall(r'<div class="answer .*?</div>', answers_block(study))
    linked = {re.findall(r"<dt>(.*?)</dt>", item)[0] for item in items if 'href="#wider"' in item}
    assert linked == {"Does it work at an unseen site?", "For which parcels?"}  # the others rest on no such null
    (control,) = (words for _, words in findings(study.summary, study.model) if words.startswith("Control, trained"))
    assert 'href="#wider"' in control
    assert page.count('href="#wider"') == 3
    plain = answers_block(replace(study, summary={**study.summary, "nulls": []}))  # an older study draws no null
    assert "href" not in plain
    assert "√2" in plain


def test_every_table_comes_back_from_its_file_and_from_the_page(folder):
    page = write_report(folder, cards={"neurobolt": CARD}).read_text(encoding="utf-8")
    assert json.loads((folder / "cards.json").read_text())["neurobolt"]["year"] == 2024
    scores = pd.read_parquet(folder / "scores.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "tables" / "scores.parquet"), scores)
    entities = dict.fromkeys(["subject", "session", "run"], str)
    back = pd.read_csv(folder / "tables" / "scores.csv", dtype=entities, keep_default_na=True)
    np.testing.assert_allclose(back["r"], scores["r"], rtol=1e-12)
    assert back["parcel"].tolist() == scores["parcel"].tolist()
    summary = json.loads((folder / "summary.json").read_text())
    rows = json_safe(pd.read_parquet(folder / "tables" / "sites.parquet").to_dict("records"))
    assert rows == [{name: row.get(name) for name in rows[0]} for row in summary["rows"]]
    links = dict(re.findall(r'href="(?=data:)([^"]+)" download="([^"]+)"', page))
    assert {"sites.csv", "sites.parquet", "overall.csv", "parcels.parquet", "ranks.csv"} <= set(links.values())
    for address, name in links.items():
        data = base64.b64decode(html.unescape(address).split(",", 1)[1])
        assert data == (folder / "tables" / name).read_bytes()
        content = pd.read_parquet(io.BytesIO(data)) if name.endswith("parquet") else pd.read_csv(io.BytesIO(data))
        assert len(content)
    for address, name in re.findall(r'href="(tables/[^"]+)" download="([^"]+)"', page):
        assert (folder / address).name == name
        assert (folder / address).stat().st_size > downloads.INSIDE
    assert not list((folder / "tables").glob(".*"))


def test_methods_say_what_was_run_and_nothing_else(study):
    study = replace(study, cards={"neurobolt": CARD})
    told = methods.paragraph(study)
    for fact in (
        "BOLD series of 3 parcels", "9 recordings of 9 subjects at 3 sites", "Each site was held out in turn",
        "1 variant was trained with one seed", "model NeuroBOLT (2024), algorithm erm (Vapnik 1998)", "train-site-val",
        "99 phase-randomised (Prichard & Theiler 1994)", "ridge and zero", "numpy", "The oracle is",
        "trained on the BOLD of other",
    ):  # fmt: skip
        assert fact in told
    assert "Sagawa" not in told
    bib = "\n".join(one.bibtex() for one in methods.references(study))
    assert bib.count("{") == bib.count("}")
    keys = re.findall(r"^@\w+\{([^,]+),", bib, flags=re.MULTILINE)
    assert len(keys) == len(set(keys))
    assert {"neurobolt2024", "vapnik1998", "prichard1994", "holm1979", "harris2020"} <= set(keys)
    assert "paszke2019" not in keys  # the study's versions do not name torch
    assert r"50 \% \& more" in bib
    assert "eprint = {2410.05341}" in bib
    assert "http" not in bib
    for one in methods.references(study):  # whatever is in the bibliography is cited, save what only libraries are for
        assert one.short in told


def test_variants_bring_their_algorithm_and_baselines_need_none(study):
    recipe = {**study.experiment, "variants": {"neurobolt": {"algorithm.name": "group-dro"}, "absent": {}}}
    told = methods.paragraph(replace(study, experiment=recipe))
    assert "algorithm group-dro (Sagawa et al. 2020)" in told
    assert "absent" not in told
    only = study.scores[study.scores["model"] != "neurobolt"]
    assert "No model was trained; ridge and zero were fitted" in methods.paragraph(replace(study, scores=only))
    assert algorithm_reference("no such thing") is None
    references = [*STATISTICS.values(), *ALGORITHMS.values(), *LIBRARIES.values()]
    assert len({one.key for one in references}) == len(references)
    assert all(re.fullmatch(r"(19|20)\d\d", one.fields["year"]) and one.fields["title"] for one in references)


def test_known_scores_keep_the_fold_and_are_none_without_validation(study):
    some = [p for p in study.predictions if p.key.site == "west" and not p.control]
    parcels = list(dict.fromkeys(study.scores["parcel"]))
    table = known_scores({"north": some, "south-2": []}, parcels, {})
    assert set(table["held_out"]) == {"north"}
    truth = score_predictions(some, parcels=parcels)
    pd.testing.assert_series_equal(table["r"], truth["r"])
    assert known_scores({"north": []}, parcels, {}) is None
    assert isinstance(some[0], Prediction)


def test_p_values_are_written_with_the_digits_that_surrogates_carry():
    assert [p_value(1 / (n + 1), n) for n in (99, 199, 999, 1000, 2000, 9999)] == [
        "0.01", "0.005", "0.001", "0.001", "0.0005", "0.0001",
    ]  # fmt: skip
