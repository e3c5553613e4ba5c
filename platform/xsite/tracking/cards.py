"""The model card: what a person reads in the registry before deploying a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from xsite.experiment import Experiment

MAX_LENGTH = 5000  # MLflow's database column for descriptions

PROCEDURE = (
    "**The scores are the procedure's, not this checkpoint's.** Each site's score was measured on a fold model that"
    " never saw that site. This checkpoint was trained afterwards on all sites, for the median of the folds' best"
    " epochs; it has no held-out site, so no score of its own exists."
)


def model_card(
    experiment: Experiment,
    summary: Mapping[str, Any],
    manifest: pd.DataFrame,
    config: Mapping[str, Any],
    *,
    versions: Mapping[str, str],
    licence: str = "BSD-3-Clause (code); the data keep their sites' licences",
    gate: str = "",
) -> str:
    """Markdown of at most 5000 characters.

    Parameters
    ----------
    experiment : Experiment
    summary : mapping
        Content of the study's ``summary.json``.
    manifest : DataFrame
        The recordings of the study, one row each.
    config : mapping
        ``config.json`` of the checkpoint that the card describes.
    versions : mapping of str to str
        Package versions.
    licence, gate : str
        Licence line; the gate's verdict in words.
    """
    spec = experiment.variant(experiment.deployed).model
    sections = [
        f"# {spec.name} ({spec.preset}): EEG to fMRI parcel series",
        _what(experiment, config),
        f"## Leave-one-site-out scores\n{PROCEDURE}\n\n" + score_table(summary, experiment.deployed),
        f"Gate: {gate}" if gate else "",
        "## Trained on\n" + _sites(manifest),
        "## Input\n" + _input(experiment, config),
        "## Output\n" + _output(config),
        "## Use and limits\nResearch on simultaneous EEG-fMRI. Not a medical device. Expect scores on a new site to"
        " differ as much as the sites above differ from one another; score it there first (`neurobolt evaluate`).",
        f"Licence: {licence}. Versions: " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
    ]
    card = "\n\n".join(section for section in sections if section)
    return (
        card if len(card) <= MAX_LENGTH else card[: MAX_LENGTH - 60] + "\n\n... (whole text: artifact `model_card.md`)"
    )


def score_table(summary: Mapping[str, Any], model: str) -> str:
    """Markdown table: one row per site, the model with its interval beside its rivals and the oracle."""
    rows = summary["rows"]
    names = [model, *sorted({r["model"] for r in rows if not r["control"]} - {model})]
    oracle = any(r["oracle_r_mean"] is not None for r in rows)
    head = ["site", *(f"{name} R" for name in names), *["oracle R"] * oracle, "MSE", "p (null)", "subjects"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    spans = {(i["site"], i["model"], i["control"]): i for i in summary.get("intervals", [])}
    for site in dict.fromkeys(r["site"] for r in rows):
        of = {r["model"]: r for r in rows if r["site"] == site and not r["control"]}
        if model not in of:
            continue
        own = of[model]
        cells = [_with_interval(own["r_mean"], spans.get((site, model, False)))]
        cells += [_number(of[name]["r_mean"]) if name in of else "-" for name in names[1:]]
        cells += [_number(own["oracle_r_mean"])] * oracle
        cells += [_number(own["mse_mean"]), _number(own["p_null"]), str(own["n_subjects"])]
        lines.append(f"| {site} | " + " | ".join(cells) + " |")
    if not spans:
        return "\n".join(lines)
    return "\n".join(lines) + "\n\nR: Pearson, mean over parcels, then subjects; [95 % t-interval over subjects]."


def _what(experiment: Experiment, config: Mapping[str, Any]) -> str:
    return (
        f"Predicts {len(config['parcels'])} fMRI parcel series from {_window_s(config):g} s of scalp EEG. Algorithm"
        f" {experiment.algorithm.name}, selection rule `{experiment.select_on}`, plan `{experiment.fingerprint}`."
    )


def _sites(manifest: pd.DataFrame) -> str:
    lines = []
    for site, group in manifest.groupby("site", sort=True):
        volumes = int(group["n_volumes"].sum())
        t_r = ", ".join(f"{value:g}" for value in sorted(set(group["t_r"])))
        lines.append(
            f"- {site}: {group['subject'].nunique()} subjects, {len(group)} recordings, {volumes} volumes, TR {t_r} s"
        )
    return "\n".join(lines)


def _input(experiment: Experiment, config: Mapping[str, Any]) -> str:
    """What a window must have been through before the model sees it: a served model can do none of this itself."""
    window_s, sfreq = _window_s(config), float(_model_config(config).get("sfreq", 200.0))
    high_pass = experiment.variant(experiment.deployed).data.high_pass
    filtered = "" if high_pass is None else (
        f" high-passed at {high_pass:g} Hz over the whole recording before windows are cut (Butterworth of order 2,"
        " forward and backward);"
    )  # fmt: skip
    return (
        f"EEG windows, microvolt, float32, {sfreq:g} Hz, {window_s:g} s ({round(window_s * sfreq)} samples) ending at"
        f" the volume's time;{filtered} {_referenced(config.get('reference', 'average'))}."
        f" Channels ({len(config['ch_names'])}): {', '.join(config['ch_names'])}. Name yours in `ch_names`."
    )


def _referenced(reference: str | Sequence[str]) -> str:
    if not isinstance(reference, str):
        return f"re-referenced to the mean of {', '.join(reference)}"
    return "re-referenced to the average of these channels" if reference == "average" else "recording reference"


def _model_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    own: Mapping[str, Any] = config.get("model", {}).get("config", {})
    return own


def _window_s(config: Mapping[str, Any]) -> float:
    return float(_model_config(config).get("window_s", 16.0))


def _output(config: Mapping[str, Any]) -> str:
    target, parcellation = config.get("target", {}), config.get("parcellation", {})
    labels: Sequence[str] = config["parcels"]
    some = ", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")
    return (
        f"One value per parcel and window, in units of the training scale ({target.get('kind', 'strict')} target;"
        " times `target.scale_R` of config.json = percent signal change, low-passed)."
        f" Parcellation {parcellation.get('name', '?')}, space {parcellation.get('space', '?')},"
        f" sha256 {str(parcellation.get('sha256', '?'))[:12]}: {some}."
    )


def _with_interval(value: float | None, span: Mapping[str, Any] | None) -> str:
    if span is None or span.get("ci_low") is None:
        return _number(value)
    return f"{_number(value)} [{_number(span['ci_low'])}, {_number(span['ci_high'])}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
