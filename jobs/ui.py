"""Open the MLflow server: studies, curves, model registry. On this machine only, unless told otherwise.

    neurobolt ui
    neurobolt ui --folder demo/mlflow --port 5001

For more than one person put it on a private interface with a password: ``pip install 'mlflow[auth]'``, set
``MLFLOW_AUTH_ADMIN_PASSWORD``, add ``--app-name basic-auth`` (or see platform/deploy/README.md).
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from jobs.cli import run_job
from xsite.errors import TrackingError
from xsite.tracking import resolve_tracking_uri, server_command, server_environment


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        prog="neurobolt ui",
        description=(__doc__ or "").splitlines()[0],
        epilog="Example: neurobolt ui --folder demo/mlflow --port 5001",
    )
    p.add_argument("--folder", "--tracking", dest="tracking", help="folder or database URI (default: studies/mlflow)")
    p.add_argument("--port", type=int, default=5000, help="port (default: 5000)")
    p.add_argument("--host", default="127.0.0.1", help="interface (default: 127.0.0.1, this machine only)")
    p.add_argument("--allowed-hosts", help="host names that browsers may use (default: localhost and the host)")
    p.add_argument("--app-name", choices=("basic-auth",), help="ask for user name and password (needs mlflow[auth])")
    p.add_argument("--workers", type=int, default=1, help="server processes (default: 1)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the server in the foreground until Ctrl-C; returns its exit code."""
    args = parser().parse_args(argv)
    uri = resolve_tracking_uri(args.tracking)
    if uri.startswith("http"):
        raise TrackingError(f"{uri} is a server already: open it in a browser")
    _refuse_taken(args.host, args.port)
    hosts = args.allowed_hosts or ",".join(
        dict.fromkeys(f"{host}:{args.port}" for host in ("localhost", "127.0.0.1", args.host))
    )
    command = server_command(uri, host=args.host, port=args.port, allowed_hosts=hosts, workers=args.workers)
    if args.app_name:
        command += ["--app-name", args.app_name]
    print(f"MLflow UI  http://{args.host}:{args.port}   (store {uri}; Ctrl-C stops it)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # else `kill` would leave the server behind
    server = subprocess.Popen(command, env=server_environment())
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        server.terminate()
        server.wait()


def _refuse_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise TrackingError(f"{host}:{port} cannot be used ({error}); give another --port") from error


if __name__ == "__main__":
    sys.exit(run_job(main))
