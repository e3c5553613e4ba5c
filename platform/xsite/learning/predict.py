"""Predict whole recordings, each window once. Shapes: ``V`` volumes, ``R`` parcels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xsite.data.windows import build_source
from xsite.errors import ChannelError
from xsite.learning.adaptation import adapted_outputs, input_alignment
from xsite.recording import Recording


def input_channels(recording: Recording, config: Mapping[str, Any], model: nn.Module) -> tuple[str, ...]:
    """Channels of ``recording`` that the model is given.

    A model of common channels demands all of them, one of a spline montage fills the absent ones in; a native one takes
    those of the recording's own that it accepts (:func:`accepted_channels`).

    Raises
    ------
    ChannelError
        A needed channel is absent, or the model knows none of the recording's channels.
    """
    known = tuple(config["ch_names"])
    if config["experiment"]["data"]["channels"] != "native":
        return known  # harmonize names the missing ones
    own = accepted_channels(model, recording, known)
    if not own:
        raise ChannelError(f"{recording.key}: the model knows none of its channels {', '.join(recording.ch_names)}")
    return own


def accepted_channels(model: nn.Module, recording: Recording, known: Collection[str]) -> tuple[str, ...]:
    """The recording's channels that a model of its own montage can read, in the recording's order.

    Those that it was trained with, and every other one that its ``channel_index`` takes beside them: by place, or as
    the nearest electrode, where the model is made for that.
    """
    index = channel_index_for(model, recording)
    kept = [name for name in recording.ch_names if name in known]
    for name in recording.ch_names:
        if name in known:
            continue
        try:
            index([*kept, name])
        except ValueError:  # unknown to the model, or an electrode that has already spoken under another name
            continue
        kept.append(name)
    return tuple(name for name in recording.ch_names if name in kept)


def channel_index_for(model: nn.Module, recording: Recording) -> Callable[[Sequence[str]], Tensor]:
    """The model's ``channel_index``; one that reads positions is told which electrodes of the recording have one."""
    index: Callable[..., Tensor] = cast(Any, model).channel_index
    if not getattr(model, "reads_positions", False):
        return index
    positions_C3 = recording.montage.positions
    placed = [name for name, xyz in zip(recording.ch_names, positions_C3, strict=True) if np.isfinite(xyz).all()]
    return partial(index, placed=placed)


@torch.no_grad()
def predict_recording(
    model: nn.Module,
    recording: Recording,
    *,
    config: Mapping[str, Any],
    batch_size: int = 64,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Predicted target of every volume.

    Parameters
    ----------
    model : nn.Module
        ``forward(batch) -> bold_BR`` with ``channel_index(ch_names)``.
    config : mapping
        ``config.json`` of the model's checkpoint: ``ch_names``, ``parcels``, ``reference``, ``experiment``.

    Returns
    -------
    float32 array, shape (V, R)
        In the units of the model's target; NaN for volumes without a complete, valid window.
    """
    source = build_source(
        [recording],
        ch_names=input_channels(recording, config, model),
        ch_index=channel_index_for(model, recording),
        targets=None,
        window_s=float(getattr(model, "window_s", 16.0)),
        sfreq=float(getattr(model, "sfreq", 200.0)),
        channels=config["experiment"]["data"]["channels"],
        reference=config["reference"],
        high_pass=config["experiment"]["data"].get("high_pass"),  # checkpoints of earlier studies know none
        statistics=getattr(model, "recording_statistics", None),
        align=input_alignment(config["experiment"]["data"].get("adapt", "none")),
    ).to(device)
    predicted_VR = np.full((recording.n_volumes, len(config["parcels"])), np.nan, dtype=np.float32)
    volume_W = source.windows["volume"].to_numpy()
    was_training = model.training
    model.to(device).eval()
    if len(source):
        predicted_VR[volume_W] = adapted_outputs(model, source, config, batch_size).cpu().numpy()
    model.train(was_training)
    return predicted_VR
