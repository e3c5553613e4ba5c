"""A site's facts as a YAML file with a comment above each: how it was found, and what is not certain."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 110
UNSURE = "CHECK"


@dataclass(frozen=True)
class Fact:
    """One fact of a site.

    Parameters
    ----------
    name : str
        Field of :class:`xsite.site.Site`.
    value : object
    how : str
        How it was found.
    certain : bool
        False: a person must look at it.
    offered : bool
        Written behind a ``#``: to be taken over or not.
    """

    name: str
    value: Any
    how: str
    certain: bool = True
    offered: bool = False


def site_yaml(facts: Sequence[Fact], words: str) -> str:
    """Text of a site file that :func:`xsite.site.load_site` reads.

    Parameters
    ----------
    facts : sequence of Fact
    words : str
        What was looked at.
    """
    head = (
        f"First draft of a site's facts, made by looking at its files ({words}). Lines marked {UNSURE} are guesses: "
        "look at them, correct them, then run `neurobolt site check` on this file."
    )
    blocks = [_comment(head)]
    for fact in facts:
        value = yaml.safe_dump({fact.name: fact.value}, sort_keys=False, allow_unicode=True, width=WIDTH).rstrip()
        if fact.offered:
            value = "\n".join(f"# {line}" for line in value.splitlines())
        blocks.append(f"{_comment(fact.how if fact.certain else f'{UNSURE}: {fact.how}')}\n{value}")
    return "\n\n".join(blocks) + "\n"


def _comment(words: str) -> str:
    plain = " ".join(words.split())  # a newline out of a header would end the comment
    return "\n".join(f"# {line}" for line in textwrap.wrap(plain, WIDTH, break_long_words=False))
