"""A cheap look at an EEG file: how long it is and which markers it names, from headers, without reading its signals."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from xsite.data.files import brainvision_facts, brainvision_frame, brainvision_part, check_file, known, read_json
from xsite.data.inheritance import eeg_json_paths, events_path, marker_labels
from xsite.errors import FormatError

MARKER_LINE = re.compile(r"(?m)^Mk\d+=([^,\r\n]*),([^,\r\n]*),")
ANNOTATION_LABELS = ("EDF Annotations", "BDF Annotations")
ANNOTATION_TEXT = re.compile(rb"\x14([^\x14\x00]+)(?=\x14)")
EDF_HEADER = 256
MAX_SET_BYTES = 64 << 20  # a .set that holds its samples is read whole or not at all


@dataclass(frozen=True)
class EegHeader:
    """What the headers of an EEG file and its tables say.

    Parameters
    ----------
    seconds : float, optional
        Length of the recording; None where no header says it.
    markers : mapping of str to int
        Marker texts with their number, from the file itself and from its events table.
    looked_at : tuple of str
        Names of the files in which markers were looked for; empty where that would need reading the signals.
    """

    seconds: float | None
    markers: Counter[str]
    looked_at: tuple[str, ...]


def eeg_header(path: Path) -> EegHeader:
    """Look at the headers of an EEG file.

    Raises
    ------
    FormatError
        The file, or a part that its header names, is absent, a pointer, empty, or not what its name says.
    """
    look = {".vhdr": _brainvision, ".edf": _edf, ".bdf": _edf, ".set": _eeglab}.get(path.suffix.lower(), _other)
    seconds, markers, looked_at = look(check_file(path))
    events = events_path(path)
    if events is not None:
        found = Counter(label for label in marker_labels(events) if label)
        markers = markers | found  # the same markers are often in both places
        looked_at = [*looked_at, events.name]
    return EegHeader(seconds if seconds is not None else _stated_seconds(path), markers, tuple(looked_at))


def _brainvision(path: Path) -> tuple[float | None, Counter[str], list[str]]:
    facts = brainvision_facts(path)
    data, marker_file = (brainvision_part(path, facts, name) for name in ("DataFile", "MarkerFile"))
    seconds = None
    frame, interval = brainvision_frame(facts), facts.get("SamplingInterval", "")
    if data is not None and frame and re.fullmatch(r"[\d.]+", interval):
        seconds = data.stat().st_size // frame * float(interval) * 1e-6
    if marker_file is None:
        return seconds, Counter(), [path.name]
    text = marker_file.read_bytes().decode("latin-1")
    markers = Counter(f"{kind}/{label}" if kind else label for kind, label in MARKER_LINE.findall(text))
    return seconds, markers, [marker_file.name]


def _edf(path: Path) -> tuple[float | None, Counter[str], list[str]]:
    with path.open("rb") as file:
        head = file.read(EDF_HEADER)
        try:
            header_bytes, n_records, record_s, n_signals = (
                float(head[at].decode("ascii"))
                for at in (slice(184, 192), slice(236, 244), slice(244, 252), slice(252, 256))
            )
            body = file.read(int(header_bytes) - EDF_HEADER)
            signals = int(n_signals)
            labels = [body[16 * i : 16 * (i + 1)].decode("latin-1").strip() for i in range(signals)]
            counts = [int(body[216 * signals + 8 * i : 216 * signals + 8 * (i + 1)]) for i in range(signals)]
        except ValueError as error:
            raise FormatError(f"{path}: not an EDF or BDF header ({error}); fetch it again") from error
    width = 3 if path.suffix.lower() == ".bdf" else 2
    record_bytes = width * sum(counts)
    whole = (path.stat().st_size - int(header_bytes)) // record_bytes if record_bytes else 0
    records = whole if n_records < 0 else min(int(n_records), whole)
    markers: Counter[str] = Counter()
    if records > 0:
        table = np.memmap(path, np.uint8, "r", int(header_bytes), (records, record_bytes))
        for i, label in enumerate(labels):
            if label in ANNOTATION_LABELS:
                start = width * sum(counts[:i])
                text = table[:, start : start + width * counts[i]].tobytes()
                markers.update(word.decode("utf-8", "replace").strip() for word in ANNOTATION_TEXT.findall(text))
    return records * record_s, markers, [path.name]


def _eeglab(path: Path) -> tuple[float | None, Counter[str], list[str]]:
    if path.stat().st_size > MAX_SET_BYTES:
        return None, Counter(), []
    names = ["EEG", "event", "pnts", "srate", "trials"]
    try:
        content = scipy.io.loadmat(path, variable_names=names, squeeze_me=True, struct_as_record=False)
    except NotImplementedError:  # MATLAB 7.3: HDF5, which scipy does not read
        return None, Counter(), []
    except Exception as error:  # scipy raises all sorts on damaged files
        raise FormatError(f"{path}: cannot be read ({type(error).__name__}: {error}); fetch it again") from error
    facts = content.get("EEG")
    get = content.get if facts is None else lambda name, default=None: getattr(facts, name, default)
    samples, sfreq = get("pnts"), get("srate")
    seconds = float(samples) * float(get("trials", 1) or 1) / float(sfreq) if samples and sfreq else None
    events = np.atleast_1d(get("event", np.zeros(0)))
    return seconds, Counter(_event_text(event) for event in events), [path.name]


def _other(path: Path) -> tuple[float | None, Counter[str], list[str]]:
    return None, Counter(), []  # a format that only the site's own reader knows


def _event_text(event: Any) -> str:
    kind = getattr(event, "type", "")
    return f"{kind:g}" if isinstance(kind, float) else str(kind).strip()


def _stated_seconds(path: Path) -> float | None:
    facts: dict[str, Any] = {}
    for sidecar in eeg_json_paths(path):
        facts |= read_json(sidecar)
    seconds = known(facts.get("RecordingDuration"), positive=True)
    return float(seconds) if isinstance(seconds, int | float) else None
