"""Errors on recordings that decide nothing in this training: noted after each epoch, read by a rule that selects later.

An inner run of nested selection leaves two sites out and is watched at both; each outer fold reads the curve of the
*other* site only (:mod:`xsite.evaluation.selection`). Nothing here touches weights, optimiser or random state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from xsite.data.window_source import WindowSource
from xsite.errors import RecipeError
from xsite.experiment_parts import Precision
from xsite.learning.algorithms.erm import squared_error

PREFIX = "val_error/"
BATCH = 64


class Watch:
    """Call it between epochs.

    Parameters
    ----------
    model : nn.Module
        As it is being trained.
    sources : mapping of label to sequence of WindowSource
        One error per label, over all of its windows.
    precision : {"float32", "bfloat16"}

    Raises
    ------
    RecipeError
        A label has no window with a target, so that its error is not defined.
    """

    def __init__(
        self, model: nn.Module, sources: Mapping[str, Sequence[WindowSource]], precision: Precision = "float32"
    ) -> None:
        self.model, self.sources, self.precision = model, dict(sources), precision
        self.power = {label: sum(map(_power, group)) for label, group in self.sources.items()}
        if empty := [label for label, power in self.power.items() if not power > 0]:
            raise RecipeError(f"{', '.join(empty)}: no window with a target, so no error to select with")

    @torch.no_grad()
    def __call__(self) -> dict[str, float]:
        """``val_error/<label>``: squared error over the squared target, 1 for a model that predicts zero (no unit).

        Relative, because sites differ in the variance of their targets, and the loudest would decide alone.
        """
        was_training = self.model.training
        self.model.eval()
        errors = {
            PREFIX + label: sum(map(self._error, group)) / self.power[label] for label, group in self.sources.items()
        }
        self.model.train(was_training)
        return errors

    def _error(self, source: WindowSource) -> float:
        device = next(self.model.parameters()).device
        total = 0.0
        for start in range(0, len(source), BATCH):
            batch, target_BR, mask_BR = source.gather(np.arange(start, min(start + BATCH, len(source))))
            with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                predicted_BR = self.model(batch.to(device))
            total += float(squared_error(predicted_BR, target_BR.to(device), mask_BR.to(device))[0])
        return total


def _power(source: WindowSource) -> float:
    rows = source.row_W
    return float((source.target_VR[rows] ** 2 * source.mask_VR[rows]).double().sum())
