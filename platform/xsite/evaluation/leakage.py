"""The leakage auditor: what must not know the held-out recordings, checked before training and once more after it.

Each check has a name, a verdict, what it compared and its evidence (``leakage.json``). The first six run before
anything is trained, ``carried weights`` when trainings are finished and before anything is scored. The checks read the
plan itself (:class:`xsite.evaluation.plan.Plan`), not the folds that it was made from: what is trained is audited.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from xsite.errors import LeakageError
from xsite.evaluation.folds import HAEMODYNAMIC_S, WITHIN_RECORDING, Fold, Segments
from xsite.evaluation.plan import ORACLE, Plan
from xsite.evaluation.sides import Sides
from xsite.evaluation.sketches import Likeness, Sketch, find_alike
from xsite.experiment import Experiment
from xsite.recording import Float, RecordingKey

Verdict = Literal["pass", "warn", "fail", "not applicable"]
SUBJECTS, DUPLICATES, OVERLAP = "subjects on two sides", "duplicated recordings", "overlapping windows"
SCALING, TARGETS, SELECTION = "scaling fitted on test data", "target-derived features", "selection on test"
WEIGHTS = "carried weights"

SAME, ALIKE = 0.7, 0.5
"""Likeness of sketches: copies that were renamed, rescaled, cut, rounded and left with 12 of 31 channels reach .89, the
most alike of different phantom recordings .27 (36 pairs each of easy and realistic, 2 to 6 minutes, best lag)."""
DERIVED_R, STRONG_R, CHANCE = 0.98, 0.9, 1e-3
"""An EEG feature that goes with the target by .98 is made from it, by .9 it is worth a look; both only where the scan
is long enough for that to be no accident. The phantom easy, far above any real coupling, reaches .79."""
SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One check.

    Parameters
    ----------
    check : str
    verdict : {"pass", "warn", "fail", "not applicable"}
    compared : str
        What with what, and how many.
    evidence : tuple of str
        One line per problem.
    """

    check: str
    verdict: Verdict
    compared: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """All checks of a study."""

    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        found = {finding.verdict for finding in self.findings}
        return "fail" if "fail" in found else "warn" if "warn" in found else "pass"

    @property
    def sentence(self) -> str:
        """For reports and terminals."""
        by_verdict = {v: [f.check for f in self.findings if f.verdict == v] for v in ("fail", "warn")}
        if by_verdict["fail"]:
            return f"Leakage audit failed: {', '.join(by_verdict['fail'])}."
        more = f"; with remarks on {', '.join(by_verdict['warn'])}" if by_verdict["warn"] else ""
        return f"Leakage audit passed: {len(self.findings)} checks{more}."

    def with_finding(self, finding: Finding) -> Audit:
        """One more check, in place of an older one of that name."""
        return Audit((*(own for own in self.findings if own.check != finding.check), finding))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``leakage.json`` and ``summary.json``."""
        findings = [{**vars(finding), "evidence": list(finding.evidence)} for finding in self.findings]
        return {"verdict": self.verdict, "sentence": self.sentence, "findings": findings}

    def enforce(self, policy: Literal["refuse", "warn"]) -> None:
        """Stop a study that leaks.

        Raises
        ------
        LeakageError
            A check failed and the recipe does not say ``audit: warn``.
        """
        if self.verdict != "fail" or policy == "warn":
            return
        lines = [f"{f.check}: {line}" for f in self.findings if f.verdict == "fail" for line in f.evidence]
        raise LeakageError(
            f"{self.sentence} {'; '.join(lines[:SHOWN])}. leakage.json in the study folder has the evidence. Mend the "
            "data or the split, or set audit: warn in the recipe: every table then carries the verdict"
        )


@dataclass(frozen=True)
class UsedScale:
    """A target scale that is in use.

    Parameters
    ----------
    user : str
        Whose: a training, or the targets of a held-out side.
    fold : str
        Label of the plan's sides.
    scale_R : sequence of float, length R
    """

    user: str
    fold: str
    scale_R: Sequence[float]


def audit_plan(
    experiment: Experiment,
    folds: Sequence[Fold],
    plan: Plan,
    *,
    sketches: Mapping[RecordingKey, Sketch],
    scales: Mapping[RecordingKey, Float],
    used_scales: Sequence[UsedScale],
    t_r: Mapping[RecordingKey, float],
    window_s: float,
) -> Audit:
    """All checks that need no trained model.

    Parameters
    ----------
    folds : sequence of Fold
        Say who is tested.
    sketches, scales, t_r : mapping of RecordingKey
        Of every recording of the study: sketch, own target scale (R,), repetition time in seconds.
    used_scales : sequence of UsedScale
        What trainings and held-out targets are given.
    window_s : float
        Longest window of all models of the study.
    """
    tested = {fold.held_out: fold for fold in folds}
    return Audit(
        (
            check_subjects(plan, tested),
            check_duplicates(sketches, plan, tested),
            check_overlap(plan, tested, t_r, window_s),
            check_scaling(plan, tested, scales, used_scales, experiment.data.target),
            check_target_derived(sketches),
            check_selection(plan, tested),
        )
    )


def finding(check: str, compared: str, fail: Sequence[str], warn: Sequence[str] = ()) -> Finding:
    """A finding from its problems and remarks; only the first lines are kept."""
    verdict: Verdict = "fail" if fail else "warn" if warn else "pass"
    lines = [*dict.fromkeys([*fail, *warn])]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return Finding(check, verdict, compared, (*lines[:SHOWN], *more))


def _roles(sides: Sides, fold: Fold | None) -> dict[str, tuple[RecordingKey, ...]]:
    """Who stands where; inner runs have what they watch in the place of a test side."""
    test = fold.test if fold else tuple(itertools.chain.from_iterable(keys for _, keys in sides.watch))
    return {"train": sides.train, "val": sides.val, "test": test}


def check_subjects(plan: Plan, folds: Mapping[str, Fold]) -> Finding:
    """No subject, and so no session of one, trains and is tested, or selects and does either."""
    problems = []
    for label, sides in plan.sides.items():
        fold = folds.get(label)
        if sides.segments is not None:
            continue  # one recording is meant to stand on all sides there: check_overlap looks at the volumes
        for (a, first), (b, second) in itertools.combinations(_roles(sides, fold).items(), 2):
            for site, subject in sorted({k.subject_id for k in first} & {k.subject_id for k in second}):
                own = sorted({k.session for k in (*first, *second) if k.subject_id == (site, subject)} - {""})
                of = f" (sessions {', '.join(own)})" if own else ""
                problems.append(f"{label}: subject {site}/{subject}{of} stands in {a} and {b}")
    return finding(SUBJECTS, f"subjects of train, val and test of {len(plan.sides)} splits", problems)


def check_duplicates(sketches: Mapping[RecordingKey, Sketch], plan: Plan, folds: Mapping[str, Fold]) -> Finding:
    """No recording is there twice under other names: its signals would be on two sides, or one person count as two."""
    fail, warn = [], []
    for pair in find_alike(sketches, ALIKE):
        line, sure = _likeness(pair), pair.r >= SAME
        apart = _where_apart(pair, plan, folds)
        if sure and (apart or pair.a.subject_id != pair.b.subject_id):
            fail.append(line + (f": {apart}" if apart else ": one person would count as two"))
        else:
            warn.append(line + (": the same person twice, on one side" if sure else ": less than a copy; look at them"))
    n = len(sketches)
    compared = f"EEG band power and BOLD contrasts of {n * (n - 1) // 2} pairs of recordings, at all lags"
    return finding(DUPLICATES, compared, fail, warn)


def _likeness(pair: Likeness) -> str:
    return f"{pair.signal} of {pair.a} and {pair.b} correlates by {pair.r:.2f} at a shift of {pair.lag_s:g} s"


def _where_apart(pair: Likeness, plan: Plan, folds: Mapping[str, Fold]) -> str:
    for label, sides in plan.sides.items():
        roles = _roles(sides, folds.get(label))
        place = [next((name for name, keys in roles.items() if key in keys), "") for key in (pair.a, pair.b)]
        if all(place) and place[0] != place[1]:
            return f"{place[0]} and {place[1]} of {label}"
    return ""


def check_overlap(plan: Plan, folds: Mapping[str, Fold], t_r: Mapping[RecordingKey, float], window_s: float) -> Finding:
    """Parts of one recording lie a window and the haemodynamic delay apart."""
    needed = window_s + HAEMODYNAMIC_S
    cut = [label for label, sides in plan.sides.items() if sides.segments is not None]
    problems = [line for label in cut for line in _near(label, plan.sides[label].segments or {}, t_r, needed)]
    whole = f"; {len(plan.sides) - len(cut)} splits keep recordings whole" if len(cut) < len(plan.sides) else ""
    compared = f"parts of the recordings of {len(cut)} splits, needed {needed:g} s (window {window_s:g} s){whole}"
    remarks = [
        f"{label}: trained and tested on one recording; few effective samples, no statement about new people"
        for label in cut
        if label in folds and folds[label].unit == WITHIN_RECORDING
    ]
    return finding(OVERLAP, compared, problems, remarks)


def _near(label: str, segments: Segments, t_r: Mapping[RecordingKey, float], needed: float) -> list[str]:
    problems = []
    for a, b in itertools.combinations(segments, 2):
        for key in segments[a].keys() & segments[b].keys():
            early, late = sorted((segments[a][key], segments[b][key]))
            volumes = late[0] - (early[1] - 1)  # from the last volume of one part to the first of the next
            distance = volumes * t_r[key]
            if distance < needed - 1e-9:
                problems.append(
                    f"{label}: {a} {segments[a][key]} and {b} {segments[b][key]} of {key} are {distance:.1f} s apart, "
                    f"needed are {needed:g} s; leave folds.gap_s out or set it to {needed:g}"
                )
    return problems


def check_scaling(
    plan: Plan,
    folds: Mapping[str, Fold],
    scales: Mapping[RecordingKey, Float],
    used: Sequence[UsedScale],
    target: str,
) -> Finding:
    """Every scale in use is the median over the split's training recordings, recomputed here from their own scales."""
    cut = [label for label, sides in plan.sides.items() if sides.segments is not None]
    asked = [one for one in used if one.fold not in cut]
    medians_R = {label: _median(scales, plan.sides[label].train) for label in {one.fold for one in asked}}
    problems = []
    for one in asked:
        given_R = np.asarray(one.scale_R, float)
        if not _equal(given_R, medians_R[one.fold]):
            roles = _roles(plan.sides[one.fold], folds.get(one.fold))
            seen = _equal(given_R, _median(scales, [key for keys in roles.values() for key in keys]))
            more = "; it is that of all recordings, test included" if seen else ""
            problems.append(f"{one.user}: the target scale is not the median over the training recordings{more}")
    remarks = []
    if target == "paper":
        remarks = [
            "target: paper filters and scales every recording with the whole of it, held-out ones too (strict does not)"
        ]
    compared = f"scales of {len(asked)} trainings and held-out sides with their training recordings"
    if cut:  # nobody reads scale_R there: each part is scaled by the training volumes of its own recording
        compared += f"; not applicable to {len(cut)} splits within recordings, which use no scale of other recordings"
    found = finding(SCALING, compared, problems, remarks)
    return replace(found, verdict="not applicable") if cut and found.verdict == "pass" else found


def _median(scales: Mapping[RecordingKey, Float], keys: Sequence[RecordingKey]) -> Float:
    table_NR = np.stack([np.asarray(scales[key], float) for key in keys])
    known_R = np.isfinite(table_NR).any(0)
    median_R = np.full(table_NR.shape[1], np.nan)
    median_R[known_R] = np.nanmedian(table_NR[:, known_R], axis=0)
    return median_R


def _equal(a_R: Float, b_R: Float) -> bool:
    return a_R.shape == b_R.shape and bool(np.allclose(a_R, b_R, rtol=1e-6, atol=0, equal_nan=True))


def check_target_derived(sketches: Mapping[RecordingKey, Sketch]) -> Finding:
    """No EEG channel follows a parcel, by its mean or its power, so closely that it must be made from it."""
    related = {key: sketch.relation for key, sketch in sketches.items() if sketch.relation is not None}
    lines = {
        key: f"{key}: {one.feature} correlates by {one.r:.2f} with {one.parcel}"
        for key, one in related.items()
        if one.r >= STRONG_R and one.p < CHANCE
    }
    fail = [line for key, line in lines.items() if related[key].r >= DERIVED_R]
    warn = [line for line in lines.values() if line not in fail]
    highest = max((one.r for one in related.values()), default=float("nan"))
    compared = (
        f"mean and log power of every channel with every parcel in {len(related)} recordings, highest {highest:.2f}"
    )
    return finding(TARGETS, compared, fail, warn)


def check_selection(plan: Plan, folds: Mapping[str, Fold]) -> Finding:
    """What stops or chooses a training that is scored holds nothing of its test side."""
    problems = []
    for label, fold in folds.items():
        sides, test = plan.sides[label], set(fold.test)
        if sides.segments is None and (both := sorted(str(key) for key in {*sides.val} & test)):
            problems.append(f"{label}: {', '.join(both[:5])} selects and is tested")
        watched = {key for _, keys in sides.watch for key in keys}
        if both := sorted(str(key) for key in watched & test):
            problems.append(f"{label}: {', '.join(both[:5])} is watched during training and tested")
    oracle = [f"rule {ORACLE}: the test side itself chooses the variant; an upper bound, not deployable"]
    compared = f"validation and watched recordings of {len(folds)} folds with their test sides, rule {plan.selection}"
    return finding(SELECTION, compared, problems, oracle if plan.selection == ORACLE else ())
