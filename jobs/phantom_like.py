"""``neurobolt phantom --like``: phantoms of real sites, one by name, several with commas, or all that are known."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from site_adapters import LIKES, SIDECAR_FOLDERS, get_like
from xsite.errors import RecipeError
from xsite.phantom.like import LikeSite, expected_bytes, write_like
from xsite.phantom.like.folder import FACTS, like_from_folder
from xsite.spelling import counted

ALL_SUBJECTS, ALL_VOLUMES, ALL_RUNS = 2, 30, 2
"""Size of ``--like all`` unless asked otherwise: a study of all sites that two cores read and train in minutes."""

ROOM = 1.2  # images and tables beside the EEG


@dataclass(frozen=True)
class Size:
    """How much of each site is written; None: as published."""

    subjects: int | None
    volumes: int | None
    runs: int | None


def write_phantoms(names: str, out: Path, *, size: Size, sidecars: Path | None, seed: int) -> int:
    """Write phantoms of real sites below one folder, and say how to read them.

    Returns
    -------
    int
        0; a site that cannot be written is an error.

    Raises
    ------
    RecipeError
        The disk is too small for what was asked, or a target exists.
    SiteError
        No such site.
    """
    if names == "all":
        size = Size(size.subjects or ALL_SUBJECTS, size.volumes or ALL_VOLUMES, size.runs or ALL_RUNS)
    wanted = [_wanted(name, sidecars) for name in (list(LIKES) if names == "all" else names.split(","))]
    _check_room(wanted, out, size)
    for like, folder in wanted:
        truths = write_like(
            like, out, sidecars=folder, subjects=size.subjects, max_volumes=size.volumes, max_runs=size.runs, seed=seed
        )
        paired = sum(truth.run.paired for truth in truths)
        print(
            f"phantom of {like.site.name} in {out / like.site.name}: {counted(paired, 'recording')}, "
            f"{len(truths) - paired} runs without a partner or whole files; "
            f"sidecars: {folder or 'from the facts of the site'}",
            flush=True,
        )
    print(f"truth: {out}/SITE.truth.json; look: {_ingest(names, wanted, out)} --dry-run")
    print(f"read:  {_ingest(names, wanted, out)} --store STORE")
    return 0


def _wanted(name: str, sidecars: Path | None) -> tuple[LikeSite, Path | None]:
    folder = Path(name)
    if (folder / FACTS).is_file():
        return like_from_folder(folder), sidecars or folder
    like = get_like(name)
    return like, sidecars or next((path for path in (_shared(name),) if path.is_dir()), None)


def _shared(name: str) -> Path:
    """Folder beside the repository where the real sidecars of a site lie, if anywhere."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "sites"
    return folder / SIDECAR_FOLDERS.get(name, name)


def _check_room(wanted: list[tuple[LikeSite, Path | None]], out: Path, size: Size) -> None:
    """Say how much will be written; a real site at its own size is up to hundreds of gigabytes."""
    n_bytes = ROOM * sum(
        expected_bytes(like, sidecars=folder, subjects=size.subjects, max_volumes=size.volumes, max_runs=size.runs)
        for like, folder in wanted
    )
    there = next(path for path in (out.resolve(), *out.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    print(f"about {n_bytes / 1e9:.1f} GB will be written to {out}", flush=True)
    if n_bytes > free:
        raise RecipeError(
            f"{out}: about {n_bytes / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; write fewer subjects "
            "(--subjects 1), runs (--runs 2) or shorter ones (--volumes 60)"
        )


def _ingest(names: str, wanted: list[tuple[LikeSite, Path | None]], out: Path) -> str:
    if names == "all" or len(wanted) > 1:
        return f"neurobolt ingest all --bids {out}"
    name = wanted[0][0].site.name
    facts = Path(names) / FACTS
    return f"neurobolt ingest {facts if facts.is_file() else name} --bids {out / name}"
