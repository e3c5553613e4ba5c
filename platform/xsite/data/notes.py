"""Notes beside the recordings of a store: which of them the latest ingest refused or left out, and why.

The manifest excludes what is noted: a version that an earlier ingest wrote must not train after its site's files or
facts said otherwise.
"""

from __future__ import annotations

import json
from typing import Any

from xsite.errors import StoreError

REFUSED, WITHDRAWN = "refused", "withdrawn"
"""Folders; each holds ``SITE/ENTITIES.json`` (:mod:`xsite.data.refused`, :mod:`xsite.data.withdrawn`)."""

MEANING = {REFUSED: "refused by the latest ingest", WITHDRAWN: "left out by the latest ingest"}


def noted_reasons(fs: Any, root: str) -> dict[str, list[str]]:
    """Recording (its path below the store, as in the manifest) to what is noted against it.

    Raises
    ------
    StoreError
        A note is damaged.
    """
    found: dict[str, list[str]] = {}
    for folder, meaning in MEANING.items():
        for path in sorted(map(str, fs.glob(f"{root}/{folder}/*/*.json"))):
            try:
                note = json.loads(fs.cat_file(path))
                recording = f"{note['site']}/{note['entities']}.zarr"
                found.setdefault(recording, []).append(f"{meaning}: {note['message']}")
            except FileNotFoundError:  # an ingest has just removed it
                continue
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(f"{path}: damaged note on a recording ({error!r}); delete it") from error
    return found
