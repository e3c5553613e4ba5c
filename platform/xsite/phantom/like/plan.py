"""What a real site's files look like, as values: runs, channels, markers, formats, and the faults that it really has.

A site's adapter module holds one :class:`LikeSite` (``LIKE``) beside its :class:`xsite.site.Site` (``SITE``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from xsite.recording import RecordingKey
from xsite.site import Site

EegFormat = Literal["brainvision", "brainvision-float32", "edf", "eeglab", "eeglab-fdt", "tsv-pairs", "mat"]
TriggerFault = Literal[
    "",
    "none",  # not one volume marker
    "first-missing",
    "one-missing",  # inside the train
    "last-missing",
    "four-missing",  # of the first volumes, without a word
    "hole",  # a fifth of the train, in its middle
    "extra-start",
    "extra-end",
    "irregular",  # jittered by a tenth of the repetition time, and a quarter of them missing
]
FileFault = Literal["", "eeg-pointer", "bold-pointer", "eeg-twice", "eeg-ragged", "no-eeg-data", "no-bold", "pointers"]
Verdict = Literal["ok", "repaired", "unverified", "rejected"]


@dataclass(frozen=True)
class MarkerTrain:
    """Markers that repeat.

    Parameters
    ----------
    text : str
        Description as MNE-Python spells it, ``Type/Text`` in BrainVision files.
    per : {"volume", "clock"}
        "volume": locked to the volumes; "clock": free-running from the start of the EEG, whatever the scanner does.
    count : int
        Markers per volume (slices), evenly spread over the repetition time; "volume" only.
    every_s : float
        Period of a free-running train.
    phase_s : float
        Seconds from the volume trigger, or from the first EEG sample to the first marker.
    in_file : bool
        False: stands in the events table only, not in the EEG file.
    """

    text: str
    per: Literal["volume", "clock"] = "volume"
    count: int = 1
    every_s: float = 0.0
    phase_s: float = 0.0
    in_file: bool = True


@dataclass(frozen=True)
class EventTable:
    """The EEG's own ``events.tsv``, written for every run (where a site has tables at the root only, it has none).

    Parameters
    ----------
    columns : tuple of str
        In the site's order. ``onset`` and ``sample`` are numbers; ``duration`` is ``n/a``; the others hold the text.
    unit : {"s", "ms", "samples"}
        What the column ``onset`` holds.
    sfreq : float
        Rate in Hz that samples count at, for ``onset`` in samples and for the column ``sample``.
    origin : {"eeg", "protocol"}
        "protocol": onsets count from the first protocol event, and earlier ones are clipped to 0.
    func_copy : bool
        The same table lies beside the image (one clock for both).
    """

    columns: tuple[str, ...] = ("onset", "duration", "trial_type")
    unit: Literal["s", "ms", "samples"] = "s"
    sfreq: float = 1.0
    origin: Literal["eeg", "protocol"] = "eeg"
    func_copy: bool = False


@dataclass(frozen=True)
class LikeRun:
    """One EEG file, one image, or both.

    Parameters
    ----------
    key : RecordingKey
        What the adapter is expected to call it.
    eeg, bold : str or None
        Paths below the site's root of the file that a reader opens, and of the published image; None where there is
        none.
    n_volumes : int
        Volumes of the image.
    lead_s, tail_s : float
        EEG before the first volume trigger; EEG after the end of the last volume (negative: it ends earlier).
    triggers, file : TriggerFault, FileFault
        What is wrong with this run in the real data set.
    markers_in_file : bool
        False: this run's markers stand in the events table only.
    protocol : tuple of (float, str)
        Protocol markers: seconds from the first volume trigger, and description.
    verdicts : tuple of str
        What an honest audit may say about it.
    kept : (int, int), optional
        First volume kept and one past the last; those whose trigger lies inside the EEG if None.
    reason : str
        Where the run is rejected or left out: words that the message must hold.
    odd : bool
        Named unlike the others: written even where the number of complete runs is limited.
    """

    key: RecordingKey
    eeg: str | None
    bold: str | None
    n_volumes: int
    lead_s: float = 10.0
    tail_s: float = 3.0
    triggers: TriggerFault = ""
    file: FileFault = ""
    markers_in_file: bool = True
    protocol: tuple[tuple[float, str], ...] = ()
    verdicts: tuple[Verdict, ...] = ("ok",)
    kept: tuple[int, int] | None = None
    reason: str = ""
    odd: bool = False

    @property
    def paired(self) -> bool:
        """Whether both files are there and whole."""
        return self.eeg is not None and self.bold is not None and not self.file


Runs = Callable[[Path | None], list[LikeRun]]
"""Runs of a site; reads the folder of its real sidecars where there is one."""


@dataclass(frozen=True)
class LikeSite:
    """How to write a phantom of one site.

    Parameters
    ----------
    site : Site
        The adapter's facts.
    runs : callable (sidecar folder or None) -> list of LikeRun
        All runs of the data set, those without a partner too; subjects with real sidecars come first.
    ch_names : tuple of str
        All channels as the file spells them, in the file's order.
    ch_types : mapping of str to str
        File name to MNE type of the channels that are not EEG; the site's own ``ch_types`` are added.
    electrodes : mapping of str to str
        File name to 10-05 electrode where ``Site.rename`` and normalisation do not tell (``{"E1": "F10"}``); bipolar
        pairs as ``"F3-F7"``.
    eeg_format : EegFormat
    resolution_uv : float
        Microvolt per bit (BrainVision int16).
    sfreq : float, optional
        Where the file's rate is not the site's.
    trains : tuple of MarkerTrain
        Volume markers, slices, decoys.
    events : EventTable, optional
        Table of the EEG's events that the site publishes per run.
    reference : tuple of str
        Electrodes whose mean is the recording reference; empty: average.
    gradient : bool, optional
        The published EEG holds the gradient artifact; by default, where the site's ``eeg_state`` is raw.
    residue_uv : float
        What is left of it where it was removed.
    slices : int
        Slice excitations per volume: the artifact's harmonics.
    positions : bool
        Electrode positions stand in the EEG file (EEGLAB, BrainVision with coordinates).
    bold_shape_mm : float
        Voxel size of the tiny images.
    nifti_t_r : (float, str), optional
        Repetition time and unit as the image's header says (``(2000.0, "sec")``); by default the true one.
    preprocessed : callable (run) -> str, optional
        Path of the fMRIPrep-style image; by default ``derivatives/fmriprep`` with ``space-MNI152NLin2009cAsym``.
    derivatives : bool
        Write it, with confounds; else the published image is in template space.
    reference_share : float
        Slice-timing reference of the preprocessed image as a share of the repetition time; negative: not corrected.
    coverage : float
        Share of the brain's height that the images cover, from the top: half-brain protocols.
    eeg_sidecars : {"run", "root", "none"}
        Where ``eeg.json`` and ``channels.tsv`` stand: beside each EEG file, at the root for each task, or nowhere.
    channels_table : callable (names, types) -> str, optional
        Text of the site's channel table where it is not a plain TSV.
    stray : mapping of str to str
        Files that are not data (``.DS_Store``, ``._*``, ``rejected/``): path below the root to content; a real sidecar
        of that name stays.
    beside : callable (run) -> (path, text), optional
        A text file that lies beside each EEG file, such as a header whose data file is not shipped.
    write_eeg : callable (path, signal), optional
        Writer of the site's own format instead of ``eeg_format``.
    options : mapping
        For the format's writer (``{"variable": "Y"}``).
    """

    site: Site
    runs: Runs
    ch_names: tuple[str, ...]
    ch_types: Mapping[str, str] = field(default_factory=dict)
    electrodes: Mapping[str, str] = field(default_factory=dict)
    eeg_format: EegFormat = "brainvision"
    resolution_uv: float = 0.5
    sfreq: float | None = None
    trains: tuple[MarkerTrain, ...] = ()
    events: EventTable | None = None
    reference: tuple[str, ...] = ("FCz",)
    gradient: bool | None = None
    residue_uv: float = 1.0
    slices: int = 32
    positions: bool = False
    bold_shape_mm: float = 6.0
    nifti_t_r: tuple[float, str] | None = None
    preprocessed: Callable[[LikeRun], str] | None = None
    derivatives: bool = True
    reference_share: float = 0.5
    coverage: float = 1.0
    eeg_sidecars: Literal["run", "root", "none"] = "run"
    channels_table: Callable[[tuple[str, ...], tuple[str, ...]], str] | None = None
    stray: Mapping[str, str] = field(default_factory=dict)
    beside: Callable[[LikeRun], tuple[str, str]] | None = None
    write_eeg: Callable[[Path, Any], None] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Sampling rate of the EEG files in Hz."""
        return self.site.sfreq if self.sfreq is None else self.sfreq

    @property
    def raw(self) -> bool:
        """Whether the published EEG holds the gradient artifact."""
        return self.site.eeg_state == "raw" if self.gradient is None else self.gradient

    def kind(self, name: str) -> str:
        """MNE type of a channel by its name in the file."""
        clean = " ".join(name.replace("\u00a0", " ").split())
        types = {**self.site.ch_types, **self.ch_types}
        return types.get(name) or types.get(self.site.rename.get(name, clean)) or "eeg"


TRIGGER_FAULTS: tuple[str, ...] = get_args(TriggerFault)
