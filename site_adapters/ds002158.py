"""Confidence in decisions (Campus Biotech, Geneva): 20 subjects, one session. OpenNeuro ds002158, CC0.

Download (``--include "sub-02"`` for one subject)::

    openneuro-py download --dataset=ds002158 --target-dir=ds002158
    datalad install https://github.com/OpenNeuroDatasets/ds002158.git    # then: datalad get sub-02

The published ``derivatives/fmriprep`` is **not** fMRIPrep output (``*_preproc.nii``, ``*_headmove.txt``, space not
stated) and is not read: run fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into ``derivatives/fmriprep-own``.

No sidecar speaks about the EEG. Channel names are taken from each header (``.vhdr``); that there are 64 is known from
file sizes. **How the volume marker is called is not known**: ``R128``, the manufacturer's usual name, is taken, and a
recording without it is left out with a list of the markers that it has; write the right one into a facts file then.
The gradient artifact confirms what is found. Marker files are 37 kB in some subjects and up to 956 kB in others.

EEG sub-12 run-00 is BOLD run-006 (all its other runs have partners). Left out: rest (never with EEG), sub-19 run-006
(EEG only), sub-20 run-007 (its EEG was rejected), and what lies in ``rejected/`` and ``reject/``. Hidden ``._*`` files
are no data. Pulse artifacts were found on TP10, so that an ECG channel may not serve.
doi:10.18112/openneuro.ds002158.v1.0.2; Pereira et al., PNAS 2020, doi:10.1073/pnas.1918335117
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from site_adapters.caps import BC64
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import manifest, run_files
from xsite.recording import RecordingKey
from xsite.site import Expected, Site

SITE = Site(
    name="ds002158",
    sfreq=5000.0,
    t_r=1.28,
    line_freq=50.0,
    volume_marker="R128",
    ch_types={"ECG": "ecg"},
    eeg_state="raw",
    decoys=("Sync On",),
    tasks=("main",),
    task_pairs={"sub-12_ses-001_task-main_run-00": "run-006"},
    doi="10.18112/openneuro.ds002158.v1.0.2",
    license="CC0-1.0",
    note="name of the volume marker (R128, Brain Products' usual one), rate of 5 kHz, mains of 50 Hz and that sub-12 "
    "run-00 is run-006 are inferred; reference not stated; channel names only in the headers",
    expected=Expected(subjects=20, recordings=116),
)

N_VOLUMES = {"main": 373, "rest": 250}
"""Six images have 375 volumes, four 371."""
MISNAMED = {("12", "001", "main", "00"): ("12", "001", "main", "006")}
UNMARKED = {("02", "001", "main", "003")}
"""Stands for recordings whose marker has another name: its marker file is twenty times as large as others."""
LEAD_S, TAIL_S = 14.0, 5.0
BYTES_PER_S = 2 * 64 * 5000


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the data set: from its list of files, or the odd ones from the facts."""
    files: dict[str, int | None] = manifest(sidecars) if sidecars else dict.fromkeys(_files_from_facts())
    pairs = run_files(files, "_eeg.vhdr")
    for wrong, right in MISNAMED.items():
        if wrong in pairs and right in pairs:
            pairs[right] = (pairs.pop(wrong)[0], pairs[right][1])
    return [_run(entities, *pair, files) for entities, pair in pairs.items()]


def _run(entities: tuple[str, ...], eeg: str | None, bold: str | None, files: dict[str, int | None]) -> LikeRun:
    subject, session, task, run = entities
    size = files.get((eeg or "").replace("_eeg.vhdr", "_eeg.eeg"))
    waits = LEAD_S if size is None else size / BYTES_PER_S - SITE.t_r * N_VOLUMES[task] - TAIL_S
    alone = "not recorded simultaneously" if task == "rest" else "no BOLD" if bold is None else "no EEG"
    unmarked = entities in UNMARKED
    return LikeRun(
        key=RecordingKey("ds002158", subject, session, task, run),
        eeg=eeg,
        bold=bold,
        n_volumes=N_VOLUMES[task],
        lead_s=max(waits, 2.0),
        tail_s=TAIL_S,
        triggers="none" if unmarked else "",
        verdicts=("rejected",) if unmarked else ("ok",) if waits > 6 * SITE.t_r else ("ok", "unverified"),
        reason="no 'R128' among the EEG's markers" if unmarked else "" if eeg and bold else alone,
        odd=entities in MISNAMED.values(),
    )


def _files_from_facts() -> list[str]:
    eeg = ["02_ses-001_task-main_run-001", "02_ses-001_task-main_run-003", *_names(MISNAMED)]
    func = [*eeg[:2], *_names(MISNAMED.values()), "02_ses-001_task-rest_run-001", "20_ses-001_task-main_run-007"]
    eeg.append("19_ses-001_task-main_run-006")
    return [f"sub-{name[:2]}/ses-001/eeg/sub-{name}_eeg.vhdr" for name in eeg] + [
        f"sub-{name[:2]}/ses-001/func/sub-{name}_bold.nii.gz" for name in func
    ]


def _names(entities: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"{sub}_ses-{ses}_task-{task}_run-{run}" for sub, ses, task, run in entities]


def preprocessed(run: LikeRun) -> str:
    """Path of a true fMRIPrep image beside the authors' folder that is called so."""
    stem = str(run.bold).removesuffix("_bold.nii.gz")
    return f"derivatives/fmriprep-own/{stem}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=BC64,
    trains=(MarkerTrain("Response/R128"), MarkerTrain("SyncStatus/Sync On", "clock", every_s=2.0, phase_s=0.81)),
    preprocessed=preprocessed,
    slices=16,  # 64 of them, four at a time
    eeg_sidecars="none",
    stray={
        "sub-14/ses-001/eeg/rejected/sub-14_ses-001_task-main_run-005_eeg.vhdr": "set aside",
        "sub-14/ses-001/func/rejected/sub-14_ses-001_task-main_run-005_bold.nii.gz": "set aside",
        "sub-02/ses-001/eeg/reject/sub-02_ses-001_task-main_run-009_eeg.vhdr": "set aside",
        "sub-02/ses-001/eeg/._sub-02_ses-001_task-main_run-001_eeg.vhdr": "\x00\x05\x16\x07",
        "sub-02/ses-001/func/.Rhistory": "q()",
        "derivatives/fmriprep/sub-02/ses-001/func/sub-02_ses-001_task-main_run-001_preproc.nii": "not fMRIPrep's",
        "derivatives/fmriprep/sub-02/ses-001/func/sub-02_ses-001_task-main_run-001_headmove.txt": "0 0 0 0 0 0",
    },
)
