"""Further figures of every recording and parcel, kept beside the scores: ``figures.parquet``.

Shape letters: ``V`` volumes, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from xsite.evaluation.folds import ENTITIES
from xsite.evaluation.metrics import best_lag, connectivity_similarity, pearson_r
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.evaluation.spectra import coherence, effective_n
from xsite.recording import Float, RecordingKey

VALUES = ("coherence", "coherence_chance", "lag_s", "r_at_lag", "n_effective", "r_normalised", "fc_similarity")
FIGURE_COLUMNS = (*ENTITIES, "model", "control", "seed", "parcel", *VALUES)
LEARNABLE = 0.1
"""Parcels whose oracle scores less hold nothing that a model could have learned; a share of it is noise."""


def recording_figures(
    predictions: Iterable[Prediction], parcels: Sequence[str], t_r: float | Mapping[RecordingKey, float]
) -> pd.DataFrame:
    """Coherence, lag, effective sample size, share of the oracle and connectivity of every recording.

    Parameters
    ----------
    predictions : iterable of Prediction
        Where the phantom's oracle is among them, ``r_normalised`` is known.
    parcels : sequence of str, length R
    t_r : float or mapping of RecordingKey to float
        Repetition time in seconds, one for all or each recording's own.

    Returns
    -------
    DataFrame
        One row per recording, model, control, seed and parcel with :data:`FIGURE_COLUMNS`. ``coherence`` is the mean
        below 0.15 Hz, ``coherence_chance`` what unrelated series would have; ``lag_s`` is positive for a prediction
        that comes too late, ``r_at_lag`` the correlation there; ``n_effective`` is the number of independent volumes;
        ``r_normalised`` is R over the oracle's R, for parcels whose oracle reaches :data:`LEARNABLE`;
        ``fc_similarity`` belongs to the whole recording and is repeated in each of its rows.
    """
    predictions = list(predictions)
    oracle = {p.key: pearson_r(p.predicted_VR, p.target_VR, p.valid_V) for p in predictions if p.model == ORACLE}
    tables = [
        _figures(p, parcels, t_r if isinstance(t_r, float | int) else t_r[p.key], oracle.get(p.key))
        for p in predictions
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(FIGURE_COLUMNS))


def _figures(p: Prediction, parcels: Sequence[str], t_r: float, oracle_R: Float | None) -> pd.DataFrame:
    if len(parcels) != p.target_VR.shape[1]:
        raise ValueError(f"{p.key}: {len(parcels)} parcel names for {p.target_VR.shape[1]} parcels")
    known = p.predicted_VR, p.target_VR, p.valid_V
    coherence_R, chance = coherence(*known, t_r)
    lag_R, r_lag_R = best_lag(*known, t_r)
    normalised_R = np.full(len(parcels), np.nan)
    if oracle_R is not None:
        learnable_R = np.isfinite(oracle_R) & (oracle_R >= LEARNABLE)
        r_R = pearson_r(*known)
        said_R = np.nan_to_num(r_R) if np.isfinite(r_R).any() else r_R  # a silent parcel counts as 0, as in every mean
        normalised_R[learnable_R] = said_R[learnable_R] / oracle_R[learnable_R]
    labels = {name: getattr(p.key, name) for name in ENTITIES}
    values = {
        "model": p.model,
        "control": bool(p.control),
        "seed": int(p.seed),
        "parcel": list(parcels),
        "coherence": coherence_R,
        "coherence_chance": chance,
        "lag_s": lag_R,
        "r_at_lag": r_lag_R,
        "n_effective": effective_n(*known),
        "r_normalised": normalised_R,
        "fc_similarity": connectivity_similarity(*known),
    }
    return pd.DataFrame({**labels, **values}, columns=list(FIGURE_COLUMNS), index=range(len(parcels)))


def site_figures(figures: pd.DataFrame) -> pd.DataFrame:
    """Figures per site, model and control: seeds and parcels, then recordings, then subjects are averaged.

    Medians over parcels for the lag, whose extremes are accidents of parcels that were not learned; means elsewhere.

    Returns
    -------
    DataFrame
        Columns ``site, model, control, n_subjects`` and :data:`VALUES`.
    """
    if figures.empty:
        return pd.DataFrame(columns=["site", "model", "control", "n_subjects", *VALUES])
    row = ["site", "model", "control"]
    how = {name: "median" if name == "lag_s" else "mean" for name in VALUES}
    seeds = figures.groupby([*row, *ENTITIES[1:], "seed"], sort=False, dropna=False)[list(VALUES)].agg(how)
    runs = seeds.groupby(level=[*row, *ENTITIES[1:]], sort=False).mean()
    subjects = runs.groupby(level=[*row, "subject"], sort=False).mean()
    table = subjects.groupby(level=row, sort=False).mean()
    table.insert(0, "n_subjects", subjects.groupby(level=row, sort=False).size())
    return table.reset_index()
