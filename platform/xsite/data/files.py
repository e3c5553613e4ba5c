"""Opening source files with suspicion: pointers instead of data, broken sidecars, odd encodings.

Every one of these was met in public simultaneous EEG-fMRI data sets.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from xsite.data.lenient import UnreadableError, decode, parse_json, parse_table
from xsite.errors import FormatError

logger = logging.getLogger(__name__)

POINTER_BYTES = 1024
POINTER = re.compile(
    rb"^(version https://git-lfs|/annex/objects/|\.git/annex|(\.\./)+\S+\s*$|/\S+/\S+\s*$|[A-Za-z]:\\\S+\s*$)"
)
NOT_GIVEN = {"", "n/a", "N/A"}
UNKNOWN_WORDS = {"", "n/a", "na", "unknown", "n.a.", "none", "null", "[]", "{}"}
BINARY_BYTES = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4, "IEEE_FLOAT_64": 8}


def check_file(path: Path) -> Path:
    """Refuse a file that is absent, empty, or a pointer to data that were not fetched.

    Raises
    ------
    FormatError
    """
    if path.is_symlink() and not path.exists():
        raise FormatError(f"{path}: a link whose content was not fetched; run `datalad get` or `git annex get` on it")
    if not path.is_file():
        raise FormatError(f"{path}: no such file; complete the download")
    size = path.stat().st_size
    if size == 0:
        raise FormatError(f"{path}: empty file; download it again")
    if size <= POINTER_BYTES:
        with path.open("rb") as file:
            start = file.read(POINTER_BYTES)
        if POINTER.match(start):
            text = start.decode("utf-8", "replace").splitlines()[0][:80]
            raise FormatError(f"{path}: a storage pointer ({text!r}) where data should be; fetch the content itself")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON sidecar leniently; each fault is logged as a warning, see :func:`faults`.

    Raises
    ------
    FormatError
        Not JSON even so, or not a mapping; the message gives line and column.
    """
    facts, found = _json(path)
    _warn(path, found)
    return facts


def _json(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text, found = decode(check_file(path).read_bytes())
        content, more = parse_json(text)
    except UnreadableError as error:
        raise FormatError(f"{path}: {error}; correct the sidecar, or remove it") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: a sidecar is a JSON object, found {type(content).__name__}")
    return content, list(dict.fromkeys(found + more))


def read_tsv(path: Path, *, header: bool = True) -> pd.DataFrame:
    """Read a BIDS table as text leniently; ``n/a`` and empty cells become missing, each fault is logged as a warning.

    Parameters
    ----------
    path : Path
    header : bool
        False for tables that begin with data: the columns are called ``0``, ``1``, ...

    Raises
    ------
    FormatError
        Not text, or not a table.
    """
    table, found = _table(path, header)
    _warn(path, found)
    return table


def _table(path: Path, header: bool = True) -> tuple[pd.DataFrame, list[str]]:
    try:
        text, found = decode(check_file(path).read_bytes())
        names, rows, more = parse_table(text, header=header)
    except UnreadableError as error:
        raise FormatError(f"{path}: not a tab-separated UTF-8 table: {error}") from error
    columns = {
        name: pd.Series([None if row[i] in NOT_GIVEN else row[i] for row in rows], dtype="str")
        for i, name in enumerate(names)
    }
    return pd.DataFrame(columns), found + more


def faults(path: Path) -> list[str]:
    """What is wrong with a sidecar that can be read all the same; nothing for other files and unreadable ones."""
    try:
        return _json(path)[1] if path.suffix == ".json" else _table(path)[1] if path.suffix == ".tsv" else []
    except FormatError:
        return []


def sidecar_faults(paths: Iterable[Path]) -> dict[str, list[str]]:
    """File name to faults, for the files that have any: what a recording's provenance keeps."""
    return {path.name: found for path in paths if (found := faults(path))}


def _warn(path: Path, found: list[str]) -> None:
    for fault in found:
        _warn_once(path, fault, path.stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _warn_once(path: Path, fault: str, mtime_ns: int) -> None:
    """One warning per process: a sidecar at the root is read once for every recording."""
    logger.warning("%s: %s", path, fault)


def known(value: Any, *, positive: bool = False) -> Any:
    """Return the value of a sidecar's key, or None where it stands for "not known".

    Met in public data: a missing key, ``n/a``, ``Unknown``, ``[]`` as text, -1, and the date 1970-01-01.

    Parameters
    ----------
    value : object
    positive : bool
        True for quantities that cannot be zero, such as a repetition time: 0.0 is not known either.
    """
    if isinstance(value, str):
        text = value.strip()
        return None if text.lower() in UNKNOWN_WORDS or text.startswith("1970-01-01") else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None if isinstance(value, list | dict) and not value else value
    return None if value == -1 or math.isnan(value) or (positive and not value > 0) else value


def numbers(table: pd.DataFrame, columns: Iterable[str], path: Path) -> pd.DataFrame:
    """Columns of a text table as floats.

    Raises
    ------
    FormatError
        A cell is neither a number nor ``n/a``.
    """
    columns = list(columns)
    try:
        return pd.DataFrame({name: pd.to_numeric(table[name]).astype(float) for name in columns})
    except (ValueError, TypeError) as error:
        raise FormatError(f"{path}: a column of {columns} holds text where numbers should be: {error}") from error


def eeg_companions(path: Path) -> list[Path]:
    """Data and marker files that an EEG header names, each checked for existence, content and size.

    Raises
    ------
    FormatError
        One is absent, a pointer, or not a whole number of frames long.
    """
    if path.suffix == ".vhdr":
        return _brainvision_companions(path)
    twin = path.with_suffix(".fdt")
    return [check_file(twin)] if path.suffix == ".set" and (twin.exists() or twin.is_symlink()) else []


def _brainvision_companions(path: Path) -> list[Path]:
    facts = brainvision_facts(path)
    companions = [
        companion
        for name in ("DataFile", "MarkerFile")
        if (companion := brainvision_part(path, facts, name)) is not None
    ]
    frame = brainvision_frame(facts)
    size = companions[0].stat().st_size
    if frame and size % frame:
        raise FormatError(
            f"{companions[0]}: {size} bytes are not whole frames of {frame} bytes: truncated; fetch it again"
        )
    return companions


def brainvision_facts(path: Path) -> dict[str, str]:
    """All ``Key=value`` lines of a BrainVision header.

    Raises
    ------
    FormatError
        The file is absent, a pointer, or no such header.
    """
    text = check_file(path).read_bytes().decode("latin-1")
    if "Brain" not in text[:100]:
        raise FormatError(f"{path}: not a BrainVision header (first line {text.splitlines()[0][:60]!r})")
    return dict(re.findall(r"(?m)^(\w+)=(.*?)\s*$", text))


def brainvision_part(path: Path, facts: dict[str, str], name: str) -> Path | None:
    """Data (``DataFile``) or marker file (``MarkerFile``) that a BrainVision header names; markers may be absent.

    Raises
    ------
    FormatError
        The file is absent, a pointer, or empty.
    """
    named = facts.get(name, "").replace("$b", path.stem)
    if not named and name == "MarkerFile":
        return None
    companion = path.parent / named
    if not named or not (companion.exists() or companion.is_symlink()):
        raise FormatError(f"{path}: its {name} {named!r} is not beside it; complete the download or correct the header")
    return check_file(companion)


def brainvision_frame(facts: dict[str, str]) -> int:
    """Bytes of one sample of all channels; 0 where the header does not say."""
    width = BINARY_BYTES.get(facts.get("BinaryFormat", "").upper(), 0)
    return width * int(facts["NumberOfChannels"]) if facts.get("NumberOfChannels", "").isdigit() else 0
