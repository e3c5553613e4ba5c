"""What ``neurobolt ui`` starts, and what it refuses."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jobs import ui
from xsite.errors import TrackingError
from xsite.tracking import default_tracking_uri, server_command, server_environment


def test_the_server_is_closed_by_default(tmp_path: Path) -> None:
    command = server_command(default_tracking_uri(tmp_path), port=5001, allowed_hosts="localhost:5001")
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--allowed-hosts") + 1] == "localhost:5001"
    assert command[command.index("--artifacts-destination") + 1] == str(tmp_path / "artifacts")
    env = server_environment()
    assert env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert env["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"127\.0\.0\.1:{port} cannot be used.*another --port"):
            ui.main(["--folder", str(tmp_path), "--port", str(port)])


def test_a_running_server_needs_no_second_one() -> None:
    with pytest.raises(TrackingError, match="is a server already: open it in a browser"):
        ui.main(["--tracking", "http://127.0.0.1:5000"])
