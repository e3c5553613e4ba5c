"""Which recordings must not train, in one place: every rule with its threshold, its reason and its source.

The rules look at the figures that preparation wrote (:mod:`xsite.signals.quality`), and the manifest applies them each
time it is read: a changed threshold needs no new ingest. A figure that is not known excludes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["above", "below"]


@dataclass(frozen=True)
class Rule:
    """One figure and how far it may go.

    Parameters
    ----------
    name : str
        What it is called in tables.
    figure : str
        Quality figure (see :func:`xsite.signals.quality.quality_figures`).
    side : {"above", "below"}
        Where the recording is excluded.
    limit : float
        In ``unit``.
    unit : str
    why : str
        Reason for the rule and for its number.
    """

    name: str
    figure: str
    side: Side
    limit: float
    unit: str
    why: str

    def breaks(self, value: float) -> bool:
        """Tell whether a value excludes."""
        return value > self.limit if self.side == "above" else value < self.limit

    def words(self, value: float) -> str:
        """Say what is wrong with a value that excludes."""
        return f"{self.name} {value:.3g}{self.unit} is {self.side} {self.limit:g}{self.unit}"


RULES: tuple[Rule, ...] = (
    Rule(
        "mean framewise displacement",
        "mean_fd_mm",
        "above",
        0.5,
        " mm",
        "Power et al. 2012 (NeuroImage 59:2142) discard single volumes above 0.5 mm; here the average one is. Motion "
        "of that size moves the EEG cap in the field as well.",
    ),
    Rule(
        "fraction of valid volumes",
        "bold_valid_fraction",
        "below",
        0.5,
        "",
        "Dummy, scrubbed and untimed volumes are the majority: what is left is a choice, not a sample (our decision; "
        "the alignment audit draws the same line for markers).",
    ),
    Rule(
        "fraction of valid EEG",
        "eeg_valid_fraction",
        "below",
        0.5,
        "",
        "A window needs 16 s without a gap; with half of the EEG marked bad, few are left (our decision).",
    ),
    Rule(
        "line noise",
        "eeg_line_noise_ratio",
        "above",
        10.0,
        " x its neighbourhood",
        "After the notch clean EEG has less than 1. Ten times means that the notch missed: a wrong line_freq of the "
        "site, a saturated amplifier, or a gradient artifact left in (our decision).",
    ),
    Rule(
        "fraction of flat channels",
        "eeg_flat_fraction",
        "above",
        0.1,
        "",
        "One flat electrode happens; a tenth of the cap is a connector or a headbox, and what one recording lacks is "
        "lost to every study on common channels (our decision; from 0.2 on ingest refuses the recording).",
    ),
    Rule(
        "fraction of parcels covered",
        "bold_parcel_coverage_fraction",
        "below",
        0.25,
        "",
        "Half a brain is no fault (missing parcels are masked in loss and scores); below a quarter the image is not "
        "where the atlas is, or is hardly an image (our decision).",
    ),
)
"""Applied in this order; all that break are named."""

REJECTED = "the alignment of volumes and EEG was rejected"


def figures_of(quality: Mapping[str, Any], n_chans: int) -> dict[str, float]:
    """Quality figures that are known, with what the rules need of them."""
    known = {name: float(value) for name, value in quality.items() if isinstance(value, int | float)}
    if "eeg_flat_channels" in known:
        known["eeg_flat_fraction"] = known["eeg_flat_channels"] / max(1.0, n_chans + known["eeg_flat_channels"])
    return known


def exclusion_reasons(provenance: Mapping[str, Any], quality: Mapping[str, Any], n_chans: int) -> list[str]:
    """Every reason why a recording must not train; empty for one that may.

    Parameters
    ----------
    provenance : mapping
        Its ``excluded`` holds what preparation knows: ``Site.unusable``, or that no window is left.
    quality : mapping
        Quality figures.
    n_chans : int
        Channels in the store.
    """
    figures = figures_of(quality, n_chans)
    reasons = [str(provenance["excluded"])] if provenance.get("excluded") else []
    if (provenance.get("alignment") or {}).get("verdict") == "rejected":
        reasons.append(REJECTED)
    broken = [rule for rule in RULES if rule.figure in figures and rule.breaks(figures[rule.figure])]
    return reasons + [rule.words(figures[rule.figure]) for rule in broken]
