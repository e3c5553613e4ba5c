"""Electrode positions as files give them, whatever their unit, axes and origin, brought to metres in the head frame.

Published positions come in metres, centimetres, millimetres, on a unit sphere (also one labelled mm), with x towards
the nose, in scanner coordinates, or not at all. What they are is found by fitting a sphere and by turning it until the
electrodes lie where the template has those of the same names; nothing is believed because a sidecar says so.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import mne
import numpy as np
from numpy.typing import NDArray

from xsite.recording import Float
from xsite.signals.channel_names import EGI_NETS, egi_net, egi_number
from xsite.signals.spline import MIN_FIT, Sphere, directions, fit_sphere, placed

TEMPLATE = "colin27_1005"
MAX_MISFIT = 0.15  # measured shells: .05 to .08 of the radius
MAX_ANGLE = 20.0  # degrees, median over electrodes: idealised spheres are 6 to 12 away from the template
NEAR_M = 0.03  # median distance to the template below which a head frame is what it says
OFF_SHELL = 0.35  # of the radius: an electrode in the middle of the head is a missing value
UNITS = (
    ("m", 0.07, 0.13, 1.0),
    ("cm", 7.0, 13.0, 1e-2),
    ("mm", 70.0, 130.0, 1e-3),
    ("m labelled mm", 7e-5, 1.3e-4, 1e3),
    ("unit sphere", 0.9, 1.1, None),
    ("unit sphere labelled mm", 9e-4, 1.1e-3, None),
)
"""Name, smallest and largest radius in the numbers of the file, factor to metres (None: the template's radius)."""
_WORDS = (("right", "left"), ("nose", "back"), ("up", "down"))


@dataclass(frozen=True, eq=False)
class Placed:
    """Where a recording's electrodes are.

    Parameters
    ----------
    positions_C3 : array, shape (C, 3)
        Metres in the head frame; NaN where nothing is known.
    source : str
        ``file``, ``file (unit sphere, x=nose y=left z=up)``, ``template 10-05`` or ``template GSN-HydroCel-32``.
    notes : dict
        What was recognised and what was refused, for the processing steps.
    """

    positions_C3: Float
    source: str
    notes: dict[str, Any] = field(default_factory=dict)


@cache
def _template_positions(template: str) -> dict[str, tuple[float, ...]]:
    montage = mne.channels.make_standard_montage(template)
    info = mne.create_info(montage.ch_names, 200.0, "eeg").set_montage(montage)
    return {channel["ch_name"]: tuple(float(x) for x in channel["loc"][:3]) for channel in info["chs"]}


def template_positions(ch_names: Sequence[str]) -> Float:
    """Positions on MNE's templates, shape (C, 3), metres in the head frame; NaN for names outside them.

    The 10-05 system, and EGI's net of the matching size for ``E1``, ``E2``, ...
    """
    positions = _template_positions(TEMPLATE)
    net = egi_net(ch_names)
    if net is not None:
        of_net = _template_positions(EGI_NETS[net])
        own = {name: f"E{egi_number(name)}" for name in ch_names if egi_number(name) is not None}
        vertex = {f"E{net + 1}": of_net["Cz"]}
        positions = positions | {name: (of_net | vertex).get(egi, (np.nan,) * 3) for name, egi in own.items()}
    return np.array([positions.get(name, (np.nan,) * 3) for name in ch_names], dtype=np.float64).reshape(-1, 3)


def template_name(ch_names: Sequence[str]) -> str:
    """Which template :func:`template_positions` takes."""
    net = egi_net(ch_names)
    return "template 10-05" if net is None else f"template {EGI_NETS[net]}"


def place_electrodes(measured_C3: Float, ch_names: Sequence[str]) -> Placed:
    """Positions from the file where they fit a head, else from the template.

    Parameters
    ----------
    measured_C3 : array, shape (C, 3)
        Numbers of the file in any unit and frame; NaN or exactly zero where it has none.
    ch_names : sequence of str, length C
        Canonical names.
    """
    measured_C3 = np.array(measured_C3, dtype=np.float64)
    expected_C3 = template_positions(ch_names)
    at_origin = [name for name, p in zip(ch_names, measured_C3, strict=True) if np.isfinite(p).all() and not p.any()]
    measured_C3[~placed(measured_C3) | ~measured_C3.any(1)] = np.nan
    notes: dict[str, Any] = {"at_origin": at_origin} if at_origin else {}
    own_C = placed(measured_C3)
    if not own_C.any():
        return Placed(expected_C3, template_name(ch_names), notes)
    try:
        placed_C3, source = _recognised(measured_C3, expected_C3)
    except ValueError as error:
        return Placed(expected_C3, template_name(ch_names), notes | {"refused": str(error)})
    holes_C = ~placed(placed_C3)
    inside = [name for name, hole, own in zip(ch_names, holes_C, own_C, strict=True) if hole and own]
    if inside:
        notes["off_the_head"] = inside
    placed_C3[holes_C] = expected_C3[holes_C]
    if holes_C.any():
        notes["from_template"] = [name for name, hole in zip(ch_names, holes_C, strict=True) if hole]
    return Placed(placed_C3, source, notes)


def _recognised(measured_C3: Float, expected_C3: Float) -> tuple[NDArray[np.float64], str]:
    known_C = placed(measured_C3)
    both_C = known_C & placed(expected_C3)
    n_expected = int(placed(expected_C3).sum())
    if both_C.sum() < max(3, 0.8 * n_expected) and n_expected:
        raise ValueError(f"only {both_C.sum()} of {n_expected} electrodes have a position in the file")
    if both_C.sum() < MIN_FIT:
        return _few(measured_C3, expected_C3, both_C)
    sphere, measured_C3 = _shell(measured_C3)
    both_C &= placed(measured_C3)
    unit, factor = _unit(sphere.radius)
    head = fit_sphere(expected_C3[both_C])
    factor = head.radius / sphere.radius if factor is None else factor
    turn_33, best_33, axes = _turn(
        directions(measured_C3[both_C], sphere.centre), directions(expected_C3[both_C], head.centre)
    )
    placed_C3 = measured_C3 @ turn_33.T * factor
    misplaced = np.median(np.linalg.norm(placed_C3[both_C] - expected_C3[both_C], axis=1))
    is_head_frame = unit == "m" and axes == "" and misplaced < NEAR_M
    if is_head_frame:
        return placed_C3, "file"
    if misplaced >= NEAR_M or unit.startswith("unit"):
        placed_C3 = (measured_C3 - sphere.centre) @ best_33.T * factor + head.centre
        apart_N = np.linalg.norm(placed_C3[both_C] - expected_C3[both_C], axis=1)
        if np.quantile(apart_N, 0.9) > NEAR_M:  # such as a head projected from the point between the ears
            raise ValueError(
                f"as {unit}, one electrode in ten lies {1000 * np.quantile(apart_N, 0.9):.0f} mm or more from the "
                "template, which is then nearer the truth"
            )
        axes = f"{axes or 'x=right y=nose z=up'}, moved to the head's centre"
    return placed_C3, f"file ({unit}, {axes or 'x=right y=nose z=up'})"


def _few(measured_C3: Float, expected_C3: Float, both_C: NDArray[np.bool_]) -> tuple[NDArray[np.float64], str]:
    """Too few named electrodes to find a frame: believe metres in the head frame, nothing else."""
    if both_C.sum() == 0:
        sphere, measured_C3 = _shell(measured_C3)
        if _unit(sphere.radius)[0] != "m":
            raise ValueError(f"no known names, and a sphere of radius {sphere.radius:.3g}, which is no head in metres")
        return measured_C3, "file (axes taken as they are: no known names)"
    apart = np.median(np.linalg.norm(measured_C3[both_C] - expected_C3[both_C], axis=1))
    if apart > NEAR_M:
        raise ValueError(
            f"{both_C.sum()} named electrodes are too few to find a frame, and read as metres they lie "
            f"{1000 * apart:.0f} mm from where the template has them"
        )
    return np.array(measured_C3, dtype=np.float64), "file"


def _shell(measured_C3: Float) -> tuple[Sphere, NDArray[np.float64]]:
    """Sphere through the electrodes, and positions without those that lie inside it (zeros of a moved frame)."""
    kept_C3 = np.array(measured_C3, dtype=np.float64)
    for _ in range(3):
        sphere = fit_sphere(kept_C3)
        distance_C = np.linalg.norm(kept_C3 - sphere.centre, axis=1)
        off_C = np.abs(distance_C - sphere.radius) > OFF_SHELL * sphere.radius
        if not off_C.any():
            break
        kept_C3[off_C] = np.nan
    if sphere.misfit > MAX_MISFIT:
        raise ValueError(f"the electrodes lie on no sphere: misfit {sphere.misfit:.2f} of the radius")
    return sphere, kept_C3


def _unit(radius: float) -> tuple[str, float | None]:
    for unit, low, high, factor in UNITS:
        if low <= radius <= high:
            return unit, factor
    return f"sphere of radius {radius:.3g}", None


def _turn(found_N3: Float, wanted_N3: Float) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Rotation (or mirroring) of the file's axes onto the head's, and the file's axes in words ("" where the same).

    The first matrix exchanges whole axes where that is all there is to it, so that a measured tilt of the cap survives
    in a head frame; the second is the best fit, for frames that know no nasion and no ears.
    """
    u, _, vt = np.linalg.svd(np.asarray(wanted_N3).T @ np.asarray(found_N3))  # Kabsch: the best orthogonal matrix
    best_33 = u @ vt
    axes_33 = max(_signed_permutations(), key=lambda p: float(np.sum(p * best_33)))
    tilt = np.degrees(np.arccos(np.clip((np.trace(axes_33.T @ best_33) - 1) / 2, -1, 1)))
    same_hand = np.linalg.det(axes_33) * np.linalg.det(best_33) > 0
    turn_33, words = (axes_33, _axes(axes_33)) if tilt < MAX_ANGLE and same_hand else (best_33, "axes turned")
    if np.linalg.det(turn_33) < 0:
        words += ", mirrored"
    apart_N = np.degrees(np.arccos(np.clip(np.sum((found_N3 @ turn_33.T) * wanted_N3, axis=1), -1, 1)))
    if np.median(apart_N) > MAX_ANGLE:
        raise ValueError(
            f"names and positions disagree: however the axes are turned, electrodes lie {np.median(apart_N):.0f} "
            "degrees (median) from where the template has them"
        )
    return turn_33, best_33, words


@cache
def _signed_permutations() -> tuple[NDArray[np.float64], ...]:
    eye = np.eye(3)
    return tuple(
        np.array(signs)[:, None] * eye[list(order)]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    )


def _axes(turn_33: Float) -> str:
    """``x=nose y=left z=up``: where the file's axes point in the head; nothing where they are the head's own."""
    if np.array_equal(turn_33, np.eye(3)):
        return ""
    names = []
    for letter, column in zip("xyz", np.asarray(turn_33).T, strict=True):
        axis = int(np.abs(column).argmax())
        names.append(f"{letter}={_WORDS[axis][0 if column[axis] > 0 else 1]}")
    return " ".join(names)
