"""Checkerboard and CSF flow (MGH): 6 subjects, one occipital EEG channel. OpenNeuro ds004478, CC0.

Download (2.4 GB)::

    openneuro-py download --dataset=ds004478 --target-dir=ds004478
    datalad install https://github.com/OpenNeuroDatasets/ds004478.git    # then: datalad get sub-*

Run fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into ``derivatives/fmriprep``.
doi:10.18112/openneuro.ds004478.v1.0.2

**Refused for training**: one channel is no montage. It is read and aligned, so that the flicker response can be looked
at (7.5 or 12 Hz in blocks of 16 s; tests/test_odd_sites.py measures it on the real files).

The EEG lies in ``func/`` as a table without header that ``.bidsignore`` hides. Its two columns are **not** time and
signal: the file is the whole time vector, then the whole signal, two values on each line (:func:`unravel`). Times are
rounded to 0.01 s at 200 Hz, so that they repeat. The sidecar has a comma too many. There are no markers: the EEG is
taken to start with the first volume (``StartTime`` 0, and the flicker response follows the events of the scan within
half a second). sub-02 run-03 has a sidecar and BOLD, but no EEG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mne
import numpy as np

from xsite.data.bids import pair_files, recordings_of
from xsite.data.files import check_file
from xsite.errors import FormatError
from xsite.phantom.like import LikeRun, LikeSite
from xsite.phantom.like.sidecars import entities_of, manifest, real_first
from xsite.recording import Float, RecordingKey
from xsite.site import Expected, RecordingFiles, Site

CHANNEL = "occipital"
SFREQ = 200.0
STAMP_S = 0.01
"""Time stamps are rounded to this."""


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """EEG tables and images of ``func/``.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    root = Path(root)
    tables = [path for path in sorted(root.glob("sub-*/func/*_eeg.tsv")) if not path.name.startswith(".")]
    return recordings_of(pair_files(root, site, eeg_files=tables), root, site)


def unravel(table_L2: Float, sfreq: float, source: str) -> Float:
    """Signal of a table whose lines hold the time vector and then the signal, two values each.

    Parameters
    ----------
    table_L2 : float array, shape (L, 2)
    sfreq : float
        In Hz; the first half must count time at this rate.
    source : str
        File name for messages.

    Returns
    -------
    signal_T : float array, shape (L,)

    Raises
    ------
    FormatError
        The first half is no time vector: the table is laid out in another way.
    """
    time_T, signal_T = np.split(np.asarray(table_L2, dtype=np.float64).ravel(), 2)
    wanted_T = np.arange(len(time_T)) / sfreq
    off = float(np.abs(time_T - time_T[0] - wanted_T).max())
    if not off <= STAMP_S + 1e-9:
        raise FormatError(
            f"{source}: the first half of its {table_L2.size} values is no time vector at {sfreq:g} Hz (off by up to "
            f"{off:.3g} s); expected the time of all samples, then all samples, two values on each line"
        )
    return np.asarray(signal_T)


def read_eeg(files: RecordingFiles, site: Site) -> Any:
    """One channel in volt, without markers.

    Raises
    ------
    FormatError
        The file is absent, not two columns of numbers, or not laid out as published.
    """
    path = check_file(files.eeg)
    try:
        table_L2 = np.loadtxt(path, ndmin=2)
    except ValueError as error:
        raise FormatError(f"{path}: not a table of numbers ({error}); fetch it again") from error
    if table_L2.shape[1] != 2:
        raise FormatError(f"{path}: {table_L2.shape[1]} values on each line; the data set has two")
    signal_T = unravel(table_L2, site.sfreq, str(path))
    return mne.io.RawArray(1e-6 * signal_T[None], mne.create_info([CHANNEL], site.sfreq, "eeg"), verbose="error")


SITE = Site(
    name="ds004478",
    sfreq=SFREQ,
    t_r=0.367,
    line_freq=60.0,
    volume_marker=None,
    scan_start=0.0,
    ch_names=(CHANNEL,),
    eeg_state="clean",
    reference="n/s",
    tasks=("checker",),
    unusable="one occipital EEG channel is published: no montage to train on",
    doi="10.18112/openneuro.ds004478.v1.0.2",
    license="CC0-1.0",
    note="microvolt, line frequency (country) and that the EEG starts with the first volume are inferred",
    expected=Expected(subjects=6, recordings=10),
    find_recordings=find_recordings,
    read_eeg=read_eeg,
)

BYTES_PER_LINE = 12.08
"""Measured on sub-01 run-01: each line is one sample."""


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the list of files, or three from the facts; volumes from the length of the EEG."""
    if sidecars is None:
        return [_run("01", "01", 588560), _run("02", "02", 590725), _run("02", "03", None)]
    files = manifest(sidecars)
    images = [entities_of(path) for path in files if path.endswith("_bold.nii.gz")]
    eeg = {
        (e["sub"], e["run"]): n for path, n in files.items() if path.endswith("_eeg.tsv") for e in [entities_of(path)]
    }
    labels = real_first((parts["sub"] for parts in images), sidecars)
    runs = sorted((labels.index(parts["sub"]), parts["run"]) for parts in images)
    return [_run(labels[i], run, eeg.get((labels[i], run))) for i, run in runs]


def _run(subject: str, run: str, n_bytes: int | None) -> LikeRun:
    key = RecordingKey("ds004478", subject, task="checker", run=run)
    stem = f"sub-{subject}/func/{key.entities}"
    n_volumes = int((n_bytes or 590000) / BYTES_PER_LINE / SFREQ / SITE.t_r)
    return LikeRun(
        key,
        eeg=f"{stem}_eeg.tsv" if n_bytes else None,
        bold=f"{stem}_bold.nii.gz",
        n_volumes=n_volumes,
        lead_s=0.0,
        tail_s=0.4,
        verdicts=("unverified",),
        reason="" if n_bytes else "no EEG",
    )


def _sidecar(run: LikeRun) -> tuple[str, str]:
    """The site's ``eeg.json``, with its comma too many."""
    text = '{\n  "SamplingFrequency": 200.0,\n  "StartTime": 0,\n  "Columns": [\n    "time",\n    "eeg",\n  ]\n}'
    return str(run.eeg).replace(".tsv", ".json"), text


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=(CHANNEL,),
    electrodes={CHANNEL: "Oz"},
    eeg_format="tsv-pairs",
    slices=40,
    eeg_sidecars="none",
    beside=_sidecar,
    stray={".bidsignore": "*eeg*\n", "sub-02/func/sub-02_task-checker_run-03_eeg.json": "{}"},
)
