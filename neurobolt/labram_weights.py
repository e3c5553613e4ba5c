"""LaBraM checkpoints: the spatiotemporal branch read from one, and written as one.

LaBraM (ICLR 2024, MIT) publishes its weights under the prefix ``student.``; mask token, language-model head and final
norm of its pre-training have no place in NeuroBOLT. The branch's own final norm starts fresh, as in the paper.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from neurobolt.spatiotemporal import Spatiotemporal
from neurobolt.storage import differences

STUDENT = "student."
_WHOLE = {"cls_token": "cls_token", "spatial_embedding": "pos_embed", "temporal_embedding": "time_embed"}
_PARTS = {"encoder": "patch_embed", "norm": "fc_norm"}
# parts of the pre-training that no branch of ours has a place for
_PRETRAINING = ("mask_token", "lm_head.", "norm.", "fc_norm.", "head.")


class HasBranch(Protocol):
    """A model with LaBraM's part in it."""

    spatiotemporal: Spatiotemporal


Model = TypeVar("Model", bound=HasBranch)


def labram_name(name: str) -> str:
    """Name of a parameter of the spatiotemporal branch in a LaBraM checkpoint.

    Examples
    --------
    >>> labram_name("blocks.3.attention.qkv.weight")
    'student.blocks.3.attn.qkv.weight'
    """
    return STUDENT + branch_name(name)


def branch_name(name: str) -> str:
    """Name of a parameter of the spatiotemporal branch in both published layouts, without LaBraM's prefix."""
    if name in _WHOLE:
        return _WHOLE[name]
    part, _, rest = name.partition(".")
    if part == "blocks":
        return name.replace(".attention.", ".attn.", 1)
    return f"{_PARTS[part]}.{rest}"


def to_labram(model: HasBranch) -> dict[str, Tensor]:
    """State dict of the spatiotemporal branch in LaBraM's layout; :func:`load_labram` reads it back exactly."""
    branch = model.spatiotemporal.state_dict()
    return {labram_name(name): branch[name].detach().clone() for name in branch if not name.startswith("norm.")}


def load_labram(model: Model, source: str | Path | Mapping[str, Any], *, source_name: str | None = None) -> Model:
    """Fill the spatiotemporal branch of ``model`` from a LaBraM checkpoint, in place; its final norm stays as it is.

    ``model`` is a :class:`neurobolt.NeuroBOLT` or the rival :class:`neurobolt.rivals.labram.LaBraM`.

    Only what stands under ``student.`` is read. A temporal embedding with more steps than the model has patches gives
    its first ones.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a checkpoint of tensors, or one of another layout: the message lists what is missing, what is of another
        shape, and what under ``student.`` is neither part of the branch nor of LaBraM's pre-training.
    """
    state, name = read_state(source)
    branch = model.spatiotemporal
    own = {key: labram_name(key) for key in branch.state_dict() if not key.startswith("norm.")}
    found = {
        key: tensor
        for key, tensor in state.items()
        if key.startswith(STUDENT) and not key.removeprefix(STUDENT).startswith(_PRETRAINING)
    }
    place, n_patches = own["temporal_embedding"], branch.n_patches
    if place in found and found[place].ndim == 3 and found[place].shape[1] > n_patches:
        found[place] = found[place][:, :n_patches]
    expected = {theirs: tuple(branch.state_dict()[key].shape) for key, theirs in own.items()}
    problems = differences(expected, found)
    if problems:
        raise ValueError(f"{source_name or name}: not a LaBraM checkpoint that fits this model: {problems}")
    branch.load_state_dict({**branch.state_dict(), **{key: found[theirs] for key, theirs in own.items()}})
    return model


def read_state(source: str | Path | Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """Tensors of a published checkpoint, and its name for messages; the weights may lie under the key ``model``.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a checkpoint, or one that holds anything but tensors and ``argparse.Namespace``: code is never run.
    """
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
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give a .pth or .safetensors file (neurobolt.load reads what save wrote)")
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
    except Exception as error:  # bytes that are no checkpoint make the readers fail in any way: KeyError 101 for a text
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: not a checkpoint that torch or safetensors can read ({what})") from error
