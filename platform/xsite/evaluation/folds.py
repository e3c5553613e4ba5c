"""Who trains, who selects, who is tested. What is held out is out of reach of both others, by construction.

The same manifest, fraction and seed give the same folds on every machine; :attr:`Fold.fingerprint` says so. The schemes
beyond leave-one-site-out are in :mod:`xsite.evaluation.splits`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from xsite.errors import FoldError
from xsite.recording import RecordingKey
from xsite.spelling import did_you_mean

ENTITIES = ("site", "subject", "session", "task", "run")
SIDES = ("train", "val", "test")
WITHIN_RECORDING = "within-recording"
SITE_UNITS = ("site", "training-sites")
"""Units whose test sites must neither train nor select."""
HAEMODYNAMIC_S = 6.0
"""Seconds between parts of one recording beyond the length of a window: about where the haemodynamic response peaks."""
Segments = Mapping[str, Mapping[RecordingKey, tuple[int, int]]]
"""Side to recording to the volumes ``[start, stop)`` that it may use."""


@dataclass(frozen=True)
class Fold:
    """One split: who trains, who selects, who is tested.

    Parameters
    ----------
    train, val, test : tuple of RecordingKey
        ``val`` selects the checkpoint and comes from the training sites; ``test`` is what is held out, whole.
    held_out : str
        Label of what neither trains nor selects: a site (unit "site"), ``field_strength=3``, ``siteA_sub-01``, ...
    unit : str
        What is held out: "site", "subject", "split", "training-sites", "within-recording", or a column of the manifest.
    segments : mapping, optional
        Within recordings only: the volumes of each side, since every recording stands on all three.
    selector : str, optional
        What ``folds.held_out`` of a recipe must say for this fold; growing numbers of training sites share one. It is
        no part of what the fold is: neither equality nor the fingerprint looks at it.

    Raises
    ------
    FoldError
        A side is empty, a subject or a recording stands on two sides (volumes, within recordings), or a test site
        trains or selects although the unit is the site.
    """

    train: tuple[RecordingKey, ...]
    val: tuple[RecordingKey, ...]
    test: tuple[RecordingKey, ...]
    held_out: str
    unit: str = "site"
    segments: Segments | None = None
    selector: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        sides = {side: getattr(self, side) for side in SIDES}
        problems = [f"no recording in {name}" for name, keys in sides.items() if not keys]
        for name, keys in sides.items():
            if len(set(keys)) < len(keys):
                problems.append(f"a recording stands twice in {name}")
        problems += self._segment_problems() if self.unit == WITHIN_RECORDING else self._subject_problems()
        if self.unit in SITE_UNITS:
            problems += self._site_problems()
        if problems:
            raise FoldError(f"fold that holds out {self.held_out!r} is impossible: " + "; ".join(problems))

    def _subject_problems(self) -> list[str]:
        problems = [] if self.segments is None else [f"segments belong to unit {WITHIN_RECORDING!r}, not {self.unit!r}"]
        for a, b in combinations(SIDES, 2):
            both = sorted({k.subject_id for k in getattr(self, a)} & {k.subject_id for k in getattr(self, b)})
            if both:
                problems.append(f"subjects in both {a} and {b}: " + ", ".join("/".join(pair) for pair in both))
        return problems

    def _segment_problems(self) -> list[str]:
        segments = self.segments or {}
        problems = []
        for side in SIDES:
            lacking = sorted(str(key) for key in getattr(self, side) if key not in segments.get(side, {}))
            if lacking:
                problems.append(f"no volumes named in {side} for {', '.join(lacking)}")
        for a, b in combinations(SIDES, 2):
            first, second = segments.get(a, {}), segments.get(b, {})
            for key in sorted(first.keys() & second.keys()):
                if max(first[key][0], second[key][0]) < min(first[key][1], second[key][1]):
                    problems.append(f"{key}: volumes {first[key]} of {a} and {second[key]} of {b} overlap")
        return problems

    def _site_problems(self) -> list[str]:
        tested = {key.site for key in self.test}
        strangers = sorted(tested - {self.held_out}) if self.unit == "site" else []
        problems = [f"test holds recordings of {strangers}"] if strangers else []
        for site in sorted(tested | ({self.held_out} if self.unit == "site" else set())):
            leaked = [name for name in ("train", "val") if any(k.site == site for k in getattr(self, name))]
            if leaked:
                problems.append(f"{site} stands in {' and '.join(leaked)}")
        return problems

    @property
    def train_sites(self) -> tuple[str, ...]:
        """Sites that train, sorted."""
        return tuple(sorted({key.site for key in self.train}))

    @property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of who stands where; the order of the keys is not part of it."""
        content: dict[str, Any] = {"held_out": self.held_out}
        content |= {side: sorted(_entities(key) for key in getattr(self, side)) for side in SIDES}
        if self.unit != "site":  # folds over sites keep the hash that stores and checkpoints carry already
            content["unit"] = self.unit
        if self.segments is not None:
            content["segments"] = self._listed_segments()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def _listed_segments(self) -> dict[str, list[Any]]:
        segments = self.segments or {}
        return {side: sorted([_entities(key), *span] for key, span in segments.get(side, {}).items()) for side in SIDES}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``folds.json``; :meth:`from_dict` reads it back."""
        sides = {side: [_entities(key) for key in getattr(self, side)] for side in SIDES}
        more: dict[str, Any] = {} if self.segments is None else {"segments": self._listed_segments()}
        if self.selector is not None:
            more["selector"] = self.selector
        return {"held_out": self.held_out, "unit": self.unit, "fingerprint": self.fingerprint, **sides, **more}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Fold:
        """Read what :meth:`to_dict` wrote; the checks of the constructor run again."""
        sides = {side: tuple(_key(row) for row in content[side]) for side in SIDES}
        listed = content.get("segments")
        segments = None
        if listed is not None:
            segments = {s: {_key(row): (int(start), int(stop)) for row, start, stop in listed[s]} for s in SIDES}
        unit = str(content.get("unit", "site"))  # folds.json of earlier studies knows sites only
        train, val, test = (sides[side] for side in SIDES)
        held_out, selector = str(content["held_out"]), content.get("selector")
        return cls(train, val, test, held_out, unit=unit, segments=segments, selector=selector)


def _entities(key: RecordingKey) -> list[str]:
    return [getattr(key, name) for name in ENTITIES]


def _key(row: Sequence[str]) -> RecordingKey:
    return RecordingKey(**dict(zip(ENTITIES, row, strict=True)))


def manifest_keys(manifest: pd.DataFrame) -> list[RecordingKey]:
    """Keys of the manifest's recordings in sorted order, without those that are marked excluded."""
    if "excluded" in manifest:
        manifest = manifest[~manifest["excluded"].fillna(False).astype(bool)]
    columns = [manifest[name] if name in manifest else pd.Series("", index=manifest.index) for name in ENTITIES]
    rows = zip(*(column.fillna("").astype(str) for column in columns), strict=True)
    return sorted(RecordingKey(*row) for row in rows)


def validation_subjects(site: str, subjects: Iterable[str], *, val_fraction: float, seed: int) -> tuple[str, ...]:
    """Subjects of one site that select checkpoints: at least one, never all; none of a site with a single subject.

    The draw depends on seed and site only, so a site's validation subjects are the same in every fold: a subject
    that selects in one fold has never trained in another one.
    """
    known = sorted(set(subjects))
    if len(known) < 2:
        return ()
    n_val = min(max(round(len(known) * val_fraction), 1), len(known) - 1)
    rng = np.random.default_rng([seed, zlib.crc32(site.encode())])  # hash() differs from process to process
    return tuple(sorted(rng.permutation(known)[:n_val].tolist()))


def leave_one_site_out(
    manifest: pd.DataFrame, *, val_fraction: float, seed: int, held_out: Sequence[str] = ()
) -> list[Fold]:
    """One fold per site, or per site named in ``held_out``; selection sees training sites only.

    Parameters
    ----------
    manifest : DataFrame
        One row per recording with the columns ``site, subject, session, task, run`` and optionally ``excluded``.
    val_fraction : float
        Share of each training site's subjects that selects.
    seed : int
    held_out : sequence of str
        Empty means every site in turn.

    Raises
    ------
    FoldError
        Fewer than two sites, an unknown site, or no training site has a second subject that could select.
    """
    by_site: dict[str, list[RecordingKey]] = {}
    for key in manifest_keys(manifest):
        by_site.setdefault(key.site, []).append(key)
    if len(by_site) < 2:
        found = f"one site only ({next(iter(by_site))!r})" if by_site else "no usable recording"
        raise FoldError(f"leave-one-site-out: the store has {found}; ingest recordings of at least two sites")
    for site in held_out:
        if site not in by_site:
            hint = did_you_mean(site, by_site)
            raise FoldError(f"leave-one-site-out: no site {site!r} in the store{hint}; sites are {sorted(by_site)}")
    return [_fold(by_site, site, val_fraction, seed) for site in (held_out or sorted(by_site))]


def _fold(by_site: Mapping[str, list[RecordingKey]], held_out: str, val_fraction: float, seed: int) -> Fold:
    train: list[RecordingKey] = []
    val: list[RecordingKey] = []
    for site in sorted(set(by_site) - {held_out}):
        keys = by_site[site]
        chosen = validation_subjects(site, (k.subject for k in keys), val_fraction=val_fraction, seed=seed)
        for key in keys:
            (val if key.subject in chosen else train).append(key)
    if not val:
        sites = sorted(set(by_site) - {held_out})
        raise FoldError(
            f"leave-one-site-out: with {held_out!r} held out, the training sites {sites} have one subject each, so "
            "nobody can select the checkpoint; ingest a second subject of at least one of them"
        )
    return Fold(tuple(train), tuple(val), tuple(by_site[held_out]), held_out, selector=held_out)
