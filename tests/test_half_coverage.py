"""Item 25 of the catalogue: a site whose images cover half of the brain, from the store to the report.

Its other parcels are missing, not zero: no loss, no score and no average ever sees them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_loop import LogPower
from test_report import HABITS, write_study

from neurobolt.baselines import Mean, Ridge
from xsite.data.harmonize import target_scale
from xsite.data.manifest import rebuild_manifest
from xsite.data.store import read_recording, write_recording
from xsite.data.windows import build_source, window_starts
from xsite.evaluation.controls import other_subjects_target
from xsite.evaluation.scoring import ORACLE, Prediction, score_predictions
from xsite.evaluation.subjects import subject_scores
from xsite.evaluation.tables import study_summary
from xsite.experiment_parts import Optim
from xsite.learning.algorithms import ERM
from xsite.learning.loop import fit
from xsite.learning.predict import predict_recording
from xsite.learning.seeds import seed_everything
from xsite.learning.targets import TargetSpec, fold_targets, median_scale, unseen_target
from xsite.reports.parcel_table import parcel_scores, parcel_table
from xsite.reports.study import write_report
from xsite.runtime.closed_form import BaselineInput

PARCELS = ("upper left", "upper right", "lower left", "lower right")
LOWER = [2, 3]
OPTIM = Optim(epochs=3, warmup_epochs=1, batch_size=16, lr=3e-3)


def cut(recording, parcels=LOWER):
    bold = recording.bold.copy()
    bold[:, parcels] = np.nan
    return replace(recording, bold=bold, truth=np.nan_to_num(recording.bold))


@pytest.fixture
def store(tmp_path, make_recording):
    """Sites ``whole`` and ``half``, three subjects each, written to a store and read back."""
    recordings = {}
    for site in ("half", "whole"):
        for number in range(3):
            made = make_recording(site, f"{number:02d}", n_parcels=4)
            made = replace(made, parcellation=replace(made.parcellation, labels=PARCELS), truth=made.bold.copy())
            made = cut(made) if site == "half" else made
            write_recording(str(tmp_path / "store"), made, fingerprint="f")
            recordings[made.key] = read_recording(str(tmp_path / "store"), made.key)
    manifest = rebuild_manifest(str(tmp_path / "store"))
    assert not manifest["excluded"].any()  # half a brain is no reason to leave a recording out
    return recordings


def of(store, site):
    return [recording for key, recording in store.items() if key.site == site]


def spec_of(train, kind="strict"):
    return TargetSpec(kind, 0.15, median_scale([target_scale(r.bold, r.t_r) for r in train]))


def source_of(recordings, targets, model):
    wanted = [targets[r.key] for r in recordings]
    return build_source(recordings, ch_names=model.ch_names, ch_index=model.channel_index, targets=wanted)


def test_store_keeps_missing_parcels_missing(store):
    for recording in of(store, "half"):
        assert np.isnan(recording.bold[:, LOWER]).all()
        assert np.isfinite(recording.bold[:, :2]).all()


@pytest.mark.parametrize("kind", ["strict", "paper"])
def test_missing_parcels_have_no_target_and_no_part_in_the_loss(store, kind):
    train = [*of(store, "half")[:2], *of(store, "whole")[:2]]
    spec = spec_of(train, kind)
    assert np.isfinite(spec.scale_R).all()  # the other site knows them
    targets = fold_targets(train, [], spec)
    model = LogPower(train[0].ch_names, 4)
    half, both = source_of(train[:2], targets, model), source_of(train, targets, model)
    assert not half.mask_VR[:, LOWER].any()
    assert half.mask_VR[:, :2].all()
    assert len(both) == sum(len(window_starts(r)[0]) for r in train)  # no window is lost for it
    batch, target_BR, mask_BR = half.gather(np.arange(20))
    loss = ERM(model)(batch, target_BR, mask_BR)["loss"]
    predicted_BR = model(batch)
    torch.testing.assert_close(loss, (predicted_BR[:, :2] - target_BR[:, :2]).square().mean())
    loss.backward()
    assert torch.all(model.readout.weight.grad[LOWER] == 0)
    assert torch.all(model.readout.bias.grad[LOWER] == 0)
    assert model.readout.weight.grad[:2].abs().sum() > 0


def test_what_stands_in_missing_parcels_changes_no_weight(store):
    """Trained twice, the second time with huge numbers under the mask: bitwise the same weights."""
    weights = []
    for filler in (0.0, 1e6):
        train, val = [*of(store, "half")[:2], *of(store, "whole")[:2]], [of(store, "half")[2]]
        spec = spec_of(train)
        targets = fold_targets(train, val, spec)
        seed_everything(1)
        model = LogPower(train[0].ch_names, 4)
        sources = [source_of(side, targets, model) for side in (train, val)]
        for source in sources:
            source.target_VR[~source.mask_VR] = filler
        result = fit(ERM(model), *sources, OPTIM, seed=1)
        assert all(np.isfinite(row["val_loss"]) for row in result.history)
        weights.append(result.best_state)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def predictions_of(store, train, test, spec):
    targets = fold_targets(train, [], spec)
    seed_everything(2)
    model = LogPower(train[0].ch_names, 4)
    fit(ERM(model), source_of(train, targets, model), None, OPTIM, seed=2)
    config = {"ch_names": model.ch_names, "parcels": PARCELS, "reference": "average"}
    config["experiment"] = {"data": {"channels": "common"}}
    inputs = {
        r.key: BaselineInput(r.eeg, r.eeg_valid, r.volume_onsets, r.volume_valid, r.sfreq) for r in (*train, *test)
    }
    said = {"small": {r.key: predict_recording(model, r, config=config) for r in test}}
    for name, baseline in {"ridge": Ridge(), "mean": Mean()}.items():
        baseline.fit([inputs[r.key] for r in train], [targets[r.key] for r in train])
        said[name] = {r.key: baseline.predict(inputs[r.key]) for r in test}
    said[ORACLE] = {r.key: unseen_target(r, spec, r.truth) for r in test}
    measured = {r.key: unseen_target(r, spec) for r in test}
    valid = {r.key: r.volume_valid for r in test}
    return [
        Prediction(key, name, False, values, measured[key], valid[key])
        for name, by_key in said.items()
        for key, values in by_key.items()
    ]


def test_a_held_out_half_brain_is_scored_by_the_parcels_that_it_has(store):
    train, test = of(store, "whole"), of(store, "half")
    predictions = predictions_of(store, train, test, spec_of(train))
    scores = score_predictions(predictions, parcels=PARCELS)
    lower = scores[scores["parcel"].isin(PARCELS[2:])]
    upper = scores[scores["parcel"].isin(PARCELS[:2])]
    assert lower[["r", "mse"]].isna().all().all()
    assert (lower["n_volumes"] == 0).all()
    assert np.isfinite(upper["mse"]).all()
    subjects = subject_scores(scores)
    for name in ("small", "ridge"):
        for subject, r in subjects[subjects["model"] == name].set_index("subject")["r"].items():
            own = upper[(upper["model"] == name) & (upper["subject"] == subject)]
            assert r == pytest.approx(own["r"].mean())  # two parcels, not two of four with zeros for the rest
    summary = study_summary(scores, predictions, model="small", rivals=("ridge", "mean"), surrogates=99)
    rows = {row["model"]: row for row in summary["rows"]}
    assert 0 < rows["ridge"]["p_null"] <= 1
    assert rows["ridge"]["oracle_r_mean"] == pytest.approx(1)
    assert rows["ridge"]["r_mean"] > 0.2  # the fixture's upper parcels follow the alpha power
    assert rows["mean"]["r_mean"] is None


def test_the_report_shows_a_gap_for_what_was_not_measured(store):
    train, test = of(store, "whole")[:2], [*of(store, "half"), of(store, "whole")[2]]
    scores = score_predictions(predictions_of(store, train, test, spec_of(train)), parcels=PARCELS)
    values = parcel_scores(scores, "ridge")
    assert set(values.loc[values["site"] == "half", "parcel"]) == set(PARCELS[:2])
    assert set(values.loc[values["site"] == "whole", "parcel"]) == set(PARCELS)
    page = str(parcel_table(scores, "ridge", {"labels": PARCELS}, "Scores."))
    lower_row = page[page.index("lower left") :]
    assert "<td>–</td>" in lower_row[: lower_row.index("</tr>")]
    upper_row = page[page.index("upper left") :]
    assert "<td>–</td>" not in upper_row[: upper_row.index("</tr>")]
    assert "nan" not in page.lower()


def test_parcels_that_no_training_site_covers_are_neither_learnt_nor_scored(store):
    train, test = of(store, "half"), of(store, "whole")
    spec = spec_of(train)
    assert np.isnan(np.array(spec.scale_R)[LOWER]).all()
    assert TargetSpec.from_dict(spec.to_dict()).to_dict() == spec.to_dict()  # JSON knows no NaN
    predictions = predictions_of(store, train, test, spec)
    scores = score_predictions(predictions, parcels=PARCELS)
    assert set(scores.loc[np.isfinite(scores["mse"]), "parcel"]) == set(PARCELS[:2])
    summary = study_summary(scores, predictions, model="small", surrogates=99)
    assert np.isfinite(next(row["r_mean"] for row in summary["rows"] if row["model"] == "ridge"))


def test_controls_leave_missing_parcels_missing(store):
    targets = fold_targets(of(store, "half"), [], spec_of(of(store, "half")))
    shuffled = other_subjects_target(targets, 3)
    assert all(np.isnan(target[:, LOWER]).all() for target in shuffled.values())
    assert all(np.isfinite(target[:, :2]).any() for target in shuffled.values())


def test_subjects_of_a_site_that_miss_different_parcels_share_no_scores(store):
    half = [of(store, "half")[0], cut(of(store, "whole")[1], [0, 1])]
    train = [of(store, "whole")[0], of(store, "whole")[2]]
    predictions = predictions_of(store, train, half, spec_of(train))
    scores = score_predictions(predictions, parcels=PARCELS)
    measured = scores[np.isfinite(scores["mse"])].groupby(["site", "subject"])["parcel"].agg(set)
    assert measured[("half", "00")] == set(PARCELS[:2])
    assert measured[("whole", "01")] == set(PARCELS[2:])


@pytest.mark.slow  # a dozen figures
def test_the_whole_page_can_be_written(tmp_path, make_recording, rng):
    recordings, predictions = [], []
    for site, (_, t_r, _) in HABITS.items():
        for subject in ("01", "02"):
            r = make_recording(site, subject, n_volumes=60, t_r=t_r, n_parcels=4)
            target = r.bold.copy()
            if site == "west":
                target[:, LOWER] = np.nan
            noise = rng.normal(size=r.bold.shape)
            said = {"neurobolt": r.bold + noise, "ridge": r.bold + 2 * noise, "zero": 0 * noise, ORACLE: r.bold}
            predictions += [Prediction(r.key, name, False, p, target, r.volume_valid) for name, p in said.items()]
            recordings.append(r)
    folder = write_study(tmp_path / "study", recordings, predictions, rng, controls=False)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "–" in page
    assert ">nan<" not in page.lower()
