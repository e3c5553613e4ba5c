"""Writes that MLflow did not take, kept in a file of JSON lines until it takes them.

An outage must not stop training and must not lose a metric: each write is a small JSON object; while the server is
away they are appended here, in order, and sent once it answers again (or when the same study is run again).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Write = dict[str, Any]


class Spool:
    """An append-only file of writes.

    Parameters
    ----------
    path : Path
        Created with the first write; removed when everything has been sent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(self.read())

    def append(self, write: Write) -> None:
        """Add one write; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(write) + "\n")

    def read(self) -> list[Write]:
        """All writes, oldest first; a last line cut by a crash is left out."""
        if not self.path.exists():
            return []
        writes = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                writes.append(json.loads(line))
            except json.JSONDecodeError:  # only the line that was being written when the process died
                break
        return writes

    def keep(self, writes: list[Write]) -> None:
        """Replace the content by what is still to be sent; remove the file when nothing is."""
        if not writes:
            self.path.unlink(missing_ok=True)
            return
        fresh = self.path.with_suffix(".tmp")
        fresh.write_text("".join(json.dumps(write) + "\n" for write in writes), encoding="utf-8")
        fresh.replace(self.path)
