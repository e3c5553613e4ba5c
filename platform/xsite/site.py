"""A site is a value: the facts of one laboratory's data set and the reader functions it uses.

Most sites are facts only; a site whose files are odd passes functions of its own. ``None`` for a reader means the BIDS
default, resolved in :mod:`xsite.data.prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from xsite.errors import SiteError
from xsite.recording import Bool, Float, RecordingKey

EegState = Literal["raw", "gradient-corrected", "clean"]
EEG_STATES: tuple[str, ...] = get_args(EegState)
BoldSpace = Literal["derivative", "template"]
TrainEnd = Literal["start", "end"]
EventsUnit = Literal["s", "ms", "samples"]
Pulse = Literal["none", "aas", "pca-obs"]
Residual = Literal["none", "obs"]
RotationUnit = Literal["rad", "deg"]
Confounds = Literal["motion6", "none", "simple", "scrubbing", "compcor", "ica_aroma"]


@dataclass(frozen=True)
class RecordingFiles:
    """Where one simultaneous run lies on disk.

    Parameters
    ----------
    key : RecordingKey
    eeg, bold : Path
        The EEG file that a reader opens (``.vhdr``, ``.edf``, ``.set``) and the image or parcel table.
    confounds : Path, optional
        fMRIPrep's confounds table, a motion file (``*_headmotion.tsv``, ``rp_*.txt``, ``*_headmove.txt``, ``*.par``),
        or an ``events.tsv`` that holds motion parameters.
    truth : Path, optional
        Phantoms only: the noise-free parcel series (TSV, one row per volume).
    others : tuple of Path
        Files beside these that a site's own readers open, present or not: when one changes, the recording is made anew.
    """

    key: RecordingKey
    eeg: Path
    bold: Path
    confounds: Path | None = None
    truth: Path | None = None
    others: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class BoldRun:
    """What a site's ``read_bold`` returns: an image, or parcel series where the site publishes only those.

    Parameters
    ----------
    t_r : float
        Repetition time in seconds.
    image : nibabel 4D image, optional
        In the parcellation's template space. Exactly one of ``image`` and ``series_VR`` is given.
    series_VR : float array, shape (V, R), optional
        Ready-made parcel series.
    labels : tuple of str, length R
        Column names of ``series_VR``.
    global_signal_V : float array, shape (V,), optional
        Published together with ``series_VR``.
    units : str
        Of ``series_VR``; images become percent signal change.
    confounds_VK : float array, shape (V, K), optional
        Motion and other nuisance regressors, NaN allowed in the first row.
    confound_names : tuple of str, length K
    start_time : float
        Slice-timing reference in seconds after the volume trigger (``StartTime`` of the sidecar).
    regressors : tuple of str, optional
        Which confounds are regressed out; ``None``: the six motion parameters where they are named, else all.
    volume_valid_V : bool array, shape (V,), optional
        False for dummy (non-steady-state) and scrubbed volumes; ``None``: all count.
    discarded : int
        Volumes before the first one of the image that the scanner or the authors left out; the EEG may have their
        markers.
    facts : mapping
        What the reader found out, for the provenance: space, slice order, dummy scans, repairs in words.
    """

    t_r: float
    image: Any = None
    series_VR: Float | None = None
    labels: tuple[str, ...] = ()
    global_signal_V: Float | None = None
    units: str = "percent signal change"
    confounds_VK: Float | None = None
    confound_names: tuple[str, ...] = ()
    start_time: float = 0.0
    regressors: tuple[str, ...] | None = None
    volume_valid_V: Bool | None = None
    discarded: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_volumes(self) -> int:
        """Number of volumes of the image or the table."""
        return int(self.image.shape[3] if self.series_VR is None else self.series_VR.shape[0])


@dataclass(frozen=True)
class Expected:
    """What a complete download of the site holds; ``None`` where not known."""

    subjects: int | None = None
    recordings: int | None = None


@dataclass(frozen=True)
class Site:
    """Facts of one site and the readers it uses.

    Parameters
    ----------
    name : str
        Site label of every recording key.
    sfreq : float
        EEG sampling frequency in the files, in Hz.
    t_r : float
        Repetition time in seconds.
    line_freq : float
        Mains frequency in Hz.
    volume_marker : str, optional
        Annotation description that marks each volume's start; ``None`` where the EEG has none.
    ch_names : tuple of str
        EEG channels that the site records, canonical names; empty means all EEG channels found.
    rename : mapping of str to str
        File channel name to canonical name, where normalisation alone is not enough.
    ch_types : mapping of str to str
        Canonical or file channel name to MNE type, for channels that are not EEG (``{"ECG": "ecg"}``).
    eeg_state : {"raw", "gradient-corrected", "clean"}
    eeg_scale : float or "detect", optional
        Factor by which the file's values must be multiplied so that they are what their unit says: 1e6 for volt
        labelled microvolt. "detect" takes the power of a thousand that makes the EEG plausible, where it is needed.
        ``None``: taken as they are, and refused where they cannot be microvolt.
    reference : str
        Recording reference, as published.
    bold_space : {"derivative", "template"}
        "derivative": only images that fMRIPrep brought to template space are read (or raw ones whose header says MNI
        or Talairach); "template": the raw ``func/*_bold.nii.gz`` lie in template space already, whatever they say.
    confounds : {"motion6", "none", "simple", "scrubbing", "compcor", "ica_aroma"}
        What is regressed out of the BOLD besides the trend: the six motion parameters (all columns of a table that does
        not name them), nothing, or one of nilearn's strategies on fMRIPrep's table
        (:func:`nilearn.interfaces.fmriprep.load_confounds_strategy`).
    rotation_unit : {"rad", "deg"}, optional
        Unit of the rotations in motion files that are not fMRIPrep's. ``None``: told from their size, with a note.
    extra_markers : {"start", "end"}, optional
        Where the one or two volume markers too many are: "end" for scans stopped by hand, "start" for dummy scans
        that are not in the image. ``None``: not known, and refused where the files do not show it.
    missing_markers : {"start", "end"}, optional
        Where markers are missing if there are fewer than volumes. ``None``: as above.
    triggers_per_volume : int
        1 where ``volume_marker`` marks volumes; the number of slice triggers per volume where it marks slices (or
        groups of slices of a multiband sequence).
    dummy_volumes : int
        Markers before the first volume of the image: scans that the scanner discards or that were cut off.
    scan_start : float, optional
        Explicit policy for EEG without volume markers: seconds from the first EEG sample (or from ``scan_marker``) to
        the trigger of the first volume. ``None``: recordings without markers are refused.
    scan_marker : str, optional
        Marker from which ``scan_start`` is counted, such as the first task marker.
    protocol_marker : str, optional
        A task marker whose first occurrence is known in scan time: independent evidence for the alignment.
    protocol_onset : float, optional
        Seconds from the trigger of the first volume to that occurrence.
    decoys : tuple of str
        Markers known not to be volumes.
    events_unit : {"s", "ms", "samples"}
        What the column ``onset`` of the EEG's ``events.tsv`` really holds.
    events_sfreq : float, optional
        Rate of those samples in Hz where it is not the file's (``events_unit="samples"``).
    loops : tuple of str
        File names of carbon-wire loops (or other artifact references) recorded beside the EEG.
    pulse : {"none", "aas", "pca-obs"}
        How the pulse artifact is removed: average of neighbouring beats, or MNE's optimal basis set.
    residual : {"none", "obs"}
        Whether an optimal basis set takes away what average templates leave of the gradient artifact.
    tasks : tuple of str
        BOLD task labels that were recorded simultaneously; empty means all.
    task_pairs : mapping of str to str
        EEG task label to BOLD task label where they differ (``{"GRADON": "GRAD"}``), or, for single misnamed files and
        other entities, entities to entities (``{"sub-12_ses-001_task-main_run-00": "run-006"}``).
    left_out : mapping of str to str
        Path pattern (``fnmatch``, relative to the root) to the reason why such files are not used.
    unusable : str
        Why the published EEG cannot serve for training as it is; read and aligned, but excluded with this reason.
    manufacturer : str
        Maker of the scanner where the sidecars do not name it, such as ``Philips``.
    field_strength : float, optional
        Tesla, where the sidecars do not say.
    population : str
        Who was scanned, in one word such as ``healthy`` or ``epilepsy``; a study may hold one population out.
    doi, license : str
    note : str
        What is known only second-hand, or not certain.
    expected : Expected
    find_recordings : callable ``(root, site) -> list of RecordingFiles``, optional
    read_eeg : callable ``(files, site) -> mne.io.BaseRaw`` (volt, markers as annotations), optional
    read_bold : callable ``(files, site) -> BoldRun``, optional
    """

    name: str
    sfreq: float
    t_r: float
    line_freq: float
    volume_marker: str | None
    ch_names: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    ch_types: Mapping[str, str] = field(default_factory=dict)
    eeg_state: EegState = "clean"
    eeg_scale: float | Literal["detect"] | None = None
    reference: str = "n/s"
    bold_space: BoldSpace = "derivative"
    confounds: Confounds = "motion6"
    rotation_unit: RotationUnit | None = None
    extra_markers: TrainEnd | None = None
    missing_markers: TrainEnd | None = None
    triggers_per_volume: int = 1
    dummy_volumes: int = 0
    scan_start: float | None = None
    scan_marker: str | None = None
    protocol_marker: str | None = None
    protocol_onset: float | None = None
    decoys: tuple[str, ...] = ()
    events_unit: EventsUnit = "s"
    events_sfreq: float | None = None
    loops: tuple[str, ...] = ()
    pulse: Pulse = "none"
    residual: Residual = "none"
    tasks: tuple[str, ...] = ()
    task_pairs: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    unusable: str = ""
    manufacturer: str = ""
    field_strength: float | None = None
    population: str = ""
    doi: str = ""
    license: str = ""
    note: str = ""
    expected: Expected = Expected()
    find_recordings: Callable[[Path, Site], list[RecordingFiles]] | None = None
    read_eeg: Callable[[RecordingFiles, Site], Any] | None = None
    read_bold: Callable[[RecordingFiles, Site], BoldRun] | None = None

    def __post_init__(self) -> None:
        problems = []
        if not self.sfreq > 0:
            problems.append(f"sfreq is {self.sfreq} Hz")
        if not 0.1 <= self.t_r <= 20:
            problems.append(f"t_r is {self.t_r}; it is given in seconds (a value such as 2000 is milliseconds)")
        if self.line_freq not in (50, 60):
            problems.append(f"line_freq is {self.line_freq} Hz, expected 50 or 60")
        if self.eeg_state not in EEG_STATES:
            problems.append(f"eeg_state is {self.eeg_state!r}, expected one of {EEG_STATES}")
        if self.eeg_scale not in (None, "detect") and not (
            isinstance(self.eeg_scale, int | float) and self.eeg_scale > 0
        ):
            problems.append(f"eeg_scale is {self.eeg_scale!r}, expected a positive factor, 'detect' or nothing")
        if self.bold_space not in get_args(BoldSpace):
            problems.append(f"bold_space is {self.bold_space!r}, expected one of {get_args(BoldSpace)}")
        if self.confounds not in get_args(Confounds):
            problems.append(f"confounds is {self.confounds!r}, expected one of {get_args(Confounds)}")
        if self.rotation_unit not in (None, *get_args(RotationUnit)):
            problems.append(f"rotation_unit is {self.rotation_unit!r}, expected 'rad', 'deg' or nothing")
        if self.events_unit not in get_args(EventsUnit):
            problems.append(f"events_unit is {self.events_unit!r}, expected one of {get_args(EventsUnit)}")
        for name, known in (("pulse", Pulse), ("residual", Residual)):
            if getattr(self, name) not in get_args(known):
                problems.append(f"{name} is {getattr(self, name)!r}, expected one of {get_args(known)}")
        if self.triggers_per_volume < 1 or self.dummy_volumes < 0:
            problems.append(
                f"triggers_per_volume is {self.triggers_per_volume} (at least 1) and dummy_volumes is "
                f"{self.dummy_volumes} (not negative)"
            )
        if (self.protocol_marker is None) != (self.protocol_onset is None):
            problems.append("protocol_marker and protocol_onset belong together: give both or neither")
        if self.scan_marker is not None and self.scan_start is None:
            problems.append("scan_marker needs scan_start, the seconds from it to the first volume")
        for name in ("extra_markers", "missing_markers"):
            if getattr(self, name) not in (None, *get_args(TrainEnd)):
                problems.append(f"{name} is {getattr(self, name)!r}, expected one of {get_args(TrainEnd)} or nothing")
        if problems:
            raise SiteError(f"site {self.name!r}: " + "; ".join(problems))
