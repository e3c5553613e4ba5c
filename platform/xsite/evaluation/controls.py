"""The control that must fail: a model trained on the BOLD of other subjects knows nothing about its own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from xsite.errors import FoldError
from xsite.recording import Float, RecordingKey


def other_subjects_target(targets: Mapping[RecordingKey, Float], seed: int) -> dict[RecordingKey, Float]:
    """Give every recording the target of another subject of the same site.

    The subjects of a site are put on a random ring and each takes the target of the next, so nobody keeps their own.
    Every parcel has a ring of its own: with one ring for all, the accidental relation between somebody's EEG and
    somebody else's global signal is a single draw that lifts or lowers all parcels together. And every parcel of every
    recording has a random sign, so that an accidental relation is as likely to lift a score as to lower it: without
    signs, rings left the control's mean at .024 (SE .005, five consortia), with unrelated donors at .008 (SE .021). The
    price: a time course that all subjects share would go unnoticed here. Donors come from the same
    site because repetition time, spectrum and parcels then stay what they are; only the pairing with the EEG is
    destroyed. Where a subject has several recordings, the n-th takes the donor's n-th (modulo the donor's number of
    recordings).

    Parameters
    ----------
    targets : mapping of RecordingKey to array, shape (V, R)
        Targets of all training and validation recordings of a fold together. Runs of one stimulated task are
        time-locked to each other, so this control is meant for rest.
    seed : int

    Returns
    -------
    dict of RecordingKey to array, shape (V, R)
        Each as long as the recording's own target: a longer donor is cropped at its end, a shorter one is continued
        with NaN, which learners take as missing.

    Raises
    ------
    FoldError
        A site has one subject only, or the targets of a site differ in their number of parcels.
    """
    sites: dict[str, dict[str, list[RecordingKey]]] = {}
    for key in sorted(targets):
        sites.setdefault(key.site, {}).setdefault(key.subject, []).append(key)
    alone = sorted(site for site, subjects in sites.items() if len(subjects) < 2)
    if alone:
        raise FoldError(f"control on other subjects' BOLD: sites {alone} have one subject, and nobody to swap with")
    shuffled: dict[RecordingKey, Float] = {}
    for site, subjects in sites.items():
        keys = [key for own in subjects.values() for key in own]
        counts = {str(key): targets[key].shape[1] for key in keys}
        if len(set(counts.values())) > 1:
            raise FoldError(f"control on other subjects' BOLD: numbers of parcels differ within site {site}: {counts}")
        rng = np.random.default_rng([seed, zlib.crc32(site.encode())])
        shuffled |= {key: np.full_like(targets[key], np.nan) for key in keys}
        for parcel in range(targets[keys[0]].shape[1]):
            _deal(subjects, rng.permutation(sorted(subjects)).tolist(), targets, shuffled, parcel)
        for key in keys:
            shuffled[key] *= rng.choice([-1.0, 1.0], shuffled[key].shape[1])
    return shuffled


def _deal(
    subjects: Mapping[str, list[RecordingKey]],
    ring: list[str],
    targets: Mapping[RecordingKey, Float],
    shuffled: Mapping[RecordingKey, Float],
    parcel: int,
) -> None:
    for place, subject in enumerate(ring):
        donors = subjects[ring[(place + 1) % len(ring)]]
        for nth, key in enumerate(subjects[subject]):
            donor_VR, own_VR = targets[donors[nth % len(donors)]], shuffled[key]
            n = min(len(donor_VR), len(own_VR))
            own_VR[:n, parcel] = donor_VR[:n, parcel]


def fold_seed(seed: int, held_out: str | None) -> int:
    """Seed of a fold's control: folds share training sites, and should not share their accidents as well."""
    return zlib.crc32(f"{seed}/{held_out}".encode())
