"""Writer of BrainVision files (header 1.0, multiplexed int16), one channel at a time.

pybv wants the whole recording as float64 (400 MB for five minutes at 5 kHz) and knows no ``SyncStatus`` markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_HEADER = """Brain Vision Data Exchange Header File Version 1.0
; Simulated by neurobolt-xsite

[Common Infos]
Codepage=UTF-8
DataFile={stem}.eeg
MarkerFile={stem}.vmrk
DataFormat=BINARY
DataOrientation=MULTIPLEXED
NumberOfChannels={n_chans}
; Sampling interval in microseconds
SamplingInterval={interval:g}

[Binary Infos]
BinaryFormat=INT_16

[Channel Infos]
; Each entry: Ch<Channel number>=<Name>,<Reference channel name>,<Resolution in "Unit">,<Unit>
{channels}
"""

_MARKERS = """Brain Vision Data Exchange Marker File, Version 1.0

[Common Infos]
Codepage=UTF-8
DataFile={stem}.eeg

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
) -> None:
    """Write ``.vhdr``, ``.vmrk`` and ``.eeg``.

    Parameters
    ----------
    header : Path
        Path of the ``.vhdr`` file.
    channels : iterable of (name, row)
        Rows of ``n_samples`` in microvolt.
    n_chans, n_samples : int
    sfreq : float
    resolution_uv : float
        Microvolt per bit; values beyond the range are clipped, as an amplifier does.
    markers : sequence of (seconds, description)
        Descriptions as ``Type/Text``.
    """
    names = []
    samples = np.empty((n_samples, n_chans), np.int16)
    for index, (name, row) in enumerate(channels):
        samples[:, index] = np.clip(np.round(row / np.float32(resolution_uv)), -32768, 32767)
        names.append(name)
    samples.tofile(header.with_suffix(".eeg"))
    lines = [f"Ch{i + 1}={name},,{resolution_uv:g},µV" for i, name in enumerate(names)]
    text = _HEADER.format(stem=header.stem, n_chans=n_chans, interval=1e6 / sfreq, channels="\n".join(lines))
    header.write_text(text, encoding="utf-8")
    rows = []
    for number, (onset, description) in enumerate(markers, start=2):
        kind, _, text = description.partition("/")
        rows.append(f"Mk{number}={kind},{text},{round(onset * sfreq) + 1},1,0")
    text = _MARKERS.format(stem=header.stem, markers="\n".join(rows))
    header.with_suffix(".vmrk").write_text(text, encoding="utf-8")
