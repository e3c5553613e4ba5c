"""How an MLflow server of ours is started: loopback, checked host names, no job execution, nothing sent anywhere."""

from __future__ import annotations

import os
import sys

from xsite.tracking.client import QUIET, store_folder


def server_command(
    backend_uri: str, *, host: str = "127.0.0.1", port: int = 5000, allowed_hosts: str = "", workers: int = 1
) -> list[str]:
    """Command line of ``mlflow server`` on a database that it alone then owns.

    Artifacts go through the server into the store's own folder, so that clients need no access to its disk.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", backend_uri]
    command += ["--host", host, "--port", str(port), "--workers", str(workers)]
    folder = store_folder(backend_uri)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        command += ["--artifacts-destination", str(folder / "artifacts")]
    return command + (["--allowed-hosts", allowed_hosts] if allowed_hosts else [])


def server_environment() -> dict[str, str]:
    """Environment of that server.

    Job execution has been a way in for unauthenticated requests (CVE-2026-0545) and the AI gateway is of no use here.
    """
    off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ENABLE_AI_GATEWAY": "false"}
    return {**os.environ, **QUIET, **off}
