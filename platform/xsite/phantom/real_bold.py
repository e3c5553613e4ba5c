"""A consortium around real BOLD: parcel series from a file, deconvolved to the drive of simulated EEG.

The targets keep their real noise, spectra and correlations. Subjects are dealt to three pseudo-sites with unlike EEG;
all scans of a subject stay in one site. Parcel tables stand in ``derivatives/parcels``, no image is made up.

NPZ layout (that of the NeuroBOLT resting data): one array ``subNN-scanMM`` of shape (volumes, columns) per scan, and
``columns`` with the parcel names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.signal import resample

from xsite.errors import FormatError
from xsite.phantom.atlas import PARCELS
from xsite.phantom.habits import HABITS, Habits
from xsite.phantom.oracle import series_r
from xsite.phantom.plan import Plan, Stream
from xsite.phantom.presets import Preset, get_preset
from xsite.phantom.sites import Consortium, Progress, Rows, oracle_table, start_folder, write_sites
from xsite.phantom.sources import DRIVE_HZ, HISTORY_S, bold_series, hrf, smooth_noise
from xsite.phantom.write import write_eeg, write_json, write_table, write_truth
from xsite.recording import Float

T_R = 2.1  # of the NeuroBOLT resting series
N_SITES = 3
Drivers = Literal["paper", "components"]

# the paper's seven targets, and the generator (of our sixteen) through which each shows in the EEG
PAPER_TARGETS: Mapping[str, tuple[str, ...]] = {
    "Cuneus": ("Cuneus",),
    "Heschl’s gyrus": ("Heschl gyrus L", "Heschl gyrus R"),
    "Middle frontal gyrus anterior": ("Middle frontal gyrus R",),
    "Precuneus anterior": ("Superior parietal lobule L",),
    "Putamen": ("Putamen L",),
    "Thalamus": ("Thalamus",),
    "global signal clean": ("Anterior cingulate",),
}
_REAL_HABITS = {  # 20 minutes at 5 kHz would be 400 MB a scan; corrected EEG is published at lower rates anyway
    "realA": (HABITS[0], {"sfreq": 1000, "reference_share": 0.0}),
    "realB": (HABITS[1], {"sfreq": 500, "decoy_every_s": T_R, "lead_in_s": 18.0}),
    "realC": (HABITS[2], {"sfreq": 250, "extra_markers": 0}),
}


@dataclass(frozen=True, eq=False)
class RealSeries:
    """Parcel series of all scans: ``scans`` maps (subject, scan) to an array of shape (V, R)."""

    columns: tuple[str, ...]
    scans: Mapping[tuple[int, str], Float]


def load_series(path: str | Path) -> RealSeries:
    """Read the NPZ.

    Raises
    ------
    FormatError
        Not an NPZ, no ``columns``, a scan name or shape that does not fit, or values that are not finite.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            content = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{path}: cannot be read as NPZ ({error}); give the file of parcel series") from error
    if "columns" not in content:
        raise FormatError(f"{path}: no array 'columns' with the parcel names (found {', '.join(content) or 'nothing'})")
    columns = tuple(str(name) for name in content.pop("columns"))
    scans, problems = {}, []
    for name, series_VR in content.items():
        match = re.fullmatch(r"sub(\d+)-scan(\w+)", name)
        if not match:
            problems.append(f"{name}: not of the form sub01-scan01")
        elif series_VR.ndim != 2 or series_VR.shape[1] != len(columns):
            problems.append(f"{name}: shape {series_VR.shape}, expected (volumes, {len(columns)})")
        elif len(series_VR) < 20 or not np.isfinite(series_VR).all():
            problems.append(f"{name}: fewer than 20 volumes, or values that are not finite")
        else:
            scans[int(match[1]), match[2]] = series_VR.astype(np.float64)
    if problems or not scans:
        raise FormatError(f"{path}: " + ("; ".join(problems[:5]) or "holds no scan"))
    return RealSeries(columns, dict(sorted(scans.items())))


def deconvolve(
    series_RV: Float, response: Float, t_r: float, first_s: float, n_drive: int, noise: float = 0.1
) -> Float:
    """Neural drive whose convolution with a response gives a BOLD series: Wiener filter, unit variance.

    Parameters
    ----------
    series_RV : array, shape (R, V)
    response : array
        Haemodynamic response at ``DRIVE_HZ``.
    t_r : float
    first_s : float
        Time of the first volume, seconds from the first EEG sample.
    n_drive : int
        Samples of the drive, the first at ``-HISTORY_S``.
    noise : float
        Noise-to-signal power ratio relative to the response's best frequency.

    Returns
    -------
    array, shape (R, D)
    """
    margin = int(np.ceil((HISTORY_S + first_s + 60) / t_r))  # mirrored volumes before and after the scan
    padded_RV = np.pad(series_RV, ((0, 0), (margin, margin)), mode="reflect", reflect_type="even")
    n_fine = round(padded_RV.shape[1] * t_r * DRIVE_HZ)
    fine_RN = resample(padded_RV, n_fine, axis=1)
    gain = np.fft.rfft(response, n_fine)
    wiener = np.conj(gain) / (np.abs(gain) ** 2 + noise * np.abs(gain).max() ** 2)
    wiener[0] = 0
    drive_RN = np.fft.irfft(np.fft.rfft(fine_RN, axis=1) * wiener, n_fine, axis=1)
    clock = first_s - margin * t_r + np.arange(n_fine) / DRIVE_HZ
    wanted = np.arange(n_drive) / DRIVE_HZ - HISTORY_S
    drive_RD = np.stack([np.interp(wanted, clock, row) for row in drive_RN])
    drive_RD -= drive_RD.mean(1, keepdims=True)
    return np.asarray(drive_RD / drive_RD.std(1, keepdims=True))


def generator_weights(series: RealSeries, drivers: Drivers) -> Float:
    """How strongly each column drives each of the sixteen generators, shape (generators, columns).

    ``paper``: one column each, the other generators zero (their drive is unrelated to BOLD). ``components``: the first
    sixteen principal components over all scans, the same for everybody, so that one mapping serves all subjects.
    """
    weights = np.zeros((len(PARCELS), len(series.columns)))
    if drivers == "components":
        parcels = [i for i, name in enumerate(series.columns) if not name.startswith("global signal")]
        pooled = np.concatenate(list(series.scans.values()))[:, parcels]
        _, vectors = np.linalg.eigh(np.cov(pooled, rowvar=False))
        leading = vectors[:, ::-1][:, : len(PARCELS)].T
        weights[: len(leading), parcels] = leading * np.sign(leading.sum(1, keepdims=True))
        return weights
    missing = [name for name in PAPER_TARGETS if name not in series.columns]
    if missing:
        raise FormatError(f"the parcel series lack {missing}; use drivers='components' for another parcellation")
    row = {parcel.name: index for index, parcel in enumerate(PARCELS)}
    for column, generators in PAPER_TARGETS.items():
        for generator in generators:
            weights[row[generator], series.columns.index(column)] = 1
    return weights


def pseudo_sites() -> list[Habits]:
    """Three ways of recording EEG at the scanner of the real series."""
    return [replace(own, name=name, t_r=T_R, **changes) for name, (own, changes) in _REAL_HABITS.items()]  # type: ignore[arg-type]


def generate_from_bold(
    out: Path,
    bold_from: str | Path,
    *,
    preset: str | Preset = "easy",
    seed: int = 0,
    drivers: Drivers = "paper",
    max_subjects: int | None = None,
    n_jobs: int = 1,
    progress: Progress | None = None,
) -> Consortium:
    """Write three pseudo-sites around real parcel series; see the module's docstring.

    Parameters
    ----------
    drivers : {"paper", "components"}
        Which columns drive the EEG: the paper's seven targets, or sixteen principal components of all parcels.
    max_subjects : int, optional
        Only the first subjects of the file.

    Raises
    ------
    FormatError
        :func:`load_series` refuses the file.
    """
    chosen, source = get_preset(preset), Path(bold_from)
    series = load_series(source)
    subjects = sorted({subject for subject, _ in series.scans})[:max_subjects]
    plans = []
    for place, subject in enumerate(subjects):
        site_index = place % N_SITES
        own = [(scan, len(values)) for (who, scan), values in series.scans.items() if who == subject]
        for index, (scan, n_volumes) in enumerate(own):
            habits = pseudo_sites()[site_index]
            plans.append(Plan(habits, chosen, seed, site_index, subject - 1, n_volumes, index, scan))
    settings = {"bold_from": source.name, "drivers": drivers, "subjects": subjects, "seed": seed}
    plans.sort(key=lambda plan: (plan.site_index, plan.subject, plan.run))
    start_folder(Path(out), settings | {"preset": chosen.numbers()}, plans)
    make = partial(make_from_bold, source=source.absolute(), drivers=drivers)
    return write_sites(Path(out), plans, make, source=source.name, n_jobs=n_jobs, progress=progress)


def make_from_bold(plan: Plan, root: Path, out: Path, *, source: Path, drivers: Drivers) -> Rows:
    """Simulate the EEG of one real scan, write it with the scan's parcel table, and return its oracle rows."""
    series = load_series(source)
    measured_VR = series.scans[plan.subject_index + 1, plan.run]
    weights = generator_weights(series, drivers)
    subject, timing, rng = plan.draw_subject(), plan.timing(), plan.rng(Stream.DRIVE)
    response = hrf(subject.hrf_peak_s, subject.hrf_width)
    own_RD = plan.draw_drive()
    driven = weights.any(1)
    target_RV = weights[driven] @ measured_VR.T
    real_RD = deconvolve(target_RV, response, plan.habits.t_r, float(timing.triggers_V[0]), own_RD.shape[1])
    hidden_RD = smooth_noise(rng, int(driven.sum()), own_RD.shape[1], DRIVE_HZ)
    share = plan.preset.silent_share
    own_RD[driven] = np.sqrt(1 - share) * real_RD + np.sqrt(share) * hidden_RD
    write_eeg(plan, plan.scalp(own_RD), root)
    carried_RV = bold_series(own_RD[driven], response, plan.sample_times())
    truth_VR = _truth(series, weights[driven], carried_RV)
    _write_tables(plan, series, measured_VR, truth_VR, root)
    return oracle_table(plan, series.columns, series_r(truth_VR, measured_VR, plan.habits.t_r))


def _truth(series: RealSeries, weights: Float, carried_RV: Float) -> Float:
    """What the EEG knows of each column, shape (V, columns); NaN for columns that drive nothing."""
    single = (weights != 0).sum(1).max() == 1
    norm = np.abs(weights).sum(0) if single else np.sqrt((weights**2).sum(0))
    pooled = np.concatenate(list(series.scans.values())) @ weights.T
    spread = np.ones(len(weights)) if single else pooled.std(0)  # components differ in strength
    truth_VR = (carried_RV * spread[:, None]).T @ weights
    return np.where(norm > 0, truth_VR / (np.where(norm > 0, norm, 1) if single else 1), np.nan)


def _write_tables(plan: Plan, series: RealSeries, measured_VR: Float, truth_VR: Float, root: Path) -> None:
    folder = root / "derivatives" / "parcels" / f"sub-{plan.subject}" / "func"
    table = folder / f"{plan.entities}_desc-real_timeseries.tsv"
    write_table(table, {name: measured_VR[:, r] for r, name in enumerate(series.columns)}, decimals=8)
    about = {"RepetitionTime": plan.habits.t_r, "Units": "z", "Description": "real parcel series, as given"}
    write_json(table.with_suffix(".json"), about)
    write_truth(plan, truth_VR, series.columns, root)
