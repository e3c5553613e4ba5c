"""Neural drive of every parcel, the band envelopes that show it in the EEG, and the BOLD that it causes.

Letters: ``R`` parcels, ``D`` samples of the drive (10 Hz), ``V`` volumes, ``S`` EEG sources, ``T`` EEG samples.

One smooth random drive per parcel (0.01 to 0.1 Hz, part of it shared by all) decides both: the amplitude of the
parcel's band follows its exponential after the band's lag, BOLD is its convolution with the subject's haemodynamic
response.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfftfreq
from scipy.signal import fftconvolve
from scipy.stats import gamma

from xsite.phantom.atlas import PARCELS
from xsite.phantom.presets import BANDS, CENTRE_HZ, LAG_S, Band, Preset
from xsite.recording import Float

DRIVE_HZ = 10.0
HISTORY_S = 40.0  # drive before the EEG starts, so that the first volume has its whole response
DRIVE_BAND_HZ = (0.01, 0.1)  # where resting BOLD fluctuates (Biswal 1995, MRM 34:537)
HRF_S = 32.0


@dataclass(frozen=True, eq=False)
class Subject:
    """What makes one subject at one site differ, drawn once per subject.

    Parameters
    ----------
    hrf_peak_s, hrf_width : float
        Peak time in seconds; width relative to the canonical response.
    centre_hz : mapping of band to float
        Peak frequencies.
    coupling_R, source_gain_R : array, shape (R,)
        SD of the log amplitude; relative source strength.
    mode_shift_R3 : array, shape (R, 3)
        Displacement of the parcels in mm.
    """

    hrf_peak_s: float
    hrf_width: float
    centre_hz: dict[Band, float]
    coupling_R: Float
    source_gain_R: Float
    mode_shift_R3: Float


def draw_subject(preset: Preset, site_rng: np.random.Generator, rng: np.random.Generator) -> Subject:
    """Draw one subject; ``site_rng`` is seeded per site, so that all its subjects share the site's part."""
    n = len(PARCELS)
    known_R = np.array([parcel.name not in preset.unlearnable for parcel in PARCELS])
    peak = preset.hrf_peak_s + preset.hrf_site_sd_s * site_rng.normal() + preset.hrf_subject_sd_s * rng.normal()
    pace = np.clip(CENTRE_HZ["alpha"] + preset.alpha_sd_hz * rng.normal(), 8.0, 12.5) / CENTRE_HZ["alpha"]
    return Subject(
        hrf_peak_s=float(np.clip(peak, 3.0, 8.0)),
        hrf_width=float(np.exp(preset.hrf_width_sd * rng.normal())),
        centre_hz={band: CENTRE_HZ[band] * float(pace) for band in BANDS},
        coupling_R=np.where(known_R, preset.coupling * np.exp(preset.gain_sd * rng.normal(size=n)), 0.0),
        source_gain_R=np.exp(preset.source_sd * rng.normal(size=n)),
        mode_shift_R3=preset.mode_mm * rng.normal(size=(n, 3)),
    )


def smooth_noise(
    rng: np.random.Generator, n_series: int, n: int, sfreq: float, band: tuple[float, float] = DRIVE_BAND_HZ
) -> Float:
    """Gaussian processes with a flat spectrum inside ``band`` and unit variance, shape (n_series, n)."""
    size = next_fast_len(n, real=True)
    hz = rfftfreq(size, 1 / sfreq)
    shape = ((hz >= band[0]) & (hz <= band[1])).astype(float)
    return _spectral_noise(rng, n_series, size, shape)[:, :n]


def _spectral_noise(rng: np.random.Generator, n_series: int, size: int, amplitude: Float) -> Float:
    """Gaussian noise with a given amplitude spectrum, scaled to unit expected variance."""
    used = np.flatnonzero(amplitude[1:] > 1e-4 * amplitude.max()) + 1  # never the constant
    spectrum = np.zeros((n_series, len(amplitude)), complex)
    spectrum[:, used] = rng.normal(size=(n_series, used.size)) + 1j * rng.normal(size=(n_series, used.size))
    spectrum[:, used] *= amplitude[used] * size / (2 * np.sqrt((amplitude[used] ** 2).sum()))
    return np.asarray(irfft(spectrum, size, axis=1))


def draw_drive(preset: Preset, rng: np.random.Generator, duration_s: float) -> Float:
    """Neural drive of all parcels, unit variance, from ``HISTORY_S`` before the EEG to its end.

    Returns
    -------
    array, shape (R, D)
    """
    n = int(np.ceil((HISTORY_S + duration_s) * DRIVE_HZ)) + 1
    own_RD = smooth_noise(rng, len(PARCELS), n, DRIVE_HZ)
    shared_1D = smooth_noise(rng, 1, n, DRIVE_HZ)
    drive_RD = np.sqrt(1 - preset.global_share) * own_RD + np.sqrt(preset.global_share) * shared_1D
    for number, parcel in enumerate(PARCELS):
        if parcel.name in preset.unlearnable:
            drive_RD[number] = own_RD[number]
    return np.asarray(drive_RD)


def hrf(peak_s: float = 5.0, width: float = 1.0, sfreq: float = DRIVE_HZ) -> Float:
    """Two-gamma response with its peak at ``peak_s``, undershoot ten seconds later, unit sum of squares.

    The canonical shape (Friston 1998) has gamma shapes 6 and 16 and ratio 6; ``width`` scales the standard deviation of
    both at unchanged peak times.
    """
    t = np.arange(0, HRF_S, 1 / sfreq)

    def bump(mode: float) -> Float:
        scale = (-mode + np.sqrt(mode**2 + 4 * width**2 * (mode + 1))) / 2  # gamma with this mode and SD
        return np.asarray(gamma.pdf(t, mode / scale + 1, scale=scale))

    response = bump(peak_s) - bump(peak_s + 10.0) / 6
    return np.asarray(response / np.sqrt((response**2).sum()))


def bold_series(drive_RD: Float, response: Float, times_V: Float) -> Float:
    """BOLD of each parcel at given seconds from the first EEG sample, unit SD over the scan, shape (R, V)."""
    full_RD = fftconvolve(drive_RD, response[None], axes=1)[:, : drive_RD.shape[1]]
    clock = np.arange(full_RD.shape[1]) / DRIVE_HZ - HISTORY_S
    bold_RV = np.stack([np.interp(times_V, clock, row) for row in full_RD])
    return np.asarray(bold_RV / bold_RV.std(1, keepdims=True))


def envelopes(drive_RD: Float, coupling_R: Float, n_times: int, sfreq: float) -> Float:
    """Amplitude of each parcel's source, unit mean square in expectation, shape (R, T)."""
    clock = np.arange(drive_RD.shape[1]) / DRIVE_HZ - HISTORY_S
    seconds = np.arange(n_times) / sfreq
    rows = []
    for parcel, drive_D, coupling in zip(PARCELS, drive_RD, coupling_R, strict=True):
        log_amplitude = parcel.sign * coupling * np.interp(seconds - LAG_S[parcel.band], clock, drive_D)
        rows.append(np.exp(log_amplitude - coupling**2))
    return np.stack(rows).astype(np.float32)


def band_carriers(
    rng: np.random.Generator, centre_hz: list[float], width_hz: list[float], n_times: int, sfreq: float
) -> Float:
    """Narrow-band Gaussian noise around each centre, unit variance, shape (S, T)."""
    size = next_fast_len(n_times, real=True)
    hz = rfftfreq(size, 1 / sfreq)
    rows = [
        _spectral_noise(rng, 1, size, np.exp(-((hz - centre) ** 2) / (2 * width**2)))[0, :n_times].astype(np.float32)
        for centre, width in zip(centre_hz, width_hz, strict=True)
    ]
    return np.stack(rows)


def scale_free(rng: np.random.Generator, n_series: int, n_times: int, sfreq: float, exponent: float) -> Float:
    """Noise with power 1/f^exponent above 0.5 Hz (flat below), unit variance, shape (n_series, T)."""
    size = next_fast_len(n_times, real=True)
    hz = rfftfreq(size, 1 / sfreq)
    shape = np.maximum(hz, 0.5) ** (-exponent / 2)
    shape[hz < 0.1] = 0
    rows = [_spectral_noise(rng, 1, size, shape)[0, :n_times].astype(np.float32) for _ in range(n_series)]
    return np.stack(rows)
