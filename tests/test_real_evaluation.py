"""The evaluator on real measurements: null widths, global signal, and a real EEG-to-fMRI pairing (ds003574)."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ds003574
from xsite.data.harmonize import paper_target
from xsite.errors import FormatError
from xsite.evaluation.nulls import null_r
from xsite.evaluation.spectra import effective_n

T_R = 2.1


@pytest.fixture
def scans(shared_data):
    """Targets of eight real scans, 567 volumes x 64 parcels, and the cleaned global signal through the same path."""
    path = shared_data("data/vu_rest_roi/train_val.npz")
    with np.load(path) as data:
        columns = list(data["columns"])
        series = {name: data[name] for name in data.files if name != "columns"}
    assert len(series) == 23
    assert columns[64] == "global signal clean"
    return {name: paper_target(values[:, :65], T_R, 0.15)[:567] for name, values in list(series.items())[::3]}


@pytest.mark.parametrize(("kind", "n_volumes", "low", "high"), [
    ("phase", 567, 0.065, 0.10), ("shift", 567, 0.065, 0.10), ("phase", 48, 0.22, 0.26), ("shift", 48, 0.22, 0.26),
])  # fmt: skip
def test_null_width_of_a_scan_and_of_a_block(scans, kind, n_volumes, low, high):
    """Another subject's real series as the prediction: published widths are .065-.10 and .22-.26."""
    names, rng = list(scans), np.random.default_rng(1)
    start, valid_V = 0 if n_volumes == 567 else 200, np.ones(n_volumes, bool)
    widths, worth = [], []
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        a_VR, b_VR = (scans[one][start : start + n_volumes, :64] for one in (other, name))
        widths.append(null_r(a_VR, b_VR, valid_V, surrogates=300, rng=rng, kind=kind).std(0))
        worth.append(effective_n(a_VR, b_VR, valid_V))
    assert low <= np.median(widths) <= high
    assert np.median(widths) == pytest.approx(1 / np.sqrt(np.median(worth)), rel=0.15)


def test_every_parcel_carries_the_global_signal(scans):
    r = [[np.corrcoef(x[:, parcel], x[:, 64])[0, 1] for parcel in range(64)] for x in scans.values()]
    assert np.median(r) == pytest.approx(0.71, abs=0.05)
    assert np.mean(np.array(r) > 0.3) > 0.95


def test_sleepers_are_joined_by_scan_number(shared_data):
    folder = shared_data("data/real/ds003574")
    sleepers = {s.subject: s for s in ds003574.load(folder)}
    assert len(sleepers) == 9
    assert len(sleepers["04"].target_VR) == 2349  # EEG rows 1 to 2350, fMRI rows 2 to 2351
    assert len(sleepers["02"].target_VR) == 3052  # 3053 EEG rows, 3579 fMRI rows
    eeg = ds003574.read_table(folder / "derivatives/sub-05_task-rest_hypnogram-powerspectrum.tsv")
    delta = eeg.groupby("hypnogram")["delta"].mean()
    assert (delta[0], delta[3]) == pytest.approx((2.66, 4.35), abs=0.05)  # known from shared/design/sites.md
    np.testing.assert_allclose(sleepers["05"].power_VP[0], eeg.loc[2, list(ds003574.BANDS)].to_numpy(float))


def test_real_eeg_predicts_real_fmri_a_little_and_the_clock_predicts_more(shared_data):
    """docs/real_ds003574.md: the figures that it quotes, from the command that it names."""
    sleepers = ds003574.load(shared_data("data/real/ds003574"))
    raw = ds003574.analyse(sleepers, high_pass=False, surrogates=99)["summary"]
    rows = {row["model"]: row for row in raw["rows"]}
    assert rows["ridge"]["r_mean"] == pytest.approx(0.348, abs=0.005)
    assert rows["elapsed-time"]["r_mean"] > rows["ridge"]["r_mean"]
    assert rows["zero"]["r_mean"] is None
    fast = ds003574.analyse(sleepers, high_pass=True, surrogates=99)["summary"]
    ridge = next(row for row in fast["rows"] if row["model"] == "ridge")
    assert ridge["r_mean"] == pytest.approx(0.100, abs=0.005)
    assert ridge["p_null"] == 0.01
    assert ridge["n_subjects"] == 9
    assert {row["parcel"] for row in fast["parcels"]} == set(ds003574.STATES)


def test_absent_data_say_what_to_fetch(tmp_path):
    with pytest.raises(FormatError, match="leave-one-subject-out needs three"):
        ds003574.load(tmp_path)
    with pytest.raises(FormatError, match="OpenNeuro ds003574"):
        ds003574.read_table(tmp_path / "absent.tsv")
