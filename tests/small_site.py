"""A BIDS data set of one small recording, written in seconds: what the readers' tests feed on."""

from __future__ import annotations

import json
from pathlib import Path

import mne
import nibabel as nib
import numpy as np
import pybv

from xsite.signals.parcels import Atlas, save_atlas
from xsite.site import Site

CH_NAMES = ("FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "FZ", "CZ", "PZ", "ECG")
LABELS = ("left", "right", "front")
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])
SHAPE = (12, 12, 10)
N_VOLUMES = 30
T_R = 2.0
LEAD_IN = 18.0


def small_site(**changes) -> Site:
    facts = {"name": "small", "sfreq": 500.0, "t_r": T_R, "line_freq": 50.0, "volume_marker": "R128"}
    return Site(**(facts | changes))


def small_atlas(folder: Path) -> Atlas:
    """Three soft blobs."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    centres = np.array([[3, 6, 5], [8, 6, 5], [6, 9, 5]])
    maps = np.exp(-((grid[..., None, :] - centres) ** 2).sum(-1) / 6).astype(np.float32)
    return save_atlas(folder / "atlas.nii.gz", nib.Nifti1Image(maps, AFFINE), LABELS, "blobs", "MNI152NLin2009cAsym")


def write_recording_files(
    root: Path,
    subject: str = "01",
    *,
    eeg_format: str = "vhdr",
    n_volumes: int = N_VOLUMES,
    n_markers: int | None = None,
    markers_in_file: bool = True,
    sidecar: dict | None = None,
) -> dict[str, Path]:
    """Write EEG, image, confounds, sidecars and truth of one subject; return their paths."""
    rng = np.random.default_rng(int(subject))
    stem = f"sub-{subject}_task-rest"
    eeg_folder = root / f"sub-{subject}" / "eeg"
    func = root / "derivatives" / "fmriprep" / f"sub-{subject}" / "func"
    phantom = root / "derivatives" / "phantom" / f"sub-{subject}" / "func"
    for folder in (eeg_folder, func, phantom):
        folder.mkdir(parents=True, exist_ok=True)
    onsets = LEAD_IN + T_R * np.arange(n_volumes if n_markers is None else n_markers)
    path = eeg_folder / f"{stem}_eeg.{eeg_format}"
    _write_eeg(path, rng, LEAD_IN + T_R * max(n_volumes, len(onsets)) + 3, onsets if markers_in_file else onsets[:0])
    rows = ["onset\tduration\ttrial_type", *(f"{onset}\t0\tResponse/R128" for onset in onsets), "3.0\tn/a\tn/a"]
    (eeg_folder / f"{stem}_events.tsv").write_text("\n".join(rows) + "\n")
    (eeg_folder / f"{stem}_eeg.json").write_text(json.dumps({"SamplingFrequency": 500}))
    series = 0.5 * np.cumsum(rng.normal(0, 1, (n_volumes, 3)), axis=0)
    image = func / f"{stem}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    _write_image(image, rng, series)
    image.with_name(image.name.replace(".nii.gz", ".json")).write_text(
        json.dumps(sidecar or {"RepetitionTime": T_R, "StartTime": 0.5, "SliceTimingCorrected": True})
    )
    motion = rng.normal(0, 0.05, (n_volumes, 6))
    names = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
    lines = ["\t".join([*names, "framewise_displacement", "csf"])]
    for volume, row in enumerate(motion):
        lines.append("\t".join([*(f"{x:.5f}" for x in row), "n/a" if volume == 0 else "0.1", "1.0"]))
    confounds = func / f"{stem}_desc-confounds_timeseries.tsv"
    confounds.write_text("\n".join(lines) + "\n")
    truth = phantom / f"{stem}_desc-noisefree_timeseries.tsv"
    lines = ["\t".join(reversed(LABELS)), *("\t".join(f"{x:.6f}" for x in row[::-1]) for row in series)]
    truth.write_text("\n".join(lines) + "\n")
    return {"eeg": path, "bold": image, "confounds": confounds, "truth": truth}


def _write_eeg(path: Path, rng: np.random.Generator, duration: float, onsets: np.ndarray) -> None:
    n_times = round(duration * 500)
    data = 20e-6 * rng.normal(0, 1, (len(CH_NAMES), n_times))
    if path.suffix == ".vhdr":
        events = [
            {"onset": round(onset * 500), "type": "Response", "description": 128, "duration": 1, "channels": "all"}
            for onset in onsets
        ]
        events += [
            {"onset": 500 * s, "type": "Comment", "description": "Sync On", "duration": 1, "channels": "all"}
            for s in range(2, int(duration) - 1, 2)
        ]
        pybv.write_brainvision(
            data=data,
            sfreq=500,
            ch_names=list(CH_NAMES),
            fname_base=path.stem,
            folder_out=str(path.parent),
            events=events,
            unit="µV",
            overwrite=True,
        )
        return
    types = ["ecg" if name == "ECG" else "eeg" for name in CH_NAMES]
    raw = mne.io.RawArray(data, mne.create_info(list(CH_NAMES), 500.0, types), verbose="error")
    raw.set_annotations(mne.Annotations(onsets, 0.0, "R128"))
    mne.export.export_raw(path, raw, overwrite=True, verbose="error")


def _write_image(path: Path, rng: np.random.Generator, series: np.ndarray) -> None:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    inside = ((grid - np.array([5.5, 5.5, 4.5])) ** 2 / np.array([30, 30, 20])).sum(-1) < 1
    centres = np.array([[3, 6, 5], [8, 6, 5], [6, 9, 5]])
    maps = np.exp(-((grid[..., None, :] - centres) ** 2).sum(-1) / 6)
    change = maps @ series.T + rng.normal(0, 0.2, (*SHAPE, len(series)))
    data = np.where(inside[..., None], 1000 * (1 + change / 100), 0).astype(np.float32)
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((8, 8, 8, T_R))
    nib.save(image, path)
