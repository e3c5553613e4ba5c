"""A column of the manifest as what folds go by: its values per recording, and labels that keep them apart."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from xsite.errors import FoldError
from xsite.evaluation.folds import ENTITIES, manifest_keys
from xsite.recording import RecordingKey
from xsite.spelling import did_you_mean


def column_values(manifest: pd.DataFrame, column: str) -> dict[RecordingKey, str]:
    """Value of a manifest column of every usable recording, as text (3.0 is ``3``).

    Raises
    ------
    FoldError
        There is no such column (those that exist are listed), or recordings have no value in it.
    """
    if column not in manifest:
        listed = [str(name) for name in manifest.columns if manifest[name].nunique() > 1 and name != "path"]
        hint = did_you_mean(column, manifest.columns)
        raise FoldError(
            f"leave-one-out: the manifest has no column {column!r}{hint}; columns with more than one value are {listed}"
        )
    rows = {row_key(row): _text(row[column]) for row in manifest.to_dict("records")}
    values = {key: rows[key] for key in manifest_keys(manifest)}
    unknown = sorted({key.site for key, value in values.items() if not value})
    if unknown:
        raise FoldError(
            f"leave-one-out by {column}: recordings of {', '.join(unknown)} have no {column}, and might belong to what "
            "is held out; name the sites that have one in data.sites"
        )
    return values


def row_key(row: Mapping[Any, Any]) -> RecordingKey:
    """Key of a manifest row; entities that it lacks are empty."""
    return RecordingKey(*(_text(row.get(name)) for name in ENTITIES))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def check_labels(column: str, values: Sequence[str]) -> None:
    """Refuse values whose labels would be one: two spellings of one thing must not stand on two sides either."""
    by_label: dict[str, list[str]] = {}
    for value in values:
        by_label.setdefault(safe_label(value), []).append(value)
    if alike := next((own for own in by_label.values() if len(own) > 1), None):
        raise FoldError(
            f"leave-one-out by {column}: {' and '.join(map(repr, alike))} would both be called "
            f"'{column}={safe_label(alike[0])}'; give them one spelling in the sites' descriptions if they are one "
            "thing, and names that differ in more than spaces and signs if they are not"
        )


def safe_label(value: str) -> str:
    """A value as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.+-]+", "-", value)
