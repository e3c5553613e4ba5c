"""Data sets as published, in miniature: real names and sidecars, signal files of the smallest valid kind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import scipy.io

N_CHANS, SFREQ, SECONDS, N_VOLUMES = 2, 1000, 20, 8


def publish(
    sidecars: Path, out: Path, subjects: Sequence[str] | None, markers: Sequence[str] = ("Stimulus/S  1",)
) -> Path:
    """Write what the manifest lists for some subjects (None: all): real sidecars, EEG and images in miniature."""
    for line in (sidecars / "_manifest.tsv").read_text().splitlines()[1:]:
        relative = line.split("\t")[0]
        inside = relative.split("/")[0]
        if inside.startswith("sub-") and subjects is not None and inside not in subjects:
            continue
        path = out / relative
        if (sidecars / relative).is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(sidecars / relative, path)
        elif path.suffix in (".vhdr", ".set", ".bdf") and "eeg" in relative:
            write_eeg(path, markers)
        elif relative.endswith(("_bold.nii.gz", "_bold.nii")):
            write_image(path)
    return out


def write_eeg(path: Path, markers: Sequence[str] = ()) -> Path:
    """One EEG file that a reader opens, with one marker a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".vhdr":
        return write_brainvision(path, markers)
    if path.suffix == ".set":
        event = np.array(
            [(name, 1000.0 * i + 1) for i, name in enumerate(markers)], [("type", object), ("latency", float)]
        )
        facts = {"data": "there.fdt", "srate": float(SFREQ), "pnts": SFREQ * SECONDS, "nbchan": N_CHANS, "trials": 1}
        scipy.io.savemat(path, {"EEG": {**facts, "event": event}}, appendmat=False)
        return path
    fields = [("", 8), ("", 80), ("", 80), ("", 8), ("", 8), (256 * 2, 8), ("24BIT", 44), (SECONDS, 8), (1, 8), (1, 4)]
    head = b"".join(str(text).ljust(width).encode()[:width] for text, width in fields)
    head += b"Cz".ljust(16) + b" " * (80 + 8 + 8 + 8 + 8 + 8 + 80) + str(SFREQ).ljust(8).encode() + b" " * 32
    path.write_bytes(head + bytes(3 * SFREQ * SECONDS))
    return path


def write_brainvision(path: Path, markers: Sequence[str] = (), data_file: str | None = None) -> Path:
    """Header, markers and samples; ``data_file`` names other samples than those that are shipped (none then)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"Mk{i + 1}={name.replace('/', ',')},{SFREQ * i + 1},1,0" for i, name in enumerate(markers)]
    path.with_suffix(".vmrk").write_text(
        "Brain Vision Data Exchange Marker File\n[Marker Infos]\n" + "\n".join(lines) + "\n"
    )
    named = data_file or f"{path.stem}.eeg"
    path.write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\n"
        f"DataFile={named}\nMarkerFile={path.stem}.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={N_CHANS}\nSamplingInterval={1_000_000 // SFREQ}\n[Binary Infos]\nBinaryFormat=INT_16\n"
        "[Channel Infos]\nCh1=Fp1,,0.5,µV\nCh2=Fp2,,0.5,µV\n"
    )
    if data_file is None:
        path.with_suffix(".eeg").write_bytes(bytes(2 * N_CHANS * SFREQ * SECONDS))
    return path


def write_image(path: Path, n_volumes: int = N_VOLUMES) -> Path:
    """A tiny 4D image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, n_volumes), np.int16), np.eye(4)), path)
    return path
