"""Confound regressors from every kind of file that was met, and nilearn's strategies on fMRIPrep's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces import fmriprep
from small_site import N_VOLUMES, small_atlas, small_site, write_recording_files

from xsite.data.bids import find_recordings
from xsite.data.confounds import read_confounds
from xsite.data.prepare import prepare_recording
from xsite.data.site_file import load_site
from xsite.errors import FormatError, SiteError
from xsite.signals.bold_cleaning import FD, MOTION, clean_parcels

IMAGE = Path("sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")
AROMA = Path("sub-01_task-rest_space-MNI152NLin6Asym_desc-smoothAROMAnonaggr_bold.nii.gz")
STRATEGIES = ("simple", "scrubbing", "compcor")


def motion(n_volumes: int = 12) -> np.ndarray:
    """Translations in mm and rotations in radians that nobody can mistake for each other."""
    rng = np.random.default_rng(1)
    return np.cumsum(rng.normal(0, 0.05, (n_volumes, 6)), axis=0) * [1, 1, 1, 0.01, 0.01, 0.01]


def read(path: Path, n_volumes: int = 12, strategy: str = "motion6", image: Path = IMAGE):
    return read_confounds(path, n_volumes, strategy, image=image)


def columns(table, names=MOTION) -> np.ndarray:
    return np.stack([table.values_VK[:, table.names.index(name)] for name in names], axis=1)


def test_item_26_six_columns_with_a_leading_tab_and_translations_first(tmp_path, shared_data):
    path = tmp_path / "d_sub-xp101_task-MIpre_headmotion.tsv"
    rows = ["\tx\ty\tz\tpitch\troll\tyaw", *("\t" + "\t".join(f" {x:.9e}" for x in row) + "\r" for row in motion())]
    path.write_text("\n".join(rows) + "\n", newline="")
    found = read(path)
    assert found.names == MOTION
    np.testing.assert_allclose(columns(found), motion(), rtol=1e-8)
    assert "pitch" in found.notes[0]
    real = shared_data("sites/ds002336/derivatives/sub-xp101/head_motion/d_sub-xp101_task-MIpre_headmotion.tsv")
    table = read(real, 163)
    assert table.names == MOTION
    assert np.isfinite(table.values_VK).all()
    assert np.abs(columns(table)[:, :3]).max() > 20 * np.abs(columns(table)[:, 3:]).max()  # mm beside radians


@pytest.mark.parametrize(
    ("name", "order", "unit", "note"),
    [
        ("sub-02_ses-001_task-main_run-001_headmove.txt", slice(None), 1.0, "translations taken to come first"),
        ("rp_asub-01.txt", slice(None), 1.0, "translations taken to come first"),
        ("sub-01_bold_mcf.par", [3, 4, 5, 0, 1, 2], 1.0, "rotations taken to come first"),
        ("sub-01_headmove.txt", slice(None), 100 * 180 / np.pi, "degrees"),
    ],
)
def test_item_26_motion_files_without_a_header(tmp_path, name, order, unit, note):
    values = motion() * [1, 1, 1, *[max(1, unit / 100)] * 3] * (100 if unit > 1 else 1)
    np.savetxt(tmp_path / name, values[:, order], fmt="%16.7e", delimiter="")  # SPM's own format: ds002158's 98 bytes
    found = read(tmp_path / name)
    assert any(note in text for text in found.notes)
    expected = motion() * (100 if unit > 1 else 1)
    np.testing.assert_allclose(columns(found), expected, rtol=1e-5, atol=1e-9)


def test_item_26_motion_inside_events(tmp_path, shared_data):
    names = [f"motionparams_{kind}{axis}" for kind in ("transl", "rot") for axis in "XYZ"]
    rows = [(5.26, "0.85", "n/a", "dot_stim_validtrials"), (2.0, "n/a", "1", "rating_firstresp_alltrials")]
    rows += [(2.0 * v, "n/a", f"{motion()[v, k]:.9f}", name) for k, name in enumerate(names) for v in range(12)]
    path = tmp_path / "sub-01_task-main_run-01_events.tsv"
    table = pd.DataFrame(rows, columns=["onset", "duration", "param_value", "trial_type"])
    table.sample(frac=1, random_state=0).to_csv(path, sep="\t", index=False)  # the order of rows says nothing
    found = read(path)
    np.testing.assert_allclose(columns(found), motion(), atol=1e-8)
    real = read(shared_data("sites/ds002739/sub-01/func/sub-01_task-main_run-01_events.tsv"), 771)
    assert real.names == MOTION
    assert real.values_VK[0, 3] == pytest.approx(0.011072)
    path.write_text("onset\tduration\ttrial_type\tparam_value\n1\t0\tgo\t1\n")
    with pytest.raises(FormatError, match="six axes"):
        read(path)


def test_item_26_missing_values_in_the_first_row(shared_data):
    name = "sub-001_task-EO_run-1_desc-confounds_timeseries.tsv"
    path = shared_data(f"sites/ds006040/derivatives/sub-001/func/{name}")
    found = read(path, 190)
    assert found.names == (*MOTION, FD)
    assert np.isnan(found.values_VK[0, -1])
    assert np.isfinite(found.values_VK[1:]).all()
    cleaned = clean_parcels(
        np.random.default_rng(0).normal(size=(190, 3)), found.values_VK, found.names, 2.0, global_signal_V=None
    )
    assert np.isfinite(cleaned.confounds_VK).all()
    assert np.isfinite(cleaned.bold_VR).all()


def test_item_26_a_derivative_called_fmriprep_that_is_not(tmp_path):
    path = tmp_path / "sub-02_ses-001_task-main_run-001_headmove.txt"
    np.savetxt(path, motion())
    for strategy in STRATEGIES:
        with pytest.raises(FormatError, match=rf"{path.name}.*confounds '{strategy}'.*such as 'motion6'"):
            read(path, strategy=strategy)
    with pytest.raises(FormatError, match=r"need fMRIPrep's confounds table, and there is none"):
        read(None, strategy="simple")
    np.savetxt(path, motion()[:, :5])
    with pytest.raises(FormatError, match="5 columns; a motion file has 6"):
        read(path)
    path.write_text("not a number\n")
    with pytest.raises(FormatError, match="not a table of numbers"):
        read(path)
    np.savetxt(path, motion())
    with pytest.raises(FormatError, match="12 rows for 13 volumes"):
        read(path, 13)


@pytest.fixture
def fmriprep_table(shared_data, tmp_path) -> Path:
    """A genuine table of fMRIPrep with its sidecar (190 volumes), under a name that nilearn finds by the image's."""
    stem = "derivatives/sub-001/func/sub-001_task-EO_run-1_desc-confounds_timeseries"
    for suffix in (".tsv", ".json"):
        shutil.copyfile(shared_data(f"sites/ds006040/{stem}{suffix}"), tmp_path / f"{Path(stem).name}{suffix}")
    return tmp_path / f"{Path(stem).name}.tsv"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_are_nilearns_on_a_genuine_table(fmriprep_table, strategy):
    image = fmriprep_table.with_name("sub-001_task-EO_run-1_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz")
    table = pd.read_csv(fmriprep_table, sep="\t", dtype=str, keep_default_na=False)
    table.loc[[50, 53], FD] = "1.5"  # this subject lay still: without, there is nothing to scrub
    table.to_csv(fmriprep_table, sep="\t", index=False)
    expected, kept = fmriprep.load_confounds_strategy(str(image), strategy)
    found = read(fmriprep_table, 190, strategy, image)
    assert found.regressors == tuple(expected.columns)
    np.testing.assert_allclose(found.values_VK[:, : expected.shape[1]], expected.to_numpy())
    assert found.names[-1] == FD
    valid_V = np.ones(190, bool) if found.valid_V is None else found.valid_V
    np.testing.assert_array_equal(np.flatnonzero(valid_V), np.arange(190) if kept is None else kept)
    if strategy == "scrubbing":
        np.testing.assert_array_equal(np.flatnonzero(~valid_V), [50, 51, 52, 53])
        assert any("scrubbed" in note for note in found.notes)
    series = np.random.default_rng(0).normal(size=(190, 4))
    cleaned = clean_parcels(
        series, found.values_VK, found.names, 2.0, global_signal_V=None, regressors=found.regressors, valid_V=valid_V
    )
    kept_VK = expected.to_numpy()[valid_V]
    explained = (kept_VK / np.linalg.norm(kept_VK, axis=0)).T @ cleaned.bold_VR[valid_V]
    assert np.abs(explained).max() < 1e-4
    assert cleaned.confound_names == (*expected.columns, FD)
    assert np.isfinite(cleaned.fd_V).all()


def test_ica_aroma_belongs_to_its_own_image(fmriprep_table):
    found = read(fmriprep_table, 190, "ica_aroma", AROMA)
    assert {"csf", "white_matter", "cosine00"} <= set(found.regressors)
    assert not set(MOTION) & set(found.regressors)
    with pytest.raises(FormatError, match="desc-smoothAROMAnonaggr_bold and to no other"):
        read(fmriprep_table, 190, "ica_aroma", IMAGE)
    with pytest.raises(FormatError, match="says 'simple'"):
        read(fmriprep_table, 190, "simple", AROMA)


def test_what_a_strategy_lacks_is_named(fmriprep_table):
    table = pd.read_csv(fmriprep_table, sep="\t", dtype=str, keep_default_na=False)
    table.drop(columns="trans_x_power2").to_csv(fmriprep_table, sep="\t", index=False)
    with pytest.raises(FormatError, match=r"'simple' cannot be had.*trans_x_power2.*such as 'motion6'"):
        read(fmriprep_table, 190, "simple")
    table.drop(columns="std_dvars").to_csv(fmriprep_table, sep="\t", index=False)
    with pytest.raises(FormatError, match=r"'scrubbing' cannot be had.*std_dvars"):
        read(fmriprep_table, 190, "scrubbing")
    table.to_csv(fmriprep_table, sep="\t", index=False)
    fmriprep_table.with_suffix(".json").unlink()
    with pytest.raises(FormatError, match="'compcor' cannot be had"):
        read(fmriprep_table, 190, "compcor")
    with pytest.raises(FormatError, match="190 rows for 191 volumes"):
        read(fmriprep_table, 191, "simple")


def test_no_confounds_leave_the_trend_alone_and_keep_displacement_for_quality(tmp_path):
    write_recording_files(tmp_path)
    (files,) = find_recordings(tmp_path, small_site())
    recordings = {
        name: prepare_recording(site=small_site(confounds=name), files=files, atlas=small_atlas(tmp_path))
        for name in ("motion6", "none")
    }
    steps = {name: next(s for s in r.provenance["steps"] if s["step"] == "regress") for name, r in recordings.items()}
    assert steps["motion6"]["confounds"] == list(MOTION)
    assert steps["none"]["confounds"] == []
    assert steps["none"]["n_regressors"] == 3
    assert recordings["none"].confound_names == (FD,)
    assert recordings["none"].quality["mean_fd_mm"] == recordings["motion6"].quality["mean_fd_mm"]
    assert len(recordings["none"].bold) == N_VOLUMES


def test_strategies_of_a_site_are_checked_and_come_from_yaml(tmp_path):
    with pytest.raises(SiteError, match="confounds is 'simpel'"):
        small_site(confounds="simpel")
    path = tmp_path / "site.yaml"
    facts = {"name": "own", "sfreq": 5000, "t_r": 2.0, "line_freq": 50, "volume_marker": "R128", "confounds": "none"}
    path.write_text(json.dumps(facts))
    assert load_site(path).confounds == "none"


def test_a_strategy_that_fits_more_than_half_of_the_signal_names_its_file(tmp_path):
    paths = write_recording_files(tmp_path)
    rng = np.random.default_rng(0)
    names = ["csf", "white_matter", *(f"cosine{n:02d}" for n in range(12))]
    names += [f"{m}{end}" for m in MOTION for end in ("", "_derivative1", "_power2", "_derivative1_power2")]
    table = pd.DataFrame(rng.normal(size=(N_VOLUMES, len(names))), columns=names)
    table.to_csv(paths["confounds"], sep="\t", index=False)
    (files,) = find_recordings(tmp_path, small_site())
    with pytest.raises(FormatError, match=r"confounds_timeseries\.tsv: 38 confounds for 30 volumes.*other confounds"):
        prepare_recording(site=small_site(confounds="simple"), files=files, atlas=small_atlas(tmp_path))
