"""A model on disk: ``model.safetensors`` and ``config.json`` in one folder. No pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from neurobolt.catalogue import NEUROBOLT, name_of, rebuild

FORMAT = "neurobolt/1"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save(model: torch.nn.Module, folder: str | Path) -> Path:
    """Write weights and configuration of any model of this package; each file appears whole or not at all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        The model is none of :func:`neurobolt.catalogue.names`.
    """
    content = {"format": FORMAT, "model": name_of(model), "config": model.config.to_dict()}  # type: ignore[operator, union-attr]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    weights, config = folder / (WEIGHTS + ".part"), folder / (CONFIG + ".part")
    save_file(state, weights)
    config.write_text(json.dumps(content, indent=2), encoding="utf-8")
    weights.replace(folder / WEIGHTS)
    config.replace(folder / CONFIG)
    return folder


def load(folder: str | Path) -> Any:
    """Read a model that :func:`save` wrote; in evaluation mode.

    Raises
    ------
    FileNotFoundError
        One of the two files is absent.
    ValueError
        A file is damaged, of another format, or the weights do not fit the configuration.
    """
    folder = Path(folder)
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: no saved model, {' and '.join(missing)} not found")
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ValueError(f"{folder}: damaged checkpoint: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{folder / CONFIG}: not a configuration of format {FORMAT!r}, which neurobolt.save writes")
    # files of before the rivals name no model
    config = content.get("config")
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG}: damaged checkpoint: no configuration under 'config'")
    model = rebuild(str(content.get("model", NEUROBOLT)), config)
    fit(model, state, source=str(folder / WEIGHTS))
    return model.eval()


def fit(model: torch.nn.Module, state: dict[str, torch.Tensor], *, source: str) -> None:
    """Load weights that must match name by name and shape by shape.

    Raises
    ------
    ValueError
        Lists what is missing, what is unknown and which shapes differ.
    """
    problems = differences({k: tuple(v.shape) for k, v in model.state_dict().items()}, state)
    if problems:
        raise ValueError(f"{source}: weights do not fit the configuration: {problems}")
    model.load_state_dict(state)


def differences(expected: dict[str, tuple[int, ...]], state: dict[str, torch.Tensor], most: int = 8) -> str:
    """Words for what is missing, unknown or of another shape; an empty string if nothing is."""
    parts = {
        "missing": [name for name in expected if name not in state],
        "not expected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in state and tuple(state[name].shape) != shape
        ],
    }
    words = []
    for title, names in parts.items():
        if names:
            more = f" and {len(names) - most} more" if len(names) > most else ""
            words.append(f"{len(names)} {title}: {', '.join(names[:most])}{more}")
    return "; ".join(words)
