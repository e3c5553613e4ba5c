"""Vanderbilt resting state ("VU"): the data published with NeuroBOLT, as users download them.

Hugging Face ``NeurdyLab/NeuroBOLT``: ``EEG_set/subNN-scanMM_eeg.{set,fdt}`` and
``fMRI_difumo64/subNN-scanMM_difumo64_roi.pkl`` (also found as ``EEG/`` and ``fMRI_difumo/``). 22 subjects, 29 scans of
575 volumes (TR 2.1 s), eyes closed, 3 T Philips; EEG is gradient- and pulse-corrected and stands at 250 Hz; parcels are
published as z-scored DiFuMo-64 series, motion regressed. The first 8 volumes lack a 16 s window: 567 samples per scan.

Li et al., NeuroBOLT, NeurIPS 2024, arXiv 2410.05341.
"""

from __future__ import annotations

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsite.data.files import check_file
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.site import BoldRun, Expected, RecordingFiles, Site

logger = logging.getLogger(__name__)

_CH_NAMES = "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fpz Fz Cz Pz POz Oz FT9 FT10 TP9 TP10"
CH_NAMES = tuple(_CH_NAMES.split())
N_VOLUMES, N_PARCELS = 575, 64
N_SAMPLES = 567
GLOBAL_SIGNAL = "global signal clean"
GLOBAL_COLUMNS = (GLOBAL_SIGNAL, "global signal raw")
SCAN = re.compile(r"^(sub(\d+)-scan(\d+))_")
EEG_FOLDERS = ("EEG_set", "EEG")
BOLD_FOLDERS = ("fMRI_difumo64", "fMRI_difumo")

# the official inter-subject fold, public since 2026-07-10 (soupeeli/NeuroBOLT#7); both scans of a subject share a set
VAL_SCANS = ("sub06-scan01", "sub13-scan01", "sub13-scan02", "sub15-scan01", "sub22-scan01")
TEST_SCANS = ("sub07-scan01", "sub07-scan02", "sub11-scan01", "sub16-scan01", "sub18-scan01", "sub21-scan01")
_TRAIN = "0101 0201 0302 0401 0501 0801 0802 0901 0902 1002 1201 1202 1401 1402 1702 1902 2001 2002"  # subject, scan
TRAIN_SCANS = tuple(f"sub{scan[:2]}-scan{scan[2:]}" for scan in _TRAIN.split())
OFFICIAL_SPLIT = {"train": TRAIN_SCANS, "val": VAL_SCANS, "test": TEST_SCANS}


def scan_key(scan: str) -> RecordingKey:
    """Key of a scan by its published name, such as ``sub07-scan02``."""
    found = SCAN.match(f"{scan}_")
    if found is None:
        raise SiteError(f"{scan!r}: scans are named like sub07-scan02")
    return RecordingKey("vanderbilt", found[2], task="rest", run=found[3])


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """EEG files and parcel tables with the same scan name; a file without its partner is logged and left out.

    Raises
    ------
    SiteError
        The release's folders are absent, or hold not one pair.
    """
    eeg = _scans(Path(root), EEG_FOLDERS, "_eeg.set")
    bold = _scans(Path(root), BOLD_FOLDERS, "_roi.pkl")
    for scan in sorted(eeg.keys() ^ bold.keys()):
        logger.warning("%s: left out: %s is missing", scan, "parcel table" if scan in eeg else "EEG")
    both = sorted(eeg.keys() & bold.keys())
    if not both:
        raise SiteError(
            f"{root}: no scan with EEG and parcel table; expected {EEG_FOLDERS[0]}/sub01-scan01_eeg.set and "
            f"{BOLD_FOLDERS[0]}/sub01-scan01_difumo64_roi.pkl (found {len(eeg)} EEG files, {len(bold)} tables)"
        )
    if len(both) != site.expected.recordings:
        logger.warning("%s: %d scans under %s, expected %s", site.name, len(both), root, site.expected.recordings)
    return [RecordingFiles(scan_key(scan), eeg[scan], bold[scan]) for scan in both]


def _scans(root: Path, folders: tuple[str, ...], ending: str) -> dict[str, Path]:
    found = [path for folder in folders for path in sorted((root / folder).glob(f"sub*{ending}"))]
    return {match[1]: path for path in reversed(found) if (match := SCAN.match(path.name))}


def read_bold(files: RecordingFiles, site: Site) -> BoldRun:
    """Read one pickled 575 x 66 table without executing anything it asks for.

    Raises
    ------
    FormatError
        Not the published table: another shape, other columns, or a pickle that names other classes.
    """
    table_VR, columns = read_table(files.bold)
    if table_VR.shape != (N_VOLUMES, N_PARCELS + len(GLOBAL_COLUMNS)) or not set(GLOBAL_COLUMNS) <= set(columns):
        raise FormatError(
            f"{files.bold}: table of {table_VR.shape[0]} x {table_VR.shape[1]}, expected {N_VOLUMES} volumes x "
            f"{N_PARCELS} parcels and the columns {', '.join(GLOBAL_COLUMNS)}; download it again"
        )
    parcels = [place for place, name in enumerate(columns) if name not in GLOBAL_COLUMNS]
    return BoldRun(
        t_r=site.t_r,
        series_VR=table_VR[:, parcels],
        labels=tuple(columns[place] for place in parcels),
        global_signal_V=table_VR[:, columns.index(GLOBAL_SIGNAL)],
        units="z",
    )


def read_table(path: Path) -> tuple[NDArray[np.float32], list[str]]:
    """Read a pickled pandas DataFrame of floats as an array and its column names, whatever pandas wrote it.

    Raises
    ------
    FormatError
        The pickle names anything beyond arrays and the parts of a DataFrame, or is damaged.
    """
    with check_file(path).open("rb") as file:
        try:
            frame = _TableUnpickler(file).load()
        except _RefusedError as error:
            raise FormatError(f"{path}: refused: {error}") from error
        except Exception as error:  # a damaged pickle raises all sorts
            raise FormatError(f"{path}: damaged pickle ({type(error).__name__}: {error}); download it again") from error
    if not isinstance(frame, _Frame):
        raise FormatError(f"{path}: holds a {type(frame).__name__}, expected a table")
    try:
        return _as_array(frame.state["_mgr"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise FormatError(f"{path}: not a table of numbers ({error}); download it again") from error


# What the pickles may name, rebuilt without pandas: its private classes change with every version, and an object that
# only keeps what it is given can do no harm.
class _Frame:
    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state


class _Manager:
    def __init__(self, blocks: tuple[Any, ...], axes: list[Any]) -> None:
        self.blocks, self.axes = blocks, axes


class _IndexKind:
    """Stands for pandas' index classes, which the pickles only name."""


def _block(values: Any, placement: Any, ndim: int) -> tuple[Any, Any]:
    return values, placement


def _index(kind: type, parts: dict[str, Any]) -> dict[str, Any]:
    return parts


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


# exactly what the 29 published tables name, then the same classes as pandas 3 calls them
_ALLOWED: dict[tuple[str, str], Any] = {
    ("builtins", "slice"): slice,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("pandas._libs.internals", "_unpickle_block"): _block,
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.indexes.base", "Index"): _IndexKind,
    ("pandas.core.indexes.base", "_new_Index"): _index,
    ("pandas.core.indexes.range", "RangeIndex"): _IndexKind,
    ("pandas.core.internals.managers", "BlockManager"): _Manager,
    ("pandas", "DataFrame"): _Frame,
    ("pandas", "Index"): _IndexKind,
    ("pandas", "RangeIndex"): _IndexKind,
}


class _RefusedError(Exception):
    """The pickle names what no table needs."""


class _TableUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        key = (re.sub(r"^numpy\.core\b", "numpy._core", module), name)
        if key not in _ALLOWED:
            raise _RefusedError(
                f"the file asks for {module}.{name}, which a table of numbers does not need; nothing was run. "
                "Use only the published files"
            )
        return _ALLOWED[key]


def _as_array(manager: _Manager) -> tuple[NDArray[np.float32], list[str]]:
    columns = [str(name) for name in manager.axes[0]["data"]]
    blocks_RV = np.full((len(columns), np.shape(manager.blocks[0][0])[1]), np.nan, np.float32)
    for values, placement in manager.blocks:
        blocks_RV[placement] = np.asarray(values, dtype=np.float32)
    return np.ascontiguousarray(blocks_RV.T), columns


SITE = Site(
    name="vanderbilt",
    sfreq=250.0,
    t_r=2.1,
    line_freq=60.0,
    volume_marker="R149",
    ch_names=CH_NAMES,
    ch_types={
        **dict.fromkeys(("EOG1", "EOG2"), "eog"),
        **dict.fromkeys(("EMG1", "EMG2", "EMG3"), "emg"),
        **dict.fromkeys(("CWL1", "CWL2", "CWL3", "CWL4"), "misc"),
        "ECG": "ecg",
    },
    eeg_state="clean",
    reference="FCz",
    decoys=("R", "R 21", "Sync On", "boundary"),
    manufacturer="Philips",  # parcel tables have no sidecars
    field_strength=3.0,
    population="healthy",
    doi="10.48550/arXiv.2410.05341",
    license="CC-BY-4.0",
    expected=Expected(subjects=22, recordings=29),
    find_recordings=find_recordings,
    read_bold=read_bold,
)
