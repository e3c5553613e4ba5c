"""No training starts from what another one has learnt: hashes of initial and final weights of all runs, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xsite.evaluation.leakage import WEIGHTS, Finding, finding


@dataclass(frozen=True)
class Weights:
    """Where one training began and ended.

    Parameters
    ----------
    label, variant, fold : str
    seed : int
    started_from, trained : mapping of parameter name to hash
        Of :func:`xsite.learning.weights.weight_hashes`; empty for a checkpoint of an earlier version.
    """

    label: str
    variant: str
    fold: str
    seed: int
    started_from: Mapping[str, str]
    trained: Mapping[str, str]


def check_weights(runs: Sequence[Weights]) -> Finding:
    """Equal seeds of a fold start alike, different folds and seeds do not, and nobody starts where another one ended.

    A start that is the same in every run (weights read from a file, or a model that draws none) is a remark: the audit
    cannot know what that file has seen.
    """
    fail, warn = _carried(runs), []
    for variant in dict.fromkeys(run.variant for run in runs):
        own = [run for run in runs if run.variant == variant and run.started_from]
        for first, second in _neighbours(own):
            warn.append(f"{second.label} starts unlike {first.label}, of the same seed and fold: the draw is not fixed")
        places: dict[tuple[tuple[str, str], ...], list[Weights]] = {}
        for run in own:
            places.setdefault(tuple(sorted(run.started_from.items())), []).append(run)
        shared = [alike for alike in places.values() if len({(run.fold, run.seed) for run in alike}) > 1]
        if len(places) == 1 and shared:
            warn.append(f"{variant}: every run starts from the same weights; they must not have seen these sites")
        else:
            fail += [f"{', '.join(run.label for run in alike)} start from the same weights" for alike in shared]
    unknown = [run.label for run in runs if not run.started_from]
    warn += [f"{', '.join(unknown[:3])}: finished by an earlier version, which noted no hashes"] if unknown else []
    return finding(
        WEIGHTS, f"initial weights of {len(runs)} trainings with one another and with all results", fail, warn
    )


def _carried(runs: Sequence[Weights]) -> list[str]:
    learnt = {
        digest: run.label
        for run in runs
        for name, digest in run.trained.items()
        if run.started_from and run.started_from.get(name) != digest
    }
    problems = []
    for run in runs:
        sources = [learnt[digest] for digest in run.started_from.values() if digest in learnt]
        for source in dict.fromkeys(label for label in sources if label != run.label):
            n = sources.count(source)
            problems.append(f"{run.label} starts from {n} of {len(run.started_from)} tensors that {source} has trained")
    return problems


def _neighbours(runs: Sequence[Weights]) -> list[tuple[Weights, Weights]]:
    """Pairs of one fold and seed (a run and its control) that start unlike."""
    first: dict[tuple[str, int], Weights] = {}
    pairs = []
    for run in runs:
        other = first.setdefault((run.fold, run.seed), run)
        if dict(other.started_from) != dict(run.started_from):
            pairs.append((other, run))
    return pairs
