"""Turn an EEG file into parcel time series with a registered model: no training code, no cluster.

    neurobolt predict models:/neurobolt@challenger --eeg sub-01_task-rest_eeg.vhdr out --marker R128
    neurobolt predict studies/demo/final --eeg rest.edf out --t-r 1.5

Writes ``<stem>_timeseries.tsv`` (one row per time point, one column per parcel) and ``<stem>_timeseries.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs.cli import run_job, write_output
from jobs.opened import Opened, check_channels, open_model
from xsite.data.bids import marker_onsets, read_eeg
from xsite.errors import AlignmentError, FormatError
from xsite.learning.predict import predict_recording
from xsite.recording import Float, Parcellation, Recording, RecordingKey
from xsite.signals.eeg import clean_eeg
from xsite.signals.gradient import remove_gradient
from xsite.signals.quality import line_noise_ratio
from xsite.site import RecordingFiles, Site
from xsite.spelling import counted

CHECKED = (".vhdr", ".edf", ".bdf", ".set")  # formats whose truncation and missing companions the platform recognises
T_R = 2.0  # seconds between predictions where neither markers nor --t-r say otherwise


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        prog="neurobolt predict",
        description=(__doc__ or "").splitlines()[0],
        epilog="Example: neurobolt predict models:/neurobolt@challenger --eeg sub-01_eeg.vhdr out --marker R128",
    )
    p.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID or a checkpoint folder")
    p.add_argument("out", help="folder for the time series")
    p.add_argument("--eeg", required=True, help="EEG file: BrainVision, EDF, BDF, EEGLAB, or another that MNE reads")
    p.add_argument("--tracking", help="MLflow URI or folder (default: MLFLOW_TRACKING_URI, else studies/mlflow)")
    p.add_argument("--marker", help="annotation of the volumes, such as R128: one prediction per marker")
    p.add_argument("--t-r", type=float, help=f"seconds between predictions (default: the markers', else {T_R:g})")
    p.add_argument("--start-time", type=float, default=0, metavar="S", help="slice-timing reference, added to markers")
    p.add_argument(
        "--line-freq", type=int, choices=(50, 60), help="mains frequency (default: the stronger in the file)"
    )
    p.add_argument("--gradient", action="store_true", help="remove the scanner's gradient artifact (needs --marker)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Read, clean, predict, write; prints the two files."""
    args = parser().parse_args(argv)
    if args.gradient and not args.marker:
        raise AlignmentError("--gradient needs --marker: the artifact is averaged from volume to volume")
    if args.start_time and not args.marker:
        raise AlignmentError(f"--start-time {args.start_time:g} needs --marker: it is the time after each marker")
    opened = open_model(args.model, args.tracking)
    recording, steps = read_recording_for(Path(args.eeg), args, opened)
    check_channels(recording, opened, args.eeg)
    series_VR = predict_recording(opened.model, recording, config=opened.config)
    if not np.isfinite(series_VR).any():
        raise FormatError(
            f"{args.eeg}: no complete {opened.model.window_s:g} s window of valid EEG before any of the"
            f" {len(series_VR)} time points; the file holds {recording.eeg.shape[1] / recording.sfreq:.1f} s"
        )
    paths = write_series(args, series_VR, recording, opened, steps)
    missing = np.isnan(series_VR).all(axis=1).sum()
    print(f"{counted(len(series_VR), 'time point')}, {missing} without a valid window (n/a)", *paths, sep="\n")
    return 0


def read_recording_for(path: Path, args: argparse.Namespace, opened: Opened) -> tuple[Recording, list[dict[str, Any]]]:
    """The EEG file as a Recording without BOLD, its volumes at the markers or on a regular grid."""
    key = RecordingKey("new", "".join(c for c in path.stem if c.isalnum()) or "file")
    state: Literal["raw", "clean"] = "raw" if args.gradient else "clean"
    site = Site("new", 200.0, args.t_r or T_R, args.line_freq or 50, args.marker, eeg_state=state)
    raw = _read_raw(RecordingFiles(key, path, path), site)
    onsets_V = _onsets(raw, args, opened.model.window_s, path)
    t_r = args.t_r or (float(np.median(np.diff(onsets_V))) if len(onsets_V) > 1 else T_R)
    if not 0 <= args.start_time <= t_r:
        raise AlignmentError(f"--start-time {args.start_time:g} is not inside one TR of {t_r:g} s")
    valid_T, steps = None, list[dict[str, Any]]()
    if args.gradient:
        raw, valid_T, steps = remove_gradient(raw, onsets_V, t_r, trend="kept", source=str(path))
    onsets_V, sfreq = onsets_V + args.start_time, float(raw.info["sfreq"])
    site = replace(site, sfreq=sfreq, t_r=t_r, line_freq=args.line_freq or find_line_freq(raw))
    clean = clean_eeg(raw, site, sfreq=opened.model.sfreq, valid_T=valid_T, source=str(path))
    nothing_VR = np.full((len(onsets_V), 0), np.nan, np.float32)
    recording = Recording(
        key=key,
        montage=clean.montage,
        parcellation=Parcellation("none", (), "none", ""),
        eeg=clean.eeg_CT,
        eeg_valid=clean.valid_T,
        bold=nothing_VR,
        global_signal=np.full(len(onsets_V), np.nan, np.float32),
        confounds=nothing_VR,
        confound_names=(),
        volume_onsets=onsets_V,
        volume_valid=np.ones(len(onsets_V), dtype=bool),
        sfreq=clean.sfreq,
        t_r=t_r,
    )
    return recording, [*steps, *clean.steps]


def _read_raw(files: RecordingFiles, site: Site) -> Any:
    if files.eeg.suffix.lower() in CHECKED or not files.eeg.exists():
        return read_eeg(files, site)
    try:
        return mne.io.read_raw(files.eeg, preload=False, verbose="error")
    except Exception as error:  # MNE's readers raise all sorts
        raise FormatError(f"{files.eeg}: MNE cannot read it ({type(error).__name__}: {error})") from error


def find_line_freq(raw: Any) -> int:
    """50 or 60 Hz, whichever stands out more above its neighbours in up to a minute from the file's middle."""
    sfreq = float(raw.info["sfreq"])
    start = max(0, raw.n_times // 2 - round(30 * sfreq))
    eeg_CT = np.nan_to_num(raw.get_data(picks="eeg", start=start, stop=start + round(60 * sfreq)))
    ratios = {freq: line_noise_ratio(eeg_CT, sfreq, freq) for freq in (50, 60)}
    chosen = 60 if ratios[60] > ratios[50] else 50  # 50 where the rate is too low to tell
    print(f"mains frequency {chosen} Hz (50 Hz {ratios[50]:.1f}, 60 Hz {ratios[60]:.1f} times their neighbours)")
    return chosen


def _onsets(raw: Any, args: argparse.Namespace, window_s: float, path: Path) -> NDArray[np.float64]:
    if args.marker is None:
        return np.arange(window_s, raw.n_times / float(raw.info["sfreq"]), args.t_r or T_R)
    onsets: Float = marker_onsets(raw, args.marker)
    if len(onsets) == 0:
        found = sorted({str(name) for name in raw.annotations.description})
        raise AlignmentError(f"{path}: no marker {args.marker!r}; markers in the file: {', '.join(found) or 'none'}")
    return np.asarray(onsets, dtype=np.float64)


def write_series(
    args: argparse.Namespace, series_VR: Float, recording: Recording, opened: Opened, steps: Sequence[dict[str, Any]]
) -> tuple[Path, Path]:
    """Write the table in percent signal change and its sidecar."""
    eeg, stem = Path(args.eeg), Path(args.eeg).stem.removesuffix("_eeg")
    target, parcels = opened.config["target"], list(opened.config["parcels"])
    scale_R = np.array([np.nan if value is None else value for value in target["scale_R"]], dtype=float)
    table = pd.DataFrame(series_VR * scale_R, columns=parcels)
    table.insert(0, "onset", recording.volume_onsets)
    facts = {
        "Description": "BOLD of each parcel as predicted from EEG",
        "RepetitionTime": recording.t_r,
        "SamplingFrequency": 1 / recording.t_r,
        "FirstRowOnset": float(recording.volume_onsets[0]),  # not BIDS's StartTime, which counts from a marker
        "SliceTimingReference": args.start_time,
        "Columns": ["onset", *parcels],
        "onset": {"Description": "time of the prediction from the first EEG sample", "Units": "s"},
        "Units": "percent signal change: the model's output times ScaleFactor",
        "ScaleFactor": dict(zip(parcels, target["scale_R"], strict=True)),
        "LowPass": {"Cutoff": target.get("low_pass"), "Units": "Hz", "Description": "of the training target"},
        "Parcellation": opened.config.get("parcellation", {}),
        "Model": {"Name": args.model, "WeightsSHA256": opened.weights_sha256, **_version(opened)},
        "Sources": [eeg.name],
        "Preprocessing": list(steps),
        "GeneratedBy": [{"Name": "neurobolt-xsite"}],
        "Created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    paths = Path(args.out, f"{stem}_timeseries.tsv"), Path(args.out, f"{stem}_timeseries.json")
    write_output(paths[0], table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.6g").encode())
    write_output(paths[1], json.dumps(facts, indent=2).encode())
    return paths


def _version(opened: Opened) -> dict[str, str]:
    kept = {"name": "RegisteredModel", "version": "Version", "gate.status": "Gate", "r_mean": "LeaveOneSiteOutR"}
    return {kept[key]: value for key, value in opened.facts.items() if key in kept}


if __name__ == "__main__":
    sys.exit(run_job(main))
