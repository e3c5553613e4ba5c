"""XP1 (Rennes): EEG-fMRI during motor-imagery neurofeedback, 10 subjects. OpenNeuro ds002336, CC0.

Download (119 GB; ``--include "sub-xp101"`` for one subject)::

    openneuro-py download --dataset=ds002336 --target-dir=ds002336
    datalad install https://github.com/OpenNeuroDatasets/ds002336.git    # then: datalad get sub-xp101

The published BOLD lies in the scanner's space: put fMRIPrep's output (``--output-spaces MNI152NLin2009cAsym:res-2``, or
the ready-made OpenNeuroDerivatives/ds002336-fmriprep, which has some runs only) into ``derivatives/fmriprep``.

Channels, events and ``eeg.json`` stand at the root, one per task; the channel tables are separated by blanks and their
names quoted. The EEG starts before the scan and may end inside the last volume. The first ``S 99`` may be missing, so
that the first ``S  2`` (22 s after the first volume by the events table) is the protocol's evidence. ``ds002336_pp``
(``SITE_PP``) is the EEG that the authors corrected (200 Hz), cut from the first ``S 99`` to 20 s after the last
``S  2``.

Unpaired: xp102 eegNF (EEG only), xp109 MIpre and MIpost (BOLD only). doi:10.18112/openneuro.ds002336.v2.0.2
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from site_adapters.caps import BC64, eeg_only
from xsite.data.bids import pair_files, recordings_of
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import entities_of, manifest, real_first
from xsite.recording import RecordingKey
from xsite.site import Expected, RecordingFiles, Site

SITE = Site(
    name="ds002336",
    sfreq=5000.0,
    t_r=2.0,
    line_freq=50.0,
    volume_marker="R128",
    ch_names=eeg_only(BC64),
    ch_types={"ECG": "ecg"},
    eeg_state="raw",
    reference="FCz",
    rotation_unit="rad",
    protocol_marker="S  2",
    protocol_onset=22.0,
    decoys=("Sync On", "S 99", "S  2"),
    doi="10.18112/openneuro.ds002336.v2.0.2",
    license="CC0-1.0",
    expected=Expected(subjects=10, recordings=53),
)

N_VOLUMES = {"MIpre": 106, "MIpost": 106, "motorloc": 166, "eegNF": 210, "fmriNF": 210, "eegfmriNF": 210}
"""Rows of the head-motion tables; single runs of 163, 108 and 205 volumes exist."""
LEAD_S = {("xp101", "eegfmriNF"): 29.96}
"""Measured from the marker file; elsewhere only the length of the EEG is known."""
USUAL_LEAD_S = 12.0
TAIL_S = -1.08
BYTES_PER_S = 2 * len(BC64) * 5000


def blocks(task: str) -> tuple[tuple[float, str], ...]:
    """Protocol markers: 20 s of rest and task in turn, from 2 s after the first volume."""
    n_blocks = {"motorloc": 8, "MIpre": 5, "MIpost": 5}.get(task, 10)
    rest = [(2.0 + 40 * k, "Stimulus/S 99") for k in range(n_blocks)]
    return tuple(sorted(rest + [(22.0 + 40 * k, "Stimulus/S  2") for k in range(n_blocks)]))


def _run(subject: str, task: str, eeg: str | None, bold: str | None, n_bytes: int | None) -> LikeRun:
    n_volumes = N_VOLUMES[task]
    waits = USUAL_LEAD_S if n_bytes is None else n_bytes / BYTES_PER_S - 2.0 * n_volumes - TAIL_S
    lead_s = LEAD_S.get((subject, task), max(waits, 2.0))
    return LikeRun(
        key=RecordingKey("ds002336", subject, task=task),
        eeg=eeg,
        bold=bold,
        n_volumes=n_volumes,
        lead_s=lead_s,
        tail_s=TAIL_S,
        protocol=blocks(task)[1 if (subject, task) == ("xp101", "motorloc") else 0 :],  # its first S 99 is left out
        # the EEG ends inside the last volume, so that only one end of the artifact can be seen
        verdicts=("ok",) if lead_s > 10 else ("ok", "unverified"),
        reason="" if eeg and bold else "no BOLD" if eeg else "no EEG",
    )


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the data set: from its list of files, or two subjects and the unpaired runs from the facts."""
    files: dict[str, int | None] = manifest(sidecars) if sidecars else _files_from_facts()
    eeg = {(e["sub"], e["task"]): path for path in files if path.endswith("_eeg.vhdr") for e in [entities_of(path)]}
    bold = {(e["sub"], e["task"]): path for path in files if path.endswith("_bold.nii.gz") for e in [entities_of(path)]}
    every = []
    for subject in real_first((subject for subject, _ in eeg.keys() | bold.keys()), sidecars):
        for task in N_VOLUMES:
            pair = eeg.get((subject, task)), bold.get((subject, task))
            if any(pair):
                size = files.get(re.sub("vhdr$", "eeg", pair[0] or ""))
                every.append(_run(subject, task, *pair, size))
    return every


def _files_from_facts() -> dict[str, int | None]:
    missing = {("xp102", "eegNF", "func"), ("xp109", "MIpre", "eeg"), ("xp109", "MIpost", "eeg")}
    kinds = {"eeg": "eeg.vhdr", "func": "bold.nii.gz"}
    return {
        f"sub-{subject}/{folder}/sub-{subject}_task-{task}_{ending}": None
        for subject in ("xp101", "xp102", "xp109")
        for task in N_VOLUMES
        for folder, ending in kinds.items()
        if (subject, task, folder) not in missing
    }


def channels_table(names: tuple[str, ...], types: tuple[str, ...]) -> str:
    """Return the channel table as published: blanks between the columns, names in quotes, one of them curly."""
    ends = {"ECG": "\u2019"}
    rows = [f"'{name}{ends.get(name, chr(39))}   {kind}   microV" for name, kind in zip(names, types, strict=True)]
    return "\n".join(["name   type   units", *rows]) + "\n"


def events_tables() -> dict[str, str]:
    """Events tables at the root, one per task, in seconds of the protocol; with a trailing tab and a blank line."""
    tables = {}
    for task in N_VOLUMES:
        names = {"Stimulus/S 99": "Rest", "Stimulus/S  2": "Task-MI"}
        rows = [f"{onset:g}\t20\t{names[text]}\t" for onset, text in blocks(task)]
        tables[f"task-{task}_events.tsv"] = "\n".join(["onset\tduration\ttrial_type\tstim_file", *rows, ""]) + "\n"
    return tables


def preprocessed(run: LikeRun) -> str:
    """Path of the published fMRIPrep image, which names its resolution."""
    stem = f"sub-{run.key.subject}_task-{run.key.task}"
    space = "space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
    return f"derivatives/fmriprep/sub-{run.key.subject}/func/{stem}_{space}"


def find_corrected(root: Path, site: Site) -> list[RecordingFiles]:
    """Pair the authors' corrected EEG (``derivatives/sub-*/eeg_pp/*_eeg_pp.vhdr``) with the preprocessed images.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    eeg = sorted(Path(root).glob("derivatives/sub-*/eeg_pp/*_eeg_pp.vhdr"))
    return recordings_of(pair_files(Path(root), site, eeg_files=eeg), Path(root), site)


SITE_PP = replace(
    SITE,
    name="ds002336_pp",
    sfreq=200.0,
    volume_marker=None,
    scan_marker="S 99",
    scan_start=-2.0,
    protocol_marker=None,
    protocol_onset=None,
    eeg_state="clean",
    note="no volume marker is described for these files: the scan is taken to start 2 s before the first S 99, as the "
    "events tables and the README say; file names of eeg_pp are second-hand",
    find_recordings=find_corrected,
)


def corrected_runs(sidecars: Path | None) -> list[LikeRun]:
    """The same runs, cut from the first S 99 to 20 s after the last S  2: the first volume lies before the EEG."""
    cut = []
    for run in like_runs(sidecars):
        key = replace(run.key, site=SITE_PP.name)
        path = f"derivatives/sub-{key.subject}/eeg_pp/{key.entities}_eeg_pp.vhdr"
        end = 2.0 + 40.0 * (len(blocks(key.task)) // 2) - 2.0 * run.n_volumes
        cut.append(
            replace(
                run,
                key=key,
                eeg=path if run.eeg else None,
                lead_s=-2.0,
                tail_s=end,
                protocol=blocks(key.task),
                verdicts=("unverified",),
            )
        )
    return cut


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=BC64,
    trains=(MarkerTrain("Response/R128"), MarkerTrain("SyncStatus/Sync On", "clock", every_s=1.0, phase_s=0.37)),
    preprocessed=preprocessed,
    reference_share=-1.0,
    slices=32,
    eeg_sidecars="root",
    channels_table=channels_table,
    stray=events_tables(),
)
LIKE_PP = replace(
    LIKE,
    site=SITE_PP,
    runs=corrected_runs,
    eeg_format="brainvision-float32",
    trains=(MarkerTrain("Pulse Artifact/R", "clock", every_s=0.93, phase_s=0.41),),
    positions=True,
)
