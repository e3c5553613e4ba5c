"""The parts of a study's page that are pictures, each with what it rests on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from xsite.data.spline_plan import MAX_ANGLE
from xsite.evaluation.scoring import Prediction
from xsite.evaluation.subjects import parcel_scores
from xsite.reports import anatomy, figures, verdict
from xsite.reports.chance import ALPHA, significant_parcels
from xsite.reports.folder import Study
from xsite.reports.markup import Html, figure, inline_svg, join, number, tag
from xsite.reports.sections import basis, counts
from xsite.reports.verdict import label


def distribution_section(study: Study) -> Html:
    """Distribution of R per parcel."""
    rival = verdict.rival_of(study.model, study.summary)
    models = [study.model, *([rival] if rival else [])]
    chart = figures.parcel_distribution(study.scores, models, _parcels(study))
    caption = (
        "Dots: recordings, all held-out sites together. Box: quartiles, line: median. Parcels in the atlas's order. "
        f"n: {counts(study)}. Selection rule: {study.summary['selection']}. Access to the test site: "
        f"{study.summary['test_site_access']}."
    )
    return figure(inline_svg(chart, name="parcels", label="Distribution of R per parcel"), caption)


def _parcels(study: Study) -> list[str]:
    return [str(name) for name in dict.fromkeys(study.scores["parcel"])]


def median_recording(study: Study) -> tuple[list[Prediction], float, float]:
    """Predictions for the recording whose mean R is nearest the median: the study's model first, then its rival.

    Returns
    -------
    predictions, r, median
    """
    own = [p for p in study.predictions if p.model == study.model and not p.control]
    table_r = study.scores[(study.scores["model"] == study.model) & ~study.scores["control"].astype(bool)]
    kept = table_r[np.isfinite(table_r["mse"])].fillna({"r": 0.0, "session": "", "task": "", "run": ""})
    r = kept.groupby(["site", "subject", "session", "task", "run"])["r"].mean()
    median = float(r.median())
    nearest = (r - median).abs().idxmin()
    rival = verdict.rival_of(study.model, study.summary)
    chosen = [p for p in own if (p.key.site, p.key.subject, p.key.session, p.key.task, p.key.run) == nearest]
    chosen += [p for p in study.predictions if p.key == chosen[0].key and p.model == rival and not p.control]
    return chosen, float(r.loc[nearest]), median


def series_section(study: Study) -> Html:
    """Predicted against measured series."""
    shown, r, median = median_recording(study)
    key, parcels = shown[0].key, _parcels(study)
    own = study.scores[(study.scores["model"] == study.model) & ~study.scores["control"].astype(bool)]
    for name in ("site", "subject", "session", "task", "run"):
        own = own[own[name].fillna("") == getattr(key, name)]
    scored = own.set_index("parcel")["r"].reindex(parcels).to_numpy(float)
    order = [int(i) for i in np.argsort(-np.nan_to_num(scored, nan=0.0))]
    picks = list(dict.fromkeys(order[round(q * (len(order) - 1))] for q in (0, 1 / 3, 2 / 3, 1)))
    rows = [(i, f"R {number(scored[i])}") for i in picks]
    mine = study.manifest[(study.manifest["site"] == key.site) & (study.manifest["subject"].astype(str) == key.subject)]
    t_r = float(mine["t_r"].iloc[0]) if len(mine) and "t_r" in mine else 1.0
    chart = figures.series(shown, parcels, rows, t_r)
    caption = (
        f"{key}: mean R {number(r, 3)}, nearest the median {number(median, 3)} of all held-out recordings. Parcels "
        f"from the best to the worst of this recording. Gaps: volumes that are not scored. n: 1 recording, "
        f"{int(shown[0].scored_V.sum())} volumes. Access to the test site: {study.summary['test_site_access']}."
    )
    return figure(inline_svg(chart, name="series", label="Measured and predicted series"), caption)


def electrode_section(study: Study) -> Html:
    """Electrode layouts of the sites."""
    if not study.montages:
        return tag("p", "Not drawn: the study's folder holds no montages.json.")
    used = study.experiment.get("data", {}).get("channels", "common")
    if used == "spline":
        return _canonical_section(study)
    chart, missing = anatomy.electrode_layouts(study.montages)
    caption = (
        f"Seen from above, nose up. Blue: channels that all {len(study.montages)} sites have; grey: the site's own. "
        f"This study used channels: {used}. " + " ".join(f"Not drawn, {words}." for words in missing)
    )
    return figure(inline_svg(chart, name="electrodes", label="Electrode layouts of the sites"), caption)


def _canonical_section(study: Study) -> Html:
    chart, plans = anatomy.canonical_layouts(study.montages, study.experiment["data"].get("montage") or ())
    words = [
        f"{site} does not help with {', '.join(plan.unplaced)} (no position)."
        for site, plan in plans.items()
        if plan.unplaced
    ]
    caption = (
        "Seen from above, nose up. Filled: recorded; ring: filled in by spherical splines; cross: masked, for it lies "
        f"more than {MAX_ANGLE:g} degrees from every recorded electrode; grey: the site's other electrodes, which the "
        f"splines use. One recording speaks for its site. {' '.join(words)}"
    )
    return figure(inline_svg(chart, name="electrodes", label="Electrodes on the canonical montage"), caption)


def brain_section(study: Study) -> Html:
    """Parcel scores on a glass brain, if it is known where the parcels are."""
    coords = study.parcels.get("coords")
    if not coords:
        name = study.parcels.get("name", "this parcellation")
        return tag("p", f"Not drawn: no MNI coordinates are known for the parcels of {name}.")
    labels = [str(name) for name in study.parcels["labels"]]
    places = np.array(coords, float).reshape(len(labels), 3)
    tested, column = significant_parcels(study)
    proven = {r["parcel"] for r in tested if (r[column] or 1.0) <= ALPHA and (r["r_mean"] or 0) > 0}
    strong_R = np.array([name in proven for name in labels]) if tested else None
    own = parcel_scores(study.scores)
    own = own[(own["model"] == study.model) & ~own["control"].astype(bool)]
    pictures = []
    for value, title in (
        ("r", "R per parcel"),
        ("r_partial", "partial R per parcel, once the measured global signal is known"),
    ):
        sites = own.groupby(["parcel", "site"])[value].mean().groupby("parcel").mean().reindex(labels)
        values = sites.to_numpy(float)
        if not (np.isfinite(values) & np.isfinite(places).all(1)).any():
            continue
        chart = anatomy.glass_brain(values, places, strong_R if value == "r" else None)
        svg = inline_svg(chart, name=f"brain-{value}", label=f"{title}, on a glass brain")
        pictures.append(figure(svg, f"{label(study.model)}: {title}; mean over the sites' means."))
    if not pictures:
        return tag("p", "Not drawn: no parcel has both a defined score and coordinates.")
    small = (
        "" if strong_R is None else "Large markers: better than chance after correction; small ones: not shown to be. "
    )
    return join(
        [tag("p", _where_words(own, labels)), *pictures, tag("p", small + basis(study, counts(study)), class_="note")]
    )


def _where_words(own: pd.DataFrame, labels: list[str]) -> str:
    means = own.groupby(["parcel", "site"])["r"].mean().groupby("parcel").mean().reindex(labels).dropna()
    if means.empty:
        return "No parcel has a defined score."
    return (
        f"R runs from {number(float(means.min()))} ({means.idxmin()}) to {number(float(means.max()))} "
        f"({means.idxmax()}) over {len(means)} parcels."
    )


def training_section(study: Study) -> Html:
    """Training curves of every fold."""
    if study.histories.empty:
        return tag("p", "No curves: every model of this study is fitted in closed form.")
    chart = figures.training_curves(study.histories)
    caption = (
        f"One model per held-out site; the ring marks the epoch that {study.summary['selection']} chose. Validation "
        "subjects come from the training sites; the held-out site is never seen here. The final model, if any, "
        "trains on all sites for the median of these epochs and has no held-out score."
    )
    return figure(inline_svg(chart, name="training", label="Training and validation loss per fold"), caption)
