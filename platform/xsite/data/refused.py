"""Recordings that ingest could not use at all: the store remembers which, and why, until an ingest succeeds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from xsite.data import storage
from xsite.data.privacy import public_words
from xsite.errors import StoreError, XsiteError
from xsite.recording import RecordingKey
from xsite.site import RecordingFiles, Site

FOLDER = "refused"


def without_folders(words: str) -> str:
    """Shorten absolute paths to file names: where a file lay on somebody's disk is nobody's business."""
    return re.sub(r"(?<![\w.:/])(?:/[^/\s:;,()]+)+/(?=[^/\s])", "", words)


def note_refused(store: str, site: Site, files: RecordingFiles, error: Exception, places: Iterable[str] = ()) -> None:
    """Keep the message of an error, without what may be private in it.

    Folders are cut out, file names that are not BIDS replaced. What a message quotes may come from a header: only the
    site's own words stay. Of errors that are not ours, wrapped ones too, the kind is kept. The whole message stands in
    the ingest's log.

    Parameters
    ----------
    store : str
    site : Site
    files : RecordingFiles
    error : Exception
    places : iterable of str
        Paths beside those of the recording that the message may name, such as the atlas.

    Raises
    ------
    StoreError
        The store cannot be written to.
    """
    key, kind = files.key, type(error).__name__
    words = f"unexpected {kind}; its message is in the log of the ingest"
    if isinstance(error, XsiteError):
        near = [path for path in (files.eeg, files.bold, files.confounds, *files.others) if path is not None]
        own = {site.name, site.volume_marker or "", key.site, *site.decoys, *site.tasks}
        words = f"{kind}: {public_words(_own_words(error), near, own, (*places, store, str(Path.home())))}"
    fs, place = storage.open_filesystem(store)
    note = {"site": key.site, "entities": key.entities, "message": words}
    content = json.dumps(note, indent=1)
    storage.write_file(fs, f"{place}/{FOLDER}/{key.site}/{key.entities}.json", content.encode())


def _own_words(error: BaseException) -> str:
    """An error's message in which those of the libraries' errors that it tells of are replaced by their kinds."""
    words, cause = str(error), error.__cause__ or error.__context__
    while cause is not None:
        kind = type(cause).__name__
        for told in (repr(cause), f"{kind}: {cause}", str(cause), str(cause).partition("\n")[0]):
            if told and not isinstance(cause, XsiteError):
                words = re.sub(rf"(?<!\w){re.escape(told)}(?!\w)", kind, words)
        cause = cause.__cause__ or cause.__context__
    return words


def forget_refused(store: str, key: RecordingKey) -> None:
    """Remove the note on a recording that could be used now, if there is one."""
    fs, place = storage.open_filesystem(store)
    path = f"{place}/{FOLDER}/{key.site}/{key.entities}.json"
    if fs.exists(path):
        fs.rm_file(path)


def read_refused(store: str) -> dict[str, dict[str, str]]:
    """Site to BIDS entities to message.

    Raises
    ------
    StoreError
        A note is damaged.
    """
    fs, place = storage.open_filesystem(store)
    found: dict[str, dict[str, str]] = {}
    for path in sorted(map(str, fs.glob(f"{place}/{FOLDER}/*/*.json"))):
        try:
            note = json.loads(fs.cat_file(path))
            found.setdefault(str(note["site"]), {})[str(note["entities"])] = str(note["message"])
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: damaged note of a refused recording ({error!r}); delete it") from error
    return found
