"""Where an electrode lies on an idealised head, from its name alone: directions on the unit sphere.

The 10-10 and 10-5 systems are proportions of arcs, so a sphere and a name are enough (Oostenveld and Praamstra 2001,
Clin Neurophysiol 112:713-719). Axes as in MNE's head frame: x to the right ear, y to the nose, z up; Cz is +z.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# the same electrode under its name of before 1991
OLD_NAMES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}

STEP = math.radians(22.5)  # from one midline electrode to the next: Cz, FCz, Fz, AFz, Fpz
RING = 4 * STEP  # polar angle of the ring Fpz-T7-Oz: 85-96 degrees on the template head
TURN = math.radians(18.0)  # from one ring electrode to the next: Fpz, Fp1, AF7, F7, FT7, T7

# rows from nose to inion as steps behind C; a row of the 10-5 system lies half a step between two of these
_ROWS = {
    "N": -5.0,
    "FP": -4.0, "AFP": -3.5,
    "AF": -3.0, "AFF": -2.5,
    "F": -2.0, "FFC": -1.5, "FFT": -1.5,
    "FC": -1.0, "FT": -1.0, "FCC": -0.5, "FTT": -0.5, "CFC": -0.5,
    "C": 0.0, "T": 0.0, "CCP": 0.5, "TTP": 0.5,
    "CP": 1.0, "TP": 1.0, "CPP": 1.5, "TPP": 1.5,
    "P": 2.0, "PPO": 2.5,
    "PO": 3.0, "POO": 3.5,
    "O": 4.0, "OI": 4.5,
    "I": 5.0,
}  # fmt: skip
_NAME = re.compile(r"([A-Z]+?)(Z|\d+)(H?)")
# not of the 10-10 system: the nearest place that is
_ELSEWHERE = {"T1": "FT9", "T2": "FT10", "CB1": "PO9", "CB2": "PO10"}
# mastoids and ear lobes, azimuth from the nose and polar angle in degrees, as on the template head
_LOW = {"M1": (-108.0, 127.0), "M2": (108.0, 127.0), "A1": (-96.0, 127.0), "A2": (96.0, 127.0)}


def unit_position(name: str) -> Float:
    """Direction of one electrode, shape (3,), length 1.

    Parameters
    ----------
    name : str
        A name of the 10-20, 10-10 or 10-5 system in any case, an old one (T3), a mastoid or ear (M1, A1), or two
        joined by a hyphen (FP1-F7: the direction between them).

    Raises
    ------
    ValueError
        No electrode of these systems.

    Examples
    --------
    >>> unit_position("Cz").tolist()
    [0.0, 0.0, 1.0]
    """
    position = _position(name.strip().upper())
    if position is None:
        raise ValueError(f"no place on the head is known for {name!r}; names of the 10-20, 10-10 and 10-5 systems do")
    return position.copy()


def has_position(name: str) -> bool:
    """Whether :func:`unit_position` knows the name."""
    return _position(name.strip().upper()) is not None


def unit_positions(ch_names: Sequence[str]) -> Float:
    """Directions of several electrodes, shape (C, 3); zeros where a name has no place."""
    return np.array([unit_position(name) if has_position(name) else np.zeros(3) for name in ch_names]).reshape(-1, 3)


@cache
def _position(name: str) -> Float | None:
    name = OLD_NAMES.get(name, _ELSEWHERE.get(name, name))
    if name in _LOW:
        return _direction(*(math.radians(angle) for angle in _LOW[name]))
    if "-" in name:
        ends = [place for end in name.split("-") if (place := _position(end)) is not None]
        if len(ends) != 2:
            return None
        middle = ends[0] + ends[1]
        return np.asarray(middle / np.linalg.norm(middle))
    found = _NAME.fullmatch(name)
    if not found or found[1] not in _ROWS:
        return None
    column = 0.0 if found[2] == "Z" else (int(found[2]) + 1) // 2 - 0.5 * bool(found[3])
    side = 1.0 if found[2] != "Z" and int(found[2]) % 2 == 0 else -1.0
    return _on_sphere(_ROWS[found[1]], column, side)


def _on_sphere(row: float, column: float, side: float) -> Float | None:
    """Row from nose (-5) to inion (5); column 0 is the midline, 4 the ring, 5 below it."""
    if column > 5:
        return None
    if abs(row) >= 4:  # Fp and O: their columns 1 are on the ring, and 9 below it
        low = max(abs(row) - 4, column - 4, 0) * STEP
        turn = math.pi / 2 if column == 0 else 4 * TURN
        return _direction(side * (math.pi / 2 + math.copysign(turn, row)), RING + low)
    ring = side * (math.pi / 2 + row * TURN)
    if column >= 4:
        return _direction(ring, RING + (column - 4) * STEP)
    middle = _direction(0.0 if row < 0 else math.pi, abs(row) * STEP)
    return _along_circle(middle, _direction(ring, RING), column / 4)


def _along_circle(middle: Float, end: Float, share: float) -> Float:
    """Point between the midline and the ring, on the circle that also meets the ring at the other side."""
    mirrored = end * (-1, 1, 1)
    centre = (end + mirrored) / 2  # the circle's chord; its own centre lies on the line from here to ``middle``
    up = middle - centre
    half, height = np.linalg.norm(end - centre), np.linalg.norm(up)
    radius = (half**2 + height**2) / (2 * height)
    hub = middle - up / height * radius
    angle = share * math.acos(np.clip((end - hub) @ (middle - hub) / radius**2, -1, 1))
    across = (end - centre) / half
    return np.asarray(hub + radius * (math.cos(angle) * up / height + math.sin(angle) * across))


def _direction(azimuth: float, polar: float) -> Float:
    """Unit vector; azimuth from the nose, positive to the right."""
    xy = math.sin(polar) if polar else 0.0
    return np.array([xy * math.sin(azimuth), xy * math.cos(azimuth), math.cos(polar)])
