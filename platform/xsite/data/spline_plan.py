"""How a recording's own electrodes fill a canonical montage: taken as recorded, filled in by splines, or masked.

Shapes: ``C`` channels of a recording, ``D`` channels of the canonical montage.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from xsite.errors import ChannelError
from xsite.recording import Bool, Float, Montage
from xsite.signals.montage import template_positions
from xsite.signals.spline import directions, fit_sphere, nearest_angle, placed, spline_matrix

_CANONICAL = """
    Fp1 Fpz Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8
    TP9 CP5 CP1 CP2 CP6 TP10 P7 P3 Pz P4 P8 POz O1 Oz O2
"""
CANONICAL: tuple[str, ...] = tuple(_CANONICAL.split())
"""Default montage of ``data.channels: spline``: the 31 electrodes of the usual 32-channel MR cap, and Fpz."""

MAX_ANGLE = 32.0
"""Degrees from the nearest recorded electrode beyond which nothing is filled in. Dipoles below a 65-electrode cap in
the four-layer sphere; r of nine in ten electrodes at 20-24, 28-32, 36-40 and 50-60 degrees from the nearest one
used: at least .97, .94, .90, .75 where one electrode is held out with its neighbours, but .90, .81, .73, .51 beyond the
edge of half a cap. 32 degrees is what the 19 electrodes of the 10-20 system need to fill everything between them."""

MIN_SOURCES = 8  # fewer electrodes than this carry no interpolation, whatever their distance
MIN_COVER = 12  # fewer electrodes cover too little of the head for a sphere of their own
MAX_MISFIT = 0.15  # shells of real heads: .05 to .08


@dataclass(frozen=True, eq=False)
class SplinePlan:
    """How a recording's channels become the channels of an experiment.

    Parameters
    ----------
    ch_names : tuple of str, length D
    recorded_D : bool array, shape (D,)
        The recording has this channel: it is taken as it is.
    usable_D : bool array, shape (D,)
        Recorded, or near enough to recorded electrodes to be filled in.
    weights_DC : float array, shape (D, C)
        Zero rows where not usable.
    angle_D : float array, shape (D,)
        Degrees to the nearest recorded electrode; infinite where none has a position.
    unplaced : tuple of str
        Channels of the recording without a position: they help no other electrode.
    """

    ch_names: tuple[str, ...]
    recorded_D: Bool
    usable_D: Bool
    weights_DC: Float
    angle_D: Float
    unplaced: tuple[str, ...]

    def which(self, mask_D: Bool) -> tuple[str, ...]:
        """Names of some of the channels."""
        return tuple(name for name, chosen in zip(self.ch_names, mask_D, strict=True) if chosen)


def canonical_montage(ch_names: Sequence[str] = ()) -> Montage:
    """Electrodes of the 10-05 template that all recordings are brought to; the default 32 where none is named.

    Raises
    ------
    ChannelError
        Names that the template does not have.
    """
    names = tuple(ch_names) or CANONICAL
    positions_D3 = template_positions(names)
    known = {name.lower(): name for name in _template_names()}
    unknown = [name for name, is_known in zip(names, placed(positions_D3), strict=True) if not is_known]
    if unknown:
        near = difflib.get_close_matches(unknown[0].lower(), list(known), n=1)
        hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
        raise ChannelError(f"data.montage names {unknown}{hint}, which the 10-05 system does not have")
    return Montage(names, positions_D3)


def _template_names() -> list[str]:
    from mne.channels import make_standard_montage

    return [str(name) for name in make_standard_montage("colin27_1005").ch_names]


@cache
def _template_centre() -> tuple[float, ...]:
    """Centre of the head sphere under the template's cap, metres in the head frame."""
    return tuple(fit_sphere(template_positions(CANONICAL)).centre.tolist())


def _centre(positions_C3: Float) -> Float:
    """Centre of the sphere under a recording's electrodes; the template's where they do not fix one."""
    template_3 = np.array(_template_centre())
    if len(positions_C3) < MIN_COVER:
        return template_3
    try:
        sphere = fit_sphere(positions_C3)
    except ValueError:
        return template_3
    is_head = 0.07 < sphere.radius < 0.13 and sphere.misfit < MAX_MISFIT
    return sphere.centre if is_head and np.linalg.norm(sphere.centre - template_3) < 0.08 else template_3


def spline_plan(montage: Montage, ch_names: Sequence[str] = ()) -> SplinePlan:
    """Plan how a recording's channels fill the canonical montage.

    Recorded channels are taken as they are. The others are spherical splines of all recorded ones that have a
    position, both seen from the centre of their own head sphere. What lies more than :data:`MAX_ANGLE` degrees from
    every recorded electrode is not filled in, nor is anything from fewer than eight electrodes.

    Raises
    ------
    ChannelError
        Unknown canonical names.
    """
    canonical = canonical_montage(ch_names)
    place = {name: index for index, name in enumerate(montage.ch_names)}
    recorded_D = np.array([name in place for name in canonical.ch_names])
    placed_C = placed(montage.positions)
    weights_DC = np.zeros((len(canonical.ch_names), len(place)))
    angle_D = np.full(len(canonical.ch_names), np.inf)
    if placed_C.any():
        source_C3 = np.asarray(montage.positions, dtype=np.float64)[placed_C]
        source_C3 = directions(source_C3, _centre(source_C3))
        wanted_D3 = directions(canonical.positions, np.array(_template_centre()))
        angle_D = nearest_angle(source_C3, wanted_D3)
        if placed_C.sum() >= MIN_SOURCES:
            weights_DC[:, placed_C] = spline_matrix(source_C3, wanted_D3)
    usable_D = recorded_D | ((angle_D <= MAX_ANGLE) & (placed_C.sum() >= MIN_SOURCES))
    weights_DC[~usable_D] = 0.0
    for row in np.flatnonzero(recorded_D):
        weights_DC[row] = 0.0
        weights_DC[row, place[canonical.ch_names[row]]] = 1.0
    unplaced = tuple(name for name, known in zip(montage.ch_names, placed_C, strict=True) if not known)
    return SplinePlan(canonical.ch_names, recorded_D, usable_D, weights_DC, angle_D, unplaced)


def check_plan(plan: SplinePlan, montage: Montage, source: object) -> None:
    """Refuse a recording that gives none of the canonical channels.

    Raises
    ------
    ChannelError
        It names the recording, its channels, and those without a position.
    """
    if plan.usable_D.any():
        return
    if plan.unplaced:
        why = f"channels without a position: {', '.join(plan.unplaced)}; map their names in the site's rename"
    else:
        why = f"all its electrodes are more than {MAX_ANGLE:g} degrees away, or they are fewer than {MIN_SOURCES}"
    raise ChannelError(
        f"{source}: none of the {len(plan.ch_names)} channels of data.montage can be had from its "
        f"{len(montage.ch_names)} ({', '.join(montage.ch_names)}): {why}, or leave the site out (data.sites)"
    )
