"""Folders of safetensors and JSON that exist completely or not at all.

::

    <folder>/
      model.safetensors   weights
      config.json         everything that rebuilds the model and repeats its input and target path
      manifest.json       SHA-256 and size of every other file: written last, so its presence means "complete"

A folder is written beside its final name, synced to disk, and renamed. Nothing here reads or writes a pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from xsite.errors import CheckpointError

WEIGHTS, CONFIG, MANIFEST = "model.safetensors", "config.json", "manifest.json"


def save_checkpoint(folder: str | Path, model_state: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    """Write weights and configuration, all or nothing.

    Raises
    ------
    CheckpointError
        The disk is full or refuses; nothing is left behind.
    """
    return write_folder(folder, {WEIGHTS: _to_bytes(model_state), CONFIG: _to_json(config)})


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights (on the CPU) and configuration of a complete, unaltered checkpoint.

    Raises
    ------
    CheckpointError
        The checkpoint is absent, incomplete or altered; the message names the file.
    """
    files = read_folder(folder)
    missing = [name for name in (WEIGHTS, CONFIG) if name not in files]
    if missing:
        raise CheckpointError(f"{folder}: {', '.join(missing)} not listed in {MANIFEST}; this is no model checkpoint")
    return tensors_from(files[WEIGHTS], Path(folder) / WEIGHTS), json.loads(files[CONFIG])


def write_folder(folder: str | Path, files: Mapping[str, bytes]) -> Path:
    """Write files and their manifest into ``folder``, all or nothing, replacing what was there."""
    folder = Path(folder)
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.partial")
    listed = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    try:
        temporary.mkdir(parents=True)
        for name, data in [*files.items(), (MANIFEST, _to_json({"files": listed}))]:
            _write_synced(temporary / name, data)
        _rename(temporary, folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot write the checkpoint ({error}); nothing was left behind: free some space or choose "
            "another folder, then run the same command again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def read_folder(folder: str | Path) -> dict[str, bytes]:
    """Contents of all files that the manifest lists, verified."""
    folder = Path(folder)
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())["files"]
    except FileNotFoundError as error:
        state = "incomplete (no manifest.json)" if folder.is_dir() else "absent"
        raise CheckpointError(f"{folder}: the checkpoint is {state}; train again or name another folder") from error
    except (ValueError, KeyError, OSError) as error:
        raise CheckpointError(f"{folder / MANIFEST}: not readable ({error}); the checkpoint is damaged") from error
    return {name: _read_verified(folder / name, facts) for name, facts in listed.items()}


def tensors_from(data: bytes, source: Path) -> dict[str, Tensor]:
    """Parse safetensors; ``source`` is named when they cannot be."""
    try:
        return dict(load_tensors(data))
    except SafetensorError as error:
        raise CheckpointError(f"{source}: not a safetensors file ({error})") from error


def _read_verified(path: Path, facts: Mapping[str, Any]) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the checkpoint is incomplete") from error
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise CheckpointError(
            f"{path}: SHA-256 differs from {MANIFEST} ({len(data)} bytes, expected {facts['bytes']}); the file was "
            "altered or cut short: restore it or train again"
        )
    return data


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rename(temporary: Path, folder: Path) -> None:
    """Move into place; an older folder steps aside first, because a rename cannot replace a folder with files in it."""
    old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.old")
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _to_bytes(state: Mapping[str, Tensor]) -> bytes:
    # a clone per tensor: safetensors refuses tensors that share memory (tied weights)
    return bytes(tensors_to_bytes({name: value.detach().cpu().contiguous().clone() for name, value in state.items()}))


def _to_json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1, allow_nan=False).encode()
