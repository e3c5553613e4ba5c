"""The connection to MLflow: where the default store lies, and quiet, impatient settings for the client.

Every other file of this room imports mlflow through here, so that the settings are made before mlflow reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# No usage statistics, no look for newer versions, no progress bars in logs. Seven retries with back-off would hold
# the training driver for four minutes per call during an outage; the spool (spool.py) makes patience unnecessary.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_LOGGED_MODEL_CREATION_WARNING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402
from mlflow import MlflowClient  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from sqlalchemy.exc import SQLAlchemyError  # noqa: E402

from xsite.errors import TrackingError  # noqa: E402
from xsite.spelling import counted  # noqa: E402

DATABASE = "mlflow.db"
FAILURES = (MlflowException, OSError, SQLAlchemyError)  # the last: a damaged file, a password that is wrong


def default_tracking_uri(folder: str | Path = "studies/mlflow") -> str:
    """URI of the SQLite store that lives in one folder, database and artifacts together."""
    return f"sqlite:///{Path(folder).resolve() / DATABASE}"


def resolve_tracking_uri(tracking: str | None) -> str:
    """Accept a URI, a folder, or nothing (``MLFLOW_TRACKING_URI``, then the default folder).

    Raises
    ------
    TrackingError
        An unknown kind of URI.
    """
    tracking = tracking or os.environ.get("MLFLOW_TRACKING_URI")
    if not tracking:
        return default_tracking_uri()
    scheme = tracking.split("://", 1)[0] if "://" in tracking else ""
    if not scheme:
        return default_tracking_uri(tracking)
    if scheme.split("+")[0] not in ("sqlite", "postgresql", "mysql", "http", "https"):
        raise TrackingError(
            f"tracking {tracking!r}: give a folder, sqlite:///FOLDER/mlflow.db, http(s)://HOST:PORT or postgresql://..."
        )
    return tracking


def store_folder(tracking_uri: str) -> Path | None:
    """Folder of a SQLite store; ``None`` for a server or another database."""
    return Path(tracking_uri.removeprefix("sqlite:///")).parent if tracking_uri.startswith("sqlite:///") else None


def connect(tracking_uri: str) -> Any:
    """Return an ``MlflowClient`` that has answered once.

    Raises
    ------
    TrackingError
        The store does not answer.
    """
    folder = store_folder(tracking_uri)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        client.search_experiments(max_results=1)
    except FAILURES as error:
        raise TrackingError(
            f"MLflow at {tracking_uri} does not answer ({first_line(error)}); start it (neurobolt ui), correct"
            " --tracking, or leave --tracking out to use the local folder"
        ) from error
    return client


def experiment_id(client: Any, tracking_uri: str, name: str) -> str:
    """Id of the MLflow experiment, created on first use with its artifacts in the store's own folder."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    folder = store_folder(tracking_uri)
    location = None if folder is None else (folder / "artifacts" / name).as_uri()
    kind = {"mlflow.experimentKind": "custom_model_development"}  # else the UI opens its pages for chat applications
    return str(client.create_experiment(name, artifact_location=location, tags=kind))


@contextmanager
def current_store(tracking_uri: str) -> Iterator[None]:
    """Point mlflow's module-level functions at one store, and back again afterwards."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def describe_store(tracking_uri: str) -> list[str]:
    """What the store holds, in lines for a person.

    Raises
    ------
    TrackingError
        The store does not answer.
    """
    client = connect(tracking_uri)
    try:
        experiments = client.search_experiments()
        studies = client.search_runs([e.experiment_id for e in experiments], "tags.kind = 'study'", max_results=1000)
        models = client.search_registered_models()
    except FAILURES as error:
        raise TrackingError(f"MLflow at {tracking_uri} answers and then fails: {first_line(error)}") from error
    lines = [f"{tracking_uri}: {counted(len(experiments), 'experiment')}, {counted(len(studies), 'study', 'studies')}"]
    for model in models:
        aliases = ", ".join(f"{alias} = version {number}" for alias, number in model.aliases.items())
        lines.append(f"registered model {model.name}: {aliases or 'no alias'}")
    return lines


def first_line(error: BaseException) -> str:
    """First line of an error's text: mlflow's messages repeat whole SQL statements."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
