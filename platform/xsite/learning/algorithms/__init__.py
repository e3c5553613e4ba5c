"""Algorithms: how a batch of several sites becomes one loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from xsite.errors import RecipeError
from xsite.learning.algorithms.coral import CORAL
from xsite.learning.algorithms.dann import DANN
from xsite.learning.algorithms.erm import ERM
from xsite.learning.algorithms.group_dro import GroupDRO
from xsite.learning.algorithms.irm import IRM
from xsite.learning.algorithms.mixstyle import MixStyle
from xsite.learning.algorithms.mixup import Mixup
from xsite.learning.algorithms.mmd import MMD
from xsite.learning.algorithms.site_balanced import SiteBalanced
from xsite.learning.algorithms.site_norm import SiteNorm
from xsite.learning.algorithms.swa import SWA
from xsite.learning.algorithms.swad import SWAD
from xsite.learning.algorithms.vrex import VREx
from xsite.spelling import did_you_mean

ALGORITHMS: dict[str, Callable[..., nn.Module]] = {
    "erm": ERM,
    "site-balanced": SiteBalanced,
    "coral": CORAL,
    "mmd": MMD,
    "group-dro": GroupDRO,
    "irm": IRM,
    "vrex": VREx,
    "dann": DANN,
    "mixup": Mixup,
    "mixstyle": MixStyle,
    "swa": SWA,
    "swad": SWAD,
    "site-norm": SiteNorm,
}


def build_algorithm(name: str, options: dict[str, Any], model: nn.Module) -> nn.Module:
    """Wrap ``model`` into the algorithm of that name.

    Raises
    ------
    RecipeError
        Unknown name or option, a value out of range, or a model without the parts that the algorithm needs.
    """
    if name not in ALGORITHMS:
        raise RecipeError(
            f"algorithm.name is {name!r}{did_you_mean(name, ALGORITHMS)}, expected one of {sorted(ALGORITHMS)}"
        )
    try:
        return ALGORITHMS[name](model, **options)
    except TypeError as error:
        raise RecipeError(f"algorithm.options {sorted(options)} do not fit {name!r}: {error}") from error


__all__ = [
    "ALGORITHMS",
    "CORAL",
    "DANN",
    "ERM",
    "IRM",
    "MMD",
    "SWA",
    "SWAD",
    "GroupDRO",
    "MixStyle",
    "Mixup",
    "SiteBalanced",
    "SiteNorm",
    "VREx",
    "build_algorithm",
]
