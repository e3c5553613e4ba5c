"""XP2 (Rennes): EEG-fMRI during motor-imagery neurofeedback, 17 subjects, half the brain. OpenNeuro ds002338, CC0.

Download (``--include "sub-xp201"`` for one subject)::

    openneuro-py download --dataset=ds002338 --target-dir=ds002338
    datalad install https://github.com/OpenNeuroDatasets/ds002338.git    # then: datalad get sub-xp201

Run fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into ``derivatives/fmriprep``. Unlike XP1 (:mod:`.ds002336`) the
TR is 1 s and 16 slices cover the superior half of the brain only: parcels below are missing, and masked in loss and
scores. Sidecars stand at the root, one per task; in ``task-1dNF_eeg.json`` the TaskName is ``1dNF_run-01``: the file
names count. ``ds002338_pp`` (``SITE_PP``) is the authors' corrected EEG (200 Hz), cut from the first ``S 99`` to 20 s
after the last ``S  2``; their derivatives are called ``d_sub-...``. ``NF_eeg`` .mat files (64 x 80200, 8 to 30 Hz) hold
neurofeedback scores and are not read.

Left out: xp219 1dNF run-03 (EEG only), xp220 1dNF run-04 (BOLD only), xp210 MIpre (header and image are published as
text files that hold a storage path). doi:10.18112/openneuro.ds002338
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from site_adapters import ds002336
from xsite.phantom.like import LikeRun, LikeSite
from xsite.phantom.like.sidecars import manifest, run_files
from xsite.recording import RecordingKey
from xsite.site import Expected

SITE = replace(
    ds002336.SITE,
    name="ds002338",
    t_r=1.0,
    doi="10.18112/openneuro.ds002338",
    note="seconds of EEG before the first volume are known from file sizes only",
    expected=Expected(subjects=17, recordings=83),
)
SITE_PP = replace(
    ds002336.SITE_PP,
    name="ds002338_pp",
    t_r=1.0,
    doi=SITE.doi,
    note="no volume marker is described for these files: the scan is taken to start 2 s before the first S 99, as the "
    "events tables and the README say; the names of the eeg_pp files are second-hand",
    expected=SITE.expected,
)

N_VOLUMES = 332
"""Rows of every head-motion table."""
LEAD_S, TAIL_S = 12.0, 0.4
N_BLOCKS = 8
POINTERS = {("xp210", "MIpre")}
COVERAGE = 0.5


def blocks() -> tuple[tuple[float, str], ...]:
    """Protocol markers of every run: rest from 2 s after the first volume, task 20 s later, and so on."""
    rest = [(2.0 + 40 * k, "Stimulus/S 99") for k in range(N_BLOCKS)]
    return tuple(sorted(rest + [(22.0 + 40 * k, "Stimulus/S  2") for k in range(N_BLOCKS)]))


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the data set: from its list of files, or one complete run and the odd ones from the facts."""
    files: dict[str, int | None] = manifest(sidecars) if sidecars else dict.fromkeys(_files_from_facts())
    runs = []
    for (subject, _, task, run), (eeg, bold) in run_files(files, "_eeg.vhdr").items():
        size = files.get((eeg or "").replace("_eeg.vhdr", "_eeg.eeg"))
        waits = LEAD_S if size is None else size / ds002336.BYTES_PER_S - N_VOLUMES - TAIL_S
        pointer = (subject, task) in POINTERS
        runs.append(
            LikeRun(
                key=RecordingKey("ds002338", subject, task=task, run=run),
                eeg=eeg,
                bold=bold,
                n_volumes=N_VOLUMES,
                lead_s=max(waits, 2.0),
                tail_s=TAIL_S,
                file="pointers" if pointer else "",
                protocol=blocks(),
                reason="storage pointer" if pointer else "no BOLD" if bold is None else "no EEG" if eeg is None else "",
            )
        )
    return runs


def _files_from_facts() -> list[str]:
    runs = {
        "xp201": ("1dNF_run-01", "MIpre"),
        "xp210": ("MIpre",),
        "xp219": ("1dNF_run-03",),
        "xp220": ("1dNF_run-04",),
    }
    names = [f"sub-{subject}/{{}}/sub-{subject}_task-{run}_" for subject, found in runs.items() for run in found]
    eeg = [name.format("eeg") + "eeg.vhdr" for name in names if "run-04" not in name]
    return eeg + [name.format("func") + "bold.nii.gz" for name in names if "run-03" not in name]


def corrected_runs(sidecars: Path | None) -> list[LikeRun]:
    """The complete runs, cut from the first S 99 to 20 s after the last S  2: two volumes lie before the EEG."""
    return [
        replace(
            run,
            key=replace(run.key, site=SITE_PP.name),
            eeg=f"derivatives/sub-{run.key.subject}/eeg_pp/d_{run.key.entities}_eeg_pp.vhdr",
            lead_s=-2.0,
            tail_s=2.0 + 40.0 * N_BLOCKS - N_VOLUMES,
            verdicts=("unverified",),
        )
        for run in like_runs(sidecars)
        if run.paired
    ]


LIKE = replace(
    ds002336.LIKE,
    site=SITE,
    runs=like_runs,
    preprocessed=None,
    slices=16,
    coverage=COVERAGE,
)
LIKE_PP: LikeSite = replace(
    ds002336.LIKE_PP, site=SITE_PP, runs=corrected_runs, preprocessed=None, slices=16, coverage=COVERAGE
)
