"""Drive, response, envelopes, head model and presets of the phantom."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.signal import hilbert, welch

from xsite.errors import ChannelError, RecipeError
from xsite.phantom.atlas import LABELS, PARCELS
from xsite.phantom.habits import HABITS, pick_habits, standard_name
from xsite.phantom.head import dipoles, electrode_positions, leadfield, move_electrodes
from xsite.phantom.plan import Plan
from xsite.phantom.presets import CENTRE_HZ, EASY, PRESETS, REALISTIC, get_preset
from xsite.phantom.sources import DRIVE_HZ, band_carriers, bold_series, draw_drive, hrf, scale_free

TEN_TWENTY = ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "F7", "F8", "T7", "T8", "P7", "P8", "Pz"]


def test_response_peaks_where_asked_and_undershoots() -> None:
    for peak in (4.0, 5.0, 6.5):
        response = hrf(peak, 1.1)
        assert np.argmax(response) / DRIVE_HZ == pytest.approx(peak, abs=0.15)
        assert -0.25 < response.min() / response.max() < -0.03
    assert (hrf(5.0, 1.4) > hrf(5.0).max() / 2).sum() > (hrf(5.0) > hrf(5.0).max() / 2).sum()


def test_drive_is_slow_has_unit_variance_and_shares_a_global_part(rng: np.random.Generator) -> None:
    drive = draw_drive(EASY, rng, 3000.0)
    hz, power = welch(drive, fs=DRIVE_HZ, nperseg=4096)
    assert power[:, (hz > 0.12)].sum() < 0.01 * power.sum()
    assert drive.std(1) == pytest.approx(np.ones(len(PARCELS)), abs=0.1)
    off_diagonal = np.corrcoef(drive)[~np.eye(len(PARCELS), dtype=bool)]
    assert off_diagonal.mean() == pytest.approx(EASY.global_share, abs=0.06)


def test_bold_lags_the_drive_by_the_response(rng: np.random.Generator) -> None:
    drive = draw_drive(EASY, rng, 1200.0)[:1]
    times = np.arange(50, 1150, 1.0)
    bold = bold_series(drive, hrf(5.0), times)[0]
    clock = np.arange(drive.shape[1]) / DRIVE_HZ - 40
    score = [np.corrcoef(bold, np.interp(times - lag, clock, drive[0]))[0, 1] for lag in range(12)]
    assert 4 <= int(np.argmax(score)) <= 6
    assert max(score) > 0.8


def test_carriers_and_background_have_their_spectra(rng: np.random.Generator) -> None:
    alpha, beta = band_carriers(rng, [10.0, 20.0], [1.0, 2.5], 50_000, 250.0)
    hz, power = welch(np.stack([alpha, beta]), fs=250, nperseg=1024)
    assert hz[power.argmax(1)] == pytest.approx([10, 20], abs=2.0)
    background = scale_free(rng, 4, 100_000, 250.0, 1.5)
    hz, power = welch(background, fs=250, nperseg=2048)
    use = (hz > 1) & (hz < 60)
    slope = np.polyfit(np.log(hz[use]), np.log(power.mean(0)[use]), 1)[0]
    assert slope == pytest.approx(-1.5, abs=0.1)


def test_head_model_puts_sources_under_their_electrodes() -> None:
    rr, orientations = dipoles(np.array([p.generator for p in PARCELS], float), [p.direction for p in PARCELS])
    gain = leadfield(electrode_positions(TEN_TWENTY), rr, orientations)
    gain -= gain.mean(0)
    best = {p.name: TEN_TWENTY[i] for p, i in zip(PARCELS, np.abs(gain).argmax(0), strict=True)}
    assert best["Precentral gyrus L"] == "C3"
    assert best["Precentral gyrus R"] == "C4"
    assert best["Cuneus"] in ("O1", "O2")
    assert best["Middle temporal gyrus L"] == "T7"
    assert best["Thalamus"] == "Pz"  # shows itself through the posterior alpha rhythm
    # 10 nAm of cortex give microvolts, not millivolts
    assert 0.3 < np.abs(gain).max() * 10e-9 * 1e6 < 10


def test_head_model_agrees_with_the_formula_for_a_homogeneous_sphere_in_sign_and_symmetry() -> None:
    left, right = electrode_positions(["C3", "C4"])
    assert left[0] < 0 < right[0]
    rr, out = dipoles(np.array([[-38, -20, 58], [38, -20, 58]], float), [None, None])
    gain = leadfield(np.stack([left, right]), rr, out)
    assert gain[0, 0] > 0  # a dipole that points outward makes the scalp above it positive
    assert gain[0, 0] == pytest.approx(gain[1, 1], rel=0.15)


def test_electrodes_move_along_the_scalp(rng: np.random.Generator) -> None:
    before = electrode_positions(TEN_TWENTY)
    after = move_electrodes(before, 4.0, rng)
    steps = np.linalg.norm(after - before, axis=1) * 1000
    assert 3 < np.sqrt((steps**2).mean()) < 9
    with pytest.raises(ChannelError, match="E257"):
        electrode_positions(["Cz", "E257"])


def test_scalp_alpha_power_follows_the_drive() -> None:
    plan = Plan(HABITS[0], EASY, 3, 0, 0, 90)
    drive = plan.draw_drive()
    scalp = plan.scalp(drive)
    names = [standard_name(n) for n in plan.habits.eeg_names]
    size = scalp.eeg_CT.shape[1]
    row = scalp.eeg_CT[names.index("O1")] - scalp.eeg_CT.mean(0)
    spectrum = np.fft.rfft(row)
    hz = np.fft.rfftfreq(size, 1 / 250)
    spectrum[(hz < 8) | (hz > 12)] = 0
    power = np.abs(hilbert(np.fft.irfft(spectrum, size))) ** 2
    seconds = power[: size // 250 * 250].reshape(-1, 250).mean(1)
    smooth = np.convolve(np.log(seconds), np.ones(5) / 5, "same")
    cuneus = np.interp(np.arange(len(smooth)) + 0.5, np.arange(drive.shape[1]) / DRIVE_HZ - 40, drive[0])
    assert np.corrcoef(smooth, cuneus)[0, 1] < -0.6  # alpha falls as BOLD rises
    assert 5 < scalp.eeg_CT.std(1).mean() < 60


def test_presets_are_complete_cited_and_looked_up_by_name() -> None:
    assert get_preset("easy") is EASY
    assert get_preset(REALISTIC) is REALISTIC
    with pytest.raises(RecipeError, match="did you mean 'easy'"):
        get_preset("eazy")
    for preset in PRESETS.values():
        numbers = preset.numbers()
        assert set(numbers["source_uv"]) == set(CENTRE_HZ)
        assert set(preset.citations) <= set(numbers)
        uncited = [name for name, text in preset.citations.items() if not re.search(r"(19|20)\d\d|own choice", text)]
        assert uncited in ([], ["background_uv"])


def test_sites_are_unlike_and_share_the_ten_twenty_channels() -> None:
    assert len(set(LABELS)) == 16
    assert len({habits.name for habits in HABITS}) == len(HABITS) == 8
    shared = set.intersection(*({standard_name(n) for n in h.eeg_names} for h in HABITS))
    assert len(shared) >= 19
    four = pick_habits(4)
    assert len({h.eeg_format for h in four}) == 3
    assert len({(h.marker, h.t_r, h.voxel_mm, len(h.eeg_names)) for h in four}) == 4
    assert all(h.t_r * h.sfreq == pytest.approx(round(h.t_r * h.sfreq)) for h in HABITS)
    with pytest.raises(RecipeError, match="between 1 and 8"):
        pick_habits(9)
