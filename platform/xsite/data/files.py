"""Opening source files with suspicion: pointers instead of data, broken sidecars, odd encodings.

Every one of these was met in public simultaneous EEG-fMRI data sets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from xsite.errors import FormatError

POINTER_BYTES = 1024
POINTER = re.compile(
    rb"^(version https://git-lfs|/annex/objects/|\.git/annex|(\.\./)+\S+\s*$|/\S+/\S+\s*$|[A-Za-z]:\\\S+\s*$)"
)
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
    """Read a JSON sidecar.

    Raises
    ------
    FormatError
        Not valid JSON, or not a mapping; the message gives line and column.
    """
    try:
        content = json.loads(check_file(path).read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not UTF-8 text ({error}); save the sidecar as UTF-8") from error
    except json.JSONDecodeError as error:
        raise FormatError(
            f"{path}: invalid JSON at line {error.lineno}, column {error.colno}: {error.msg}; "
            "correct the sidecar (a comma too many is the usual cause)"
        ) from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: a sidecar is a JSON object, found {type(content).__name__}")
    return content


def read_tsv(path: Path) -> pd.DataFrame:
    """Read a BIDS table as text: UTF-8 with or without mark, UTF-16 with mark; ``n/a`` becomes missing.

    Raises
    ------
    FormatError
        Not text, or not a table.
    """
    content = check_file(path).read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
        table = pd.read_csv(StringIO(text), sep="\t", dtype=str, na_values=["n/a", ""], keep_default_na=False)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise FormatError(f"{path}: not a tab-separated UTF-8 table: {error}") from error
    table.columns = [str(name).strip() for name in table.columns]
    return table


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
    text = check_file(path).read_bytes().decode("latin-1")
    if "Brain" not in text[:100]:
        raise FormatError(f"{path}: not a BrainVision header (first line {text.splitlines()[0][:60]!r})")
    facts = dict(re.findall(r"(?m)^(\w+)=(.*?)\s*$", text))
    companions = []
    for name in ("DataFile", "MarkerFile"):
        named = facts.get(name, "").replace("$b", path.stem)
        if not named and name == "MarkerFile":
            continue
        companion = path.parent / named
        if not named or not (companion.exists() or companion.is_symlink()):
            raise FormatError(
                f"{path}: its {name} {named!r} is not beside it; complete the download or correct the header"
            )
        companions.append(check_file(companion))
    width = BINARY_BYTES.get(facts.get("BinaryFormat", "").upper())
    if width and facts.get("NumberOfChannels", "").isdigit():
        frame = width * int(facts["NumberOfChannels"])
        size = companions[0].stat().st_size
        if size % frame:
            raise FormatError(
                f"{companions[0]}: {size} bytes are not whole frames of {frame} bytes: truncated; fetch it again"
            )
    return companions
