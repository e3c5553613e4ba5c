"""The control that must fail: a model trained on the BOLD of other subjects knows nothing about its own."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from xsite.errors import FoldError
from xsite.recording import Float, RecordingKey


def other_subjects_target(targets: Mapping[RecordingKey, Float], seed: int) -> dict[RecordingKey, Float]:
    """Give every recording the target of another subject of the same site.

    The subjects of a site are put on one random ring and each takes the target of the next, so nobody keeps their own.
    Donors come from the same site because repetition time, spectrum and parcels then stay what they are; only the
    pairing with the EEG is destroyed. Where a subject has several recordings, the n-th takes the donor's n-th (modulo
    the donor's number of recordings).

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
        ring = np.random.default_rng([seed, zlib.crc32(site.encode())]).permutation(sorted(subjects)).tolist()
        for place, subject in enumerate(ring):
            donors = subjects[ring[(place + 1) % len(ring)]]
            for nth, key in enumerate(subjects[subject]):
                donor = donors[nth % len(donors)]
                shuffled[key] = _fitted(targets[donor], targets[key], f"{donor} for {key}")
    return shuffled


def _fitted(donor_VR: Float, own_VR: Float, what: str) -> Float:
    if donor_VR.shape[1] != own_VR.shape[1]:
        raise FoldError(f"control on other subjects' BOLD, {what}: {donor_VR.shape[1]} and {own_VR.shape[1]} parcels")
    fitted_VR = np.full(own_VR.shape, np.nan, dtype=own_VR.dtype)
    n = min(len(donor_VR), len(own_VR))
    fitted_VR[:n] = donor_VR[:n]
    return fitted_VR
