"""Which EEG and BOLD runs belong together before any fact is known: by names, and by what task labels share."""

from __future__ import annotations

import difflib
from dataclasses import replace
from pathlib import Path

from xsite.data.bids import pair_files
from xsite.data.inheritance import name_parts
from xsite.errors import SiteError
from xsite.site import RecordingFiles, Site

ALIKE = 0.6


def guess_task_pairs(root: Path, site: Site) -> tuple[list[RecordingFiles], dict[str, str]]:
    """Pairs by names, and the task labels that had to be brought together for it (EEG label to BOLD label).

    Parameters
    ----------
    root : Path
    site : Site
        Facts that let names alone decide (``scan_start`` without a marker, ``bold_space="template"``).

    Raises
    ------
    SiteError
        No folder, or nothing that could belong together.
    """
    pairing = pair_files(root, site)
    paired = {files.key.task for files in pairing.recordings}
    unpaired = list(pairing.unpaired)
    eeg = {t for p in unpaired if "_eeg." in p.name and (t := name_parts(p).get("task", ""))} - paired
    bold = {t for p in unpaired if "_bold." in p.name and (t := name_parts(p).get("task", ""))} - paired
    renamed = {}
    for task in sorted(eeg - bold):
        found = _nearest(task, sorted(bold - eeg))
        if found is not None:
            renamed[task] = found
    if renamed:
        pairing = pair_files(root, replace(site, task_pairs=renamed))
        there = {files.key.task for files in pairing.recordings}
        renamed = {task: label for task, label in renamed.items() if label in there}
    if not pairing.recordings:
        reasons = "; ".join(f"{path.name}: {reason}" for path, reason in list(pairing.unpaired.items())[:5])
        raise SiteError(
            f"{root}: no EEG and BOLD run that could belong together. Expected sub-XX/[ses-YY/]eeg/*_eeg.* and "
            f"func/*_bold.nii.gz. {reasons or 'No such file was found.'}"
        )
    return pairing.recordings, renamed


def _nearest(task: str, labels: list[str]) -> str | None:
    """The label that one of the two begins with, else the one most alike; the only one left if it is alone."""
    starts = [label for label in labels if task.lower().startswith(label.lower()) or label.startswith(task)]
    if len(starts) == 1:
        return starts[0]
    near = difflib.get_close_matches(task, labels, n=2, cutoff=ALIKE)
    return near[0] if len(near) == 1 else None
