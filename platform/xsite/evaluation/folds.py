"""Who trains, who selects, who is tested. The test site is out of reach of both others, by construction.

The same manifest, fraction and seed give the same folds on every machine; :attr:`Fold.fingerprint` says so.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xsite.errors import FoldError
from xsite.recording import RecordingKey

ENTITIES = ("site", "subject", "session", "task", "run")


@dataclass(frozen=True)
class Fold:
    """One held-out site.

    Parameters
    ----------
    train, val, test : tuple of RecordingKey
        ``val`` selects the checkpoint and comes from the training sites; ``test`` is the held-out site, whole.
    held_out : str
        Site that neither trains nor selects.

    Raises
    ------
    FoldError
        A side is empty, a subject or a recording stands on two sides, or the held-out site trains or selects.
    """

    train: tuple[RecordingKey, ...]
    val: tuple[RecordingKey, ...]
    test: tuple[RecordingKey, ...]
    held_out: str

    def __post_init__(self) -> None:
        sides = {"train": self.train, "val": self.val, "test": self.test}
        problems = [f"no recording in {name}" for name, keys in sides.items() if not keys]
        for name, keys in sides.items():
            if len(set(keys)) < len(keys):
                problems.append(f"a recording stands twice in {name}")
        for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
            both = sorted({k.subject_id for k in sides[a]} & {k.subject_id for k in sides[b]})
            if both:
                problems.append(f"subjects in both {a} and {b}: " + ", ".join("/".join(pair) for pair in both))
        strangers = sorted({k.site for k in self.test} - {self.held_out})
        if strangers:
            problems.append(f"test holds recordings of {strangers}")
        leaked = [name for name in ("train", "val") if any(k.site == self.held_out for k in sides[name])]
        if leaked:
            problems.append(f"{self.held_out} stands in {' and '.join(leaked)}")
        if problems:
            raise FoldError(f"fold that holds out {self.held_out!r} is impossible: " + "; ".join(problems))

    @property
    def train_sites(self) -> tuple[str, ...]:
        """Sites that train, sorted."""
        return tuple(sorted({key.site for key in self.train}))

    @property
    def fingerprint(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of who stands where; the order of the keys is not part of it."""
        content = {"held_out": self.held_out} | {
            side: sorted(_entities(key) for key in getattr(self, side)) for side in ("train", "val", "test")
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``folds.json``; :meth:`from_dict` reads it back."""
        sides = {side: [_entities(key) for key in getattr(self, side)] for side in ("train", "val", "test")}
        return {"held_out": self.held_out, "fingerprint": self.fingerprint, **sides}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Fold:
        """Read what :meth:`to_dict` wrote; the checks of the constructor run again."""
        sides = {
            side: tuple(RecordingKey(**dict(zip(ENTITIES, row, strict=True))) for row in content[side])
            for side in ("train", "val", "test")
        }
        return cls(held_out=str(content["held_out"]), **sides)


def _entities(key: RecordingKey) -> list[str]:
    return [getattr(key, name) for name in ENTITIES]


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
            near = difflib.get_close_matches(site, list(by_site), n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
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
    return Fold(train=tuple(train), val=tuple(val), test=tuple(by_site[held_out]), held_out=held_out)
