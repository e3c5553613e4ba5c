"""Which channels of a file are EEG, under which names, and where they sit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xsite.errors import ChannelError
from xsite.recording import Float, Montage
from xsite.signals.channel_names import (
    bipolar_pair,
    canonical_name,
    egi_net,
    egi_number,
    is_electrode,
    shared_cathode,
    type_from_name,
)
from xsite.signals.channel_types import ChannelType, decide_types, has_location
from xsite.signals.positions import Placed, place_electrodes, template_positions
from xsite.site import Site

__all__ = [
    "Picked",
    "canonical_name",
    "choose_channels",
    "is_electrode",
    "locate",
    "pick_eeg",
    "read_montage",
    "template_positions",
    "type_from_name",
]


@dataclass(frozen=True)
class Picked:
    """The EEG channels of a file.

    Parameters
    ----------
    file_names, ch_names : tuple of str
        As in the file, and canonical; in the site's order if it lists ``ch_names``, else in the file's.
    notes : dict
        For the processing steps: ``types`` (corrections with their evidence), ``reference_in_names``, ``unnamed``.
    """

    file_names: tuple[str, ...]
    ch_names: tuple[str, ...]
    notes: dict[str, Any]


def choose_channels(raw: Any, site: Site, *, source: str) -> Picked:
    """Choose the EEG channels of a file.

    The site's facts come first (``rename``, ``ch_types``, ``ch_names``), then the names, then the signal of channels
    whose name says nothing, last the types in the file. Of a site that is ``unusable`` for training, pairs and unknown
    names are kept as they are.

    Raises
    ------
    ChannelError
        Channels that the site lists are missing, names are unknown and have no position, pairs of electrodes stand in
        place of electrodes, or two channels have one name. All of it is named at once.
    """
    verdicts = decide_types(raw, site)
    eeg = [v for v in verdicts if v.kind == "eeg" and (not site.ch_names or v.name in site.ch_names)]
    found: dict[str, str] = {}
    twice = []
    for verdict in eeg:
        if verdict.name in found:
            twice.append(f"{found[verdict.name]!r} and {verdict.file_name!r} are both {verdict.name!r}")
        found.setdefault(verdict.name, verdict.file_name)
    pairs = [v.file_name for v in eeg if v.name not in site.ch_names and bipolar_pair(v.name) is not None]
    unknown = [v.file_name for v in eeg if v.file_name not in pairs and _unknown(v, raw, eeg, site)]
    missing = [name for name in site.ch_names if name not in found]
    problems = []
    if missing:
        problems.append(f"channels missing that site {site.name!r} lists: {missing}; the file has {list(raw.ch_names)}")
    if pairs and not site.unusable:
        problems.append(
            f"bipolar pairs {pairs}: each is the difference of two electrodes, the potential of neither is known; give "
            "them another type in the site's ch_types, or say in the site's unusable why it is not trained on"
        )
    if unknown and not site.unusable:
        problems.append(f"unknown channel names without position: {unknown}; map them in the site's rename or ch_types")
    problems += twice
    if not found:
        problems.append(f"no EEG channel among {list(raw.ch_names)}")
    if problems:
        raise ChannelError(f"{source}: " + "; ".join(problems))
    names = site.ch_names or tuple(found)
    return Picked(tuple(found[name] for name in names), tuple(names), _notes(raw, verdicts, [*pairs, *unknown]))


def _unknown(verdict: ChannelType, raw: Any, eeg: Sequence[ChannelType], site: Site) -> bool:
    if is_electrode(verdict.name) or verdict.name in site.ch_names or has_location(raw, verdict.file_name):
        return False
    return egi_number(verdict.name) is None or egi_net([other.name for other in eeg]) is None


def _notes(raw: Any, verdicts: Sequence[ChannelType], unnamed: list[str]) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    if corrected := [verdict.step() for verdict in verdicts if verdict.corrected]:
        notes["types"] = corrected
    if cathode := shared_cathode(raw.ch_names):
        notes["reference_in_names"] = cathode
    if unnamed:
        notes["unnamed"] = unnamed
    return notes


def pick_eeg(raw: Any, site: Site, *, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """File and canonical names of the EEG channels: :func:`choose_channels` without its notes."""
    picked = choose_channels(raw, site, source=source)
    return picked.file_names, picked.ch_names


def locate(raw: Any, file_names: Sequence[str], ch_names: Sequence[str]) -> Placed:
    """Positions of a file's channels in the head frame, and what was recognised in them."""
    places = {channel["ch_name"]: channel["loc"][:3] for channel in raw.info["chs"]}
    measured_C3: Float = np.array([places[name] for name in file_names], dtype=np.float64).reshape(-1, 3)
    return place_electrodes(measured_C3, ch_names)


def read_montage(raw: Any, file_names: Sequence[str], ch_names: Sequence[str]) -> tuple[Montage, str]:
    """Positions from the file if they fit a head, else from the template; the second value says which."""
    placed = locate(raw, file_names, ch_names)
    return Montage(tuple(ch_names), placed.positions_C3), placed.source
