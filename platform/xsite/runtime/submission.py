"""Run a verb on a Ray cluster through its Jobs API.

The Jobs API is remote code execution by design, so a token is always sent: a dashboard that is reachable from other
machines is never spoken to without one. A job runs in the folder and with the interpreter of the shell that ran
``ray start``: hence absolute places, and an interpreter that is named.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from xsite.errors import ClusterError, RecipeError
from xsite.runtime.cluster import environment
from xsite.runtime.shipping import package_folders

POLL_S = 1.0
_CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
_OVERRIDING = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")  # Ray prefers these to the address that it is given


def submit_job(
    module: str,
    words: Sequence[str],
    *,
    address: str,
    python: str = sys.executable,
    env_vars: Mapping[str, str] | None = None,
    submission_id: str | None = None,
) -> str:
    """Submit ``python -m module words`` with our code; return the id of the job.

    Parameters
    ----------
    module : str
        Such as ``jobs.loso``.
    words : sequence of str
        Its command line; places in it are absolute.
    address : str
        Dashboard, ``http(s)://host:port``.
    python : str
        Interpreter on the cluster.

    Raises
    ------
    ClusterError
        There is no token, the cluster refuses it, or nothing answers.
    """
    client = connect_jobs(address)
    # -P: the job's folder is wherever `ray start` ran, and must not come first on the import path
    entrypoint = shlex.join([python, "-P", "-m", module, *words])
    runtime_env = {
        "py_modules": [str(folder) for folder in package_folders()],
        "excludes": ["__pycache__", "*.pyc"],
        "env_vars": {"PYTHONUNBUFFERED": "1", **(env_vars or {})},
    }
    try:
        return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env, submission_id=submission_id))
    except (RuntimeError, ValueError, requests.RequestException) as error:
        raise ClusterError(f"the Ray cluster at {address} refuses the job: {error}") from error


def follow_job(address: str, job: str) -> bool:
    """Print a job's output as it comes, until it ends; True when it succeeded.

    Raises
    ------
    ClusterError
        The dashboard stopped answering; the job may well go on.
    """
    client = connect_jobs(address)
    try:
        return _follow(client, job)
    except (RuntimeError, ConnectionError, requests.RequestException) as error:
        raise ClusterError(
            f"the Ray cluster at {address} stopped answering while job {job} ran ({error}); the job may go on, look "
            f"with: ray job status {job} --address {address}"
        ) from error


def _follow(client: JobSubmissionClient, job: str) -> bool:
    written = 0
    while True:
        status = client.get_job_status(job)  # before the log, so that nothing of an ended job is missed
        logs = client.get_job_logs(job)
        print(logs[written:], end="", flush=True)
        written = len(logs)
        if status.is_terminal():
            if status != JobStatus.SUCCEEDED:
                reason = str(client.get_job_info(job).message).partition(", last available logs")[0]
                print(f"job {job}: {status.value}: {reason}", flush=True)
            return bool(status == JobStatus.SUCCEEDED)
        time.sleep(POLL_S)


def connect_jobs(address: str) -> JobSubmissionClient:
    """Client of a cluster's Jobs API, with the token of this environment."""
    token = find_token()
    check_address(address, token)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with environment(dict.fromkeys(_OVERRIDING)):
            return JobSubmissionClient(address, headers=headers)
    except AuthenticationError as error:
        what = "this token" if token else "a submission without a token"
        raise ClusterError(
            f"the Ray cluster at {address} refuses {what}: put its token into RAY_AUTH_TOKEN, or its file's path into "
            "RAY_AUTH_TOKEN_PATH (on the head node: ray get-auth-token)"
        ) from error
    except (ConnectionError, RuntimeError, requests.RequestException) as error:
        raise ClusterError(f"no Ray dashboard answers at {address}: {error}") from error


def find_token() -> str | None:
    """The token where Ray itself looks for it: variable, file named by a variable, file in the home folder."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path and not Path(path).is_file():
        raise ClusterError(f"RAY_AUTH_TOKEN_PATH names {path}, which is no file")
    file = Path(path) if path else Path.home() / ".ray" / "auth_token"
    return file.read_text(encoding="utf-8").strip() if file.is_file() else None


def check_address(address: str, token: str | None) -> None:
    """Refuse what would speak to another machine without proof of who we are.

    Raises
    ------
    ClusterError
        No dashboard URL, or one on another machine and no token.
    """
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ClusterError(f"--address {address!r}: give the dashboard's URL, such as http://127.0.0.1:8265")
    if token is None and not _is_loopback(url.hostname):
        raise ClusterError(
            f"--address {address}: no token, and this dashboard is on another machine. Whoever reaches it may run any "
            "code, so the cluster must run with RAY_AUTH_MODE=token; put its token into RAY_AUTH_TOKEN, or its file's "
            "path into RAY_AUTH_TOKEN_PATH"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def require_absolute(places: Mapping[str, str | None]) -> None:
    """Refuse places that mean something else on the cluster.

    Parameters
    ----------
    places : mapping of option to value
        None where the option is needed and was not given.

    Raises
    ------
    RecipeError
        All of them at once.
    """
    problems = []
    for option, value in places.items():
        if value is None:
            problems.append(f"{option} is missing")
        elif not _is_absolute(value):
            problems.append(f"{option} {value} is relative (here it would be {Path(value).resolve()})")
    if problems:
        raise RecipeError(
            "a job runs in another folder, perhaps on another machine; give every place, options and positional words "
            "alike, as an absolute path or a URL: " + "; ".join(problems)
        )


def _is_absolute(value: str) -> bool:
    if value.startswith("sqlite:"):
        return value.startswith("sqlite:////")
    return "://" in value or value.startswith(("models:/", "runs:/")) or Path(value).is_absolute()
