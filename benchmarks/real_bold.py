"""Real BOLD with simulated EEG, in memory: as ``xsite.phantom.real_bold`` makes it, without files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from xsite.phantom.eeg import SIM_HZ
from xsite.phantom.habits import standard_name
from xsite.phantom.plan import Plan, Stream
from xsite.phantom.presets import get_preset
from xsite.phantom.real_bold import (
    PAPER_TARGETS,
    RealSeries,
    deconvolve,
    generator_weights,
    load_series,
    pseudo_sites,
)
from xsite.phantom.sources import DRIVE_HZ, bold_series, hrf, smooth_noise
from xsite.recording import Montage, Parcellation, Recording, RecordingKey

SFREQ = 200


def simulate_around_bold(
    bold_from: Path, *, preset: str = "easy", seed: int = 0, max_subjects: int = 9, n_volumes: int = 300
) -> list[Recording]:
    """One recording per subject (its first scan), dealt to three pseudo-sites; targets are the paper's seven series."""
    series = load_series(bold_from)
    subjects = sorted({subject for subject, _ in series.scans})[:max_subjects]
    recordings = []
    for place, subject in enumerate(subjects):
        scan = min(name for who, name in series.scans if who == subject)
        site = place % 3
        plan = Plan(pseudo_sites()[site], get_preset(preset), seed, site, subject - 1, n_volumes, 0, scan)
        recordings.append(_recording(plan, series))
    return recordings


def _recording(plan: Plan, series: RealSeries) -> Recording:
    measured_VR = series.scans[plan.subject_index + 1, plan.run][: plan.n_volumes]
    weights = generator_weights(series, "paper")
    subject, timing, rng = plan.draw_subject(), plan.timing(), plan.rng(Stream.DRIVE)
    response, own_RD, driven = hrf(subject.hrf_peak_s, subject.hrf_width), plan.draw_drive(), weights.any(1)
    real_RD = deconvolve(
        weights[driven] @ measured_VR.T, response, plan.habits.t_r, float(timing.triggers_V[0]), own_RD.shape[1]
    )
    hidden_RD = smooth_noise(rng, int(driven.sum()), own_RD.shape[1], DRIVE_HZ)
    share = plan.preset.silent_share
    own_RD[driven] = np.sqrt(1 - share) * real_RD + np.sqrt(share) * hidden_RD
    scalp = plan.scalp(own_RD)
    columns = [series.columns.index(name) for name in PAPER_TARGETS]
    # a column with two generators (Heschl's gyrus) is carried by both
    carried_RV = bold_series(own_RD[driven], response, plan.sample_times())
    truth_VR = carried_RV.T @ weights[driven][:, columns]
    bold_VR = measured_VR[:, columns].astype(np.float32)
    eeg_CT = resample_poly(scalp.eeg_CT, SFREQ, int(SIM_HZ), axis=1).astype(np.float32)
    return Recording(
        key=RecordingKey(plan.habits.name, plan.subject, task="rest", run=plan.run),
        montage=Montage(tuple(standard_name(name) for name in plan.habits.eeg_names), scalp.positions_C3),
        parcellation=Parcellation("paper-7", tuple(PAPER_TARGETS), "MNI", "0" * 64),
        eeg=eeg_CT,
        eeg_valid=np.ones(eeg_CT.shape[1], bool),
        bold=bold_VR,
        global_signal=bold_VR[:, -1],
        confounds=np.zeros((len(bold_VR), 1), np.float32),
        confound_names=("framewise_displacement",),
        volume_onsets=plan.sample_times(),
        volume_valid=np.ones(len(bold_VR), bool),
        sfreq=float(SFREQ),
        t_r=plan.habits.t_r,
        truth=truth_VR.astype(np.float32),
    )
