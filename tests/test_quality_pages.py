"""Quality pages from a store alone: each stands on its own, and says what is wrong with what it shows."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from small_site import small_atlas, small_site, write_recording_files
from test_report import Reader

from jobs import quality
from jobs.cli import main
from xsite.data.attributes import read_attributes
from xsite.data.bids import find_recordings
from xsite.data.manifest import read_manifest, rebuild_manifest
from xsite.data.prepare import prepare_recording
from xsite.data.store import read_recording, write_recording
from xsite.errors import StoreError
from xsite.recording import Montage, RecordingKey
from xsite.reports.outliers import by_session, difference, outliers, robust_z, settings_of
from xsite.reports.quality_pages import write_pages
from xsite.reports.recording_page import recording_page
from xsite.signals.align import align
from xsite.signals.lagged import LAGS_S, band_power, chance_band, lagged_correlation
from xsite.signals.summaries import marker_summary, spectrum_db

STEPS = [
    {"step": "pick", "ch_names": [], "positions": "template 10-05", "reference": "FCz"},
    {"step": "resample", "from_hz": 5000.0, "to_hz": 200.0},
]
EVIDENCE = ["60 volume markers in /home/jane/bids/sub-01_eeg.vhdr", "confidence 0.6: nothing beside them"]


def told(recording, *, rate=5000.0, fd=0.1, sd=10.0, **more):
    """The recording with a story."""
    steps = [STEPS[0], STEPS[1] | {"from_hz": rate}]
    alignment = {"verdict": "unverified", "confidence": 0.6, "evidence": EVIDENCE, "repairs": [], "t_r_found": 2.0}
    faults = {"sub-01_channels.tsv": ["<b>cp1252</b>"]}
    facts = {"steps": steps, "alignment": alignment, "sidecar_faults": faults, **more}
    return replace(recording, provenance=facts, quality={"mean_fd_mm": fd, "eeg_robust_sd_uv": sd})


@pytest.fixture
def store(tmp_path, make_recording):
    """``alpha``: seven subjects in two sessions, one odd, one excluded; ``beta``: two without a story."""
    place = str(tmp_path / "store")
    base = make_recording("alpha", "01")
    for number in range(1, 8):
        session = "1" if number < 6 else "2"
        made = told(
            replace(base, key=RecordingKey("alpha", f"0{number}", session, "rest")),
            rate=5000.0 if session == "1" else 1000.0,
            fd={3: 0.9}.get(number, 0.1 + 0.001 * number),
            sd={4: 55.0}.get(number, 10.0 + 0.1 * number),
        )
        write_recording(place, made, fingerprint="f")
    for subject in ("01", "02"):
        write_recording(place, replace(base, key=RecordingKey("beta", subject, "", "rest")), fingerprint="f")
    note = {"site": "beta", "entities": "sub-03_task-rest", "message": "AlignmentError: no volume marker"}
    (tmp_path / "store" / "refused" / "beta").mkdir(parents=True)
    (tmp_path / "store" / "refused" / "beta" / "sub-03_task-rest.json").write_text(json.dumps(note))
    (tmp_path / "store" / "left_out").mkdir()
    (tmp_path / "store" / "left_out" / "alpha.json").write_text(json.dumps({"sub-08_eeg.vhdr": "no BOLD run"}))
    rebuild_manifest(place)
    return place


def read(path):
    content = path.read_text(encoding="utf-8")
    reader = Reader(content)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert not re.search(r"https?://|<script|<link|url\((?!#)|src=\"(?!data:)", content)
    assert not re.search(r"\bnan\b|\bNone\b", reader.text)
    return content, reader


def test_the_job_writes_every_page(store, tmp_path, capsys):
    out = tmp_path / "pages"
    assert main(["quality", "--store", store, str(out), "--recordings", "alpha/sub-03*", "beta/sub-01*"]) == 0
    printed = capsys.readouterr().out
    assert "excluded alpha/sub-03_ses-1_task-rest.zarr: mean framewise displacement 0.9 mm is above 0.5 mm" in printed
    assert "8 of 9 recordings may train" in printed
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.html"))
    assert found == [
        "alpha/index.html",
        "alpha/sub-03_ses-1_task-rest.html",
        "beta/index.html",
        "beta/sub-01_task-rest.html",
        "index.html",
    ]
    for name in found:
        content, _ = read(out / name)
        for target in re.findall(r'<a href="([^#"][^"]*)"', content):  # no link leads nowhere
            assert ((out / name).parent / target).is_file(), (name, target)
    _check_recording(*read(out / "alpha/sub-03_ses-1_task-rest.html"))
    _check_site(read(out / "alpha/index.html")[1].text)
    assert 'class="data models dense"' in (out / "alpha/index.html").read_text()  # 15 columns on a laptop's screen
    _check_consortium(read(out / "index.html")[1].text)


def _check_recording(content, reader):
    assert "Excluded from training" in reader.text
    assert "Alignment unverified, confidence 0.6: nothing beside them" in reader.text
    assert "60 volume markers in sub-01_eeg.vhdr" in reader.text
    assert "/home/jane" not in content
    assert "&lt;b&gt;cp1252&lt;/b&gt;" in content
    assert "marker times were not kept" in reader.text
    assert "2. resample" in reader.text
    assert "from hz: 5000" in reader.text
    assert reader.images == 5  # alignment, spectra, channels, carpet, lags; no coverage in this store


def _check_site(text):
    assert "6 of 7 recordings used" in text
    assert "sub-04_ses-1_task-rest EEG SD, µV 55.0" in text
    assert "changes between sessions 1000 Hz: sub-06_ses-2_task-rest, sub-07_ses-2_task-rest" in text
    assert "Repetition time 2 s same in all" in text
    assert "no BOLD run 1 sub-08_eeg.vhdr" in text


def _check_consortium(text):
    assert "8 of 9 recordings of 2 sites may train" in text
    assert "alpha sub-03_ses-1_task-rest excluded mean framewise displacement 0.9 mm" in text
    assert "beta sub-03_task-rest refused at ingest AlignmentError: no volume marker" in text
    assert "13 channels are common" in text


def test_unknown_sites_and_recordings_are_refused(store, tmp_path):
    with pytest.raises(StoreError, match="no site gamma; it holds alpha, beta"):
        write_pages(store, tmp_path / "out", sites=["gamma"])
    with pytest.raises(StoreError, match=r"no recording matches.*one is called alpha/sub-01_ses-1_task-rest"):
        write_pages(store, tmp_path / "out", recordings=["alpha/sub-99"])
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_no_half_page(store, tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="cannot be written"):
        quality.main(["--store", store, str(tmp_path / "out"), "--sites", "beta", "--recordings", "beta/sub-01*"])


def test_what_preparation_keeps_is_on_the_page(tmp_path):
    write_recording_files(tmp_path / "bids", n_volumes=40)
    site = small_site()
    (files,) = find_recordings(tmp_path / "bids", site)
    recording = prepare_recording(site=site, files=files, atlas=small_atlas(tmp_path))
    summaries = recording.provenance["summaries"]
    assert summaries["markers"]["n"] == 40
    assert summaries["markers"]["residual_ms"] == [0.0] * 40
    assert len(summaries["coverage"]) == 3
    assert len(summaries["dvars_percent"]) == 40
    density_db = np.array(summaries["published"]["density_db"])
    assert len(density_db) == 200
    assert np.median(density_db) == pytest.approx(10 * np.log10(20**2 / 250), abs=0.5)  # white noise of 20 uV at 500 Hz
    assert len(json.dumps(summaries)) < 4000
    place = str(tmp_path / "store")
    write_recording(place, recording, fingerprint="f")
    rebuild_manifest(place)
    (item,) = read_attributes(place, read_manifest(place))
    reader = Reader(recording_page(read_recording(place, item.key), item))
    assert reader.images == 6
    assert "marker of a volume" in reader.text
    assert "As published" in reader.text
    assert "DVARS, %" in reader.text


def page_of(recording, tmp_path):
    place = str(tmp_path / "odd")
    write_recording(place, recording, fingerprint="f")
    rebuild_manifest(place)
    (item,) = read_attributes(place, read_manifest(place))
    return Reader(recording_page(read_recording(place, item.key), item)).text


def test_a_recording_with_hardly_anything_still_has_a_page(tmp_path, make_recording):
    whole = make_recording(n_volumes=20)
    nowhere = Montage(("X1",), np.full((1, 3), np.nan))
    poor = replace(whole, montage=nowhere, eeg=whole.eeg[:1], bold=np.full_like(whole.bold, np.nan))
    text = page_of(
        replace(poor, volume_valid=np.zeros(20, bool), confound_names=(), confounds=np.empty((20, 0))), tmp_path
    )
    assert "Without a position, not drawn: X1" in text
    assert "0 of 3 parcels" in text
    assert "Too few valid volumes to tell" in text
    assert "Motion is not known" in text


def test_repairs_and_lost_volumes_are_told(tmp_path, make_recording):
    made = make_recording()
    repair = {"kind": "filled", "n": 2, "evidence": "volume 21 (and 1 more up to volume 22) filled"}
    markers = {"name": "R128", "n": 60, "first": -2, "residual_ms": [0.1] * 22 + [None, None] + [0.2] * 38}
    alignment = {"verdict": "repaired", "confidence": 0.99, "repairs": [repair], "evidence": EVIDENCE, "t_r_found": 2.0}
    bold = made.bold.copy()
    bold[:, 1] = np.nan
    facts = {"alignment": alignment, "summaries": {"markers": markers, "coverage": [1.0, 0.05, None]}}
    text = page_of(replace(made, provenance=facts, bold=bold), tmp_path)
    assert "volume without a marker" in text
    assert "marker before or after the image's volumes" in text
    assert "filled 2 volume 21 (and 1 more up to volume 22) filled" in text
    assert "2 of 3 parcels of test-3 have data. Missing, and masked in loss and scores: parcel1" in text


def test_marker_summary_tells_residuals_dummies_gaps_and_extra_markers(rng):
    spacing, n_volumes = 2.0, 40
    jitter = rng.normal(0, 5e-4, n_volumes + 1)
    markers = 6.0 + spacing * np.arange(n_volumes + 1) + jitter
    lost = np.delete(markers, [10])
    alignment = align(
        lost,
        n_volumes=n_volumes - 2,
        t_r=spacing,
        start_time=0.0,
        eeg_duration=100.0,
        source="x.vhdr",
        dummy_volumes=2,
        extra_markers="end",
    )
    summary = marker_summary(lost, alignment)
    assert summary["n"] == n_volumes
    assert summary["first"] == -2
    residual = summary["residual_ms"]
    assert [place for place, value in enumerate(residual) if value is None] == [10]
    known = np.array([value for value in residual if value is not None])
    number = np.delete(np.arange(n_volumes + 1), 10)
    expected = 1e3 * np.delete(jitter, 10)
    off = known - expected  # what the fitted clock itself takes: a line, far smaller than the jitter
    assert np.abs(off - np.polyval(np.polyfit(number, off, 1), number)).max() < 0.002
    assert np.abs(off).max() < 0.5
    assert marker_summary(np.zeros(0), alignment) == {"n": 0}


def test_marker_summary_takes_the_slice_nearest_to_the_volume():
    markers = np.arange(0, 60, 0.1) + 5.0  # 20 slices a volume
    alignment = align(
        markers, n_volumes=30, t_r=2.0, start_time=0.0, eeg_duration=80.0, source="x", triggers_per_volume=20
    )
    summary = marker_summary(markers, alignment)
    assert summary["n"] == 600
    assert summary["residual_ms"][:30] == pytest.approx([0.0] * 30, abs=0.01)


def test_spectrum_has_its_units(rng):
    sfreq = 200.0
    tone = np.sqrt(2) * 10 * np.sin(2 * np.pi * 20 * np.arange(12000) / sfreq)
    noise = rng.normal(0, 2.0, (3, 12000))
    density = spectrum_db(tone + noise, sfreq)
    assert density.shape == (200,)
    assert np.median(density) == pytest.approx(10 * np.log10(4 / 100), abs=0.5)
    assert np.argmax(density) == 39  # 20 Hz


def test_lagged_correlation_finds_the_lag_of_the_fixture(make_recording):
    recording = make_recording(n_volumes=200)  # its BOLD follows alpha power by 5 s
    times_P, (alpha_P,) = band_power(recording, [(8.0, 12.0)])
    found_RL = lagged_correlation(times_P, alpha_P, recording)
    assert LAGS_S[np.argmax(found_RL[0])] == pytest.approx(5.0, abs=1.0)
    assert found_RL[0].max() > chance_band(recording, times_P, alpha_P)
    assert found_RL[0, LAGS_S == -10.0].max() < found_RL[0].max() / 2


def test_lagged_correlation_leaves_out_what_is_not_valid(make_recording):
    recording = make_recording(n_volumes=100)
    eeg = recording.eeg.copy()
    valid = recording.eeg_valid.copy()
    eeg[:, 4000:6000] = 1e4  # an artifact that is marked
    valid[4000:6000] = False
    times_P, (alpha_P,) = band_power(replace(recording, eeg=eeg, eeg_valid=valid), [(8.0, 12.0)])
    assert np.isnan(alpha_P[10:15]).all()
    found_RL = lagged_correlation(times_P, alpha_P, replace(recording, eeg_valid=valid))
    assert LAGS_S[np.argmax(found_RL[0])] == pytest.approx(5.0, abs=1.0)


def test_chance_band_holds_for_smooth_noise(rng, make_recording):
    recording = make_recording(n_volumes=150)
    inside = []
    for _ in range(200):
        slow = np.convolve(rng.normal(0, 1, 400), np.hanning(15), "same")
        bold = np.convolve(rng.normal(0, 1, 165), np.hanning(9), "valid")[:150, None].astype(np.float32)
        other = replace(recording, bold=np.repeat(bold[:150], 3, 1)) if len(bold) >= 150 else recording
        times = np.arange(len(slow)) * 2.0
        r = lagged_correlation(times, slow, other, np.array([0.0]))[0, 0]
        inside.append(abs(r) <= chance_band(other, times, slow))
    assert 0.85 < np.mean(inside) <= 1.0


def test_robust_z_needs_five_values_and_ignores_trifles():
    assert np.isnan(robust_z(np.array([1.0, 2.0, 3.0, 100.0]), 0.1)).all()
    z = robust_z(np.array([1.0, 1.0, 1.0, 1.0, 1.001, 5.0]), 0.1)
    assert abs(z[4]) < 0.1
    assert z[5] > 3.5
    with_gap = robust_z(np.array([1.0, 1.1, 0.9, np.nan, 1.0, 1.05, 9.0]), 0.1)
    assert np.isnan(with_gap[3])
    assert with_gap[6] > 3.5


def test_outliers_and_settings_of_a_site(store):
    manifest = read_manifest(store)
    alpha = read_attributes(store, manifest[manifest["site"] == "alpha"])
    assert {(o.attributes.key.subject, o.column.figure) for o in outliers(alpha)} == {
        ("03", "mean_fd_mm"),
        ("04", "eeg_robust_sd_uv"),
    }
    rates = settings_of(alpha)["EEG sampling frequency"]
    assert {value: len(items) for value, items in rates.items()} == {"5000 Hz": 5, "1000 Hz": 2}
    assert by_session(rates)
    assert difference("Fp1, Fp2, Cz", "Fp1, Fp2, Oz") == "3 channels: with Cz; without Oz"
    assert difference("Fp2, Fp1", "Fp1, Fp2") == "2 channels in another order"
