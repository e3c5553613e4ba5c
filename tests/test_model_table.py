"""The one table of a study: seeds are trainings with another seed, never folds that happen to test one recording."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from xsite.evaluation.folds import Fold
from xsite.evaluation.model_table import model_table, to_markdown
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.subjects import subject_scores
from xsite.recording import RecordingKey
from xsite.runtime.held_out import main_predictions

SITES = ("a", "b", "c", "d")
PARCELS = ("p", "q")


def predicted(rng: np.random.Generator, seeds: tuple[int, ...]) -> tuple[list[Fold], dict[str, list[Prediction]]]:
    """Site to site: every recording is tested by three folds. Later seeds are noisier, every fold alike."""
    keys = {site: tuple(RecordingKey(site, f"{n:02d}", task="rest") for n in range(3)) for site in SITES}
    truth = {key: rng.normal(0, 1, (80, 2)).astype(np.float32) for own in keys.values() for key in own}
    valid_V = np.ones(80, bool)
    folds = []
    found: dict[str, list[Prediction]] = {}
    for train in SITES:
        tested = tuple(key for site in SITES if site != train for key in keys[site])
        folds.append(Fold(keys[train][:2], keys[train][2:], tested, f"from-{train}", unit="training-sites"))
        own = found.setdefault(f"from-{train}", [])
        for key in tested:
            for rank, seed in enumerate(seeds):
                said_VR = truth[key] + rng.normal(0, 1 + rank, (80, 2)).astype(np.float32)
                own.append(Prediction(key, "net", False, said_VR, truth[key], valid_V, seed=seed))
            own.append(Prediction(key, "ridge", False, truth[key] + 2, truth[key], valid_V))
            own.append(Prediction(key, "zero", False, 0 * truth[key], truth[key], valid_V))
    return folds, found


@pytest.mark.parametrize("seeds", [(0,), (0, 7)])
def test_folds_that_test_one_recording_are_no_seeds(seeds: tuple[int, ...], rng: np.random.Generator) -> None:
    folds, found = predicted(rng, seeds)
    assert len(list(permutations(SITES, 2))) * 3 * len(seeds) == sum(
        p.model == "net" for own in found.values() for p in own
    )
    scores = score_predictions(main_predictions(found, folds), parcels=PARCELS)
    assert scores.query("model == 'net'")["seed"].nunique() == 3 * len(seeds)  # folds and seeds, numbered together
    histories = pd.DataFrame({"model": ["net"], "control": [False], "windows_per_s": [10.0]})
    table = model_table(scores, histories, {"net": 5}, n_seeds=len(seeds)).set_index("model")
    assert table["n_seeds"].to_dict() == {"net": len(seeds), "ridge": 1, "zero": 1}
    assert np.isnan(table.loc["ridge", "r_seed_sd"])
    means = [
        subject_scores(score_predictions(alone, parcels=PARCELS)).groupby("site")["r"].mean().mean()
        for seed in seeds
        if (alone := main_predictions(only(found, seed), folds))
    ]
    if len(seeds) == 1:
        assert np.isnan(table.loc["net", "r_seed_sd"])  # three folds say nothing about the training's chance
    else:
        assert means[0] > means[1] + 0.05
        assert table.loc["net", "r_seed_sd"] == pytest.approx(float(np.std(means, ddof=1)))


def test_models_of_different_access_stand_in_different_tables(rng: np.random.Generator) -> None:
    folds, found = predicted(rng, (0,))
    scores = score_predictions(main_predictions(found, folds), parcels=PARCELS)
    scores["access"] = scores["model"].map({"net": "unlabelled EEG", "ridge": "none", "zero": "none"})
    histories = pd.DataFrame({"model": ["net"], "control": [False], "windows_per_s": [10.0]})
    table = model_table(scores, histories, {"net": 5}, n_seeds=1)
    levels = table.set_index("model")["access"].to_dict()
    assert levels == {"net": "unlabelled EEG", "ridge": "none", "zero": "none"}
    blocks = to_markdown(table, "BASIS").split("Access to the test site: ")
    assert sorted(block.splitlines()[0] for block in blocks[1:]) == ["none", "unlabelled EEG"]
    for block in blocks[1:]:  # zero reads no EEG: a reference in every table
        model = {"none": "ridge", "unlabelled EEG": "net"}[block.splitlines()[0]]
        names = [line.split(" | ")[0] for line in block.splitlines() if line.startswith("| ")][2:]
        assert names == [f"| {model}", "| zero"]
    same = to_markdown(table.assign(access="none"), "BASIS")
    assert "Access to" not in same
    assert same.count("| model |") == 1


def only(found: dict[str, list[Prediction]], seed: int) -> dict[str, list[Prediction]]:
    return {label: [p for p in own if p.model == "net" and p.seed == seed] for label, own in found.items()}
