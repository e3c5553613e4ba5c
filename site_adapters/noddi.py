"""NODDI (UCL): rest at 1.5 T, 16 subjects. OSF 94c5t, CC BY 4.0.

Download: https://osf.io/94c5t/ (``osf -p 94c5t clone`` with osfclient), folders ``EEG1/32/export``,
``fMRI/32/3_nw_mepi_rest_with_cross.nii.gz``; three subjects are described in BIDS by bids-examples
(``eeg_rest_fmri``). Both layouts are read. The images are in the scanner's space: run fMRIPrep on a BIDS copy
(``sub-32/func/sub-32_task-rest_bold.nii.gz``) into ``derivatives/fmriprep``. Cite Deligianni et al., Front Neurosci
2014, doi:10.3389/fnins.2014.00258, and NeuroImage 2016. Subject 41 withdrew.

The raw EEG (5 kHz) has **no volume markers**: its ``Sync On`` is the heartbeat of the clock, every 2 s, 364 to 398 of
them, while the scan has 300 volumes of 2.16 s. ``SITE_RAW`` is therefore refused; ``SITE`` is the authors' export (250
Hz, corrected for gradient and pulse artifacts, cut to the scan), with ``Scan Start`` once and ``s `` 30 times a volume.
The marker file of one subject was seen in full (first volume at sample 37, EEG ends 13 samples before the last volume
does); only the folder of the export on OSF is known, not its file names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from site_adapters.caps import BC64, eeg_only
from xsite.data.bids import pair_files, preprocessed_images, recordings_of
from xsite.data.inheritance import name_parts
from xsite.errors import SiteError
from xsite.phantom.like import LikeRun, LikeSite, MarkerTrain
from xsite.phantom.like.sidecars import manifest, real_first, subject_of
from xsite.recording import RecordingKey
from xsite.site import Expected, RecordingFiles, Site

N_VOLUMES = 300
WITHDRAWN = "41"
OSF_IMAGE = "fMRI/{subject}/3_nw_mepi_rest_with_cross.nii.gz"


def find_recordings(root: Path, site: Site) -> list[RecordingFiles]:
    """Exported EEG with fMRIPrep's images, in the layout of bids-examples or of OSF.

    Raises
    ------
    SiteError
        The folder is absent, or holds not one pair.
    """
    root = Path(root)
    exported = sorted(root.glob("EEG1/*/export/*.vhdr"))
    if not exported:
        return recordings_of(pair_files(root, site, eeg_under="derivatives"), root, site)
    images = {name_parts(path)["sub"]: path for path in preprocessed_images(root) if "_space-MNI152" in path.name}
    found = [
        RecordingFiles(RecordingKey(site.name, subject, task="rest"), eeg, images[subject], _confounds(images[subject]))
        for eeg in exported
        if (subject := eeg.parents[1].name) in images and subject != WITHDRAWN
    ]
    if not found:
        raise SiteError(
            f"site {site.name!r}: {len(exported)} exported EEG files under {root}/EEG1 but no preprocessed image of "
            f"these subjects under {root}/derivatives/fmriprep (sub-32/func/sub-32_task-rest_space-MNI152NLin2009cAsym_"
            "desc-preproc_bold.nii.gz); run fMRIPrep on a BIDS copy of fMRI/ and put its output there"
        )
    return found


def _confounds(image: Path) -> Path:
    return image.with_name(image.name.partition("_space-")[0] + "_desc-confounds_timeseries.tsv")


SITE = Site(
    name="noddi",
    sfreq=250.0,
    t_r=2.16,
    line_freq=50.0,
    volume_marker="Scan Start",
    ch_names=eeg_only(BC64),
    ch_types={"ECG": "ecg"},
    eeg_state="clean",
    reference="FCz",
    decoys=("Sync On", "s ", "Scanner Start", "R"),
    left_out={"EEG1/41/*": "the subject withdrew", "*sub-41*": "the subject withdrew"},
    doi="10.17605/OSF.IO/94C5T",
    license="CC-BY-4.0",
    note="names of the exported files on OSF are not known: every header in EEG1/*/export is read",
    expected=Expected(subjects=16, recordings=16),
    find_recordings=find_recordings,
)
SITE_RAW = replace(
    SITE,
    name="noddi_raw",
    sfreq=5000.0,
    volume_marker=None,
    eeg_state="raw",
    decoys=("Sync On",),
    find_recordings=None,
    unusable="the raw EEG has no volume markers: its Sync On is a clock signal every 2 s; use site 'noddi', the export",
)


def _subjects(sidecars: Path | None) -> list[str]:
    if sidecars is None:
        return ["32", "35"]
    return real_first({subject_of(path) for path in manifest(sidecars)} - {""}, sidecars)


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """One run per subject: in the layout of bids-examples with its sidecars, in that of OSF without."""
    runs = []
    for subject in _subjects(sidecars):
        key = RecordingKey("noddi", subject, task="rest")
        stem = key.entities
        bids = f"derivatives/sub-{subject}/eeg/{stem}_eeg.vhdr", f"sub-{subject}/func/{stem}_bold.nii.gz"
        osf = f"EEG1/{subject}/export/{subject}_rest_export.vhdr", OSF_IMAGE.format(subject=subject)
        eeg, bold = bids if sidecars else osf
        runs.append(
            LikeRun(key, eeg, bold, N_VOLUMES, lead_s=36 / 250, tail_s=-13 / 250, verdicts=("ok", "unverified"))
        )
    return runs


def raw_runs(sidecars: Path | None) -> list[LikeRun]:
    """Raw EEG in BIDS: nothing in it tells when the scan began."""
    keys = [RecordingKey("noddi_raw", subject, task="rest") for subject in _subjects(sidecars)]
    return [
        LikeRun(
            key,
            f"sub-{key.subject}/eeg/{key.entities}_eeg.vhdr",
            f"sub-{key.subject}/func/{key.entities}_bold.nii.gz",
            N_VOLUMES,
            lead_s=31.4,
            tail_s=12.0,
            triggers="none",
            verdicts=("rejected",),
            reason="nothing shows that they are simultaneous",
        )
        for key in keys
    ]


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=BC64,
    eeg_format="brainvision-float32",
    trains=(
        MarkerTrain("Scanner/s ", count=30),
        MarkerTrain("Scanner/Scan Start"),
        MarkerTrain("SyncStatus/Sync On", "clock", every_s=2.0, phase_s=1.476),
        MarkerTrain("Pulse Artifact/R", "clock", every_s=0.89, phase_s=0.856),
    ),
    positions=True,
    slices=30,
)
LIKE_RAW = replace(
    LIKE,
    site=SITE_RAW,
    runs=raw_runs,
    eeg_format="brainvision",
    trains=(MarkerTrain("SyncStatus/Sync On", "clock", every_s=2.0, phase_s=1.26),),
    positions=False,
)
