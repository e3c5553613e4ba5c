"""Connect to Ray: a private cluster on this machine, or an existing one by its address.

``ray.init()`` without an address would silently join whatever cluster runs on a shared host; hence "local" is spelt
out, its files live in a private folder, and the address is always printed.
"""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError

from xsite.errors import ClusterError, XsiteError
from xsite.runtime.shipping import package_folders
from xsite.spelling import counted

# Ray Train's controller polls its workers every 2 s by default, and `report` blocks that long: with epochs of seconds
# that would be most of the time. It also starts a process to watch for preempted cloud machines: off on one host.
# Workers may have to wait for tasks that hold the CPUs.
_TRAIN_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",
}


@dataclass(frozen=True)
class ClusterInfo:
    """A cluster that this process is connected to.

    Parameters
    ----------
    address : str
        Of the head node.
    n_nodes : int
    n_cpus, n_gpus : float
    temporary : str, optional
        Folder of a cluster that this process started; None for one that was there.
    """

    address: str
    n_nodes: int
    n_cpus: float
    n_gpus: float
    temporary: str | None = None

    def __str__(self) -> str:
        kind = "private, on this machine" if self.temporary else "existing"
        sizes = counted(self.n_nodes, "node"), counted(self.n_cpus, "CPU"), counted(self.n_gpus, "GPU")
        return f"Ray {self.address} ({kind}): {', '.join(sizes)}"


_OWN_TOKEN = secrets.token_hex(32)  # one per process: Ray reads its token once and keeps it
_connected: ClusterInfo | None = None


def connect(address: str | None = None, num_cpus: int | None = None) -> ClusterInfo:
    """Connect to ``address``, or start a private cluster where it is None.

    Parameters
    ----------
    address : str, optional
        ``auto`` (the cluster whose node this process runs on), ``host:port`` or ``ray://host:port``.
    num_cpus : int, optional
        Of a private cluster; default: every core of this machine.

    Raises
    ------
    ClusterError
        Nothing answers at the address, or it refuses the token.
    """
    global _connected
    atexit.register(shutdown)
    if address is not None:
        _knock(address)
    if ray.is_initialized():
        _connected = _connected or describe()
        return _connected
    for name, value in _TRAIN_SETTINGS.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    _connected = _start_private(num_cpus, quiet) if address is None else _join(address, quiet)
    return _connected


@contextmanager
def connected(address: str | None = None, num_cpus: int | None = None) -> Iterator[ClusterInfo]:
    """Be connected for the duration of a block; a connection that was there before it stays.

    A SIGTERM (``kill``, a batch scheduler) ends the block as Ctrl-C does.
    """
    mine = not ray.is_initialized()
    info = connect(address, num_cpus)
    try:
        with _terminated_as_interrupted():
            yield info
    finally:
        if mine:
            shutdown()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Ray installs a handler of SIGTERM when it connects; it aborts the process in the middle of whatever it does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former if former is not None else signal.SIG_DFL)


def shutdown() -> None:
    """Leave the cluster; a private one is stopped and its files are removed."""
    global _connected
    if ray.is_initialized():
        ray.shutdown()
    if _connected is not None and _connected.temporary:
        shutil.rmtree(_connected.temporary, ignore_errors=True)
    _connected = None


def describe() -> ClusterInfo:
    """Size of the cluster that this process is connected to."""
    if not ray.is_initialized():
        raise ClusterError("not connected to a Ray cluster: call connect() first")
    resources = ray.cluster_resources()
    return ClusterInfo(
        address=ray.get_runtime_context().gcs_address,
        n_nodes=sum(bool(node["Alive"]) for node in ray.nodes()),
        n_cpus=resources.get("CPU", 0.0),
        n_gpus=resources.get("GPU", 0.0),
        temporary=_connected.temporary if _connected else None,
    )


def check_room(num_cpus: float, num_gpus: float, what: str) -> int:
    """How many tasks of that size fit the cluster at once.

    Raises
    ------
    ClusterError
        None does: it would wait for ever.
    """
    here = describe()
    wanted = ((here.n_cpus, num_cpus), (here.n_gpus, num_gpus))
    fits = [int(there // each) for there, each in wanted if each > 0]
    if min(fits) < 1:
        raise ClusterError(
            f"{what} needs {num_cpus:g} CPUs and {num_gpus:g} GPUs; {here} has no room for it: lower scale.workers, "
            "scale.cpus_per_worker or scale.gpus_per_worker, or use a larger cluster (--address)"
        )
    return min(fits)


def task(function: Callable[..., Any], *, num_cpus: float = 1, num_gpus: float = 0) -> Any:
    """Make a Ray task of a plain function; call it with ``.remote(...)``."""
    return ray.remote(num_cpus=num_cpus, num_gpus=num_gpus)(function)


def gather(refs: Sequence[Any], on_done: Callable[[int], None] = lambda n_done: None) -> list[Any]:
    """Results of Ray tasks; one of our own errors comes back as itself, without the worker's traceback.

    ``on_done`` hears how many are done, whenever one more is.
    """
    waiting = list(refs)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=1, fetch_local=False)
            ray.get(done)  # a failure is told at once, not after all the others
            on_done(len(refs) - len(waiting))
        results: list[Any] = ray.get(list(refs))
    except RayTaskError as error:
        if isinstance(error.cause, XsiteError):
            raise error.cause from None
        raise
    return results


def _start_private(num_cpus: int | None, quiet: dict[str, Any]) -> ClusterInfo:
    folder = tempfile.mkdtemp(prefix="xr", dir="/tmp")  # short: the path of a Unix socket may have 107 bytes
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # "token authentication is enabled": good
    try:
        with environment(_private_environment()):
            ray.init(
                address="local",
                num_cpus=num_cpus or os.cpu_count(),
                include_dashboard=False,
                _temp_dir=folder,
                **quiet,
            )
    except Exception as error:  # Ray raises a bare Exception where a busy machine lets its node start too slowly
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        raise ClusterError(
            f"cannot start a private Ray cluster in {folder}: {error}. If this machine is busy, try again when it is "
            "less so, or join a running cluster (--address)"
        ) from error
    return ClusterInfo(**{**vars(describe()), "temporary": folder})


def _private_environment() -> dict[str, str]:
    """What the cluster's processes inherit: this process's import path, and a token that only they know."""
    values = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
        values["RAY_AUTH_TOKEN"] = _OWN_TOKEN  # else Ray would write one into the home folder
    return values


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables (None: unset) for the duration of a block."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _knock(address: str) -> None:
    """Refuse an address where nothing listens: Ray itself goes on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto": Ray knows at once whether a node runs here
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise ClusterError(
            f"nothing answers at {address} ({error}); start it (ray start --head) or correct it"
        ) from error


def _join(address: str, quiet: dict[str, Any]) -> ClusterInfo:
    # inside a submitted job the code has already been shipped with the job
    inside_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    runtime_env = None if inside_job else {"py_modules": [str(folder) for folder in package_folders()]}
    try:
        ray.init(address=address, runtime_env=runtime_env, **quiet)
    except Exception as error:  # ray raises ConnectionError, RuntimeError, and its own authentication errors
        raise ClusterError(
            f"cannot connect to the Ray cluster at {address!r}: {error}. Is it running there, and is its token in "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH (with RAY_AUTH_MODE=token)?"
        ) from error
    return describe()
