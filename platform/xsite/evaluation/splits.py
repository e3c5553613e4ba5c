"""Every way of making folds that a recipe may name: one function per scheme, and :func:`make_folds` over them.

Both scans of a subject always stand on one side, and selection sees training sites only, whatever is held out. Labels
(:attr:`Fold.held_out`) are unique among the folds of one scheme and fit into file names.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from xsite.errors import FoldError
from xsite.evaluation.columns import check_labels, column_values, row_key, safe_label
from xsite.evaluation.folds import HAEMODYNAMIC_S, WITHIN_RECORDING, Fold, leave_one_site_out, manifest_keys
from xsite.experiment_parts import Folds
from xsite.recording import RecordingKey
from xsite.spelling import did_you_mean

Keys = Sequence[RecordingKey]

OFFICIAL_SITE = "vanderbilt"
# (subject, scan) of the split published on 2026-07-10 (soupeeli/NeuroBOLT#7); every other scan of the 29 trains
OFFICIAL_VAL = (("06", "01"), ("13", "01"), ("13", "02"), ("15", "01"), ("22", "01"))
OFFICIAL_TEST = (("07", "01"), ("07", "02"), ("11", "01"), ("16", "01"), ("18", "01"), ("21", "01"))
OFFICIAL_SCANS = 29


def make_folds(manifest: pd.DataFrame, spec: Folds, *, seed: int) -> list[Fold]:
    """Folds of a recipe's part ``folds``, in a fixed order; the same input gives the same folds on every machine.

    Parameters
    ----------
    manifest : DataFrame
        One row per recording with the columns ``site, subject, session, task, run``, optionally ``excluded``, and
        whatever column the scheme goes by (``n_volumes`` and ``t_r`` within recordings).
    spec : Folds
    seed : int
        Of the draw of validation subjects, of k-fold, and of the order in which sites are added.

    Raises
    ------
    FoldError
        The scheme is impossible with these recordings, or ``spec.held_out`` names something that is not there.
    """
    if spec.scheme == "leave-one-site-out" or spec.column == "site":
        return leave_one_site_out(manifest, val_fraction=spec.val_fraction, seed=seed, held_out=spec.held_out)
    if not manifest_keys(manifest):
        raise FoldError(f"{spec.scheme}: the store has no usable recording")
    return _SCHEMES[spec.scheme](manifest, spec, seed)


def _by_column(manifest: pd.DataFrame, spec: Folds, seed: int) -> list[Fold]:
    """Each value of a column in turn; other recordings of the held-out subjects are left out of training."""
    values = column_values(manifest, spec.column)
    known = sorted(set(values.values()))
    if len(known) < 2:
        raise FoldError(f"leave-one-out by {spec.column}: all recordings have {spec.column} = {known}; two are needed")
    chosen = _chosen(spec, known)
    check_labels(spec.column, chosen)
    folds = []
    for value in chosen:
        test = [key for key, own in values.items() if own == value]
        people = {key.subject_id for key in test}
        rest = [key for key, own in values.items() if own != value and key.subject_id not in people]
        fold = _selected(spec, seed, rest, test, f"{spec.column}={safe_label(value)}", spec.column)
        folds.append(replace(fold, selector=value))
    return folds


def _by_subject(manifest: pd.DataFrame, spec: Folds, seed: int) -> list[Fold]:
    keys = manifest_keys(manifest)
    subjects = {"/".join(pair): pair for pair in sorted({key.subject_id for key in keys})}
    folds = []
    for name in _chosen(spec, list(subjects)):
        site, subject = subjects[name]
        fold = _subjects_out(spec, seed, keys, {(site, subject)}, f"{site}_sub-{subject}")
        folds.append(replace(fold, selector=name))
    return folds


def _k_fold(manifest: pd.DataFrame, spec: Folds, seed: int) -> list[Fold]:
    """Subjects of every site are dealt like cards, so that each fold tests some of all sites."""
    keys = manifest_keys(manifest)
    deck = [pair for site in sorted({k.site for k in keys}) for pair in _drawn(keys, site, seed)]
    if len(deck) < spec.n_folds:
        raise FoldError(f"k-fold: {len(deck)} subjects cannot be dealt into {spec.n_folds} folds; lower folds.n_folds")
    labels = [f"fold-{n}" for n in range(1, spec.n_folds + 1)]
    folds = []
    for label in _chosen(spec, labels):
        fold = _subjects_out(spec, seed, keys, set(deck[labels.index(label) :: spec.n_folds]), label)
        folds.append(replace(fold, selector=label))
    return folds


def _official(manifest: pd.DataFrame, spec: Folds, seed: int) -> list[Fold]:
    del seed  # nothing is drawn
    _chosen(spec, ["official"])
    keys = [key for key in manifest_keys(manifest) if key.site == OFFICIAL_SITE]
    scans = {(key.subject, key.run.zfill(2)): key for key in keys}
    missing = [f"sub{s}-scan{r}" for s, r in (*OFFICIAL_VAL, *OFFICIAL_TEST) if (s, r) not in scans]
    if missing or len(scans) != OFFICIAL_SCANS:
        raise FoldError(
            f"official: the split is of the {OFFICIAL_SCANS} scans of site {OFFICIAL_SITE!r}; the store has "
            f"{len(scans)} usable ones" + (f", without {', '.join(missing)} of its validation and test" * bool(missing))
        )
    val, test = ([scans[scan] for scan in side] for side in (OFFICIAL_VAL, OFFICIAL_TEST))
    train = [key for key in keys if key not in val and key not in test]
    return [Fold(tuple(train), tuple(val), tuple(test), "official", unit="split", selector="official")]


def _within_recording(manifest: pd.DataFrame, spec: Folds, seed: int) -> list[Fold]:
    """One fold per recording: training, validation and test are stretches of the same 20 minutes."""
    del seed
    sizes = {row_key(row): (int(row["n_volumes"]), float(row["t_r"])) for row in manifest.to_dict("records")}
    keys = {str(key): key for key in manifest_keys(manifest)}
    folds = []
    for name in _chosen(spec, list(keys)):
        n_volumes, t_r = sizes[keys[name]]
        parts = within_recording_parts(n_volumes, t_r, gap_s=spec.gap_s, window_s=spec.window_s)
        if any(stop <= start for start, stop in parts.values()):
            raise FoldError(
                f"within-recording: {name} has {n_volumes} volumes, too few for three parts with gaps of "
                f"{spec.window_s + HAEMODYNAMIC_S if spec.gap_s is None else spec.gap_s:g} s at a TR of {t_r:g} s"
            )
        segments = {side: {keys[name]: span} for side, span in parts.items()}
        one = (keys[name],)
        label = f"{keys[name].site}_{keys[name].entities}"
        folds.append(Fold(one, one, one, label, unit=WITHIN_RECORDING, segments=segments, selector=name))
    return folds


def within_recording_parts(
    n_volumes: int, t_r: float, *, gap_s: float | None = None, window_s: float = 16.0
) -> dict[str, tuple[int, int]]:
    """Volumes ``[start, stop)`` of the paper's 8:1:1 cut of one scan in time, with a gap before the second and third.

    Parameters
    ----------
    n_volumes : int
    t_r, window_s : float
        Seconds.
    gap_s : float, optional
        Seconds that no part has. Left out, the first volume of a part comes a window and the haemodynamic delay after
        the last one of the part before: the 20 s of the paper at its TR, and never less than the audit demands.

    Examples
    --------
    >>> within_recording_parts(575, 2.1)  # 567 volumes with a window: 453, 46 and 48 of them
    {'train': (8, 461), 'val': (471, 517), 'test': (527, 575)}
    """
    first = math.ceil(window_s / t_r - 1e-9)
    apart = math.ceil((window_s + HAEMODYNAMIC_S) / t_r - 1e-10)  # volumes from the last of one part to the next one's
    gap = apart - 1 if gap_s is None else math.ceil(gap_s / t_r - 1e-9)
    n = n_volumes - first
    stop_train = first + int(0.8 * n)
    stop_val = stop_train + int(0.1 * n)
    return {"train": (first, stop_train), "val": (stop_train + gap, stop_val), "test": (stop_val + gap, n_volumes)}


def _site_to_site(manifest: pd.DataFrame, spec: Folds, seed: int) -> list[Fold]:
    """One training per site, tested on every other site: S trainings fill the off-diagonal of the S x S matrix."""
    keys = manifest_keys(manifest)
    sites = _two_sites(keys, "site-to-site")
    folds = []
    for site in _chosen(spec, sites):
        own, others = ([k for k in keys if (k.site == site) is same] for same in (True, False))
        fold = _selected(spec, seed, own, others, f"all-but-{site}", "training-sites")
        folds.append(replace(fold, selector=site))
    return folds


def _growing_sites(manifest: pd.DataFrame, spec: Folds, seed: int) -> list[Fold]:
    """Each site tested by models of 1, 2, ... other sites: always the same order, so every set holds the one before."""
    keys = manifest_keys(manifest)
    sites = _two_sites(keys, "growing-sites")
    folds = []
    for site in _chosen(spec, sites):
        rng = np.random.default_rng([seed, zlib.crc32(site.encode())])
        order = rng.permutation([other for other in sites if other != site]).tolist()
        test = [key for key in keys if key.site == site]
        for n in range(1, len(order) + 1):
            rest = [key for key in keys if key.site in order[:n]]
            fold = _selected(spec, seed, rest, test, f"{site}_from-{n}", "training-sites")
            folds.append(replace(fold, selector=site))
    return folds


def _subjects_out(spec: Folds, seed: int, keys: Keys, out: set[tuple[str, str]], label: str) -> Fold:
    rest, test = ([k for k in keys if (k.subject_id in out) is same] for same in (False, True))
    order = {site: _drawn(keys, site, seed) for site in {k.site for k in keys}}
    return _selected(spec, seed, rest, test, label, "subject", order)


def _selected(
    spec: Folds,
    seed: int,
    rest: Keys,
    test: Keys,
    label: str,
    unit: str,
    order: Mapping[str, list[tuple[str, str]]] | None = None,
) -> Fold:
    """Part the recordings that are not tested into those that train and those that select, site by site."""
    chosen: set[tuple[str, str]] = set()
    for site in sorted({key.site for key in rest}):
        own = {key.subject_id for key in rest if key.site == site}
        drawn = [pair for pair in (order or {}).get(site, _drawn(rest, site, seed)) if pair in own]
        if len(drawn) > 1:
            chosen |= set(drawn[: min(max(round(len(drawn) * spec.val_fraction), 1), len(drawn) - 1)])
    train, val = ([k for k in rest if (k.subject_id in chosen) is same] for same in (False, True))
    if not val:
        raise FoldError(
            f"{spec.scheme}: with {label!r} held out, no training site has a second subject, so nobody can select the "
            f"checkpoint (left to train: {len({k.subject_id for k in rest})} subjects); ingest more of them"
        )
    return Fold(tuple(train), tuple(val), tuple(test), label, unit=unit)


def _drawn(keys: Iterable[RecordingKey], site: str, seed: int) -> list[tuple[str, str]]:
    """Subjects of a site in drawn order; seed and site decide, as in leave-one-site-out."""
    known = sorted({key.subject for key in keys if key.site == site})
    rng = np.random.default_rng([seed, zlib.crc32(site.encode())])
    return [(site, subject) for subject in rng.permutation(known).tolist()]


def _two_sites(keys: Keys, scheme: str) -> list[str]:
    sites = sorted({key.site for key in keys})
    if len(sites) < 2:
        raise FoldError(f"{scheme}: the store has recordings of {sites}; ingest at least two sites")
    return sites


def _chosen(spec: Folds, known: Sequence[str]) -> Sequence[str]:
    unknown = [name for name in spec.held_out if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise FoldError(f"{spec.scheme}: folds.held_out names {unknown}{hint}, which is none of {list(known)[:40]}")
    return spec.held_out or known


_SCHEMES: dict[str, Callable[[pd.DataFrame, Folds, int], list[Fold]]] = {
    "leave-one-out": _by_column,
    "leave-one-subject-out": _by_subject,
    "k-fold": _k_fold,
    "official": _official,
    "within-recording": _within_recording,
    "site-to-site": _site_to_site,
    "growing-sites": _growing_sites,
}
