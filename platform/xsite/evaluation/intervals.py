"""How sure are we: intervals of a mean over sites, and how often each kind holds what it promises.

Two questions, two intervals. *What is to be expected at the next site?* Sites are the sample: t over the site means.
*How good is it at these sites?* Sites are given, subjects are the sample: Welch's interval. The bootstraps are offered
beside them because readers ask for them; ``coverage`` shows what each is worth with few sites.

Shape letters: ``S`` sites, ``N`` subjects of the largest site, ``B`` bootstrap samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from xsite.recording import Float

Method = Literal["t", "welch", "percentile", "bca"]
METHODS: tuple[Method, ...] = get_args(Method)
FEW_SITES = 8
"""Below this number of sites the interval's promise was not verified for skewed sites (docs/evaluation.md)."""


@dataclass(frozen=True)
class Interval:
    """Mean of the site means with its bounds; the bounds are NaN where the data give none."""

    mean: float
    low: float
    high: float
    method: Method
    n_sites: int
    n_subjects: int

    @property
    def few_sites(self) -> bool:
        """Whether the interval rests on so few sites that its promise is not to be trusted."""
        return self.n_sites < FEW_SITES

    @property
    def warning(self) -> str:
        """What a report must say beside the interval; empty for enough sites."""
        return few_sites_warning(self.n_sites)


def few_sites_warning(n_sites: int) -> str:
    """One sentence for a table that rests on fewer than :data:`FEW_SITES` sites; else empty."""
    if n_sites >= FEW_SITES:
        return ""
    return (
        f"Few sites: {n_sites}. An interval over fewer than {FEW_SITES} sites is wide, and holds its 95 % only as far "
        "as sites scatter like a normal distribution; read every site on its own."
    )


def t_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the finite values with its t-based interval; the bounds are NaN for fewer than two values."""
    x = np.asarray(list(values), float)
    x = x[np.isfinite(x)]
    if x.size < 2:
        return (float(x[0]) if x.size else math.nan), math.nan, math.nan
    half = float(special.stdtrit(x.size - 1, (1 + level) / 2) * x.std(ddof=1) / math.sqrt(x.size))
    mean = float(x.mean())
    return mean, mean - half, mean + half


def welch_interval(sites: Sequence[Float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of the site means at exactly these sites: variances differ, degrees of freedom by Satterthwaite.

    Parameters
    ----------
    sites : sequence of arrays, shape (n_subjects of the site,)
        A site with one subject leaves the bounds open (NaN).

    Returns
    -------
    mean, low, high : float
        Source: Welch 1947, Biometrika 34, 28; Satterthwaite 1946, Biometrics Bull. 2, 110.
    """
    mean = float(np.mean([x.mean() for x in sites]))
    if any(x.size < 2 for x in sites):
        return mean, math.nan, math.nan
    parts = np.array([x.var(ddof=1) / x.size for x in sites]) / len(sites) ** 2
    if parts.sum() == 0:
        return mean, mean, mean
    df = parts.sum() ** 2 / np.sum(parts**2 / np.array([x.size - 1 for x in sites]))
    half = float(special.stdtrit(df, (1 + level) / 2) * math.sqrt(parts.sum()))
    return mean, mean - half, mean + half


def bootstrap_means(sites: Sequence[Float], samples: int, rng: np.random.Generator) -> Float:
    """Hierarchical bootstrap: draw sites with replacement, within each its subjects with replacement.

    Returns
    -------
    float array, shape (B,)
        Means of the drawn sites' means.
    """
    n_S = np.array([x.size for x in sites])
    values_SN = np.zeros((len(sites), int(n_S.max())))
    for row, x in zip(values_SN, sites, strict=True):
        row[: x.size] = x
    site_BS = rng.integers(0, len(sites), (samples, len(sites)))
    n_BS1 = n_S[site_BS][:, :, None]
    subject_BSN = (rng.random((*site_BS.shape, values_SN.shape[1]), dtype=np.float32) * n_BS1).astype(np.int64)
    drawn_BSN = values_SN[site_BS[:, :, None], subject_BSN]
    counts_BSN = np.arange(values_SN.shape[1]) < n_BS1
    return np.asarray(((drawn_BSN * counts_BSN).sum(2) / n_BS1[:, :, 0]).mean(1))


def _bca_quantiles(sites: Sequence[Float], means_B: Float, mean: float, level: float) -> NDArray[np.floating[Any]]:
    """Quantiles that are the BCa bounds (Efron 1987, J. Am. Stat. Assoc. 82, 171); the jackknife leaves out sites."""
    share = (np.sum(means_B < mean) + 0.5 * np.sum(means_B == mean)) / means_B.size
    z0 = stats.norm.ppf(np.clip(share, 0.5 / means_B.size, 1 - 0.5 / means_B.size))
    site_means = np.array([x.mean() for x in sites])
    without = (site_means.sum() - site_means) / (len(sites) - 1)
    off = without.mean() - without
    scale = 6 * np.sum(off**2) ** 1.5
    acceleration = np.sum(off**3) / scale if scale > 0 else 0.0
    z = z0 + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    return np.asarray(stats.norm.cdf(z0 + z / (1 - acceleration * z)))


def site_interval(
    sites: Sequence[Iterable[float]],
    *,
    method: Method = "t",
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of the site means with an interval.

    Parameters
    ----------
    sites : sequence of sequences of float
        One value per subject, site by site; what is not finite is left out, and so are sites that hold nothing else.
    method : {"t", "welch", "percentile", "bca"}
        ``t``: the next site. ``welch``: these sites. ``percentile`` and ``bca``: hierarchical bootstrap for the next
        site; both are too narrow for few sites.
    samples, seed : int
        Of the bootstraps.
    """
    known = [x[np.isfinite(x)] for x in (np.asarray(list(values), float) for values in sites)]
    known = [x for x in known if x.size]
    counts = {"method": method, "n_sites": len(known), "n_subjects": sum(x.size for x in known)}
    if not known:
        return Interval(math.nan, math.nan, math.nan, **counts)
    if method == "welch":
        return Interval(*welch_interval(known, level), **counts)
    mean, low, high = t_interval([float(x.mean()) for x in known], level)
    if method == "t" or len(known) < 2:
        return Interval(mean, low, high, **counts)
    means_B = bootstrap_means(known, samples, np.random.default_rng(seed))
    wanted = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        wanted = _bca_quantiles(known, means_B, mean, level)
    low, high = (float(bound) for bound in np.quantile(means_B, wanted))
    return Interval(mean, low, high, **counts)


def coverage(
    n_sites: int,
    n_subjects: int,
    *,
    method: Method = "t",
    site_sd: float = 0.08,
    subject_sd: float = 0.12,
    skewed: bool = False,
    simulations: int = 2000,
    seed: int = 0,
    samples: int = 1000,
) -> tuple[float, float]:
    """How often a 95 % interval holds the truth: simulated studies with random sites and subjects.

    Parameters
    ----------
    n_sites, n_subjects : int
        Sites, and subjects per site.
    site_sd, subject_sd : float
        SD of R between sites and between the subjects of a site.
    skewed : bool
        Sites from a reversed exponential distribution (most are fine, a few fail badly) instead of a normal one.
    simulations, seed, samples : int
        Simulated studies; bootstrap samples of each.

    Returns
    -------
    coverage, width : float
        Share of intervals that hold the truth (``welch``: the mean of these sites' true values; else the mean over all
        sites there could be), and their mean width.
    """
    rng = np.random.default_rng([seed, n_sites, n_subjects])
    hits, width = 0, 0.0
    for i in range(simulations):
        effect_S = 1 - rng.exponential(size=n_sites) if skewed else rng.normal(size=n_sites)
        values_SN = site_sd * effect_S[:, None] + subject_sd * rng.normal(size=(n_sites, n_subjects))
        truth = float(site_sd * effect_S.mean()) if method == "welch" else 0.0
        found = site_interval(list(values_SN), method=method, samples=samples, seed=i)
        hits += found.low <= truth <= found.high
        width += found.high - found.low
    return hits / simulations, width / simulations
