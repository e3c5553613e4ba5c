"""Writers of the EEG formats in which real sites publish; each takes a :class:`Signal` whose rows come one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import edfio
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from xsite.phantom.brainvision import write_brainvision
from xsite.phantom.like.plan import EegFormat

EDF_STEP_UV = 0.1


@dataclass(frozen=True, eq=False)
class Signal:
    """One EEG recording on its way to a file.

    Parameters
    ----------
    ch_names, kinds : tuple of str
        As the file spells them; MNE types.
    rows : iterator of (name, float32 array of shape (n_samples,))
        Microvolt, in the order of ``ch_names``; can be read once.
    n_samples, sfreq : int, float
    markers : sequence of (seconds, description)
        Those that stand in the file.
    positions : mapping of str to (3,) array
        Metres in the head frame; empty where the file has none.
    resolution_uv : float
    options : mapping
        For one format only.
    """

    ch_names: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: Iterator[tuple[str, NDArray[np.float32]]]
    n_samples: int
    sfreq: float
    markers: Sequence[tuple[float, str]]
    positions: Mapping[str, Any] = field(default_factory=dict)
    resolution_uv: float = 0.5
    options: Mapping[str, Any] = field(default_factory=dict)

    def matrix(self) -> NDArray[np.float32]:
        """All channels, shape (C, N); the rows are used up."""
        samples_CN = np.empty((len(self.ch_names), self.n_samples), np.float32)
        for index, (_, row) in enumerate(self.rows):
            samples_CN[index] = row
        return samples_CN


Binary = Literal["INT_16", "IEEE_FLOAT_32"]


def _brainvision(path: Path, signal: Signal, *, binary: Binary = "INT_16", suffix: str = ".eeg") -> None:
    write_brainvision(
        path,
        signal.rows,
        n_chans=len(signal.ch_names),
        n_samples=signal.n_samples,
        sfreq=signal.sfreq,
        resolution_uv=signal.resolution_uv,
        markers=signal.markers,
        coordinates=spherical(signal.positions),
        binary=binary,
        suffix=str(signal.options.get("suffix", suffix)),
    )


def _brainvision_float32(path: Path, signal: Signal) -> None:
    """Analyzer's export: header 2.0, float32, ``.dat``."""
    _brainvision(path, signal, binary="IEEE_FLOAT_32", suffix=".dat")


def spherical(positions: Mapping[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Brain Products' degrees from head-frame positions: theta from the vertex (left is negative), phi from the right.

    >>> spherical({"Cz": (0, 0, 0.1), "T8": (0.1, 0, 0), "T7": (-0.1, 0, 0), "Fz": (0, 0.07, 0.07)})
    {'Cz': (1, 0, 0), 'T8': (1, 90, 0), 'T7': (1, -90, 0), 'Fz': (1, 45, 90)}
    """
    places: dict[str, tuple[float, float, float]] = {}
    for name, (x, y, z) in positions.items():
        theta, phi = np.degrees(np.arccos(z / np.linalg.norm((x, y, z)))), np.degrees(np.arctan2(y, x))
        if x < -1e-9:  # the left side has negative theta, and phi counts from the left ear
            theta, phi = -theta, np.degrees(np.arctan2(-y, -x))
        places[name] = (1, round(float(theta)), round(float(phi)))
    return places


def _edf(path: Path, signal: Signal) -> None:
    """EDF with whole-second records; labels are ASCII, as the standard demands."""
    limits = (-32768 * EDF_STEP_UV, 32767 * EDF_STEP_UV)
    signals = [
        edfio.EdfSignal(
            np.clip(row.astype(np.float64), *limits),
            signal.sfreq,
            label=name.replace("\u00a0", " ").strip()[:16],
            physical_dimension="uV",
            physical_range=limits,
        )
        for name, row in signal.rows
    ]
    notes = [edfio.EdfAnnotation(onset, None, text.rpartition("/")[2]) for onset, text in signal.markers]
    edfio.Edf(signals, data_record_duration=1, annotations=notes).write(path)


def _eeglab(path: Path, signal: Signal) -> None:
    _write_set(path, signal, signal.matrix())


def _eeglab_fdt(path: Path, signal: Signal) -> None:
    twin = path.with_suffix(".fdt")
    signal.matrix().T.tofile(twin)  # channel by channel within a sample: column-major (C, N)
    _write_set(path, signal, str(signal.options.get("datfile", twin.name)))


def _write_set(path: Path, signal: Signal, data: Any) -> None:
    """EEGLAB structure; axes are EEGLAB's (x = nose, y = left) on a unit sphere."""
    fields: list[tuple[str, Any]] = [("labels", object), ("type", object)]
    rows: list[tuple[Any, ...]] = list(zip(signal.ch_names, (kind.upper() for kind in signal.kinds), strict=True))
    if signal.positions:
        fields += [(axis, object) for axis in "XYZ"]
        rows = [(*row, *_eeglab_place(signal.positions.get(row[0]))) for row in rows]
    events = [(text.rpartition("/")[2], onset * signal.sfreq + 1, 1.0) for onset, text in signal.markers]
    structure = {
        "setname": path.stem,
        "filename": path.name,
        "nbchan": float(len(signal.ch_names)),
        "trials": 1.0,
        "pnts": float(signal.n_samples),
        "srate": float(signal.sfreq),
        "xmin": 0.0,
        "xmax": (signal.n_samples - 1) / signal.sfreq,
        "data": data,
        "icawinv": [],
        "icasphere": [],
        "icaweights": [],
        "icaact": [],
        "chanlocs": np.array(rows, dtype=fields),
        "event": np.array(events, dtype=[("type", object), ("latency", object), ("duration", object)]),
        "epoch": [],
        "ref": "common",
    }
    savemat(path, {"EEG": structure}, appendmat=False)


def _eeglab_place(position: Any) -> tuple[Any, ...]:
    """X, Y, Z of EEGLAB from the head frame; empty arrays where a channel has no place."""
    if position is None:
        return (np.array([]),) * 3
    x, y, z = np.asarray(position) / np.linalg.norm(position)
    return float(y), float(-x), float(z)


def _tsv_pairs(path: Path, signal: Signal) -> None:
    """Time vector (rounded to 0.01 s), then the signal, two values per line and no header, as ds004478 has it."""
    seconds = np.round(np.arange(signal.n_samples) / signal.sfreq, 2)
    values = np.r_[seconds, signal.matrix()[0].astype(np.float64)]
    np.savetxt(path, values[: len(values) // 2 * 2].reshape(-1, 2), fmt="%.6g", delimiter="\t")


def _mat(path: Path, signal: Signal) -> None:
    """MATLAB file: the matrix without channel names, under the site's variable, with its other variables."""
    others = {name: value for name, value in signal.options.items() if name not in ("variable", "scale")}
    samples_CN = signal.matrix() * np.float32(signal.options.get("scale", 1.0))
    savemat(path, {str(signal.options.get("variable", "EEG")): samples_CN, **others}, appendmat=False)


WRITERS: Mapping[EegFormat, Callable[[Path, Signal], None]] = {
    "brainvision": _brainvision,
    "brainvision-float32": _brainvision_float32,
    "edf": _edf,
    "eeglab": _eeglab,
    "eeglab-fdt": _eeglab_fdt,
    "tsv-pairs": _tsv_pairs,
    "mat": _mat,
}
