"""Writes that MLflow did not take, kept in a file of JSON lines until it takes them.

An outage must not stop training and must not lose a metric: each write is a small JSON object; while the server is
away they are appended here, in order, and sent once it answers again (or when the same study is run again).
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

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
        """All writes, oldest first; a line that is none (cut by a crash, say) is left out with a warning."""
        if not self.path.exists():
            return []
        writes = []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                write = json.loads(line)
                writes.append({"do": write["do"], "run": write["run"], **write})
            except (json.JSONDecodeError, TypeError, KeyError):
                logger.warning("%s: line %d is no complete write and is left out", self.path, number)
        return writes

    def keep(self, writes: list[Write]) -> None:
        """Replace the content by what is still to be sent; remove the file when nothing is."""
        if not writes:
            self.path.unlink(missing_ok=True)
            return
        fresh = self.path.with_suffix(".tmp")
        fresh.write_text("".join(json.dumps(write) + "\n" for write in writes), encoding="utf-8")
        fresh.replace(self.path)
