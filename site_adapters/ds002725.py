"""Affective music (Reading and Essex): 21 listeners, five runs each, up to half an hour. OpenNeuro ds002725, CC0.

Download (``--include "sub-01"`` for one subject)::

    openneuro-py download --dataset=ds002725 --target-dir=ds002725
    datalad install https://github.com/OpenNeuroDatasets/ds002725.git    # then: datalad get sub-01

Run fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) into ``derivatives/fmriprep``; the sidecars tell no slice times.

Event code **10** is the scanner's TTL. Code 47 is a relay of the paradigm: every 2.000 s as well, before and after the
scan too, with another phase. The tables in ``eeg/`` and ``func/`` are the same bytes: onsets are on the EEG's clock.
FP1 and FP2 are upper-case; 14 behaviour channels are typed ``reponse``, ``response`` or ``stimuli``; ``eeg.json``
counts 30 EEG channels where there are 31, and its TaskName is GeneratedMusic for all five tasks.

classicalMusic has 930 code-10 events and 930 to 934 volumes. Where the gradient artifact shows the scan, the volumes
without a trigger are kept and marked invalid; where it does not, the recording is refused: nothing tells which end they
are at. In sub-01 genMusic01 five triggers, a hole of 126 s and 274 more stand in the table (an aborted scan, it seems):
more triggers than volumes, refused. Whether the EEG was corrected is not stated: it is treated as raw, which takes from
corrected EEG only what repeats with every volume.

doi:10.18112/openneuro.ds002725.v1.0.0; Daly et al., Sci Rep 2019, doi:10.1038/s41598-019-45105-2
"""

from __future__ import annotations

from pathlib import Path

from site_adapters.caps import BC31
from xsite.data.files import numbers, read_tsv
from xsite.phantom.like import EventTable, LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import manifest, run_files
from xsite.recording import Float, RecordingKey
from xsite.site import Expected, Site

VOLUME, RELAY = "10", "47"
BEHAVIOUR = (
    *("ft_valance", "ft_arousal", "ft_x", "ft_y", "ft_ghostvalence", "ft_ghostarousal", "music", "trialtype"),
    *("sams_valence", "sams_arousal", "sams_valencert", "sams_arousalrt", "nback_stimuli", "nback_keypress"),
)

SITE = Site(
    name="ds002725",
    sfreq=1000.0,
    t_r=2.0,
    line_freq=50.0,
    volume_marker=VOLUME,
    ch_names=BC31,
    ch_types={"ECG": "ecg", **dict.fromkeys(BEHAVIOUR, "misc")},
    eeg_state="raw",
    reference="placed on FCz",
    decoys=(RELAY, "1", "265", "768", "1283", "1285", "34053"),
    doi="10.18112/openneuro.ds002725.v1.0.0",
    license="CC0-1.0",
    note="state of the EEG not stated: treated as raw; numbers of volumes are second-hand; that codes stand in the EDF "
    "too is inferred from its size",
    expected=Expected(subjects=21, recordings=105),
)

CLASSICAL_VOLUMES = {"01": 930, "02": 934, "03": 933, "04": 934, "05": 934, "06": 934}
"""(second-hand) Volumes of classicalMusic; its triggers are 929 or 930."""
FIRST_LAST = {"classicalMusic": (30.675, 930), "genMusic01": (190.005, 274), "washout": (20.748, 33)}
"""First trigger in EEG seconds and number of triggers, subject 01."""
ABORTED = {("01", "genMusic01"): 5}
"""Triggers before a hole of 126 s, which the phantom makes shorter than its EEG."""
TAIL_S = 24.0
HEADER_BYTES, BYTES_PER_S = 256 * 48, 2 * 47 * 1000  # 46 channels and one of annotations, records of 1 s


def triggers(table: Path) -> Float:
    """Onsets of code 10 in EEG seconds.

    Raises
    ------
    FormatError
        The table cannot be read.
    """
    rows = read_tsv(table)
    onset = numbers(rows, ["onset"], table)["onset"].to_numpy(dtype=float)
    found: Float = onset[(rows["trial_type"].astype(str).str.strip() == VOLUME).to_numpy()]
    return found


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the data set, the shortest task first; triggers from the real events tables."""
    files: dict[str, int | None] = manifest(sidecars) if sidecars else dict.fromkeys(_files_from_facts())
    pairs = run_files(files, "_eeg.edf")
    ordered = sorted(pairs, key=lambda entities: (entities[0], entities[2] != "washout", entities[2]))
    return [_run(entities[0], entities[2], *pairs[entities], sidecars) for entities in ordered]


def _run(subject: str, task: str, eeg: str | None, bold: str | None, sidecars: Path | None) -> LikeRun:
    table = None if sidecars is None else sidecars / str(eeg).replace("_eeg.edf", "_events.tsv")
    first, n_triggers = FIRST_LAST.get(task, (25.0, 277))
    aborted = ABORTED.get((subject, task), 0)
    if table is not None and table.is_file():
        onsets = triggers(table)[aborted:]
        first, n_triggers = float(onsets[0]), len(onsets)
    n_volumes = CLASSICAL_VOLUMES.get(subject, 934) if task == "classicalMusic" else n_triggers
    missing = n_volumes - n_triggers  # at which end is not known: the phantom puts them at the start
    before = tuple((-28.0 + SITE.t_r * k, VOLUME) for k in range(aborted))
    return LikeRun(
        key=RecordingKey("ds002725", subject, task=task),
        eeg=eeg,
        bold=bold,
        n_volumes=n_volumes,
        lead_s=first - SITE.t_r * missing,
        tail_s=TAIL_S,
        triggers="four-missing" if missing == 4 else "",
        markers_in_file=bool(aborted),
        protocol=before,
        verdicts=("rejected",) if aborted else ("repaired",) if missing == 4 else ("ok",),
        kept=(4, n_volumes) if missing == 4 else None,
        reason="5 more" if aborted else "",
    )


def _files_from_facts() -> list[str]:
    runs = [("01", "washout"), ("01", "genMusic01"), ("02", "classicalMusic")]
    kinds = {"eeg": "eeg.edf", "func": "bold.nii.gz"}
    return [f"sub-{sub}/{folder}/sub-{sub}_task-{task}_{end}" for sub, task in runs for folder, end in kinds.items()]


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=("FP1", "FP2", *BC31[2:], "ECG", *BEHAVIOUR),
    eeg_format="edf",
    trains=(
        MarkerTrain(VOLUME),
        MarkerTrain(RELAY, "clock", every_s=2.0, phase_s=1.801),
        MarkerTrain("265", "clock", every_s=5.37, phase_s=1.172),
    ),
    events=EventTable(("onset", "duration", "trial_type"), func_copy=True),
    slices=37,
    reference_share=-1.0,
)
