"""Which EEG belongs to which BOLD: by their names or the site's facts about them, and never by names alone.

Names propose, evidence decides (:mod:`xsite.data.simultaneity`). Whatever is left out, is left out with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from xsite.data.files import brainvision_facts, brainvision_part, check_file
from xsite.data.headers import eeg_header
from xsite.data.inheritance import name_parts, run_parts
from xsite.data.simultaneity import evidence_of
from xsite.errors import FormatError
from xsite.recording import RecordingKey
from xsite.site import RecordingFiles, Site

MANY_PARTS = {"echo", "part"}  # one of several images of the same run: not to be read alone
OPTIONAL = ("acq", "ce", "dir", "rec")  # compared only where both names have them
PREFERENCE = (".vhdr", ".edf", ".bdf", ".set", ".gz", ".nii")  # of twins that hold the same run
Parts = dict[str, str]


@dataclass(frozen=True)
class Pairing:
    """What lies under a root: complete recordings, and files that are left out with the reason.

    Parameters
    ----------
    recordings : list of RecordingFiles
    unpaired : dict of Path to str
    evidence : dict of str to str
        Recording (its entities) to what shows that EEG and BOLD are simultaneous.
    refused : dict of Path to Path
        EEG to the BOLD that its name or the site proposed, of pairs that were refused.
    """

    recordings: list[RecordingFiles] = field(default_factory=list)
    unpaired: dict[Path, str] = field(default_factory=dict)
    evidence: dict[str, str] = field(default_factory=dict)
    refused: dict[Path, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A file of one run and the entities by which it is compared with others (after the site's renaming)."""

    path: Path
    parts: Parts


def pair_lists(
    root: Path, site: Site, eeg: Iterable[Path], bold: Iterable[Path], refuse: Callable[[Path], str] = lambda bold: ""
) -> Pairing:
    """Pair listed EEG files with listed BOLD images; the key names the run as the BOLD does.

    Site adapters with a layout of their own list the files and leave the rest to this function.

    Parameters
    ----------
    root : Path
        Of the data set: patterns of ``site.left_out`` are relative to it, and ``scans.tsv`` files lie below it.
    site : Site
        Its ``tasks``, ``task_pairs``, ``left_out``, ``volume_marker``, ``scan_start``.
    eeg, bold : iterable of Path
        Files with BIDS entities in their names.
    refuse : callable
        Why the BOLD image of a pair cannot be used, or nothing.
    """
    pairing = Pairing()
    eeg_runs = _runs(root, site, eeg, pairing.unpaired, renamed=True)
    bold_runs = _runs(root, site, bold, pairing.unpaired, renamed=False)
    partners = {run.path: [other for other in bold_runs if _same_run(run, other)] for run in eeg_runs}
    partners = {path: _nearest(path, found) for path, found in partners.items()}
    _pair_unnumbered(eeg_runs, bold_runs, partners)
    claims: dict[Path, list[Path]] = {}
    for run in eeg_runs:
        for other in partners[run.path]:
            claims.setdefault(other.path, []).append(run.path)
    for run in eeg_runs:
        found = partners[run.path]
        if len(found) == 1 and len(claims[found[0].path]) == 1:
            _pair(root, site, run, found[0], pairing, refuse)
        elif found:
            names = sorted({other.path.name for other in found} | {p.name for o in found for p in claims[o.path]})
            names.remove(run.path.name)
            reason = (
                f"cannot tell which belong together: {', '.join(names)}; say so in task_pairs or left_out of the site"
            )
            for path in (run.path, *(other.path for other in found)):
                pairing.unpaired[path] = reason
        else:
            pairing.unpaired[run.path] = _no_partner(run, bold_runs, "BOLD")
    for run in bold_runs:
        if run.path not in claims:
            pairing.unpaired[run.path] = _no_partner(run, eeg_runs, "EEG")
    return pairing


def _pair(root: Path, site: Site, eeg: Run, bold: Run, pairing: Pairing, refuse: Callable[[Path], str]) -> None:
    key = recording_key(site, eeg, bold)
    try:
        check_file(bold.path)
        evidence = evidence_of(root, eeg.path, bold.path, eeg_header(eeg.path), site)
        reason = refuse(bold.path) if evidence.simultaneous else evidence.reason
    except FormatError as error:
        reason = str(error).replace(f"{root}/", "")
    if not reason and key.entities in pairing.evidence:
        reason = f"a second recording would be called {key.entities}; choose one with left_out of the site"
    if not reason:
        pairing.recordings.append(RecordingFiles(key, eeg.path, bold.path))
        pairing.evidence[key.entities] = evidence.reason
        return
    pairing.unpaired[eeg.path] = pairing.unpaired[bold.path] = reason
    pairing.refused[eeg.path] = bold.path


def recording_key(site: Site, eeg: Run, bold: Run) -> RecordingKey:
    """Key of a pair: task and run as the BOLD calls them; a run index that differs in zeros only, as the EEG does."""
    parts, own = name_parts(bold.path), name_parts(eeg.path)
    same = own.get("run", "").lstrip("0") == parts.get("run", "").lstrip("0")
    run = own.get("run", "") if same or "run" not in parts else parts["run"]
    return RecordingKey(site.name, parts["sub"], parts.get("ses", ""), parts.get("task", ""), run)


def _runs(root: Path, site: Site, paths: Iterable[Path], unpaired: dict[Path, str], *, renamed: bool) -> list[Run]:
    """Files that may be paired, one per run: of twins the first that is complete."""
    chosen: dict[tuple[tuple[str, str], ...], Run] = {}
    for path in sorted(paths, key=_preference):
        reason = _refusal(root, site, path, renamed=renamed)
        if reason:
            unpaired[path] = reason
            continue
        parts = _renamed(path, site) if renamed else run_parts(path)
        twin = chosen.setdefault(tuple(parts.items()), Run(path, parts)).path
        if twin != path:
            unpaired[path] = f"same entities as {twin.name}"
    return sorted(chosen.values(), key=lambda run: run.path)


def _preference(path: Path) -> tuple[bool, int, Path]:
    suffix = path.suffix.lower()
    return not _is_complete(path), PREFERENCE.index(suffix) if suffix in PREFERENCE else len(PREFERENCE), path


def _is_complete(path: Path) -> bool:
    try:
        check_file(path)
        return path.suffix != ".vhdr" or brainvision_part(path, brainvision_facts(path), "DataFile") is not None
    except FormatError:
        return False


def _refusal(root: Path, site: Site, path: Path, *, renamed: bool) -> str:
    """Why a file is not even looked at, or nothing."""
    relative = path.relative_to(root).as_posix()
    for pattern, why in site.left_out.items():
        if fnmatch(relative, pattern):
            return f"left out by the site: {why}"
    if MANY_PARTS & name_parts(path).keys():
        return "one echo or part of a run; combine them first (fMRIPrep does)"
    if "sub" not in name_parts(path):
        return "no subject in its name"
    task = (_renamed(path, site) if renamed else run_parts(path)).get("task", "")
    if site.tasks and task not in site.tasks:
        return f"task {task!r} was not recorded simultaneously (the site names {', '.join(site.tasks)})"
    return ""


def _renamed(path: Path, site: Site) -> Parts:
    """Entities of an EEG file after ``site.task_pairs``: whole entities first, then the task label."""
    parts = run_parts(path)
    for wanted, given in site.task_pairs.items():
        if "-" in wanted and _entities(wanted).items() <= parts.items():
            return {name: value for name, value in (parts | _entities(given)).items() if value}
    task = parts.get("task", "")
    return parts | ({"task": site.task_pairs[task]} if task in site.task_pairs else {})


def _entities(text: str) -> Parts:
    return run_parts(Path(text))


def _same_run(eeg: Run, bold: Run) -> bool:
    whole = all(eeg.parts.get(name) == bold.parts.get(name) for name in ("sub", "ses", "task", "run"))
    return whole and all(
        eeg.parts[name] == bold.parts[name] for name in OPTIONAL if name in eeg.parts and name in bold.parts
    )


def _nearest(path: Path, found: list[Run]) -> list[Run]:
    """Of several images the one that is named exactly as the EEG: one with ``acq-`` or ``dir-`` is another run."""
    exact = [
        run
        for run in found
        if {n for n in OPTIONAL if n in run.parts} == {n for n in OPTIONAL if n in name_parts(path)}
    ]
    return exact if len(exact) == 1 else found


def _pair_unnumbered(eeg: Sequence[Run], bold: Sequence[Run], partners: dict[Path, list[Run]]) -> None:
    """Runs whose names count them on one side only: where there is one on each side, they are one run."""
    taken = {other.path for found in partners.values() for other in found}

    def place(run: Run) -> tuple[str | None, ...]:
        return tuple(run.parts.get(name) for name in ("sub", "ses", "task"))

    for run in eeg:
        rivals = [other for other in eeg if place(other) == place(run)]
        there = [other for other in bold if place(other) == place(run)]
        alone = len(rivals) == len(there) == 1 and there[0].path not in taken
        if alone and ("run" in run.parts) != ("run" in there[0].parts):
            partners[run.path] = there


def _no_partner(run: Run, others: Sequence[Run], what: str) -> str:
    """Why a file has no partner; a near miss is named, so that a person can see whether it is one."""
    reason = f"no {what} with the same entities"
    near = [other for other in others if all(other.parts.get(n) == run.parts.get(n) for n in ("sub", "task"))]
    sessions = sorted({other.parts.get("ses", "none") for other in near} - {run.parts.get("ses", "none")})
    if near and len(sessions) == len({other.parts.get("ses") for other in near}):
        reason += f" (that of session {', '.join(sessions)} was recorded at another time)"
    elif near:
        reason += f" (nearest: {near[0].path.name})"
    return reason
