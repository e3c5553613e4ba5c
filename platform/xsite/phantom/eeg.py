"""Scalp EEG of one recording, at 250 Hz in microvolt, and its expansion to the rate of the site's amplifier.

Letters: ``C`` EEG channels, ``S`` sources, ``T`` samples at 250 Hz, ``N`` samples at the amplifier's rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from xsite.phantom.atlas import PARCELS, grid
from xsite.phantom.habits import Habits, standard_name
from xsite.phantom.head import dipoles, electrode_positions, leadfield, move_electrodes
from xsite.phantom.presets import WIDTH_HZ, Preset
from xsite.phantom.sources import Subject, band_carriers, envelopes, scale_free
from xsite.recording import Float

SIM_HZ = 250.0
N_BACKGROUND = 24
TEN_TWENTY = (
    *("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8"),
    *("T7", "C3", "Cz", "C4", "T8"),
    *("P7", "P3", "Pz", "P4", "P8", "O1", "O2"),
)


@dataclass(frozen=True, eq=False)
class Timing:
    """When things happen, in seconds from the first EEG sample; volume triggers fall on samples of the amplifier."""

    duration_s: float
    triggers_V: Float
    t_r: float

    @property
    def scan_end_s(self) -> float:
        """End of the last volume."""
        return float(self.triggers_V[-1] + self.t_r)


@dataclass(frozen=True, eq=False)
class ScalpEeg:
    """Simulated EEG channels, their positions (m, head frame), and the heart beats (s)."""

    eeg_CT: NDArray[np.float32]
    positions_C3: Float
    beats: Float


@lru_cache(maxsize=1)
def _background_dipoles() -> tuple[Float, Float]:
    """Background generators: evenly spread over the upper cortex, the same for everybody."""
    index = np.arange(N_BACKGROUND)
    z = 1 - 1.25 * (index + 0.5) / N_BACKGROUND  # a Fibonacci sphere, cut below the temporal lobes
    angle = index * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - z**2)
    mni = np.array([0.0, -17.0, 12.0]) + 66.0 * np.stack([ring * np.cos(angle), 1.25 * ring * np.sin(angle), z], 1)
    return dipoles(mni, [None] * N_BACKGROUND)


@lru_cache(maxsize=1)
def _source_scale() -> tuple[Float, Float, Float]:
    """Sources, and the factor that gives each one microvolt at its best 10-20 electrode (average reference)."""
    rr, orientations = dipoles(np.array([p.generator for p in PARCELS], float), [p.direction for p in PARCELS])
    gain = leadfield(electrode_positions(TEN_TWENTY), rr, orientations)
    return rr, orientations, 1 / np.abs(gain - gain.mean(0)).max(0)


def simulate_scalp(
    habits: Habits, preset: Preset, subject: Subject, drive_RD: Float, timing: Timing, rng: np.random.Generator
) -> ScalpEeg:
    """Sources, background, electrode noise and artifact residue at the site's electrodes, in its reference."""
    n_times = round(timing.duration_s * SIM_HZ)
    names = [standard_name(name) for name in habits.eeg_names]
    outside = [name for name in habits.reference if name not in names]
    positions = move_electrodes(electrode_positions([*names, *outside]), preset.electrode_mm, rng)
    eeg = _brain(preset, subject, drive_RD, positions, n_times, rng)
    noise_sd = preset.sensor_uv * np.exp(preset.sensor_sd * rng.normal(size=len(eeg)))
    eeg += (noise_sd[:, None] * rng.standard_normal(eeg.shape, dtype=np.float32)).astype(np.float32)
    beats = heart_beats(rng, timing.duration_s)
    eeg += _artifacts(preset, habits, timing, beats, positions, n_times, rng)
    everybody = [*names, *outside]
    reference = [everybody.index(name) for name in habits.reference] or list(range(len(names)))
    eeg -= eeg[reference].mean(0, keepdims=True)
    return ScalpEeg(eeg[: len(names)], positions[: len(names)], beats)


def _brain(
    preset: Preset, subject: Subject, drive_RD: Float, positions_C3: Float, n_times: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    rr, orientations, unit = _source_scale()
    peak_uv = np.array([preset.source_uv[p.band] for p in PARCELS]) * subject.source_gain_R
    mixing_CR = leadfield(positions_C3, rr, orientations) * unit * peak_uv
    centres = [subject.centre_hz[p.band] for p in PARCELS]
    sources_RT = band_carriers(rng, centres, [WIDTH_HZ[p.band] for p in PARCELS], n_times, SIM_HZ)
    sources_RT *= envelopes(drive_RD, subject.coupling_R, n_times, SIM_HZ)
    eeg_CT = (mixing_CR.astype(np.float32)) @ sources_RT
    mixing_CS = leadfield(positions_C3, *_background_dipoles())
    rms = np.sqrt(((mixing_CS - mixing_CS.mean(0)) ** 2).sum(1).mean())
    noise_ST = scale_free(rng, N_BACKGROUND, n_times, SIM_HZ, preset.background_exponent)
    eeg_CT += (mixing_CS * preset.background_uv / rms).astype(np.float32) @ noise_ST
    return np.asarray(eeg_CT, dtype=np.float32)


def heart_beats(rng: np.random.Generator, duration_s: float) -> Float:
    """R peaks of a heart at about 65 beats per minute."""
    mean = rng.uniform(0.8, 1.05)
    gaps = mean * (1 + 0.05 * rng.normal(size=int(duration_s / mean * 1.5) + 10))
    beats = np.cumsum(np.clip(gaps, 0.5, 1.5))
    return np.asarray(beats[beats < duration_s - 1])


def _pulses(beats: Float, delay_s: float, sd_s: float, n_times: int) -> NDArray[np.float32]:
    """One Gaussian deflection per beat."""
    train = np.zeros(n_times, np.float32)
    train[np.round((beats + delay_s) * SIM_HZ).astype(int) % n_times] = 1
    t = np.arange(-5 * sd_s, 5 * sd_s, 1 / SIM_HZ)
    return np.convolve(train, np.exp(-(t**2) / (2 * sd_s**2)).astype(np.float32), mode="same").astype(np.float32)


def _artifacts(
    preset: Preset,
    habits: Habits,
    timing: Timing,
    beats: Float,
    positions_C3: Float,
    n_times: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """What correction leaves: pulse artifact, slice harmonics during the scan, deflections when the head moves."""
    t = np.arange(n_times, dtype=np.float32) / np.float32(SIM_HZ)
    side_C = (positions_C3[:, 0] / np.abs(positions_C3[:, 0]).max()).astype(np.float32)  # opposite on the two sides
    pulse_T = _pulses(beats, 0.21, 0.04, n_times) - 0.6 * _pulses(beats, 0.33, 0.06, n_times)
    total = np.outer(preset.bcg_uv * (side_C + 0.2), pulse_T).astype(np.float32)
    scan = ((t >= timing.triggers_V[0]) & (t < timing.scan_end_s)).astype(np.float32)
    slice_hz = 1 / (timing.t_r / _slice_shots(habits))
    for harmonic in (1, 2):
        if preset.gradient_residue_uv and harmonic * slice_hz < SIM_HZ / 2:
            strength = preset.gradient_residue_uv * rng.normal(size=len(side_C)) / harmonic
            total += np.outer(strength, scan * np.sin(2 * np.pi * harmonic * slice_hz * t)).astype(np.float32)
    movements = np.sort(rng.uniform(0, timing.duration_s, rng.poisson(preset.spikes_per_min * timing.duration_s / 60)))
    if preset.movement_uv:
        shape = np.outer(rng.normal(size=len(side_C)), _pulses(movements, 0.0, 0.15, n_times))
        total += (preset.movement_uv * shape).astype(np.float32)
    return total


def _slice_shots(habits: Habits) -> int:
    """Excitations per volume: slices over multiband factor."""
    return max(1, (habits.slices or grid(habits.voxel_mm)[1][2]) // habits.multiband)


def expand(row_T: NDArray[np.float32], sfreq: float, n_samples: int) -> NDArray[np.float32]:
    """One channel from 250 Hz to the amplifier's rate (polyphase), exactly ``n_samples`` long."""
    ratio = gcd(int(sfreq), int(SIM_HZ))
    row_N = resample_poly(row_T, int(sfreq) // ratio, int(SIM_HZ) // ratio).astype(np.float32)
    return np.asarray(np.pad(row_N, (0, max(0, n_samples - len(row_N))))[:n_samples])


def amplifier_channels(
    scalp: ScalpEeg, habits: Habits, preset: Preset, timing: Timing, rng: np.random.Generator
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield every channel of the file in its order, in microvolt at the amplifier's rate, with mains and gradients."""
    n_samples = round(timing.duration_s * habits.sfreq)
    t = np.arange(n_samples) / habits.sfreq
    mains = np.sin(2 * np.pi * habits.line_freq * t) + 0.2 * np.sin(6 * np.pi * habits.line_freq * t)
    mains_N = mains.astype(np.float32)
    volume_P = _gradient_volume(habits, timing, rng) if habits.gradient else None
    eeg_rows = iter(scalp.eeg_CT)
    for name in habits.ch_names:
        row_T = next(eeg_rows) if name not in habits.ch_types else _other(habits.ch_types[name], scalp, rng)
        row_N = expand(row_T, habits.sfreq, n_samples)
        row_N += np.float32(preset.line_uv * abs(1 + 0.3 * rng.normal())) * mains_N
        if volume_P is not None:
            strength = np.float32(preset.gradient_uv * rng.uniform(0.4, 1.0) * rng.choice([-1, 1]))
            _add_gradient(row_N, volume_P * strength, timing, habits.sfreq)
        yield name, row_N


def _other(kind: str, scalp: ScalpEeg, rng: np.random.Generator) -> NDArray[np.float32]:
    n_times = scalp.eeg_CT.shape[1]
    noise = rng.standard_normal(n_times, dtype=np.float32)
    if kind == "ecg":
        wave = _pulses(scalp.beats, 0.0, 0.012, n_times) + 0.2 * _pulses(scalp.beats, 0.27, 0.05, n_times)
        return np.asarray(800 * wave + 5 * noise, dtype=np.float32)
    if kind == "eog":
        blinks = rng.uniform(0, n_times / SIM_HZ - 1, max(1, int(n_times / SIM_HZ / 8)))
        return np.asarray(120 * _pulses(blinks, 0.0, 0.08, n_times) + 5 * noise, dtype=np.float32)
    return np.asarray(20 * noise, dtype=np.float32)


def _gradient_volume(habits: Habits, timing: Timing, rng: np.random.Generator) -> NDArray[np.float32]:
    """Gradient artifact of one volume, peak 1: a burst per slice excitation, band-limited by the amplifier."""
    n_volume = round(timing.t_r * habits.sfreq)
    shots = _slice_shots(habits)
    spectrum = np.zeros(n_volume // 2 + 1, complex)
    harmonic = np.arange(shots, min(len(spectrum), int(230 * timing.t_r)), shots)
    spectrum[harmonic] = rng.normal(size=harmonic.size) + 1j * rng.normal(size=harmonic.size)
    low = np.arange(1, shots)  # the volume's own pattern: fat saturation and crusher once per volume
    spectrum[low] = 0.02 * (rng.normal(size=low.size) + 1j * rng.normal(size=low.size))
    volume = np.fft.irfft(spectrum, n_volume)
    return np.asarray(volume / np.abs(volume).max(), dtype=np.float32)


def _add_gradient(row_N: Any, volume_P: NDArray[np.float32], timing: Timing, sfreq: float) -> None:
    for start in np.round(timing.triggers_V * sfreq).astype(int):
        piece = row_N[start : start + len(volume_P)]  # the EEG may end inside the last volume
        piece += volume_P[: len(piece)]
