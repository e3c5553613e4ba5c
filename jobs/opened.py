"""Turn what a person writes as MODEL into a model in memory: a registered version, a run, or a checkpoint folder."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neurobolt.catalogue import rebuild
from xsite.data.montages import check_plan, spline_plan
from xsite.errors import ChannelError, CheckpointError
from xsite.learning.checkpoint import load_checkpoint
from xsite.learning.predict import accepted_channels
from xsite.recording import Recording
from xsite.tracking import download, resolve_tracking_uri, version_facts


@dataclass(frozen=True, eq=False)
class Opened:
    """A model in memory and where it came from.

    Parameters
    ----------
    model : nn.Module
        Any of the package ``neurobolt``.
    config : dict
        ``config.json`` of its checkpoint.
    weights_sha256 : str
    facts : dict
        Name, version and tags of a registered version; empty otherwise.
    """

    model: Any
    config: dict[str, Any]
    weights_sha256: str
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Channels that the model was trained with."""
        return tuple(self.config["ch_names"])

    @property
    def n_times(self) -> int:
        """Samples of one window."""
        return round(float(self.model.window_s) * float(self.model.sfreq))


def open_model(name: str, tracking: str | None = None) -> Opened:
    """Open ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, ``runs:/ID[/PATH]`` or a checkpoint folder.

    Raises
    ------
    TrackingError
        MLflow does not know it.
    CheckpointError
        There is no complete, unaltered checkpoint behind the name.
    """
    if not name.startswith(("models:/", "runs:/")):
        return open_checkpoint(Path(name))
    uri = resolve_tracking_uri(tracking)
    facts = version_facts(uri, name)
    whole = f"{name.rstrip('/')}/checkpoint" if name.startswith("runs:/") and name.count("/") == 1 else name
    with tempfile.TemporaryDirectory() as scratch:
        opened = open_checkpoint(_find_checkpoint(Path(download(uri, whole, scratch)), name))
    if facts.get("weights_sha256", opened.weights_sha256) != opened.weights_sha256:
        raise CheckpointError(f"{name}: the weights' SHA-256 differs from the registry's tag; do not use this version")
    return Opened(opened.model, opened.config, opened.weights_sha256, facts)


def open_checkpoint(folder: Path) -> Opened:
    """Open a checkpoint folder, verified file by file."""
    state, config = load_checkpoint(folder)
    if "config" not in config.get("model", {}):
        raise CheckpointError(f"{folder / 'config.json'}: no model's configuration under model.config")
    try:
        model = rebuild(config["model"].get("name", "neurobolt"), config["model"]["config"])
        model.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: weights and configuration do not fit together: {error}") from error
    listed = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    return Opened(model.eval(), config, listed["model.safetensors"]["sha256"])


def _find_checkpoint(folder: Path, name: str) -> Path:
    found = sorted(path.parent for path in folder.rglob("model.safetensors"))
    if len(found) != 1:
        raise CheckpointError(f"{name}: {len(found)} checkpoints (model.safetensors) behind this name, expected one")
    return found[0]


def check_channels(recording: Recording, opened: Opened, path: str) -> None:
    """Refuse a file that lacks channels which the model cannot do without; say which, and what the model wants."""
    known = opened.ch_names
    missing = [name for name in known if name not in recording.ch_names]
    channels = opened.config["experiment"]["data"]["channels"]
    if channels == "spline":
        check_plan(spline_plan(recording.montage, known), recording.montage, path)
        return
    if missing if channels == "common" else not accepted_channels(opened.model, recording, known):
        raise ChannelError(
            f"{path}: lacks {len(missing)} of the model's {len(known)} channels: {', '.join(missing)}. The model wants"
            f" {', '.join(known)}; the file has {', '.join(recording.ch_names)}"
        )
