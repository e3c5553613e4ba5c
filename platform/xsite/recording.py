"""The vocabulary: one simultaneous EEG-fMRI run as arrays with units.

Shape letters used throughout the platform: ``C`` EEG channels, ``T`` EEG samples, ``V`` fMRI volumes,
``R`` parcels (regions), ``K`` confounds, ``B`` batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating[Any]]
Bool = NDArray[np.bool_]

_ENTITY = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, order=True)
class RecordingKey:
    """Who, where and what: the BIDS entities of one simultaneous run, plus its site.

    Entities that a data set does not use are empty strings. Labels are alphanumeric, as BIDS demands.

    Raises
    ------
    ValueError
        A label holds a character that BIDS does not allow.
    """

    site: str
    subject: str
    session: str = ""
    task: str = ""
    run: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.site):
            raise ValueError(f"site {self.site!r}: use letters, digits, '-' and '_' only")
        for name in ("subject", "session", "task", "run"):
            label = getattr(self, name)
            if label and not _ENTITY.fullmatch(label):
                raise ValueError(f"{name} {label!r}: BIDS labels are letters and digits only")
        if not self.subject:
            raise ValueError("a recording needs a subject label")

    @property
    def entities(self) -> str:
        """BIDS entity string, such as ``sub-01_ses-1_task-rest_run-01``."""
        pairs = (("sub", self.subject), ("ses", self.session), ("task", self.task), ("run", self.run))
        return "_".join(f"{short}-{label}" for short, label in pairs if label)

    @property
    def subject_id(self) -> tuple[str, str]:
        """Site and subject: the unit that must never stand on two sides of a split."""
        return self.site, self.subject

    def __str__(self) -> str:
        return f"{self.site}/{self.entities}"


@dataclass(frozen=True, eq=False)
class Montage:
    """Ordered channel names and positions.

    Parameters
    ----------
    ch_names : tuple of str, length C
        Canonical 10-20/10-10 names, such as ``Fp1``.
    positions : array, shape (C, 3)
        Electrode positions in metres in MNE's head frame; NaN where unknown.
    """

    ch_names: tuple[str, ...]
    positions: Float

    def __post_init__(self) -> None:
        if self.positions.shape != (len(self.ch_names), 3):
            raise ValueError(f"positions have shape {self.positions.shape}, expected ({len(self.ch_names)}, 3)")
        twice = sorted({name for name in self.ch_names if self.ch_names.count(name) > 1})
        if twice:
            raise ValueError(f"channel names stand twice in one montage: {twice}")


@dataclass(frozen=True)
class Parcellation:
    """The target atlas, as an identity: two stores agree if and only if this agrees.

    Parameters
    ----------
    name : str
        Such as ``DiFuMo-64``.
    labels : tuple of str, length R
        Parcel names in column order.
    space : str
        Template space, such as ``MNI152NLin2009cAsym``.
    sha256 : str
        Hash of the atlas file (or of the labels where a site publishes parcel tables only).
    """

    name: str
    labels: tuple[str, ...]
    space: str
    sha256: str

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.labels if self.labels.count(name) > 1})
        if twice:
            raise ValueError(f"parcellation {self.name!r}: labels stand twice: {twice}")


@dataclass(frozen=True, eq=False)
class Recording:
    """One simultaneous run in the shared format, aligned.

    Parameters
    ----------
    key : RecordingKey
    montage : Montage
        The recording's own channels, C of them.
    eeg : float array, shape (C, T)
        Microvolt, at ``sfreq``, cleaned, not scaled.
    eeg_valid : bool array, shape (T,)
        False where samples must not be used (uncorrected artifact, acquisition gap).
    bold : float32 array, shape (V, R)
        Percent signal change (see ``bold_units``), detrended and confound-regressed, neither low-passed nor scaled.
        A parcel without coverage is NaN throughout.
    global_signal : float32 array, shape (V,)
        Mean over the brain mask, same units and cleaning as ``bold``; NaN where the site does not give it.
    confounds : float32 array, shape (V, K)
        What was regressed out, and framewise displacement; column names in ``confound_names``.
    volume_onsets : float64 array, shape (V,)
        Seconds from the first EEG sample: volume trigger + slice-timing reference (``StartTime``).
    volume_valid : bool array, shape (V,)
        False for volumes that must be neither trained on nor scored.
    sfreq, t_r : float
        EEG sampling frequency in Hz; repetition time in seconds.
    truth : float32 array, shape (V, R), optional
        Phantoms only: the noise-free BOLD through the same parcel path, same units as ``bold``.
    provenance, quality : mapping
        Source hashes, processing steps with parameters, alignment verdict; quality figures.
    """

    key: RecordingKey
    montage: Montage
    parcellation: Parcellation
    eeg: Float
    eeg_valid: Bool
    bold: Float
    global_signal: Float
    confounds: Float
    confound_names: tuple[str, ...]
    volume_onsets: Float
    volume_valid: Bool
    sfreq: float
    t_r: float
    bold_units: str = "percent signal change"
    truth: Float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        c, t = self.eeg.shape
        v, r = self.bold.shape
        expected = {
            "montage.ch_names": (len(self.montage.ch_names), c),
            "eeg_valid": (self.eeg_valid.shape, (t,)),
            "parcellation.labels": (len(self.parcellation.labels), r),
            "global_signal": (self.global_signal.shape, (v,)),
            "confounds": (self.confounds.shape, (v, len(self.confound_names))),
            "volume_onsets": (self.volume_onsets.shape, (v,)),
            "volume_valid": (self.volume_valid.shape, (v,)),
            "truth": ((v, r) if self.truth is None else self.truth.shape, (v, r)),
        }
        wrong = [f"{name} is {got}, expected {want}" for name, (got, want) in expected.items() if got != want]
        if wrong:
            raise ValueError(f"{self.key}: arrays do not fit together: " + "; ".join(wrong))

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Canonical channel names, length C."""
        return self.montage.ch_names

    @property
    def n_volumes(self) -> int:
        """Number of volumes V, valid or not."""
        return int(self.bold.shape[0])
