"""Words of messages: the known name that an unknown one is nearest to, and counts with their noun."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggestion with a blank before it; empty where no known name is near.

    Examples
    --------
    >>> did_you_mean("optm", ["optim", "data"])
    " (did you mean 'optim'?)"
    >>> did_you_mean("smal", [])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def counted(n: float, one: str, more: str = "") -> str:
    """A number and its noun, singular after 1 only; ``more`` where the plural is not ``one`` and an s.

    Examples
    --------
    >>> counted(1, "node"), counted(2.0, "CPU"), counted(0, "study", "studies")
    ('1 node', '2 CPUs', '0 studies')
    """
    whole = int(n) if n == int(n) else n
    return f"{whole:,} {one if whole == 1 else more or one + 's'}"
