"""Sleep in the scanner (Penn State): 33 subjects, rest and sleep runs. OpenNeuro ds003768, CC0.

Download (``--include "sub-01"`` for one subject)::

    openneuro-py download --dataset=ds003768 --target-dir=ds003768
    datalad install https://github.com/OpenNeuroDatasets/ds003768.git    # then: datalad get sub-01

fMRIPrep's output exists: OpenNeuroDerivatives/ds003768-fmriprep (23.0.2, slice times not corrected); put it into
``derivatives/fmriprep``. The EEG has **no sidecar at all**: channel names come from each header (``.vhdr``), and that
there are 32 from file sizes; the volume marker R128 from the README. The image headers say a TR of 2.0999999 s (second-
hand), which is 2.1 s in float32. Sleep stages (30 s epochs; ``1`` to ``3``, ``W``, ...) lie in ``sourcedata`` and come
along as a fact of each recording; that they count from the first volume is inferred.

Left out: sub-16 sleep run-1 to run-5, whose data files are no whole number of 32-channel frames and two thirds as long
as the scan: published damaged, fetching them again does not help. doi:10.18112/openneuro.ds003768.v1.0.0
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from site_adapters.caps import BC31
from xsite.data.bids import find_recordings as find_bids_recordings
from xsite.data.bids import read_bold as read_bids_bold
from xsite.data.files import read_tsv
from xsite.data.inheritance import data_set_root
from xsite.errors import FormatError
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import manifest, run_files
from xsite.recording import RecordingKey
from xsite.site import BoldRun, Expected, RecordingFiles, Site

EPOCH_S = 30.0


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """Recordings as BIDS names them, with the subject's sleep stages.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    found = find_bids_recordings(Path(root), site)
    return [replace(files, others=(stages_file(data_set_root(files.eeg), files.key),)) for files in found]


def stages_file(root: Path, key: RecordingKey) -> Path:
    """Table of the sleep stages of all runs of a subject."""
    return root / "sourcedata" / f"sub-{key.subject}-sleep-stage.tsv"


def sleep_stages(root: Path, key: RecordingKey) -> list[str]:
    """Scored stages of one run in epochs of 30 s, as the authors write them; empty where it was not scored.

    Raises
    ------
    FormatError
        The table is there but has no column of stages.
    """
    path = stages_file(root, key)
    if not path.is_file():
        return []
    table = read_tsv(path)
    stage = next((name for name in table.columns if str(name).strip().endswith("sleep_stage")), None)
    if stage is None or "session" not in table:
        raise FormatError(f"{path}: no columns 'session' and '30-sec_epoch_sleep_stage' (found {list(table.columns)})")
    session = "_".join(part for part in key.entities.split("_") if not part.startswith("sub-"))
    rows = table[table["session"].astype(str).str.strip() == session]
    return [str(value).strip() for value in rows[stage]]


def read_bold(files: RecordingFiles, site: Site) -> BoldRun:
    """Default reader; the run's sleep stages are added to its facts.

    Raises
    ------
    FormatError, SiteError
        As the default reader, or :func:`sleep_stages`.
    """
    bold = read_bids_bold(files, site)
    stages = sleep_stages(data_set_root(files.eeg), files.key)
    return replace(bold, facts={**bold.facts, "sleep_stages": stages, "sleep_epoch_s": EPOCH_S})


SITE = Site(
    name="ds003768",
    sfreq=5000.0,
    t_r=2.1,
    line_freq=60.0,
    volume_marker="R128",
    ch_types={"ECG": "ecg"},
    eeg_state="raw",
    decoys=("Sync On",),
    left_out={
        "sub-16/eeg/sub-16_task-sleep_run-[1-5]_eeg.*": "published damaged: its bytes are not whole frames of 32 "
        "channels, and it is shorter than the scan"
    },
    doi="10.18112/openneuro.ds003768.v1.0.0",
    license="CC0-1.0",
    note="5 kHz, 32 channels and mains of 60 Hz are inferred; 286 volumes at rest and the TR of the image headers are "
    "second-hand; reference not stated; channel names only in the headers",
    expected=Expected(subjects=33, recordings=250),
    find_recordings=find_recordings,
    read_bold=read_bold,
)

N_VOLUMES = {"rest": 286, "sleep": 428}
"""Rest second-hand; sleep from 15 minutes, as the README says."""
RAGGED = {("16", "sleep", str(run)) for run in range(1, 6)}
LEAD_S, TAIL_S = 14.0, 3.0
BYTES_PER_S = 2 * 32 * 5000


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the data set: from its list of files, or two complete and one damaged run from the facts."""
    files: dict[str, int | None] = manifest(sidecars) if sidecars else dict.fromkeys(_files_from_facts())
    runs = []
    for (subject, _, task, run), (eeg, bold) in run_files(files, "_eeg.vhdr").items():
        size = files.get((eeg or "").replace("_eeg.vhdr", "_eeg.eeg"))
        waits = LEAD_S if size is None else size / BYTES_PER_S - SITE.t_r * N_VOLUMES[task] - TAIL_S
        ragged = (subject, task, run) in RAGGED
        runs.append(
            LikeRun(
                key=RecordingKey("ds003768", subject, task=task, run=run),
                eeg=eeg,
                bold=bold,
                n_volumes=N_VOLUMES[task],
                lead_s=max(waits, 3.0),
                tail_s=TAIL_S,
                file="eeg-ragged" if ragged else "",
                verdicts=("ok",) if waits > 6 * SITE.t_r else ("ok", "unverified"),
                reason="not whole frames" if ragged else "",
            )
        )
    return runs


def _files_from_facts() -> list[str]:
    runs = [("01", "rest_run-1"), ("01", "sleep_run-1"), ("16", "sleep_run-1")]
    kinds = {"eeg": "eeg.vhdr", "func": "bold.nii.gz"}
    return [f"sub-{sub}/{folder}/sub-{sub}_task-{run}_{end}" for sub, run in runs for folder, end in kinds.items()]


def preprocessed(run: LikeRun) -> str:
    """Path of the published fMRIPrep image, which names its resolution."""
    stem = str(run.bold).removesuffix("_bold.nii.gz")
    return f"derivatives/fmriprep/{stem}_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"


_STAGES = (
    "subject\tsession\tepoch_start_time_sec\t30-sec_epoch_sleep_stage\n"
    "1\ttask-rest_run-1\t0\tW\n1\ttask-rest_run-1\t30\t1\n"
)
LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=(*BC31, "ECG"),
    trains=(MarkerTrain("Response/R128"), MarkerTrain("SyncStatus/Sync On", "clock", every_s=2.0, phase_s=1.17)),
    nifti_t_r=(2.0999999, "sec"),
    preprocessed=preprocessed,
    reference_share=-1.0,
    slices=35,
    eeg_sidecars="none",
    stray={"sourcedata/sub-01-sleep-stage.tsv": _STAGES},
)
