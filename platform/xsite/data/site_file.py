"""A site's facts as a YAML file: written with how each was found and what is not certain, and read back."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from xsite.errors import SiteError
from xsite.site import Expected, Site
from xsite.spelling import did_you_mean

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
    """Text of a site file that :func:`load_site` reads.

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


def load_site(path: str | Path) -> Site:
    """Read the facts of a private site from a YAML file: no code needed.

    Parameters
    ----------
    path : str or Path
        YAML mapping with the facts of :class:`Site` (readers are the BIDS defaults).

    Raises
    ------
    SiteError
        The file is absent, not a mapping, has unknown keys or lacks one.
    """
    path = Path(path)
    if not path.is_file():
        raise SiteError(f"{path}: no such site file; write one (see README, 'Bring your own site')")
    try:
        facts = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SiteError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(facts, dict):
        raise SiteError(f"{path}: expected a mapping of facts such as 't_r: 2.0', found {type(facts).__name__}")
    known = [f.name for f in fields(Site) if f.name not in ("find_recordings", "read_eeg", "read_bold")]
    unknown = [f"{key!r}{did_you_mean(str(key), known)}" for key in facts if key not in known]
    missing = [key for key in ("name", "sfreq", "t_r", "line_freq", "volume_marker") if key not in facts]
    if unknown or missing:
        parts = [f"unknown keys: {', '.join(unknown)}"] * bool(unknown) + [f"missing keys: {missing}"] * bool(missing)
        raise SiteError(f"{path}: " + "; ".join(parts))
    try:
        facts["expected"] = Expected(**(facts.get("expected") or {}))
        for key in ("ch_names", "decoys", "loops", "tasks"):
            facts[key] = tuple(facts.get(key) or ())
        return Site(**facts)
    except (TypeError, SiteError) as error:
        raise SiteError(f"{path}: {error}") from error
