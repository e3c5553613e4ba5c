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
from typing import Any

import mne
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from jobs.cli import run_job
from jobs.opened import Opened, open_model
from xsite.data.bids import marker_onsets, read_eeg
from xsite.errors import AlignmentError, ChannelError, FormatError
from xsite.learning.predict import predict_recording
from xsite.recording import Float, Parcellation, Recording, RecordingKey
from xsite.signals.eeg import clean_eeg
from xsite.signals.gradient import remove_gradient
from xsite.site import RecordingFiles, Site

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
    p.add_argument("--line-freq", type=int, default=50, choices=(50, 60), help="mains frequency in Hz (default: 50)")
    p.add_argument("--gradient", action="store_true", help="remove the scanner's gradient artifact (needs --marker)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Read, clean, predict, write; prints the two files."""
    args = parser().parse_args(argv)
    if args.gradient and not args.marker:
        raise AlignmentError("--gradient needs --marker: the artifact is averaged from volume to volume")
    opened = open_model(args.model, args.tracking)
    recording, steps = read_recording_for(Path(args.eeg), args, opened)
    check_channels(recording, opened, args.eeg)
    series_VR = predict_recording(opened.model, recording, config=opened.config)
    if not np.isfinite(series_VR).any():
        raise FormatError(
            f"{args.eeg}: no complete {opened.model.window_s:g} s window of valid EEG before any of the"
            f" {len(series_VR)} time points; the file holds {recording.eeg.shape[1] / recording.sfreq:.1f} s"
        )
    table, sidecar = write_series(Path(args.out), Path(args.eeg), series_VR, recording, opened, args.model, steps)
    missing = int(np.isnan(series_VR).all(axis=1).sum())
    print(f"{len(series_VR)} time points, {missing} without a valid window (n/a)\n{table}\n{sidecar}")
    return 0


def read_recording_for(path: Path, args: argparse.Namespace, opened: Opened) -> tuple[Recording, list[dict[str, Any]]]:
    """The EEG file as a Recording without BOLD, its volumes at the markers or on a regular grid."""
    key = RecordingKey("new", "".join(c for c in path.stem if c.isalnum()) or "file")
    site = Site(
        "new", 200.0, args.t_r or T_R, args.line_freq, args.marker, eeg_state="raw" if args.gradient else "clean"
    )
    raw = _read_raw(RecordingFiles(key, path, path), site)
    onsets_V = _onsets(raw, args, opened.model.window_s, path)
    t_r = args.t_r or (float(np.median(np.diff(onsets_V))) if len(onsets_V) > 1 else T_R)
    site, valid_T, steps = replace(site, sfreq=float(raw.info["sfreq"]), t_r=t_r), None, list[dict[str, Any]]()
    if args.gradient:
        raw, valid_T, steps = remove_gradient(raw, onsets_V, t_r, source=str(path))
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


def _onsets(raw: Any, args: argparse.Namespace, window_s: float, path: Path) -> NDArray[np.float64]:
    if args.marker is None:
        return np.arange(window_s, raw.n_times / float(raw.info["sfreq"]), args.t_r or T_R)
    onsets: Float = marker_onsets(raw, args.marker)
    if len(onsets) == 0:
        found = sorted({str(name) for name in raw.annotations.description})
        raise AlignmentError(f"{path}: no marker {args.marker!r}; markers in the file: {', '.join(found) or 'none'}")
    return np.asarray(onsets, dtype=np.float64)


def check_channels(recording: Recording, opened: Opened, path: str) -> None:
    """Refuse a file that lacks channels which the model cannot do without; say which, and what the model wants."""
    known = opened.ch_names
    missing = [name for name in known if name not in recording.ch_names]
    common = opened.config["experiment"]["data"]["channels"] == "common"
    if (common and missing) or len(missing) == len(known):
        raise ChannelError(
            f"{path}: lacks {len(missing)} of the model's {len(known)} channels: {', '.join(missing)}. The model wants"
            f" {', '.join(known)}; the file has {', '.join(recording.ch_names)}"
        )


def write_series(
    out: Path,
    eeg: Path,
    series_VR: NDArray[np.float32],
    recording: Recording,
    opened: Opened,
    name: str,
    steps: Sequence[dict[str, Any]],
) -> tuple[Path, Path]:
    """Write the table in percent signal change and its sidecar."""
    stem = eeg.stem.removesuffix("_eeg")
    target, parcels = opened.config["target"], list(opened.config["parcels"])
    scale_R = np.array([np.nan if value is None else value for value in target["scale_R"]], dtype=float)
    table = pd.DataFrame(series_VR * scale_R, columns=parcels)
    table.insert(0, "onset", recording.volume_onsets)
    facts = {
        "Description": "BOLD of each parcel as predicted from EEG",
        "RepetitionTime": recording.t_r,
        "SamplingFrequency": 1 / recording.t_r,
        "StartTime": float(recording.volume_onsets[0]),
        "Columns": ["onset", *parcels],
        "onset": {"Description": "time of the prediction from the first EEG sample", "Units": "s"},
        "Units": "percent signal change: the model's output times ScaleFactor",
        "ScaleFactor": dict(zip(parcels, target["scale_R"], strict=True)),
        "LowPass": {"Cutoff": target.get("low_pass"), "Units": "Hz", "Description": "of the training target"},
        "Parcellation": opened.config.get("parcellation", {}),
        "Model": {"Name": name, "WeightsSHA256": opened.weights_sha256, **_version(opened)},
        "Sources": [eeg.name],
        "Preprocessing": list(steps),
        "GeneratedBy": [{"Name": "neurobolt-xsite"}],
        "Created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = out / f"{stem}_timeseries.tsv", out / f"{stem}_timeseries.json"
    _write(paths[0], table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.6g"))
    _write(paths[1], json.dumps(facts, indent=2))
    return paths


def _version(opened: Opened) -> dict[str, str]:
    kept = {"name": "RegisteredModel", "version": "Version", "gate.status": "Gate", "r_mean": "LeaveOneSiteOutR"}
    return {kept[key]: value for key, value in opened.facts.items() if key in kept}


def _write(path: Path, text: str) -> None:
    """All or nothing: a reader never sees half a table."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(run_job(main))
