"""Value-based decisions (Glasgow): 22 subjects, two runs. OpenNeuro ds002734, CC0.

Download (23 GB)::

    openneuro-py download --dataset=ds002734 --target-dir=ds002734
    datalad install https://github.com/OpenNeuroDatasets/ds002734.git    # then: datalad get sub-*

Cite Pisauro et al., Nat Commun 2017, doi:10.1038/ncomms15808. doi:10.18112/openneuro.ds002734.v1.0.2

**Refused for training**: the matrix ``Y`` (electrodes x times) has no channel names. It is read and aligned under the
names ``el01``, ``el02``, ... .

EEG lies in ``sub-XX/EEG`` (outside BIDS, hidden by ``.bidsignore``) as ``EEG_data_subXX_run_YY.mat``, corrected by the
authors, without markers. ``EEG_events_subXX.mat`` holds two cells, one a run, with times in ms: ``tstim``, and ``t0``,
by which the events of the scan are shifted to the EEG. The stimuli of ``func/*_events.tsv`` must fit ``tstim`` after
that shift (:func:`scan_start`), else the recording is refused.

The authors discarded the first ten volumes and used 307. The first stimulus stands at 2 s in ``events.tsv``, so the
events, and with them ``t0``, are taken to count from the first volume that is published. Which space the images are in
is not stated: unless the header says MNI, run fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into
``derivatives/fmriprep``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import mne
import numpy as np
from scipy.io import savemat

from site_adapters.caps import BC64, eeg_only
from site_adapters.ds002739 import MAX_ELECTRODES, electrode_names
from site_adapters.matlab import load_mat, the_matrix
from site_adapters.own_names import pair_named
from xsite.data.bids import recordings_of
from xsite.data.files import numbers, read_tsv
from xsite.data.inheritance import name_parts
from xsite.data.pairing import Pairing
from xsite.errors import FormatError
from xsite.phantom.like import LikeRun, LikeSite
from xsite.phantom.like.sidecars import manifest, real_first
from xsite.phantom.write import write_table
from xsite.recording import RecordingKey
from xsite.site import Expected, RecordingFiles, Site

EEG_FILE = re.compile(r"EEG_data_sub(?P<sub>\d+)_run_(?P<run>\d+)\.mat$")
STIMULUS, FIRST_VOLUME = "stim", "first volume"
NEAR_S, MIN_SHARE = 0.1, 0.9


def pair(root: Path, site: Site) -> Pairing:
    """Matrices of ``EEG/`` and images of ``func/``.

    Raises
    ------
    SiteError
        The folder is absent.
    """
    eeg, bold = {}, {}
    for path in sorted(root.glob("sub-*/EEG/EEG_data_sub*.mat")):
        if found := EEG_FILE.match(path.name):
            eeg[path] = RecordingKey(site.name, found["sub"], task="main", run=found["run"])
    for path in sorted(root.glob("sub-*/func/*_task-main_*bold.nii.gz")):
        if "run" in (parts := name_parts(path)):
            bold[path] = RecordingKey(site.name, parts["sub"], task="main", run=parts["run"])
    return pair_named(root, site, eeg, bold)


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """Recordings of :func:`pair`, with the events of the EEG and of the scan.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    found = recordings_of(pair(Path(root), site), Path(root), site)
    return [replace(files, others=events_files(files)) for files in found]


def events_files(files: RecordingFiles) -> tuple[Path, Path]:
    """``EEG_events_subXX.mat`` and ``func/*_events.tsv`` of a recording."""
    table = files.eeg.parents[1] / "func" / f"{files.key.entities}_events.tsv"
    return files.eeg.with_name(f"EEG_events_sub{files.key.subject}.mat"), table


def run_events(path: Path, run: str) -> Any:
    """The cell of one run in a subject's ``EEG_events_subXX.mat``, a structure with ``tstim`` and ``t0``.

    Raises
    ------
    FormatError
        There is no variable with a cell for this run.
    """
    content = load_mat(path)
    for value in content.values():
        cells = np.atleast_1d(np.asarray(value, dtype=object)).ravel()
        if len(cells) >= int(run) and all(hasattr(cells[int(run) - 1], name) for name in ("tstim", "t0")):
            return cells[int(run) - 1]
    raise FormatError(f"{path}: no cell {int(run)} with the fields tstim and t0; variables: {sorted(content)}")


def scan_start(events: Any, onsets_s: Any, source: str) -> float:
    """Seconds from the first EEG sample to the first volume: ``t0``, if the stimuli bear it out.

    Raises
    ------
    FormatError
        Fewer than nine stimuli of ten lie within 0.1 s of one in ``events.tsv``.
    """
    start = float(np.ravel(events.t0)[0]) / 1e3
    stimuli = np.atleast_1d(np.asarray(events.tstim, dtype=float)) / 1e3 - start
    onsets = np.atleast_1d(np.asarray(onsets_s, dtype=float))
    off = np.abs(stimuli[:, None] - onsets[None]).min(axis=1, initial=np.inf)
    share = float(np.mean(off < NEAR_S)) if len(off) else 0.0
    if share < MIN_SHARE:
        raise FormatError(
            f"{source}: with t0 = {start:.3f} s only {share:.0%} of {len(stimuli)} stimuli fit the {len(onsets)} of "
            "events.tsv; expected milliseconds, and the events of the same run"
        )
    return start


def read_eeg(files: RecordingFiles, site: Site) -> Any:
    """Matrix in volt, with one marker where the first volume begins.

    Raises
    ------
    FormatError
        A file is absent, damaged, or does not fit the others.
    """
    samples_CN = the_matrix(files.eeg, variable="Y") * 1e-6
    events, path = events_files(files)
    table = read_tsv(path)
    onsets = numbers(table[table["trial_type"] == STIMULUS], ["onset"], path)["onset"]
    start = scan_start(run_events(events, files.key.run), onsets, str(events))
    names = electrode_names(range(1, len(samples_CN) + 1))
    raw = mne.io.RawArray(samples_CN, mne.create_info(names, site.sfreq, "eeg"), verbose="error")
    return raw.set_annotations(mne.Annotations([start], [0.0], [FIRST_VOLUME]))


SITE = Site(
    name="ds002734",
    sfreq=1000.0,
    t_r=2.5,
    line_freq=50.0,
    volume_marker=None,
    scan_marker=FIRST_VOLUME,
    scan_start=0.0,
    ch_types=dict.fromkeys(electrode_names(range(1, MAX_ELECTRODES + 1)), "eeg"),
    eeg_state="clean",
    reference="n/s",
    tasks=("main",),
    unusable="the published EEG has no channel names",
    doi="10.18112/openneuro.ds002734.v1.0.2",
    license="CC0-1.0",
    note="inferred: 1000 Hz (not stated; times in ms and file sizes fit it), microvolt, that t0 is the first published "
    "volume and in ms; the number of electrodes and the space of the images are not known",
    expected=Expected(subjects=22, recordings=44),
    find_recordings=find_recordings,
    read_eeg=read_eeg,
)

N_VOLUMES = 307
CH_NAMES = tuple(electrode_names(range(1, 64)))


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the list of files, or two of one subject from the facts."""
    if sidecars is None:
        return [_run("02", run, None) for run in ("01", "02")]
    labels = {path[4:6] for path in manifest(sidecars) if path.startswith("sub-")}
    return [_run(label, run, sidecars) for label in real_first(labels, sidecars) for run in ("01", "02")]


def _run(subject: str, run: str, sidecars: Path | None) -> LikeRun:
    key = RecordingKey("ds002734", subject, task="main", run=run)
    table = Path() if sidecars is None else sidecars / f"sub-{subject}/func/{key.entities}_events.tsv"
    onsets = [2.148 + 3.71 * k for k in range(199)]
    if table.is_file():
        rows = read_tsv(table)
        onsets = [float(value) for value in rows["onset"][rows["trial_type"] == STIMULUS]]
    return LikeRun(
        key,
        eeg=f"sub-{subject}/EEG/EEG_data_sub{subject}_run_{run}.mat",
        bold=f"sub-{subject}/func/{key.entities}_bold.nii.gz",
        n_volumes=N_VOLUMES,
        lead_s=28.413,
        tail_s=20.0,
        protocol=((0.0, FIRST_VOLUME), *((onset, STIMULUS) for onset in onsets)),
        verdicts=("unverified",),
    )


def write_mat(path: Path, signal: Any) -> None:
    """Matrix ``Y``, the run's cell of the subject's events, and an events table where no real one stands."""
    savemat(path, {"Y": signal.matrix()}, appendmat=False)
    found = EEG_FILE.match(path.name)
    assert found is not None
    start = next(onset for onset, text in signal.markers if text == FIRST_VOLUME)
    stimuli = [onset for onset, text in signal.markers if text == STIMULUS]
    events = path.with_name(f"EEG_events_sub{found['sub']}.mat")
    cells = np.empty(2, dtype=object)
    if events.is_file():
        cells[:] = [{name: getattr(cell, name, []) for name in ("tstim", "t0")} for cell in load_mat(events)["events"]]
    else:
        cells[:] = [{"tstim": [], "t0": []}, {"tstim": [], "t0": []}]
    cells[int(found["run"]) - 1] = {"tstim": 1e3 * np.array(stimuli), "t0": 1e3 * start}
    savemat(events, {"events": cells}, appendmat=False)
    table = path.parents[1] / "func" / f"sub-{found['sub']}_task-main_run-{found['run']}_events.tsv"
    if not table.is_file():
        table.parent.mkdir(parents=True, exist_ok=True)
        onset = [f"{stimulus - start:.3f}" for stimulus in stimuli]
        write_table(table, {"onset": onset, "duration": ["1.25"] * len(onset), "trial_type": [STIMULUS] * len(onset)})


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=CH_NAMES,
    electrodes=dict(zip(CH_NAMES, eeg_only(BC64), strict=True)),
    eeg_format="mat",
    write_eeg=write_mat,
    eeg_sidecars="none",
    stray={".bidsignore": "/sub-*/EEG/**\n"},
)
