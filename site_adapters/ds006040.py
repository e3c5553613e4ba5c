"""gradCPT, imagery, checkerboard and rest (SKKU, Suwon): 28 subjects. OpenNeuro ds006040, CC0.

Download (``--include "sub-001"`` for one subject); NEMAR mirrors it as on006040::

    openneuro-py download --dataset=ds006040 --target-dir=ds006040
    datalad install https://github.com/OpenNeuroDatasets/ds006040.git
    datalad get sub-001 derivatives/sub-001/func                         # in its folder

fMRIPrep's output is published, directly under ``derivatives/sub-*/func``, beside derivatives of the EEG (gradient and
QRS removed; not read: several states of one run). EEG tasks are the BOLD tasks with ON or OFF at the end; OFF runs were
recorded without scanning. ``.bidsignore`` hides the EEG of sub-024, whose quality the authors did not trust: it is read
like the others, and its quality figures decide. sub-015 CB is ``run-1`` in EEG and ``run-01`` in BOLD. sub-003 does not
exist. Images have 190 volumes; CB has 184 in sub-002 and sub-023 to sub-029, one GRAD run has 188.

Left out: sub-025 CBON and GRADON run-1, whose volume triggers were lost and set again by hand (README).
**The name of the volume marker is not written anywhere**: ``R128``, the manufacturer's usual name, is taken, and a
recording without it is refused with a list of the markers that it has. doi:10.18112/openneuro.ds006040.v1.0.2
"""

from __future__ import annotations

from pathlib import Path

from site_adapters.caps import BC64, eeg_only
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import manifest, run_files
from xsite.recording import RecordingKey
from xsite.site import Expected, Site

TASKS = ("EO", "EC", "CB", "GRAD", "IMAG", "IMGRAD")
BY_HAND = "its volume triggers were lost and set by hand, as the README says"

SITE = Site(
    name="ds006040",
    sfreq=5000.0,
    t_r=2.0,
    line_freq=60.0,
    volume_marker="R128",
    ch_names=eeg_only(BC64),
    ch_types={"ECG": "ecg"},
    eeg_state="raw",
    reference="FCz",
    decoys=("S254", "S245", "S155", "Sync On"),
    task_pairs={f"{task}ON": task for task in TASKS},
    left_out={
        "*/eeg/*OFF_run-*": "recorded while the scanner was off",
        "sub-025/eeg/*_task-CBON_run-1_eeg.set": BY_HAND,
        "sub-025/eeg/*_task-GRADON_run-1_eeg.set": BY_HAND,
    },
    doi="10.18112/openneuro.ds006040.v1.0.2",
    license="CC0-1.0",
    note="the volume marker's name (R128, Brain Products' usual one) and the order of channels (BrainCap MR 64, ECG on "
    "channel 32) are inferred; both stand in the .set files only",
    expected=Expected(subjects=28, recordings=278),
)

FEWER = dict.fromkeys(("002", *(f"{n:03d}" for n in range(23, 30))), 184)
"""Volumes of the task CB; one GRAD run, not known which, has 188."""
OTHER_RUN = {("015", "", "CB", "1"): ("015", "", "CB", "01")}
HAND_MADE = {("025", "CB", "1"), ("025", "GRAD", "1")}
LEAD_S, TAIL_S = 14.0, 3.0
BYTES_PER_S = 4 * len(BC64) * 5000


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the data set: from its list of files, or the odd ones and one complete run from the facts."""
    files: dict[str, int | None] = manifest(sidecars) if sidecars else dict.fromkeys(_files_from_facts())
    pairs: dict[tuple[str, ...], tuple[str | None, str | None]] = {}
    for (subject, session, task, run), (eeg, bold) in run_files(files, "_eeg.set").items():
        entities = (subject, session, SITE.task_pairs.get(task, task), run)
        entities = OTHER_RUN.get(entities, entities)
        before = pairs.get(entities, (None, None))
        pairs[entities] = (eeg or before[0], bold or before[1])
    return [_run(entities, *pair, files) for entities, pair in pairs.items()]


def _run(entities: tuple[str, ...], eeg: str | None, bold: str | None, files: dict[str, int | None]) -> LikeRun:
    subject, _, task, run = entities
    n_volumes = FEWER.get(subject, 190) if task == "CB" else 190
    size = files.get((eeg or "").replace("_eeg.set", "_eeg.fdt"))
    waits = LEAD_S if size is None else size / BYTES_PER_S - SITE.t_r * n_volumes - TAIL_S
    by_hand = (subject, task, run) in HAND_MADE
    return LikeRun(
        # of a run index that differs in zeros only, the EEG's spelling counts
        key=RecordingKey("ds006040", subject, task=task, run=run.lstrip("0")),
        eeg=eeg,
        bold=bold,
        n_volumes=n_volumes,
        lead_s=max(waits, 2.0) if not by_hand else 4.0,
        tail_s=TAIL_S if waits > 0 else waits,
        protocol=((8.0, "S254"),) if task == "CB" else ((10.0, "S245"),) if "GRAD" in task else (),
        verdicts=("rejected",) if by_hand else ("ok",) if waits > 6 * SITE.t_r else ("ok", "unverified"),
        reason="by hand" if by_hand else "" if eeg and bold else "scanner was off" if bold is None else "no EEG",
        odd=by_hand or entities in OTHER_RUN.values(),
    )


def _files_from_facts() -> list[str]:
    eeg = ["001_task-GRADON_run-1", "001_task-EOOFF_run-1", "015_task-CBON_run-1", "024_task-CBON_run-1"]
    func = ["001_task-GRAD_run-1", "015_task-CB_run-01", "024_task-CB_run-1", "025_task-CB_run-1"]
    eeg.append("025_task-CBON_run-1")
    return [f"sub-{name[:3]}/eeg/sub-{name}_eeg.set" for name in eeg] + [
        f"sub-{name[:3]}/func/sub-{name}_bold.nii.gz" for name in func
    ]


def preprocessed(run: LikeRun) -> str:
    """Path of the published fMRIPrep image: no folder of its own."""
    stem = str(run.bold).removesuffix("_bold.nii.gz")
    return f"derivatives/{stem}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=BC64,
    eeg_format="eeglab-fdt",
    trains=(MarkerTrain("R128"),),
    preprocessed=preprocessed,
    reference_share=0.4825,  # StartTime 0.965
    slices=40,
    stray={".bidsignore": "sub-024/eeg/*_eeg.fdt\nsub-024/eeg/*_eeg.set\nsub-024/eeg/*_eeg.json\n"},
)
