"""Spherical splines: potentials at one set of electrodes as a linear combination of those at another.

Both sets are seen from the centre of the head sphere, never from the origin of the coordinate frame: that lies between
the ears, some 4 cm too low, and directions from there send the low electrodes astray (mne-tools/mne-python#14153).

Letters: ``C`` electrodes, ``S`` electrodes with a signal (sources), ``D`` wanted electrodes (destinations).

References
----------
Perrin, Pernier, Bertrand, Echallier: Spherical splines for scalp potential and current density mapping.
Electroencephalography and Clinical Neurophysiology 72 (1989) 184-187, and its corrigendum 76 (1990) 565-566.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial.legendre import legval
from numpy.typing import NDArray

from xsite.recording import Bool, Float

ORDER = 4  # m of Perrin et al.; their choice, and that of most programs
N_TERMS = 50  # the terms fall as n^-7: what comes after the 20th is below 1e-9 of the first
SMOOTHING = 1e-5  # added to the diagonal: two electrodes on one spot must not explode
MIN_FIT = 8  # fewer electrodes fix no sphere (four unknowns)


def placed(positions_C3: Float) -> Bool:
    """Which electrodes have a position, shape (C,)."""
    return np.asarray(np.isfinite(positions_C3).all(axis=1), dtype=bool)


class Sphere(NamedTuple):
    """A sphere through electrodes: centre and radius in their unit, and how far from round they lie.

    ``misfit`` is the root mean square of (distance from the centre - radius), as a share of the radius.
    """

    centre: NDArray[np.float64]
    radius: float
    misfit: float


def fit_sphere(positions_C3: Float) -> Sphere:
    """Nearest sphere in the algebraic sense: ``|p|^2 = 2 p.c + (r^2 - |c|^2)``, linear in centre and offset.

    Parameters
    ----------
    positions_C3 : array, shape (C, 3)
        Any unit and frame; rows with NaN do not count.

    Raises
    ------
    ValueError
        Fewer than 8 electrodes, or all of them in one plane or line.
    """
    known_C3 = np.asarray(positions_C3, dtype=np.float64)
    known_C3 = known_C3[placed(known_C3)]
    if len(known_C3) < MIN_FIT:
        raise ValueError(f"{len(known_C3)} electrodes with a position fix no sphere; at least {MIN_FIT} are needed")
    unit = float(np.abs(known_C3 - known_C3.mean(0)).max())  # so that metres and millimetres are equally well posed
    if unit == 0:
        raise ValueError("all electrodes have the same position")
    scaled_C3 = known_C3 / unit
    design = np.column_stack([2 * scaled_C3, np.ones(len(scaled_C3))])
    solution, _, rank, _ = np.linalg.lstsq(design, (scaled_C3**2).sum(1), rcond=1e-9)
    square = float(solution[3] + solution[:3] @ solution[:3])
    if rank < 4 or square <= 0:
        raise ValueError("the electrodes lie in one plane, not on a sphere")
    centre, radius = solution[:3] * unit, float(np.sqrt(square)) * unit
    distance_C = np.linalg.norm(known_C3 - centre, axis=1)
    return Sphere(centre, radius, float(np.sqrt(np.mean((distance_C - radius) ** 2))) / radius)


def directions(positions_C3: Float, centre: Float) -> NDArray[np.float64]:
    """Unit vectors from ``centre`` to the electrodes, shape (C, 3)."""
    outward_C3 = np.asarray(positions_C3, dtype=np.float64) - centre
    return np.asarray(outward_C3 / np.linalg.norm(outward_C3, axis=1, keepdims=True))


def nearest_angle(source_S3: Float, wanted_D3: Float) -> NDArray[np.float64]:
    """Angle in degrees from each wanted direction to the nearest source direction, shape (D,)."""
    return np.asarray(np.degrees(np.arccos(np.clip(wanted_D3 @ np.asarray(source_S3).T, -1, 1).max(1))))


def spline_matrix(source_S3: Float, wanted_D3: Float, *, smoothing: float = SMOOTHING) -> NDArray[np.float64]:
    """Weights that give potentials at wanted directions from those at source directions.

    Each row sums to 1: another reference electrode shifts what goes in and what comes out by the same amount.

    Parameters
    ----------
    source_S3, wanted_D3 : arrays, shape (S, 3) and (D, 3)
        Unit vectors from the centre of the head sphere (see :func:`directions`).
    smoothing : float
        Regularisation; 0 passes exactly through the sources.

    Returns
    -------
    array, shape (D, S)
    """
    n_sources = len(source_S3)
    system = np.ones((n_sources + 1, n_sources + 1))
    system[:-1, :-1] = _kernel(source_S3 @ source_S3.T) + smoothing * np.eye(n_sources)
    system[-1, -1] = 0.0  # the constraint that the spline's own weights sum to zero
    bridge = np.column_stack([_kernel(wanted_D3 @ source_S3.T), np.ones(len(wanted_D3))])
    # the system is symmetric: solve for the bridge's rows instead of inverting
    return np.asarray(np.linalg.solve(system, bridge.T).T[:, :-1])


def _kernel(cosine: Float) -> NDArray[np.float64]:
    """``g(x) = 1/(4 pi) sum_n (2n+1) / (n (n+1))^m P_n(x)``, equation 3 of Perrin et al."""
    n = np.arange(1, N_TERMS + 1)
    weights = (2 * n + 1) / (n * (n + 1.0)) ** ORDER / (4 * np.pi)
    return np.asarray(legval(np.clip(cosine, -1, 1), [0.0, *weights]))
