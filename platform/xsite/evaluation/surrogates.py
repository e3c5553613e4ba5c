"""The null distribution behind a study's means: every figure recomputed with surrogates in place of the measured BOLD.

Shape letters: ``R`` parcels, ``N`` surrogates.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from xsite.evaluation.folds import Fold
from xsite.evaluation.metrics import usable
from xsite.evaluation.nulls import Kind, null_r
from xsite.evaluation.scoring import Prediction
from xsite.recording import Float, RecordingKey

Label = tuple[str, str, bool]
"""Site, model, control."""

FOLD_DEPENDENCE = math.sqrt(2)
"""How much wider than independent folds the mean over folds scatters, at most: site i's BOLD trains the model that is
tested at j and j's the one tested at i, so an accident counts twice (docs/evaluation.md, section 13). Subjects of one
site that are left out one by one, or dealt into folds, are tied in the same way."""


@dataclass(frozen=True, eq=False)
class Nulls:
    """Surrogate means of every site, model and control.

    Parameters
    ----------
    means : dict of Label to array, shape (N,)
        Of the mean over parcels, recordings and subjects, in that order.
    parcels : dict of Label to array, shape (N, R)
        Of each parcel's mean over recordings and subjects; NaN where nobody at the site has the parcel.
    crossed : collection of str
        Sites whose own subjects train the models that are tested at one another (:func:`crossed_sites`).
    """

    means: dict[Label, Float] = field(default_factory=dict)
    parcels: dict[Label, Float] = field(default_factory=dict)
    crossed: Collection[str] = ()

    @property
    def of_sites(self) -> dict[Label, Float]:
        """``means`` as p-values and bands of single sites need them: wider where a site's own folds are tied."""
        return {label: over_folds([null], crossed=label[0] in self.crossed) for label, null in self.means.items()}


def crossed_sites(folds: Sequence[Fold]) -> frozenset[str]:
    """Sites of which some subjects train the model that is tested on others, and others the one tested on them."""
    found: set[str] = set()
    for fold in folds:
        learnt = {key.subject_id for key in (*fold.train, *fold.val)}
        for other in folds:
            if other is not fold:
                found |= {key.site for key in other.test if key.subject_id in learnt} & {key.site for key in fold.test}
    return frozenset(found)


def study_nulls(
    predictions: Sequence[Prediction],
    *,
    surrogates: int,
    seed: int,
    kind: Kind = "phase",
    crossed: Collection[str] = (),
) -> Nulls:
    """Null distributions of a study's means.

    Parameters
    ----------
    crossed : collection of str
        Of :func:`crossed_sites`; noted in the result. ``means`` and ``parcels`` are as drawn.

    The surrogates of a recording depend on seed and recording only: every model, and every seed of it, meets the same
    ones, and so the seeds' average is averaged in the null as well.
    """
    rows: dict[Label, list[Prediction]] = {}
    for p in predictions:
        if usable(p.valid_V, p.predicted_VR, p.target_VR).any():
            rows.setdefault((p.key.site, p.model, p.control), []).append(p)
    nulls = Nulls(crossed=crossed)
    for label, own in rows.items():  # one row at a time: a table per recording of a whole study would fill the memory
        nulls.means[label], nulls.parcels[label] = _row_null(own, surrogates, seed, kind)
    return nulls


def _row_null(predictions: Sequence[Prediction], surrogates: int, seed: int, kind: Kind) -> tuple[Float, Float]:
    subjects: dict[str, dict[RecordingKey, list[Float]]] = {}
    for p in predictions:
        rng = np.random.default_rng([seed, zlib.crc32(str(p.key).encode())])
        null_NR = null_r(p.predicted_VR, p.target_VR, p.scored_V, surrogates=surrogates, rng=rng, kind=kind)
        measured_R = usable(p.valid_V, p.predicted_VR, p.target_VR).any(0)
        null_NR = np.where(measured_R, np.nan_to_num(null_NR), np.nan)  # a parcel that does not move counts as 0
        subjects.setdefault(p.key.subject, {}).setdefault(p.key, []).append(null_NR)
    runs = [[_mean(seeds) for seeds in recordings.values()] for recordings in subjects.values()]
    means = [np.mean([np.nanmean(run_NR, axis=1) for run_NR in of_subject], axis=0) for of_subject in runs]
    return np.asarray(np.mean(means, axis=0)), _mean([_mean(of_subject) for of_subject in runs])


def _mean(tables: Sequence[Float]) -> Float:
    """Mean of tables (N, R) over those that hold a value; NaN where none does."""
    if len(tables) == 1:
        return tables[0]
    count_NR = np.zeros(tables[0].shape, np.int32)
    total_NR = np.zeros(tables[0].shape)
    for table_NR in tables:
        known_NR = np.isfinite(table_NR)
        count_NR += known_NR
        total_NR += np.where(known_NR, table_NR, 0.0)
    return np.asarray(np.where(count_NR > 0, total_NR / np.maximum(count_NR, 1), np.nan))


def over_folds(nulls: Sequence[Float], *, crossed: bool = False) -> Float:
    """Null of a mean over folds from the nulls of the folds, widened because folds are not independent.

    Parameters
    ----------
    nulls : sequence of array, shape (N,) or (N, R)
        One per held-out site; NaN where a site lacks a parcel.
    crossed : bool
        The folds of a single site are tied as well; several sites always are.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)  # a parcel that no site covers
        mean = np.asarray(np.nanmean(np.stack(list(nulls)), axis=0))
        centre = np.nanmean(mean, axis=0)
    return np.asarray(centre + (FOLD_DEPENDENCE if crossed or len(nulls) > 1 else 1.0) * (mean - centre))


def null_means(
    predictions: Sequence[Prediction], *, surrogates: int, seed: int, kind: Kind = "phase"
) -> dict[Label, Float]:
    """Each row's mean r, recomputed with surrogates of every recording's measured BOLD in place of the BOLD.

    Returns
    -------
    dict of (site, model, control) to array, shape (N,)
    """
    return study_nulls(predictions, surrogates=surrogates, seed=seed, kind=kind).means
