"""Quality figures tell a good recording from a bad one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xsite.signals.align import align
from xsite.signals.bold import RawParcels
from xsite.signals.quality import line_noise_ratio, quality_figures, robust_sd


@pytest.fixture
def parts(rng: np.random.Generator) -> dict:
    bold_VR = rng.normal(0, 0.5, (80, 4)).astype(np.float32)
    bold_VR[:, 3] = np.nan
    valid = np.ones(12_000, bool)
    valid[:3000] = False
    return {
        "eeg_CT": rng.normal(0, 12, (5, 12_000)).astype(np.float32),
        "eeg_valid_T": valid,
        "sfreq": 200.0,
        "line_freq": 50.0,
        "bold_VR": bold_VR,
        "volume_valid_V": np.arange(80) < 76,
    }


def test_figures_are_the_known_ones(parts: dict):
    parts["eeg_CT"][:, 100:200] = 1e5  # in the invalid stretch
    figures = quality_figures(**parts, n_flat=2)
    assert figures["eeg_robust_sd_uv"] == pytest.approx(12, rel=0.05)
    assert figures["eeg_line_noise_ratio"] == pytest.approx(1, abs=0.2)
    assert figures["eeg_valid_fraction"] == 0.75
    assert figures["eeg_flat_channels"] == 2
    assert figures["bold_valid_fraction"] == 0.95
    assert figures["bold_parcel_sd_percent"] == pytest.approx(0.5, rel=0.1)
    assert figures["bold_parcel_coverage_fraction"] == 0.75
    assert "mean_fd_mm" not in figures
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_optional_parts_add_their_figures(parts: dict):
    markers = 20 + 0.8 * np.arange(80)
    alignment = align(markers, n_volumes=80, t_r=0.8, start_time=0, eeg_duration=100, source="x")
    one = np.ones(80, np.float32)
    raw = RawParcels(parts["bold_VR"], one, np.array([1, 0.9, 0.8, 0.1]), 900.0, 42.0, 0.7 * one, 1000)
    figures = quality_figures(**parts, fd_V=np.r_[0, 0.2 * one[1:]], alignment=alignment, parcels=raw)
    assert figures["bold_tsnr"] == 42
    assert figures["bold_mean_dvars_percent"] == pytest.approx(0.7)
    assert figures["bold_min_coverage"] == pytest.approx(0.1)
    assert figures["mean_fd_mm"] == pytest.approx(0.2 * 79 / 80)
    assert figures["alignment_jitter_ms"] == pytest.approx(0, abs=1e-6)
    assert figures["t_r_found_s"] == pytest.approx(0.8)


def test_line_noise_is_seen(parts: dict):
    t = np.arange(12_000) / 200
    parts["eeg_CT"] += 30 * np.sin(2 * np.pi * 50 * t)
    assert quality_figures(**parts)["eeg_line_noise_ratio"] > 50
    assert np.isnan(line_noise_ratio(parts["eeg_CT"], 100.0, 50.0))


def test_robust_sd_ignores_outliers(rng: np.random.Generator):
    data = rng.normal(0, 3, (2, 10_000))
    data[:, ::50] = 1e4
    np.testing.assert_allclose(robust_sd(data), 3, rtol=0.05)


def test_no_valid_sample_still_gives_finite_figures(parts: dict):
    parts["eeg_valid_T"][:] = False
    parts["bold_VR"][:] = np.nan
    figures = quality_figures(**parts)
    assert figures["eeg_valid_fraction"] == 0
    assert "bold_parcel_sd_percent" not in figures
    assert np.isfinite(list(figures.values())).all()
