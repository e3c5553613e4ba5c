"""The paragraph that a paper needs, and its bibliography, written from what was run: nothing that was not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xsite.evaluation.scoring import ORACLE
from xsite.evaluation.selection import RULES, SELECTED
from xsite.evaluation.splits import OFFICIAL_SITE
from xsite.reports.folder import Study
from xsite.reports.markup import Html, join, tag
from xsite.reports.references import LIBRARIES, STATISTICS, Reference, algorithm_reference
from xsite.reports.verdict import label

SCHEMES = {
    "leave-one-site-out": "Each site was held out in turn",
    "leave-one-subject-out": "Each subject was held out in turn (their site took part in training)",
    "k-fold": "Subjects were dealt into folds, each held out in turn (their sites took part in training)",
    "official": f"The published split of the {OFFICIAL_SITE} scans was used",
    "within-recording": "Every recording was cut in time into training, validation and test (few effective samples)",
    "site-to-site": "Each site trained alone and was tested on every other site",
    "growing-sites": "Each site was held out and predicted by models of 1, 2, ... other sites",
}


def trained_models(study: Study) -> dict[str, tuple[str, str]]:
    """Label of every trained variant to its model and its algorithm."""
    model, algorithm = (str((study.experiment.get(part) or {}).get("name", "")) for part in ("model", "algorithm"))
    variants = study.experiment.get("variants") or {}
    named = {
        name: (str(own.get("model.name", model)), str(own.get("algorithm.name", algorithm)))
        for name, own in variants.items()
    } or {model: (model, algorithm)}
    scored = set(study.scores["model"])
    return {name: pair for name, pair in named.items() if name in scored}


def _used(study: Study) -> tuple[list[str], list[str]]:
    pairs = trained_models(study).values()
    return list(dict.fromkeys(m for m, _ in pairs)), list(dict.fromkeys(a for _, a in pairs if a))


def references(study: Study) -> list[Reference]:
    """What this study must cite, in the order of the paragraph, each once."""
    models, algorithms = _used(study)
    summary = study.summary
    found: list[Reference | None] = [_card_reference(name, study.cards.get(name)) for name in models]
    found += [algorithm_reference(name) for name in algorithms]
    found.append(STATISTICS["selection"] if models else None)
    if summary.get("surrogates"):
        found += [STATISTICS[name] for name in ("phase", "permutation")]
        found += [STATISTICS[name] for name in ("holm", "maximum")] if summary.get("parcels") else []
    found.append(STATISTICS["welch"])
    found.append(STATISTICS["ranks"] if summary.get("ranks") else None)
    found.append(STATISTICS["effective"] if summary.get("figures") else None)
    found += [LIBRARIES[name] for name in LIBRARIES if study.versions.get(name, "uninstalled") != "uninstalled"]
    return list({one.key: one for one in found if one is not None}.values())


def _card_reference(name: str, card: Mapping[str, Any] | None) -> Reference | None:
    """A model's paper as its card names it, unparsed: authors cannot be told from titles by rule."""
    if not card:
        return None
    paper, year = str(card["paper"]), str(card["year"])
    fields = {"title": f"{{{card['name']}}}", "note": _plain(paper), "year": year}
    if found := re.search(r"arXiv (\d{4}\.\d{4,5})", paper):
        fields |= {"eprint": found[1], "archiveprefix": "arXiv"}
    key = re.sub(r"\W", "", name) + year
    return Reference(key, "misc", f"{card['name']} ({year})", fields)


def _plain(words: str) -> str:
    return words.replace("&", "\\&").replace("%", "\\%").replace("_", "\\_")


def paragraph(study: Study) -> str:
    """Methods in plain sentences, ready for a paper."""
    cited = {one.key: one.short for one in references(study)}
    sentences = [*_data(study), *_training(study, cited), *_scoring(study, cited), *_software(study, cited)]
    return " ".join(sentences)


def _data(study: Study) -> list[str]:
    basis = study.summary.get("basis") or {}
    data = study.experiment.get("data") or {}
    scheme = study.scheme.partition(":")
    held = SCHEMES.get(scheme[0], f"Each value of {scheme[2] or 'a column'} was held out in turn")
    counts = ""
    if basis:
        counts = f" ({basis['n_recordings']} recordings of {basis['n_subjects']} subjects at {basis['n_sites']} sites)"
    n_parcels = study.scores["parcel"].nunique()
    channels = {
        "common": "the EEG channels that all sites share",
        "native": "each recording's own EEG channels, absent ones masked",
        "spline": "EEG channels interpolated onto one montage by spherical splines",
    }.get(str(data.get("channels", "common")), f"EEG channels: {data.get('channels')}")
    reference = data.get("reference", "average")
    referenced = "average-referenced" if reference == "average" else f"referenced to {reference}"
    target = data.get("target", "strict")
    return [
        f"BOLD series of {n_parcels} parcels were predicted from simultaneous EEG{counts}.",
        f"{held}; who stood on which side was fixed before training by the seed {study.summary['seed']}.",
        f"Inputs were {channels}, {referenced}; targets were scaled by the rule “{target}”.",
    ]


def _training(study: Study, cited: Mapping[str, str]) -> list[str]:
    optim = study.experiment.get("optim") or {}
    sentences = []
    for name, (model, algorithm) in trained_models(study).items():
        card = _card_reference(model, study.cards.get(model))
        cites = [card.short if card else label(model)]
        paper = algorithm_reference(algorithm) if algorithm else None
        words = f"{label(name)}: model {cites[0]}, algorithm {algorithm or 'erm'}"
        sentences.append(words + (f" ({paper.short})." if paper else "."))
    if not sentences:
        return [f"No model was trained; {_listed(_baselines(study))} were fitted in closed form."]
    n_seeds = len(study.experiment.get("seeds") or [0])
    seeds = f"with {n_seeds} seeds each, scored one by one and averaged" if n_seeds > 1 else "with one seed"
    rule = study.summary["selection"]
    lead = [f"{len(sentences)} {'variants were' if len(sentences) > 1 else 'variant was'} trained {seeds}."]
    how = (
        f"Training ran for at most {optim.get('epochs')} epochs with batches of {optim.get('batch_size')} windows; "
        f"unless a variant says otherwise the learning rate was {optim.get('lr'):g}."
        if optim.get("epochs") and optim.get("lr")
        else ""
    )
    chosen = (
        f"Checkpoints and variants were chosen by {rule}: {RULES.get(rule, rule)} ({cited.get('gulrajani2021', '')})."
    )
    access = f"Access to the test site before scoring: {study.summary['test_site_access']}."
    others = f"Beside them stood {_listed(_baselines(study))}." if _baselines(study) else ""
    return [one for one in [*lead, *sentences, how, chosen, access, others] if one]


def _baselines(study: Study) -> list[str]:
    trained = {*trained_models(study), SELECTED, ORACLE}
    own = study.scores[~study.scores["control"].astype(bool)]
    return [label(name).lower() for name in dict.fromkeys(own["model"]) if name not in trained]


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names)) or "nothing"


def _scoring(study: Study, cited: Mapping[str, str]) -> list[str]:
    summary = study.summary
    sentences = [
        "Scores are Pearson's R over whole recordings, each volume once, averaged over seeds, parcels, a subject's "
        "recordings, subjects and sites, in this order; partial R takes a recording's own measured global signal out.",
        "Intervals are 95 %: t over subjects within a site, t over site means for a site to come, and Welch's for "
        f"exactly these sites ({cited['welch1947']}).",
    ]
    tied = bool(summary.get("crossed_sites"))
    if n := summary.get("surrogates"):
        sentences.append(
            f"Chance: {n:,} phase-randomised ({cited['prichard1994']}) and {n:,} circularly shifted surrogates of each "
            f"recording's measured BOLD; p = (k + 1) / (n + 1), one-sided ({cited['phipson2010']}). Nulls of means "
            "over sites" + (", and of sites whose subjects stand in several folds," if tied else "") + " were widened "
            "by √2, the bound for linear models whose folds train on one another's test data."
        )
        if "holm1979" in cited:
            sentences.append(
                f"Over parcels, p-values were corrected by Holm's method ({cited['holm1979']}) and by the maximum "
                f"statistic ({cited['westfall1993']})."
            )
    if "demsar2006" in cited:
        sentences.append(f"Models were compared by average ranks and paired sign-flip tests ({cited['demsar2006']}).")
    if ORACLE in set(study.scores["model"]):
        sentences.append("The oracle is the phantom's noise-free BOLD, scored like a model.")
    if any(row["control"] for row in summary["rows"]):
        sentences.append("Controls were trained on the BOLD of other subjects.")
    return sentences


def _software(study: Study, cited: Mapping[str, str]) -> list[str]:
    known = {n: v for n, v in study.versions.items() if v not in ("uninstalled", "unknown")}
    if not known:
        return []
    code = known.get("code_sha")
    parts = []
    for name, value in sorted(known.items()):
        if name not in ("code_sha", "code_version"):
            cite = LIBRARIES.get(name)
            parts.append(f"{name} {value}" + (f" ({cite.short})" if cite and cite.key in cited else ""))
    return [f"Software: {', '.join(parts)}." + (f" Code: commit {code}." if code else "")]


def cite_section(study: Study) -> Html:
    """Paragraph and BibTeX, as text to copy."""
    bibliography = "\n\n".join(one.bibtex() for one in references(study))
    missing = [label(name) for name in _used(study)[0] if name not in study.cards]
    note = f" No card names the paper of {', '.join(missing)}." if missing else ""
    return join(
        [
            tag("p", "Written from this study's files; read it before you print it." + note),
            tag("blockquote", paragraph(study)),
            tag("h3", "BibTeX"),
            tag("pre", bibliography, class_="bib"),
        ]
    )
