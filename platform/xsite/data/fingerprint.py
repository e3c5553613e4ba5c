"""What a prepared recording depends on: its source files, the facts of its site, the settings and the software."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from xsite.data.bold_readers import bold_companions, sidecar_paths
from xsite.data.files import check_file, eeg_companions
from xsite.data.inheritance import eeg_sidecars
from xsite.data.store import FORMAT_VERSION
from xsite.data.versions import software_versions
from xsite.signals.parcels import Atlas
from xsite.site import RecordingFiles, Site

HASH_BLOCK = 1 << 22


def input_fingerprint(
    site: Site, files: RecordingFiles, atlas: Atlas | None, settings: Mapping[str, Any] | None = None
) -> str:
    """Hash of everything that a prepared recording depends on: same fingerprint, nothing to do.

    Parameters
    ----------
    site : Site
    files : RecordingFiles
    atlas : Atlas, optional
    settings : mapping, optional
        Keyword arguments of :func:`prepare_recording`, such as ``{"sfreq": 200.0}``.

    Raises
    ------
    FormatError
        A source file is absent, empty, or a pointer to data that were not fetched.
    """
    parcellation = None if atlas is None else atlas.parcellation
    facts = {field.name: _named(getattr(site, field.name)) for field in fields(Site)}
    content = {
        "format": FORMAT_VERSION,
        "site": facts,
        "atlas": None if parcellation is None else asdict(parcellation),  # the hash is of the image, not of its names
        "settings": {"sfreq": 200.0, **(settings or {})},
        "sources": [[path.name, sha256(path)] for path in map(check_file, source_files(files))],
        "versions": software_versions(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def source_files(files: RecordingFiles) -> list[Path]:
    """Every file that a recording is made from: data, headers, markers, sidecars, and what the site's readers open."""
    tables = [path for path in (files.confounds, files.truth) if path is not None]
    tables += [path for path in files.others if path.is_file() and path not in tables]
    images = [files.bold, *sidecar_paths(files.bold, files.key)]
    return [files.eeg, *eeg_companions(files.eeg), *images, *eeg_sidecars(files.eeg), *tables, *bold_companions(files)]


def _named(value: Any) -> Any:
    """A reader by its name and its source: the same function corrected is another one."""
    function = inspect.unwrap(getattr(value, "func", value))  # a partial's own function
    if not callable(function):
        return value
    bound = [repr(getattr(value, "args", ())), repr(getattr(value, "keywords", {}))]
    try:
        source = sha256(Path(inspect.getsourcefile(function) or ""))
    except (OSError, TypeError):  # made in an interpreter, without a file
        source = ""
    return [function.__module__, getattr(function, "__qualname__", repr(function)), source, *bound]


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, read once per process and state of the file."""
    state = path.stat()
    return _sha256_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256_of(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once per process: the fingerprint and the provenance both want it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
