"""The BIDS default reader of BOLD: raw images and fMRIPrep's, with sidecars that cannot be trusted blindly."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from xsite.data.confounds import read_confounds
from xsite.data.files import check_file, read_json
from xsite.data.spaces import affine_to_template, find_transforms, image_space
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.site import BoldRun, RecordingFiles, Site

logger = logging.getLogger(__name__)

T_R_TOLERANCE = 0.005
ROUNDING = 1e-6  # of a repetition time: what float32 in a NIfTI header makes of 2.1 (2.0999999)
HEADER_UNITS = {"msec": 1e-3, "usec": 1e-6}

MAKERS = re.compile(r"siemens|philips|\bge\b|general electric|canon|toshiba|hitachi|united imaging|bruker|simulated")


def read_bold(files: RecordingFiles, site: Site) -> BoldRun:
    """Open a BOLD image with its sidecars and confounds.

    Raises
    ------
    FormatError
        The image or a sidecar is absent, a pointer, damaged, or not 4D; it is in another space than a template; its
        confounds have another length or lack what the site's strategy needs.
    SiteError
        Its repetition time contradicts the site's.
    """
    path = check_file(files.bold)
    image = _open(path)
    sidecar = sidecar_facts(path, files.key)
    space, transforms = image_space(path, site.bold_space, _codes(image))
    if transforms:
        image = _moved(path, transforms)
    t_r, notes = _repetition_time(path, image, sidecar, site)
    slices = slice_timing(sidecar, t_r)
    start_time, origin = _start_time(sidecar, t_r, slices)
    discarded = _discarded(sidecar)
    n_volumes = int(image.shape[3])
    table = read_confounds(files.confounds, n_volumes, site.confounds, image=path, rotation_unit=site.rotation_unit)
    facts = {
        "space": space,
        "transforms": [link.name for link in transforms],
        "confounds": site.confounds,
        "start_time_from": origin,
        "slices": slices,
        "discarded_before_first": discarded,
        "manufacturer": _maker(str(sidecar.get("Manufacturer") or "")),
        "field_strength": _number(sidecar.get("MagneticFieldStrength")),
        "notes": [*notes, *table.notes],
    }
    return BoldRun(
        t_r=t_r,
        image=image,
        confounds_VK=table.values_VK,
        confound_names=table.names,
        start_time=start_time,
        regressors=table.regressors,
        volume_valid_V=table.valid_V,
        discarded=discarded,
        facts=facts,
    )


def bold_companions(files: RecordingFiles) -> list[Path]:
    """Files beside image, sidecars and confounds that a recording is made from: transforms, the confounds' sidecar."""
    found = [] if re.search(r"\.nii(\.gz)?$", files.bold.name) is None else find_transforms(files.bold)
    if files.confounds is not None and files.confounds.with_suffix(".json").is_file():
        found.append(files.confounds.with_suffix(".json"))
    return found


def _open(path: Path, **options: Any) -> Any:
    try:
        image: Any = nib.load(path, **options)
    except Exception as error:  # nibabel raises all sorts on damaged files
        raise FormatError(f"{path}: not a readable NIfTI image ({error}); fetch it again") from error
    if len(image.shape) != 4:
        raise FormatError(f"{path}: {len(image.shape)}D image of shape {image.shape}; a BOLD run has 4 dimensions")
    return image


def _codes(image: Any) -> set[int]:
    header = image.header
    return {int(header[name]) for name in ("sform_code", "qform_code") if name in header.keys()}  # noqa: SIM118


def _moved(path: Path, transforms: list[Path]) -> Any:
    """The image with its affine in template millimetres; the voxels stay on disk, in a file that is kept open."""
    image = _open(path, keep_file_open=True)
    return image.__class__(image.dataobj, affine_to_template(transforms) @ image.affine, image.header)


def sidecar_facts(path: Path, key: RecordingKey) -> dict[str, Any]:
    """Content of all sidecars of an image, the nearest one having the last word."""
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


def _maker(words: str) -> str:
    """Scanner maker by one known word; anything else a sidecar says there stays out of the store."""
    found = MAKERS.search(words.lower())
    return "ge" if found and found[0].startswith("ge") else found[0] if found else ""


def _number(value: Any) -> float | None:
    """A sidecar's number; sentinels for unknown (``n/a``, -1, ``[]``, absent) and text are None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def _repetition_time(path: Path, image: Any, facts: Mapping[str, Any], site: Site) -> tuple[float, list[str]]:
    """Repetition time in seconds from the sidecar, the header or the site, in this order, and what was repaired."""
    header = float(image.header.get_zooms()[3]) * HEADER_UNITS.get(image.header.get_xyzt_units()[1], 1.0)
    source, found = "sidecar", _number(facts.get("RepetitionTime"))
    if not found:
        source, found = "header", _number(header)
    if not found:
        return site.t_r, ["repetition time is neither in the sidecar nor in the header: the site's is taken"]
    if abs(found / site.t_r - 1) <= ROUNDING:
        return site.t_r, []
    for scale, note in ((1.0, ""), (1e-3, "milliseconds marked as seconds"), (1e3, "seconds marked as milliseconds")):
        if abs(found * scale / site.t_r - 1) <= T_R_TOLERANCE:
            return found * scale, [f"repetition time {found:g} in the {source}: {note}"] * bool(note)
    raise SiteError(
        f"{path}: repetition time {found:g} s, but site {site.name!r} says {site.t_r:g} s; correct t_r of the site "
        "(seconds, not milliseconds), or make a site of its own for these runs"
    )


def slice_timing(facts: Mapping[str, Any], t_r: float) -> dict[str, Any]:
    """What ``SliceTiming`` says; empty where it is absent, a scalar, not numbers, or beyond the repetition time.

    Returns
    -------
    dict
        ``first_s``, ``last_s``, ``n_slices``, ``multiband`` (slices at once), ``order`` (``ascending``, ``descending``,
        ``interleaved``).
    """
    listed = facts.get("SliceTiming")
    times = [_number(value) for value in listed] if isinstance(listed, list) else []
    if len(times) < 2 or any(value is None for value in times):
        return {}
    times_S = np.array(times, dtype=float)
    if 0.25 * t_r < times_S.max() / 1000 <= t_r:
        times_S = times_S / 1000  # milliseconds
    if times_S.max() > t_r or times_S.max() == 0:
        return {}
    shots = np.unique(times_S.round(4))
    steps = np.diff(times_S[: len(shots)])
    order = "ascending" if (steps > 0).all() else "descending" if (steps < 0).all() else "interleaved"
    return {
        "n_slices": len(times_S),
        "first_s": float(times_S.min()),
        "last_s": float(times_S.max()),
        "multiband": max(1, round(len(times_S) / len(shots))),
        "order": order,
    }


def _start_time(facts: Mapping[str, Any], t_r: float, slices: Mapping[str, Any]) -> tuple[float, str]:
    """Seconds from the volume trigger to the moment that the volume stands for, and how this is known.

    fMRIPrep corrects to the middle of the acquisition unless told otherwise, and older versions do not say so.
    """
    given = _number(facts.get("StartTime"))
    if given is not None and given <= t_r:
        return given, "StartTime"
    if given is not None and given / 1000 <= t_r:
        return given / 1000, "StartTime, milliseconds marked as seconds"
    if facts.get("SliceTimingCorrected") is True:
        if slices:
            return (slices["first_s"] + slices["last_s"]) / 2, "slice timing corrected: the middle of the slice times"
        return t_r / 2, "slice timing corrected, reference not given: fMRIPrep's default, the middle of the volume"
    return 0.0, "slice timing not corrected: the volume trigger"


def _discarded(facts: Mapping[str, Any]) -> int:
    """Volumes before the first of the image; the keys are read in any case (ds005127 writes ...ofvolumes...)."""
    lower = {str(name).lower(): value for name, value in facts.items()}
    counts = [_number(lower.get(f"numberofvolumesdiscardedby{who}")) for who in ("scanner", "user")]
    return round(sum(count for count in counts if count))
