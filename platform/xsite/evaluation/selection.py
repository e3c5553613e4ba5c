"""Who chooses the epoch and, among variants, the model: by name, from errors that a rule may see, and never in silence.

* ``train-site-val``: validation subjects of the training sites. Epoch: lowest validation error of the run itself.
  Variant, per fold: lowest of these errors, averaged over seeds. Deployable. It knows nothing of unseen sites.
* ``leave-one-site-out-val`` (nested): for each held-out site i, inner runs that leave out i **and** one more site j are
  watched at j; site i takes no part. Epoch: minimum of the curve averaged over all j and all seeds, the same for every
  seed. Variant, per fold: lowest such minimum. The outer run then trains on all sites but i for that many epochs, its
  validation subjects included. Deployable. The run without {i, j} serves both folds: ``S + S (S - 1) / 2`` runs.
* ``oracle``: no epoch is chosen (the last one counts), and the variant is the one that is best on the test site itself.
  An upper bound for what selection could ever gain; not deployable.

After Gulrajani & Lopez-Paz 2021, *In search of lost domain generalization* (ICLR), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xsite.errors import FoldError
from xsite.evaluation.plan import Plan, Run
from xsite.evaluation.subjects import subject_scores

SELECTED = "selected"
"""Model name under which the chosen variants are scored, where there are several."""
RULES = {
    "train-site-val": "validation subjects of the training sites choose epoch and variant",
    "leave-one-site-out-val": "nested: inner held-out sites choose epoch and variant; the test site takes no part",
    "oracle": "NOT DEPLOYABLE: last epoch, and the variant that is best on the test site itself",
}
WATCHED = "val_error/"
History = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Choice:
    """What a rule makes of one variant in one fold.

    Parameters
    ----------
    fold, variant : str
    error : float
        What the rule compares variants by; smaller is better. NaN where nothing was measured.
    n_epochs : int, optional
        How long the outer run trains; None where it decides itself.
    """

    fold: str
    variant: str
    error: float
    n_epochs: int | None = None


def deployable(rule: str) -> bool:
    """Whether a model chosen by this rule may be registered: an oracle has seen the test site."""
    return rule != "oracle"


def nested_choice(fold: str, variant: str, plan: Plan, histories: Mapping[str, History]) -> Choice:
    """Epochs of one outer run from the inner runs that leave its site out.

    Parameters
    ----------
    histories : mapping of run label to rows per epoch
        With ``val_error/<site>`` (:class:`xsite.learning.watch.Watch`).

    Raises
    ------
    FoldError
        No inner run leaves this fold out.
    """
    curves = []
    for run in plan.of("inner"):
        watched = [label for label, _ in plan.sides[run.fold].watch]
        if run.variant == variant and fold in watched:
            other = next(label for label in watched if label != fold)
            curves.append([row[WATCHED + other] for row in histories[run.label]])
    if not curves:
        raise FoldError(f"nested selection: no inner run of {variant!r} leaves {fold!r} out")
    length = min(map(len, curves))
    mean_E = np.mean([curve[:length] for curve in curves], axis=0)
    best = int(np.argmin(mean_E))
    return Choice(fold, variant, float(mean_E[best]), best + 1)


def validation_choice(fold: str, variant: str, runs: Sequence[Run], histories: Mapping[str, History]) -> Choice:
    """Error of a variant on the validation subjects, at each seed's own best epoch."""
    lowest = [
        min((row["val_loss"] for row in histories[run.label] if "val_loss" in row), default=math.nan)
        for run in runs
        if run.fold == fold and run.variant == variant
    ]
    return Choice(fold, variant, float(np.mean(lowest)) if lowest else math.nan)


def oracle_choice(fold: str, variant: str, scores: pd.DataFrame) -> Choice:
    """Error of a variant on the test side itself, whose ``scores`` these are: 1 - mean R over subjects."""
    own = scores[(scores["model"] == variant) & ~scores["control"].astype(bool)]
    r = subject_scores(own)["r"] if len(own) else pd.Series(dtype=float)
    return Choice(fold, variant, float(1 - r.fillna(0.0).mean()) if len(r) else math.nan)


def choose(choices: Sequence[Choice]) -> dict[str, Choice]:
    """Best variant of each fold; of equals, the first in the recipe."""
    best: dict[str, Choice] = {}
    for choice in choices:
        error = math.inf if math.isnan(choice.error) else choice.error
        if choice.fold not in best or error < best[choice.fold].error:
            best[choice.fold] = choice
    return best


def selection_record(rule: str, choices: Sequence[Choice], seeds: Sequence[int]) -> dict[str, Any]:
    """Content of ``selection.json``: the rule, in a sentence too, and what it chose in every fold."""
    chosen = choose(choices)
    return {
        "rule": rule,
        "sentence": RULES[rule],
        "deployable": deployable(rule),
        "seeds": list(seeds),
        "chosen": {fold: choice.variant for fold, choice in chosen.items()},
        "choices": [vars(choice) for choice in choices],
    }
