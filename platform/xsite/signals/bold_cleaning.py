"""Parcel series cleaned in one least-squares fit: trend and confounds out, nothing filtered, nothing scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xsite.errors import FormatError
from xsite.recording import Bool, Float

MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
FD = "framewise_displacement"
HEAD_RADIUS_MM = 50.0  # Power et al. 2012


@dataclass(frozen=True, eq=False)
class CleanBold:
    """Parcel series, detrended and confound-regressed, neither low-passed nor scaled.

    Parameters
    ----------
    bold_VR : float32 array
        Percent signal change.
    global_signal_V : float32 array
        Same cleaning; NaN throughout where none was given.
    confounds_VK : float32 array
        The confounds that were regressed out (missing values filled), then framewise displacement where known.
    confound_names : tuple of str, length K
    fd_V : float32 array
        Framewise displacement in mm; NaN throughout where motion is unknown.
    design_VP : float64 array
        Orthonormal basis of what was removed: use :func:`clean_like` to treat another series alike.
    steps : list of dict
    fit_V : bool array, shape (V,), optional
        Volumes that the fit saw, where these were not all (dummy scans, scrubbing).
    """

    bold_VR: Float
    global_signal_V: Float
    confounds_VK: Float
    confound_names: tuple[str, ...]
    fd_V: Float
    design_VP: Float
    steps: list[dict[str, Any]]
    fit_V: Bool | None = None


def clean_parcels(
    series_VR: Float,
    confounds_VK: Float | None,
    confound_names: Sequence[str],
    t_r: float,
    *,
    global_signal_V: Float | None,
    regressors: Sequence[str] | None = None,
    valid_V: Bool | None = None,
) -> CleanBold:
    """Remove constant, linear and quadratic trend and the confounds in one least-squares fit.

    Of the confounds, ``regressors`` are used; without them the six motion parameters where they are present by name,
    else all that are given. Framewise displacement is kept but never regressed out. Missing values become 0 in the
    first row (derivatives), else the column's median. No low-pass, no scaling.

    Parameters
    ----------
    series_VR : array
        Percent signal change; NaN columns stay NaN.
    confounds_VK : array, optional
    confound_names : sequence of str, length K
    t_r : float
        Repetition time in seconds, for the record of steps.
    global_signal_V : array, optional
    regressors : sequence of str, optional
        Names of the confounds to regress out; empty for the trend alone.
    valid_V : bool array, shape (V,), optional
        Volumes that the fit may see; the fitted course is taken out of all volumes.

    Raises
    ------
    FormatError
        Confounds and series differ in length, or there are too many confounds for so few volumes.
    """
    n_volumes = len(series_VR)
    given_VK = np.empty((n_volumes, 0)) if confounds_VK is None else np.asarray(confounds_VK, dtype=np.float64)
    names = tuple(confound_names)
    if given_VK.shape != (n_volumes, len(names)):
        raise FormatError(f"confounds have shape {given_VK.shape}, expected ({n_volumes} volumes, {len(names)} names)")
    used = MOTION if set(MOTION) <= set(names) else tuple(name for name in names if name != FD)
    used = used if regressors is None else tuple(name for name in regressors if name != FD)
    columns = [given_VK[:, names.index(name)] for name in used]
    filled = {name: _fill(column) for name, column in zip(used, columns, strict=True) if np.isfinite(column).any()}
    used_VK = np.stack(list(filled.values()), axis=1) if filled else np.empty((n_volumes, 0))
    design_VP = _design(used_VK)
    fit_V = None if valid_V is None or np.all(valid_V) else np.asarray(valid_V, bool)
    n_fitted = n_volumes if fit_V is None else int(fit_V.sum())
    if design_VP.shape[1] > n_fitted // 2:
        raise FormatError(
            f"{len(filled)} confounds for {n_fitted} volumes: more than half of the signal would be fitted"
        )
    fd_V = _framewise_displacement(given_VK, names, _motion(given_VK, names))
    clean_VR = clean_like(series_VR, design_VP, fit_V)
    step = {
        "step": "regress",
        "trend_order": 2,
        "confounds": list(filled),
        "dropped": [name for name in used if name not in filled],
        "n_regressors": int(design_VP.shape[1]),
        "t_r": float(t_r),
    }
    if fit_V is not None:
        step["n_volumes_not_fitted"] = n_volumes - n_fitted
    unknown_V = np.full(n_volumes, np.nan, np.float32)
    motion_known = bool(np.isfinite(fd_V).all())
    return CleanBold(
        bold_VR=clean_VR,
        global_signal_V=unknown_V if global_signal_V is None else clean_like(global_signal_V, design_VP, fit_V),
        confounds_VK=np.column_stack([used_VK, fd_V] if motion_known else [used_VK]).astype(np.float32),
        confound_names=(*filled, FD) if motion_known else tuple(filled),
        fd_V=fd_V,
        design_VP=design_VP,
        steps=[step],
        fit_V=fit_V,
    )


def clean_like(series: Float | None, design_VP: Float, fit_V: Bool | None = None) -> Float:
    """Remove an orthonormal design from series, shape (V,) or (V, R), float32; NaN columns stay NaN.

    ``fit_V`` are the volumes that the fit sees, all of them by default.
    """
    values = np.asarray(series, dtype=np.float64)
    if fit_V is None:
        return np.asarray(values - design_VP @ (design_VP.T @ values), dtype=np.float32)
    return np.asarray(values - design_VP @ (np.linalg.pinv(design_VP[fit_V]) @ values[fit_V]), dtype=np.float32)


def _motion(given_VK: Float, names: tuple[str, ...]) -> dict[str, Float]:
    """The six motion parameters without gaps, whether or not they are regressed out; empty where not all are known."""
    known = set(MOTION) <= set(names) and np.isfinite(given_VK[:, [names.index(name) for name in MOTION]]).any(0).all()
    return {name: _fill(given_VK[:, names.index(name)]) for name in MOTION} if known else {}


def _fill(column: Float) -> Float:
    column = np.array(column, dtype=np.float64)
    missing = ~np.isfinite(column)
    if missing[0]:
        column[0], missing[0] = 0.0, False
    column[missing] = np.median(column[np.isfinite(column)])
    return column


def _design(confounds_VK: Float) -> Float:
    """Orthonormal basis of trend and confounds; columns that add nothing fall away."""
    trend = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(confounds_VK)), 2)
    centred = confounds_VK - confounds_VK.mean(0)
    spread = centred.std(0)
    scaled = centred[:, spread > 1e-12] / spread[spread > 1e-12]
    basis, sizes, _ = np.linalg.svd(np.column_stack([trend, scaled]), full_matrices=False)
    return np.asarray(basis[:, sizes > 1e-8 * sizes[0]])


def _framewise_displacement(given_VK: Float, names: tuple[str, ...], motion: dict[str, Float]) -> Float:
    """As given, else Power's sum of absolute changes from the six motion parameters (mm and radians)."""
    if FD in names:
        return np.nan_to_num(given_VK[:, names.index(FD)], nan=0.0).astype(np.float32)
    if not motion:
        return np.full(len(given_VK), np.nan, np.float32)
    motion_V6 = np.stack([motion[name] for name in MOTION], axis=1)
    motion_V6[:, 3:] *= HEAD_RADIUS_MM
    return np.concatenate([[0.0], np.abs(np.diff(motion_V6, axis=0)).sum(1)]).astype(np.float32)
