"""A phantom of a site that nobody wrote an adapter for: from a folder of its sidecars and its facts (``site.yaml``)."""

from __future__ import annotations

import re
from pathlib import Path

from xsite.data.files import read_tsv
from xsite.data.site_file import load_site
from xsite.errors import FormatError, SiteError
from xsite.phantom.like.plan import EegFormat, LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import MANIFEST, entities_of, manifest
from xsite.recording import RecordingKey
from xsite.site import Site

FACTS = "site.yaml"
N_VOLUMES = 150
FORMATS: dict[str, EegFormat] = {".vhdr": "brainvision", ".edf": "edf", ".set": "eeglab-fdt"}
Entities = tuple[str, str, str, str]


def like_from_folder(folder: Path) -> LikeSite:
    """Read a folder of sidecars: which runs there are, which channels, which format.

    Runs come from ``_manifest.tsv`` (path, bytes) where there is one, else from the files of the folder; a run that has
    sidecars only counts as one. Channels come from the first ``channels.tsv``, else from the facts.

    Raises
    ------
    SiteError
        No facts, no run, or no channel names.
    """
    folder = Path(folder)
    site = load_site(folder / FACTS)
    runs = folder_runs(folder, site)
    suffix = next((Path(run.eeg).suffix for run in runs if run.eeg), ".vhdr")
    return LikeSite(
        site=site,
        runs=lambda _: runs,
        ch_names=_channels(folder, site),
        eeg_format=FORMATS[suffix],
        trains=(MarkerTrain(site.volume_marker),) if site.volume_marker else (),
        derivatives=site.bold_space == "derivative",
        reference=(),
    )


def folder_runs(folder: Path, site: Site) -> list[LikeRun]:
    """All runs that the folder speaks about, EEG and BOLD brought together by name (``site.task_pairs`` applies).

    Raises
    ------
    SiteError
        Not one.
    """
    names = list(manifest(folder)) if (folder / MANIFEST).is_file() else _files(folder)
    eeg = {_labels(name, site): name for name in names if name.endswith(tuple(f"_eeg{suffix}" for suffix in FORMATS))}
    bold = {_labels(name): name for name in names if name.endswith(("_bold.nii.gz", "_bold.nii"))}
    for name in names:  # runs of which only sidecars are there
        if name.endswith("_eeg.json"):
            eeg.setdefault(_labels(name, site), re.sub("json$", "vhdr", name))
        elif name.endswith("_bold.json"):
            bold.setdefault(_labels(name), re.sub("json$", "nii.gz", name))
    every = sorted(entities for entities in eeg.keys() | bold.keys() if entities[0])
    if not every:
        raise SiteError(f"{folder}: no run: neither {MANIFEST} nor sub-*/eeg/*_eeg.json, sub-*/func/*_bold.json")
    return [LikeRun(RecordingKey(site.name, *run), eeg.get(run), bold.get(run), N_VOLUMES) for run in every]


def _files(folder: Path) -> list[str]:
    paths = sorted(path for path in folder.rglob("sub-*_*") if path.is_file())
    return [name for name in (path.relative_to(folder).as_posix() for path in paths) if "derivatives/" not in name]


def _labels(name: str, site: Site | None = None) -> Entities:
    parts = entities_of(name)
    task = parts.get("task", "")
    if site is not None:
        task = site.task_pairs.get(task, task)
    return parts.get("sub", ""), parts.get("ses", ""), task, parts.get("run", "")


def _channels(folder: Path, site: Site) -> tuple[str, ...]:
    for path in sorted(folder.rglob("*channels.tsv")):
        try:
            table = read_tsv(path)
        except FormatError:
            continue
        names = table[table.columns[0]].dropna().astype(str)
        found = tuple(name.strip("'\u2019\" ") for name in names)
        if found:
            return found
    if site.ch_names:
        return (*site.ch_names, *site.ch_types)
    raise SiteError(f"{folder}: no readable channels.tsv; write ch_names into {folder / FACTS}")
