"""Channel names: what files say in one canonical spelling; pairs, nets and channels that are no EEG recognised.

Everything here looks at names alone. What a channel holds is looked at in :mod:`xsite.signals.channel_types`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import mne

OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_QUOTES = "'\"`´‘’‚‛“”„«»"
_INVISIBLE = re.compile("[\u200b-\u200f\u2060\ufeff\u00ad]")
_PREFIX = re.compile(r"^EEG(?:[\s_:-]+|(?=[A-Z]))")
_PREFIX_ANY_CASE = re.compile(r"^EEG[\s_:-]+", re.IGNORECASE)
_REFERENCE = re.compile(r"[\s_:-]+(?:ref|reference|le|ar|avg|car|a1|a2|a1a2|m1|m2|org|linked)$", re.IGNORECASE)
_PAIR = re.compile(r"\s*[-\u2010-\u2015/]\s*")
_EGI = re.compile(r"^E0*(\d{1,3})$", re.IGNORECASE)

EGI_NETS = {
    32: "GSN-HydroCel-32",
    64: "GSN-HydroCel-65_1.0",
    128: "GSN-HydroCel-129",
    256: "GSN-HydroCel-257",
}
"""Electrodes of an EGI net (without the vertex reference) to MNE's template of it."""
MIN_NET = 16  # E1 and E2 alone are eye electrodes of a sleep montage

# names of channels that are not EEG, whatever type the file claims; the first match wins
_NOT_EEG = (
    ("ecg", r"e[ck]g|cardio|heart"),
    ("eog", r"[lr]?[hv]?eog|[lr]oc|roc|e[12]-m[12]"),
    ("emg", r"emg|chin"),
    ("gsr", r"gsr|eda|scr"),
    ("resp", r"resp|belt|thorax|abdomen"),
    ("stim", r"status|sti|stim|trig|trigger|marker|event|events|annotations|edf annotations"),
    ("misc", r"cwl|cw|mcl|loop|puls|pulse|ppg|pleth|spo2|acc|aux|exg|bip|misc|temp|photo|reponse|response|rt|mouse"),
)
_SIDE = r"(?:left|right|up|upper|lo|low|lower|[a-z])?"
_NOT_EEG_PATTERNS = tuple((kind, re.compile(rf"^(?:{words})(?:[\s_.:+-]*{_SIDE}\d*)?$")) for kind, words in _NOT_EEG)


@cache
def _template() -> dict[str, str]:
    """Lower-case to canonical spelling of all 10-05 names."""
    names = mne.channels.make_standard_montage("colin27_1005").ch_names
    return {name.lower(): name for name in names if name not in OLD_NAMES}


def tidy_name(name: str) -> str:
    """A name without what cannot be seen: no-break spaces, zero-width marks, quotes around it, full stops after it."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name)).strip()
    return " ".join(plain.strip(_QUOTES).strip().rstrip(".").split())


def canonical_name(name: str) -> str:
    """Canonical 10-20/10-10 spelling of a channel name; a name that is not one comes back tidied, else unchanged.

    A letter too many (``PzV``) is not guessed away: it takes a fact of the site (``rename``).

    >>> [canonical_name(name) for name in ("FP1", "EEG Fp1-Ref", "T3", "CP5\u00a0", "‘O2’", "E017", "PzV")]
    ['Fp1', 'Fp1', 'T7', 'CP5', 'O2', 'E17', 'PzV']
    """
    tidy = tidy_name(name)
    bare = _REFERENCE.sub("", _PREFIX_ANY_CASE.sub("", tidy)).strip()
    known = _electrode(bare) or _electrode(_PREFIX.sub("", bare))
    if known is not None:
        return known
    number = egi_number(tidy)
    return tidy if number is None else f"E{number}"


def _electrode(bare: str) -> str | None:
    return _template().get(OLD_NAMES.get(bare.upper(), bare).lower())


def is_electrode(name: str) -> bool:
    """Whether a name is a position of the 10-05 system in any spelling that :func:`canonical_name` knows."""
    return canonical_name(name).lower() in _template()


def egi_number(name: str) -> int | None:
    """Number of an EGI electrode (``E1`` to ``E257``), else ``None``."""
    match = _EGI.match(_REFERENCE.sub("", _PREFIX_ANY_CASE.sub("", tidy_name(name))))
    return int(match[1]) if match and 1 <= int(match[1]) <= 257 else None


def egi_net(names: Sequence[str]) -> int | None:
    """Size of the EGI net that the names come from (32, 64, 128 or 256); ``None`` where they are no net."""
    numbers = {number for number in map(egi_number, names) if number is not None}
    if len(numbers) < MIN_NET:
        return None
    return next((size for size in EGI_NETS if max(numbers) <= size + 1), None)  # E65, E129, E257 are the vertex


def bipolar_pair(name: str) -> tuple[str, str] | None:
    """The two electrodes whose difference a channel records (``F7-T3``), else ``None``.

    >>> bipolar_pair("EEG F7-T3"), bipolar_pair("Fp1-Ref"), bipolar_pair("C3-A2")
    (('F7', 'T7'), None, None)
    """
    if is_electrode(name):
        return None
    parts = _PAIR.split(_PREFIX_ANY_CASE.sub("", tidy_name(name)))
    if len(parts) != 2 or not all(is_electrode(part) or egi_number(part) is not None for part in parts):
        return None
    return canonical_name(parts[0]), canonical_name(parts[1])


def shared_cathode(names: Sequence[str]) -> str | None:
    """Electrode that stands second in all pairs, if there are four or more: then it is the reference, not a montage."""
    pairs = [pair for pair in map(bipolar_pair, names) if pair is not None]
    seconds = {second for _, second in pairs}
    return seconds.pop() if len(pairs) >= 4 and len(seconds) == 1 else None


def type_from_name(name: str) -> str | None:
    """MNE channel type of names that cannot be EEG (``ECG``, ``HEOG``, ``CWL1``, ``Status``, ...), else ``None``."""
    bare = _PREFIX_ANY_CASE.sub("", tidy_name(name)).lower()
    return next((kind for kind, pattern in _NOT_EEG_PATTERNS if pattern.match(bare)), None)
