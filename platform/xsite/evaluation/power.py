"""How many subjects and sites detect a given mean R: simulated studies with random sites, subjects and scan lengths.

Shape letters: ``S`` sites, ``N`` subjects per site, ``K`` simulated studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from xsite.evaluation.surrogates import FOLD_DEPENDENCE
from xsite.recording import Float

Question = Literal["here", "next site"]
SAMPLES_PER_S = 0.166
"""Independent samples per second of BOLD low-passed at 0.15 Hz: the 23 scans of vu_rest_roi (1,191 s of 567 volumes)
have a median surrogate SD of R of .071 and are worth 198 independent volumes (tests/test_real_evaluation.py)."""


def null_sd(scan_s: float, *, samples_per_s: float = SAMPLES_PER_S) -> float:
    """SD of one parcel's R without any relation, from the length of the scan in seconds.

    ``1 / sqrt(N_eff - 1)``: about .07 for twenty minutes and .25 for a hundred seconds. A mean over parcels that
    share a global signal scatters hardly less.
    """
    if scan_s * samples_per_s <= 2:
        raise ValueError(
            f"a scan of {scan_s} s holds {scan_s * samples_per_s:.1f} independent samples; no R can be told"
        )
    return 1 / math.sqrt(scan_s * samples_per_s - 1)


@dataclass(frozen=True)
class Scatter:
    """What makes a subject's R differ from the mean over all sites.

    Parameters
    ----------
    site_sd, subject_sd : float
        SD of the true R between sites, and between the subjects of a site. Defaults: 0.05 and 0.10 (the published
        SD over the six test scans is .115, which holds the scatter by scan length as well).
    scan_s : float
        Seconds of scored scan per subject; adds :func:`null_sd`.
    """

    site_sd: float = 0.05
    subject_sd: float = 0.10
    scan_s: float = 1200.0

    @property
    def within_sd(self) -> float:
        """SD of a measured subject within its site."""
        return math.hypot(self.subject_sd, null_sd(self.scan_s))


def simulated_means(
    mean_r: float, n_sites: int, n_subjects: int, scatter: Scatter, *, simulations: int, seed: int
) -> Float:
    """Site means of simulated studies, shape (K, S)."""
    rng = np.random.default_rng([seed, n_sites, n_subjects])
    site_KS = rng.normal(mean_r, scatter.site_sd, (simulations, n_sites))
    return np.asarray(site_KS + rng.normal(0, scatter.within_sd, (simulations, n_sites, n_subjects)).mean(2))


def power(
    mean_r: float,
    n_sites: int,
    n_subjects: int,
    *,
    scatter: Scatter | None = None,
    question: Question = "next site",
    alpha: float = 0.05,
    simulations: int = 4000,
    seed: int = 0,
) -> float:
    """Share of studies that find a true mean R, one-sided at ``alpha``.

    Parameters
    ----------
    mean_r : float
        True mean over all sites there could be; 0 gives the false-positive rate of the test.
    n_sites, n_subjects : int
        Held-out sites, and subjects per site.
    question : {"here", "next site"}
        ``next site``: t-test over site means. ``here``: surrogate test of the mean over these subjects, whose null
        scatters by scan length only, and of several sites is wider by
        :data:`~xsite.evaluation.surrogates.FOLD_DEPENDENCE`, as in a study's tables. With ``mean_r`` 0 and sites that
        differ, ``here`` finds more than ``alpha``: a model may be above chance at the sites at hand, which is what it
        tests.

    Returns
    -------
    float
        Between 0 and 1.
    """
    scatter = scatter or Scatter()
    means_KS = simulated_means(mean_r, n_sites, n_subjects, scatter, simulations=simulations, seed=seed)
    if question == "here":
        spread = null_sd(scatter.scan_s) / math.sqrt(n_sites * n_subjects) * (FOLD_DEPENDENCE if n_sites > 1 else 1.0)
        return float(np.mean(means_KS.mean(1) > stats.norm.ppf(1 - alpha) * spread))
    if n_sites < 2:
        return 0.0  # one site says nothing about the next
    t_K = means_KS.mean(1) / (means_KS.std(1, ddof=1) / math.sqrt(n_sites))
    return float(np.mean(t_K > stats.t.ppf(1 - alpha, n_sites - 1)))


def power_table(
    mean_rs: Sequence[float],
    sites: Sequence[int],
    subjects: Sequence[int],
    *,
    scatter: Scatter | None = None,
    simulations: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """Power of both questions on a grid: ``mean_r, n_sites, n_subjects, next_site, here``."""
    known = {"scatter": scatter, "simulations": simulations, "seed": seed}
    rows = [
        {
            "mean_r": mean_r,
            "n_sites": s,
            "n_subjects": n,
            "next_site": power(mean_r, s, n, question="next site", **known),  # type: ignore[arg-type]
            "here": power(mean_r, s, n, question="here", **known),  # type: ignore[arg-type]
        }
        for mean_r in mean_rs
        for s in sites
        for n in subjects
    ]
    return pd.DataFrame(rows)


def sites_needed(
    mean_r: float,
    n_subjects: int,
    *,
    scatter: Scatter | None = None,
    wanted: float = 0.8,
    at_most: int = 64,
    simulations: int = 4000,
    seed: int = 0,
) -> int | None:
    """Smallest number of sites that finds a mean R with the wanted power (next site); None beyond ``at_most``."""
    for n_sites in range(2, at_most + 1):
        if power(mean_r, n_sites, n_subjects, scatter=scatter, simulations=simulations, seed=seed) >= wanted:
            return n_sites
    return None
