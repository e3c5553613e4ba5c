"""Overnight EEG-fMRI, sleep1 (NIH): 16 subjects, two nights. OpenNeuro ds005127.

Download (700 GB and more: take some nights)::

    openneuro-py download --dataset=ds005127 --target-dir=ds005127 --include "sub-00002"
    datalad install https://github.com/OpenNeuroDatasets/ds005127.git    # then: datalad get sub-00002

``dataset_description.json`` says CC0, the file ``LICENSE`` says TBD: ask before you publish.
doi:10.18112/openneuro.ds005127.v1.0.4

File names have no ``_eeg`` or ``_bold`` and a time stamp with an underscore as run index: ``sub-00002_ses-1_task-sleep
_run-20160531_2257.{vhdr,nii}``. EEG and BOLD of one stem belong together; 177 of 411 BOLD runs have no EEG.
``func-complex`` holds the same runs as complex numbers and is not read. A date must not reach the store, and the time
of day tells the runs of a night apart: the run is called ``2257``. For fMRIPrep make a BIDS copy with such names
(``sub-00002_ses-1_task-sleep_run-2257_bold.nii``); its output goes to ``derivatives/fmriprep``.

The sidecars hold control characters (EEG) and an escape that is none (BOLD), sentinels for "not known" (-1, 0.0,
``[]``), slice timing as the number 0.0, and dates of 1970: all are read leniently. Five recordings have twice the bytes
that 65 channels of 16 bits need, although their number of markers is normal: 32-bit samples, presumably. The header is
believed; a recording that then is twice as long as its own sidecar says is left out.

The EEG is raw. Names of channels and markers stand in headers that were not at hand: all EEG channels with known names
are taken, and the volume marker is the one train of markers whose step is the repetition time (:func:`volume_train`),
which the gradient artifact confirms or not. One EEG (sub-00029 ses-2 0304) ends long before its scan does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from site_adapters.caps import BC64
from site_adapters.own_names import pair_named
from xsite.data.bids import recordings_of
from xsite.data.files import known, read_json
from xsite.data.headers import eeg_header
from xsite.data.inheritance import eeg_json_paths
from xsite.data.markers import marker_trains, same
from xsite.data.pairing import Pairing
from xsite.data.readers import read_eeg as read_bids_eeg
from xsite.errors import AlignmentError, FormatError
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import manifest, real_first
from xsite.phantom.like.timing import eeg_duration
from xsite.recording import Float, RecordingKey
from xsite.site import Expected, RecordingFiles, Site

NAME = re.compile(r"sub-(?P<sub>\d+)_ses-(?P<ses>\d+)_task-(?P<task>\w+)_run-\d{8}_(?P<time>\d{4})\.(vhdr|nii)$")
VOLUME = "volume"
MIN_TRAIN, STEP_TOLERANCE = 10, 1e-3


def key_of(path: Path | str) -> RecordingKey | None:
    """Key of a file as the site names it; of its time stamp the time of day is kept, not the date.

    >>> str(key_of("sub-00002_ses-1_task-sleep_run-20160531_2257.vhdr"))
    'ds005127/sub-00002_ses-1_task-sleep_run-2257'
    """
    found = NAME.search(str(path).rpartition("/")[2])
    if found is None:
        return None
    return RecordingKey("ds005127", found["sub"], found["ses"], found["task"], found["time"])


def pair(root: Path, site: Site) -> Pairing:
    """EEG and preprocessed BOLD of the same time stamp.

    Raises
    ------
    SiteError
        The folder is absent.
    """
    eeg, bold = (_keyed(sorted(root.glob(f"sub-*/ses-*/{where}"))) for where in ("eeg/*.vhdr", "func/*.nii"))
    refused = {path: reason for path in eeg if (reason := twice_as_long(path))}
    return pair_named(root, site, eeg, bold, refused)


def _keyed(paths: list[Path]) -> dict[Path, RecordingKey]:
    return {path: key for path in paths if (key := key_of(path)) is not None and not path.name.startswith(".")}


def twice_as_long(path: Path) -> str:
    """Why a recording with twice the bytes is not used, or nothing."""
    facts: dict[str, Any] = {}
    try:
        for sidecar in eeg_json_paths(path):
            facts |= read_json(sidecar)
        seconds = eeg_header(path).seconds
    except FormatError as error:
        return str(error)
    stated = known(facts.get("RecordingDuration"), positive=True)
    if seconds is None or stated is None or abs(seconds / float(stated) - 2) > 0.01:
        return ""
    return (
        f"twice as long by its bytes ({seconds:.1f} s) as its sidecar says ({float(stated):.1f} s): samples of another "
        "width than the header names, or two recordings; ask the authors"
    )


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """Recordings of :func:`pair`.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    return recordings_of(pair(Path(root), site), Path(root), site)


def volume_train(trains: Mapping[str, Float], t_r: float, decoys: tuple[str, ...], source: str) -> str:
    """Name of the one marker train whose median step is the repetition time.

    Raises
    ------
    AlignmentError
        There is none, or more than one; the message lists all trains with their steps.
    """
    steps = {name: float(np.median(np.diff(t))) for name, t in trains.items() if len(t) >= MIN_TRAIN}
    fitting = [
        name
        for name, step in steps.items()
        if abs(step / t_r - 1) < STEP_TOLERANCE and not any(same(name, decoy) for decoy in decoys)
    ]
    if len(fitting) != 1:
        listed = (
            ", ".join(f"{name!r} x{len(trains[name])} every {step:.4f} s" for name, step in steps.items()) or "none"
        )
        raise AlignmentError(
            f"{source}: {len(fitting)} marker trains have the step {t_r:g} s of the volumes; found {listed}. Give the "
            "site its volume_marker"
        )
    return fitting[0]


def read_eeg(files: RecordingFiles, site: Site) -> Any:
    """Default reader; the train at the repetition time becomes the site's volume marker.

    Raises
    ------
    FormatError
        The file or its sidecar cannot be read.
    AlignmentError
        No such train, or several.
    """
    raw = read_bids_eeg(files, replace(site, volume_marker=None))
    name = volume_train(marker_trains(raw), site.t_r, site.decoys, str(files.eeg))
    raw.annotations.rename({name: f"{name.replace('/', ' ')}/{VOLUME}"})  # its own name stays to be seen
    return raw


SITE = Site(
    name="ds005127",
    sfreq=5000.0,
    t_r=3.0,
    line_freq=60.0,
    volume_marker=VOLUME,
    ch_types={"ECG": "ecg", "EOG": "eog", "EMG": "emg"},
    eeg_state="raw",
    reference="n/a",
    decoys=("Sync On",),
    tasks=("sleep",),
    doi="10.18112/openneuro.ds005127.v1.0.4",
    license="CC0-1.0 by its description, TBD by its LICENSE file",
    note="channel names, reference and the name of the volume marker are not known (headers not seen); 65 channels by "
    "file size, where the cap is presumably BrainCap MR 64; the sizes of the marker files fit one marker a volume and "
    "a clock signal every 2 s",
    expected=Expected(subjects=16, recordings=234),
    find_recordings=find_recordings,
    read_eeg=read_eeg,
)

N_CHANNELS, VOLUME_BYTES, HEADER_BYTES = 65, 691200, 352
"""All 411 images are a whole number of such volumes long (96 x 72 x 50 of 16 bits)."""
TAIL_S = 6.0
"""How the EEG around the scan is divided is not known."""
DOUBLED = {"00029": ("20160518_0125", "20160518_0148", "20160518_0215", "20160518_0527"), "00047": ("20160629_0241",)}
"""Time stamps of session 1, by subject."""


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """All runs of the list of files, lengths by their sizes; from the facts a pair, a BOLD run and a doubled one."""
    if sidecars is None:
        first = "sub-00002_ses-1_task-sleep_run-20160531_2257"
        other = "sub-00002_ses-1_task-wpt_run-20160531_2243"
        twice = "sub-00029_ses-1_task-sleep_run-20160518_0125"
        return [_run(first, 1584.08, 505), _run(other, None, 49), _run(twice, 1147.42, 359, doubled=True)]
    files = manifest(sidecars)
    images = {path: n for path, n in files.items() if "/func/" in path and path.endswith(".nii")}
    order = real_first((path[4:9] for path in images), sidecars)
    runs = []
    for path, size in sorted(images.items(), key=lambda item: (order.index(item[0][4:9]), item[0])):
        stem = path.rpartition("/")[2].removesuffix(".nii")
        n_bytes = files.get(path.replace("/func/", "/eeg/").replace(".nii", ".eeg"))
        seconds = None if n_bytes is None else n_bytes / (2 * N_CHANNELS * SITE.sfreq)
        n_volumes = ((size or HEADER_BYTES) - HEADER_BYTES) // VOLUME_BYTES
        doubled = seconds is not None and stem.partition("_run-")[2] in DOUBLED.get(stem[4:9], ())
        runs.append(_run(stem, seconds / 2 if seconds and doubled else seconds, n_volumes, doubled=doubled))
    return runs


def _run(stem: str, seconds: float | None, n_volumes: int, *, doubled: bool = False) -> LikeRun:
    key = key_of(f"{stem}.nii")
    assert key is not None
    folder = f"sub-{key.subject}/ses-{key.session}"
    around = 0.0 if seconds is None else seconds - SITE.t_r * n_volumes
    lead_s = max(around - TAIL_S, 2.0)
    return LikeRun(
        key,
        eeg=None if seconds is None else f"{folder}/eeg/{stem}.vhdr",
        bold=f"{folder}/func/{stem}.nii",
        n_volumes=n_volumes,
        lead_s=lead_s,
        tail_s=around - lead_s,
        file="eeg-twice" if doubled else "",
        verdicts=("ok", "unverified"),
        reason="twice as long" if doubled else "" if seconds else "no EEG",
    )


def _preprocessed(run: LikeRun) -> str:
    folder = f"derivatives/fmriprep/sub-{run.key.subject}/ses-{run.key.session}/func"
    return f"{folder}/{run.key.entities}_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"


def _sidecar(run: LikeRun) -> tuple[str, str]:
    """The site's EEG sidecar, with its control character and its sentinels."""
    text = (
        '{\n\t"TaskName": "sleep",\n\t"EEGReference": "n/a",\n\t"SamplingFrequency": 5000.0000,\n'
        '\t"PowerLineFrequency": 60.000000,\n\t"SoftwareFilters": {\n\t\t"filter\x10": "Disabled"\n\t},\n'
        f'\t"EEGChannelCount": -1,\n\t"RecordingDuration": {eeg_duration(LIKE, run):.4f}\n}}\n'
    )
    return str(run.eeg).replace(".vhdr", ".json"), text


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=(*BC64, "EOG"),
    trains=(MarkerTrain("Response/R128"), MarkerTrain("SyncStatus/Sync On", "clock", every_s=2.0, phase_s=1.1)),
    slices=50,
    preprocessed=_preprocessed,
    eeg_sidecars="none",
    beside=_sidecar,
)
