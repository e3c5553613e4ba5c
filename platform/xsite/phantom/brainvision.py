"""Writer of BrainVision files (multiplexed int16 or float32), one channel at a time.

pybv wants the whole recording as float64 (400 MB for five minutes at 5 kHz) and knows no ``SyncStatus`` markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_HEADER = """Brain Vision Data Exchange Header File Version {version}
; Simulated by neurobolt-xsite

[Common Infos]
Codepage=UTF-8
DataFile={stem}{suffix}
MarkerFile={stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels={n_chans}
; Sampling interval in microseconds
SamplingInterval={interval:g}

[Binary Infos]
BinaryFormat={binary}

[Channel Infos]
; Each entry: Ch<Channel number>=<Name>,<Reference channel name>,<Resolution in "Unit">,<Unit>
{channels}
{coordinates}"""

_MARKERS = """Brain Vision Data Exchange Marker File, Version {version}

[Common Infos]
Codepage=UTF-8
DataFile={stem}{suffix}

[Marker Infos]
; Each entry: Mk<Marker number>=<Type>,<Description>,<Position in data points>,<Size in data points>,<Channel number>
Mk1=New Segment,,1,1,0,20260101120000000000
{markers}
"""


def write_brainvision(
    header: Path,
    channels: Iterable[tuple[str, NDArray[np.float32]]],
    *,
    n_chans: int,
    n_samples: int,
    sfreq: float,
    resolution_uv: float,
    markers: Sequence[tuple[float, str]],
    binary: Literal["INT_16", "IEEE_FLOAT_32"] = "INT_16",
    suffix: str = ".eeg",
    coordinates: Mapping[str, tuple[float, float, float]] | None = None,
) -> None:
    """Write ``.vhdr``, ``.vmrk`` and the data file.

    Parameters
    ----------
    header : Path
        Path of the ``.vhdr`` file.
    channels : iterable of (name, row)
        Rows of ``n_samples`` in microvolt.
    n_chans, n_samples : int
    sfreq : float
    resolution_uv : float
        Microvolt per bit; values beyond the range are clipped, as an amplifier does. Not used by float32.
    markers : sequence of (seconds, description)
        Descriptions as ``Type/Text``.
    binary : {"INT_16", "IEEE_FLOAT_32"}
        As recorded, or as Analyzer exports it (which also writes header version 2.0).
    suffix : str
        Of the data file.
    coordinates : mapping of str to (radius, theta, phi), optional
        Electrode positions in Brain Products' spherical degrees.
    """
    names = []
    exported = binary == "IEEE_FLOAT_32"
    samples = np.empty((n_samples, n_chans), np.float32 if exported else np.int16)
    for index, (name, row) in enumerate(channels):
        samples[:, index] = row if exported else np.clip(np.round(row / np.float32(resolution_uv)), -32768, 32767)
        names.append(name)
    samples.tofile(header.with_suffix(suffix))
    resolution = "" if exported else f"{resolution_uv:g}"
    lines = [f"Ch{i + 1}={name},,{resolution},µV" for i, name in enumerate(names)]
    words = {"stem": header.stem, "suffix": suffix, "version": "2.0" if exported else "1.0"}
    text = _HEADER.format(
        **words,
        n_chans=n_chans,
        interval=1e6 / sfreq,
        binary=binary,
        channels="\n".join(lines),
        coordinates=_coordinates(names, coordinates or {}),
    )
    header.write_text(text, encoding="utf-8")
    rows = []
    for number, (onset, description) in enumerate(markers, start=2):
        kind, _, label = description.partition("/")
        rows.append(f"Mk{number}={kind},{label},{round(onset * sfreq) + 1},1,0")
    header.with_suffix(".vmrk").write_text(_MARKERS.format(**words, markers="\n".join(rows)), encoding="utf-8")


def _coordinates(names: Sequence[str], places: Mapping[str, tuple[float, float, float]]) -> str:
    if not places:
        return ""
    rows = [f"Ch{i + 1}={','.join(f'{x:g}' for x in places.get(name, (0, 0, 0)))}" for i, name in enumerate(names)]
    return "\n[Coordinates]\n; Each entry: Ch<Channel number>=<Radius>,<Theta>,<Phi>\n" + "\n".join(rows) + "\n"
