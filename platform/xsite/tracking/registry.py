"""Model versions: register an export, describe it, point the alias at it, find it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from xsite.errors import TrackingError
from xsite.tracking.client import connect, current_store, first_line
from xsite.tracking.export import Candidate, check_export, log_model

CHALLENGER = "challenger"


@dataclass(frozen=True)
class Version:
    """A registered version, and the largest difference that its export showed."""

    name: str
    number: str
    source: str
    parity: float
    alias: str | None

    @property
    def uri(self) -> str:
        """What other commands take as MODEL."""
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.number}"


def register_version(
    tracking_uri: str, candidate: Candidate, *, name: str, run_id: str, alias: str | None = CHALLENGER
) -> Version:
    """Log the model with its run, check the export in a fresh process, then register it.

    The same weights registered again update the version that they have.

    Raises
    ------
    TrackingError
        The export holds a pickle, does not load, or predicts something else; nothing is registered then.
    """
    client = connect(tracking_uri)
    sha256 = candidate.weights_sha256
    found = _version_of(client, name, sha256)
    try:
        with current_store(tracking_uri):
            uri = found.source if found is not None else log_model(candidate, run_id)
            parity = check_export(tracking_uri, uri, candidate)
            _ensure_model(client, name, candidate.card)
            version = found or client.create_model_version(name, uri, run_id, model_id=_model_id(uri))
            client.update_model_version(name, version.version, description=candidate.card)
            for key, value in {**candidate.tags, "weights_sha256": sha256, "parity": f"{parity:.1e}"}.items():
                client.set_model_version_tag(name, version.version, key, value)
            if alias:
                client.set_registered_model_alias(name, alias, version.version)
    except MlflowException as error:
        raise TrackingError(f"registering {name!r} at {tracking_uri}: {first_line(error)}") from error
    return Version(name, str(version.version), uri, parity, alias)


def version_facts(tracking_uri: str, model_uri: str) -> dict[str, str]:
    """Name, version number and tags behind ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; empty for other URIs."""
    if not model_uri.startswith("models:/") or model_uri.startswith("models:/m-"):
        return {}
    client = connect(tracking_uri)
    name, at, alias = model_uri.removeprefix("models:/").partition("@")
    if not at and "/" not in name:
        raise TrackingError(f"{model_uri}: write models:/{name}@{CHALLENGER} or models:/{name}/VERSION")
    try:
        if at:
            version = client.get_model_version_by_alias(name, alias)
        else:
            version = client.get_model_version(*name.split("/", 1))
    except MlflowException as error:
        known = _known(client, name.split("/", 1)[0])
        what = first_line(error).rstrip(".")
        raise TrackingError(f"{model_uri}: {what}. In {tracking_uri} {known}") from error
    return {"name": version.name, "version": str(version.version), **version.tags}


def find_study_runs(tracking_uri: str, experiment_name: str, fingerprint: str, data_hash: str) -> dict[str, str]:
    """Run ids of the newest study of this plan: ``study``, each fold, ``final``; empty if there is none.

    The same recipe on other recordings is another study: both the fingerprint and the data's hash must be its own.
    """
    client = connect(tracking_uri)
    experiment = client.get_experiment_by_name(experiment_name)
    if experiment is None:
        return {}
    ids = [experiment.experiment_id]
    which = f"tags.kind = 'study' and tags.fingerprint = '{fingerprint}' and tags.data_hash = '{data_hash}'"
    studies = client.search_runs(ids, which, order_by=["start_time DESC"], max_results=1)
    if not studies:
        return {}
    parent = studies[0].info.run_id
    children = client.search_runs(ids, f"tags.mlflow.parentRunId = '{parent}'")
    return {"study": parent, **{run.data.tags.get("fold", run.info.run_id): run.info.run_id for run in children}}


def annotate_run(tracking_uri: str, run_id: str, *, tags: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Set tags on a run, and keep small texts (file name to content) as its artifacts."""
    client = connect(tracking_uri)
    try:
        for key, value in tags.items():
            client.set_tag(run_id, key, value)
        for name, text in texts.items():
            client.log_text(run_id, text, name)
    except (MlflowException, OSError) as error:
        raise TrackingError(f"run {run_id} at {tracking_uri}: {first_line(error)}") from error


def _ensure_model(client: Any, name: str, card: str) -> None:
    found = client.search_registered_models(f"name = '{name}'", max_results=1)
    if not found:
        client.create_registered_model(name, tags={"task": "EEG to fMRI"})
    client.update_registered_model(name, description=card)


def _known(client: Any, name: str) -> str:
    """What there is of a model that was asked for and not found, and how to get it."""
    other = "to ask another place, give --tracking"
    try:
        names = [str(model.name) for model in client.search_registered_models()]
        if name not in names:
            there = f"there are {', '.join(names)}" if names else "nothing is registered"
            return f"{there}; neurobolt register STUDY registers a model as {name!r} (--name); {other}"
        numbers = [str(version.version) for version in client.search_model_versions(f"name = '{name}'")]
        aliases = [f"@{alias} (version {n})" for alias, n in client.get_registered_model(name).aliases.items()]
    except MlflowException as error:
        return f"the registry does not answer: {first_line(error)}"
    versions = ", ".join(f"models:/{name}/{number}" for number in reversed(numbers)) or "no version"
    return (
        f"{name!r} has {versions}, and {', '.join(aliases) or 'no alias'}; neurobolt register STUDY moves "
        f"@{CHALLENGER} if the gate passes; {other}"
    )


def _version_of(client: Any, name: str, sha256: str) -> Any:
    found = client.search_model_versions(f"name = '{name}' and tags.weights_sha256 = '{sha256}'", max_results=1)
    return found[0] if found else None


def _model_id(uri: str) -> str | None:
    return uri.removeprefix("models:/") if uri.startswith("models:/m-") else None
