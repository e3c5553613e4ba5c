"""Channel names, types and positions: what a file says, brought to one canonical spelling and one head frame."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import mne
import numpy as np

from xsite.errors import ChannelError
from xsite.recording import Float, Montage
from xsite.site import Site

OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_PREFIX = re.compile(r"^EEG[\s_:-]+", re.IGNORECASE)
_REFERENCE = re.compile(r"[\s_:-]+(?:ref|reference|le|ar|avg|car|a1|a2|a1a2|m1|m2|org|linked)$", re.IGNORECASE)

# names of channels that are not EEG, whatever type the file claims; the first match wins
_NOT_EEG = (
    ("ecg", r"e[ck]g|cardio|heart"),
    ("eog", r"[hv]?eog|loc|roc|e[12]-m[12]"),
    ("emg", r"emg|chin"),
    ("gsr", r"gsr|eda|scr"),
    ("resp", r"resp|belt|thorax|abdomen"),
    ("stim", r"status|sti|stim|trig|trigger|marker|event|events|annotations|edf annotations"),
    ("misc", r"cwl|cw|mcl|loop|puls|pulse|ppg|pleth|spo2|acc|aux|exg|bip|misc|temp|photo|reponse|response|rt|mouse"),
)
_NOT_EEG_PATTERNS = tuple((kind, re.compile(rf"^(?:{words})(?:[\s_.:+-]*[a-z]?\d*)?$")) for kind, words in _NOT_EEG)


@cache
def _template() -> dict[str, str]:
    """Lower-case to canonical spelling of all 10-05 names."""
    names = mne.channels.make_standard_montage("colin27_1005").ch_names
    return {name.lower(): name for name in names if name not in OLD_NAMES}


def canonical_name(name: str) -> str:
    """Canonical 10-20/10-10 spelling of a channel name; a name that is not one comes back stripped, else unchanged.

    >>> [canonical_name(name) for name in ("FP1", "EEG Fp1-Ref", "T3", "fp1 ", "CWL1")]
    ['Fp1', 'Fp1', 'T7', 'Fp1', 'CWL1']
    """
    stripped = name.strip().rstrip(".").strip()
    bare = _REFERENCE.sub("", _PREFIX.sub("", stripped)).strip()
    bare = OLD_NAMES.get(bare.upper(), bare)
    return _template().get(bare.lower(), stripped)


def is_electrode(name: str) -> bool:
    """Whether a name is a position of the 10-05 system in any spelling that :func:`canonical_name` knows."""
    return canonical_name(name).lower() in _template()


def type_from_name(name: str) -> str | None:
    """MNE channel type of names that cannot be EEG (``ECG``, ``HEOG``, ``CWL1``, ``Status``, ...), else ``None``."""
    bare = _PREFIX.sub("", name.strip()).lower()
    return next((kind for kind, pattern in _NOT_EEG_PATTERNS if pattern.match(bare)), None)


def pick_eeg(raw: Any, site: Site, *, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose the EEG channels of a file.

    The site's facts come first (``rename``, ``ch_types``, ``ch_names``), then the names, then the types in the file.

    Returns
    -------
    file_names, canonical_names : tuple of str
        In the site's order if it lists ``ch_names``, else in the file's.

    Raises
    ------
    ChannelError
        Channels that the site lists are missing, names are unknown and have no position, or two channels have one name.
    """
    found: dict[str, str] = {}
    unknown, twice = [], []
    for file_name, file_type in zip(raw.ch_names, raw.get_channel_types(), strict=True):
        name = canonical_name(site.rename.get(file_name, site.rename.get(file_name.strip(), file_name)))
        if _type(file_name, name, file_type, site) != "eeg" or (site.ch_names and name not in site.ch_names):
            continue
        if name in found:
            twice.append(f"{found[name]!r} and {file_name!r} are both {name}")
        elif not is_electrode(name) and name not in site.ch_names and not _has_position(raw, file_name):
            unknown.append(file_name)
        found.setdefault(name, file_name)
    missing = [name for name in site.ch_names if name not in found]
    problems = []
    if missing:
        problems.append(f"channels missing that site {site.name!r} lists: {missing}; the file has {list(raw.ch_names)}")
    if unknown:
        problems.append(f"unknown channel names without position: {unknown}; map them in the site's rename or ch_types")
    problems += twice
    if not found:
        problems.append(f"no EEG channel among {list(raw.ch_names)}")
    if problems:
        raise ChannelError(f"{source}: " + "; ".join(problems))
    names = site.ch_names or tuple(found)
    return tuple(found[name] for name in names), tuple(names)


def _type(file_name: str, name: str, file_type: str, site: Site) -> str:
    for spelling in (name, file_name, file_name.strip()):
        if spelling in site.ch_types:
            return site.ch_types[spelling]
    if name in site.ch_names:
        return "eeg"
    return type_from_name(file_name) or type_from_name(name) or file_type


def _location(raw: Any, file_name: str) -> Float:
    """Head-frame position of a channel in metres; NaN if the file has none (the origin counts as none)."""
    channel = raw.info["chs"][raw.ch_names.index(file_name)]
    position = np.array(channel["loc"][:3], dtype=np.float64)
    in_head = int(channel["coord_frame"]) == int(mne.io.constants.FIFF.FIFFV_COORD_HEAD)
    return position if in_head and np.any(np.abs(position) > 1e-6) else np.full(3, np.nan)


def _has_position(raw: Any, file_name: str) -> bool:
    return bool(np.isfinite(_location(raw, file_name)).all())


@cache
def _template_positions() -> dict[str, tuple[float, ...]]:
    montage = mne.channels.make_standard_montage("colin27_1005")
    info = mne.create_info(montage.ch_names, 200.0, "eeg").set_montage(montage)
    return {channel["ch_name"]: tuple(float(x) for x in channel["loc"][:3]) for channel in info["chs"]}


def template_positions(ch_names: Sequence[str]) -> Float:
    """Positions on MNE's 10-05 template, shape (C, 3), metres in the head frame; NaN for names outside it."""
    positions = _template_positions()
    return np.array([positions.get(name, (np.nan,) * 3) for name in ch_names], dtype=np.float64)


def read_montage(raw: Any, file_names: Sequence[str], ch_names: Sequence[str]) -> tuple[Montage, str]:
    """Positions from the file if they are sane, else from the template; the second value says which.

    Sane: on a head-sized shell in metres, and pointing where the template's electrodes of the same name point
    (files with x towards the nose, unit spheres and millimetres exist).
    """
    measured_C3 = np.stack([_location(raw, name) for name in file_names])
    expected_C3 = template_positions(ch_names)
    both = np.isfinite(measured_C3).all(1) & np.isfinite(expected_C3).all(1)
    if both.sum() >= max(3, 0.8 * np.isfinite(expected_C3).all(1).sum()):
        sizes_C = np.linalg.norm(measured_C3[both], axis=1)
        cosine_C = np.sum(measured_C3[both] * expected_C3[both], axis=1) / (
            sizes_C * np.linalg.norm(expected_C3[both], axis=1)
        )
        if 0.05 < np.median(sizes_C) < 0.16 and np.median(cosine_C) > 0.85:
            holes = ~np.isfinite(measured_C3).all(1)
            measured_C3[holes] = expected_C3[holes]
            return Montage(tuple(ch_names), measured_C3), "file"
    return Montage(tuple(ch_names), expected_C3), "template 10-05"
