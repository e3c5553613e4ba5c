"""One recording as BIDS files: EEG in the site's format, images, confounds, sidecars, truth."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mne
import nibabel as nib
import numpy as np
from nibabel.openers import Opener
from numpy.typing import NDArray

from xsite.phantom.bold import SimulatedBold
from xsite.phantom.brainvision import write_brainvision
from xsite.phantom.eeg import ScalpEeg, amplifier_channels
from xsite.phantom.head import fiducials
from xsite.phantom.plan import Plan, Stream
from xsite.recording import Float

SUFFIX = {"brainvision": ".vhdr", "edf": ".edf", "eeglab": ".set"}
SPACE = "MNI152NLin2009cAsym"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """JSON with a final newline; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(path: Path, columns: Mapping[str, Any], decimals: int = 6) -> None:
    """Tab-separated table; NaN is written as ``n/a``."""

    def cell(value: Any) -> str:
        if isinstance(value, float | np.floating):
            return "n/a" if np.isnan(value) else f"{value:.{decimals}g}"
        return str(value)

    rows = ["\t".join(columns), *("\t".join(map(cell, row)) for row in zip(*columns.values(), strict=True))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_eeg(plan: Plan, scalp: ScalpEeg, root: Path) -> Path:
    """Write the EEG of one recording below a site's BIDS root and return the file that readers open."""
    habits = plan.habits
    path = root / f"sub-{plan.subject}" / "eeg" / f"{plan.entities}_eeg{SUFFIX[habits.eeg_format]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    timing = plan.timing()
    channels = amplifier_channels(scalp, habits, plan.preset, timing, plan.rng(Stream.AMPLIFIER))
    n_samples = round(timing.duration_s * habits.sfreq)
    markers = plan.markers()
    if habits.eeg_format == "brainvision":
        write_brainvision(
            path,
            channels,
            n_chans=len(habits.ch_names),
            n_samples=n_samples,
            sfreq=habits.sfreq,
            resolution_uv=0.5 if habits.gradient else 0.1,
            markers=markers,
        )
    else:
        rows = np.stack([row for _, row in channels]).astype(np.float64)
        _export(path, plan, rows, scalp, markers if habits.markers_in_file else [])
    _eeg_sidecars(plan, scalp, path)
    return path


def _export(
    path: Path, plan: Plan, eeg_CN: NDArray[np.float64], scalp: ScalpEeg, markers: list[tuple[float, str]]
) -> None:
    """Write EDF or EEGLAB through MNE-Python."""
    habits = plan.habits
    types = [habits.ch_types.get(name, "eeg") for name in habits.ch_names]
    raw = mne.io.RawArray(eeg_CN * 1e-6, mne.create_info(list(habits.ch_names), habits.sfreq, types), verbose="ERROR")
    if habits.positions:
        places = dict(zip(habits.eeg_names, scalp.positions_C3, strict=True))
        raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), verbose="ERROR")
    if markers:
        onsets, texts = zip(*markers, strict=True)
        raw.set_annotations(mne.Annotations(onsets, 0.0, texts), verbose="ERROR")
    mne.export.export_raw(path, raw, fmt=habits.eeg_format, overwrite=True, verbose="ERROR")


def _eeg_sidecars(plan: Plan, scalp: ScalpEeg, path: Path) -> None:
    habits, timing = plan.habits, plan.timing()
    stem = path.parent / plan.entities
    kinds = [habits.ch_types.get(name, "eeg") for name in habits.ch_names]
    state = "volume triggers only; the gradient artifact is in the data" if habits.gradient else "artifact correction"
    facts = {
        "TaskName": "rest",
        "TaskDescription": "Simulated: no person was recorded",
        "InstitutionName": f"phantom {habits.name}",
        "Manufacturer": habits.manufacturer,
        "EEGReference": habits.reference_text,
        "EEGGround": "AFz",
        "SamplingFrequency": habits.sfreq,
        "PowerLineFrequency": habits.line_freq,
        "SoftwareFilters": "n/a" if habits.gradient else {"Simulated": {"state": state}},
        "EEGChannelCount": kinds.count("eeg"),
        "ECGChannelCount": kinds.count("ecg"),
        "EOGChannelCount": kinds.count("eog"),
        "EMGChannelCount": kinds.count("emg"),
        "TriggerChannelCount": 0,
        "RecordingDuration": timing.duration_s,
        "RecordingType": "continuous",
    }
    write_json(Path(f"{stem}_eeg.json"), facts)
    units = "µV" if habits.eeg_format == "brainvision" else "uV"
    rows = {"name": list(habits.ch_names), "type": [kind.upper() for kind in kinds], "units": [units] * len(kinds)}
    rows["sampling_frequency"] = [f"{habits.sfreq:g}"] * len(kinds)
    rows["status"] = ["good"] * len(kinds)
    write_table(Path(f"{stem}_channels.tsv"), rows)
    _write_events(plan, stem)
    if habits.positions:
        _write_positions(plan, scalp, path.parent)


def _write_events(plan: Plan, stem: Path) -> None:
    markers = plan.markers()
    events = {
        "onset": [f"{onset:.4f}" for onset, _ in markers],
        "duration": ["0"] * len(markers),
        "trial_type": [text for _, text in markers],
        "sample": [str(round(onset * plan.habits.sfreq)) for onset, _ in markers],
    }
    write_table(Path(f"{stem}_events.tsv"), events)
    levels = {plan.habits.marker: "start of an fMRI volume"}
    if plan.habits.decoy:
        levels[plan.habits.decoy] = "clock or relay signal, not a volume"
    about = {"trial_type": {"Description": "marker as recorded", "Levels": levels}}
    about["sample"] = {"Description": "sample of the EEG, counted from zero"}
    write_json(Path(f"{stem}_events.json"), about)


def _write_positions(plan: Plan, scalp: ScalpEeg, folder: Path) -> None:
    stem = folder / f"sub-{plan.subject}_space-CapTrak"
    x, y, z = scalp.positions_C3.T
    write_table(Path(f"{stem}_electrodes.tsv"), {"name": plan.habits.eeg_names, "x": x, "y": y, "z": z})
    write_json(
        Path(f"{stem}_coordsystem.json"),
        {
            "EEGCoordinateSystem": "CapTrak",
            "EEGCoordinateUnits": "m",
            "EEGCoordinateSystemDescription": "RAS through the fiducials, as MNE-Python's head frame",
            "FiducialsCoordinates": fiducials(),
            "FiducialsCoordinateSystem": "CapTrak",
            "FiducialsCoordinateUnits": "m",
            "AnatomicalLandmarkCoordinates": fiducials(),
            "AnatomicalLandmarkCoordinateSystem": "CapTrak",
            "AnatomicalLandmarkCoordinateUnits": "m",
        },
    )


def write_bold(plan: Plan, bold: SimulatedBold, root: Path) -> Path:
    """Write image, derivative image, confounds and sidecars; return the derivative image."""
    habits, sub = plan.habits, f"sub-{plan.subject}"
    raw = root / sub / "func" / f"{plan.entities}_bold.nii.gz"
    raw.parent.mkdir(parents=True, exist_ok=True)
    save_image(bold.measured, raw)
    shots = max(1, bold.measured.shape[2] // habits.multiband)
    order = np.arange(bold.measured.shape[2]) % shots
    facts: dict[str, Any] = {
        "TaskName": "rest",
        "RepetitionTime": habits.t_r,
        "EchoTime": 0.03,
        "FlipAngle": 77,
        "MagneticFieldStrength": 3,
        "Manufacturer": "simulated",
        "MultibandAccelerationFactor": habits.multiband,
        "SliceTiming": [round(float(k) * habits.t_r / shots, 6) for k in order],
    }
    write_json(raw.with_name(f"{plan.entities}_bold.json"), facts)
    folder = root / "derivatives" / "fmriprep" / sub / "func"
    preproc = folder / f"{plan.entities}_space-{SPACE}_desc-preproc_bold.nii.gz"
    folder.mkdir(parents=True, exist_ok=True)
    _link(raw, preproc)
    facts = {"TaskName": "rest", "RepetitionTime": habits.t_r, "SkullStripped": True, "SliceTimingCorrected": True}
    facts["StartTime"] = round(habits.reference_share * habits.t_r, 6)
    write_json(folder / f"{plan.entities}_space-{SPACE}_desc-preproc_bold.json", facts)
    write_table(folder / f"{plan.entities}_desc-confounds_timeseries.tsv", bold.confounds, decimals=8)
    return preproc


def write_truth(plan: Plan, truth_VR: Float, labels: tuple[str, ...], root: Path) -> Path:
    """Write the noise-free parcel series, percent signal change, one row per volume."""
    folder = root / "derivatives" / "phantom" / f"sub-{plan.subject}" / "func"
    path = folder / f"{plan.entities}_desc-noisefree_timeseries.tsv"
    write_table(path, {label: truth_VR[:, r] for r, label in enumerate(labels)}, decimals=8)
    about = {"RepetitionTime": plan.habits.t_r, "Units": "percent signal change"}
    write_json(path.with_suffix(".json"), about)
    return path


def save_image(image: Any, path: Path) -> None:
    """Write a compressed image at the fastest level: noise does not compress, time does."""
    level = Opener.default_compresslevel
    try:
        Opener.default_compresslevel = 1
        nib.save(image, path)
    finally:
        Opener.default_compresslevel = level


def _link(source: Path, target: Path) -> None:
    """Hard link, or copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
