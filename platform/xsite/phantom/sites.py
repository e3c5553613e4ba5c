"""Writing whole sites: claim the folder, run recordings in processes, rename a site into place when it is complete."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from xsite.data.versions import software_versions
from xsite.errors import RecipeError, StoreError
from xsite.phantom.atlas import NAME, PARCELS
from xsite.phantom.dataset import write_description, write_site_facts
from xsite.phantom.habits import Habits
from xsite.phantom.plan import Plan
from xsite.phantom.write import write_json
from xsite.recording import Float, RecordingKey

FORMAT = 1
Progress = Callable[[int, int, str], None]
Rows = list[dict[str, Any]]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, eq=False)
class Consortium:
    """What :func:`generate_consortium` wrote.

    Parameters
    ----------
    root : Path
    sites : tuple of str
        Site names; the BIDS root of each is ``root / name``.
    atlas : Path, optional
        NIfTI file of the parcellation; ``None`` where the targets are parcel tables.
    oracle : pandas.DataFrame
        Columns site, subject, run, parcel, oracle_r.
    """

    root: Path
    sites: tuple[str, ...]
    atlas: Path | None
    oracle: pd.DataFrame


def oracle_table(plan: Plan, labels: Sequence[str], scores_R: Float) -> Rows:
    """Tidy rows of one recording."""
    key = RecordingKey(plan.habits.name, plan.subject, task="rest", run=plan.run)
    about = {"site": key.site, "subject": key.subject, "run": key.run}
    return [about | {"parcel": p, "oracle_r": round(float(r), 6)} for p, r in zip(labels, scores_R, strict=True)]


def start_folder(out: Path, settings: dict[str, Any], plans: Sequence[Plan]) -> None:
    """Claim the folder: write ``consortium.json``, or accept the one that the same settings left there."""
    habits = {plan.habits.name: plan.habits for plan in plans}
    content = {
        "format": FORMAT,
        **settings,
        "sites": [asdict(h) for h in habits.values()],
        "parcels": [asdict(parcel) for parcel in PARCELS],
        "versions": software_versions(),
    }
    wanted = json.loads(json.dumps(content, default=str))
    file = out / "consortium.json"
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        differing = sorted(key for key in wanted | found if wanted.get(key) != found.get(key))
        if differing:
            raise RecipeError(f"{out}: holds another consortium ({', '.join(differing)} differ); choose a new folder")
    elif out.exists() and any(not path.match(".*.tmp") for path in out.iterdir()):  # those are ours, see below
        raise RecipeError(f"{out}: is not empty and holds no consortium.json; choose a new or empty folder")
    _check_room(out, plans)
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob(".*.tmp"):
        if not _alive(int(stale.stem.rpartition("-")[2])):  # left by a killed process
            shutil.rmtree(stale, ignore_errors=True)
    write_json(file, wanted)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _check_room(out: Path, plans: Sequence[Plan]) -> None:
    place = out.absolute()
    while not place.exists():
        place = place.parent
    todo = [plan for plan in plans if not (out / plan.habits.name).is_dir()]
    eeg = sum(len(p.habits.ch_names) * p.timing().duration_s * p.habits.sfreq * 4 for p in todo)
    needed, free = int(eeg + 30e6 * len(todo)), shutil.disk_usage(place).free
    if free < needed:
        raise StoreError(f"{out}: needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make room")


def write_sites(
    out: Path,
    plans: Sequence[Plan],
    make: Callable[[Plan, Path, Path], Rows],
    *,
    source: str = "",
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Consortium:
    """Write all sites that are not there yet, each in a hidden folder that is renamed when complete.

    ``source`` names the file of real parcel series where the BOLD is not simulated.
    """
    sites = list({plan.habits.name: None for plan in plans})
    done = 0
    with _pool(n_jobs) as pool:
        for site in sites:
            own = [plan for plan in plans if plan.habits.name == site]
            if not (out / site).is_dir():
                for plan in _write_site(out, own, make, pool, source):
                    done += 1
                    if progress:
                        progress(done, len(plans), f"{site} {plan.entities}")
            else:
                done += len(own)
    table = pd.concat([_read_oracle(out / "oracle" / f"{site}.tsv") for site in sites], ignore_index=True)
    table.to_csv(out / "oracle.tsv", sep="\t", index=False, na_rep="n/a")
    return Consortium(out, tuple(sites), None if source else out / "atlas" / f"{NAME}.nii.gz", table)


def _write_site(
    out: Path,
    plans: Sequence[Plan],
    make: Callable[[Plan, Path, Path], Rows],
    pool: ProcessPoolExecutor | None,
    source: str,
) -> Iterator[Plan]:
    habits: Habits = plans[0].habits
    subjects = sorted({plan.subject for plan in plans})
    temporary = out / f".{habits.name}-{os.getpid()}.tmp"
    rows: dict[str, Rows] = {}
    try:
        write_description(temporary, habits, plans[0].preset, plans[0].seed, subjects, source)
        if pool is None:
            for plan in plans:
                rows[plan.entities] = make(plan, temporary, out)
                yield plan
        else:
            waiting = {pool.submit(make, plan, temporary, out): plan for plan in plans}
            for future in as_completed(waiting):
                rows[waiting[future].entities] = future.result()
                yield waiting[future]
        (out / "oracle").mkdir(exist_ok=True)
        table = pd.DataFrame([row for entities in sorted(rows) for row in rows[entities]])
        table.to_csv(out / "oracle" / f"{habits.name}.tsv", sep="\t", index=False, na_rep="n/a")
        write_site_facts(out / "sites" / f"{habits.name}.yaml", habits, len(subjects), len(plans))
        temporary.rename(out / habits.name)
    except BaseException as error:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)  # else a worker writes into the folder that goes away
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise StoreError(f"{out}: the disk is full; make room and run the same command again") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_oracle(path: Path) -> pd.DataFrame:
    text = {"site": str, "subject": str, "run": str, "parcel": str}
    table = pd.read_csv(path, sep="\t", dtype=text, na_values=["n/a"], keep_default_na=False)
    return table.astype({"oracle_r": float})


def _end_with(parent: int) -> None:
    """A worker whose parent was killed would wait for work for ever, or go on writing."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _pool(n_jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    """Processes with one thread each; none for one job. Waiting work is dropped when something fails."""
    if n_jobs <= 1:
        yield None
        return
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by the numerical libraries when a process starts
    pool = ProcessPoolExecutor(n_jobs, get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
