"""What a recording says of itself, without its arrays: enough for tables over hundreds of recordings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from xsite.data import storage
from xsite.data.manifest import KEYS, SEAL
from xsite.data.store import recording_path
from xsite.errors import StoreError
from xsite.recording import RecordingKey


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of one recording of a store.

    Parameters
    ----------
    key : RecordingKey
    row : mapping
        Its row of the manifest: ``excluded``, ``reason``, ``verdict``, counts, ``quality_...``.
    ch_names : tuple of str, length C
    positions : list, shape (C, 3)
        Metres in MNE's head frame, None where unknown.
    provenance, quality : mapping
    """

    key: RecordingKey
    row: Mapping[str, Any]
    ch_names: tuple[str, ...]
    positions: Any
    provenance: Mapping[str, Any]
    quality: Mapping[str, Any]

    @property
    def excluded(self) -> str:
        """Reason, empty for a recording that may train."""
        return str(self.row["reason"] or "excluded") if self.row["excluded"] else ""


def read_attributes(store: str, manifest: pd.DataFrame) -> list[Attributes]:
    """Attributes of the recordings of a manifest, in its order.

    Raises
    ------
    StoreError
        A recording of the manifest is not there, or damaged.
    """
    fs, root = storage.open_filesystem(store)
    found = []
    for row in manifest.to_dict("records"):
        key = RecordingKey(*(str(row[name] or "") for name in KEYS))
        path = f"{root}/{key.site}/{key.entities}.zarr/{SEAL}"
        try:
            content = json.loads(fs.cat_file(path))["attributes"]
            parts = [content[name] for name in ("ch_names", "positions", "provenance", "quality")]
        except (OSError, ValueError, KeyError, TypeError) as error:
            place = recording_path(store, key)
            raise StoreError(f"{place}: damaged or missing ({error!r}); ingest this recording again") from error
        facts = {str(name): value for name, value in row.items()}
        found.append(Attributes(key, facts, tuple(parts[0]), *parts[1:]))
    return found
