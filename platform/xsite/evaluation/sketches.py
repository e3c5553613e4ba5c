"""What a recording looks like from afar: small enough for a driver, enough to know the same recording by another name.

A sketch holds how EEG band power goes up and down (mean over channels, so that names, order and number of channels do
not matter) and eight contrasts of the parcel series (without their common part, so that two people with one global
signal stay two people). Both are ranks in one byte: gain, rounding to float16 and outliers change next to nothing, and
a shift in time is found by looking at all lags. 20 minutes are about 25 kB.

Shape letters: ``B`` bands, ``S`` samples of the sketch, ``P`` contrasts, ``V`` volumes, ``R`` parcels, ``C`` channels,
``T`` EEG samples, ``F`` features, ``N`` recordings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, special, stats

from xsite.data.harmonize import strict_target
from xsite.evaluation.power import SAMPLES_PER_S
from xsite.recording import Float, Recording, RecordingKey

Int8 = NDArray[np.int8]
Signal = Literal["EEG", "BOLD"]

EEG_HZ = 4.0
FRAME_S = 2.0
BANDS_HZ = ((4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0))
CONTRASTS = 8
LEAST_SHARE = 0.5
"""Two recordings are compared where at least this share of the shorter one overlaps."""
LEAST_S = 30.0
"""Seconds that an overlap must have: less says nothing."""
LAGS_S = tuple(range(0, 17, 2))
"""Lags at which features are held against the target: those of a 16 s window."""
SCREEN = 0.3


@dataclass(frozen=True)
class Relation:
    """The EEG feature of a recording that goes most with one of its parcels, both low-passed.

    Parameters
    ----------
    r : float
        Absolute correlation.
    feature, parcel : str
        Such as ``mean of Cz 4 s before the volume``.
    p : float
        Chance of so high a value anywhere among all features and parcels (Fisher's z with the independent samples that
        low-passed BOLD has, Bonferroni): a short scan finds high values by itself.
    """

    r: float
    feature: str
    parcel: str
    p: float


@dataclass(frozen=True, eq=False)
class Sketch:
    """One recording from afar.

    Parameters
    ----------
    eeg_BS : int8 array
        At :data:`EEG_HZ`.
    bold_PV : int8 array
    t_r : float
        Seconds.
    relation : Relation, optional
        None where nothing could be correlated.
    """

    eeg_BS: Int8
    bold_PV: Int8
    t_r: float
    relation: Relation | None


@dataclass(frozen=True)
class Likeness:
    """Two recordings whose signals are alike: ``r`` on the overlap, the second one late by ``lag_s``."""

    a: RecordingKey
    b: RecordingKey
    signal: Signal
    r: float
    lag_s: float


def sketch_recording(recording: Recording, low_pass: float = 0.15) -> Sketch:
    """Sketch one recording; its arrays are not kept."""
    return Sketch(
        _ranked(_power_changes(recording)),
        _ranked(_contrasts(recording)),
        float(recording.t_r),
        strongest_relation(recording, low_pass),
    )


def _ranked(series_XS: Float) -> Int8:
    """Ranks of each row, -127 to 127; what is not a number becomes 0, the middle."""
    result_XS = np.zeros(series_XS.shape, np.int8)
    for row, out in zip(series_XS, result_XS, strict=True):
        known = np.isfinite(row)
        if known.sum() > 2 and np.ptp(row[known]) > 0:
            share = (stats.rankdata(row[known]) - 0.5) / known.sum()
            out[known] = np.round(254 * share - 127).astype(np.int8)
    return result_XS


def _power_changes(recording: Recording) -> Float:
    """Change over one frame of the log power of each band, mean over channels, shape (B, S)."""
    n_frame, hop = round(FRAME_S * recording.sfreq), round(recording.sfreq / EEG_HZ)
    starts_S = np.arange(0, recording.eeg.shape[1] - n_frame + 1, hop)
    if not len(starts_S):
        return np.zeros((len(BANDS_HZ), 0))
    hz = np.fft.rfftfreq(n_frame, 1 / recording.sfreq)
    pick_BF = np.array([(hz >= low) & (hz < high) for low, high in BANDS_HZ])
    taper = np.hanning(n_frame + 1)[:-1].astype(np.float32)
    log_BS = np.zeros((len(BANDS_HZ), len(starts_S)))
    for eeg_T in recording.eeg:  # one channel at a time: all frames of 64 channels at once would take gigabytes
        frames = np.lib.stride_tricks.sliding_window_view(np.asarray(eeg_T, np.float32), n_frame)[starts_S]
        spectrum = fft.rfft(frames * taper, axis=1)[:, : np.flatnonzero(pick_BF.any(0))[-1] + 1]
        power_SF = spectrum.real**2 + spectrum.imag**2
        log_BS += np.log(power_SF @ pick_BF[:, : power_SF.shape[1]].T.astype(np.float32) + 1e-6).T
    bad_T = np.concatenate([[0], np.cumsum(~recording.eeg_valid)])
    log_BS[:, bad_T[starts_S + n_frame] > bad_T[starts_S]] = np.nan
    step = round(FRAME_S * EEG_HZ)
    return log_BS[:, step:] - log_BS[:, :-step]  # a change has no level: the step where a scanner starts is one sample


def _contrasts(recording: Recording) -> Float:
    """Fixed random contrasts of the parcels, each parcel in units of its own SD, shape (P, V)."""
    bold_VR = np.where(recording.volume_valid[:, None], recording.bold, np.nan).astype(float)
    known_R = np.isfinite(bold_VR).sum(0) > 2
    z_VR = np.zeros_like(bold_VR)
    if known_R.any():
        own_VR = bold_VR[:, known_R]
        sd_R = np.nanstd(own_VR, axis=0)
        z_VR[:, known_R] = (own_VR - np.nanmean(own_VR, axis=0)) / np.where(sd_R > 0, sd_R, 1)
    n = z_VR.shape[1]
    if n > CONTRASTS:
        mix_PR = np.random.default_rng(20261122).normal(size=(CONTRASTS, n)) * known_R
        mix_PR -= mix_PR.sum(1, keepdims=True) * known_R / max(known_R.sum(), 1)
    else:
        mix_PR = np.eye(n)
    gone_V = np.isnan(bold_VR).all(1)
    return np.where(gone_V, np.nan, mix_PR @ np.nan_to_num(z_VR).T)


def strongest_relation(recording: Recording, low_pass: float = 0.15) -> Relation | None:
    """The mean or log power of a channel, second by second, that goes most with a parcel at one of the lags.

    Features are read at :data:`LAGS_S` before each volume and low-passed as the target is.
    """
    n_bin = round(recording.sfreq)
    n_bins, valid_V = recording.eeg.shape[1] // n_bin, np.asarray(recording.volume_valid, bool)
    if n_bins < 4 or valid_V.sum() < 8:
        return None
    mean_CS, power_CS = _by_second(recording, n_bin, n_bins)
    nobody_V = np.zeros(len(valid_V), bool)

    def filtered(series_VX: Float) -> Float:
        one_X = np.ones(series_VX.shape[1])
        result_VX = strict_target(series_VX, recording.t_r, nobody_V, one_X, low_pass, valid_V=valid_V)
        return _unit(result_VX[valid_V].astype(float))

    target_VR, best = filtered(recording.bold), (0.0, 0, 0, 0)
    for lag in LAGS_S:
        at_V = recording.volume_onsets - lag - 0.5
        features_VF = np.stack([np.interp(at_V, np.arange(n_bins), row) for row in [*mean_CS, *power_CS]], 1)
        r_FR = np.abs(filtered(features_VF).T @ target_VR)
        at, column = divmod(int(r_FR.argmax()), r_FR.shape[1])
        best = max(best, (float(r_FR[at, column]), at, column, lag))
    r, f, parcel, lag = best
    names = recording.ch_names
    what = f"{'mean' if f < len(names) else 'log power'} of {names[f % len(names)]} {lag} s before the volume"
    tests = 2 * len(names) * len(LAGS_S) * target_VR.shape[1]
    return Relation(r, what, recording.parcellation.labels[parcel], _chance(r, valid_V.sum() * recording.t_r, tests))


def _by_second(recording: Recording, n_bin: int, n_bins: int) -> tuple[Float, Float]:
    means, powers = [], []
    for eeg_T in recording.eeg:
        bins = np.asarray(eeg_T[: n_bins * n_bin], np.float64).reshape(n_bins, n_bin)
        means.append(bins.mean(1))
        powers.append(np.log(bins.var(1) + 1e-6))
    return np.stack(means), np.stack(powers)


def _unit(series_VX: Float) -> Float:
    centred_VX = np.nan_to_num(series_VX - np.nan_to_num(series_VX).mean(0))
    norm_X = np.sqrt((centred_VX**2).sum(0))
    return np.where(norm_X > 1e-9, centred_VX / np.where(norm_X > 1e-9, norm_X, 1), 0.0)


def _chance(r: float, scan_s: float, tests: int) -> float:
    n_effective = scan_s * SAMPLES_PER_S
    if n_effective <= 4:
        return 1.0
    z = math.atanh(min(r, 1 - 1e-12)) * math.sqrt(n_effective - 3)
    return min(1.0, 2 * tests * float(special.ndtr(-z)))


def find_alike(sketches: Mapping[RecordingKey, Sketch], least: float) -> list[Likeness]:
    """All pairs of recordings whose EEG or BOLD correlates by ``least`` or more at some lag, most alike first."""
    keys = sorted(sketches)
    found = _pairs(keys, [sketches[key].eeg_BS for key in keys], "EEG", EEG_HZ, least)
    by_t_r: dict[float, list[RecordingKey]] = {}
    for key in keys:
        by_t_r.setdefault(round(sketches[key].t_r, 2), []).append(key)
    for own in by_t_r.values():
        found += _pairs(own, [sketches[key].bold_PV for key in own], "BOLD", 1 / sketches[own[0]].t_r, least)
    return sorted(found, key=lambda pair: -pair.r)


def _pairs(
    keys: Sequence[RecordingKey], series: Sequence[Int8], signal: Signal, rate_hz: float, least: float
) -> list[Likeness]:
    lengths_N = np.array([x.shape[1] for x in series])
    if len(keys) < 2 or lengths_N.max() == 0 or len({len(x) for x in series}) > 1:
        return []
    size = fft.next_fast_len(2 * int(lengths_N.max()), real=True)
    spectra_NXF = np.stack([fft.rfft(x.astype(np.float32), size, axis=1) for x in series])
    energy_N = np.array([(x.astype(float) ** 2).sum() for x in series])
    found = []
    for i in range(len(keys) - 1):
        cross_NF = (np.conj(spectra_NXF[i]) * spectra_NXF[i + 1 :]).sum(1)
        product_NS = fft.irfft(cross_NF, size, axis=1)
        best_N = product_NS.argmax(1)
        height_N = product_NS.max(1) / np.maximum(np.minimum(energy_N[i], energy_N[i + 1 :]), 1)
        for other in np.flatnonzero(height_N >= SCREEN * least):
            lag = int(best_N[other]) if best_N[other] < size // 2 else int(best_N[other]) - size
            j = i + 1 + int(other)
            r = _overlap_r(series[i], series[j], lag, rate_hz)
            if r >= least:
                found.append(Likeness(keys[i], keys[j], signal, r, lag / rate_hz))
    return found


def _overlap_r(a_XS: Int8, b_XS: Int8, lag: int, rate_hz: float) -> float:
    """Mean correlation over rows where the two overlap, ``b`` late by ``lag`` samples; 0 for too little in common."""
    start, stop = max(0, -lag), min(a_XS.shape[1], b_XS.shape[1] - lag)
    if stop - start < max(LEAST_SHARE * min(a_XS.shape[1], b_XS.shape[1]), LEAST_S * rate_hz):
        return 0.0
    a, b = a_XS[:, start:stop].astype(float), b_XS[:, start + lag : stop + lag].astype(float)
    unit: Any = [_unit(x.T) for x in (a, b)]
    moving_X = (np.abs(unit[0]).max(0) > 0) & (np.abs(unit[1]).max(0) > 0)
    return float((unit[0] * unit[1]).sum(0)[moving_X].mean()) if moving_X.any() else 0.0
