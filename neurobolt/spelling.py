"""Did you mean: the known name that an unknown one is nearest to, as the end of an error message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggestion with a blank before it; empty where no known name is near.

    Examples
    --------
    >>> did_you_mean("smal", ["small", "paper"])
    " (did you mean 'small'?)"
    >>> did_you_mean("smal", [])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
