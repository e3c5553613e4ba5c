"""Folds that train on one another's test subjects scatter together: within a site as well as between sites."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.signal import butter, sosfiltfilt

from xsite.evaluation.nulls import surrogate_p
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.splits import make_folds
from xsite.evaluation.surrogates import FOLD_DEPENDENCE, crossed_sites, over_folds, study_nulls
from xsite.evaluation.tables import study_summary
from xsite.experiment_parts import Folds
from xsite.recording import Float, RecordingKey

SITES = ("a", "b", "c")
SEED = 4  # one whose score lies well off the middle of its null
LOW_PASS = butter(3, 0.15, fs=1 / 2.1, output="sos")


@pytest.fixture
def manifest() -> pd.DataFrame:
    rows = [(site, f"{n:02d}", "", "rest", "", 600, 2.0) for site in SITES for n in range(4)]
    columns = ["site", "subject", "session", "task", "run", "n_volumes", "t_r"]
    return pd.DataFrame(rows, columns=columns).assign(scanner=["y" if row[0] == "c" else "x" for row in rows])


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ({"scheme": "leave-one-site-out"}, ()),
        ({"scheme": "leave-one-out", "column": "scanner"}, ()),
        ({"scheme": "site-to-site"}, ()),
        ({"scheme": "growing-sites"}, ()),
        ({"scheme": "within-recording"}, ()),
        ({"scheme": "leave-one-subject-out"}, SITES),
        ({"scheme": "k-fold", "n_folds": 3}, SITES),
    ],
)
def test_which_sites_have_folds_that_are_tied(manifest, scheme, expected) -> None:
    assert crossed_sites(make_folds(manifest, Folds(**scheme), seed=0)) == frozenset(expected)


def unrelated(seed: int, n_subjects: int) -> list[Prediction]:
    """One site, unrelated EEG and BOLD, ridge trained on the other subjects: leave one subject out."""
    rng = np.random.default_rng(seed)

    def smooth(n: int) -> Float:
        series = sosfiltfilt(LOW_PASS, rng.normal(size=(120, n)), axis=0)
        return np.asarray((series - series.mean(0)) / series.std(0))

    x, y = ([smooth(n) for _ in range(n_subjects)] for n in (20, 1))
    found = []
    for i in range(n_subjects):
        rest = [j for j in range(n_subjects) if j != i]
        gram = sum(x[j].T @ x[j] for j in rest) + 240 * np.eye(20)
        weight = np.linalg.solve(gram, sum(x[j].T @ y[j] for j in rest))
        key = RecordingKey("one", f"{i:02d}")
        found.append(Prediction(key, "ridge", False, x[i] @ weight, y[i], np.ones(120, bool)))
    return found


def test_a_tied_site_has_the_wider_null_in_every_table() -> None:
    found = unrelated(SEED, 5)
    scores = score_predictions(found, parcels=("p",))
    tables = [study_summary(scores, found, model="ridge", surrogates=199, crossed=c) for c in ((), ("one",))]
    for name, key in (("rows", "p_null"), ("rows", "p_shift"), ("overall", "p_null"), ("parcels", "p_null")):
        drawn, wide = (table[name][0][key] for table in tables)
        assert abs(wide - 0.5) < abs(drawn - 0.5), (name, key)  # nearer to the middle than the same score was
    for name in ("overall", "intervals"):
        drawn, wide = (table[name][0]["null_high"] - table[name][0]["null_low"] for table in tables)
        assert wide == pytest.approx(FOLD_DEPENDENCE * drawn)
    drawn, wide = ({(h["site"], h["kind"]): h["sd"] for h in table["nulls"]} for table in tables)
    assert set(drawn) == {(site, kind) for site in ("one", "all") for kind in ("phase", "shift")}
    assert all(wide[place] == pytest.approx(FOLD_DEPENDENCE * sd) for place, sd in drawn.items())
    assert [table["crossed_sites"] for table in tables] == [[], ["one"]]


@pytest.mark.slow
def test_leave_one_subject_out_at_one_site_finds_nothing_in_nothing() -> None:
    """300 null studies of nine subjects: without the wider null 8 to 12 % lie below .05."""
    z, p = [], []
    for seed in range(300):
        found = unrelated(seed, 9)
        null_N = study_nulls(found, surrogates=199, seed=seed).means["one", "ridge", False]
        mean = float(score_predictions(found, parcels=("p",))["r"].mean())
        z.append((mean - null_N.mean()) / null_N.std())
        p.append([surrogate_p(mean, over_folds([null_N], crossed=tied)) for tied in (False, True)])
    drawn, wide = (np.array(p) <= 0.05).mean(0)
    assert 1.2 < np.std(z) < 1.6
    assert drawn > 0.07
    assert wide <= 0.05 + 1.64 * np.sqrt(0.05 * 0.95 / 300)
