"""Runs, cards, the gate and the registry: the only room that imports mlflow."""

from xsite.tracking.cards import model_card
from xsite.tracking.client import connect, default_tracking_uri, describe_store, resolve_tracking_uri, store_folder
from xsite.tracking.export import Candidate, download
from xsite.tracking.gate import NOT_DEPLOYABLE, GateReport, check_study
from xsite.tracking.registry import Version, annotate_run, find_study_runs, register_version, version_facts
from xsite.tracking.runs import StudyTracker
from xsite.tracking.server import server_command, server_environment

__all__ = [
    "NOT_DEPLOYABLE",
    "Candidate",
    "GateReport",
    "StudyTracker",
    "Version",
    "annotate_run",
    "check_study",
    "connect",
    "default_tracking_uri",
    "describe_store",
    "download",
    "find_study_runs",
    "model_card",
    "register_version",
    "resolve_tracking_uri",
    "server_command",
    "server_environment",
    "store_folder",
    "version_facts",
]
