"""A trained model that has given up: it says next to nothing, or something that correlates and is worse than zero.

The published comparison holds such a row (LaBraM: mean R .151, R2 .000, squared errors equal to a predictor's that
says zero). A correlation alone does not show it, so every study is checked. Shapes: ``V`` volumes, ``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsite.evaluation.metrics import pearson_r, r2_about_zero, usable
from xsite.evaluation.scoring import ORACLE, Prediction
from xsite.recording import Bool, Float

FLAT = 0.01
"""Variance of the prediction over the target's below which it counts as flat. A calibrated predictor has a ratio of its
squared correlation: 0.01 is one that knows R = 0.1."""
GLOBAL_SIGNAL = "global-signal"
UNTRAINED = ("zero", "mean", ORACLE, GLOBAL_SIGNAL)
"""Constant on purpose, or knowing the measured BOLD."""


@dataclass(frozen=True)
class Collapse:
    """What is wrong with one model at one site.

    Parameters
    ----------
    site, model : str
    seed : int
    r, r2 : float
        Mean over parcels, then recordings; R2 is about zero, per recording and parcel.
    variance_ratio : float
        Variance of the prediction over the target's, each summed over parcels; mean over recordings.
    reason : str
        In words, with the figures.
    """

    site: str
    model: str
    seed: int
    r: float
    r2: float
    variance_ratio: float
    reason: str

    @property
    def line(self) -> str:
        """One line for people."""
        seed = f", seed {self.seed}" if self.seed else ""
        return f"{self.model} at {self.site}{seed}: {self.reason}"


def find_collapsed(predictions: Iterable[Prediction], *, exempt: Sequence[str] = UNTRAINED) -> list[Collapse]:
    """Trained models that are collapsed, per held-out site and seed; controls take no part, they should be.

    Parameters
    ----------
    predictions : iterable of Prediction
    exempt : sequence of str
        Models that are not trained.
    """
    groups: dict[tuple[str, str, int], list[tuple[float, float, float]]] = {}
    for p in predictions:
        if p.control or p.model in exempt:
            continue
        figures = _figures(p)
        if figures is not None:
            groups.setdefault((p.key.site, p.model, p.seed), []).append(figures)
    found = []
    for (site, model, seed), recordings in groups.items():
        r, r2, ratio = (float(value) for value in np.mean(recordings, axis=0))
        if reason := reason_of(r, r2, ratio):
            found.append(Collapse(site, model, seed, r, r2, ratio, reason))
    return found


def reason_of(r: float, r2: float, variance_ratio: float) -> str:
    """Why these figures are those of a collapsed model; empty if they are not."""
    if variance_ratio < FLAT:
        return f"the prediction's variance is {variance_ratio:.1e} of the target's (mean R {r:.3f}, R2 {r2:.3f})"
    if r2 <= 0 < r:
        return f"mean R is {r:.3f} and R2 {r2:.3f}: no better than zero in squared error"
    return ""


def collapse_rows(predictions: Iterable[Prediction]) -> list[dict[str, Any]]:
    """The key ``collapsed`` of ``summary.json``: one plain row for each that :func:`find_collapsed` names."""
    return [asdict(one) | {"line": one.line} for one in find_collapsed(predictions)]


@dataclass(frozen=True)
class CollapsedModel:
    """Rows of :func:`collapse_rows` about one model.

    Parameters
    ----------
    model : str
    sites : tuple of str
        Where it is collapsed, in any seed.
    n_sites : int
        Where it was scored.
    rows : tuple of mapping
    """

    model: str
    sites: tuple[str, ...]
    n_sites: int
    rows: tuple[Mapping[str, Any], ...]

    @property
    def where(self) -> str:
        """As in "at 3 of 4 sites"."""
        return f"at {len(self.sites)} of {self.n_sites} site{'s' if self.n_sites != 1 else ''}"

    @property
    def line(self) -> str:
        """One line for people, however many sites and seeds there are."""
        if len(self.rows) == 1:
            return str(self.rows[0]["line"])
        r, r2 = ([row[name] for row in self.rows] for name in ("r", "r2"))
        return (
            f"{self.model} {self.where} ({', '.join(self.sites)}): mean R {min(r):.3f} to {max(r):.3f}, R2 "
            f"{min(r2):.3f} to {max(r2):.3f}"
        )


def by_model(collapsed: Sequence[Mapping[str, Any]], scored: Sequence[Mapping[str, Any]]) -> list[CollapsedModel]:
    """Gather the rows of ``summary["collapsed"]`` per model.

    Parameters
    ----------
    scored : sequence of mapping
        ``summary["rows"]``: which model was scored at which site.
    """
    found = []
    for model in dict.fromkeys(row["model"] for row in collapsed):
        rows = tuple(row for row in collapsed if row["model"] == model)
        sites = tuple(dict.fromkeys(row["site"] for row in rows))
        tested = {row["site"] for row in scored if row["model"] == model and not row["control"]} | {*sites}
        found.append(CollapsedModel(model, sites, len(tested), rows))
    return found


def _figures(p: Prediction) -> tuple[float, float, float] | None:
    mask_VR = usable(p.valid_V, p.predicted_VR, p.target_VR)
    measured_R = mask_VR.sum(0) >= 3
    if not measured_R.any():
        return None
    mask_VR = mask_VR[:, measured_R]
    predicted_VR, target_VR = (
        np.where(mask_VR, x[:, measured_R], 0.0).astype(np.float64) for x in (p.predicted_VR, p.target_VR)
    )
    n_R = mask_VR.sum(0)
    spread = _variance(target_VR, mask_VR, n_R)
    if spread <= 0:
        return None
    r_R, r2_R = (f(p.predicted_VR, p.target_VR, p.valid_V)[measured_R] for f in (pearson_r, r2_about_zero))
    return float(np.nan_to_num(r_R).mean()), float(np.nanmean(r2_R)), _variance(predicted_VR, mask_VR, n_R) / spread


def _variance(series_VR: Float, mask_VR: Bool, n_R: NDArray[np.int64]) -> float:
    centred_VR = np.where(mask_VR, series_VR - series_VR.sum(0) / n_R, 0.0)
    return float(((centred_VR**2).sum(0) / n_R).sum())
