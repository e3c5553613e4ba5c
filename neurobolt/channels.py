"""Electrode names and their rows in LaBraM's spatial embedding: one map, used for both branches of the model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from neurobolt.positions import OLD_NAMES, has_position, unit_position, unit_positions

# Order matters: row = position in this list + 1, row 0 is the cls token. Of the 136 names that LaBraM lists, its
# table of 129 rows addresses the first 128 (the last 8 bipolar names have no row). Source: LaBraM (MIT).
_LABRAM = """
    FP1 FPZ FP2
    AF9 AF7 AF5 AF3 AF1 AFZ AF2 AF4 AF6 AF8 AF10
    F9 F7 F5 F3 F1 FZ F2 F4 F6 F8 F10
    FT9 FT7 FC5 FC3 FC1 FCZ FC2 FC4 FC6 FT8 FT10
    T9 T7 C5 C3 C1 CZ C2 C4 C6 T8 T10
    TP9 TP7 CP5 CP3 CP1 CPZ CP2 CP4 CP6 TP8 TP10
    P9 P7 P5 P3 P1 PZ P2 P4 P6 P8 P10
    PO9 PO7 PO5 PO3 PO1 POZ PO2 PO4 PO6 PO8 PO10
    O1 OZ O2 O9 CB1 CB2 IZ O10 T3 T5 T4 T6 M1 M2 A1 A2
    CFC1 CFC2 CFC3 CFC4 CFC5 CFC6 CFC7 CFC8
    CCP1 CCP2 CCP3 CCP4 CCP5 CCP6 CCP7 CCP8
    T1 T2 FTT9H TTP7H TPP9H FTT10H TPP8H TPP10H
    FP1-F7 F7-T7 T7-P7 P7-O1 FP2-F8 F8-T8 T8-P8 P8-O2
"""
LABRAM_NAMES: tuple[str, ...] = tuple(_LABRAM.split())
N_ROWS = len(LABRAM_NAMES) + 1

_VU = "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fpz Fz Cz Pz POz Oz FT9 FT10 TP9 TP10"
VU_NAMES: tuple[str, ...] = tuple(_VU.split())
"""The 26 electrodes of the Vanderbilt resting-state set, in the order of the published checkpoints."""

Unseen = Literal["error", "nearest"]
_NEW_NAMES = {new: old for old, new in OLD_NAMES.items()}
_ROWS = {name: row for row, name in enumerate(LABRAM_NAMES, start=1)}


def spatial_rows(ch_names: Sequence[str]) -> list[int]:
    """Rows of the spatial embedding, one per name, whatever the case of its letters.

    Raises
    ------
    ValueError
        Names that the embedding does not hold; all of them are listed.

    Examples
    --------
    >>> spatial_rows(["Fp1", "Cz"])
    [1, 42]
    """
    unknown = [name for name in ch_names if name.strip().upper() not in _ROWS]
    if unknown:
        raise ValueError(_complaint(unknown, LABRAM_NAMES, "LaBraM's spatial embedding"))
    return [_ROWS[name.strip().upper()] for name in ch_names]


def vocabulary_index(ch_names: Sequence[str], vocabulary: Sequence[str], unseen: Unseen = "error") -> list[int]:
    """Position of each name in a model's vocabulary.

    T3, T4, T5 and T6 are old names of T7, T8, P7 and P8: where the vocabulary has one of the two, both find it.

    Parameters
    ----------
    ch_names, vocabulary : sequence of str
    unseen : {"error", "nearest"}
        What becomes of an electrode that the vocabulary lacks. ``nearest``: it speaks with the voice of the nearest
        electrode that it has (smallest angle between their idealised places, :mod:`neurobolt.positions`; the earlier
        one in the vocabulary where two are as near), in both branches; that electrode itself may be given as well.

    Raises
    ------
    ValueError
        Unknown names (``nearest``: without a place on the head), or two names of one electrode; all are listed.

    Examples
    --------
    >>> vocabulary_index(["Cz", "O9"], ["Cz", "O1", "O2"], unseen="nearest")
    [0, 1]
    """
    if unseen not in get_args(Unseen):
        raise ValueError(f"unseen is {unseen!r}, expected one of {get_args(Unseen)}")
    places = {name.upper(): i for i, name in enumerate(vocabulary)}
    wanted = [name.strip().upper() for name in ch_names]
    wanted = [name if name in places else other_name(name) for name in wanted]
    lost = [given for given, name in zip(ch_names, wanted, strict=True) if name not in places]
    if unseen == "nearest" and any(has_position(name) for name in vocabulary):
        lost = [given for given in lost if not has_position(given)]
    if lost:
        raise ValueError(_complaint(lost, vocabulary, "this model"))
    twice = [given for given, name in zip(ch_names, wanted, strict=True) if wanted.count(name) > 1]
    if twice:
        raise ValueError(f"channels name the same electrode twice: {twice}; keep one of each")
    return [places[name] if name in places else nearest_electrode(name, vocabulary) for name in wanted]


def other_name(name: str) -> str:
    """In capitals: the other name of an electrode that has two (T3, T4, T5, T6: T7, T8, P7, P8), else the name itself.

    Examples
    --------
    >>> other_name("T7"), other_name("T5"), other_name("CZ")
    ('T3', 'P7', 'CZ')
    """
    return OLD_NAMES.get(name) or _NEW_NAMES.get(name, name)


def nearest_electrode(name: str, vocabulary: Sequence[str]) -> int:
    """Position in the vocabulary of the electrode that lies nearest to a named one; places are idealised."""
    cosine_V = unit_positions(vocabulary) @ unit_position(name)
    cosine_V[[not has_position(known) for known in vocabulary]] = -np.inf
    return int(np.argmax(np.round(cosine_V, 9)))  # rounded: of two that are as near, the first


def _complaint(unknown: Sequence[str], known: Sequence[str], owner: str) -> str:
    by_upper = {name.upper(): name for name in known}
    words = []
    for name in unknown:
        near = difflib.get_close_matches(name.upper(), list(by_upper), n=1)
        words.append(repr(name) + (f" (did you mean {by_upper[near[0]]!r}?)" if near else ""))
    return (
        f"channels unknown to {owner}: {', '.join(words)}. It knows {len(known)} names: {' '.join(known)}. "
        "Leave out channels that are not among them, or rename them"
    )
