"""Confidence in perceptual decisions (Glasgow): 24 subjects, two runs. OpenNeuro ds002739, CC0.

Download (46 GB)::

    openneuro-py download --dataset=ds002739 --target-dir=ds002739
    datalad install https://github.com/OpenNeuroDatasets/ds002739.git    # then: datalad get sub-*

doi:10.18112/openneuro.ds002739.v1.0.0

**Refused for training**: the matrix ``EEGdata`` has no channel names. It is read and aligned under the names ``el01``,
``el02``, ...: channels that the authors excluded are left out of the matrix and listed in ``excludedchannels``, so the
number in a name is that of the electrode, not of the row (:func:`electrode_numbers`).

EEG lies in ``sub-XX/EEG`` (outside BIDS, hidden by ``.bidsignore``), corrected by the authors, without markers. Times
of trials are in ms in ``EEG_events_*.mat`` and in seconds from the first volume in ``func/*_events.tsv``; the same
trials in both give the first volume on the EEG's clock (:func:`first_volume`).

The published images are preprocessed and smoothed, without the first 10 and the last 13 volumes (771 are left); which
space they are in is not stated: unless the header says MNI, run fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into
``derivatives/fmriprep``. Head motion stands in the rows ``motionparams_*`` of ``events.tsv``: it is taken from there,
since these images do not move any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mne
import numpy as np
from scipy.io import savemat

from site_adapters.caps import BC64, eeg_only
from site_adapters.matlab import load_mat, the_matrix
from xsite.data.bids import pair_files, recordings_of
from xsite.data.bids import read_bold as read_bids_bold
from xsite.data.files import numbers, read_tsv
from xsite.errors import FormatError
from xsite.phantom.like import LikeRun, LikeSite
from xsite.phantom.like.sidecars import manifest, real_first
from xsite.phantom.write import write_table
from xsite.recording import RecordingKey
from xsite.site import BoldRun, Expected, RecordingFiles, Site

MAX_ELECTRODES = 128
N_FIRST, N_LAST = 10, 13
"""Volumes that the authors left out of the images."""
STIMULUS = "dot_stim_validtrials"
FIRST_VOLUME = "first volume"
DIGITS = 5
"""Significant digits of the onsets in ``events.tsv``: later ones are coarser."""
MAX_OFF_S = 0.1


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """Matrices of ``EEG/`` and images of ``func/``, with the events table as confounds and the EEG's events.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    root = Path(root)
    matrices = [path for path in sorted(root.glob("sub-*/EEG/EEG_data_sub-*.mat")) if not path.name.startswith(".")]
    found = recordings_of(pair_files(root, site, eeg_files=matrices), root, site)
    return [replace(files, confounds=events_table(files), others=(eeg_events(files),)) for files in found]


def events_table(files: RecordingFiles) -> Path:
    """``func/*_events.tsv`` of a recording: trials in scan time, and head motion."""
    return files.eeg.parents[1] / "func" / f"{files.key.entities}_events.tsv"


def eeg_events(files: RecordingFiles) -> Path:
    """``EEG_events_*.mat`` of a recording: trials on the EEG's clock."""
    return files.eeg.with_name(files.eeg.name.replace("EEG_data", "EEG_events"))


def electrode_names(numbers_C: Sequence[int]) -> list[str]:
    """Names of electrodes of which only the number is known."""
    return [f"el{number:02d}" for number in numbers_C]


def electrode_numbers(n_rows: int, excluded: Any, source: str) -> list[int]:
    """Number of the electrode of each row, counted from 1.

    Parameters
    ----------
    n_rows : int
        Rows of the matrix, from which excluded channels are missing.
    excluded : array of int
        Their numbers, or a mask of 0 and 1 over all electrodes.
    source : str
        File name for messages.

    Raises
    ------
    FormatError
        Numbers that no electrode can have, or that stand twice.

    Examples
    --------
    >>> electrode_numbers(3, [2, 4], "x.mat"), electrode_numbers(3, [0, 1, 0, 1, 0], "x.mat")
    ([1, 3, 5], [1, 3, 5])
    """
    listed = [int(value) for value in np.atleast_1d(np.asarray(excluded, dtype=float)).ravel()]
    if len(listed) == n_rows + sum(listed) and set(listed) <= {0, 1} and 0 in listed:
        listed = [number for number, out in enumerate(listed, start=1) if out]
    total = n_rows + len(listed)
    if len(set(listed)) < len(listed) or any(not 1 <= number <= total for number in listed):
        raise FormatError(
            f"{source}: excludedchannels {listed} beside {n_rows} rows: expected different numbers from 1 to {total}"
        )
    return [number for number in range(1, total + 1) if number not in listed]


def first_volume(trials_ms: Any, onsets_s: Any, source: str) -> float:
    """Seconds from the first EEG sample to the first volume, from the same trials on both clocks.

    Each pair weighs as much as its onset in ``events.tsv`` has decimals.

    Raises
    ------
    FormatError
        Other numbers of trials, or times that do not fit each other.
    """
    trials = np.atleast_1d(np.asarray(trials_ms, dtype=float)) / 1e3
    onsets = np.atleast_1d(np.asarray(onsets_s, dtype=float))
    if len(trials) != len(onsets) or not len(trials):
        raise FormatError(f"{source}: {len(trials)} trials in the EEG's events, {len(onsets)} {STIMULUS} in events.tsv")
    resolution = 10.0 ** (np.floor(np.log10(np.maximum(onsets, 1e-3))) + 1 - DIGITS)
    start = float(np.average(trials - onsets, weights=resolution**-2.0))
    off = float(np.abs(trials - onsets - start).max())
    if off > MAX_OFF_S:
        raise FormatError(
            f"{source}: trials of EEG and scan do not fit each other (off by up to {off:.3f} s after a shift of "
            f"{start:.3f} s); expected milliseconds in the EEG's events and seconds in events.tsv, of one run"
        )
    return start


def read_eeg(files: RecordingFiles, site: Site) -> Any:
    """Matrix in volt, with one marker where the first volume of the image begins.

    Raises
    ------
    FormatError
        A file is absent, damaged, or does not fit the others.
    """
    content = load_mat(files.eeg)
    samples_CN = the_matrix(files.eeg, variable="EEGdata") * 1e-6
    names = electrode_names(electrode_numbers(len(samples_CN), content.get("excludedchannels", []), str(files.eeg)))
    events = eeg_events(files)
    path = events_table(files)
    table = read_tsv(path)
    onsets = numbers(table[table["trial_type"] == STIMULUS], ["onset"], path)["onset"].to_numpy()
    start = first_volume(field_of(load_mat(events), "tstim", events), onsets, str(events))
    raw = mne.io.RawArray(samples_CN, mne.create_info(names, site.sfreq, "eeg"), verbose="error")
    return raw.set_annotations(mne.Annotations([start], [0.0], [FIRST_VOLUME]))


def field_of(content: dict[str, Any], name: str, path: Path) -> Any:
    """Return a variable, or the field of that name of a structure.

    Raises
    ------
    FormatError
        There is none; the message lists the variables.
    """
    for value in (content.get(name), *(getattr(value, name, None) for value in content.values())):
        if value is not None:
            return value
    raise FormatError(f"{path}: no {name!r} among its variables {sorted(content)} and their fields")


def read_bold(files: RecordingFiles, site: Site) -> BoldRun:
    """Default reader, with what the authors left out of the image.

    Raises
    ------
    FormatError, SiteError
        As :func:`xsite.data.bids.read_bold`.
    """
    run = read_bids_bold(files, site)
    facts = {**run.facts, "discarded_before_first": N_FIRST, "discarded_after_last": N_LAST}
    return replace(run, discarded=N_FIRST, facts=facts)


SITE = Site(
    name="ds002739",
    sfreq=1000.0,
    t_r=2.0,
    line_freq=50.0,
    volume_marker=None,
    scan_marker=FIRST_VOLUME,
    scan_start=0.0,
    ch_types=dict.fromkeys(electrode_names(range(1, MAX_ELECTRODES + 1)), "eeg"),
    eeg_state="clean",
    reference="n/s",
    tasks=("main",),
    task_pairs={"": "main"},
    rotation_unit="rad",
    unusable="the published EEG has no channel names, and excluded channels are left out of the matrix",
    doi="10.18112/openneuro.ds002739.v1.0.0",
    license="CC0-1.0",
    note="microvolt, the space of the images and that tstim is in ms from the first EEG sample are inferred; the "
    "number of electrodes is not known (about 64 by file size); the change log speaks of an electrode file in "
    "additional_files, which is not in this data set",
    expected=Expected(subjects=24, recordings=48),
    find_recordings=find_recordings,
    read_eeg=read_eeg,
    read_bold=read_bold,
)

N_VOLUMES = 771
EXCLUDED = (5, 33)
NUMBERS = tuple(number for number in range(1, 64) if number not in EXCLUDED)
MOTION = tuple(f"motionparams_{kind}{axis}" for kind in ("rot", "transl") for axis in "XYZ")


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the list of files, or two of one subject from the facts."""
    if sidecars is None:
        return [_run("01", run, None) for run in ("01", "02")]
    labels = {path[4:6] for path in manifest(sidecars) if path.startswith("sub-")}
    return [_run(label, run, sidecars) for label in real_first(labels, sidecars) for run in ("01", "02")]


def _run(subject: str, run: str, sidecars: Path | None) -> LikeRun:
    key = RecordingKey("ds002739", subject, task="main", run=run)
    table = Path() if sidecars is None else sidecars / f"sub-{subject}/func/{key.entities}_events.tsv"
    onsets = [5.2584 + 8.9 * k for k in range(160)]
    if table.is_file():
        rows = read_tsv(table)
        onsets = [float(value) for value in rows["onset"][rows["trial_type"] == STIMULUS]]
    return LikeRun(
        key,
        eeg=f"sub-{subject}/EEG/EEG_data_sub-{subject}_run-{run}.mat",
        bold=f"sub-{subject}/func/{key.entities}_bold.nii.gz",
        n_volumes=N_VOLUMES,
        lead_s=2.0 * N_FIRST + 3.217,
        tail_s=2.0 * N_LAST,
        protocol=((0.0, FIRST_VOLUME), *((onset, STIMULUS) for onset in onsets)),
        verdicts=("unverified",),
    )


def write_mat(path: Path, signal: Any) -> None:
    """Matrix and trials on the EEG's clock, and the events table cut to the volumes that are written."""
    samples_CN = signal.matrix()
    savemat(path, {"EEGdata": samples_CN, "fs": 1000.0, "excludedchannels": np.array(EXCLUDED)}, appendmat=False)
    start = next(onset for onset, text in signal.markers if text == FIRST_VOLUME)
    scan_s = signal.n_samples / signal.sfreq - start - 2.0 * N_LAST
    n_volumes = round(scan_s / SITE.t_r)
    run = path.stem.removeprefix("EEG_data_").replace("_run", "_task-main_run")
    table = path.parents[1] / "func" / f"{run}_events.tsv"
    rows = _real_rows(table, n_volumes * SITE.t_r) if table.is_file() else _rows(n_volumes)
    stimuli = [float(onset) for onset, kind in zip(rows["onset"], rows["trial_type"], strict=True) if kind == STIMULUS]
    table.parent.mkdir(parents=True, exist_ok=True)
    write_table(table, rows)
    trials_ms = 1e3 * (start + np.array(stimuli))
    savemat(path.with_name(path.name.replace("_data_", "_events_")), {"tstim": trials_ms}, appendmat=False)


def _real_rows(table: Path, scan_s: float) -> dict[str, list[str]]:
    rows = read_tsv(table)
    rows = rows[numbers(rows, ["onset"], table)["onset"] < scan_s].fillna("n/a")
    return {str(column): [str(value) for value in rows[column]] for column in rows.columns}


def _rows(n_volumes: int) -> dict[str, list[str]]:
    """Trials and six rows of head motion per volume, as the site writes them."""
    trials = [f"{5.2584 + 8.9 * k:.5g}" for k in range(int((n_volumes * SITE.t_r - 5.3) / 8.9) + 1)]
    still = [
        (f"{SITE.t_r * v:g}", f"{1e-3 * np.sin(v + k):.5g}", name)
        for k, name in enumerate(MOTION)
        for v in range(n_volumes)
    ]
    return {
        "onset": [*trials, *(onset for onset, _, _ in still)],
        "duration": ["0.85"] * len(trials) + ["n/a"] * len(still),
        "param_value": ["n/a"] * len(trials) + [value for _, value, _ in still],
        "trial_type": [STIMULUS] * len(trials) + [name for _, _, name in still],
    }


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=tuple(electrode_names(NUMBERS)),
    electrodes=dict(zip(electrode_names(range(1, 64)), eeg_only(BC64), strict=True)),
    eeg_format="mat",
    write_eeg=write_mat,
    eeg_sidecars="none",
    stray={".bidsignore": "/sub-*/EEG/**\n/additional_files/**\n"},
)
