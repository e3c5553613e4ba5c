"""Auditory and visual oddball (Columbia): 17 subjects, 3 runs a task, bipolar EEG. OpenNeuro ds000116.

Download: the images from OpenNeuro, the EEG only from the older release 1.0.0 at
https://legacy.openfmri.org/dataset/ds000116/ (archives by subject; unpack them into the same folder)::

    openneuro-py download --dataset=ds000116 --target-dir=ds000116
    ds000116/sub-01/func/sub-01_task-auditoryoddball..._run-01_bold.nii.gz
    ds000116/sub001/EEG/task001_run001/EEG_noGA.mat

No licence is stated: ask before you publish. Walz et al., J Neurosci 2013, doi:10.1523/JNEUROSCI.2622-13.2013. Run
fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into ``derivatives/fmriprep``.

**Refused for training**: 43 twisted pairs of electrodes are recorded, each the difference of two neighbours; which
potential either has is not known, some pairs are excluded by subject, and pairs have no place in a montage of
electrodes. They are read and aligned under the names ``pair01`` to ``pair43``.

Three versions lie beside each other: ``EEG_raw.mat`` (volt after a gain of 10 000), ``EEG_noGA.mat`` (microvolt,
gradient artifact removed; read here) and a re-referenced one (34 electrodes, 36 channels; not read: its reference is an
estimate). Channels 44 and 45 are EOG, 46 and 47 ECG, 48 and 49 hold events as levels: each rise becomes a marker such
as ``event 48/25``. The scan starts the EEG and clocks are locked, so that the first volume is at 0 s.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mne
import numpy as np
from scipy.io import savemat

from site_adapters.caps import BC64, eeg_only
from site_adapters.matlab import the_matrix
from site_adapters.own_names import pair_named
from xsite.data.bids import preprocessed_images, recordings_of
from xsite.data.inheritance import name_parts
from xsite.data.pairing import Pairing
from xsite.phantom.like import LikeRun, LikeSite
from xsite.recording import Float, RecordingKey
from xsite.site import Expected, RecordingFiles, Site

PAIRS = tuple(f"pair{number:02d}" for number in range(1, 44))
OTHERS = {"EOGh": "eog", "EOGv": "eog", "ECG1": "ecg", "ECG2": "ecg", "event48": "stim", "event49": "stim"}
CH_NAMES = (*PAIRS, *OTHERS)
GAIN = 1e4
"""``EEG_raw.mat`` holds volt at the amplifier's output."""
TASKS = {"001": "auditoryoddball", "002": "visualoddball"}
"""Task number of the older release to the start of the task label of OpenNeuro."""
EEG_FILE = re.compile(r"sub(?P<sub>\d{3})/EEG/task(?P<task>\d{3})_run(?P<run>\d{3})/EEG_noGA\.mat$")


def pair(root: Path, site: Site) -> Pairing:
    """EEG of the older release and images of OpenNeuro.

    Raises
    ------
    SiteError
        The folder is absent.
    """
    images = [*preprocessed_images(root), *sorted(root.glob("sub-*/func/*_bold.nii.gz"))]
    labels = sorted({name_parts(image).get("task", "") for image in images})
    eeg = {}
    for path in sorted(root.glob("sub[0-9]*/EEG/task*_run*/EEG_noGA.mat")):
        found = EEG_FILE.search(path.as_posix())
        if found is not None and found["task"] in TASKS:
            begins = TASKS[found["task"]]
            label = next((label for label in labels if label.startswith(begins)), begins)
            eeg[path] = RecordingKey(site.name, found["sub"][1:], task=label, run=found["run"][1:])
    bold = {path: _bids_key(path) for path in sorted(root.glob("sub-*/func/*_bold.nii.gz"))}
    return pair_named(root, site, eeg, bold)


def _bids_key(path: Path) -> RecordingKey:
    parts = name_parts(path)
    return RecordingKey("ds000116", parts["sub"], task=parts.get("task", ""), run=parts.get("run", ""))


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """Recordings of :func:`pair`.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    return recordings_of(pair(Path(root), site), Path(root), site)


def read_eeg(files: RecordingFiles, site: Site) -> Any:
    """Pairs, EOG and ECG in volt, event levels as markers.

    Raises
    ------
    FormatError
        The file is absent, damaged, or has no matrix of 49 channels.
    """
    samples_CN = the_matrix(files.eeg, n_rows=len(CH_NAMES))
    info = mne.create_info(list(CH_NAMES), site.sfreq, [OTHERS.get(name, "eeg") for name in CH_NAMES])
    markers = rises(samples_CN[-2:], site.sfreq)
    samples_CN[:-2] *= 1 / GAIN if files.eeg.stem == "EEG_raw" else 1e-6
    raw = mne.io.RawArray(samples_CN, info, verbose="error")
    raw.set_annotations(mne.Annotations([onset for onset, _ in markers], 0.0, [name for _, name in markers]))
    return raw


def rises(levels_2N: Float, sfreq: float) -> list[tuple[float, str]]:
    """Seconds and name (``event 48/25``) of every rise of the two event channels."""
    found = []
    for number, level_N in zip((48, 49), np.rint(levels_2N), strict=True):
        for sample in np.flatnonzero(np.diff(level_N, prepend=0.0) > 0):
            found.append((float(sample) / sfreq, f"event {number}/{level_N[sample]:g}"))
    return sorted(found)


SITE = Site(
    name="ds000116",
    sfreq=1000.0,
    t_r=2.0,
    line_freq=60.0,
    volume_marker=None,
    scan_start=0.0,
    ch_names=PAIRS,
    ch_types=OTHERS,
    eeg_state="gradient-corrected",
    reference="bipolar pairs",
    decoys=("event 48/25",),
    unusable="43 bipolar pairs of electrodes: the potential of no electrode is known",
    doi="10.18112/openneuro.ds000116.v00003",
    license="not stated",
    note="second-hand: names of the EEG's folders and its variable (read from other people's code), the start of the "
    "task labels, line frequency (country); which electrodes form a pair and which pairs are excluded is not known "
    "here; a README says that the scan starts the EEG",
    expected=Expected(subjects=17, recordings=102),
    find_recordings=find_recordings,
    read_eeg=read_eeg,
)

LABELS = {
    "001": "auditoryoddballwithbuttonresponsetotargetstimuli",
    "002": "visualoddballwithbuttonresponsetotargetstimuli",
}
STIMULI = tuple((2.0 + 2.5 * k, "stimulus") for k in range(125))
_NET = eeg_only(BC64)


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """Two subjects with one run of each task; the last run has no EEG. No sidecars are at hand."""
    runs = [(subject, task, "001") for subject in ("001", "002") for task in LABELS]
    return [*(_run(*run) for run in runs), _run("002", "002", "002", eeg=False)]


def _run(subject: str, task: str, run: str, *, eeg: bool = True) -> LikeRun:
    key = RecordingKey("ds000116", subject[1:], task=LABELS[task], run=run[1:])
    return LikeRun(
        key,
        eeg=f"sub{subject}/EEG/task{task}_run{run}/EEG_noGA.mat" if eeg else None,
        bold=f"sub-{key.subject}/func/{key.entities}_bold.nii.gz",
        n_volumes=170,
        lead_s=0.0,
        tail_s=0.0,
        protocol=STIMULI,
        verdicts=("unverified",),
        reason="" if eeg else "no EEG",
    )


def write_mat(path: Path, signal: Any) -> None:
    """All 49 channels in microvolt, the stimuli as levels of channel 48."""
    samples_CN = signal.matrix()
    samples_CN[-2:] = 0.0
    for onset, _ in signal.markers:
        at = round(onset * signal.sfreq)
        samples_CN[-2, at : at + 200] = 25.0
    savemat(path, {"data_noGA": samples_CN}, appendmat=False)


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=CH_NAMES,
    electrodes={name: f"{_NET[k]}-{_NET[k + 1]}" for k, name in enumerate(PAIRS)},
    eeg_format="mat",
    write_eeg=write_mat,
    eeg_sidecars="none",
)
