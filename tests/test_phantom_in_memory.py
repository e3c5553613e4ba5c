"""Phantom recordings in memory, and semi-synthetic ones around given parcel series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from site_adapters.phantom_sites import phantom_sites
from xsite.data.harmonize import common_channels, harmonize_eeg, strict_target
from xsite.data.prepare import prepare_recording
from xsite.errors import FormatError, RecordingError
from xsite.phantom.consortium import generate_consortium
from xsite.phantom.in_memory import simulate_recordings
from xsite.phantom.oracle import oracle_r
from xsite.phantom.presets import EASY
from xsite.phantom.real_bold import PAPER_TARGETS, deconvolve, generator_weights, load_series
from xsite.phantom.sources import bold_series, draw_drive, hrf
from xsite.recording import Recording

BANDS = ((1, 4), (4, 8), (8, 13), (15, 28), (30, 45))


def band_power(recording: Recording, ch_names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Log band power per channel in two-second bins of the 16 s before each volume; and which volumes have them."""
    eeg = harmonize_eeg(recording, ch_names)
    spectrum = np.fft.rfft(eeg)
    hz = np.fft.rfftfreq(eeg.shape[1], 1 / recording.sfreq)
    power = [np.fft.irfft(np.where((hz >= a) & (hz < b), spectrum, 0), eeg.shape[1]) ** 2 for a, b in BANDS]
    summed = np.concatenate([np.zeros((5 * len(eeg), 1)), np.concatenate(power).cumsum(1)], 1)
    ends = np.round(recording.volume_onsets * recording.sfreq).astype(int)
    has = (ends >= 3200) & (ends <= eeg.shape[1])
    edges = ends[has][:, None] + np.arange(-3200, 1, 400)
    rows = np.log(np.diff(summed[:, edges], axis=2) / 400 + 1e-6)
    features = rows.transpose(1, 0, 2).reshape(has.sum(), -1)
    return (features - features.mean(0)) / features.std(0), has


@pytest.mark.parametrize(("preset", "low", "high"), [("easy", 0.75, 0.88), ("realistic", 0.38, 0.6)])
def test_oracle_lies_where_the_preset_wants_it(preset: str, low: float, high: float) -> None:
    recordings = simulate_recordings(2, 3, preset, 5, n_volumes=150)
    assert low < np.mean([oracle_r(r).mean() for r in recordings]) < high


def test_band_power_of_other_sites_predicts_bold_at_a_new_site() -> None:
    recordings = simulate_recordings(3, 3, "easy", 1, n_volumes=120)
    names = common_channels([r.ch_names for r in recordings])
    features = [band_power(r, names) for r in recordings]
    targets = [
        strict_target(r.bold, r.t_r, r.volume_valid)[has] for r, (_, has) in zip(recordings, features, strict=True)
    ]
    train = [i for i, r in enumerate(recordings) if r.key.site != "siteC"]
    x, y = np.concatenate([features[i][0] for i in train]), np.concatenate([targets[i] for i in train])
    weights = np.linalg.solve(x.T @ x + 3000 * np.eye(x.shape[1]), x.T @ y)
    scores = []
    for i in (6, 7, 8):
        predicted = features[i][0] @ weights
        scores.append([np.corrcoef(predicted[:, r], targets[i][:, r])[0, 1] for r in range(16)])
    oracle = np.mean([oracle_r(recordings[i]).mean() for i in (6, 7, 8)])
    assert np.mean(scores) > 0.5 * oracle
    assert np.mean(scores) < oracle


def test_seeds_repeat_and_other_subjects_change_nothing() -> None:
    one = simulate_recordings(1, 1, "realistic", 3, n_volumes=30)[0]
    two = simulate_recordings(2, 2, "realistic", 3, n_volumes=30)
    assert np.array_equal(one.eeg, two[0].eeg)
    assert np.array_equal(one.bold, two[0].bold)
    assert not np.allclose(one.bold, two[1].bold)


def test_a_real_recording_has_no_oracle(make_recording: Callable[..., Recording]) -> None:
    with pytest.raises(RecordingError, match="no noise-free BOLD"):
        oracle_r(make_recording())


def test_deconvolution_undoes_the_response(rng: np.random.Generator) -> None:
    drive = draw_drive(EASY, rng, 900.0)[:3]
    times = 20 + np.arange(400) * 2.1
    bold = bold_series(drive, hrf(), times)
    found = deconvolve(bold, hrf(), 2.1, 20.0, drive.shape[1])
    inside = slice(700, 8500)  # the scan, without its ends
    for r in range(3):
        assert np.corrcoef(found[r, inside], drive[r, inside])[0, 1] > 0.85
        assert np.corrcoef(bold_series(found, hrf(), times)[r], bold[r])[0, 1] > 0.9


@pytest.fixture
def series_file(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three subjects, one with two scans, seven targets and two other columns, BOLD-like."""
    columns = [*PAPER_TARGETS, "Caudate", "ventricles"]
    content = {}
    for name in ("sub01-scan01", "sub02-scan01", "sub02-scan02", "sub05-scan01"):
        drive = draw_drive(EASY, rng, 150.0)[: len(columns)]
        series = bold_series(drive, hrf(), np.arange(60) * 2.1).T + 0.3 * rng.normal(size=(60, len(columns)))
        content[name] = ((series - series.mean(0)) / series.std(0)).astype(np.float32)
    path = tmp_path / "series.npz"
    np.savez(path, columns=np.array(columns), **content)
    return path


def test_real_series_become_three_pseudo_sites(series_file: Path, tmp_path: Path) -> None:
    made = generate_consortium(tmp_path / "out", bold_from=series_file)
    assert made.sites == ("realA", "realB", "realC")
    sites = phantom_sites(made.root)
    keys = []
    for name, site in sites.items():
        assert site.find_recordings is not None
        for files in site.find_recordings(made.root / name, site):
            recording = prepare_recording(site=site, files=files, atlas=None)
            keys.append((name, recording.key.subject, recording.key.run))
            given = np.load(series_file)[f"sub{recording.key.subject}-scan{recording.key.run}"]
            assert recording.bold == pytest.approx(given, abs=1e-5)
            assert recording.t_r == 2.1
            driven = [recording.parcellation.labels.index(name) for name in PAPER_TARGETS]
            assert np.nanmean(oracle_r(recording)[driven]) > 0.6
            assert np.isnan(recording.truth[:, recording.parcellation.labels.index("Caudate")]).all()
    assert keys == [("realA", "01", "01"), ("realB", "02", "01"), ("realB", "02", "02"), ("realC", "05", "01")]


def test_components_drive_all_generators(shared_data: Callable[[str], Path]) -> None:
    series = load_series(shared_data("data/vu_rest_roi/train_val.npz"))
    assert len(series.scans) == 23
    weights = generator_weights(series, "components")
    assert np.linalg.norm(weights, axis=1) == pytest.approx(np.ones(16))
    assert (generator_weights(series, "paper").sum(1) > 0).sum() == 8  # Heschl's gyrus shows on both sides


def test_bad_series_files_are_refused_with_their_name(series_file: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.npz"
    text.write_text("not an archive")
    with pytest.raises(FormatError, match=r"text\.npz"):
        load_series(text)
    with pytest.raises(FormatError, match=r"absent\.npz"):
        load_series(tmp_path / "absent.npz")
    archive = dict(np.load(series_file))
    archive["sub09-scan01"] = np.full((60, 9), np.nan, np.float32)
    archive["noname"] = archive["sub01-scan01"]
    np.savez(series_file, **archive)
    with pytest.raises(FormatError, match=r"sub09-scan01: .*not finite; noname: not of the form"):
        load_series(series_file)
