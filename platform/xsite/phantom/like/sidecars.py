"""Sidecars of a phantom: the real ones copied as they are, faults included, or written from the adapter's facts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from xsite.errors import SiteError
from xsite.phantom.like.plan import LikeRun, LikeSite
from xsite.phantom.write import write_json, write_table

MANIFEST = "_manifest.tsv"
SIGNAL_ENDINGS = (".vhdr", ".vmrk", ".eeg", ".dat", ".edf", ".set", ".fdt", ".mat", ".nii", ".nii.gz")
_SUBJECT = re.compile(r"(?:^|/)sub-([A-Za-z0-9]+)")


def manifest(sidecars: Path) -> dict[str, int | None]:
    """Every file of the real data set and its size in bytes (None where not known), from ``_manifest.tsv``.

    Raises
    ------
    SiteError
        The folder has no such table.
    """
    path = sidecars / MANIFEST
    if not path.is_file():
        raise SiteError(f"{sidecars}: no {MANIFEST} (path, bytes): not a folder of a real site's sidecars")
    files: dict[str, int | None] = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        name, _, rest = line.partition("\t")
        size = rest.partition("\t")[0]
        files[name] = int(size) if size.isdigit() else None
    return files


def subject_of(path: str) -> str:
    """Subject label in a path, or nothing."""
    found = _SUBJECT.search(path)
    return found[1] if found else ""


def entities_of(path: str) -> dict[str, str]:
    """BIDS entities of a file name, such as ``{"sub": "01", "task": "rest"}``; time stamps keep their underscore."""
    return dict(re.findall(r"(?:^|_)([a-z]+)-([A-Za-z0-9]+(?:_\d+(?=[_.]))?)", path.rpartition("/")[2]))


def run_files(files: Iterable[str], eeg_ending: str) -> dict[tuple[str, ...], tuple[str | None, str | None]]:
    """Published EEG and image of every run by its entities (subject, session, task, run), in their order.

    What the authors set aside (``eeg/rejected``) and derivatives are not runs.
    """
    found: dict[tuple[str, ...], list[str | None]] = {}
    for column, (folder, ending) in enumerate((("eeg", eeg_ending), ("func", "_bold.nii.gz"))):
        for name in files:
            if name.startswith("sub-") and name.endswith(ending) and name.split("/")[-2] == folder:
                found.setdefault(_labels(name.rpartition("/")[2]), [None, None])[column] = name
    return {entities: (found[entities][0], found[entities][1]) for entities in sorted(found)}


def sidecar_subjects(sidecars: Path) -> list[str]:
    """Subjects whose own sidecars are in the folder."""
    return sorted({subject_of(path.name) for path in sidecars.glob("sub-*") if path.is_dir()})


def real_first(labels: Iterable[str], sidecars: Path | None) -> list[str]:
    """Subject labels in order, those with real sidecars before the others."""
    real = set() if sidecars is None else set(sidecar_subjects(sidecars))
    return sorted(set(labels), key=lambda label: (label not in real, label))


def copy_sidecars(sidecars: Path, root: Path, subjects: Iterable[str], without: Iterable[LikeRun] = ()) -> list[Path]:
    """Copy all files without a subject and those of the chosen subjects, byte by byte.

    Signal files are not copied, and neither is what speaks about runs that are not written (``without``).
    """
    chosen, copied = set(subjects), []
    left_out = [_labels(Path(path).name) for run in without for path in (run.eeg, run.bold) if path]
    for path in sorted(sidecars.rglob("*")):
        relative = path.relative_to(sidecars)
        if path.is_dir() or relative.name in (MANIFEST, "_SOURCE.json") or relative.name.endswith(SIGNAL_ENDINGS):
            continue
        owner = subject_of(relative.as_posix())
        if owner and (owner not in chosen or _labels(relative.name) in left_out):
            continue
        target = root / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        copied.append(target)
    return copied


def _labels(name: str) -> tuple[str, ...]:
    parts = entities_of(name)
    return tuple(parts.get(entity, "") for entity in ("sub", "ses", "task", "run"))


def write_from_facts(like: LikeSite, runs: Iterable[LikeRun], root: Path) -> None:
    """Write what the adapter's facts say, wherever a real sidecar is not there already."""
    site = like.site
    about = {"Name": f"Phantom of {site.name}: simulated", "BIDSVersion": "1.8.0", "DatasetType": "raw"}
    _once(root / "dataset_description.json", about | {"License": "CC0"})
    for run in runs:
        if run.eeg is not None and like.eeg_sidecars != "none":
            _eeg_sidecars(like, run, root)
        if run.bold is not None:
            name = re.sub(r"\.nii(\.gz)?$", ".json", run.bold)
            timing = [round(k * site.t_r / like.slices, 4) for k in range(like.slices)]
            facts = {"TaskName": run.key.task or "rest", "RepetitionTime": site.t_r, "SliceTiming": timing}
            if not _inherited(root, run.key.task, "bold.json"):
                _once(root / name, facts)


def _eeg_sidecars(like: LikeSite, run: LikeRun, root: Path) -> None:
    path = root / str(run.eeg)
    kinds = [like.kind(name) for name in like.ch_names]
    facts = {
        "TaskName": run.key.task or "rest",
        "SamplingFrequency": like.rate,
        "PowerLineFrequency": like.site.line_freq,
        "EEGReference": like.site.reference,
        "SoftwareFilters": "n/a",
        "EEGChannelCount": kinds.count("eeg"),
        "ECGChannelCount": kinds.count("ecg"),
    }
    if like.eeg_sidecars == "root":
        place = f"{root}/task-{run.key.task}"
    else:
        place = str(path.with_name(path.name.removesuffix(path.suffix).removesuffix("_eeg")))
    if not _inherited(root, run.key.task, "eeg.json"):
        _once(Path(f"{place}_eeg.json"), facts)
    table = Path(f"{place}_channels.tsv")
    if table.exists() or _inherited(root, run.key.task, "channels.tsv"):
        return
    types = tuple(kind.upper() for kind in kinds)
    if like.channels_table is not None:
        table.write_text(like.channels_table(like.ch_names, types), encoding="utf-8")
    else:
        write_table(table, {"name": list(like.ch_names), "type": types, "units": ["uV"] * len(kinds)})


def _inherited(root: Path, task: str, ending: str) -> bool:
    return any((root / name).exists() for name in (f"task-{task}_{ending}", ending))


def _once(path: Path, facts: Mapping[str, object]) -> None:
    if not path.exists():
        write_json(path, facts)
