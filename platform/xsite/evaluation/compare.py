"""Is one model better than another: paired by subject, by flipping signs, corrected for many parcels and many models.

Shape letters: ``D`` paired differences, ``R`` parcels, ``K`` sign patterns, ``M`` models, ``B`` blocks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from xsite.evaluation.intervals import t_interval
from xsite.evaluation.subjects import parcel_scores, silence_as_zero, subject_scores
from xsite.recording import Bool, Float

FEW = 5
"""Below this number of subjects (or sites) an interval is marked as resting on few."""
EXACT = 12
"""Up to this number of units all sign patterns are enumerated (4,096); beyond, patterns are drawn."""
Unit = Literal["subjects", "sites"]


def holm(p: ArrayLike) -> Float:
    """Holm's step-down correction (Holm 1979, Scand. J. Stat. 6, 65): family-wise error under any dependence.

    Parameters
    ----------
    p : array, any length
        NaN (not tested) stays NaN and does not count.
    """
    p = np.asarray(p, float)
    corrected = np.full(p.shape, np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested])]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return corrected


def sign_patterns(n: int, draws: int, seed: int) -> Float:
    """Signs (K, n) to flip units by: all for few units (exact test), else random ones; the observed one first."""
    if n <= EXACT:
        return np.array(list(itertools.product((1.0, -1.0), repeat=n))).reshape(-1, n)
    drawn = np.random.default_rng(seed).choice((1.0, -1.0), (draws + 1, n))
    drawn[0] = 1
    return drawn


def sign_flip(
    differences: ArrayLike,
    *,
    units: Sequence[Hashable] | None = None,
    within: Sequence[Hashable] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[Float, Float]:
    """Two-sided sign-flip test of paired differences: under the null hypothesis each unit's sign is arbitrary.

    The statistic is the studentised mean, so that parcels of different scatter compete fairly for the maximum. Up to
    twelve units the test is exact: all sign patterns are counted, and p is at least ``2 / 2**n``.

    Parameters
    ----------
    differences : array, shape (D,) or (D, R)
        NaN where a pair is missing.
    units : sequence of hashable, length D, optional
        Differences of one unit (a site, say) are averaged first and flip together; default: each is its own.
    within : sequence of hashable, length D, optional
        Groups (sites) that count alike in the tested mean, however many differences each has; not with ``units``.
    draws, seed : int
        Of random patterns, for more than twelve units.

    Returns
    -------
    p, p_max : float64 arrays, shape (R,)
        Uncorrected, and corrected family-wise over the R columns by the maximum statistic (Westfall & Young 1993).
        NaN for a column without pairs.
    """
    values_DR = np.asarray(differences, float)
    values_DR = values_DR[:, None] if values_DR.ndim == 1 else values_DR
    if units is not None:
        values_DR = pd.DataFrame(values_DR).groupby(list(units), sort=False).mean().to_numpy()
    known_DR = np.isfinite(values_DR)
    n_R = known_DR.sum(0)
    values_DR = np.where(known_DR, values_DR, 0.0)
    if within is not None:
        values_DR = values_DR * _group_weights(known_DR, within)
    energy_R = (values_DR**2).sum(0)
    patterns_KD = sign_patterns(len(values_DR), draws, seed)
    mean_KR = patterns_KD @ values_DR / np.maximum(n_R, 1)
    # the sum of squares does not change with signs, so the variance needs no second pass
    spread_KR = np.sqrt(np.maximum(energy_R - n_R * mean_KR**2, 1e-12 * energy_R) / np.maximum(n_R - 1, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        t_KR = np.nan_to_num(np.abs(mean_KR) * np.sqrt(n_R) / spread_KR, nan=0.0)
    observed_R = t_KR[0] * (1 - 1e-9)  # equal statistics differ by rounding
    p_R = (t_KR >= observed_R).mean(0)
    max_R = (t_KR.max(1)[:, None] >= observed_R).mean(0)
    return np.where(n_R > 0, p_R, np.nan), np.where(n_R > 0, max_R, np.nan)


def _group_weights(known_DR: Bool, within: Sequence[Hashable]) -> Float:
    """Weights (D, R), of mean 1 over the known entries of a column, that make groups count alike."""
    counts_DR = pd.DataFrame(known_DR).groupby(list(within), sort=False).transform("sum").to_numpy()
    shares_DR = np.where(known_DR, 1 / np.maximum(counts_DR, 1), 0.0)
    return np.asarray(shares_DR * known_DR.sum(0) / np.maximum(shares_DR.sum(0), 1e-12))


def paired_tests(
    scores: pd.DataFrame, a: str, b: str, *, column: str = "r", unit: Unit = "subjects", draws: int = 10_000
) -> pd.DataFrame:
    """Model ``a`` minus model ``b`` per parcel and over all, with sign-flip p-values.

    Parameters
    ----------
    scores : DataFrame
        Of :func:`xsite.evaluation.scoring.score_predictions`.
    unit : {"subjects", "sites"}
        What is flipped. ``subjects`` asks about these sites; ``sites`` about the next one, and cannot reach
        p < .05 with fewer than six sites. Either way the tested figure is the difference that stands beside p: the
        mean of the sites' means, to which a large site adds no more than a small one.

    Returns
    -------
    DataFrame
        ``parcel, a, b, n, unit, difference, p, p_holm, p_max``; the first row, ``parcel == "all"``, tests the mean over
        parcels and is not part of the family.
    """
    wide = _paired(subject_scores(scores), a, b, column, ["site", "subject"])
    parcels = _paired(parcel_scores(scores), a, b, column, ["site", "subject", "parcel"]).unstack("parcel")
    columns = ["parcel", "a", "b", "n", "unit", "difference", "p", "p_holm", "p_max"]
    if wide.empty:
        return pd.DataFrame(columns=columns)
    rows = []
    for name, table in (("all", wide.to_frame("all")), ("parcels", parcels)):
        site = table.index.get_level_values("site")
        who: dict[str, Any] = {"units" if unit == "sites" else "within": site.tolist()}
        p_R, max_R = sign_flip(table.to_numpy(), **who, draws=draws)
        corrected_R = p_R if name == "all" else holm(p_R)
        means = table.groupby(site).mean()
        values = {
            "parcel": list(table.columns),
            "a": a,
            "b": b,
            "n": (means if unit == "sites" else table).notna().sum().to_numpy(),
            "unit": unit,
            "difference": means.mean().to_numpy(),
            "p": p_R,
            "p_holm": corrected_R,
            "p_max": max_R,
        }
        rows.append(pd.DataFrame(values))
    return pd.concat(rows, ignore_index=True)[columns]


def _paired(table: pd.DataFrame, a: str, b: str, column: str, index: list[str]) -> pd.Series[float]:
    table = silence_as_zero(table[~table["control"].astype(bool)])
    missing = [name for name in (a, b) if name not in set(table["model"])]
    if missing:
        known = sorted(set(table["model"]))
        raise ValueError(f"compare {a!r} with {b!r}: no scores of {missing}; there are scores of {known}")
    wide = table.set_index([*index, "model"])[column].unstack("model")
    return (wide[a] - wide[b]).dropna()


def compare(scores: pd.DataFrame, a: str, b: str, *, column: str = "r") -> pd.DataFrame:
    """Model ``a`` minus model ``b``, paired by subject, with t-intervals and sign-flip p-values.

    Returns
    -------
    DataFrame
        One row per site and a last one, ``site == "all"``: ``site, a, b, n, unit, difference, ci_low, ci_high, few,
        p_flip``. Per site the unit is the subject; over all sites it is the site, since the question is about the next
        site; ``p_flip`` flips the row's units. Controls take no part. A site where one of the two says nothing
        (constant prediction) counts as 0 for it; no row where one says nothing anywhere.
    """
    difference = _paired(subject_scores(scores), a, b, column, ["site", "subject"])
    rows = []
    for site, values in difference.groupby(level="site"):
        rows.append(_difference(str(site), values.tolist(), "subjects"))
    if rows:
        rows.append(_difference("all", [row["difference"] for row in rows], "sites"))
    columns = ["site", "n", "unit", "difference", "ci_low", "ci_high", "few", "p_flip"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(1, "a", a)
    table.insert(2, "b", b)
    return table


def _difference(site: str, values: Sequence[float], unit: Unit) -> dict[str, Any]:
    mean, low, high = t_interval(values)
    row = {"site": site, "n": len(values), "unit": unit, "difference": mean}
    return row | {"ci_low": low, "ci_high": high, "few": len(values) < FEW, "p_flip": float(sign_flip(values)[0][0])}


def rank_models(
    scores: pd.DataFrame, models: Sequence[str], *, column: str = "r", unit: Unit = "subjects", level: float = 0.05
) -> dict[str, Any]:
    """Critical-difference view: average ranks of several models over blocks, and which of them cannot be told apart.

    Blocks are subjects (of all sites) or sites; only blocks that every model was scored on count. Subjects of one site
    share their model's training, so ranks over subjects speak about these sites.

    Parameters
    ----------
    models : sequence of str
        At least two; a model whose r is undefined in a block (constant) has 0 there.

    Returns
    -------
    dict
        ``n, unit, ranks`` (model to average rank, 1 is best), ``friedman_p`` (None for two models),
        ``critical_difference`` (Nemenyi, in ranks), ``pairs`` (``a, b, difference, p, p_holm``: sign-flip tests) and
        ``groups``: sets of models in order of rank, within which no pair differs after Holm's correction.
        Source: Demsar 2006, J. Mach. Learn. Res. 7, 1.
    """
    table = subject_scores(scores)
    table = table[~table["control"].astype(bool) & table["model"].isin(list(models))].fillna({column: 0.0})
    wide = table.set_index(["site", "subject", "model"])[column].unstack("model")
    missing = [name for name in models if name not in wide]
    if missing or len(models) < 2:
        raise ValueError(f"rank models {list(models)}: no scores of {missing}; name two or more scored models")
    wide = wide[list(models)].dropna()
    wide = wide.groupby(level="site").mean() if unit == "sites" else wide
    ranks = wide.rank(axis=1, ascending=False).mean().sort_values()
    n, m = len(wide), len(models)
    pairs: list[dict[str, Any]] = []
    for a, b in itertools.combinations(ranks.index, 2):
        d = wide[a] - wide[b]
        pairs.append({"a": str(a), "b": str(b), "difference": float(d.mean()), "p": float(sign_flip(d)[0][0])})
    for pair, corrected in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = float(corrected)
    differ = {frozenset((pair["a"], pair["b"])) for pair in pairs if pair["p_holm"] <= level}
    q = float(stats.studentized_range.ppf(1 - level, m, np.inf)) / math.sqrt(2)
    return {
        "n": n,
        "unit": unit,
        "ranks": {str(name): float(rank) for name, rank in ranks.items()},
        "friedman_p": float(stats.friedmanchisquare(*wide.to_numpy().T).pvalue) if m > 2 and n > 1 else None,
        "critical_difference": q * math.sqrt(m * (m + 1) / (6 * n)),
        "pairs": pairs,
        "groups": _groups([str(name) for name in ranks.index], differ),
    }


def _groups(ranked: list[str], differ: set[frozenset[str]]) -> list[list[str]]:
    """Longest runs of neighbours in rank of which no two differ; single models only where they belong to no run."""
    runs: list[list[str]] = []
    for start in range(len(ranked)):
        stop = start + 1
        while stop < len(ranked) and not any(frozenset((ranked[stop], one)) in differ for one in ranked[start:stop]):
            stop += 1
        if not runs or ranked[stop - 1] != runs[-1][-1]:
            runs.append(ranked[start:stop])
    return runs
