"""Modules of one architecture: whether they are, and their tensors by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from xsite.errors import RecipeError


class UnstackableError(RecipeError):
    """The models do something that cannot be done for several of them at once; one by one they can be trained."""


def fixed_names(module: nn.Module) -> list[str]:
    """What no optimiser step changes: frozen parameters, then buffers."""
    frozen = [name for name, p in module.named_parameters() if not p.requires_grad]
    return [*frozen, *(name for name, _ in module.named_buffers())]


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """Parameter or buffer by its dotted name."""
    path, _, last = name.rpartition(".")
    return cast("Tensor", getattr(module.get_submodule(path), last))


def flattened(module: nn.Module, names: Sequence[str]) -> Tensor:
    """Parameters one after the other, shape (P,), without history."""
    return torch.cat([tensor_of(module, name).detach().reshape(-1) for name in names])


def check_alike(modules: Sequence[nn.Module]) -> None:
    """Refuse modules that differ in structure, configuration, shapes, types, or in what is trained.

    Raises
    ------
    UnstackableError
        Names the first module that is unlike module 0.
    """
    first = _signature(modules[0])
    for number, module in enumerate(modules[1:], start=1):
        if _signature(module) != first:
            raise UnstackableError(
                f"models 0 and {number} of a stack differ in architecture: only one model, preset and set of options "
                "with the same channels and outputs can be stacked; set scale.stack to 1"
            )


def _signature(module: nn.Module) -> tuple[Any, ...]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    # a switch such as an activation before the head shows in no shape and in no repr
    options = [(name, repr(part.config)) for name, part in module.named_modules() if hasattr(part, "config")]
    return repr(module), options, [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors]
