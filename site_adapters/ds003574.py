"""Geneva sleep and reward: 18 subjects who slept in the scanner. OpenNeuro ds003574, CC0.

Download (27 GB)::

    openneuro-py download --dataset=ds003574 --target-dir=ds003574
    datalad install https://github.com/OpenNeuroDatasets/ds003574.git    # then: datalad get sub-*/eeg sub-*/func/*rest*

Run fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into ``derivatives/fmriprep``. The EEG (EDF, 500 Hz) is corrected
for gradient and pulse artifacts. Its ``events.tsv`` holds one ``MRI_trigger`` (column ``category``) per volume; the
column ``onset`` counts **samples at 5 kHz** (10500 from volume to volume, 2.1 s), whatever the JSON says
("microseconds"). One channel is called ``CP5`` with a no-break space, another ``PzV``; two channels are ECG;
``eeg.json`` repeats keys. The task ``game`` is BOLD only. The number of volumes is taken to be the number of triggers
(the authors' EEG tables hold one row less in 16 of 18 subjects). doi:10.18112/openneuro.ds003574.v1.0.2
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xsite.phantom.like import EventTable, LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import entities_of, manifest, real_first
from xsite.recording import RecordingKey
from xsite.site import Expected, Site

_EEG = (
    "Fp1 AFz AF3 AF7 F3 F5 F7 FC1 FC3 FC5 FT7 FT9 Cz C3 C5 T7 CP1 CP3 CP5\u00a0|TP7 TP9 PzV P3 P5 P7 P9 PO3 PO7 PO9 Oz "
    "O1 O9 Fpz Fp2 AF4 AF8 Fz F4 F6 F8 FC2 FC4 FC6 FT8 FT10 C4 C6 T8 CPz CP2 CP4 CP6 TP8 TP10 P4 P6 P8 P10 POz PO4 PO8 "
    "PO10 O2 O10"
)
CH_TYPES = {"ECG1": "ecg", "ECG2": "ecg", "EMG": "emg", "EOGh": "eog", "EOGv": "eog"}
CH_NAMES = (*_EEG.replace("|", " ").split(" "), *CH_TYPES)
CLOCK_HZ = 5000.0
TAIL_S = 0.3
"""The EEG ends 2.4 s after the last trigger of sub-05."""

SITE = Site(
    name="ds003574",
    sfreq=500.0,
    t_r=2.1,
    line_freq=50.0,
    volume_marker="MRI_trigger",
    ch_names=tuple({"CP5\u00a0": "CP5", "PzV": "Pz"}.get(name, name) for name in CH_NAMES if name not in CH_TYPES),
    rename={"CP5\u00a0": "CP5", "PzV": "Pz"},
    ch_types=CH_TYPES,
    eeg_state="clean",
    reference="FCz",
    events_unit="samples",
    events_sfreq=CLOCK_HZ,
    tasks=("rest",),
    doi="10.18112/openneuro.ds003574.v1.0.2",
    license="CC0-1.0",
    note="volumes of the images are taken to equal the triggers; PzV is taken to be Pz",
    expected=Expected(subjects=18, recordings=18),
)


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """One night per subject, with the game's two BOLD runs; lead and number of triggers from the real events table."""
    if sidecars is None:
        return [_sleep("05", None), *_games("05"), _sleep("08", None), *_games("08")]
    files = manifest(sidecars)
    labels = (entities_of(path)["sub"] for path in files if path.endswith("_task-rest_eeg.edf"))
    return [run for label in real_first(labels, sidecars) for run in (_sleep(label, sidecars), *_games(label))]


def _sleep(subject: str, sidecars: Path | None) -> LikeRun:
    key = RecordingKey("ds003574", subject, task="rest")
    table = Path() if sidecars is None else sidecars / f"sub-{subject}/eeg/{key.entities}_events.tsv"
    onsets = np.loadtxt(table, skiprows=1, usecols=0) if table.is_file() else np.array([323060.0])
    return LikeRun(
        key,
        eeg=f"sub-{subject}/eeg/{key.entities}_eeg.edf",
        bold=f"sub-{subject}/func/{key.entities}_bold.nii.gz",
        n_volumes=len(onsets) if len(onsets) > 1 else 3590,
        lead_s=float(onsets[0]) / CLOCK_HZ,
        tail_s=TAIL_S,
        verdicts=("ok", "unverified"),  # corrected EEG: what is left of the artifact may or may not show the scan
    )


def _games(subject: str) -> list[LikeRun]:
    keys = [RecordingKey("ds003574", subject, task="game", run=run) for run in ("1", "2")]
    paths = [f"sub-{subject}/func/{key.entities}_bold.nii.gz" for key in keys]
    return [LikeRun(key, None, path, 300, reason="game") for key, path in zip(keys, paths, strict=True)]


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=CH_NAMES,
    eeg_format="edf",
    trains=(MarkerTrain("MRI_trigger", in_file=False),),
    events=EventTable(("onset", "duration", "category"), unit="samples", sfreq=CLOCK_HZ),
    electrodes={"O9": "I1", "O10": "I2"},  # where the 10-05 montage has them
    slices=36,
)
