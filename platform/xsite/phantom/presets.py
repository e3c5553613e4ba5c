"""The presets: every number that decides how hard the phantom is, each with its source.

Frozen before any model was trained on phantom data; a change here is a new preset with a new name, not an edit.
``docs/phantom.md`` explains the choices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from xsite.errors import RecipeError
from xsite.spelling import did_you_mean

Band = Literal["delta", "theta", "alpha", "beta", "gamma"]
BANDS: tuple[Band, ...] = get_args(Band)

CENTRE_HZ: Mapping[Band, float] = {"delta": 2.5, "theta": 6.0, "alpha": 10.0, "beta": 20.0, "gamma": 37.0}
"""Centre of each band; gamma stays below the mains so that a notch costs nothing."""
WIDTH_HZ: Mapping[Band, float] = {"delta": 0.6, "theta": 0.9, "alpha": 1.0, "beta": 2.5, "gamma": 3.0}
"""SD of the Gaussian spectral peak."""
LAG_S: Mapping[Band, float] = {"delta": 0.8, "theta": 0.6, "alpha": 0.4, "beta": 0.2, "gamma": 0.0}
"""Seconds by which the band's envelope follows the neural drive: the lag between bands."""

CITATIONS: Mapping[str, str] = {
    "coupling": "Goldman 2002 (NeuroReport 13:2487), Laufs 2003 (PNAS 100:11053), Scheeringa 2011 (Neuron 69:572): "
    "alpha and beta power fall, gamma power rises with BOLD; Goldman 2002: thalamus rises with alpha",
    "alpha_sd_hz": "Klimesch 1999 (Brain Res Rev 29:169): individual alpha frequency differs by about 1 Hz (SD)",
    "hrf_peak_s": "Friston 1998 (NeuroImage 7:30): canonical two-gamma response",
    "hrf_subject_sd_s": "Aguirre 1998 (NeuroImage 8:360), Handwerker 2004 (NeuroImage 21:1639): the response differs "
    "more between subjects than within; differences of peak time of one second and more are common",
    "hrf_site_sd_s": "own choice, below the between-subject SD",
    "global_share": "Liu 2017 (NeuroImage 150:213): a sizeable share of BOLD variance is global",
    "silent_share": "de Munck 2007 (NeuroImage 35:1142), Scheeringa 2011: EEG power explains a minor share of resting "
    "BOLD variance; Li 2024 (NeurIPS, arXiv 2410.05341): best published mean R at rest about 0.5",
    "tsnr": "Murphy 2007 (NeuroImage 34:565): voxelwise temporal SNR at 3 T of about 40 to 100",
    "drift_pct": "Smith 1999 (NeuroImage 9:526): slow drift of the order of one percent",
    "motion_mm": "Power 2012 (NeuroImage 59:2142): framewise displacement of 0.1 to 0.3 mm in compliant subjects",
    "background_uv": "Niedermeyer's Electroencephalography: resting scalp EEG of 10 to 50 µV peak to peak; "
    "He 2014 (Trends Cogn Sci 18:480): scale-free 1/f^b background",
    "electrode_mm": "Atcherson 2007 (Brain Topogr 20:105): caps land several millimetres apart between sessions",
    "gradient_uv": "Allen 2000 (NeuroImage 12:230): artifact of several millivolt; residue of a few microvolt",
    "bcg_uv": "Allen 1998 (NeuroImage 8:229): pulse artifact of tens of microvolt; a few remain after correction",
}


@dataclass(frozen=True)
class Preset:
    """How strongly EEG and BOLD are coupled, how noisy both are, and how much sites and subjects differ.

    Parameters
    ----------
    coupling : float
        SD of the natural logarithm of a source's amplitude, driven by a neural drive of unit SD.
    gain_sd : float
        SD of the logarithm of each subject's coupling, per parcel.
    alpha_sd_hz : float
        SD of the individual alpha frequency; the other bands move in proportion.
    source_uv : mapping of band to float
        Scalp amplitude (RMS) of each source at its best electrode, in microvolt.
    source_sd : float
        SD of the logarithm of that amplitude over subjects.
    background_uv, background_exponent : float
        RMS of the 1/f^b background EEG at a typical electrode; b of its power spectrum.
    sensor_uv, line_uv : float
        RMS of white electrode noise (SD over electrodes in ``sensor_sd``, of the logarithm) and of the mains.
    electrode_mm : float
        SD of each electrode's displacement per subject, in millimetres along each axis.
    gradient_uv, gradient_residue_uv, bcg_uv : float
        Gradient artifact at the site that has it, what remains of it elsewhere, and of the pulse artifact.
    movement_uv : float
        EEG deflection at a movement of the head.
    bold_pct : float
        SD of the neural BOLD signal at the centre of a parcel, percent.
    global_share, silent_share : float
        Share of the drive's variance that all parcels have in common; share of the parcel's neural BOLD variance that
        the EEG does not show. The silent part counts as noise: the truth is without it.
    global_noise_pct, tsnr, drift_pct : float
        Non-neural global signal (SD, percent), voxelwise temporal SNR of the thermal noise, slow drift (percent).
    motion_mm, spikes_per_min, motion_residue : float
        SD of the realignment parameters, sudden movements per minute, share of the movement's first-order intensity
        change that realignment leaves.
    hrf_peak_s, hrf_site_sd_s, hrf_subject_sd_s, hrf_width_sd : float
        Peak time of the response, its SD over sites and subjects, SD of the logarithm of its width.
    mode_mm : float
        SD of the displacement of a subject's parcels against the atlas, in millimetres along each axis.
    unlearnable : tuple of str
        Parcels whose BOLD has nothing to do with the EEG: their sources keep their power, their drive shares nothing
        with the others'. What a model finds there is found by accident.
    """

    name: str
    coupling: float
    gain_sd: float
    alpha_sd_hz: float
    source_uv: Mapping[Band, float]
    source_sd: float
    background_uv: float
    sensor_uv: float
    sensor_sd: float
    line_uv: float
    electrode_mm: float
    gradient_uv: float
    gradient_residue_uv: float
    bcg_uv: float
    movement_uv: float
    bold_pct: float
    global_share: float
    silent_share: float
    global_noise_pct: float
    tsnr: float
    drift_pct: float
    motion_mm: float
    spikes_per_min: float
    motion_residue: float
    hrf_site_sd_s: float
    hrf_subject_sd_s: float
    hrf_width_sd: float
    mode_mm: float
    background_exponent: float = 1.5
    hrf_peak_s: float = 5.0
    unlearnable: tuple[str, ...] = ()
    citations: Mapping[str, str] = field(default_factory=lambda: dict(CITATIONS), repr=False)

    def numbers(self) -> dict[str, Any]:
        """All values as plain data, with the band tables, for ``consortium.json``."""
        bands = {"centre_hz": dict(CENTRE_HZ), "width_hz": dict(WIDTH_HZ), "lag_s": dict(LAG_S)}
        own = asdict(self)
        if not self.unlearnable:  # consortia of the frozen presets keep every byte
            del own["unlearnable"]
        return own | {"bands": bands}


EASY = Preset(
    name="easy",
    coupling=0.5,
    gain_sd=0.0,
    alpha_sd_hz=0.2,
    source_uv={"delta": 16.0, "theta": 10.0, "alpha": 16.0, "beta": 8.0, "gamma": 5.0},
    source_sd=0.1,
    background_uv=8.0,
    sensor_uv=1.0,
    sensor_sd=0.0,
    line_uv=1.0,
    electrode_mm=0.0,
    gradient_uv=2000.0,
    gradient_residue_uv=0.0,
    bcg_uv=0.0,
    movement_uv=0.0,
    bold_pct=1.0,
    global_share=0.15,
    silent_share=0.30,
    global_noise_pct=0.1,
    tsnr=80.0,
    drift_pct=1.0,
    motion_mm=0.05,
    spikes_per_min=0.2,
    motion_residue=0.1,
    hrf_site_sd_s=0.2,
    hrf_subject_sd_s=0.2,
    hrf_width_sd=0.05,
    mode_mm=0.0,
)

REALISTIC = Preset(
    name="realistic",
    coupling=0.35,
    gain_sd=0.3,
    alpha_sd_hz=1.0,
    source_uv={"delta": 12.0, "theta": 7.0, "alpha": 14.0, "beta": 5.0, "gamma": 2.0},
    source_sd=0.35,
    background_uv=12.0,
    sensor_uv=1.5,
    sensor_sd=0.5,
    line_uv=4.0,
    electrode_mm=4.0,
    gradient_uv=3000.0,
    gradient_residue_uv=4.0,
    bcg_uv=6.0,
    movement_uv=60.0,
    bold_pct=0.8,
    global_share=0.30,
    silent_share=0.62,
    global_noise_pct=0.3,
    tsnr=50.0,
    drift_pct=2.0,
    motion_mm=0.15,
    spikes_per_min=0.5,
    motion_residue=0.2,
    hrf_site_sd_s=0.4,
    hrf_subject_sd_s=0.8,
    hrf_width_sd=0.15,
    mode_mm=3.0,
)

UNLEARNABLE_PARCELS = (
    *("Angular gyrus R", "Putamen L", "Precentral gyrus R", "Insula R"),
    *("Middle temporal gyrus L", "Superior parietal lobule L", "Heschl gyrus R", "Calcarine cortex"),
)
"""Half of the atlas, some of every band."""
HALF_SILENT = replace(REALISTIC, name="half-silent", unlearnable=UNLEARNABLE_PARCELS)
"""For tests of false positives: half of the parcels cannot be learnt, the others are those of ``realistic``."""
ALIKE = replace(REALISTIC, name="alike", hrf_site_sd_s=0.0)
"""For tests of the gap between known and unseen sites: a site changes nothing, if its habits are the others' as well
(:func:`xsite.phantom.habits.same_habits`)."""

PRESETS: Mapping[str, Preset] = {p.name: p for p in (EASY, REALISTIC, HALF_SILENT, ALIKE)}


def get_preset(name: str | Preset) -> Preset:
    """Look a preset up by name.

    Raises
    ------
    RecipeError
        No such preset (with "did you mean").
    """
    if isinstance(name, Preset):
        return name
    if name in PRESETS:
        return PRESETS[name]
    raise RecipeError(f"no phantom preset {name!r}{did_you_mean(name, PRESETS)}; there are {', '.join(PRESETS)}")
