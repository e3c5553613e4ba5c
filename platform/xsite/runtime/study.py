"""The folder of a study: every file appears whole, and ``status.json`` tells a machine how far it is."""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from xsite.data import storage
from xsite.data.versions import software_versions
from xsite.errors import StoreError
from xsite.evaluation.folds import Fold
from xsite.evaluation.json_values import json_safe
from xsite.evaluation.plan import Plan, Run
from xsite.experiment import Experiment
from xsite.runtime.inputs import StudyData
from xsite.runtime.training import FoldOutcome

HISTORY = ("held_out", "model", "control", "seed", "purpose", "epoch", "train_loss", "val_loss", "lr", "seconds")


class StudyFolder:
    """Write the files of one study.

    Parameters
    ----------
    folder : str or Path
        Made where it does not exist.

    Raises
    ------
    StoreError
        The disk is full or refuses; the former version of a file stays.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder).resolve()
        self.started = time.time()
        self.trainings: dict[str, dict[str, Any]] = {}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be made ({error}); choose another --study") from error

    def write(self, name: str, content: bytes) -> Path:
        """Replace one file atomically."""
        path = self.path / name
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(content)
            partial.replace(path)
        except OSError as error:
            raise _cannot_write(path, error) from error
        finally:
            partial.unlink(missing_ok=True)
        return path

    def append(self, name: str, text: str) -> None:
        """Add to the end of a log.

        Raises
        ------
        StoreError
            The disk is full, or the folder cannot be written.
        """
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise _cannot_write(self.path / name, error) from error

    def write_json(self, name: str, content: Any) -> Path:
        """Write plain data; what is not finite becomes null."""
        return self.write(name, json.dumps(json_safe(content), indent=1).encode())

    def write_table(self, name: str, table: pd.DataFrame) -> Path:
        """Write a table as parquet."""
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return self.write(name, buffer.getvalue())

    def clear_tables(self, plan_hash: str) -> None:
        """Take tables that this run may not write out of the way, so that no report reads those of an earlier plan.

        Calibration curves took long and stay while the plan that was scored is the same; of another plan they are kept
        under its hash.
        """
        try:
            for name in ("id_scores.parquet", "scores_by_fold.parquet"):
                (self.path / name).unlink(missing_ok=True)
            calibration, former = self.path / "calibration.parquet", self._scored_plan()
            if calibration.is_file() and former != plan_hash:
                calibration.replace(self.path / f"calibration-of-plan-{former}.parquet")
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def _scored_plan(self) -> str:
        """Hash of the plan behind the ``summary.json`` that lies here."""
        try:
            content = json.loads((self.path / "summary.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "unknown"
        return str(content.get("plan", "unknown"))

    def run(self, run: Run) -> Path:
        """Folder of a run's checkpoint."""
        if run.purpose == "final":
            return self.path / run.label
        return self.path / ("inner" if run.purpose == "inner" else "folds") / run.label

    def write_plan(self, experiment: Experiment, data: StudyData, folds: Sequence[Fold], plan: Plan) -> None:
        """Everything that is known before anything is trained."""
        self._write_recipe(experiment)
        self.write_json("plan.json", plan.to_dict())
        self.write_table("manifest.parquet", data.manifest)
        self.write_json("folds.json", [fold.to_dict() for fold in folds])
        self.write_json("versions.json", versions())
        self.write_json("montages.json", _montages(data))
        self.write_json("parcels.json", {"labels": data.parcels, "coords": _coords(data)})

    def _write_recipe(self, experiment: Experiment) -> None:
        path = self.path / "experiment.yaml"
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            experiment.to_yaml(partial)
            partial.replace(path)
        except OSError as error:
            raise _cannot_write(path, error) from error
        finally:
            partial.unlink(missing_ok=True)

    def write_histories(self, outcomes: Sequence[FoldOutcome]) -> pd.DataFrame:
        """One row per training and epoch."""
        rows = [
            {
                "held_out": o.job.held_out or "final",
                "model": o.job.model,
                "control": o.job.control,
                "seed": o.job.seed[0],
                "purpose": o.job.purpose,
                **row,
            }
            for o in outcomes
            for row in o.history
        ]
        table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(HISTORY))
        self.write_table("histories.parquet", table.reindex(columns=list(dict.fromkeys([*HISTORY, *table.columns]))))
        return table

    def status(self, state: str, **facts: Any) -> None:
        """Note how far the study is: ``status.json``."""
        times = {"started": self.started, "updated": time.time()}
        self.write_json("status.json", {"state": state, **times, "trainings": self.trainings, **facts})


def _cannot_write(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: cannot be written ({error}); free some space, then run the same command again: finished folds are "
        "kept"
    )


def versions() -> dict[str, str]:
    """What the study was run with."""
    others = {name: version(name) for name in ("torch", "ray", "pandas", "safetensors")}
    return {**software_versions(), **others, "python": platform.python_version(), **code_tags()}


def code_sha() -> str:
    """Commit of a checkout, with ``-dirty`` where files differ from it; ``unknown`` for an installed package.

    An installed package may lie inside somebody else's repository (a virtual environment in a checkout): git is
    believed only where it knows this very file.
    """
    file = Path(__file__).resolve()
    git = ["git", "-C", str(file.parent)]
    try:
        _run([*git, "ls-files", "--error-unmatch", "--", file.name])
        return _run([*git, "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]) or "unknown"
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def code_tags() -> dict[str, str]:
    """Which code made a run: the commit where it is known, and the package's version."""
    try:
        number = version("neurobolt-xsite")
    except PackageNotFoundError:  # shipped to a cluster as folders, not installed there
        number = "unknown"
    return {"code_sha": code_sha(), "code_version": number}


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _montages(data: StudyData) -> Mapping[str, Any]:
    """The first recording's electrodes speak for their site."""
    sites: dict[str, Any] = {}
    for key, facts in data.facts.items():
        sites.setdefault(key.site, {"ch_names": facts.ch_names, "positions": facts.positions})
    return sites


def _coords(data: StudyData) -> list[list[float]] | None:
    """MNI places of the parcels, where the store's ingest has noted those of this atlas."""
    noted = read_coords(data.store, next(iter(data.facts.values())).parcellation.sha256)
    return [noted[label] for label in data.parcels] if noted and set(data.parcels) <= set(noted) else None


def read_coords(store: str, sha256: str) -> dict[str, list[float]] | None:
    """Coordinates that :func:`xsite.runtime.ingest.ingest_site` has noted for an atlas."""
    fs, root = storage.open_filesystem(store)
    path = f"{root}/parcellations/{sha256}.json"
    if not fs.exists(path):
        return None
    content: dict[str, list[float]] = json.loads(fs.cat_file(path))["coords"]
    return content
