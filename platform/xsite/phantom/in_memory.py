"""Phantom recordings without files: same sources, head, response and noise, at parcel level, to test training code.

No images are made: thermal noise is scaled to what the projection onto the atlas would leave of it, and motion, scanner
drift and the amplifier's habits (mains, gradients, rate) are left out. Use :mod:`xsite.phantom.consortium` for those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.signal import resample_poly

from xsite.phantom.atlas import LABELS, MODE_SD_MM, NAME, PARCELS, SPACE, atlas_image
from xsite.phantom.eeg import SIM_HZ
from xsite.phantom.habits import Habits, pick_habits, standard_name
from xsite.phantom.plan import Plan, Stream
from xsite.phantom.presets import Preset, get_preset
from xsite.phantom.sources import DRIVE_HZ, HISTORY_S, bold_series, hrf, smooth_noise
from xsite.recording import Float, Montage, Parcellation, Recording, RecordingKey
from xsite.signals.bold_cleaning import clean_like, clean_parcels

SFREQ = 200.0


def simulate_recordings(
    n_sites: int = 2,
    n_subjects: int = 3,
    preset: str | Preset = "easy",
    seed: int = 0,
    *,
    n_volumes: int = 120,
    habits: Sequence[Habits] | None = None,
) -> list[Recording]:
    """Simulate recordings as ``prepare_recording`` would return them.

    Parameters
    ----------
    n_sites, n_subjects : int
    preset : str or Preset
    seed : int
    n_volumes : int
        Volumes of each recording, whatever the site's repetition time.
    habits : sequence of Habits, optional
        Sites to use instead of the first ``n_sites`` of the table.
    """
    sites = pick_habits(n_sites) if habits is None else tuple(habits)
    return [
        simulate_recording(Plan(own, get_preset(preset), seed, index, subject, n_volumes))
        for index, own in enumerate(sites)
        for subject in range(n_subjects)
    ]


def simulate_recording(plan: Plan) -> Recording:
    """Simulate one recording in the shared format."""
    drive_RD, timing = plan.draw_drive(), plan.timing()
    scalp = plan.scalp(drive_RD)
    eeg_CT = resample_poly(scalp.eeg_CT, int(SFREQ), int(SIM_HZ), axis=1).astype(np.float32)
    names = tuple(standard_name(name) for name in plan.habits.eeg_names)
    truth_VR, noise_VR = _series(plan, drive_RD)
    clean = clean_parcels(truth_VR + noise_VR, None, (), plan.habits.t_r, global_signal_V=None)
    return Recording(
        key=RecordingKey(plan.habits.name, plan.subject, task="rest", run=plan.run),
        montage=Montage(names, scalp.positions_C3),
        parcellation=Parcellation(NAME, LABELS, SPACE, _sha256()),
        eeg=eeg_CT,
        eeg_valid=np.ones(eeg_CT.shape[1], bool),
        bold=clean.bold_VR,
        global_signal=clean.bold_VR.mean(1),
        confounds=clean.confounds_VK,
        confound_names=clean.confound_names,
        volume_onsets=plan.sample_times(),
        volume_valid=np.ones(plan.n_volumes, bool),
        sfreq=SFREQ,
        t_r=timing.t_r,
        truth=clean_like(truth_VR, clean.design_VP),
        provenance={"simulated": {"preset": plan.preset.name, "seed": plan.seed}},
    )


def redraw_unlearnable(recording: Recording, plan: Plan, draw: int) -> Recording:
    """The recording of ``plan`` with another BOLD in the unlearnable parcels, drawn as the phantom draws it.

    The EEG knows nothing of them and stays as it is: many null studies for the price of one.
    """
    other = replace(plan, run_index=plan.run_index + 1000 * draw)
    truth_VR, noise_VR = _series(other, other.draw_drive())
    clean = clean_parcels(truth_VR + noise_VR, None, (), plan.habits.t_r, global_signal_V=None)
    fresh_R = np.array([name in plan.preset.unlearnable for name in LABELS])
    bold_VR = np.where(fresh_R, clean.bold_VR, recording.bold)
    known_VR = recording.truth if recording.truth is not None else np.full_like(bold_VR, np.nan)
    truth_VR = np.where(fresh_R, clean_like(truth_VR, clean.design_VP), known_VR)
    return replace(recording, bold=bold_VR, global_signal=bold_VR.mean(1), truth=truth_VR)


def _series(plan: Plan, drive_RD: Float) -> tuple[Float, Float]:
    """Noise-free parcel series and the noise on them, percent signal change, shape (V, R)."""
    preset, subject, times_V = plan.preset, plan.draw_subject(), plan.sample_times()
    rng = plan.rng(Stream.BOLD)
    response = hrf(subject.hrf_peak_s, subject.hrf_width)
    seen_RV = bold_series(drive_RD, response, times_V)
    hidden_RV = bold_series(smooth_noise(rng, len(PARCELS), drive_RD.shape[1], DRIVE_HZ), response, times_V)
    truth_RV = preset.bold_pct * np.sqrt(1 - preset.silent_share) * seen_RV
    noise_RV = preset.bold_pct * np.sqrt(preset.silent_share) * hidden_RV
    systemic = smooth_noise(rng, 1, int(HISTORY_S + times_V[-1] + 2), 1.0, (0.01, 0.2))[0]
    noise_RV += preset.global_noise_pct * np.interp(times_V, np.arange(len(systemic)) - HISTORY_S, systemic)
    voxels = np.pi**1.5 * MODE_SD_MM**3 / plan.habits.voxel_mm**3  # sum of the squared weights of a mode
    noise_RV += 100 / preset.tsnr / np.sqrt(voxels) * rng.normal(size=noise_RV.shape)
    return truth_RV.T.astype(np.float32), noise_RV.T.astype(np.float32)


@lru_cache(maxsize=1)
def _sha256() -> str:
    """Identity of the atlas: its voxels, since no file is written."""
    return hashlib.sha256(np.asarray(atlas_image().dataobj).tobytes()).hexdigest()
