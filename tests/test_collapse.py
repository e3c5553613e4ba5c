"""A collapsed model is named, a healthy one is not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xsite.evaluation.collapse import FLAT, collapse_rows, find_collapsed
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.tables import study_summary
from xsite.recording import RecordingKey
from xsite.tracking.gate import check_study


def study(rng, makers, n_subjects=3):
    """One prediction per model, site and subject; a maker turns the target into what its model says."""
    found = []
    for site in ("alpha", "beta"):
        for subject in range(n_subjects):
            target_VR = rng.normal(0, 0.5, (200, 4)).astype(np.float32)
            target_VR[:, 3] = np.nan  # no coverage
            for model, make in makers.items():
                key = RecordingKey(site, f"{subject:02d}", task="rest")
                found.append(Prediction(key, model, False, make(target_VR), target_VR, np.ones(200, bool)))
    return found


def healthy(rng):
    return lambda target_VR: 0.25 * (np.nan_to_num(target_VR) + rng.normal(0, 0.87, target_VR.shape))  # R about .5


def test_a_flat_predictor_is_named_and_a_healthy_one_is_not(rng):
    flat = study(rng, {"healthy": healthy(rng), "flat": lambda t: 0.02 * np.nan_to_num(t)})
    found = find_collapsed(flat)
    assert [(c.site, c.model) for c in found] == [("alpha", "flat"), ("beta", "flat")]
    assert all(c.variance_ratio < FLAT for c in found)
    assert found[0].r == pytest.approx(1, abs=1e-6)  # its correlation is perfect: R alone would praise it
    assert "4.0e-04 of the target's" in found[0].reason
    constant = find_collapsed(study(rng, {"constant": lambda t: np.full_like(t, 0.1)}))
    assert len(constant) == 2
    assert constant[0].variance_ratio < 1e-12  # the rounding of a float32 mean


def test_a_correlated_predictor_worse_than_zero_is_named(rng):
    """R > 0 with R2 <= 0: a correlation of 0.3 at five times the right amplitude."""
    loud = study(rng, {"loud": lambda t: 3 * (0.3 * np.nan_to_num(t) + rng.normal(0, 0.47, t.shape))})
    found = find_collapsed(loud)
    assert len(found) == 2
    assert found[0].r > 0.2
    assert found[0].r2 < 0
    assert "no better than zero" in found[0].line


def test_a_model_that_knows_nothing_and_says_little_is_flat_not_worse(rng):
    wrong = find_collapsed(study(rng, {"anti": lambda t: -0.5 * np.nan_to_num(t)}))
    assert wrong == []  # bad, and visibly so in R: not a collapse


def test_references_and_controls_take_no_part(rng):
    silent = study(rng, {name: lambda t: np.zeros_like(t) for name in ("zero", "mean", "oracle", "global-signal")})
    assert find_collapsed(silent) == []
    control = [Prediction(p.key, "net", True, p.predicted_VR, p.target_VR, p.valid_V) for p in silent[:1]]
    assert find_collapsed(control) == []


def test_each_seed_answers_for_itself(rng):
    good, bad = (study(rng, {"net": make}, 1)[0] for make in (healthy(rng), lambda t: 0 * np.nan_to_num(t)))
    bad = Prediction(bad.key, "net", False, bad.predicted_VR, bad.target_VR, bad.valid_V, seed=2)
    found = find_collapsed([good, bad])
    assert [c.seed for c in found] == [2]
    assert "seed 2" in found[0].line


def test_summary_and_gate_say_so(rng):
    predictions = study(rng, {"net": lambda t: 0.02 * np.nan_to_num(t), "zero": lambda t: np.zeros_like(t)})
    scores = score_predictions(predictions, parcels=("a", "b", "c", "d"))
    summary = study_summary(scores, predictions, model="net", rivals=("zero",), surrogates=20)
    assert summary["collapsed"] == json.loads(json.dumps(collapse_rows(predictions)))
    assert [row["site"] for row in summary["collapsed"]] == ["alpha", "beta"]
    gate = check_study(summary["rows"], "net", summary["collapsed"])
    assert gate.collapsed == ("alpha", "beta")
    warnings = [line for line in gate.lines if line.startswith("warn  collapsed")]
    assert len(warnings) == 1  # one line per model, not per site
    assert "net" in warnings[0]
    assert "2 of 2 sites" in warnings[0]
    healthy_gate = check_study(summary["rows"], "net")
    assert healthy_gate.collapsed == ()
    assert not any(line.startswith("warn  collapsed") for line in healthy_gate.lines)
    oracle = check_study(summary["rows"], "global-signal")
    assert not oracle.passed
    assert "reads the measured BOLD" in oracle.lines[0]
