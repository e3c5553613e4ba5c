"""Gradient artifact: ours beside MNE's in one run, and a 20-minute scan prepared: ``python -m benchmarks.gradient``.

One core: set OMP_NUM_THREADS=1. ``--scan`` prepares the 20-minute scan in a process of its own (1 GB below the
temporary folder); ``make bench`` runs the comparison only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mne
import nibabel
import numpy as np

from xsite.data.prepare import prepare_recording
from xsite.phantom.atlas import LABELS, NAME, SPACE, atlas_image
from xsite.recording import Parcellation, RecordingKey
from xsite.signals.gradient import remove_gradient
from xsite.signals.parcels import Atlas
from xsite.site import RecordingFiles, Site

SFREQ, T_R, LEAD_S = 5000.0, 2.1, 10.0
REPEATS = 3
NAMES_64 = tuple(name for name in mne.channels.make_standard_montage("colin27_1020").ch_names if name[0] != "A")[:63]


def lines(n_chans: int = 32, minutes: float = 10.0) -> Iterator[str]:
    """Both correct the same recording in memory, in place, on one core, several times in turn."""
    rng = np.random.default_rng(0)
    n_times = int(minutes * 60 * SFREQ)
    events = np.arange(int(LEAD_S * SFREQ), n_times - int(2 * T_R * SFREQ), int(T_R * SFREQ))
    artifact_CS = rng.standard_normal((n_chans, int(T_R * SFREQ))) * 7e-4
    eeg_CT = rng.standard_normal((n_chans, n_times)) * 1e-5
    seconds: dict[str, list[float]] = {"ours": [], "MNE": []}
    cpu_seconds: dict[str, list[float]] = {"ours": [], "MNE": []}
    info = mne.create_info(n_chans, SFREQ, "eeg")
    for _ in range(REPEATS):
        results = {}
        for name in seconds:
            raw = mne.io.RawArray(eeg_CT.copy(), info, verbose="error")
            for event in events:
                raw._data[:, event : event + artifact_CS.shape[1]] += artifact_CS
            start, cpu = time.perf_counter(), time.process_time()
            if name == "ours":
                raw = remove_gradient(raw, events / SFREQ, T_R, source="benchmark")[0].apply()
            else:
                mne.preprocessing.remove_fmri_gradient_artifact(raw, events, copy=False, verbose="error")
            seconds[name].append(time.perf_counter() - start)
            cpu_seconds[name].append(time.process_time() - cpu)
            results[name] = raw._data
            del raw
        inside = slice(events[4], events[-5] + artifact_CS.shape[1])
        difference = float(np.abs(results["ours"][:, inside] - results["MNE"][:, inside]).max())
        ends = np.r_[events[0] : events[4], events[-4] : events[-1] + artifact_CS.shape[1]]
        left = {name: 1e6 * float(np.std((data - eeg_CT)[:, ends])) for name, data in results.items()}
        within = 1e6 * float(np.std((results["ours"] - eeg_CT)[:, inside]))
    yield f"gradient artifact: {n_chans} channels x {SFREQ:g} Hz x {minutes:g} min, one core, {REPEATS} times in turn"
    for name, times in seconds.items():
        rate = minutes * 60 / np.median(times)
        edges = f"first and last 4 volumes {left[name]:7.1f} µV"
        yield f"  {name:<6}{min(times):7.2f} to {max(times):6.2f} s ({rate:6.0f} x real time), {edges}"
    for what, kind in (("seconds", seconds), ("CPU seconds, which a busy machine changes less", cpu_seconds)):
        ratios = [theirs / ours for ours, theirs in zip(kind["ours"], kind["MNE"], strict=True)]
        yield f"  ratio {min(ratios):.1f} to {max(ratios):.1f} ({what})"
    yield f"  largest interior difference {difference:.1e} V"
    yield f"  artifact left in the interior {within:.1f} µV (what templates of eight volumes carry of the EEG: 3.5)"


def write_scan(folder: Path, minutes: float = 20.0) -> None:
    """A BrainVision scan of 63 EEG channels and ECG with gradient artifact, and its image, block by block."""
    rng = np.random.default_rng(1)
    names = [*NAMES_64, "ECG"]
    size, n_volumes = int(T_R * SFREQ), int((minutes * 60 - 2 * LEAD_S) / T_R)
    t = np.arange(size) / SFREQ
    shapes = np.stack([np.sin(2 * np.pi * k / T_R * t + k) / k**0.5 for k in (1, 38, 76, 114, 152, 380)])
    artifact_SC = (shapes.T @ rng.normal(size=(len(shapes), len(names)))) * 1500
    n_lead = int(LEAD_S * SFREQ)
    with (folder / "scan.eeg").open("wb") as file:
        for length, with_artifact in [(n_lead, False), *[(size, True)] * n_volumes, (n_lead, False)]:
            data = rng.standard_normal((length, len(names)), dtype=np.float32) * 60
            if with_artifact:
                data += artifact_SC
            file.write(np.clip(np.round(data), -32768, 32767).astype("<i2").tobytes())
    channels = "\n".join(f"Ch{i + 1}={name},,0.5,µV" for i, name in enumerate(names))
    (folder / "scan.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\nDataFile=scan.eeg\n"
        f"MarkerFile=scan.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels={len(names)}\n"
        f"SamplingInterval={1e6 / SFREQ:g}\n\n[Binary Infos]\nBinaryFormat=INT_16\n\n[Channel Infos]\n{channels}\n"
    )
    markers = [f"Mk{k + 2}=Response,R128,{n_lead + k * size + 1},1,0" for k in range(n_volumes)]
    (folder / "scan.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n\n[Common Infos]\nCodepage=UTF-8\nDataFile=scan.eeg\n\n"
        "[Marker Infos]\nMk1=New Segment,,1,1,0,20200101000000000000\n" + "\n".join(markers) + "\n"
    )
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-86, -120, -70)
    bold = rng.normal(1000, 10, (44, 52, 44, n_volumes)).astype(np.int16)
    image = nibabel.Nifti1Image(bold, affine)
    image.header.set_zooms((4, 4, 4, T_R))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / "scan_bold.nii.gz")


def prepare_scan(folder: Path) -> dict[str, float]:
    """Prepare it once in this process; seconds and peak memory."""
    site = Site("bench", SFREQ, T_R, 50, "R128", eeg_state="raw", bold_space="template")
    files = RecordingFiles(RecordingKey("bench", "01"), folder / "scan.vhdr", folder / "scan_bold.nii.gz")
    atlas = Atlas(Parcellation(NAME, tuple(LABELS), SPACE, "0" * 64), atlas_image())
    start, cpu = time.perf_counter(), time.process_time()
    recording = prepare_recording(site=site, files=files, atlas=atlas)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "minutes": recording.eeg.shape[1] / recording.sfreq / 60,
        "sd_uv": float(np.median(recording.eeg.std(1))),
    }


def scan_lines() -> Iterator[str]:
    """The 20-minute scan in a process of its own, so that its peak memory is its own."""
    with tempfile.TemporaryDirectory() as name:
        write_scan(Path(name))
        command = [sys.executable, "-m", "benchmarks.gradient", "--prepare", name]
        yield "20-minute scan, 64 channels x 5000 Hz (int16 BrainVision) and its image, from files to shared format"
        for _ in range(REPEATS):
            out = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            yield "  {seconds:.1f} s ({cpu_seconds:.1f} s of one core), peak {peak_gib:.2f} GiB".format(**out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", action="store_true", help="also prepare the 20-minute scan")
    parser.add_argument("--chans", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--prepare", type=Path, help="prepare the scan in this folder and print JSON")
    args = parser.parse_args()
    if args.prepare:
        print(json.dumps(prepare_scan(args.prepare)))
        return
    # the scan first: Linux hands the peak memory of the parent on to its children, and MNE's copies take 4 GiB
    for line in itertools.chain(scan_lines() if args.scan else (), lines(args.chans, args.minutes)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
