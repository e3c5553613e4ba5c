"""BIDS default readers: one EEG file with its markers, one BOLD image with its sidecars and confounds."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import mne
import nibabel as nib
import numpy as np

from xsite.data.files import check_file, eeg_companions, numbers, read_json, read_tsv
from xsite.errors import FormatError, SiteError
from xsite.recording import Bool, Float, RecordingKey
from xsite.site import BoldRun, RecordingFiles, Site

logger = logging.getLogger(__name__)

EEG_READERS = {
    ".vhdr": mne.io.read_raw_brainvision,
    ".edf": mne.io.read_raw_edf,
    ".bdf": mne.io.read_raw_bdf,
    ".set": mne.io.read_raw_eeglab,
}
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "framewise_displacement")
T_R_TOLERANCE = 0.005
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
    stem = path.name.removesuffix(path.suffix).removesuffix("_eeg")
    sidecar, events = path.with_name(f"{stem}_eeg.json"), path.with_name(f"{stem}_events.tsv")
    if sidecar.exists() or sidecar.is_symlink():
        read_json(sidecar)  # an unreadable sidecar is a damaged download, whatever it would have said
    marker = site.volume_marker
    if marker is not None:
        _check_markers_inside(raw, marker, [companion for companion in companions if companion.suffix == ".vmrk"])
    if marker is not None and len(marker_onsets(raw, marker)) == 0 and events.exists():
        _add_events(raw, events)
    return raw


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
        n_written = int(_matching(mne.read_annotations(path, sfreq=raw.info["sfreq"]), marker).sum())
        n_inside = int(_matching(raw.annotations, marker).sum())
        if n_written - n_inside > MAX_BEYOND:
            raise FormatError(
                f"{path}: {n_written - n_inside} of {n_written} volume markers lie after the last sample "
                f"({raw.n_times / raw.info['sfreq']:.1f} s): the data file is truncated; fetch it again"
            )


def _add_events(raw: Any, path: Path) -> None:
    table = read_tsv(path)
    if "onset" not in table:
        raise FormatError(f"{path}: no column 'onset' (found {list(table.columns)})")
    onset = numbers(table, ["onset"], path)["onset"].to_numpy()
    label = np.full(len(table), "", dtype=object)
    for column in ("trial_type", "value", "stim_type", "category"):
        if column in table:
            values = table[column].str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True).fillna("")
            label = np.where(label == "", values.to_numpy(dtype=object), label)
    use = np.isfinite(onset) & (label != "") & (onset >= 0) & (onset <= raw.times[-1])
    raw.annotations.append(onset[use], np.zeros(int(use.sum())), label[use].astype(str))


def marker_onsets(raw: Any, marker: str) -> Float:
    """Onsets in seconds from the first sample of the annotations that match ``marker``.

    ``Response/R128`` and ``R128`` match each other; runs of blanks count as one.
    """
    onsets: Float = np.asarray(raw.annotations.onset[_matching(raw.annotations, marker)], dtype=float)
    return onsets - float(raw.first_time)


def _matching(annotations: Any, marker: str) -> Bool:
    wanted = " ".join(marker.split())
    return np.array([_same(" ".join(str(name).split()), wanted) for name in annotations.description], dtype=bool)


def _same(found: str, wanted: str) -> bool:
    if "/" in found and "/" in wanted:
        return found == wanted
    return found.rpartition("/")[2] == wanted.rpartition("/")[2]


def read_bold(files: RecordingFiles, site: Site) -> BoldRun:
    """Open a BOLD image with its sidecars and confounds.

    Raises
    ------
    FormatError
        The image or a sidecar is absent, a pointer, damaged, or not 4D; confounds of another length.
    SiteError
        Its repetition time contradicts the site's.
    """
    path = check_file(files.bold)
    try:
        image: Any = nib.load(path)
    except Exception as error:  # nibabel raises all sorts on damaged files
        raise FormatError(f"{path}: not a readable NIfTI image ({error}); fetch it again") from error
    if len(image.shape) != 4:
        raise FormatError(f"{path}: {len(image.shape)}D image of shape {image.shape}; a BOLD run has 4 dimensions")
    facts = _sidecar_facts(path, files.key)
    t_r = _repetition_time(path, image, facts, site)
    if facts.get("SliceTimingCorrected") and "StartTime" not in facts:
        logger.warning("%s: slice timing was corrected but StartTime is not given; 0 s is taken", path)
    names, confounds_VK = _confounds(files.confounds, image.shape[3])
    return BoldRun(
        t_r=t_r,
        image=image,
        confounds_VK=confounds_VK,
        confound_names=names,
        start_time=float(facts.get("StartTime") or 0.0),
    )


def _sidecar_facts(path: Path, key: RecordingKey) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for sidecar in sidecar_paths(path, key):
        facts |= read_json(sidecar)
    return facts


def sidecar_paths(path: Path, key: RecordingKey) -> list[Path]:
    """Sidecars of an image or parcel table by BIDS inheritance, the nearest last: task-wide, then beside the image."""
    own = re.sub(r"(\.nii(\.gz)?|\.[A-Za-z]+)$", ".json", path.name)
    names = ("bold.json", f"task-{key.task}_bold.json", f"{key.entities}_bold.json", own)
    folders = reversed([path.parent, *list(path.parents)[1:4]])
    found = [folder / name for folder in folders for name in dict.fromkeys(names)]
    return [sidecar for sidecar in found if sidecar.is_file() or sidecar.is_symlink()]


def _repetition_time(path: Path, image: Any, facts: dict[str, Any], site: Site) -> float:
    t_r = facts.get("RepetitionTime")
    if t_r is None:
        unit = image.header.get_xyzt_units()[1]
        t_r = float(image.header.get_zooms()[3]) * {"msec": 1e-3, "usec": 1e-6}.get(unit, 1.0)
    if not isinstance(t_r, int | float) or t_r <= 0:
        return site.t_r  # the file does not know it
    if abs(t_r / site.t_r - 1) > T_R_TOLERANCE:
        raise SiteError(
            f"{path}: repetition time {t_r:g} s, but site {site.name!r} says {site.t_r:g} s; correct t_r of the site "
            "(seconds, not milliseconds), or make a site of its own for these runs"
        )
    return float(t_r)


def _confounds(path: Path | None, n_volumes: int) -> tuple[tuple[str, ...], Float | None]:
    """Motion and framewise displacement where the table names them, else all its columns."""
    if path is None:
        return (), None
    if not path.exists() and not path.is_symlink():
        raise FormatError(
            f"{path}: no such confounds table, but the image is preprocessed; copy it from fMRIPrep's output"
        )
    table = read_tsv(path)
    if len(table) != n_volumes:
        raise FormatError(f"{path}: {len(table)} rows for {n_volumes} volumes; confounds of another run?")
    names = tuple(name for name in MOTION if name in table) or tuple(table.columns)
    return names, numbers(table, names, path).to_numpy()
