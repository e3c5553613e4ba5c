"""All known sites in one store and one study: each phantom ingested, each trainable site held out once and scored."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import yaml

from jobs import ingest, loso
from site_adapters import LIKES, SIDECAR_FOLDERS, SITES
from xsite.data.left_out import read_left_out
from xsite.data.manifest import KEYS
from xsite.data.store import read_manifest, read_recording
from xsite.errors import RecipeError
from xsite.evaluation.folds import Fold, manifest_keys
from xsite.evaluation.scoring import load_predictions
from xsite.phantom.like import LikeTruth, write_like
from xsite.recording import RecordingKey

pytestmark = [pytest.mark.slow, pytest.mark.ray]

UNUSABLE = {  # in the store with their story, and never trained on: what the reason must say
    "ds000116": "43 bipolar pairs",
    "ds002734": "no channel names",
    "ds002739": "no channel names",
    "ds004478": "one occipital EEG channel",
}
REFUSED = {"noddi_raw": "Sync On is a clock signal", "unam_egi": "nothing tells when the scan began"}
"""Nothing in their files tells when the scan began: not one recording; each has a second reading that can serve."""
TRAINABLE = set(LIKES) - set(UNUSABLE) - set(REFUSED)
NETS = {"unam_egi_at_scan"}
"""Electrodes that have no 10-20 names: only splines bring them together with the others."""

TWO_SUBJECTS = {"ds002725", "ds003574", "noddi", "unam_egi_at_scan"}
"""Sites whose second subject selects checkpoints; that of ds002725 has four triggers too few."""
VOLUMES = {"ds002338_pp": 48, "ds004478": 100}
"""At a TR of 1 s and with the first volumes cut off, 24 volumes leave no window of 16 s."""
RECIPE = {
    "name": "all-sites",
    "model": {"preset": "small", "options": {"depth": 1, "spectral_depth": 1}},
    "optim": {"lr": 3e-3, "epochs": 1, "warmup_epochs": 0, "batch_size": 16, "windows_per_epoch": 48},
    "surrogates": 20,
}


@dataclass(frozen=True, eq=False)
class Consortium:
    """Phantoms of all sites, what is true of them, the store that they went into, and what ingest said."""

    store: str
    truths: dict[str, LikeTruth]
    said: str
    manifest: pd.DataFrame


@pytest.fixture(scope="module")
def consortium(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    out = tmp_path_factory.mktemp("sites")
    truths: dict[str, LikeTruth] = {}
    for name, like in LIKES.items():
        sidecars = Path(__file__).parents[2] / "shared" / "sites" / SIDECAR_FOLDERS.get(name, name)
        size = 2 if name in TWO_SUBJECTS else 1
        written = write_like(
            like,
            out,
            sidecars=sidecars if sidecars.is_dir() else None,
            subjects=size,
            max_volumes=VOLUMES.get(name, 24),
            max_runs=size,
        )
        truths |= {str(truth.run.key): truth for truth in written}
    store = str(out / "store")
    said = StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        assert ingest.main(["all", "--bids", str(out), "--store", store]) == 1  # two sites have no recording
    return Consortium(store, truths, said.getvalue(), read_manifest(store))


def test_every_site_is_read_as_far_as_the_facts_allow(consortium: Consortium) -> None:
    manifest = consortium.manifest
    assert set(manifest["site"]) == set(LIKES) - set(REFUSED)
    for site, rows in manifest.groupby("site"):
        if site in UNUSABLE:
            assert rows["excluded"].all()
            assert rows["reason"].str.contains(UNUSABLE[str(site)]).all()
        else:
            assert site in TRAINABLE
            assert not rows["excluded"].all(), f"{site}: {rows['reason'].tolist()}"
    assert manifest["n_chans"].nunique() >= 5
    assert manifest["t_r"].nunique() >= 6
    assert manifest["parcellation_sha256"].nunique() == 1
    assert manifest["image_sha256"].is_unique


@pytest.mark.parametrize("site", REFUSED)
def test_sites_without_a_recording_say_why_and_stop_nobody(consortium: Consortium, site: str) -> None:
    assert "2 sites have none" in consortium.said
    assert REFUSED[site] in consortium.said
    reasons = read_left_out(consortium.store)[site]
    assert any("nothing shows that they are simultaneous" in reason for reason in reasons.values())


def test_the_store_tells_the_whole_story_of_each_recording(consortium: Consortium) -> None:
    found = {str(key) for key in _keys(consortium.manifest)}
    assert set(consortium.manifest["verdict"]) == {"ok", "repaired", "unverified"}
    for key, verdict, n_valid in zip(
        _keys(consortium.manifest), consortium.manifest["verdict"], consortium.manifest["n_valid"], strict=True
    ):
        truth, recording = consortium.truths[str(key)], read_recording(consortium.store, key)
        story, site = recording.provenance, SITES[key.site]
        assert verdict == story["alignment"]["verdict"]
        assert verdict in truth.run.verdicts
        assert n_valid == truth.kept[1] - truth.kept[0]
        assert story["alignment"]["evidence"]
        assert 0 < story["alignment"]["confidence"] <= 1
        kinds = {repair["kind"] for repair in story["alignment"]["repairs"]}
        assert bool(kinds) or verdict != "repaired"
        assert all(len(source["sha256"]) == 64 for source in story["sources"])
        assert len(story["sources"]) >= 2
        steps = [step["step"] for step in story["steps"]]
        assert ("gradient removal" in steps) == (site.eeg_state == "raw"), key
        assert story["site"]["license"] == site.license
        assert story["versions"]["mne"]
        assert recording.quality["eeg_valid_fraction"] > 0
    missing = {key for key, t in consortium.truths.items() if t.run.paired and key not in found}
    for key in missing:  # not in the store: refused with a reason, as the truth says
        assert consortium.truths[key].run.verdicts == ("rejected",), key


def test_all_trainable_sites_are_held_out_once_and_scored(consortium: Consortium, tmp_path: Path) -> None:
    study = run_study(consortium, tmp_path, {"data": {"channels": "spline"}})
    keys = manifest_keys(consortium.manifest)
    assert {fold.held_out for fold in study.folds} == TRAINABLE == {key.site for key in keys}
    assert len(study.folds) == len(TRAINABLE)
    check_folds(study, keys)


def test_caps_of_31_to_64_channels_train_as_they_are(consortium: Consortium, tmp_path: Path) -> None:
    sites = sorted(TRAINABLE - NETS)
    held_out = ["ds002725", "ds003574"]
    recipe = {"data": {"channels": "native", "sites": sites}, "folds": {"held_out": held_out}}
    study = run_study(consortium, tmp_path, recipe)
    assert [fold.held_out for fold in study.folds] == held_out
    check_folds(study, [key for key in manifest_keys(consortium.manifest) if key.site in sites])


def test_a_net_without_electrode_names_is_refused_with_the_way_out(consortium: Consortium, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"channels unknown .*'E1'.*data\.channels: spline"):
        run_study(consortium, tmp_path, {"data": {"channels": "native"}})


@dataclass(frozen=True)
class Study:
    """A finished study's folder and its folds."""

    path: Path
    folds: list[Fold]


def run_study(consortium: Consortium, folder: Path, recipe: dict[str, object]) -> Study:
    path = folder / "all.yaml"
    path.write_text(yaml.safe_dump(RECIPE | recipe))
    study, tracking = folder / "study", f"sqlite:///{folder}/mlflow.db"
    words = [str(path), "--store", consortium.store, "--study", str(study), "--tracking", tracking]
    assert loso.main(words) == 0
    folds = json.loads((study / "folds.json").read_text())
    return Study(study, [Fold.from_dict(fold) for fold in (folds if isinstance(folds, list) else folds["folds"])])


def check_folds(study: Study, keys: list[RecordingKey]) -> None:
    """Nobody who is excluded takes part; every held-out recording is predicted once by every model, and scored."""
    for fold in study.folds:
        assert {*fold.train, *fold.val, *fold.test} == set(keys)
    held_out = {fold.held_out for fold in study.folds}
    rows = {(row["site"], row["model"]) for row in json.loads((study.path / "summary.json").read_text())["rows"]}
    models = ("zero", "mean", "ridge", "neurobolt")
    assert {(site, model) for site in held_out for model in models} <= rows
    assert {site for site, _ in rows} <= held_out
    predictions = [p for p in load_predictions(study.path / "predictions.npz") if p.model in models]
    found = sorted((str(p.key), p.model) for p in predictions)
    assert found == sorted((str(key), model) for key in keys if key.site in held_out for model in models)
    assert (study.path / "report.html").stat().st_size > 0


def _keys(manifest: pd.DataFrame) -> list[RecordingKey]:
    """Of excluded recordings as well."""
    rows = manifest[KEYS].fillna("").astype(str)
    return [RecordingKey(*row) for row in rows.itertuples(index=False)]
