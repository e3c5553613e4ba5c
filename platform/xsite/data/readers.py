"""The BIDS default reader of EEG: one file with its markers."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import mne
import pandas as pd

from xsite.data.electrodes import attach_electrodes
from xsite.data.files import check_file, eeg_companions, read_json, read_tsv
from xsite.data.inheritance import channels_path, eeg_json_paths, events_path
from xsite.data.markers import add_events, marker_onsets, matching
from xsite.errors import FormatError
from xsite.site import RecordingFiles, Site

__all__ = ["EEG_READERS", "marker_onsets", "read_channels", "read_eeg"]

logger = logging.getLogger(__name__)

EEG_READERS = {
    ".vhdr": mne.io.read_raw_brainvision,
    ".edf": mne.io.read_raw_edf,
    ".bdf": mne.io.read_raw_bdf,
    ".set": mne.io.read_raw_eeglab,
}
MNE_TYPES = {
    **dict.fromkeys(("EOG", "VEOG", "HEOG"), "eog"),
    **{kind.upper(): kind for kind in ("eeg", "ecg", "emg", "gsr", "resp", "pupil", "eyegaze")},
    "EKG": "ecg",
    "TRIG": "stim",
    "TEMP": "temperature",
}
MAX_BEYOND = 2  # volume markers after the last sample; more of them mean that the file was cut off


def read_eeg(files: RecordingFiles, site: Site) -> Any:
    """Open an EEG file; markers come from the file itself, or from ``events.tsv`` where it has none of the site's.

    Returns
    -------
    mne.io.BaseRaw
        Volt, not preloaded.

    Raises
    ------
    FormatError
        The file, its companion or its sidecar is absent, a pointer, truncated, or not what its name says.
    """
    path = check_file(files.eeg)
    companions = eeg_companions(path)
    raw = _open(path)
    for sidecar in eeg_json_paths(path):
        read_json(sidecar)  # an unreadable sidecar is a damaged download, whatever it would have said
    _apply_types(raw, read_channels(path))
    attach_electrodes(raw, path)
    events = events_path(path)
    marker = site.volume_marker
    if marker is not None:
        _check_markers_inside(raw, marker, [companion for companion in companions if companion.suffix == ".vmrk"])
    wanted = marker or site.scan_marker
    if wanted is not None and len(marker_onsets(raw, wanted)) == 0 and events is not None:
        add_events(raw, events, site)
    return raw


def read_channels(path: Path) -> pd.DataFrame | None:
    """Nearest ``channels.tsv`` of an EEG file by inheritance, as text: ``name``, ``type``, ``units``, ...

    None where there is none.

    Raises
    ------
    FormatError
        It is no table, or has no column ``name``.
    """
    sidecar = channels_path(path)
    if sidecar is None:
        return None
    table = read_tsv(sidecar)
    if "name" not in table:
        raise FormatError(f"{sidecar}: no column 'name' (found {list(table.columns)})")
    return table


def _apply_types(raw: Any, table: pd.DataFrame | None) -> None:
    """Take over the table's types as the file's own claim: names and content may still overrule them.

    Units are not taken over: readers have made volts of what the header says, and a table that says otherwise would
    scale every sample by a million; the check of amplitudes tells.
    """
    if table is None or "type" not in table:
        return
    in_file = {_plain(name): name for name in raw.ch_names}
    types = {}
    for name, kind in zip(table["name"].fillna(""), table["type"].fillna("").str.strip().str.upper(), strict=True):
        if _plain(str(name)) in in_file and kind:
            types[in_file[_plain(str(name))]] = MNE_TYPES.get(kind, "misc")  # "reponse", "stimuli": not EEG, at least
    if types and "eeg" in types.values():  # a table without one EEG channel is of something else
        raw.set_channel_types(types, on_unit_change="ignore")


def _plain(name: str) -> str:
    return " ".join(name.split()).lower()  # a table writes CP5, the file CP5 and a no-break space


def _open(path: Path) -> Any:
    reader = EEG_READERS.get(path.suffix.lower())
    if reader is None:
        raise FormatError(f"{path}: no reader for {path.suffix!r}; supported: {', '.join(EEG_READERS)}")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            raw = reader(path, preload=False, verbose="warning")
    except Exception as error:  # MNE's readers raise all sorts on damaged files
        twin = path.with_suffix(".fdt")
        hint = f"its data file {twin.name} is missing; complete the download" if _lacks_fdt(path) else "fetch it again"
        raise FormatError(f"{path}: cannot be read ({type(error).__name__}: {error}); {hint}") from error
    for warning in caught:
        text = str(warning.message).strip()
        if re.search(r"umber of records|[Tt]runcat", text):
            raise FormatError(f"{path}: shorter than its own header says ({text[:200]}); fetch it again")
        logger.debug("%s: %s", path, text)
    _check_length(path, raw)
    return raw


def _lacks_fdt(path: Path) -> bool:
    return path.suffix == ".set" and not path.with_suffix(".fdt").exists()


def _check_length(path: Path, raw: Any) -> None:
    for name in filter(None, raw.filenames):
        data = Path(name)
        wanted = 4 * len(raw.ch_names) * raw.n_times
        if data.suffix == ".fdt" and data.stat().st_size != wanted:
            raise FormatError(
                f"{data}: {data.stat().st_size} bytes, {path.name} announces {wanted} "
                f"({len(raw.ch_names)} channels x {raw.n_times} samples of 4 bytes): truncated; fetch it again"
            )


def _check_markers_inside(raw: Any, marker: str, marker_files: list[Path]) -> None:
    """MNE drops markers after the last sample without an error: many of them mean that samples are missing."""
    for path in marker_files:
        n_written = int(matching(mne.read_annotations(path, sfreq=raw.info["sfreq"]), marker).sum())
        n_inside = int(matching(raw.annotations, marker).sum())
        if n_written - n_inside > MAX_BEYOND:
            raise FormatError(
                f"{path}: {n_written - n_inside} of {n_written} volume markers lie after the last sample "
                f"({raw.n_times / raw.info['sfreq']:.1f} s): the data file is truncated; fetch it again"
            )
