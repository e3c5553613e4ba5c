"""Resting state with an EGI net (UNAM, Juriquilla): 20 subjects, eyes closed and open.

Licence not stated, and no public address was found: what is known stems from headers in a code repository. Two BIDS
roots must lie in one folder, which is the root of this site::

    ROOT/BIDS_dataset_EEG/sub-01/eeg/sub-01_task-fmrirestingec_eeg.set        (no sessions)
    ROOT/BIDS_dataset_MRI/sub-01/ses-001/func/sub-01_ses-001_task-rest_bold.nii.gz
    ROOT/derivatives/fmriprep/sub-01/ses-001/func/...                          (fMRIPrep on BIDS_dataset_MRI)

``fmrirestingec`` is taken to be the EEG of ``rest`` (:data:`xsite.site.Site.task_pairs`); ``fmrirestingeo`` and
``fmrieoec`` have no image that could be told. The ``.set`` files name another data file than the ``.fdt`` beside them
and hold **no events**, so ``unam_egi`` (``SITE``) refuses every pair: nothing tells when the scan began. Whoever knows
that the EEG starts with the first volume may use ``unam_egi_at_scan`` (``SITE_AT_SCAN``), an explicit policy whose
recordings are marked ``unverified``.

Raw EEG (1 kHz, 32 electrodes and ECG, reference Cz); positions from the net's template by the names E1 to E32.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from xsite.data.bids import pair_files, recordings_of
from xsite.data.pairing import Pairing
from xsite.errors import SiteError
from xsite.phantom.like import LikeRun, LikeSite
from xsite.recording import RecordingKey
from xsite.site import Expected, RecordingFiles, Site

NET = tuple(f"E{number}" for number in range(1, 33))
EEG_ROOT, MRI_ROOT = "BIDS_dataset_EEG", "BIDS_dataset_MRI"
TASK = "fmrirestingec"


def pair(root: Path, site: Site) -> Pairing:
    """Pair across the two roots, whatever they are called.

    Raises
    ------
    SiteError
        The folder or one of the roots is absent.
    """
    if not root.is_dir():
        raise SiteError(f"site {site.name!r}: no such folder: {root}")
    eeg = _root_with(root, "sub-*/eeg/*_eeg.set")
    mri = _root_with(root, "sub-*/ses-*/func/*_bold.nii.gz")
    if eeg is None or mri is None:
        raise SiteError(
            f"site {site.name!r}: {root} must hold two BIDS roots: {EEG_ROOT}/sub-*/eeg/*_eeg.set "
            f"({'found' if eeg else 'absent'}) and {MRI_ROOT}/sub-*/ses-001/func/*_bold.nii.gz "
            f"({'found' if mri else 'absent'})"
        )
    return pair_files(root, site, eeg_under=eeg, bold_under=mri)


def _root_with(root: Path, pattern: str) -> str | None:
    inside = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and folder.name != "derivatives"]
    return next((folder.name for folder in inside if any(folder.glob(pattern))), None)


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """Recordings of :func:`pair`.

    Raises
    ------
    SiteError
        A folder is absent, or there is not one pair that the site's policy allows.
    """
    return recordings_of(pair(Path(root), site), Path(root), site)


SITE = Site(
    name="unam_egi",
    sfreq=1000.0,
    t_r=2.0,
    line_freq=60.0,
    volume_marker=None,
    ch_names=NET,
    ch_types={"ECG": "ecg"},
    eeg_state="raw",
    reference="Cz",
    task_pairs={f"task-{TASK}": "ses-001_task-rest"},
    unusable="no events: nothing tells when the scan began; site 'unam_egi_at_scan' is for whoever knows that it began "
    "with the EEG",
    license="not stated",
    note="second-hand: repetition time, names of the two roots, number of subjects; that fmrirestingec is the EEG of "
    "rest is inferred; number of volumes, positions in time and events are not known",
    expected=Expected(subjects=20),
    find_recordings=find_recordings,
)
SITE_AT_SCAN = replace(
    SITE,
    name="unam_egi_at_scan",
    scan_start=0.0,
    unusable="",
    note=f"{SITE.note}; policy of whoever chose this site: the first volume starts with the first EEG sample",
)

N_VOLUMES = 150
NEAREST = (
    "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 AFz Fpz Pz Oz FT9 FT10 TP9 TP10 PO9 PO10 AFpz FCz AFp9 AFp10 F9 "
    "F10"
)
"""10-05 positions near E1 to E32: where the phantom takes their signals from."""


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """Two subjects, each with the pair that is refused and one EEG without an image. No sidecars are at hand."""
    return [run for subject in ("01", "02") for run in (_pair("unam_egi", subject), _alone("unam_egi", subject))]


def at_scan_runs(sidecars: Path | None) -> list[LikeRun]:
    """The same, where the policy is true."""
    name = SITE_AT_SCAN.name
    known = [replace(_pair(name, s), lead_s=0.0, verdicts=("unverified",), reason="") for s in ("01", "02")]
    return [run for known_one in known for run in (known_one, _alone(name, known_one.key.subject))]


def _pair(site: str, subject: str) -> LikeRun:
    key = RecordingKey(site, subject, "001", "rest")
    return LikeRun(
        key,
        eeg=f"{EEG_ROOT}/sub-{subject}/eeg/sub-{subject}_task-{TASK}_eeg.set",
        bold=f"{MRI_ROOT}/sub-{subject}/ses-001/func/{key.entities}_bold.nii.gz",
        n_volumes=N_VOLUMES,
        lead_s=7.3,
        tail_s=4.0,
        verdicts=("rejected",),
        reason="nothing shows that they are simultaneous",
    )


def _alone(site: str, subject: str) -> LikeRun:
    key = RecordingKey(site, subject, task="fmrirestingeo")
    return LikeRun(key, f"{EEG_ROOT}/sub-{subject}/eeg/{key.entities}_eeg.set", None, N_VOLUMES, reason="no BOLD")


def _sidecar(run: LikeRun) -> tuple[str, str]:
    """The site's ``eeg.json``, which gives continuous data an epoch length."""
    facts = {
        "TaskName": str(run.eeg).partition("task-")[2].partition("_")[0],
        "EEGReference": "Cz",
        "SamplingFrequency": 1000,
        "PowerLineFrequency": 60,
        "RecordingType": "continuous",
        "EpochLength": 1,
    }
    return str(run.eeg).replace(".set", ".json"), json.dumps(facts, indent=1)


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=(*NET, "ECG"),
    electrodes=dict(zip(NET, NEAREST.split(), strict=True)),
    eeg_format="eeglab-fdt",
    reference=("Cz",),
    beside=_sidecar,
    options={"datfile": "resting_export_v2.fdt"},
)
LIKE_AT_SCAN = replace(LIKE, site=SITE_AT_SCAN, runs=at_scan_runs)
