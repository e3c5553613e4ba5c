"""Confound regressors of a BOLD run, whatever file they came in.

fMRIPrep's table (by the six motion parameters, or by one of nilearn's strategies), SPM's and FSL's motion files, tables
with axes of their own names, and motion parameters kept as events. All become columns with fMRIPrep's names:
translations in mm, rotations in radians.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from nilearn.interfaces.fmriprep import load_confounds_strategy
from nilearn.interfaces.fmriprep.load_confounds_utils import MissingConfoundError

from xsite.data.files import check_file, numbers, read_tsv
from xsite.errors import FormatError
from xsite.recording import Bool, Float
from xsite.signals.bold_cleaning import FD, MOTION
from xsite.site import RotationUnit

logger = logging.getLogger(__name__)

AXES = {"x": "trans_x", "y": "trans_y", "z": "trans_z", "pitch": "rot_x", "roll": "rot_y", "yaw": "rot_z"}
"""Columns of SPM-like tables with a header (ds002336): pitch turns about x, roll about y, yaw about z."""

EVENT_NAMES = re.compile(r"^motionparams_(rot|transl)([XYZ])$")
MAX_RADIANS = 0.6  # a head that turned by 34 degrees is not in the coil any more: the file counts in degrees
MAX_RATIO = 10.0  # of turns on a 50 mm sphere to shifts; radians give 0.3 to 0.8 at the sites seen, degrees 17 to 45
FMRIPREP = ("_timeseries.tsv", "_regressors.tsv")  # the latter before fMRIPrep 20.2
NILEARN = ("simple", "scrubbing", "compcor", "ica_aroma")


@dataclass(frozen=True, eq=False)
class ConfoundTable:
    """Confounds of one run.

    Parameters
    ----------
    values_VK : float array, shape (V, K), optional
        NaN allowed; None where the site gives none.
    names : tuple of str, length K
    regressors : tuple of str, optional
        Those to regress out; None leaves the choice to :func:`xsite.signals.bold_cleaning.clean_parcels`.
    valid_V : bool array, shape (V,), optional
        False for dummy and scrubbed volumes; None where all count.
    notes : tuple of str
        What was found out or repaired, in words.
    """

    values_VK: Float | None = None
    names: tuple[str, ...] = ()
    regressors: tuple[str, ...] | None = None
    valid_V: Bool | None = None
    notes: tuple[str, ...] = ()


def read_confounds(
    path: Path | None, n_volumes: int, strategy: str, *, image: Path, rotation_unit: RotationUnit | None = None
) -> ConfoundTable:
    """Read the confounds of a run.

    Parameters
    ----------
    path : Path, optional
    n_volumes : int
        Of the image: the table must have as many rows.
    strategy : str
        Of the site, see :class:`xsite.site.Site`.
    image : Path
        The BOLD image, since ICA-AROMA's strategy belongs to the image denoised by it.
    rotation_unit : {"rad", "deg"}, optional
        Of motion files that are not fMRIPrep's; ``None``: told from the size of rotations beside translations.

    Raises
    ------
    FormatError
        The table is absent, damaged, of another length, or lacks what the strategy needs.
    """
    if path is None:
        if strategy in NILEARN:
            raise FormatError(f"{image}: confounds {strategy!r} need fMRIPrep's confounds table, and there is none")
        return ConfoundTable()
    if not path.exists() and not path.is_symlink():
        raise FormatError(
            f"{path}: no such confounds table, but the image is preprocessed; copy it from fMRIPrep's output"
        )
    if strategy in NILEARN:
        return _by_strategy(path, n_volumes, strategy, image)
    table, notes = _motion_table(path)
    if len(table) != n_volumes:
        raise FormatError(f"{path}: {len(table)} rows for {n_volumes} volumes; confounds of another run?")
    known = (*MOTION, FD)
    names = tuple(name for name in known if name in table) or tuple(
        str(name) for name in table.columns if not _is_outlier(str(name))
    )
    valid_V = _steady(table, path)
    if valid_V is not None:
        notes = (*notes, f"{int((~valid_V).sum())} non-steady-state volumes are not used")
    if strategy == "none":
        names = tuple(name for name in names if name in known)
    if not names:
        return ConfoundTable(None, (), () if strategy == "none" else None, valid_V, notes)
    values_VK = numbers(table, names, path).to_numpy()
    if not path.name.endswith(FMRIPREP):  # fMRIPrep writes radians
        values_VK, notes = _in_radians(values_VK, names, notes, rotation_unit)
    return ConfoundTable(values_VK, names, () if strategy == "none" else None, valid_V, notes)


def _is_outlier(name: str) -> bool:
    return "non_steady_state_outlier" in name or "motion_outlier" in name


def _steady(table: pd.DataFrame, path: Path) -> Bool | None:
    """Volumes after the magnetisation has settled; None where the table knows no others."""
    columns = [name for name in table.columns if "non_steady_state_outlier" in str(name)]
    if not columns:
        return None
    marked_V = numbers(table, columns, path).to_numpy().sum(1) > 0
    return np.asarray(~marked_V) if marked_V.any() else None


def _motion_table(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Table with fMRIPrep's names of motion, and what was made of the file."""
    if path.name.endswith("_events.tsv"):
        return _from_events(path), ("motion parameters read from events.tsv",)
    if path.suffix in (".txt", ".par"):
        return _without_header(path)
    table = read_tsv(path)
    unnamed = [name for name in table.columns if not name or name.startswith("Unnamed")]
    table = table.drop(columns=[name for name in unnamed if table[name].isna().all()])  # a leading tab
    lower = {name: str(name).strip().lower() for name in table.columns}
    if set(AXES) <= set(lower.values()):
        renamed = table.rename(columns={name: AXES.get(word, name) for name, word in lower.items()})
        return renamed, (f"columns {', '.join(AXES)} taken for {', '.join(AXES.values())}",)
    return table, ()


def _without_header(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Six columns of numbers: SPM writes translations first, FSL's ``.par`` rotations."""
    try:
        values_V6 = np.loadtxt(check_file(path), ndmin=2)
    except ValueError as error:
        raise FormatError(f"{path}: not a table of numbers ({error})") from error
    if values_V6.shape[1] != 6:
        raise FormatError(f"{path}: {values_V6.shape[1]} columns; a motion file has 6 (3 translations, 3 rotations)")
    rotations_first = path.suffix == ".par"
    names = (*MOTION[3:], *MOTION[:3]) if rotations_first else MOTION
    note = f"no header: {'rotations' if rotations_first else 'translations'} taken to come first"
    return pd.DataFrame(values_V6, columns=list(names)), (note,)


def _from_events(path: Path) -> pd.DataFrame:
    """Motion parameters that were filed as events, one per volume and axis (ds002739)."""
    table = read_tsv(path)
    lacking = [name for name in ("onset", "trial_type", "param_value") if name not in table]
    if lacking:
        raise FormatError(f"{path}: motion parameters as events need the columns {lacking} (found {list(table)})")
    columns = {}
    for label, rows in table.groupby(table["trial_type"].str.strip()):
        if match := EVENT_NAMES.match(str(label)):
            values = numbers(rows, ["onset", "param_value"], path).sort_values("onset", kind="stable")
            columns[f"{'rot' if match[1] == 'rot' else 'trans'}_{match[2].lower()}"] = values["param_value"].to_numpy()
    lengths = {name: len(values) for name, values in columns.items()}
    if set(columns) != set(MOTION) or len(set(lengths.values())) > 1:
        raise FormatError(f"{path}: events with motion parameters of six axes and equal length expected: {lengths}")
    return pd.DataFrame({name: columns[name] for name in MOTION})


def _in_radians(
    values_VK: Float, names: tuple[str, ...], notes: tuple[str, ...], unit: RotationUnit | None
) -> tuple[Float, tuple[str, ...]]:
    turns = [place for place, name in enumerate(names) if name in MOTION[3:]]
    if not turns:
        return values_VK, notes
    why = "as the site says"
    if unit is None:
        unit, size = _guessed_unit(values_VK, names)
        why = f"the site gives no rotation_unit: guessed, {size}"
    if unit == "rad":
        return values_VK, (*notes, f"rotations taken for radians ({why})")
    values_VK = values_VK.copy()
    values_VK[:, turns] = np.deg2rad(values_VK[:, turns])
    return values_VK, (*notes, f"rotations taken for degrees and converted to radians ({why})")


def _guessed_unit(values_VK: Float, names: tuple[str, ...]) -> tuple[RotationUnit, str]:
    """Degrees where the head would have turned too far, or would turn much more than it shifts; and the reason."""
    turns, shifts = ([place for place, name in enumerate(names) if name in axes] for axes in (MOTION[3:], MOTION[:3]))
    largest = float(np.nanmax(np.abs(values_VK[:, turns]), initial=0.0))
    if largest > MAX_RADIANS:
        return "deg", f"they reach {largest:.3g}"
    steps_VK = np.abs(np.diff(values_VK, axis=0))
    turned_V, shifted_V = (steps_VK[:, some][np.isfinite(steps_VK[:, some])] for some in (turns, shifts))
    shifted = float(np.median(shifted_V)) if len(shifted_V) else 0.0
    if not len(turned_V) or not shifted > 0:
        return "rad", f"they reach {largest:.3g}"
    ratio = 50 * float(np.median(turned_V)) / shifted
    return ("deg" if ratio > MAX_RATIO else "rad"), f"on a 50 mm sphere they move {ratio:.2g} times as much as shifts"


def _by_strategy(path: Path, n_volumes: int, strategy: str, image: Path) -> ConfoundTable:
    """Nilearn's choice of columns; scrubbed and non-steady-state volumes become invalid."""
    if not path.name.endswith(FMRIPREP):
        raise FormatError(
            f"{path}: confounds {strategy!r} need fMRIPrep's own table (..._desc-confounds_timeseries.tsv); choose "
            "another strategy for this site, such as 'motion6'"
        )
    table = read_tsv(path)
    if len(table) != n_volumes:
        raise FormatError(f"{path}: {len(table)} rows for {n_volumes} volumes; confounds of another run?")
    aroma = "desc-smoothAROMAnonaggr" in image.name
    if (strategy == "ica_aroma") is not aroma:
        raise FormatError(
            f"{image}: confounds 'ica_aroma' belong to the image desc-smoothAROMAnonaggr_bold and to no other (this "
            f"site says {strategy!r}); read that image, or choose another strategy"
        )
    chosen, kept = _ask_nilearn(path, strategy, "smoothAROMAnonaggr" if aroma else "preproc")
    valid_V = None
    notes = [f"nilearn's strategy {strategy!r}: {chosen.shape[1]} regressors"]
    if kept is not None and len(kept) < n_volumes:
        valid_V = np.zeros(n_volumes, dtype=bool)
        valid_V[kept] = True
        notes.append(f"{n_volumes - len(kept)} volumes scrubbed or not in a steady state are not used")
    names = tuple(str(name) for name in chosen.columns)
    values_VK = chosen.to_numpy(dtype=float)
    if FD in table and FD not in names:
        values_VK = np.column_stack([values_VK, numbers(table, [FD], path).to_numpy()])
        return ConfoundTable(values_VK, (*names, FD), names, valid_V, tuple(notes))
    return ConfoundTable(values_VK, names, names, valid_V, tuple(notes))


def _ask_nilearn(path: Path, strategy: str, desc: str) -> tuple[pd.DataFrame, Float | None]:
    """Run nilearn on copies whose names it knows: it looks for the table by the image's name and its folder."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shutil.copyfile(path, Path(folder) / "sub-0_desc-confounds_timeseries.tsv")
        sidecar = path.with_suffix(".json")
        if sidecar.is_file():
            shutil.copyfile(sidecar, Path(folder) / "sub-0_desc-confounds_timeseries.json")
        try:
            chosen, kept = load_confounds_strategy(str(Path(folder) / f"sub-0_desc-{desc}_bold.nii.gz"), strategy)
        except (ValueError, KeyError, MissingConfoundError) as error:
            missing = getattr(error, "params", None) or getattr(error, "keywords", None) or error
            raise FormatError(
                f"{path}: confounds {strategy!r} cannot be had from this table ({missing}); choose another strategy, "
                "such as 'motion6', or run fMRIPrep anew"
            ) from error
    for warning in caught:
        logger.debug("%s: %s", path, warning.message)
    if chosen is None or (kept is not None and not len(kept)):
        raise FormatError(f"{path}: confounds {strategy!r} leave no volume; choose another strategy")
    return chosen, kept
