"""The same road on real input: the BOLD of 23 real scans, simulated EEG at three pseudo-sites, nothing else changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import ingest, loso, phantom
from xsite.data.store import read_manifest

RECIPE = Path(loso.__file__).parent / "recipes" / "real_bold.yaml"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3600)
def test_study_on_real_bold(ray_local: None, shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    scans = shared_data("data/vu_rest_roi/train_val.npz")
    bids, store, study = tmp_path / "bids", tmp_path / "store", tmp_path / "study"
    assert phantom.main([str(bids), "--bold-from", str(scans), "--jobs", "2"]) == 0
    assert ingest.main(["all", "--bids", str(bids), "--store", str(store)]) == 0
    manifest = read_manifest(str(store))
    assert len(manifest) == 23
    assert manifest["n_volumes"].eq(575).all()
    assert sorted(manifest["site"].unique()) == ["realA", "realB", "realC"]
    assert manifest.groupby("subject")["site"].nunique().eq(1).all(), "both scans of a subject stay at one site"

    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    words = [str(RECIPE), "--store", str(store), "--study", str(study), "--tracking", tracking]
    assert loso.main(words) == 0
    rows = json.loads((study / "summary.json").read_text(encoding="utf-8"))["rows"]
    scores = {(row["site"], row["model"], row["control"]): row for row in rows}
    for site in ("realA", "realB", "realC"):
        oracle = scores[site, "ridge", False]["oracle_r_mean"]
        assert 0.6 < oracle < 1
        for model in ("ridge", "neurobolt"):
            row = scores[site, model, False]
            assert row["p_null"] <= 0.01
            assert row["r_mean"] > 0.4 * oracle
        assert abs(scores[site, "ridge", True]["r_mean"]) < 0.15
        assert scores[site, "zero", False]["r_mean"] is None
