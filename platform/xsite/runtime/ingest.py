"""Bring raw recordings into the store: one Ray task per recording; one bad recording does not stop the others."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import ray

from xsite.data import storage
from xsite.data.atlases import atlas_reference, get_atlas
from xsite.data.bids import find_recordings
from xsite.data.exclusion import exclusion_reasons
from xsite.data.fingerprint import input_fingerprint, source_files
from xsite.data.left_out import gathered, note_left_out
from xsite.data.manifest import FILE, SEAL
from xsite.data.prepare import prepare_recording
from xsite.data.privacy import dated_labels, without_dates
from xsite.data.refused import forget_refused, note_refused
from xsite.data.store import has_recording, rebuild_manifest, recording_path, write_recording
from xsite.data.withdrawn import note_withdrawn
from xsite.errors import SiteError, XsiteError
from xsite.runtime.cluster import task
from xsite.runtime.inputs import absolute_store
from xsite.signals.parcels import Atlas, parcel_coordinates
from xsite.site import RecordingFiles, Site
from xsite.spelling import counted

logger = logging.getLogger(__name__)

State = Literal["done", "skipped", "failed"]
Progress = Callable[[int, int, str], None]
"""Called as ``progress(finished, total, text)`` after every recording."""

MEMORY_PER_BYTE = 8  # of the source files; measured 2.0 (BrainVision) to 5.5 (with the gradient artifact removed)
MEMORY_BASE = 600 << 20  # an interpreter with MNE and nilearn
FINISH_S = 120.0


@dataclass(frozen=True)
class IngestReport:
    """What became of every recording.

    Parameters
    ----------
    done, skipped : list of str
        Keys written now, and keys that were there with the same inputs and settings.
    failed : dict of str to str
        Key to message.
    """

    done: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def note(self, key: str, state: State, message: str) -> None:
        """Count one recording."""
        if state == "failed":
            self.failed[key] = message
        else:
            (self.done if state == "done" else self.skipped).append(key)


def ingest_site(
    site: Site,
    root: str | Path,
    store: str,
    atlas_path: str | Path | None = None,
    *,
    progress: Progress = lambda finished, total, text: None,
) -> IngestReport:
    """Ingest one site; see :func:`ingest_sites`."""
    return ingest_sites([(site, Path(root))], store, atlas_path, progress=progress)


def ingest_sites(
    sites: Sequence[tuple[Site, Path]],
    store: str,
    atlas_path: str | Path | None = None,
    *,
    progress: Progress = lambda finished, total, text: None,
) -> IngestReport:
    """Prepare every recording of some sites on the connected cluster, and rebuild the store's manifest.

    Parameters
    ----------
    sites : sequence of (Site, Path)
        Each with its BIDS root, readable from every node.
    store : str
        Folder or URL.
    atlas_path : str or Path, optional
        File, or a name that :func:`xsite.data.atlases.get_atlas` knows; not needed where sites publish parcel series.

    Raises
    ------
    SiteError, ParcellationError
        The only site, or the atlas, cannot be used at all. What is wrong with single recordings, or with one of several
        sites, is in the report.
    """
    store = absolute_store(store)
    atlas = atlas_reference(atlas_path) if atlas_path is not None else None
    if atlas is not None:
        _note_coordinates(store, get_atlas(atlas))  # by name: fetched once, before many tasks ask for it
    report = IngestReport()
    pairs = [(site, files) for site, root in sites for files in _files(site, Path(root).resolve(), store, report)]
    if report.failed and not pairs:
        _renew_manifest(store)  # all that earlier ingests wrote may be left out now
        raise SiteError("; ".join(report.failed.values()))
    try:
        with closing(_results(pairs, store, atlas)) as results:
            for finished, (key, state, message) in enumerate(results, start=1):
                report.note(key, state, message)
                progress(finished, len(pairs), f"{key}: {message}")
    finally:  # after a Ctrl-C too: a former manifest would tell of recordings that have been replaced
        _renew_manifest(store, anew=bool(report.done or report.skipped))
    return report


def _renew_manifest(store: str, *, anew: bool = False) -> None:
    if anew or _exists(f"{store}/{FILE}"):
        rebuild_manifest(store)


def _files(site: Site, root: Path, store: str, report: IngestReport) -> list[RecordingFiles]:
    """Recordings of a site; the store notes what pairing leaves or takes out, and the report a site that has none."""
    found: list[RecordingFiles] = []
    with gathered() as left_out:
        try:
            found = (site.find_recordings or find_recordings)(root, site)
        except SiteError as error:
            report.failed[site.name] = str(error)
    if not found:
        report.failed.setdefault(site.name, f"site {site.name!r}: no recording under {root}")
    if dated := dated_labels(found):
        told = ", ".join(dated[:5]) + (", ..." if len(dated) > 5 else "")
        logger.warning("site %s: labels that look like a date are replaced by their order: %s", site.name, told)
        found = without_dates(found)
    if found or left_out:
        note_left_out(store, site.name, left_out, root)
        note_withdrawn(store, site.name, found)
    return found


def _results(
    pairs: Sequence[tuple[Site, RecordingFiles]], store: str, atlas: str | None
) -> Generator[tuple[str, State, str]]:
    """Results in the order in which they come; after a Ctrl-C, what is under way is finished and nothing new begun.

    Two tasks a core are handed to Ray at a time: enough to keep it busy and to make an autoscaler grow the cluster, few
    enough to wait for. They are not cancelled: Ray 2.60 aborts the driver now and then when a task ends in that moment.
    """
    room = 0.9 * _largest_node()
    ingest = task(ingest_recording)
    waiting = deque(pairs)
    running: dict[Any, str] = {}
    try:
        while waiting or running:
            width = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))  # nodes come and go
            while waiting and len(running) < width:
                site, files = waiting.popleft()
                ref = ingest.options(memory=min(_memory(files), room)).remote(site, files, store, atlas)
                running[ref] = str(files.key)
            (ref,), _ = ray.wait(list(running), num_returns=1)
            key = running.pop(ref)
            try:
                yield (key, *ray.get(ref))
            except ray.exceptions.RayError as error:  # the worker died, out of memory say
                yield key, "failed", f"the worker died ({type(error).__name__}): {str(error).splitlines()[0]}"
    finally:
        if running:
            what = counted(len(running), "recording is", "recordings are")
            logger.warning("stopping: %s under way and finished first (again to leave them)", what)
            ray.wait(list(running), num_returns=len(running), timeout=FINISH_S)


def _largest_node() -> float:
    """Memory of the largest node in bytes: a task that asks for more than one node has would wait for ever."""
    sizes = [node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"]]
    return max(sizes, default=0.0) or float("inf")


def _memory(files: RecordingFiles) -> float:
    """Bytes that preparing a recording may need; Ray starts only as many tasks as fit the machine."""
    try:
        sources = source_files(files)
    except XsiteError:
        return MEMORY_BASE  # the task itself says what is wrong with the files
    return MEMORY_BASE + MEMORY_PER_BYTE * sum(path.stat().st_size for path in sources if path.is_file())


def ingest_recording(site: Site, files: RecordingFiles, store: str, atlas_path: str | None) -> tuple[State, str]:
    """Prepare and write one recording, unless it is there; the message says what became of it."""
    started = time.perf_counter()
    try:
        atlas = _atlas(atlas_path) if atlas_path is not None else None
        fingerprint = input_fingerprint(site, files, atlas)
        if has_recording(store, files.key, fingerprint):
            forget_refused(store, files.key)
            return "skipped", "already in the store"
        recording = prepare_recording(site=site, files=files, atlas=atlas)
        write_recording(store, recording, fingerprint=fingerprint)
        forget_refused(store, files.key)
    except XsiteError as error:
        return "failed", f"{type(error).__name__}: {error}{_refused(store, site, files, error, atlas_path)}"
    except Exception as error:  # a library's own way to say that a file is bad: the other recordings go on
        return "failed", f"unexpected {type(error).__name__}: {error}{_refused(store, site, files, error, atlas_path)}"
    valid = f"{int(recording.volume_valid.sum())}/{recording.n_volumes} volumes"
    verdict = (recording.provenance.get("alignment") or {}).get("verdict", "unverified")
    excluded = exclusion_reasons(recording.provenance, recording.quality, len(recording.ch_names))
    return (
        "done",
        f"{len(recording.ch_names)} channels, {valid}, markers {verdict}, {time.perf_counter() - started:.1f} s"
        + (f"; excluded from training: {'; '.join(excluded)}" if excluded else ""),
    )


def _refused(store: str, site: Site, files: RecordingFiles, error: Exception, atlas_path: str | None) -> str:
    """Note in the store why a recording is not there; words about what an earlier ingest left of it."""
    try:
        note_refused(store, site, files, error, [atlas_path] if atlas_path else [])
    except (XsiteError, OSError) as failure:  # the store is full or gone: the message itself says so, or the next will
        logger.warning("%s: not noted as refused: %s", files.key, failure)
        return _former(store, files, noted=False)
    return _former(store, files, noted=True)


def _former(store: str, files: RecordingFiles, *, noted: bool) -> str:
    """Words about the version of a failed recording that an earlier ingest wrote: excluded, if that could be noted."""
    path = recording_path(store, files.key)
    if not _exists(f"{path}/{SEAL}"):
        return ""
    if not noted:
        return f" (the version of an earlier ingest is still in the store and in use; delete {path} to leave it out)"
    return f" (the version of an earlier ingest, {path}, is excluded from training until this one can be ingested)"


def _exists(path: str) -> bool:
    fs, place = storage.open_filesystem(path)
    return bool(fs.exists(place))


@lru_cache(maxsize=2)
def _atlas(path: str) -> Atlas:
    return get_atlas(path)


def _note_coordinates(store: str, atlas: Atlas) -> None:
    """Keep the parcels' places in the store, so that a study can draw them without the atlas file."""
    fs, root = storage.open_filesystem(store)
    parcellation = atlas.parcellation
    coords: Any = dict(zip(parcellation.labels, parcel_coordinates(atlas).round(2).tolist(), strict=True))
    content = {"name": parcellation.name, "space": parcellation.space, "coords": coords}
    storage.write_file(fs, f"{root}/parcellations/{parcellation.sha256}.json", json.dumps(content, indent=1).encode())
