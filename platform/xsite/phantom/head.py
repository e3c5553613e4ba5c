"""From dipoles in MNI space to electrodes, through MNE-Python's four-layer spherical head model.

Letters: ``C`` electrodes, ``S`` dipoles.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import mne
import numpy as np

from xsite.errors import ChannelError
from xsite.recording import Float

TEMPLATE = "colin27_1005"  # positions are MNI-like millimetres of the Colin27 head
_INNER = 0.82  # sources lie below this share of the head's radius: the cortex of the sphere (brain radius 0.90)


@lru_cache(maxsize=1)
def _template() -> tuple[dict[str, Float], Any, Float, float]:
    """Electrode positions in the head frame, the MNI to head transform, and the sphere that fits the electrodes."""
    montage = mne.channels.make_standard_montage(TEMPLATE)
    trans = mne.channels.compute_native_head_t(montage)
    native = montage.get_positions()["ch_pos"]
    positions = {name: mne.transforms.apply_trans(trans, pos) for name, pos in native.items()}
    points = np.stack([pos for pos in positions.values() if pos[2] > 0])  # cheeks and neck are not round
    # algebraic sphere fit: |p|^2 = 2 p.c + (r^2 - |c|^2)
    solution, *_ = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)
    centre = solution[:3]
    return positions, trans, centre, float(np.sqrt(solution[3] + centre @ centre))


def electrode_positions(names: Sequence[str]) -> Float:
    """Template positions in metres in MNE's head frame, shape (C, 3).

    Raises
    ------
    ChannelError
        Names that the 10-05 system does not know.
    """
    known = _template()[0]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ChannelError(f"electrodes {unknown} are not in MNE's {TEMPLATE} montage")
    return np.stack([known[name] for name in names])


def fiducials() -> dict[str, list[float]]:
    """Nasion and preauricular points in metres in the head frame, by their BIDS names."""
    montage = mne.channels.make_standard_montage(TEMPLATE)
    points, trans = montage.get_positions(), _template()[1]
    names = {"NAS": "nasion", "LPA": "lpa", "RPA": "rpa"}
    places = {short: mne.transforms.apply_trans(trans, points[name]) for short, name in names.items()}
    return {short: [round(float(x), 6) for x in place] for short, place in places.items()}


def move_electrodes(positions_C3: Float, sd_mm: float, rng: np.random.Generator) -> Float:
    """Displace each electrode along the scalp by a normal step of ``sd_mm`` along each axis."""
    _, _, centre, _ = _template()
    radius = np.linalg.norm(positions_C3 - centre, axis=1, keepdims=True)
    moved = positions_C3 - centre + sd_mm / 1000 * rng.normal(size=positions_C3.shape)
    return np.asarray(centre + moved / np.linalg.norm(moved, axis=1, keepdims=True) * radius)


def dipoles(mni_S3: Float, directions: Sequence[tuple[float, float, float] | None]) -> tuple[Float, Float]:
    """Positions (m) and unit orientations in the head frame; positions too far out for the sphere are pulled in.

    ``None`` as a direction is radial; others are made tangential to the sphere.
    """
    _, trans, centre, radius = _template()
    local = mne.transforms.apply_trans(trans, np.asarray(mni_S3, float) / 1000) - centre
    depth = np.linalg.norm(local, axis=1, keepdims=True)
    outward = local / depth
    local = outward * np.minimum(depth, _INNER * radius)
    orientations = outward.copy()
    for row, direction in enumerate(directions):
        if direction is not None:
            turned = mne.transforms.apply_trans(trans, np.asarray(direction, float), move=False)
            tangent = turned - (turned @ outward[row]) * outward[row]
            orientations[row] = tangent / np.linalg.norm(tangent)
    return local + centre, orientations


@lru_cache(maxsize=32)
def _forward(positions: bytes, n_chans: int, sources: bytes, n_sources: int) -> Float:
    """Free-orientation gain, shape (C, S, 3), volt per ampere-metre; cached per set of electrodes."""
    electrodes = np.frombuffer(positions).reshape(n_chans, 3)
    rr = np.frombuffer(sources).reshape(n_sources, 3)
    _, _, centre, radius = _template()
    names = [f"E{i}" for i in range(n_chans)]
    info = mne.create_info(names, 1000.0, "eeg")
    montage = mne.channels.make_dig_montage(dict(zip(names, electrodes, strict=True)), coord_frame="head")
    info.set_montage(montage, verbose="ERROR")
    sphere = mne.make_sphere_model(tuple(centre), radius, verbose="ERROR")
    space = mne.setup_volume_source_space(
        pos={"rr": rr, "nn": np.tile([0.0, 0.0, 1.0], (n_sources, 1))}, sphere_units="m", verbose="ERROR"
    )
    space[0]["coord_frame"] = mne.io.constants.FIFF.FIFFV_COORD_HEAD
    forward = mne.make_forward_solution(
        info, trans=None, src=space, bem=sphere, meg=False, eeg=True, mindist=0.0, verbose="ERROR"
    )
    gain = forward["sol"]["data"]
    if gain.shape[1] != 3 * n_sources:
        raise AssertionError(f"{n_sources - gain.shape[1] // 3} dipoles fell outside the sphere")
    return np.asarray(gain.reshape(n_chans, n_sources, 3))


def leadfield(positions_C3: Float, sources_S3: Float, orientations_S3: Float) -> Float:
    """Potential at each electrode per unit dipole, infinite reference, shape (C, S)."""
    gain = _forward(
        np.ascontiguousarray(positions_C3, float).tobytes(),
        len(positions_C3),
        np.ascontiguousarray(sources_S3, float).tobytes(),
        len(sources_S3),
    )
    return np.asarray(np.einsum("csk,sk->cs", gain, orientations_S3))
