"""What must not reach the store: paths, and words that came from headers instead of from the site's facts.

Headers are never copied; but a marker, a channel, a column or a file may be called after a person or a day, and such
names turn up in evidence and notes. Names that say what they are (an electrode, a marker code, fMRIPrep's columns, BIDS
file names) stay; all others get a number. The site's own facts are the laboratory's words and stay as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from xsite.data.fingerprint import sha256
from xsite.data.markers import is_known
from xsite.recording import Montage, Recording, RecordingKey
from xsite.signals.channel_names import bipolar_pair, egi_number, is_electrode, tidy_name, type_from_name
from xsite.site import RecordingFiles, Site

_ENTITIES = r"(?:sub|ses|task|acq|ce|dir|rec|run|echo|space|res|den|label|desc|from|to|mode|part|proc|hemi|split)"
_SUFFIXES = r"(?:eeg|bold|channels|events|electrodes|coordsystem|timeseries|regressors|xfm|headmotion|headmove|mat)"
_ENDINGS = r"(?:\.(?:vhdr|vmrk|eeg|dat|edf|bdf|set|fdt|mat|json|tsv|txt|par|nii\.gz|nii|h5))"
_FILE = re.compile(rf"(?:{_ENTITIES}-[A-Za-z0-9]+_)*{_SUFFIXES}{_ENDINGS}")
_KINDS = r"(?:(?:Response|Stimulus|SyncStatus|Scanner|Volume|Trigger|Comment|Pulse Artifact)/\s*)?"
_CODE = re.compile(
    rf"{_KINDS}(?:[A-Za-z]{{0,2}} *\d{{1,5}}|Sync O(?:n|ff)|Scan Start)|boundary|New Segment/?|(?:BAD|EDGE)_?\w{{0,12}}"
)
_NUMBERED = re.compile(r"[A-Za-z]{1,4}[ _-]?\d{1,3}")
_CONFOUND = re.compile(
    r"(?:(?:trans|rot)_[xyz]|framewise_displacement|(?:std_)?dvars|rmsd|csf|white_matter|global_signal|csf_wm"
    r"|[acetw]_comp_cor_\d+|cosine_?\d+|aroma_motion_\d+|(?:non_steady_state|motion)_outlier_?\d+"
    r"|pitch|roll|yaw|[xyz]|[rd][xyz])(?:_derivative1)?(?:_power2)?"
)
_PATH = re.compile(r"(?<![\w.:/])(?:/[^/:;,()'\"\n]+)+/(?=[^/\s])")
_QUOTED = re.compile(r"(?<!\w)[bBrRuU]{0,2}(['\"])((?:\\.|(?!\1)[^\\]|\1(?=\w))*?)(?:\1(?!\w)|\Z)", re.DOTALL)
_WRAPPED = re.compile(r"\((\w*(?:[Ee]rror|Exception|Warning|File)): (?:.*\)|.*)", re.DOTALL)
_NAMED_FILE = re.compile(rf"[^\s'\"(),;]+{_ENDINGS}(?!\w)", re.IGNORECASE)
DATE = re.compile(r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
"""Eight digits that are a day, as some laboratories put them into labels."""


class Names:
    """Which names are replaced in everything that is stored about one recording.

    Parameters
    ----------
    site : Site
    key : RecordingKey
    sources : iterable of Path
        Source files: neither their folders nor names that are not BIDS are stored.
    markers, channels, confounds : iterable of str
        As the files spell them.
    """

    def __init__(
        self,
        site: Site,
        key: RecordingKey,
        sources: Iterable[Path],
        *,
        markers: Iterable[str] = (),
        channels: Iterable[str] = (),
        confounds: Iterable[str] = (),
    ) -> None:
        paths = [Path(path) for path in sources]
        folders = {folder for path in paths for folder in path.parents if len(folder.parts) > 1}
        self._folders = sorted((f"{folder}/" for folder in folders), key=len, reverse=True)
        self.files = {path.name: file_name(path, key) for path in paths}
        self.markers = _numbered(markers, lambda name: is_known(name, site) or _is_code(name), "marker")
        self.channels = _numbered(channels, lambda name: _is_channel(name, site), "channel")
        self.confounds = _numbered(confounds, _is_confound, "regressor")
        replaced = self.files | self.markers | self.channels | self.confounds
        self._words = {old: new for old, new in replaced.items() if old != new and old.strip()}
        for old, new in list(self._words.items()):
            self._words.setdefault(repr(old)[1:-1], new)  # evidence quotes with repr
            self._words.setdefault(tidy_name(old) or old, new)
        longest = sorted(self._words, key=len, reverse=True)
        self._pattern = (
            re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in longest)) if longest else None
        )

    def private(self, recording: Recording) -> Recording:
        """The same recording without private names in its labels, provenance and quality."""
        montage = recording.montage
        renamed = tuple(self.channels.get(name, name) for name in montage.ch_names)
        return replace(
            recording,
            montage=Montage(renamed, montage.positions),
            confound_names=tuple(self.confounds.get(name, name) for name in recording.confound_names),
            provenance=self.clean(recording.provenance),
        )

    def clean(self, value: Any) -> Any:
        """The same value with folders and private names replaced in all its texts."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {
                (self._text(name) if isinstance(name, str) else name): (item if name == "step" else self.clean(item))
                for name, item in value.items()
            }
        if isinstance(value, list | tuple):
            return type(value)(self.clean(item) for item in value)
        return str(value.name) if isinstance(value, Path) else value

    def _text(self, text: str) -> str:
        for folder in self._folders:
            text = text.replace(folder, "")
        return text if self._pattern is None else self._pattern.sub(lambda found: self._words[found[0]], text)


def file_name(path: Path, key: RecordingKey) -> str:
    """A BIDS name of the recording's own subject as it is; any other by the content of its file.

    >>> file_name(Path("sub-01_task-rest_eeg.vhdr"), RecordingKey("a", "01", task="rest"))
    'sub-01_task-rest_eeg.vhdr'
    """
    if _FILE.fullmatch(path.name):
        parts = dict(part.split("-", 1) for part in path.name.split("_")[:-1])
        if parts.get("sub", key.subject) == key.subject and not any(DATE.search(label) for label in parts.values()):
            return path.name
    return f"file-{sha256(path)[:8]}{_ending(path.name)}" if path.is_file() else f"file{_ending(path.name)}"


def dated_labels(found: Iterable[RecordingFiles]) -> list[str]:
    """Labels of the recordings' keys that look like a date."""
    return sorted({label for f in found for label in _labels(f.key).values() if DATE.search(label)})


def without_dates(found: Sequence[RecordingFiles]) -> list[RecordingFiles]:
    """The same recordings under keys that tell no day: a label that looks like a date gives way to its place in order.

    Subjects become ``p1, p2, ...`` in the order of their labels; a subject's sessions, tasks and runs ``day1, day2,
    ...``: what was first stays first. A hash would be no secret, there are few days to try.

    >>> key = RecordingKey("a", "01", session="20190304", task="rest")
    >>> without_dates([RecordingFiles(key, Path("x.vhdr"), Path("x.nii"))])[0].key.session
    'day1'
    """
    dated = [{name: label for name, label in _labels(f.key).items() if DATE.search(label)} for f in found]
    places: dict[tuple[str, str], list[str]] = {}
    for files, labels in zip(found, dated, strict=True):
        for name, label in labels.items():
            places.setdefault((name, _owner(files.key, name)), []).append(label)
    order = {place: sorted(set(labels)) for place, labels in places.items()}
    renamed = []
    for files, labels in zip(found, dated, strict=True):
        new = {
            name: f"{'p' if name == 'subject' else 'day'}{order[name, _owner(files.key, name)].index(label) + 1}"
            for name, label in labels.items()
        }
        renamed.append(replace(files, key=replace(files.key, **new)) if new else files)
    return renamed


def _labels(key: RecordingKey) -> dict[str, str]:
    return {name: getattr(key, name) for name in ("subject", "session", "task", "run")}


def _owner(key: RecordingKey, name: str) -> str:
    """Whom a label is counted for: subjects among all, everything else within one subject."""
    return "" if name == "subject" else key.subject


def public_words(words: str, near: Iterable[Path], known: Iterable[str] = (), places: Iterable[str] = ()) -> str:
    """An error's or a reason's words as they may be stored: quotations, folders and odd file names taken out.

    Of a library's error, wrapped as ``(ValueError: ...)``, the kind stays.

    Parameters
    ----------
    words : str
    near : iterable of Path
        Files that the words are about: their folders, and the names of what lies beside them, are recognised even with
        blanks in them.
    known : iterable of str
        The site's own words, which may be quoted.
    places : iterable of str
        Other paths and URLs that the words may hold, blanks and all: the atlas, the store, the home folder.
    """
    paths = [Path(path) for path in near]
    words = _without_places(_WRAPPED.sub(r"(\1)", words), paths, places)
    beside = {other.name for path in paths if path.parent.is_dir() for other in path.parent.iterdir()}
    for name in sorted({path.name for path in paths} | beside, key=len, reverse=True):
        if not _is_file(name):
            words = words.replace(name, f"file{_ending(name)}")
    words = _PATH.sub("", words)
    public = set(known)
    words = _QUOTED.sub(lambda found: found[0] if _may_be_quoted(found[2], public) else "'…'", words)
    return _NAMED_FILE.sub(lambda found: found[0] if _is_file(found[0]) else f"file{_ending(found[0])}", words)


def _without_places(words: str, near: Iterable[Path], places: Iterable[str]) -> str:
    """The words without folders of files, and without places: a file keeps its ending."""
    folders = {str(folder): "the folder" for path in near for folder in path.parents if len(folder.parts) > 1}
    for place in places:
        if "://" in place:
            folders[place.rstrip("/")] = "the folder"
        elif Path(place).is_absolute():
            ending = _ending(Path(place).name)
            folders |= {str(folder): "the folder" for folder in Path(place).parents if len(folder.parts) > 1}
            folders[str(Path(place))] = f"file{ending}" if ending else "the folder"
            if ending:
                folders[Path(place).name] = f"file{ending}"
    for folder in sorted(folders, key=len, reverse=True):
        words = words.replace(f"{folder}/", "").replace(folder, folders[folder])
    return words


def _may_be_quoted(text: str, public: set[str]) -> bool:
    return text in public or is_electrode(text) or _is_code(text) or _is_file(text)


def _is_file(name: str) -> bool:
    """A BIDS file name without a day in it."""
    return _FILE.fullmatch(name) is not None and DATE.search(name) is None


def _ending(name: str) -> str:
    found = re.search(rf"{_ENDINGS}$", name.lower())
    return found[0] if found else ""


def _numbered(names: Iterable[str], is_public: Any, what: str) -> dict[str, str]:
    return {
        name: name if is_public(name) else f"{what}_{place}"
        for place, name in enumerate(dict.fromkeys(map(str, names)), start=1)
    }


def _is_code(name: str) -> bool:
    return _CODE.fullmatch(" ".join(name.split())) is not None


def _is_channel(name: str, site: Site) -> bool:
    tidy = tidy_name(name)
    listed = {*site.ch_names, *site.ch_types, *site.loops, *site.rename, *site.rename.values()}
    if {name, name.strip(), tidy} & listed or is_electrode(name) or egi_number(name) is not None:
        return True
    return bipolar_pair(name) is not None or type_from_name(name) is not None or bool(_NUMBERED.fullmatch(tidy))


def _is_confound(name: str) -> bool:
    return _CONFOUND.fullmatch(name.strip().lower()) is not None
