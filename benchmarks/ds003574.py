"""A real EEG-to-fMRI result through our evaluator: nine sleepers of ds003574, leave one subject out.

::

    python -m benchmarks.ds003574 [FOLDER] [--out OUT] [--surrogates N]

FOLDER holds OpenNeuro ds003574 (its ``derivatives`` suffice). The result and how to read it: docs/real_ds003574.md.
Shape letters: ``V`` volumes, ``P`` features, ``R`` targets.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xsite.errors import FormatError
from xsite.evaluation.compare import paired_tests
from xsite.evaluation.figures import recording_figures
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.tables import study_summary
from xsite.learning.adaptation import UNLABELLED
from xsite.recording import RecordingKey

FOLDER = Path(__file__).parents[2] / "shared/data/real/ds003574"
T_R = 2.1
BANDS = ("SW", "delta", "theta", "alpha", "sigma", "beta")
STATES = ("face", "maze", "prep_face", "pre_maze", "rest")
LAGS = 9  # volumes before and including the scored one: 0 to 16.8 s
ALPHAS = np.logspace(-3, 3, 13)
FLOOR = 1e-6  # probabilities are printed with about six digits
MISMATCHED = ("01", "02", "03")  # number of rows does not fit the number of triggers (shared/design/sites.md)
DRIFT_S = 128.0  # the usual high-pass of fMRI


@dataclass(frozen=True, eq=False)
class Sleeper:
    """One night, volumes that both tables name."""

    subject: str
    power_VP: np.ndarray
    stage_VP: np.ndarray
    target_VR: np.ndarray


def read_table(path: Path) -> pd.DataFrame:
    """Read a tab-separated table in UTF-8 or UTF-16: five of the thirty-six are UTF-16 and do not say so."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error}); fetch OpenNeuro ds003574, derivatives suffice") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return pd.read_csv(io.StringIO(content.decode(encoding)), sep="\t").set_index("num_scan")


def load(folder: Path) -> list[Sleeper]:
    """Join both tables of each sleeper on the scan number, never on the row: one begins at 1, the other at 2."""
    found = []
    for path in sorted((folder / "derivatives").glob("sub-*_decoding-states.tsv")):
        subject = path.name[4:6]
        eeg = read_table(path.with_name(f"sub-{subject}_task-rest_hypnogram-powerspectrum.tsv"))
        both = eeg.join(read_table(path), how="inner").sort_index()
        both = both.reindex(range(int(both.index[0]), int(both.index[-1]) + 1))
        p_VR = both[list(STATES)].to_numpy(float).clip(FLOOR, 1 - FLOOR)
        stage_VP = (both["hypnogram"].to_numpy()[:, None] == np.array([1, 2, 3])).astype(float)
        found.append(Sleeper(subject, both[list(BANDS)].to_numpy(float), stage_VP, np.log(p_VR / (1 - p_VR))))
    if len(found) < 3:
        raise FormatError(f"{folder}: {len(found)} sleepers found; leave-one-subject-out needs three or more")
    return found


def standardised(series: np.ndarray) -> np.ndarray:
    """Mean 0 and SD 1 within the recording; a column that does not move becomes 0."""
    spread = np.nanstd(series, axis=0)
    return (series - np.nanmean(series, axis=0)) / np.where(spread > 1e-9, spread, np.inf)


def without_drift(series: np.ndarray) -> np.ndarray:
    """Remove a mean and cosines slower than :data:`DRIFT_S` (gaps stay gaps)."""
    n = len(series)
    order = int(2 * n * T_R / DRIFT_S)
    basis = np.cos(np.pi * (np.arange(n)[:, None] + 0.5) * np.arange(order + 1) / n)
    rows = np.isfinite(series).all(1)
    weight = np.linalg.lstsq(basis[rows], series[rows], rcond=None)[0]
    return series - basis @ weight


def lagged(series_VP: np.ndarray) -> np.ndarray:
    """Columns at 0 to ``LAGS - 1`` volumes before; volumes without a full past are NaN."""
    parts = [
        np.vstack([np.full((lag, series_VP.shape[1]), np.nan), series_VP[: len(series_VP) - lag]])
        for lag in range(LAGS)
    ]
    return np.hstack(parts)


def drift(sleeper: Sleeper) -> np.ndarray:
    """Elapsed time and its square: what any two slow series of a night share."""
    t = np.linspace(-1, 1, len(sleeper.target_VR))
    return np.column_stack([t, t**2])


INPUTS: dict[str, Callable[[Sleeper], np.ndarray]] = {
    "ridge": lambda sleeper: lagged(sleeper.power_VP),
    "hypnogram": lambda sleeper: lagged(sleeper.stage_VP),
    "elapsed-time": drift,
}
"""Band power with lags; the scored sleep stage with lags; the clock, which knows no EEG."""


def sums(x_VP: np.ndarray, y_VR: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Products of features and targets over volumes that have both, per volume: every night weighs the same."""
    rows = np.isfinite(x_VP).all(1) & np.isfinite(y_VR).all(1)
    x, y = x_VP[rows], y_VR[rows]
    return x.T @ x / len(x), x.T @ y / len(x), float((y**2).mean(0).sum())


def fit_ridge(nights: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Ridge weights (P, R); the strength is chosen by leaving out each training night in turn."""

    def solve(chosen: Sequence[int], alpha: float) -> np.ndarray:
        xx = np.mean([nights[i][0] for i in chosen], axis=0)
        return np.linalg.solve(xx + alpha * np.eye(len(xx)), np.mean([nights[i][1] for i in chosen], axis=0))

    everyone = list(range(len(nights)))
    errors = []
    for alpha in ALPHAS:
        error = 0.0
        for out in everyone:
            w = solve([i for i in everyone if i != out], alpha)
            xx, xy, yy = nights[out]
            error += yy - 2 * float((w * xy).sum()) + float((w * (xx @ w)).sum())
        errors.append(error)
    return solve(everyone, float(ALPHAS[int(np.argmin(errors))]))


def predictions(sleepers: Sequence[Sleeper], *, high_pass: bool) -> list[Prediction]:
    """Each model's prediction of each left-out sleeper, and zero."""
    prepare = without_drift if high_pass else (lambda series: series)
    targets = [standardised(prepare(s.target_VR)) for s in sleepers]
    models = {name: of for name, of in INPUTS.items() if not (high_pass and name == "elapsed-time")}
    said: dict[str, list[np.ndarray]] = {"zero": [np.zeros_like(t) for t in targets]}
    for name, inputs in models.items():
        features = [standardised(prepare(inputs(s))) for s in sleepers]
        nights = [sums(x, y) for x, y in zip(features, targets, strict=True)]
        weights = [fit_ridge(nights[:i] + nights[i + 1 :]) for i in range(len(nights))]
        said[name] = [x @ w for x, w in zip(features, weights, strict=True)]
    found = []
    for i, (sleeper, target_VR) in enumerate(zip(sleepers, targets, strict=True)):
        # everybody is judged on the volumes that the lagged models can answer
        valid_V = np.all([np.isfinite(of[i]).all(1) for of in said.values()], axis=0)
        key = RecordingKey("geneva", sleeper.subject, task="rest")
        found += [Prediction(key, name, False, of[i], target_VR, valid_V) for name, of in said.items()]
    return found


def analyse(sleepers: Sequence[Sleeper], *, high_pass: bool, surrogates: int) -> dict[str, Any]:
    """Scores, further figures and the summary of one analysis."""
    found = predictions(sleepers, high_pass=high_pass)
    scores = score_predictions(found, parcels=STATES)
    figures = recording_figures(found, STATES, T_R)
    rivals = [name for name in ("hypnogram", "elapsed-time", "zero") if name in set(scores["model"])]
    summary = study_summary(
        scores,
        found,
        model="ridge",
        rivals=rivals,
        surrogates=surrogates,
        selection="leave-one-subject-out-val",
        access=UNLABELLED,  # features are z-scored over the whole night
        figures=figures,
        crossed={p.key.site for p in found},  # every sleeper trains the models that are tested at all others
    )
    tests = [paired_tests(scores, "ridge", rival) for rival in rivals if rival != "zero"]
    return {"predictions": found, "scores": scores, "figures": figures, "summary": summary, "tests": pd.concat(tests)}


def report(title: str, result: Mapping[str, Any]) -> list[str]:
    """The tables of one analysis as Markdown lines."""
    summary, figures = result["summary"], {row["model"]: row for row in result["summary"]["figures"]}
    lines = [f"### {title}", "", "| model | n | mean R | 95 % interval | R2 | p phase | p shift | N_eff | lag, s |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for row in summary["rows"]:
        extra = figures[row["model"]]
        cells = [
            row["model"],
            str(row["n_subjects"]),
            number(row["r_mean"]),
            f"{number(row['ci_low'])} to {number(row['ci_high'])}",
        ]
        cells += [number(row["r2_mean"]), f"{row['p_null']:.4f}", f"{row['p_shift']:.4f}"]
        cells += [number(extra["n_effective"], 0), number(extra["lag_s"], 1)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| target | mean R | p phase | p Holm | p max |", "|---|---|---|---|---|"]
    for row in summary["parcels"]:
        if row["model"] == "ridge":
            cells = [row["parcel"], number(row["r_mean"])] + [f"{row[p]:.4f}" for p in ("p_null", "p_holm", "p_max")]
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| ridge minus | difference of R | n | p (sign flip) |", "|---|---|---|---|"]
    for test in result["tests"][result["tests"]["parcel"] == "all"].to_dict("records"):
        lines.append(f"| {test['b']} | {test['difference']:+.3f} | {test['n']} | {test['p']:.4f} |")
    own = result["scores"][result["scores"]["model"] == "ridge"].groupby("subject")["r"].mean()
    per_subject = ", ".join(f"sub-{subject} {r:.3f}" for subject, r in own.items())
    return [*lines, "", f"Ridge per sleeper: {per_subject}.", ""]


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """R of each sleeper and target, and one night: measured and predicted."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), gridspec_kw={"width_ratios": [1, 1.6]})
    models = [name for name in dict.fromkeys(result["scores"]["model"]) if name != "zero"]
    for i, model in enumerate(models):
        r = result["scores"][result["scores"]["model"] == model].groupby("subject")["r"].mean()
        left.plot(np.full(len(r), i) + np.linspace(-0.15, 0.15, len(r)), r, "o", alpha=0.7)
        left.hlines(r.mean(), i - 0.25, i + 0.25, color="black")
    left.axhline(0, color="grey", linewidth=0.8)
    left.set(
        xticks=range(len(models)), xticklabels=models, ylabel="R, mean over five targets", title="One dot per sleeper"
    )
    night = next(p for p in result["predictions"] if p.model == "ridge" and p.key.subject == "05")
    hours = np.arange(len(night.target_VR)) * T_R / 3600
    rest = STATES.index("rest")
    for series, name in (
        (night.target_VR[:, rest], "fMRI-decoded"),
        (night.predicted_VR[:, rest], "predicted from EEG"),
    ):
        right.plot(hours, pd.Series(series).rolling(15, center=True).mean(), label=name, linewidth=1)
    right.set(xlabel="hours", ylabel="log odds of rest, z", title="sub-05, unseen, 31 s running mean")
    right.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Print both analyses, with and without slow drift; ``--out`` keeps tables and the figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ds003574", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--out", type=Path, help="folder for tables, summary and figure")
    parser.add_argument("--surrogates", type=int, default=999)
    args = parser.parse_args(argv)
    sleepers = load(args.folder)
    fitting = [s for s in sleepers if s.subject not in MISMATCHED]
    analyses = {
        "As published, nothing removed": analyse(sleepers, high_pass=False, surrogates=args.surrogates),
        "Slower than 128 s removed": analyse(sleepers, high_pass=True, surrogates=args.surrogates),
        "Slower than 128 s removed, six sleepers whose tables fit the triggers": analyse(
            fitting, high_pass=True, surrogates=args.surrogates
        ),
    }
    n_volumes = sum(len(s.target_VR) for s in sleepers)
    print(f"ds003574: {len(sleepers)} sleepers, {n_volumes} volumes, {args.surrogates} surrogates\n")
    for title, result in analyses.items():
        print("\n".join(report(title, result)))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for i, result in enumerate(analyses.values()):
            result["scores"].to_csv(args.out / f"scores-{i}.csv", index=False)
            result["figures"].to_csv(args.out / f"figures-{i}.csv", index=False)
            (args.out / f"summary-{i}.json").write_text(json.dumps(result["summary"], indent=1))
        draw(args.out / "real_ds003574.png", analyses["As published, nothing removed"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
