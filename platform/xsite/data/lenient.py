"""Text that does not parse as it should: what can be read without guessing is read, and each fault is named.

Pure functions from bytes to content and a list of faults. Every fault was met in a public simultaneous EEG-fMRI data
set. Faults name keys, places and numbers, never other values: they are kept in the store, where free text must not go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BAD_ESCAPE = re.compile(r'\\(?!u[0-9A-Fa-f]{4})(?:u|[^"\\/bfnrtu])|\\(["\\/bfnrt]|u[0-9A-Fa-f]{4})')
_TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_FIELD = re.compile(r"""(?:^|(?<=\s))(?:'[^'’\t]*['’]|"[^"\t]*"|‘[^’\t]*’|“[^”\t]*”|\S+)(?=\s|$)""")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_OPENING, _CLOSING = "'\"‘“", "'\"’”"
CURLY = "‘’“”"


class UnreadableError(ValueError):
    """The text says nothing that could be read without guessing."""


def decode(content: bytes) -> tuple[str, list[str]]:
    """Text of UTF-8, UTF-16 or cp1252 bytes, with or without a byte order mark.

    Raises
    ------
    UnreadableError
        Binary content.
    """
    for mark, encoding in MARKS:
        if content.startswith(mark):
            fault = "starts with a UTF-8 byte order mark" if encoding == "utf-8" else f"is {encoding[:6].upper()} text"
            return _decoded(content[len(mark) :], encoding), [f"{fault}; BIDS wants UTF-8 without a mark"]
    start = content[:200]
    if len(start) > 3 and start.count(0) >= len(start) // 3:  # UTF-16 without a mark: every second byte is zero
        encoding = "utf-16-le" if start[1::2].count(0) > start[0::2].count(0) else "utf-16-be"
        return _decoded(content, encoding), ["is UTF-16 text without a mark; BIDS wants UTF-8"]
    try:
        return content.decode("utf-8"), []
    except UnicodeDecodeError as error:
        # every byte means something in cp1252, save five: those are kept as what latin-1 has in their place
        text = "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in content)
        return text, [f"byte {content[error.start]:#04x} at {error.start} is not UTF-8; read as cp1252"]


def _decoded(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableError(f"its mark says {encoding}, but it is not ({error})") from error


def parse_json(text: str) -> tuple[Any, list[str]]:
    """Content of JSON text; commas too many, bad escapes and control characters are repaired and named.

    A key given twice keeps its **first** value, where the standard parser keeps the last: the repeats met in public
    data are template lines appended behind the laboratory's own (``ECGChannelCount`` 2, then 0).

    Raises
    ------
    UnreadableError
        Still not JSON; the message gives line and column.
    """
    faults: list[str] = []
    try:
        return json.loads(text, object_pairs_hook=_first_wins(faults)), faults
    except json.JSONDecodeError:
        faults.clear()
    repaired = _repair(text, faults)
    try:
        return json.loads(repaired, object_pairs_hook=_first_wins(faults)), faults
    except json.JSONDecodeError as error:
        raise UnreadableError(f"invalid JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error


def _first_wins(faults: list[str]) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for key, value in pairs:
            if key in facts and facts[key] != value:
                both = f"{_shown(facts[key])}, then {_shown(value)}"
                faults.append(f"key {_plain(key)} is given twice ({both}); the first is kept")
            facts.setdefault(key, value)
        return facts

    return keep


def _plain(name: str) -> str:
    """A key as it is written where it looks like one; anything else may be free text."""
    return repr(name) if _KEY.fullmatch(name) else "(free text)"


def _shown(value: Any) -> str:
    return str(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def _repair(text: str, faults: list[str]) -> str:
    """Text whose strings and commas the JSON parser accepts; the rest is left as it is."""
    parts, last = [], 0
    for string in [*_STRING.finditer(text), None]:
        between = text[last : string.start() if string else len(text)]
        for comma in _TRAILING_COMMA.finditer(between):
            faults.append(f"a comma too many at line {_line(text, last + comma.start())}")
        parts.append(_TRAILING_COMMA.sub("", between))
        if string is not None:
            parts.append(_repaired_string(string[0], _line(text, string.start()), faults))
            last = string.end()
    return "".join(parts)


def _repaired_string(string: str, line: int, faults: list[str]) -> str:
    def escape(found: re.Match[str]) -> str:
        if found[1]:
            return found[0]
        faults.append(f"bad escape {found[0]!r} at line {line}; taken as it is written")
        return "\\" + found[0]

    def drop(found: re.Match[str]) -> str:
        faults.append(f"control character {ord(found[0]):#04x} in a string at line {line}; left out")
        return ""

    string = _BAD_ESCAPE.sub(escape, string)
    string = _CONTROL.sub(drop, string)
    return string.replace("\t", "\\t").replace("\r", "\\r").replace("\n", "\\n")


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def parse_table(text: str, *, header: bool = True) -> tuple[list[str], list[list[str]], list[str]]:
    """Column names, rows of cells, and faults of a table that should be separated by tabs.

    Parameters
    ----------
    text : str
    header : bool
        False for tables that begin with data: the columns are called ``0``, ``1``, ...

    Raises
    ------
    UnreadableError
        Binary, empty, or rows with more cells than there are columns.
    """
    if _CONTROL.search(text):
        raise UnreadableError("holds control characters: not a text table")
    lines = re.split(r"\r\n|\n|\r", text)
    while lines and not lines[-1].strip():
        lines.pop()
    faults = []
    blank = sum(not line.strip() for line in lines)
    if blank:
        faults.append(f"{blank} blank lines")
        lines = [line for line in lines if line.strip()]
    if not lines:
        raise UnreadableError("holds no line of text")
    rows = _split_by_blanks(lines, faults) or [[_unquoted(cell) for cell in line.split("\t")] for line in lines]
    names = rows.pop(0) if header else [str(column) for column in range(len(rows[0]))]
    names, rows = _squared(names, rows, faults)
    return _unique(names, faults), rows, faults


def _split_by_blanks(lines: list[str], faults: list[str]) -> list[list[str]] | None:
    """Rows of a table without a single tab whose lines all have as many blank-separated fields as the header."""
    if any("\t" in line for line in lines):
        return None
    fields = [_FIELD.findall(line) for line in lines]
    width = len(fields[0])
    if width < 2 or len(lines) < 2 or any(len(row) != width for row in fields):
        return None
    quoted = sum(cell[0] in _OPENING for row in fields for cell in row)
    faults.append("separated by blanks instead of tabs" + (f", {quoted} fields in quotes" if quoted else ""))
    curly = [number for number, line in enumerate(lines, start=1) if any(mark in line for mark in CURLY)]
    if curly:
        faults.append(f"a curly quotation mark at line {curly[0]}")
    return [[cell[1:-1] if _is_quoted(cell) else cell for cell in row] for row in fields]


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] in _OPENING and cell[-1] in _CLOSING


def _unquoted(cell: str) -> str:
    cell = cell.strip(" ")  # blanks only: a no-break space belongs to a channel's name
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _squared(names: list[str], rows: list[list[str]], faults: list[str]) -> tuple[list[str], list[list[str]]]:
    """Every row as long as the header, without columns that have neither name nor content."""
    width = len(names)
    spare = sum(len(row) > width and not any(row[width:]) for row in rows)
    short = sum(len(row) < width for row in rows)
    for number, row in enumerate(rows, start=1):
        if any(row[width:]):
            raise UnreadableError(f"row {number} has {len(row)} cells under {width} column names")
    rows = [[*row[:width], *[""] * (width - len(row))] for row in rows]
    nameless = {i for i, name in enumerate(names) if not name and not any(row[i] for row in rows)}
    if spare or nameless:
        faults.append(f"tabs too many in {spare or len(rows)} lines")
    if short:
        faults.append(f"{short} rows are shorter than the header; the rest is taken as n/a")
    kept = [i for i in range(width) if i not in nameless]
    return [names[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _unique(names: list[str], faults: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        count = seen[name] = seen.get(name, -1) + 1
        if count:
            faults.append(f"column {_plain(name)} is there more than once")
        unique.append(f"{name}.{count}" if count else name)
    return unique
