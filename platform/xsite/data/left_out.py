"""Files that pairing left out: gathered while recordings are looked for, and kept in the store with the reason.

Adapters log ``FILE: left out: REASON`` (:func:`xsite.data.bids.recordings_of` does it for them), whatever their layout.
The store keeps BIDS names only and no words from headers (:mod:`xsite.data.privacy`): the dry run prints them all.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from xsite.data import storage
from xsite.data.inheritance import name_parts
from xsite.data.privacy import file_name, public_words
from xsite.errors import StoreError
from xsite.recording import RecordingKey

FOLDER = "left_out"
LOGGERS = ("xsite", "site_adapters")


class _LeftOut(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.files: dict[Path, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        file, found, reason = record.getMessage().partition(": left out: ")
        if found:
            self.files[Path(file)] = reason


@contextmanager
def gathered() -> Iterator[dict[Path, str]]:
    """Files that are logged as left out inside the context, with their reasons."""
    told = _LeftOut()
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(told)
    try:
        yield told.files
    finally:
        for logger in loggers:
            logger.removeHandler(told)


def note_left_out(store: str, site: str, files: Mapping[Path, str], root: Path) -> None:
    """Write ``left_out/SITE.json``: file name to reason, as of the latest ingest.

    Raises
    ------
    StoreError
        The store cannot be written to.
    """
    fs, place = storage.open_filesystem(store)
    names = {path: _public(path, site) for path in sorted(files)}
    reasons = {names[path]: _plain(files[path], root, names) for path in names}
    content = json.dumps(reasons, indent=1, ensure_ascii=False)
    storage.write_file(fs, f"{place}/{FOLDER}/{site}.json", content.encode())


def read_left_out(store: str) -> dict[str, dict[str, str]]:
    """Site to file name to reason.

    Raises
    ------
    StoreError
        A list is damaged.
    """
    fs, place = storage.open_filesystem(store)
    found = {}
    for path in sorted(map(str, fs.glob(f"{place}/{FOLDER}/*.json"))):
        try:
            found[Path(path).stem] = {str(file): str(reason) for file, reason in json.loads(fs.cat_file(path)).items()}
        except (ValueError, AttributeError) as error:
            raise StoreError(f"{path}: damaged list of files left out ({error!r}); delete it") from error
    return found


def _public(path: Path, site: str) -> str:
    return file_name(path, RecordingKey(site, name_parts(path).get("sub") or "unknown"))


def _plain(reason: str, root: Path, names: Mapping[Path, str]) -> str:
    """The reason without folders, without private names, and without what it lists in brackets (markers, say)."""
    for path, public in names.items():
        reason = reason.replace(f"{path}", public).replace(path.name, public)
    reason = public_words(reason.replace(f"{root}/", ""), names)
    return _without_brackets(reason)


def _without_brackets(reason: str) -> str:
    """The reason without brackets, nested ones too; where they are not balanced, nothing from the first one on."""
    shorter, left = "", reason
    while shorter != left:
        shorter, left = left, re.sub(r" *\([^()]*\)", "", left)
    return re.split(r" *\(", reason, maxsplit=1)[0].split(")")[0] if re.search(r"[()]", left) else left
