"""The gate: what a study must show before its model may be called challenger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import ttest_1samp

from xsite.evaluation.collapse import GLOBAL_SIGNAL, by_model
from xsite.evaluation.scoring import ORACLE
from xsite.spelling import counted

ALPHA = 0.05
NOT_DEPLOYABLE = (ORACLE, GLOBAL_SIGNAL)
"""Their predictions need the measured BOLD of the recording that they predict."""


@dataclass(frozen=True)
class GateReport:
    """Verdict with one line per check.

    Parameters
    ----------
    passed : bool
    lines : tuple of str
        ``ok``, ``FAIL`` or ``warn``, and the figures, check by check.
    collapsed : tuple of str
        Sites where the model is collapsed (:mod:`xsite.evaluation.collapse`): a warning and a tag, no verdict.
    """

    passed: bool
    lines: tuple[str, ...]
    collapsed: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """Value of the tag ``gate.status``."""
        return "pass" if self.passed else "fail"


def check_study(
    rows: Sequence[Mapping[str, Any]],
    model: str,
    collapsed: Sequence[Mapping[str, Any]] = (),
    leakage: Mapping[str, Any] | None = None,
) -> GateReport:
    """Judge the rows of a study's ``summary.json``.

    Five checks: held out at two sites or more; above both kinds of surrogates (p < 0.05, R > 0) at **every** site; mean
    MSE over sites below the zero baseline's; no control that knows something (:func:`_knows`; a warning where
    none was run); the leakage audit.

    Parameters
    ----------
    rows : sequence of mapping
    model : str
        Name of the model that asks to be registered; an oracle is refused whatever it scores.
    collapsed : sequence of mapping
        ``collapsed`` of ``summary.json``.
    leakage : mapping, optional
        ``leakage`` of ``summary.json``: a study that was run with ``audit: warn`` fails here where its audit failed.
    """
    if model in NOT_DEPLOYABLE:
        line = f"FAIL  {model} reads the measured BOLD of the held-out recording: never deployable"
        return GateReport(False, (line,))
    own = [r for r in rows if r["model"] == model and not r["control"]]
    checks = [(len(own) >= 2, f"{model} is scored at {counted(len(own), 'held-out site')} (two needed)")]
    weak = [r["site"] for r in own if r["r_mean"] is None or r["r_mean"] <= 0 or not _below(_p(r), ALPHA)]
    checks.append((not weak, f"R > 0 and p < {ALPHA} against both kinds of surrogates at every site" + _but(weak)))
    checks.append(_beats_zero(rows, own))
    names = sorted({r["model"] for r in rows if r["control"]})
    controls = {name: [r for r in rows if r["control"] and r["model"] == name] for name in names}
    loud = [name for name, group in controls.items() if _knows(group)]
    stay = f"trained on other subjects' BOLD, {counted(len(names), 'model stays', 'models stay')} at chance"
    none = "no control was run; name a model under controls in the recipe to train it on other subjects' BOLD"
    if names:
        checks.append((not loud, stay + _but(loud)))
    if leakage:
        checks.append((leakage["verdict"] != "fail", str(leakage["sentence"])))
    lines = tuple(("ok    " if good else "FAIL  ") + text for good, text in checks)
    lines += () if names else (f"warn  {none}",)  # a check that was not made has not been passed
    flat = [row for row in collapsed if row["model"] == model]
    lines += tuple(f"warn  collapsed: {one.line}" for one in by_model(flat, rows))
    return GateReport(all(good for good, _ in checks), lines, tuple(dict.fromkeys(str(row["site"]) for row in flat)))


def _knows(control: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a model that was trained on other subjects' BOLD scores above chance.

    Two conditions, because either alone is wrong too often. Above its surrogates at one site (p < 0.05 divided by the
    number of sites): but surrogates redraw the recordings and not the fold's model, whose one accidental relation is
    shared by all recordings of the site, so that controls fall outside their band more often than 5 %. And above zero
    over sites, each an accident of its own (one-sided t-test, p < 0.05): a leak lifts them all.
    """
    scores = [r["r_mean"] or 0.0 for r in control]
    if not any(_below(r["p_null"], ALPHA / len(control)) for r in control):
        return False
    if len(scores) < 2 or len(set(scores)) == 1:
        return max(scores) > 0
    return bool(ttest_1samp(scores, 0.0, alternative="greater").pvalue < ALPHA)


def _beats_zero(rows: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]]) -> tuple[bool, str]:
    zero = {r["site"]: r["mse_mean"] for r in rows if r["model"] == "zero" and not r["control"]}
    both = [(r["mse_mean"], zero[r["site"]]) for r in own if r["site"] in zero and r["mse_mean"] is not None]
    if not both:
        return False, "the study holds no zero baseline to compare with (add 'zero' to baselines)"
    ours, theirs = (sum(column) / len(both) for column in zip(*both, strict=True))
    return ours < theirs, f"mean MSE over sites {ours:.4f}, zero baseline {theirs:.4f}"


def _p(row: Mapping[str, Any]) -> float | None:
    """The larger of both nulls' p-values; studies that knew one null only have that one."""
    known = [p for p in (row["p_null"], row.get("p_shift")) if p is not None]
    return max(known, default=None)


def _below(value: float | None, level: float) -> bool:
    return value is not None and value < level


def _but(names: Sequence[str]) -> str:
    return f"; not so: {', '.join(names)}" if names else ""
