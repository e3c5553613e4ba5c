"""Recordings of an earlier ingest whose files the site now leaves out, or calls otherwise: noted until they pair again.

What is merely absent (a part of the data set was fetched, say) is not withdrawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xsite.data import storage
from xsite.data.left_out import read_left_out
from xsite.data.manifest import SEAL
from xsite.data.notes import WITHDRAWN
from xsite.data.privacy import file_name
from xsite.site import RecordingFiles

SIDECARS = (
    ".json",
    "_channels.tsv",
    "_events.tsv",
    "_electrodes.tsv",
)  # of an absent file: not a file that is left out


def note_withdrawn(store: str, site: str, present: Sequence[RecordingFiles]) -> None:
    """Note every recording of a site that the store holds and the latest pairing took out.

    Call it after :func:`xsite.data.left_out.note_left_out`, whose list it reads.

    Parameters
    ----------
    store : str
    site : str
    present : sequence of RecordingFiles
        What the latest pairing found: notes on these are removed.

    Raises
    ------
    StoreError
        The store cannot be written to.
    """
    fs, root = storage.open_filesystem(store)
    there = {files.key.entities for files in present}
    for path in map(str, fs.glob(f"{root}/{WITHDRAWN}/{site}/*.json")):
        if Path(path).stem in there:
            fs.rm_file(path)
    stored = {Path(str(path)).parent.stem: str(path) for path in fs.glob(f"{root}/{site}/*.zarr/{SEAL}")}
    former = {entities: path for entities, path in stored.items() if entities not in there}
    if not former:
        return
    reasons = _other_names(present) | read_left_out(store).get(site, {})
    for entities, path in sorted(former.items()):
        reason = next((reasons[name] for name in _source_names(fs, path) if name in reasons), "")
        if reason:
            content = json.dumps({"site": site, "entities": entities, "message": reason}, indent=1)
            storage.write_file(fs, f"{root}/{WITHDRAWN}/{site}/{entities}.json", content.encode())


def _other_names(present: Sequence[RecordingFiles]) -> dict[str, str]:
    """EEG and BOLD files of the recordings that are there: a former recording of one of them has another name now."""
    return {
        name: f"its files belong to {files.key.entities} now"
        for files in present
        for path in (files.eeg, files.bold)
        for name in (path.name, file_name(path, files.key))
    }


def _source_names(fs: Any, path: str) -> list[str]:
    """Names of a recording's EEG and BOLD files as the store keeps them, where they are its own."""
    try:
        sources = json.loads(fs.cat_file(path))["attributes"]["provenance"]["sources"]
        names = [str(source["file"]) for source in sources]
    except (ValueError, KeyError, TypeError):  # rebuilding the manifest tells what is wrong with it
        return []
    return [name for name in names if name.startswith(("sub-", "file-")) and not name.endswith(SIDECARS)]
