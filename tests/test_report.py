"""A study's folder, written with the real evaluation, becomes one page that stands on its own."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml

from xsite.data.spline_plan import CANONICAL
from xsite.errors import FormatError
from xsite.evaluation.folds import leave_one_site_out
from xsite.evaluation.scoring import ORACLE, Prediction, save_predictions, score_predictions
from xsite.evaluation.tables import study_summary
from xsite.experiment import parse_experiment
from xsite.reports import anatomy, markup, verdict
from xsite.reports.folder import load_study
from xsite.reports.study import SECTIONS, write_report
from xsite.signals.positions import template_positions

HABITS = {  # site: channels dropped, repetition time, share of the truth that each model knows
    "north": (0, 2.1, {"neurobolt": 0.9, "ridge": 1.6}),
    "south-2": (3, 1.5, {"neurobolt": 0.8, "ridge": 1.2}),
    "west": (5, 2.5, {"neurobolt": 0.5, "ridge": 1.0}),
}


def descend(recordings, rng, epochs=9):
    """Losses of a linear readout of band power on true data: curves that somebody has really trained."""
    x, y = [], []
    for recording in recordings:
        starts = np.round(recording.volume_onsets * recording.sfreq).astype(int) - 1600
        power = [np.log(recording.eeg[-4:, s : s + 800].std(1)) for s in starts]
        x.append(np.array(power) - np.mean(power, axis=0))
        y.append(recording.bold)
    n_val = len(x) // 3
    (x_val, y_val), (x, y) = (
        (np.concatenate(part), np.concatenate(other))
        for part, other in ((x[:n_val], y[:n_val]), (x[n_val:], y[n_val:]))
    )
    weights = rng.normal(0, 1, (x.shape[1], y.shape[1]))
    for epoch in range(epochs):
        losses = [float(np.mean((a @ weights - b) ** 2)) for a, b in ((x, y), (x_val, y_val))]
        yield {"epoch": epoch, "train_loss": losses[0], "val_loss": losses[1], "lr": 0.5, "seconds": 0.1}
        weights -= 0.5 * x.T @ (x @ weights - y) / len(x)


def make_study(folder, make_recording, rng, *, n_subjects=3, n_parcels=4, n_volumes=80, controls=True):
    """Write what a finished study leaves behind; models are the truth plus noise, everything else is evaluated."""
    recordings, predictions = [], []
    for site, (_, t_r, share) in HABITS.items():
        for subject in range(1, n_subjects + 1):
            recording = make_recording(site, f"{subject:02d}", n_volumes=n_volumes, t_r=t_r, n_parcels=n_parcels)
            recordings.append(recording)
            noise = rng.normal(size=(3, *recording.bold.shape))
            truth = recording.bold + 0.3 * noise[0]
            said = {name: (known * truth + noise[1], False) for name, known in share.items()}
            said |= {"zero": (np.zeros_like(truth), False), ORACLE: (truth, False)}
            found = [(name, control, values) for name, (values, control) in said.items()]
            found += [("neurobolt", True, noise[2])] * controls
            valid_V = recording.volume_valid.copy()
            valid_V[:5] = False
            predictions += [Prediction(recording.key, n, c, p, recording.bold, valid_V) for n, c, p in found]
    return write_study(folder, recordings, predictions, rng, controls=controls)


def write_study(folder, recordings, predictions, rng, *, controls):
    folder.mkdir(exist_ok=True)
    labels = [f"parcel {i} <{'LR'[i % 2]}>" for i in range(recordings[0].bold.shape[1])]
    rows = [{**vars(r.key), "t_r": r.t_r, "n_volumes": r.n_volumes} for r in recordings]
    manifest = pd.DataFrame(rows)
    recipe = {"name": "demo & more", "surrogates": 99, "controls": ["neurobolt"] * controls}
    experiment = parse_experiment(recipe, "test")
    signals = {r.key: r.global_signal for r in recordings}
    scores = score_predictions(predictions, parcels=labels, global_signals=signals)
    summary = study_summary(scores, predictions, model="neurobolt", rivals=("zero", "ridge"), surrogates=99, seed=0)
    folds = leave_one_site_out(manifest, val_fraction=0.25, seed=0)
    histories = []
    for fold in folds:
        mine = [r for r in recordings if r.key.site != fold.held_out]
        histories += [
            {"held_out": fold.held_out, "model": "neurobolt", "control": False} | h for h in descend(mine, rng)
        ]
    final = {"held_out": "final", "model": "neurobolt", "control": False}
    histories += [final | epoch | {"val_loss": np.nan} for epoch in descend(recordings, rng, epochs=4)]
    montages = {}
    for r in recordings:
        dropped = HABITS[r.key.site][0]
        names, places = r.ch_names[dropped:], r.montage.positions[dropped:].tolist()
        montages[r.key.site] = {"ch_names": list(names), "positions": places}
    coords = rng.uniform([-60, -90, -30], [60, 60, 70], (len(labels), 3)).round(1).tolist()
    experiment.to_yaml(folder / "experiment.yaml")
    manifest.to_parquet(folder / "manifest.parquet")
    scores.to_parquet(folder / "scores.parquet")
    pd.DataFrame(histories).to_parquet(folder / "histories.parquet")
    save_predictions(folder / "predictions.npz", predictions)
    content = {
        "summary": summary,
        "folds": [fold.to_dict() for fold in folds],
        "versions": {"numpy": np.__version__, "pandas": pd.__version__},
        "montages": montages,
        "parcels": {"name": "test", "labels": labels, "coords": coords},
    }
    for name, value in content.items():
        (folder / f"{name}.json").write_text(json.dumps(value, allow_nan=False))
    return folder


class Reader(html.parser.HTMLParser):
    """Text of the page, its ids, and elements that were opened and not closed."""

    VOID = ("meta", "img", "br", "hr", "link")

    def __init__(self, page):
        super().__init__()
        self.words, self.ids, self.open, self.images = [], [], [], 0
        self.feed(page)

    def handle_starttag(self, name, attributes):
        self.ids += [value for key, value in attributes if key == "id"]
        self.images += name in ("svg", "img") and "aria-hidden" not in dict(attributes)
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    return tmp_path_factory.mktemp("once") / "study"


@pytest.fixture
def study_dir(once, tmp_path, make_recording, rng):
    """A fresh copy of one finished study."""
    if not once.exists():
        make_study(once, make_recording, rng)
    return Path(shutil.copytree(once, tmp_path / "study", ignore=shutil.ignore_patterns("report.html")))


@pytest.fixture
def page(study_dir, once):
    """Its page, drawn once for all tests that only read it."""
    if not (once / "report.html").exists():
        write_report(once)
    return (once / "report.html").read_text(encoding="utf-8")


def test_page_stands_on_its_own(study_dir):
    open_before = plt.get_fignums()
    path = write_report(study_dir)
    assert plt.get_fignums() == open_before  # no figure is left to pyplot
    assert path == study_dir / "report.html"
    assert not list(study_dir.glob("*.partial"))
    page = path.read_text(encoding="utf-8")
    assert len(page) < 5_000_000
    assert not re.search(r"https?://|<script|<link|url\((?!#)|src=\"(?!data:)", page)
    reader = Reader(page)
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page)) <= set(reader.ids)
    # forest, sites, chance, tested, brain (R and partial R), distribution, ranks, series, electrodes, training
    assert reader.images == 11
    absent = {"gap", "matrix", "growing", "calibration", "leakage"}  # this study has nothing to say there
    for anchor, _, title, _ in SECTIONS:
        assert (anchor in reader.ids) is (anchor not in absent)
        assert (title in reader.text) is (anchor not in absent)


def test_page_says_that_ridge_wins_first(study_dir, page):
    reader = Reader(page)
    study = load_study(study_dir)
    first = reader.text.index("Ridge beats NeuroBOLT")
    assert first < reader.text.index("Scores at each held-out site")
    pair = next(p for p in study.summary["comparison"] if p["b"] == "ridge" and p["site"] == "all")
    assert pair["difference"] < 0
    assert markup.number(pair["difference"], sign=True) in reader.text
    for site in HABITS:
        assert site in reader.text
    for words in ("train-site-val", "Few sites: 3", "Access to the test site: none", "9 subjects, 9 recordings"):
        assert words in reader.text
    assert "Final model, all sites" in reader.text
    assert re.search(r"Control, trained on other subjects' BOLD: NeuroBOLT .* its 95 % band of chance", reader.text)


def test_every_subject_is_on_the_page(study_dir, page):
    scores = pd.read_parquet(study_dir / "scores.parquet")
    for model in ("neurobolt", "ridge", ORACLE):
        for _, row in scores[(scores["model"] == model) & ~scores["control"]].iterrows():
            assert f"<title>{row['subject']}: {markup.number(row['r'])}</title>" in page
    assert "parcel 0 &lt;L&gt;" in page
    assert "<L>" not in page


def test_page_does_without_what_is_not_there(study_dir):
    for name in ("histories.parquet", "montages.json", "parcels.json", "versions.json"):
        (study_dir / name).unlink()
    (study_dir / "summary.json").write_text(json.dumps({"rows": load_study(study_dir).summary["rows"]}))
    reader = Reader(write_report(study_dir).read_text(encoding="utf-8"))
    assert "no MNI coordinates are known" in reader.text
    assert "holds no montages.json" in reader.text
    assert "fitted in closed form" in reader.text
    assert "Ridge beats NeuroBOLT" in reader.text


def test_an_incomplete_study_names_all_that_is_missing(study_dir):
    (study_dir / "scores.parquet").unlink()
    (study_dir / "folds.json").unlink()
    with pytest.raises(FormatError, match=r"lacks scores\.parquet, folds\.json"):
        write_report(study_dir)
    assert not (study_dir / "report.html").exists()


@pytest.mark.parametrize("name", ["summary.json", "scores.parquet", "experiment.yaml"])
def test_a_damaged_file_is_named(study_dir, name):
    (study_dir / name).write_text("{ [")
    with pytest.raises(FormatError, match=re.escape(name)):
        write_report(study_dir)


def test_study_of_baselines_only(tmp_path, make_recording, rng):
    folder = make_study(tmp_path / "study", make_recording, rng, n_subjects=2, n_parcels=2, controls=False)
    table = pd.read_parquet(folder / "scores.parquet")
    table[table["model"] != "neurobolt"].to_parquet(folder / "scores.parquet")
    (folder / "histories.parquet").unlink()
    reader = Reader(write_report(folder).read_text(encoding="utf-8"))
    assert "Ridge reaches a mean R" in reader.text
    assert "Control: none was run" in reader.text


def test_verdict_turns_with_the_figures(study_dir):
    study = load_study(study_dir)
    swapped = study_summary(study.scores, study.predictions, model="ridge", rivals=("neurobolt",), surrogates=9)
    tone, title, _ = verdict.headline(swapped, "ridge")
    assert title.startswith("Ridge")
    assert tone in ("good", "open")
    tone, title, _ = verdict.headline(study.summary, "zero")
    assert (tone, title) == ("bad", "Zero has no score")
    assert verdict.rival_of("ridge", study.summary) == "neurobolt"


def test_head_sphere_follows_the_cap(rng):
    directions = rng.normal(size=(32, 3))
    directions[:, 2] = np.abs(directions[:, 2])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    centre = np.array([0.001, 0.008, 0.041])
    np.testing.assert_allclose(anatomy.head_sphere(centre + 0.093 * directions), [*centre, 0.093])
    unplaced = np.vstack([centre + 0.093 * directions, np.full((2, 3), np.nan)])  # O9 and O10 of ds003574
    np.testing.assert_allclose(anatomy.head_sphere(unplaced), [*centre, 0.093])
    assert anatomy.head_sphere(directions[:3]) == (0.0, 0.0, 0.0, 0.095)  # too few
    assert anatomy.head_sphere(1000 * directions) == (0.0, 0.0, 0.0, 0.095)  # millimetres, or worse


def test_electrodes_without_position_are_named(study_dir):
    montages = json.loads((study_dir / "montages.json").read_text())
    montages["west"]["positions"][2] = [None, None, None]
    (study_dir / "montages.json").write_text(json.dumps(montages))
    text = Reader(write_report(study_dir).read_text(encoding="utf-8")).text
    assert f"west: no position for {montages['west']['ch_names'][2]}" in text


def test_numbers_are_written_as_readers_expect():
    assert markup.number(-0.1234) == "−0.12"
    assert markup.number(0.5, sign=True) == "+0.50"
    assert markup.number(None) == markup.number(float("nan")) == "–"
    assert markup.interval(-0.1, 0.2, sign=True) == "[−0.10, +0.20]"
    assert verdict.p_value(1 / 1001, 1000) == "0.001"
    assert markup.tag("td", "<b>", title='"') == '<td title="&quot;">&lt;b&gt;</td>'


def test_canonical_montage_is_drawn_with_what_is_recorded_filled_in_and_masked(study_dir):
    recipe = yaml.safe_load((study_dir / "experiment.yaml").read_text())
    recipe["data"] |= {"channels": "spline", "montage": []}
    (study_dir / "experiment.yaml").write_text(yaml.safe_dump(recipe))
    names = ["Fp1", "Fp2", "F3", "F4", "F7", "F8", "Fz", "C3", "C4", "Cz", "X9"]
    montages = json.loads((study_dir / "montages.json").read_text())
    places = [*template_positions(names[:-1]).tolist(), [None] * 3]
    montages["west"] = {"ch_names": names, "positions": places}
    (study_dir / "montages.json").write_text(json.dumps(montages))
    text = Reader(write_report(study_dir).read_text(encoding="utf-8")).text
    assert "ring: filled in by spherical splines" in text
    assert "west does not help with X9 (no position)" in text
    chart, plans = anatomy.canonical_layouts(montages)
    titles = {ax.get_title() for ax in chart.axes}
    assert any(title.startswith("west  10 recorded, ") and title.endswith(" masked") for title in titles)
    assert not plans["west"].usable_D[CANONICAL.index("Oz")]
