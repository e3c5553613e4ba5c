"""Fine-tune a finished model on k labelled subjects of a site that it has never seen.

Early stopping sees those subjects only. With two or more, the last one stops the training of the others; a single one
is cut in time, with a gap. The number of epochs that this finds is then trained again on all k subjects, whole. Where
no epoch is better than none, the model stays as it is. Shapes: ``V`` volumes, ``R`` parcels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xsite.data.window_source import WindowSource
from xsite.data.windows import build_source
from xsite.errors import RecipeError
from xsite.evaluation.folds import HAEMODYNAMIC_S
from xsite.experiment import Experiment
from xsite.experiment_parts import Optim
from xsite.learning.adaptation import input_alignment
from xsite.learning.adapters import adaptable_layers, add_adapters, merge_adapters
from xsite.learning.algorithms.erm import squared_error
from xsite.learning.loop import fit
from xsite.learning.predict import channel_index_for, input_channels
from xsite.learning.probe import noise_windows
from xsite.learning.seeds import seed_everything
from xsite.learning.targets import TargetSpec, unseen_target
from xsite.recording import Float, Recording

Part = Literal["head", "norms", "adapters", "all"]
PARTS: tuple[Part, ...] = get_args(Part)
"""``head``: what turns features into parcels. ``norms``: the head and the gains and offsets of all normalisation layers
(few numbers spread over the depth). ``adapters``: the head and low-rank updates of all other linear layers
(:mod:`xsite.learning.adapters`). ``all``: everything, at a tenth of the learning rate."""
RATE: dict[Part, float] = {"head": 1.0, "norms": 1.0, "adapters": 1.0, "all": 0.1}
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
EPOCHS = 30
SMALLEST_BATCH = 4
PATIENCE = 5
VAL_SHARE = 0.25


@dataclass(frozen=True)
class Calibrated:
    """A fine-tuned copy of a model.

    Parameters
    ----------
    model : nn.Module
        Plain: adapters are merged into its weights.
    best_epoch : int
        0 where fine-tuning was no better than leaving the model alone.
    errors : tuple of float
        Error on the subjects that stop: before, then after every epoch.
    n_trained : int
        How many numbers the part has that were free to move.
    """

    model: nn.Module
    best_epoch: int
    errors: tuple[float, ...]
    n_trained: int


class PartlyTrained(nn.Module):
    """Masked squared error; what does not train is kept in evaluation mode (no dropout, no running statistics)."""

    def __init__(self, model: nn.Module, part: Part) -> None:
        super().__init__()
        self.model, self.part = model, part

    def train(self, mode: bool = True) -> PartlyTrained:
        """As usual for ``all``; else the model stays as it predicts."""
        super().train(mode)
        if self.part != "all":
            self.model.eval()
        return self

    def forward(self, batch: Any, target_BR: Tensor, mask_BR: Tensor) -> dict[str, Tensor]:
        """Loss of one batch."""
        total, count = squared_error(self.model(batch), target_BR, mask_BR)
        return {"loss": total / count.clamp(min=1)}


def finetune(
    model: nn.Module, config: Mapping[str, Any], recordings: Sequence[Recording], *, part: Part, seed: int
) -> Calibrated:
    """Fine-tune a copy of ``model`` on the recordings of k subjects.

    Parameters
    ----------
    model : nn.Module
        With the weights of a finished checkpoint; not changed.
    config : mapping
        Its ``config.json``.
    recordings : sequence of Recording
        All of the k subjects' recordings, in the order of the draw: the last subject stops the training.
    part : {"head", "norms", "adapters", "all"}
    seed : int

    Raises
    ------
    RecipeError
        The recordings are too short: no window to train on, or none to stop on; or adapters find no linear layer.
    """
    spec = TargetSpec.from_dict(config["target"])
    device = next(model.parameters()).device
    targets = [np.asarray(unseen_target(recording, spec)) for recording in recordings]
    train, val = stopping_split(recordings, targets, window_s=float(getattr(model, "window_s", 16.0)))
    sources = [_source(model, config, side, device) for side in (train, val)]
    if not all(map(len, sources)):
        raise RecipeError(
            f"{', '.join(str(r.key) for r in recordings)}: too short to train on one part and stop on another"
        )
    base = Experiment.model_validate(config["experiment"]).optim
    optim = finetuning_optim(base, part, len(sources[0]))
    first = trainable_copy(model, part, sources[0], seed=seed)
    n_trained = sum(p.numel() for p in first.parameters() if p.requires_grad)
    before = masked_error(model, sources[1])
    found = fit(PartlyTrained(first, part), sources[0], sources[1], optim, seed=seed, device=device)
    errors = (before, *(row["val_loss"] for row in found.history))
    best_epoch = int(np.argmin(errors))
    if best_epoch == 0:
        return Calibrated(copy.deepcopy(model).eval(), 0, errors, n_trained)
    whole = _source(model, config, list(zip(recordings, targets, strict=True)), device)
    seed_everything(seed)
    last = trainable_copy(model, part, whole, seed=seed)
    optim = finetuning_optim(base, part, len(whole))
    result = fit(PartlyTrained(last, part), whole, None, optim, seed=seed, n_epochs=best_epoch, device=device)
    last.load_state_dict(result.best_state)
    return Calibrated(merge_adapters(last).requires_grad_(True).eval(), best_epoch, errors, n_trained)


def finetuning_optim(optim: Optim, part: Part, n_windows: int) -> Optim:
    """The study's own optimiser at the part's rate, without warm-up, with patience.

    Batches are small enough for eight steps per epoch: one scan is a hundred windows, two batches of the study.
    """
    changes = {"lr": optim.lr * RATE[part], "min_lr": min(optim.min_lr, optim.lr * RATE[part]), "epochs": EPOCHS}
    batch_size = min(optim.batch_size, max(SMALLEST_BATCH, n_windows // 8))
    fixed = {"warmup_epochs": 0, "patience": PATIENCE, "windows_per_epoch": None, "compile": False}
    return optim.model_copy(update={**changes, **fixed, "batch_size": batch_size})


Sided = tuple[Recording, Float]


def stopping_split(
    recordings: Sequence[Recording], targets: Sequence[Float], *, window_s: float
) -> tuple[list[Sided], list[Sided]]:
    """Who trains and who stops: other subjects, or, of a single one, other volumes.

    In time, the last quarter stops. The gap before it is one window and the haemodynamic delay, so that no sample of
    EEG serves both sides.
    """
    pairs = list(zip(recordings, targets, strict=True))
    last = recordings[-1].key.subject_id
    if any(recording.key.subject_id != last for recording in recordings):
        train = [pair for pair in pairs if pair[0].key.subject_id != last]
        return train, [pair for pair in pairs if pair[0].key.subject_id == last]
    sides = [_in_time(recording, target_VR, window_s) for recording, target_VR in pairs]
    return [one for one, _ in sides], [other for _, other in sides]


def _in_time(recording: Recording, target_VR: Float, window_s: float) -> tuple[Sided, Sided]:
    n_val = max(1, round(VAL_SHARE * recording.n_volumes))
    gap = int(np.ceil((window_s + HAEMODYNAMIC_S) / recording.t_r))
    place_V1 = np.arange(recording.n_volumes)[:, None]
    first_val = recording.n_volumes - n_val
    train_VR = np.where(place_V1 < first_val - gap, target_VR, np.nan)
    return (recording, train_VR), (recording, np.where(place_V1 >= first_val, target_VR, np.nan))


def part_parameters(model: nn.Module, part: Part, source: WindowSource) -> list[nn.Parameter]:
    """The model's own parameters of a part; adapters add theirs to the head's (:func:`trainable_copy`).

    The head's are those that the model's ``head`` uses, found by asking for gradients.
    """
    if part == "all":
        return list(model.parameters())
    batch = source.gather(np.arange(min(2, len(source))))[0]
    anyone = cast(Any, model)
    with torch.no_grad():
        z_BD = anyone.features(batch)
    everyone = list(model.requires_grad_(True).parameters())
    with torch.enable_grad():
        grads = torch.autograd.grad(anyone.head(z_BD).sum(), everyone, allow_unused=True)
    chosen = [parameter for parameter, grad in zip(everyone, grads, strict=True) if grad is not None]
    if part == "norms":
        known = {id(parameter) for parameter in chosen}
        layers = [layer for layer in model.modules() if isinstance(layer, NORMS)]
        chosen += [p for layer in layers for p in layer.parameters() if id(p) not in known]
    return chosen


@torch.no_grad()
def masked_error(model: nn.Module, source: WindowSource) -> float:
    """Mean squared error over all windows of a source."""
    model.eval()
    total, count = 0.0, 0
    for start in range(0, len(source), 64):
        batch, target_BR, mask_BR = source.gather(np.arange(start, min(start + 64, len(source))))
        own, n = squared_error(model(batch), target_BR, mask_BR)
        total, count = total + float(own), count + int(n)
    return total / max(count, 1)


def trainable_copy(model: nn.Module, part: Part, source: WindowSource, *, seed: int) -> nn.Module:
    """A copy of which the part alone may move; it predicts exactly what the model predicts.

    Raises
    ------
    RecipeError
        Adapters find no linear layer.
    """
    own = copy.deepcopy(model)
    chosen = {id(parameter) for parameter in part_parameters(own, part, source)}
    for parameter in own.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
    if part == "adapters":
        add_adapters(own, chosen, seed=seed)
    return own


def check_part(model: nn.Module, config: Mapping[str, Any], part: Part) -> None:
    """Whether a model has such a part, before any recording is read.

    Raises
    ------
    RecipeError
        Adapters find no linear layer.
    """
    if part == "adapters":
        few = noise_windows(model, config["ch_names"], len(config["parcels"]), 2)
        adaptable_layers(model, {id(parameter) for parameter in part_parameters(model, "head", few)})


def _source(model: nn.Module, config: Mapping[str, Any], side: Sequence[Sided], device: torch.device) -> WindowSource:
    data = config["experiment"]["data"]
    targets: list[NDArray[Any]] = [np.asarray(target_VR) for _, target_VR in side]
    names = tuple(config["ch_names"])
    if data["channels"] == "native":  # one site has one cap, but a recording may lack a bad electrode
        known = [input_channels(recording, config, model) for recording, _ in side]
        names = tuple(name for name in known[0] if all(name in others for others in known))
    return build_source(
        [recording for recording, _ in side],
        ch_names=names,
        ch_index=channel_index_for(model, side[0][0]),
        targets=targets,
        window_s=float(getattr(model, "window_s", 16.0)),
        sfreq=float(getattr(model, "sfreq", 200.0)),
        channels=data["channels"],
        reference=config["reference"],
        high_pass=data.get("high_pass"),
        statistics=getattr(model, "recording_statistics", None),
        align=input_alignment(data.get("adapt", "none")),
    ).to(device)
