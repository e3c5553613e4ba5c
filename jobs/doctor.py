"""Print versions, cluster, tracking, store, disk, and what is wrong.

neurobolt doctor
neurobolt doctor --store store --tracking http://127.0.0.1:5000 --address 127.0.0.1:6379
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from jobs.cli import run_job
from xsite.data.manifest import check_one_parcellation, read_manifest
from xsite.errors import XsiteError
from xsite.spelling import counted
from xsite.tracking import describe_store, resolve_tracking_uri, store_folder

PACKAGES = ("neurobolt-xsite", "torch", "ray", "mlflow", "mne", "nilearn", "nibabel", "numpy", "pandas", "zarr")
LEAST_FREE_GB = 5.0


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        prog="neurobolt doctor",
        description=(__doc__ or "").splitlines()[0],
        epilog="Example: neurobolt doctor --store demo/store --tracking demo/mlflow",
    )
    p.add_argument("--store", help="shared-format store to look at")
    p.add_argument("--tracking", help="MLflow URI or folder (default: MLFLOW_TRACKING_URI, else studies/mlflow)")
    known = os.environ.get("RAY_ADDRESS")  # where studies run, a submitted job's among them
    p.add_argument("--address", default=known, help="Ray cluster to reach (default: RAY_ADDRESS, else none)")
    p.add_argument("--folder", default=".", help="folder whose disk is looked at (default: the current one)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Examine everything, whatever fails on the way; returns 1 if something is wrong."""
    args = parser().parse_args(argv)
    wrong: list[str] = []
    examine("versions", lambda: versions(wrong), wrong)
    examine("machine", lambda: machine(wrong), wrong)
    examine("disk", lambda: disk(Path(args.folder), wrong), wrong)
    examine("cluster", lambda: cluster(args.address), wrong)
    examine("tracking", lambda: tracking(args.tracking), wrong)
    if args.store:
        examine("store", lambda: store(args.store, wrong), wrong)
    print("\nwhat is wrong: " + ("nothing found" if not wrong else ""))
    print("".join(f"  - {problem}\n" for problem in wrong), end="")
    return 1 if wrong else 0


def examine(title: str, look: Callable[[], Sequence[str]], wrong: list[str]) -> None:
    """Print one section; an error of ours becomes an entry of the list and does not end the examination."""
    try:
        lines = look()
    except XsiteError as error:
        wrong.append(f"{title}: {error}")
        lines = ["FAILED, see below"]
    for number, line in enumerate(lines):
        print(f"{title if number == 0 else '':<10}{line}", flush=True)


def versions(wrong: list[str]) -> list[str]:
    """Python and the packages that decide results; floors with known security holes below them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            wrong.append(f"versions: {name} is not installed; run make demo or pip install neurobolt-xsite")
    for name, least in (("torch", (2, 10)), ("mlflow", (3, 11))):
        if name in found and tuple(int(part) for part in found[name].split("+")[0].split(".")[:2]) < least:
            wrong.append(f"versions: {name} {found[name]} has known security holes; {least[0]}.{least[1]} is the floor")
    lines = [f"python {platform.python_version()} ({sys.executable})"]
    return [*lines, ", ".join(f"{name} {number}" for name, number in found.items())]


def machine(wrong: list[str]) -> list[str]:
    """Cores, threads and accelerators."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    used = counted(torch.get_num_threads(), "thread")
    lines = [f"{counted(cores, 'core')}, torch uses {used}, OMP_NUM_THREADS {threads}"]
    if torch.cuda.is_available():
        lines += [f"GPU {i}: {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
    elif shutil.which("nvidia-smi"):
        wrong.append("machine: there is an NVIDIA driver, but this PyTorch cannot use it (a CPU build?)")
    else:
        lines.append("no GPU: training runs on the CPU")
    return lines


def disk(folder: Path, wrong: list[str]) -> list[str]:
    """Free space where the work goes, and where Ray keeps its objects."""
    lines = []
    shared_memory = Path("/dev/shm")
    for place in dict.fromkeys((folder.resolve(), Path(tempfile.gettempdir()), shared_memory)):
        if not place.exists():
            continue
        free = shutil.disk_usage(place).free / 1e9
        lines.append(f"{place}: {free:.1f} GB free")
        if free < LEAST_FREE_GB and place != shared_memory:
            wrong.append(f"disk: {place} has {free:.1f} GB left; a study needs about {LEAST_FREE_GB:g} GB")
    return lines


def cluster(address: str | None) -> list[str]:
    """Connect to the cluster that was named; without a name there is nothing to reach."""
    if address is None:
        return ["none named (--address); a study starts a private one"]
    from xsite.runtime.cluster import connected  # ray takes seconds to import

    with connected(address) as info:
        return [str(info)]


def tracking(named: str | None) -> list[str]:
    """Reach the MLflow store; looking must not create one."""
    uri = resolve_tracking_uri(named)
    folder = store_folder(uri)
    if folder is not None and not folder.exists():
        return [f"{uri}: not there yet, the first study makes it"]
    return describe_store(uri)


def store(url: str, wrong: list[str]) -> list[str]:
    """Count what the store holds; one parcellation, no missing site, what was excluded and why."""
    manifest = read_manifest(url)
    check_one_parcellation(manifest)
    lines = [f"{url}: {counted(len(manifest), 'recording')}, parcellation {manifest['parcellation_name'].iloc[0]}"]
    for site, group in manifest.groupby("site"):
        out = group[group["excluded"].astype(bool)]
        text = f"{site}: {group['subject'].nunique()} subjects, {len(group)} recordings, TR {group['t_r'].iloc[0]:g} s"
        lines.append(text + (f", {len(out)} excluded" if len(out) else ""))
        wrong += [f"store: {row.path} is excluded: {row.reason}" for row in out.itertuples()]
        if (group["n_valid"] == 0).any():
            wrong.append(f"store: {site} has recordings without a single valid volume")
    if manifest["site"].nunique() < 2:
        wrong.append(f"store: {url} holds one site only; leave-one-site-out needs two (neurobolt ingest)")
    return lines


if __name__ == "__main__":
    sys.exit(run_job(main))
