"""What each phantom site does its own way: file format, cap, names, markers, mains, scanner.

The first four are the demo's; the habits are those that public simultaneous EEG-fMRI data sets show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from xsite.errors import RecipeError

EegFormat = Literal["brainvision", "edf", "eeglab"]


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Brain Products' BC-MR-32 cap: the ECG electrode is number 32
BC32 = _names(
    "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fz Cz Pz Oz FC1 FC2 CP1 CP2 FC5 FC6 CP5 CP6 TP9 TP10 POz ECG"
)
BC64 = BC32 + _names(
    "F1 F2 C1 C2 P1 P2 AF3 AF4 FC3 FC4 CP3 CP4 PO3 PO4 F5 F6 C5 C6 P5 P6 AF7 AF8 FT7 FT8 TP7 TP8 PO7 PO8 "
    "FT9 FT10 Fpz CPz"
)
UPPER31 = _names(
    "FP1 FPZ FP2 F7 F3 FZ F4 F8 FT9 FC5 FC1 FC2 FC6 FT10 T7 C3 CZ C4 T8 CP5 CP1 CP2 CP6 P7 P3 PZ P4 P8 O1 OZ O2 ECG"
)
VU32 = _names(
    "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 FPz Fz Cz Pz POz Oz FT9 FT10 TP9 TP10 EOG1 EOG2 EMG1 EMG2 "
    "EMG3 ECG"
)
OLD_NAMES = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
OTHER_TYPES = {"ECG": "ecg", "EOG1": "eog", "EOG2": "eog", "EMG1": "emg", "EMG2": "emg", "EMG3": "emg"}


@dataclass(frozen=True)
class Habits:
    """One site's way of recording.

    Parameters
    ----------
    ch_names : tuple of str
        All channels as the file spells them; types other than EEG in ``ch_types``.
    reference : tuple of str
        Electrodes whose mean is the recording reference; empty means the average of all EEG channels.
    marker : str
        Volume marker as MNE-Python spells the annotation: ``Response/R128`` in BrainVision files.
    decoy, decoy_every_s, decoy_phase_s : str, float, float
        Marker that is not a volume; its period, and offset from the start of the EEG.
    markers_in_file : bool
        ``False``: markers stand in ``events.tsv`` only, as in ds002725.
    lead_in_s, tail_s : float
        EEG before the first volume (a subject adds up to 4 s) and after the last.
    extra_markers : int
        Volume markers after the last volume that was kept (a scan stopped by hand).
    multiband : int
        Slices excited together.
    slices : int
        Slices of the scanner's volume; 0: those of the phantom's own image.
    reference_share : float
        Slice-timing reference as a share of the repetition time (fMRIPrep's default is 0.5).
    gradient : bool
        The EEG still holds the gradient artifact.
    positions : bool
        Electrode positions are published.
    """

    name: str
    eeg_format: EegFormat
    sfreq: float
    ch_names: tuple[str, ...]
    reference: tuple[str, ...]
    line_freq: float
    marker: str
    t_r: float
    voxel_mm: float
    decoy: str = ""
    decoy_every_s: float = 2.0
    decoy_phase_s: float = 0.7
    markers_in_file: bool = True
    lead_in_s: float = 20.0
    tail_s: float = 6.0
    extra_markers: int = 0
    multiband: int = 1
    slices: int = 0
    reference_share: float = 0.0
    gradient: bool = False
    positions: bool = True
    manufacturer: str = "Brain Products"
    ch_types: Mapping[str, str] = field(default_factory=lambda: dict(OTHER_TYPES))

    @property
    def eeg_names(self) -> tuple[str, ...]:
        """EEG channels as the file spells them."""
        return tuple(name for name in self.ch_names if name not in self.ch_types)

    @property
    def reference_text(self) -> str:
        """Reference in words, for sidecars."""
        return " + ".join(self.reference) if self.reference else "average"


def standard_name(name: str) -> str:
    """Spelling of a phantom channel in MNE's ``colin27_1005`` montage."""
    new = {old: new for new, old in OLD_NAMES.items()}.get(name, name)
    return new.capitalize() if new.upper() in ("FP1", "FP2", "FPZ") else new.replace("Z", "z")


_A = Habits(
    name="siteA",
    eeg_format="brainvision",
    sfreq=5000,
    ch_names=BC32,
    reference=("FCz",),
    line_freq=50,
    marker="Response/R128",
    t_r=2.0,
    voxel_mm=5.0,
    decoy="SyncStatus/Sync On",
    lead_in_s=20.0,
    reference_share=0.5,
)
_B = Habits(
    name="siteB",
    eeg_format="edf",
    sfreq=1000,
    ch_names=UPPER31,
    reference=("TP9", "TP10"),
    line_freq=60,
    marker="10",
    t_r=0.8,
    voxel_mm=6.0,
    decoy="47",
    decoy_every_s=0.8,
    decoy_phase_s=0.31,
    markers_in_file=False,
    lead_in_s=5.0,
    multiband=4,
    positions=False,
    manufacturer="Compumedics Neuroscan",
)
_C = Habits(
    name="siteC",
    eeg_format="eeglab",
    sfreq=500,
    ch_names=tuple(OLD_NAMES.get(name, name) for name in BC64),
    reference=("FCz",),
    line_freq=50,
    marker="Scan Start",
    t_r=3.0,
    voxel_mm=4.0,
    decoy="Sync On",
    lead_in_s=31.0,
    extra_markers=1,
)
_D = Habits(
    name="siteD",
    eeg_format="brainvision",
    sfreq=5000,
    ch_names=VU32,
    reference=("FCz",),
    line_freq=60,
    marker="Response/R149",
    t_r=2.1,
    voxel_mm=4.5,
    decoy="SyncStatus/Sync On",
    decoy_every_s=1.0,
    lead_in_s=18.0,
    gradient=True,
)
HABITS: tuple[Habits, ...] = (
    _A,
    _B,
    _C,
    _D,
    replace(_A, name="siteE", sfreq=2500, line_freq=60, marker="Stimulus/S128", t_r=1.5, voxel_mm=5.5, lead_in_s=27.0),
    replace(_B, name="siteF", sfreq=500, line_freq=50, t_r=1.25, voxel_mm=5.0, decoy_every_s=1.25, lead_in_s=24.0),
    replace(_C, name="siteG", sfreq=250, line_freq=60, t_r=2.5, voxel_mm=5.0, reference=(), extra_markers=0),
    replace(_D, name="siteH", t_r=2.2, voxel_mm=5.0, marker="Response/R128", gradient=False, reference=("M1", "M2")),
)


def pick_habits(n_sites: int) -> tuple[Habits, ...]:
    """First ``n_sites`` of the table.

    Raises
    ------
    RecipeError
        Fewer than one or more than the table holds.
    """
    if not 1 <= n_sites <= len(HABITS):
        raise RecipeError(f"asked for {n_sites} phantom sites; between 1 and {len(HABITS)} are defined")
    return HABITS[:n_sites]


def same_habits(n_sites: int) -> tuple[Habits, ...]:
    """Sites that record as ``siteA`` does: nothing but the name tells them apart."""
    return tuple(replace(_A, name=f"twin{chr(ord('A') + number)}") for number in range(n_sites))
