"""NATVIEW (Nathan Kline Institute): naturalistic viewing and rest, 22 subjects, two sessions.

Download: the project's page at fcon_1000.projects.nitrc.org/indi/retro/nat_view.html names an S3 bucket (raw BIDS data
by subject); NEMAR mirrors it as nm000254 (``.set``). The mirror states no licence: ask before you publish. BOLD needs
fMRIPrep (``--output-spaces MNI152NLin2009cAsym``) in ``derivatives/fmriprep``. Telesford et al., Sci Data 2023,
doi:10.1038/s41597-023-02458-8.

The headers (``.vhdr``) point to ``.eeg`` files, but only ``.set`` files are shipped: those are read. In ``events.tsv``
the column ``onset`` counts from the first task marker and is clipped to 0 before it; ``sample`` is absolute at 5 kHz,
so :func:`read_eeg` takes the markers from there where the ``.set`` has none. ``checkeroff`` and ``checkerout`` were
recorded without the scanner. R128 is absent in 17 runs (sub-12 ses-01 entirely) and irregular in two checker runs:
refused. sub-09 ses-01 inscapes has BOLD and no EEG. EEG goes on for 3 to 69 s after the last trigger.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mne
import numpy as np

from site_adapters.caps import BC64
from xsite.data.files import numbers, read_tsv
from xsite.data.readers import marker_onsets
from xsite.data.readers import read_eeg as read_bids_eeg
from xsite.errors import FormatError
from xsite.phantom.like import EventTable, LikeRun, LikeSite, MarkerTrain
from xsite.recording import RecordingKey
from xsite.site import Expected, RecordingFiles, Site

CH_NAMES = (*(name for name in BC64 if name not in ("FT9", "FT10")), "EOGL", "EOGU")
OTHERS = {"ECG": "ecg", "EOGL": "eog", "EOGU": "eog"}


def read_eeg(files: RecordingFiles, site: Site) -> Any:
    """Default reader; markers come from the column ``sample`` of ``events.tsv`` where the EEG file has none.

    Raises
    ------
    FormatError
        The file or its table cannot be read.
    """
    raw = read_bids_eeg(files, replace(site, volume_marker=None))  # which leaves the clipped onsets alone
    path = files.eeg.with_name(files.eeg.name.replace("_eeg.set", "_events.tsv"))
    if len(marker_onsets(raw, site.volume_marker or "")) or not path.exists():
        return raw
    table = read_tsv(path)
    if not {"sample", "trial_type"} <= set(table.columns):
        raise FormatError(f"{path}: no columns 'sample' and 'trial_type' (found {list(table.columns)})")
    onset = numbers(table, ["sample"], path)["sample"].to_numpy() / site.sfreq
    text = table["trial_type"].fillna("").astype(str).to_numpy()
    use = np.isfinite(onset) & (onset <= raw.times[-1]) & (text != "")
    raw.set_annotations(mne.Annotations(onset[use], np.zeros(int(use.sum())), text[use]))
    return raw


SITE = Site(
    name="natview",
    sfreq=5000.0,
    t_r=2.1,
    line_freq=60.0,
    volume_marker="R128",
    ch_names=tuple(name for name in CH_NAMES if name not in OTHERS),
    ch_types=OTHERS,
    eeg_state="raw",
    reference="FCz",
    decoys=("Sync On",),
    left_out={"*task-checkeroff*": "recorded without the scanner", "*task-checkerout*": "recorded outside the scanner"},
    license="not stated",
    doi="10.1038/s41597-023-02458-8",
    note="volumes are known by their triggers only; whether the .set files hold markers is not known: both are read",
    expected=Expected(subjects=22, recordings=391),
    read_eeg=read_eeg,
)

N_VOLUMES = {"checker": 98, "rest": 288, "inscapes": 293, "dme": 289, "tp": 127, "peer": 55}
NUMBERED = ("dme", "tp")  # the other tasks have no run entity


def _run(subject: str, session: str, task: str, **facts: Any) -> LikeRun:
    key = RecordingKey("natview", subject, session, task, "01" if task in NUMBERED else "")
    folder = f"sub-{subject}/ses-{session}"
    whole: dict[str, Any] = {
        "eeg": f"{folder}/eeg/{key.entities}_eeg.set",
        "bold": f"{folder}/func/{key.entities}_bold.nii.gz",
        "n_volumes": N_VOLUMES.get(task, 98),
        "lead_s": 12.5,
        "tail_s": 9.0,
        "protocol": ((6.0, f"{task}_start"),),
    }
    return LikeRun(key, **whole | facts)


def like_runs(sidecars: Path | None) -> list[LikeRun]:
    """Runs that show each of the site's habits; its sidecars are not at hand (they may not be redistributed)."""
    silent: dict[str, Any] = {"triggers": "none", "verdicts": ("rejected",), "reason": "no volume marker"}
    jumbled: dict[str, Any] = {"triggers": "irregular", "verdicts": ("rejected",)}
    return [
        _run("01", "01", "checker", markers_in_file=False),
        *(_run("01", "01", task) for task in ("rest", "inscapes", "dme", "tp", "peer")),
        _run("01", "01", "checkeroff", bold=None, reason="without the scanner"),
        _run("09", "01", "inscapes", eeg=None, reason="no EEG"),
        _run("12", "01", "rest", **silent),
        _run("12", "01", "checker", **jumbled),
    ]


def _vhdr(run: LikeRun) -> tuple[str, str]:
    """Header of the original recording, which names a data file that is not shipped."""
    stem = str(run.eeg).removesuffix(".set")
    name = stem.rpartition("/")[2]
    facts = f"[Common Infos]\nDataFile={name}.eeg\nNumberOfChannels=64\nSamplingInterval=200\n"
    return f"{stem}.vhdr", f"Brain Vision Data Exchange Header File Version 1.0\n\n{facts}"


LIKE = LikeSite(
    site=SITE,
    runs=like_runs,
    ch_names=CH_NAMES,
    eeg_format="eeglab",
    trains=(MarkerTrain("Response/R128"),),
    events=EventTable(("onset", "duration", "sample", "trial_type"), sfreq=5000.0, origin="protocol"),
    positions=True,
    slices=38,
    beside=_vhdr,
)
