"""A first draft of a site's facts, from looking at its files: each with how it was found and how certain that is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mne
import nibabel as nib
from nibabel.filebasedimages import ImageFileError

from xsite.data.bold_readers import sidecar_facts
from xsite.data.files import known, read_json
from xsite.data.guess_eeg import Look, channel_facts, eeg_state_fact, line_fact, look_at_recording, scale_fact
from xsite.data.guess_pairs import guess_task_pairs
from xsite.data.inheritance import eeg_json_paths
from xsite.data.marker_looks import MarkerLook
from xsite.data.site_file import Fact
from xsite.errors import FormatError, SiteError, XsiteError
from xsite.signals.channel_names import is_electrode
from xsite.site import RecordingFiles, Site

N_LOOKS = 3
LICENSES = re.compile(r"CC0.*|CC[ -]BY[-A-Z0-9. ]*|PDDL.*|ODbL.*|public domain", re.IGNORECASE)
DOI = re.compile(r"(?:doi:|https?://doi\.org/)?10\.\d{4,9}/\S{1,60}")
REFERENCE_WORDS = {"average", "common", "linked", "mastoid", "mastoids", "earlobes", "ears", "and", "reference", "nose"}


@dataclass(frozen=True, eq=False)
class Guess:
    """Facts in the order of the file, and what was looked at in words."""

    facts: list[Fact]
    words: str


def guess_site(root: Path, name: str) -> Guess:
    """Look at a BIDS data set and propose the facts of its site.

    Parameters
    ----------
    root : Path
    name : str
        Site label.

    Raises
    ------
    SiteError
        No such folder, or not one EEG and BOLD file that could belong together.
    """
    root = Path(root)
    blank = Site(name, 1.0, 1.0, 50.0, None, scan_start=0.0, bold_space="template")
    pairs, renamed = guess_task_pairs(root, blank)
    looking = replace(blank, task_pairs=renamed)
    t_r = _repetition_time(pairs)
    looking = replace(looking, t_r=float(t_r.value))
    with mne.utils.use_log_level("error"):
        looks, problems = _looks(pairs, looking)
        first = looks[0]
        facts = [
            Fact("name", name, "label of the site in every recording's key: letters, digits, - and _"),
            _sfreq(looks),
            t_r,
            line_fact(first, _stated(first.files, "PowerLineFrequency")),
            *_marker_facts(looks),
            eeg_state_fact(first),
            _reference(first.files),
            *channel_facts(first, looking),
            *scale_fact(first, looking),
        ]
    facts += [*_bold_facts(root, pairs), *_task_facts(renamed), *_description(root), _expected(pairs)]
    told = ", ".join(look.files.eeg.name for look in looks)
    words = f"{len(pairs)} pairs of EEG and BOLD by their names; opened: {told}"
    return Guess(facts, words + "".join(f"; not readable: {problem}" for problem in problems))


def _repetition_time(pairs: Sequence[RecordingFiles]) -> Fact:
    """The usual one of sidecar and header; milliseconds become seconds."""
    found: Counter[tuple[float, str]] = Counter()
    for files in pairs:
        try:
            stated = known(sidecar_facts(files.bold, files.key).get("RepetitionTime"), positive=True)
            source = "RepetitionTime of the sidecars"
            if not isinstance(stated, int | float):
                stated, source = float(nib.load(files.bold).header.get_zooms()[3]), "the image headers"
        except (FormatError, ImageFileError, OSError, IndexError):
            continue
        if stated > 0:
            found[round(stated / 1000 if stated > 20 else float(stated), 4), source] += 1
    if not found:
        return Fact("t_r", 2.0, "repetition time in seconds: neither sidecars nor headers tell it", certain=False)
    (t_r, source), count = found.most_common(1)[0]
    how = f"repetition time in seconds: {source}, {count} of {len(pairs)} runs"
    others = sorted({other for other, _ in found} - {t_r})
    if others:
        how += f"; other runs have {others}: give those a site of their own"
    return Fact("t_r", t_r, how, certain=not others)


def _looks(pairs: Sequence[RecordingFiles], site: Site) -> tuple[list[Look], list[str]]:
    """Recordings of up to three subjects, opened; problems in words."""
    by_subject = {files.key.subject: files for files in reversed(pairs)}
    chosen = [by_subject[subject] for subject in sorted(by_subject)][:N_LOOKS]
    chosen += [files for files in pairs if files not in chosen][: N_LOOKS - len(chosen)]
    looks, problems = [], []
    for files in chosen:
        try:
            looks.append(look_at_recording(files, site))
        except XsiteError as error:
            problems.append(str(error))
    if not looks:
        raise SiteError(f"site {site.name!r}: not one recording can be opened: {'; '.join(problems)}")
    return looks, problems


def _sfreq(looks: Sequence[Look]) -> Fact:
    rates = Counter(look.sfreq for look in looks)
    rate, count = rates.most_common(1)[0]
    how = f"EEG sampling frequency in Hz: {count} of {len(looks)} files that were opened"
    stated = _stated(looks[0].files, "SamplingFrequency")
    if isinstance(stated, int | float) and abs(stated / rate - 1) > 0.01:
        how += f"; the sidecar says {stated:g}, which is not what the file has"
    return Fact("sfreq", rate, how, certain=len(rates) == 1)


def _stated(files: RecordingFiles, key: str) -> Any:
    """What the EEG's sidecars say, or nothing."""
    facts: dict[str, Any] = {}
    for path in eeg_json_paths(files.eeg):
        try:
            facts |= read_json(path)
        except FormatError:
            continue
    return known(facts.get(key))


def _marker_facts(looks: Sequence[Look]) -> list[Fact]:
    """Volume marker, decoys, and what their number says about dummies and extra markers."""
    best = next((look.markers[0] for look in looks if look.markers), None)
    if best is None or best.likeness not in ("volumes", "slices", "volumes?"):
        how = (
            "no marker keeps the TR. If the EEG has none, write scan_start: seconds from its start to the first volume"
        )
        return [Fact("volume_marker", None, how, certain=False), *_decoys(looks, None)]
    rivals = [m for m in looks[0].markers[1:] if m.likeness == best.likeness and m.likeness != "slices"]
    counted = [m for look in looks for m in look.markers if m.name == best.name and m.place == best.place]
    how = f"marker of each volume: {best.words}; so in {len(counted)} of {len(looks)} recordings"
    if best.place != "file":
        how += f" (from {best.place})"
    if rivals:
        how += "; others keep the TR as well: " + ", ".join(repr(m.name) for m in rivals)
    facts = [Fact("volume_marker", best.name, how, certain=best.likeness != "volumes?" and not rivals)]
    if best.per_volume > 1:
        facts.append(Fact("triggers_per_volume", best.per_volume, "it marks slices (or groups of slices), not volumes"))
    if best.unit != "s":
        facts.append(Fact("events_unit", best.unit, "onsets in events.tsv make a train of volumes only in this unit"))
        if best.unit_sfreq:
            facts.append(Fact("events_sfreq", best.unit_sfreq, "rate of those samples in Hz"))
    return [*facts, *_surplus(looks, best), *_decoys(looks, best)]


def _surplus(looks: Sequence[Look], best: MarkerLook) -> list[Fact]:
    """Markers more than volumes, the same number everywhere or not."""
    extra = {
        round(m.count / m.per_volume) - look.n_volumes for look in looks for m in look.markers if m.name == best.name
    }
    if extra in ({0}, set()):
        return []
    surplus = max(extra)
    how = f"markers more (+) or fewer (-) than volumes in the recordings that were opened: {sorted(extra)}. "
    if surplus > 2:
        return [
            Fact("dummy_volumes", surplus, how + "If those are dummy scans, remove the #", certain=False, offered=True)
        ]
    name = "extra_markers" if surplus > 0 else "missing_markers"
    how += "`end` for scans stopped by hand, `start` for dummy scans that are not in the image: remove the # if sure"
    return [Fact(name, "end", how, certain=False, offered=True)]


def _decoys(looks: Sequence[Look], best: MarkerLook | None) -> list[Fact]:
    names = sorted(
        {
            m.name
            for look in looks
            for m in look.markers
            if m.likeness != "event" and (best is None or m.name.rpartition("/")[2] != best.name.rpartition("/")[2])
        }
    )
    if best is None or not names:
        return []
    return [Fact("decoys", names, "regular trains that are not the volume marker", certain=False)]


def _reference(files: RecordingFiles) -> Fact:
    """Recording reference, where the sidecar names electrodes; free text is not copied: facts go to the store."""
    stated = _stated(files, "EEGReference")
    if not isinstance(stated, str):
        return Fact("reference", "n/s", "recording reference: the EEG's sidecar does not say", certain=False)
    words = re.findall(r"[A-Za-z0-9]+", stated)
    plain = [word for word in words if is_electrode(word) or word.upper() in ("A1", "A2", "M1", "M2")]
    if words and all(word in plain or word.lower() in REFERENCE_WORDS for word in words):
        return Fact("reference", stated.strip(), "recording reference: EEGReference of the EEG's sidecar")
    how = "recording reference: EEGReference of the sidecar is free text, write what it means"
    return Fact("reference", " + ".join(plain) or "n/s", how, certain=False)


def _bold_facts(root: Path, pairs: Sequence[RecordingFiles]) -> list[Fact]:
    """Whether fMRIPrep's output is there, and confounds."""
    derived = sum("derivatives" in files.bold.relative_to(root).parts for files in pairs)
    how = f"{derived} of {len(pairs)} runs have an image of fMRIPrep"
    if not derived:
        how += ": run it, or write `template` if the published images are in template space already"
    confounds = sum(files.confounds is not None and files.confounds.exists() for files in pairs)
    strategy = "motion6" if confounds else "none"
    words = f"{confounds} of {len(pairs)} runs have a table of confounds; what is regressed out (nilearn's names too)"
    return [
        Fact("bold_space", "derivative", how, certain=derived == len(pairs)),
        Fact("confounds", strategy, words, certain=confounds in (0, len(pairs))),
    ]


def _task_facts(renamed: dict[str, str]) -> list[Fact]:
    if not renamed:
        return []
    how = "EEG task label to BOLD task label: these runs pair in no other way"
    return [Fact("task_pairs", renamed, how, certain=False)]


def _description(root: Path) -> list[Fact]:
    """Licence and DOI where they look like ones: other text may hold anything."""
    path = root / "dataset_description.json"
    try:
        stated = read_json(path) if path.is_file() else {}
    except FormatError:
        stated = {}
    facts = []
    for name, key, pattern in (("license", "License", LICENSES), ("doi", "DatasetDOI", DOI)):
        value = str(stated.get(key) or "").strip()
        if value and pattern.fullmatch(value):
            facts.append(Fact(name, value, f"{key} of dataset_description.json"))
        else:
            how = f"dataset_description.json has no {key} that could be copied as it is"
            facts.append(Fact(name, "", how, certain=False, offered=True))
    return facts


def _expected(pairs: Sequence[RecordingFiles]) -> Fact:
    count = {"subjects": len({files.key.subject for files in pairs}), "recordings": len(pairs)}
    return Fact("expected", count, "what is here now: is the download complete?", certain=False)
