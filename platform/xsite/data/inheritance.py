"""Which sidecars speak about a file: the BIDS inheritance principle, and names taken apart.

A sidecar in the file's folder or in any folder above it, up to the data set's root, applies when all its entities are
the file's own. Of several the nearest wins: deeper folders first, then more entities.
"""

from __future__ import annotations

import re
from pathlib import Path

from xsite.data.files import read_tsv

_ENTITY = re.compile(r"(?:^|_)([a-z]+)-([A-Za-z0-9]+)")
RUN_ENTITIES = ("sub", "ses", "task", "acq", "ce", "dir", "rec", "run")  # what names a run, whatever its space
MAX_ABOVE = 4  # func, ses, sub, root


def name_parts(path: Path) -> dict[str, str]:
    """BIDS entities of a file name: ``{"sub": "01", "task": "rest"}``."""
    return dict(_ENTITY.findall(path.name))


def run_parts(path: Path) -> dict[str, str]:
    """Return the entities that tell runs apart, in BIDS order; leading zeros of the run index do not count."""
    parts = name_parts(path)
    run = {name: parts[name] for name in RUN_ENTITIES if name in parts}
    return run | ({"run": run["run"].lstrip("0") or "0"} if "run" in run else {})


def data_set_root(path: Path) -> Path:
    """Folder that holds the file's ``sub-*`` folder; the file's own folder where there is none."""
    above = [folder for folder in list(path.parents)[: MAX_ABOVE + 1] if folder.name.startswith("sub-")]
    return above[-1].parent if above else path.parent


def inherited(path: Path, ending: str) -> list[Path]:
    """Sidecars of a file by inheritance, the nearest last: where keys or files compete, the last one wins.

    Parameters
    ----------
    path : Path
        A data file.
    ending : str
        ``eeg.json``, ``channels.tsv``, ``events.tsv``, ``bold.json``, ...
    """
    own = name_parts(path)
    root = data_set_root(path)
    folders = [folder for folder in path.parents if folder == root or root in folder.parents]
    found = []
    for folder in reversed(folders):
        here = [
            sidecar
            for sidecar in folder.glob(f"*{ending}")
            if sidecar.name == ending or (sidecar.name.endswith(f"_{ending}") and not sidecar.name.startswith("."))
        ]
        applying = [sidecar for sidecar in here if name_parts(sidecar).items() <= own.items()]
        found += sorted(applying, key=lambda sidecar: (len(name_parts(sidecar)), sidecar.name))
    return [sidecar for sidecar in found if sidecar.is_file() or sidecar.is_symlink()]


def eeg_json_paths(eeg: Path) -> list[Path]:
    """``eeg.json`` files of an EEG file, the nearest last; a twin without suffix (``<stem>.json``) is the nearest."""
    twin = eeg.with_suffix(".json")
    paths = inherited(eeg, "eeg.json")
    return paths if twin in paths or not (twin.is_file() or twin.is_symlink()) else [*paths, twin]


def channels_path(eeg: Path) -> Path | None:
    """Nearest ``channels.tsv`` of an EEG file."""
    return next(iter(reversed(inherited(eeg, "channels.tsv"))), None)


def electrodes_path(eeg: Path) -> Path | None:
    """Nearest ``electrodes.tsv`` of an EEG file, whatever ``space`` its name says."""
    own = name_parts(eeg)
    spaced = [path for path in sorted(eeg.parent.glob("*_electrodes.tsv")) if not path.name.startswith(".")]
    fitting = [p for p in spaced if {k: v for k, v in name_parts(p).items() if k != "space"}.items() <= own.items()]
    return next(iter([*reversed(fitting), *reversed(inherited(eeg, "electrodes.tsv"))]), None)


def events_path(eeg: Path) -> Path | None:
    """Nearest ``events.tsv`` on the EEG's own clock.

    A table that all subjects share (``task-rest_events.tsv`` at the root, as in ds002336) tells the protocol, counted
    from the scan's start: it cannot hold the time of each subject's EEG, and is not taken for markers.
    """
    subject = name_parts(eeg).get("sub")
    own = [path for path in inherited(eeg, "events.tsv") if subject is None or "sub" in name_parts(path)]
    filled = [path for path in own if path.is_symlink() or path.stat().st_size]
    return filled[-1] if filled else None


def eeg_sidecars(eeg: Path) -> list[Path]:
    """Every sidecar of an EEG file that is read: what its fingerprint must include."""
    tables = [path for path in (channels_path(eeg), events_path(eeg), electrodes_path(eeg)) if path is not None]
    return [*eeg_json_paths(eeg), *tables]


def marker_labels(events: Path) -> list[str]:
    """Text of each row of an events table, from the first of its columns that says something."""
    table = read_tsv(events)
    labels = [""] * len(table)
    for column in ("trial_type", "value", "stim_type", "event_type", "category"):
        if column in table:
            values = table[column].str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True).fillna("")
            labels = [label or str(value) for label, value in zip(labels, values, strict=True)]
    return labels
