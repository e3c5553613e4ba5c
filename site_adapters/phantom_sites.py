"""The sites of a generated phantom consortium (``python -m jobs.phantom OUT``), read from the facts that it wrote.

Phantom sites are ordinary sites: each ``OUT/sites/<site>.yaml`` also works with
:func:`xsite.data.site_file.load_site`. Those made from real parcel series have tables instead of images and bring the
functions below.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xsite.data.files import numbers, read_json, read_tsv
from xsite.data.site_file import load_site
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.site import BoldRun, RecordingFiles, Site

GLOBAL_SIGNAL = "global signal clean"


def phantom_sites(root: str | Path) -> dict[str, Site]:
    """Site values of a consortium, by name; the BIDS root of each is ``root / name``.

    Raises
    ------
    SiteError
        ``root`` is no consortium folder, or a site's facts are damaged.
    """
    root = Path(root)
    if not (root / "consortium.json").is_file():
        raise SiteError(f"{root}: no phantom consortium (consortium.json is missing); make one: python -m jobs.phantom")
    sites = [load_site(path) for path in sorted((root / "sites").glob("*.yaml"))]
    complete = [site for site in sites if (root / site.name).is_dir()]
    if not complete:
        raise SiteError(f"{root}: not one site is complete; run python -m jobs.phantom with the same options again")
    return {site.name: _with_readers(site, root / site.name) for site in complete}


def _with_readers(site: Site, folder: Path) -> Site:
    if not (folder / "derivatives" / "parcels").is_dir():
        return site
    return replace(site, find_recordings=find_parcel_tables, read_bold=read_parcel_table)


def find_parcel_tables(root: Path, site: Site) -> list[RecordingFiles]:
    """EEG files and the parcel tables of the same runs.

    Raises
    ------
    SiteError
        The folder holds no parcel table.
    """
    found = []
    for table in sorted((Path(root) / "derivatives" / "parcels").glob("sub-*/func/*_desc-real_timeseries.tsv")):
        stem = table.name.removesuffix("_desc-real_timeseries.tsv")
        labels = dict(part.split("-", 1) for part in stem.split("_"))
        key = RecordingKey(site.name, labels["sub"], task=labels["task"], run=labels.get("run", ""))
        folder = Path(root) / f"sub-{key.subject}" / "eeg"
        eeg = next(iter(sorted(folder.glob(f"{stem}_eeg.[ves]*[ftr]"))), folder / f"{stem}_eeg.vhdr")
        truth = Path(root) / "derivatives" / "phantom" / f"sub-{key.subject}" / "func"
        truth = truth / f"{stem}_desc-noisefree_timeseries.tsv"
        found.append(RecordingFiles(key, eeg, table, truth=truth if truth.exists() else None))
    if not found:
        raise SiteError(f"site {site.name!r}: no parcel table (*_desc-real_timeseries.tsv) under {root}/derivatives")
    return found


def read_parcel_table(files: RecordingFiles, site: Site) -> BoldRun:
    """Ready-made parcel series, one column per parcel; the published global signal is kept apart and as a target.

    Raises
    ------
    FormatError
        The table or its sidecar cannot be read.
    """
    table, facts = read_tsv(files.bold), read_json(files.bold.with_suffix(".json"))
    names = tuple(str(name) for name in table.columns)
    series_VR = numbers(table, names, files.bold).to_numpy(dtype="float32")
    if not len(series_VR):
        raise FormatError(f"{files.bold}: holds no volume")
    shared = series_VR[:, names.index(GLOBAL_SIGNAL)] if GLOBAL_SIGNAL in names else None
    return BoldRun(
        t_r=float(facts.get("RepetitionTime", site.t_r)),
        series_VR=series_VR,
        labels=names,
        global_signal_V=shared,
        units=str(facts.get("Units", "z")),
    )
