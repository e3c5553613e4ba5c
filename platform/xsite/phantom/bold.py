"""BOLD images of one recording: a brain-shaped MNI grid, parcel modes, and everything that is not neural.

Letters: ``N`` brain voxels, ``R`` parcels, ``V`` volumes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from xsite.phantom.atlas import PARCELS, brain_mask, grid, modes, voxel_mni
from xsite.phantom.habits import Habits
from xsite.phantom.presets import Preset
from xsite.phantom.sources import DRIVE_HZ, HISTORY_S, Subject, bold_series, hrf, smooth_noise
from xsite.recording import Float

LEVEL = 1000.0  # intensity of grey matter
STEP = 0.1  # int16 scaling: 0.01 % of the level
MOTION_NAMES = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


@dataclass(frozen=True, eq=False)
class Brain:
    """Voxels of one site's grid.

    Parameters
    ----------
    inside : bool array, shape of the image
    mean_N : array
        Mean intensity of every brain voxel.
    shift_N6 : array
        First-order intensity change, in units of intensity, per millimetre or radian of each motion parameter.
    """

    affine: Float
    shape: tuple[int, int, int]
    inside: Any
    mni_N3: Float
    mean_N: Float
    shift_N6: Float


@dataclass(frozen=True, eq=False)
class SimulatedBold:
    """Images and confounds of one run.

    Parameters
    ----------
    measured : nibabel 4D image
        int16 with scaling, as it is written.
    noise_free : nibabel 4D image
        float32: rounding would hide the modes' tails.
    motion_V6 : array
        Realignment parameters, mm and radians.
    confounds : dict of str to array
        fMRIPrep's column names in its order, NaN where fMRIPrep writes ``n/a``.
    """

    measured: Any
    noise_free: Any
    confounds: dict[str, Float]


def make_brain(voxel_mm: float) -> Brain:
    """Grid, smooth mean image (grey rim, white core, ventricles) and its first-order response to motion."""
    affine, shape = grid(voxel_mm)
    mni = voxel_mni(affine, shape)
    centre, radii = np.array([0.0, -17.0, 12.0]), np.array([69.0, 87.0, 64.0])
    depth = np.sqrt((((mni - centre) / radii) ** 2).sum(-1))
    edge = 1 / (1 + np.exp((depth - 0.98) / 0.03))
    ventricle = np.exp(-(((mni - [0.0, -10.0, 18.0]) / [12.0, 26.0, 9.0]) ** 2).sum(-1))
    intensity = LEVEL * edge * (0.85 + 0.15 * np.clip(depth / 0.8, 0, 1)) * (1 + 0.3 * ventricle)
    inside = brain_mask(mni)
    slope = np.stack([g[inside] for g in np.gradient(intensity, voxel_mm)], 1)
    arm = (mni - centre)[inside]
    shift = np.concatenate([-slope, -np.cross(arm, slope)], axis=1)  # d/d omega of grad(I) . (omega x r) = r x grad(I)
    return Brain(affine, shape, inside, mni[inside], intensity[inside], shift)


def draw_motion(preset: Preset, n_volumes: int, t_r: float, rng: np.random.Generator) -> tuple[Float, NDArray[Any]]:
    """Realignment parameters (slow wandering plus sudden lasting movements) and the volumes of those movements."""
    scale = preset.motion_mm * np.array([1, 1, 1.5, 0.02, 0.01, 0.01])
    wander = np.cumsum(rng.normal(size=(n_volumes, 6)), axis=0) / np.sqrt(n_volumes)
    moved = np.flatnonzero(rng.random(n_volumes) < preset.spikes_per_min * t_r / 60)
    for volume in moved:
        wander[volume:] += rng.normal(size=6)
        wander[volume] += 2 * rng.normal(size=6)
    return (wander - wander[0]) * scale, moved


def simulate_bold(
    habits: Habits, preset: Preset, subject: Subject, drive_RD: Float, times_V: Float, rng: np.random.Generator
) -> SimulatedBold:
    """Measured and noise-free images of one run, sampled at ``times_V`` seconds from the first EEG sample."""
    brain, n_volumes = make_brain(habits.voxel_mm), len(times_V)
    response = hrf(subject.hrf_peak_s, subject.hrf_width)
    seen_RV = bold_series(drive_RD, response, times_V)
    hidden_RV = bold_series(smooth_noise(rng, len(PARCELS), drive_RD.shape[1], DRIVE_HZ), response, times_V)
    maps_NR = modes(brain.mni_N3, subject.mode_shift_R3)
    truth_NV = maps_NR @ (preset.bold_pct * np.sqrt(1 - preset.silent_share) * seen_RV).astype(np.float32)
    noise_NV = maps_NR @ (preset.bold_pct * np.sqrt(preset.silent_share) * hidden_RV).astype(np.float32)
    systemic_V = smooth_noise(rng, 1, int(HISTORY_S + times_V[-1] + 2), 1.0, (0.01, 0.2))[0]
    systemic_V = np.interp(times_V, np.arange(len(systemic_V)) - HISTORY_S, systemic_V)
    noise_NV += (preset.global_noise_pct * systemic_V).astype(np.float32)
    noise_NV += 100 / preset.tsnr * rng.standard_normal(noise_NV.shape, dtype=np.float32)
    noise_NV += _drift(preset, brain, n_volumes, rng)
    motion_V6, moved = draw_motion(preset, n_volumes, habits.t_r, rng)
    intensity_NV = brain.mean_N[:, None].astype(np.float32) * (1 + (truth_NV + noise_NV) / 100)
    intensity_NV += preset.motion_residue * (brain.shift_N6 @ motion_V6.T).astype(np.float32)
    intensity_NV[:, moved] *= 1 + 0.02 * preset.motion_residue * rng.normal(size=moved.size).astype(np.float32)
    clean_NV = brain.mean_N[:, None].astype(np.float32) * (1 + truth_NV / 100)
    stored = np.clip(np.round(intensity_NV / STEP), 0, 32767).astype(np.int16)
    measured = to_image(brain, stored, habits.t_r)
    measured.header.set_slope_inter(STEP, 0)
    noise_free = to_image(brain, clean_NV.astype(np.float32), habits.t_r)
    return SimulatedBold(measured, noise_free, _confounds(brain, intensity_NV, motion_V6))


def _drift(preset: Preset, brain: Brain, n_volumes: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Scanner drift: linear and quadratic in time, smooth over the head."""
    x = np.linspace(-1, 1, n_volumes)
    field_N2 = 1 + 0.4 * (brain.mni_N3 / 80) @ rng.normal(size=(3, 2))
    trend_2V = np.stack([x, x**2 - 1 / 3]) * rng.normal(size=(2, 1)) * preset.drift_pct / 2
    return np.asarray(field_N2 @ trend_2V, dtype=np.float32)


def to_image(brain: Brain, voxels_NV: Any, t_r: float) -> Any:
    """4D NIfTI image of the given type, zero outside the brain."""
    volumes = np.zeros((*brain.shape, voxels_NV.shape[1]), voxels_NV.dtype)
    volumes[brain.inside] = voxels_NV
    image = nib.Nifti1Image(volumes, brain.affine)
    image.header.set_zooms((*image.header.get_zooms()[:3], t_r))
    image.header.set_xyzt_units("mm", "sec")
    image.set_sform(brain.affine, 4)
    image.set_qform(brain.affine, 4)
    return image


def _confounds(brain: Brain, intensity_NV: Any, motion_V6: Float) -> dict[str, Float]:
    """fMRIPrep-style confounds, measured on the images: tissue means, DVARS, framewise displacement, motion."""
    csf = np.exp(-(((brain.mni_N3 - [0.0, -10.0, 18.0]) / [12.0, 26.0, 9.0]) ** 2).sum(-1)) > 0.5
    white = (np.abs(np.abs(brain.mni_N3[:, 0]) - 28) < 6) & (np.abs(brain.mni_N3[:, 2] - 28) < 6)
    steps = np.diff(intensity_NV, axis=1)
    dvars = np.sqrt((steps**2).mean(0, dtype=np.float64))
    fd = np.abs(np.diff(motion_V6, axis=0) * [1, 1, 1, 50, 50, 50]).sum(1)  # Power 2012: rotation on a 50 mm sphere
    columns = {
        "global_signal": intensity_NV.mean(0, dtype=np.float64),
        "csf": intensity_NV[csf].mean(0, dtype=np.float64),
        "white_matter": intensity_NV[white].mean(0, dtype=np.float64),
        "dvars": np.r_[np.nan, dvars],
        "std_dvars": np.r_[np.nan, dvars / np.median(dvars)],
        "framewise_displacement": np.r_[np.nan, fd],
    }
    return columns | {name: motion_V6[:, k] for k, name in enumerate(MOTION_NAMES)}
