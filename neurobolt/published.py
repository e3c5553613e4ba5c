"""Checkpoints as the authors publish them: read, written back, and refused when they are something else."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from neurobolt.channels import VU_NAMES
from neurobolt.config import NeuroBOLTConfig
from neurobolt.model import NeuroBOLT
from neurobolt.spectral import sinusoid
from neurobolt.storage import differences

# our name -> published name, first match wins; names that no rule changes are the same in both
_RULES: tuple[tuple[str, str], ...] = (
    (r"^output\.", "head."),
    (r"^spatiotemporal\.cls_token$", "cls_token"),
    (r"^spatiotemporal\.spatial_embedding$", "pos_embed"),
    (r"^spatiotemporal\.temporal_embedding$", "time_embed"),
    (r"^spatiotemporal\.encoder\.", "patch_embed."),
    (r"^spatiotemporal\.norm\.", "fc_norm."),
    (r"^spatiotemporal\.blocks\.(\d+)\.attention\.", r"blocks.\1.attn."),
    (r"^spatiotemporal\.blocks\.", "blocks."),
    (r"^spectral\.projections\.(\d+)\.", r"mss_module.patch_embedding.\1.projection."),
    (r"^spectral\.mixers\.(\d+)\.", r"mss_module.ts_embedding.\1.projection."),
    (r"^spectral\.blocks\.(\d+)\.attention\.", r"mss_module.transformer.layers.layers.\1.0.fn."),
    (r"^spectral\.blocks\.(\d+)\.norm1\.", r"mss_module.transformer.layers.layers.\1.0.norm."),
    (r"^spectral\.blocks\.(\d+)\.norm2\.", r"mss_module.transformer.layers.layers.\1.1.norm."),
    (r"^spectral\.blocks\.(\d+)\.mlp\.fc(\d)\.", r"mss_module.transformer.layers.layers.\1.1.fn.fn.w\2."),
    (r"^spectral\.", "mss_module."),
)
_INDEX = "mss_module.index"
_POSITION = "mss_module.positional_encoding.pe"
_N_POSITIONS = 1000
_STUDENT = "student."


def published_name(name: str) -> str:
    """Name of one of our parameters in a published checkpoint.

    Examples
    --------
    >>> published_name("spatiotemporal.blocks.3.attention.qkv.weight")
    'blocks.3.attn.qkv.weight'
    """
    for pattern, replacement in _RULES:
        renamed, n = re.subn(pattern, replacement, name)
        if n:
            return renamed
    return name


def to_published(model: NeuroBOLT) -> dict[str, Tensor]:
    """State dict in the published layout, buffers included; :func:`load_published` reads it back exactly."""
    state = {published_name(name): tensor.detach().clone() for name, tensor in model.state_dict().items()}
    state[_INDEX] = torch.arange(len(model.ch_names))
    state[_POSITION] = sinusoid(_N_POSITIONS, model.config.dim).unsqueeze(0)
    return state


def load_published(
    source: str | Path | Mapping[str, Any],
    *,
    ch_names: Sequence[str] = VU_NAMES,
    gelu_head: bool = True,
) -> NeuroBOLT:
    """Build the ``released`` model from a published checkpoint, in evaluation mode.

    A LaBraM checkpoint (names under ``student.``) fills the spatiotemporal branch; the rest starts fresh.

    Parameters
    ----------
    source : path or mapping of str to tensor
        A ``.pth`` or ``.safetensors`` file, or a state dict; the weights may lie under the key ``model``. Pickles are
        read with ``weights_only`` and one allowed class, ``argparse.Namespace``.
    ch_names : sequence of str
        Channels in the order of the checkpoint's channel tokens.
    gelu_head : bool
        Off for checkpoints trained with the releases of January and February 2025, which had no GELU before the head.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a checkpoint, one that holds code, or one of another layout: the message lists what differs.
    """
    state, name = _read(source)
    if any(key.startswith(_STUDENT) for key in state):
        model = NeuroBOLT(NeuroBOLTConfig.preset("released", ch_names=tuple(ch_names), gelu_head=gelu_head))
        return load_labram(model, state, source_name=name).eval()
    n_outputs = state["head.weight"].shape[0] if "head.weight" in state else 1
    config = NeuroBOLTConfig.preset("released", ch_names=tuple(ch_names), n_outputs=n_outputs, gelu_head=gelu_head)
    model = NeuroBOLT(config)
    expected = {key: tuple(tensor.shape) for key, tensor in to_published(model).items()}
    problems = differences(expected, {**{k: torch.empty(expected[k]) for k in (_INDEX, _POSITION)}, **state})
    if problems:
        raise ValueError(f"{name}: not a published NeuroBOLT checkpoint for {len(ch_names)} channels: {problems}")
    model.load_state_dict({key: state[published_name(key)] for key in model.state_dict()})
    return model.eval()


def load_labram(
    model: NeuroBOLT, source: str | Path | Mapping[str, Any], *, source_name: str | None = None
) -> NeuroBOLT:
    """Fill the spatiotemporal branch of ``model`` from a LaBraM checkpoint, in place; its final norm stays as it is.

    Raises
    ------
    ValueError
        The checkpoint lacks parts of the branch, or their shapes differ.
    """
    state, name = _read(source)
    name = source_name or name
    branch = model.spatiotemporal
    wanted = {
        key: _STUDENT + published_name(f"spatiotemporal.{key}")
        for key in branch.state_dict()
        if not key.startswith("norm.")
    }
    found = {key: state[theirs] for key, theirs in wanted.items() if theirs in state}
    expected = {wanted[key]: tuple(branch.state_dict()[key].shape) for key in wanted}
    problems = differences(expected, {wanted[key]: tensor for key, tensor in found.items()})
    if problems:
        raise ValueError(f"{name}: not a LaBraM checkpoint that fits this model: {problems}")
    branch.load_state_dict({**branch.state_dict(), **found})
    return model


def _read(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    if isinstance(source, Mapping):
        content: Any = source
        name = "state dict"
    else:
        content, name = _open(Path(source)), str(source)
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise ValueError(f"{name}: holds a {type(content).__name__}, expected a mapping of names to tensors")
    odd = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if odd or not content:
        raise ValueError(f"{name}: expected a mapping of names to tensors; not tensors: {odd[:8]}")
    return dict(content), name


def _open(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path}: refused, it is no plain checkpoint of tensors (a checkpoint may hold tensors and "
            f"argparse.Namespace, nothing else): {reason}"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{path}: not a checkpoint that torch can read: {error}") from error
