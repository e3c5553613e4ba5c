"""Write a phantom of a real site: ``OUT/<site>/`` as the site publishes it, ``OUT/<site>.truth.json`` beside it."""

from __future__ import annotations

import json
from pathlib import Path
from zlib import crc32

import numpy as np

from xsite.errors import RecipeError, SiteError
from xsite.phantom.atlas import write_atlas
from xsite.phantom.like.formats import WRITERS, Signal
from xsite.phantom.like.images import write_images, write_noise_free
from xsite.phantom.like.plan import LikeRun, LikeSite
from xsite.phantom.like.sidecars import copy_sidecars, real_first, write_from_facts
from xsite.phantom.like.simulate import simulate
from xsite.phantom.like.timing import eeg_duration, event_rows, run_markers, shortened, volume_triggers
from xsite.phantom.like.truth import LikeTruth
from xsite.phantom.plan import Stream
from xsite.phantom.write import write_table
from xsite.signals.parcels import Atlas

POINTER = "/annex/objects/MD5E-s{size}--0123456789abcdef0123456789abcdef{suffix}\n"


def write_like(
    like: LikeSite,
    out: Path,
    *,
    sidecars: Path | None = None,
    subjects: int | None = None,
    max_volumes: int | None = None,
    max_runs: int | None = None,
    seed: int = 0,
) -> list[LikeTruth]:
    """Write a phantom of a real site.

    Parameters
    ----------
    like : LikeSite
    out : Path
        The tree goes to ``out / like.site.name``, which must not exist.
    sidecars : Path, optional
        Folder of the real site's sidecars; without it they are written from the facts.
    subjects : int, optional
        How many subjects, those with real sidecars first; all by default.
    max_volumes : int, optional
        Runs are shortened to so many volumes, and their EEG with them.
    max_runs : int, optional
        So many complete runs in all (runs with a fault or without a partner are kept: they are what a phantom is for).
    seed : int

    Returns
    -------
    list of LikeTruth
        One per run that was written, with its faults.

    Raises
    ------
    RecipeError
        A number out of range, or the target exists.
    SiteError
        The folder of sidecars is absent, or the site has no run.
    """
    root = Path(out) / like.site.name
    if root.exists():
        raise RecipeError(f"{root}: exists already; give another folder, or remove it")
    if (subjects is not None and subjects < 1) or (max_volumes is not None and max_volumes < 10):
        raise RecipeError(f"{subjects} subjects of {max_volumes} volumes: at least one subject and 10 volumes")
    if sidecars is not None and not sidecars.is_dir():
        raise SiteError(f"{sidecars}: no such folder of sidecars")
    runs = _chosen(like, sidecars, subjects, max_runs)
    runs = [shortened(run, max_volumes) for run in runs]
    root.mkdir(parents=True)
    if sidecars is not None:
        written = {(run.eeg, run.bold) for run in runs}
        others = [run for run in like.runs(sidecars) if (run.eeg, run.bold) not in written]
        copy_sidecars(sidecars, root, {run.key.subject for run in runs}, others)
    for path, content in like.stray.items():
        if (root / path).exists():
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content, encoding="utf-8")
    atlas = write_atlas(Path(out) / "atlas")
    truths = [_write_run(like, run, root, atlas, seed) for run in runs]
    write_from_facts(like, runs, root)
    facts = {str(truth.run.key): truth.facts() for truth in truths}
    (Path(out) / f"{like.site.name}.truth.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return truths


def expected_bytes(
    like: LikeSite,
    *,
    sidecars: Path | None = None,
    subjects: int | None = None,
    max_volumes: int | None = None,
    max_runs: int | None = None,
) -> int:
    """Bytes of EEG that :func:`write_like` would write with the same choices; images are small beside it."""
    runs = [shortened(run, max_volumes) for run in _chosen(like, sidecars, subjects, max_runs)]
    seconds = sum(max(0.0, eeg_duration(like, run)) for run in runs if run.eeg is not None)
    width = 4 if like.eeg_format in ("brainvision-float32", "eeglab", "eeglab-fdt") else 2
    return round(seconds * like.rate * len(like.ch_names) * width)


def _chosen(like: LikeSite, sidecars: Path | None, subjects: int | None, max_runs: int | None) -> list[LikeRun]:
    every = like.runs(sidecars)
    labels = real_first((run.key.subject for run in every), sidecars)[:subjects]
    chosen, complete = [], 0
    for run in (run for label in labels for run in every if run.key.subject == label):
        plain = run.paired and not run.triggers and not run.odd
        complete += plain
        if max_runs is None or not plain or complete <= max_runs:
            chosen.append(run)
    if not chosen:
        raise SiteError(f"site {like.site.name!r}: not one run to write")
    return chosen


def _write_run(like: LikeSite, run: LikeRun, root: Path, atlas: Atlas, seed: int) -> LikeTruth:
    truth = LikeTruth(run, volume_triggers(like, run), eeg_duration(like, run))
    pointers = {"eeg-pointer": [run.eeg], "bold-pointer": [run.bold], "pointers": [run.eeg, run.bold]}
    for published in pointers.get(run.file, []):
        _write_pointer(root / str(published))
    simulated = simulate(like, run, seed)
    if run.eeg is not None and run.file not in ("eeg-pointer", "pointers"):
        path = root / run.eeg
        path.parent.mkdir(parents=True, exist_ok=True)
        signal = Signal(
            ch_names=like.ch_names,
            kinds=tuple(like.kind(name) for name in like.ch_names),
            rows=simulated.rows,
            n_samples=round(truth.duration_s * like.rate),
            sfreq=like.rate,
            markers=run_markers(like, run, _rng(run, seed), in_file=True),
            positions=simulated.positions,
            resolution_uv=like.resolution_uv,
            options=like.options,
        )
        (like.write_eeg or WRITERS[like.eeg_format])(path, signal)
        if like.beside is not None:
            name, text = like.beside(run)
            if not (root / name).exists():  # a real one stands
                (root / name).write_text(text, encoding="utf-8")
        _write_events(like, run, path, root, seed)
        _damage_file(path, run)
    if simulated.bold is not None and run.file not in ("bold-pointer", "no-bold", "pointers"):
        write_images(like, run, simulated.bold, root)
        if run.paired:
            write_noise_free(like, run, simulated.bold, atlas, root)
    return truth


def _rng(run: LikeRun, seed: int) -> np.random.Generator:
    """The damage of a run, the same for its file and its table."""
    return np.random.default_rng([seed, crc32(run.key.entities.encode()), int(Stream.TIMING)])


def _write_events(like: LikeSite, run: LikeRun, path: Path, root: Path, seed: int) -> None:
    if like.events is None:
        return
    markers = run_markers(like, run, _rng(run, seed))
    rows = event_rows(like.events, markers, {text for _, text in run.protocol})
    stem = path.name.removesuffix(path.suffix).removesuffix("_eeg")
    write_table(path.with_name(f"{stem}_events.tsv"), rows)
    if like.events.func_copy and run.bold is not None:
        folder = (root / run.bold).parent
        write_table(folder / f"{(root / run.bold).name.partition('_bold')[0]}_events.tsv", rows)


def _write_pointer(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(POINTER.format(size=1000, suffix=path.suffix), encoding="utf-8")


def _damage_file(path: Path, run: LikeRun) -> None:
    """Faults of the data file: twice its bytes, not whole frames, or not there."""
    twins = [path.with_suffix(suffix) for suffix in (".eeg", ".dat", ".fdt") if path.suffix in (".vhdr", ".set")]
    data = next((twin for twin in twins if twin.exists()), path)
    if run.file == "no-eeg-data":
        data.unlink()
    elif run.file == "eeg-twice":
        data.write_bytes(2 * data.read_bytes())
    elif run.file == "eeg-ragged":
        data.write_bytes(data.read_bytes()[:-7])
