"""Pass a study through the gate and register its final model, with its card, scores and the alias ``challenger``.

    neurobolt register studies/demo
    neurobolt register studies/demo --tracking http://127.0.0.1:5000 --name neurobolt

The alias moves only if the gate passes (or with ``--force``, which is written into the version's tags).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import neurobolt
from jobs.cli import run_job
from jobs.opened import open_checkpoint
from xsite.data.manifest import data_hash
from xsite.errors import TrackingError
from xsite.evaluation.plan import Plan
from xsite.evaluation.selection import RULES, deployable
from xsite.experiment import Experiment, load_experiment
from xsite.reports.folder import check_finished
from xsite.tracking import (
    NOT_DEPLOYABLE,
    Candidate,
    GateReport,
    StudyTracker,
    annotate_run,
    check_study,
    find_study_runs,
    model_card,
    register_version,
    resolve_tracking_uri,
)

FILES = ("experiment.yaml", "summary.json", "manifest.parquet", "versions.json", "final/manifest.json")


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        prog="neurobolt register",
        description=(__doc__ or "").splitlines()[0],
        epilog="Example: neurobolt register studies/demo --tracking studies/mlflow",
    )
    p.add_argument("study", help="folder of a finished study (neurobolt loso)")
    p.add_argument("--tracking", help="MLflow URI or folder (default: MLFLOW_TRACKING_URI, else studies/mlflow)")
    p.add_argument("--name", default="neurobolt", help="name of the registered model (default: neurobolt)")
    p.add_argument("--force", action="store_true", help="move the alias even if the gate fails; noted in the tags")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Gate, card, export check, registry; returns 1 if the gate fails and ``--force`` is not given."""
    args = parser().parse_args(argv)
    study, tracking = Path(args.study), resolve_tracking_uri(args.tracking)
    check_finished(study, FILES)
    experiment = load_experiment(study / "experiment.yaml")
    _refuse_oracles(experiment)
    summary = json.loads((study / "summary.json").read_text(encoding="utf-8"))
    gate = check_study(summary["rows"], experiment.deployed, summary.get("collapsed", ()), summary.get("leakage"))
    print("\n".join(gate.lines))
    run_id = _final_run(tracking, study, experiment)
    candidate = _candidate(study, experiment, summary, gate, forced=args.force)
    annotate_run(tracking, run_id, tags=_gate_tags(gate, args.force), texts={"model_card.md": candidate.card})
    moves = gate.passed or args.force
    version = register_version(
        tracking, candidate, name=args.name, run_id=run_id, alias="challenger" if moves else None
    )
    print(
        f"registered {version.name} version {version.number}; the export repeats the checkpoint to {version.parity:.0e}"
    )
    print(f"tracking   {tracking}")
    if not moves:
        print("the gate failed: the alias 'challenger' was not moved (--force moves it)", file=sys.stderr)
        return 1
    print(f"model      {version.uri}" + ("" if gate.passed else " (FORCED: the gate failed)"))
    return 0


def _refuse_oracles(experiment: Experiment) -> None:
    """Not even ``--force`` registers what needs the test site's BOLD, or a whole recording where a window is served."""
    if experiment.data.adapt != "none":
        raise TrackingError(
            f"data.adapt {experiment.data.adapt!r} aligns a whole recording before its first window is predicted, and "
            "a served model is given windows; use neurobolt predict with the checkpoint's folder, or run the study "
            "with data.adapt: none"
        )
    if experiment.model.name in NOT_DEPLOYABLE:
        raise TrackingError(
            f"{experiment.model.name} is an oracle: it reads the measured BOLD of what it predicts; register a model"
        )
    if not deployable(experiment.select_on):
        raise TrackingError(
            f"selection rule {experiment.select_on!r}: {RULES[experiment.select_on]}. Its models cannot be registered; "
            "run the study with select_on: train-site-val or leave-one-site-out-val"
        )


def _final_run(tracking: str, study: Path, experiment: Experiment) -> str:
    """Id of the final model's run; a study that was run without this store gets its runs now."""
    digest = data_hash(pd.read_parquet(study / "manifest.parquet"))
    plan = tracking, experiment.name, experiment.fingerprint, digest
    if "final" not in (runs := find_study_runs(*plan)):
        tags = {"data_hash": digest, "registered_later": "true"}
        with StudyTracker(tracking, experiment.name, spool=study / "tracking_spool.jsonl") as tracker:
            tracker.start(experiment.flat(), fingerprint=experiment.fingerprint, tags=tags)
            tracker.fold(None)
        runs = find_study_runs(*plan)
    if "final" not in runs:
        raise TrackingError(f"MLflow at {tracking} did not take the runs of {study}; run the same command again")
    return runs["final"]


def _candidate(
    study: Path, experiment: Experiment, summary: dict[str, Any], gate: GateReport, *, forced: bool
) -> Candidate:
    opened = open_checkpoint(study / "final")
    example_BCT = example_windows(opened.ch_names, opened.n_times)
    versions = json.loads((study / "versions.json").read_text(encoding="utf-8"))
    verdict = "passed" if gate.passed else "FAILED" + (" (alias forced)" if forced else "")
    card = model_card(
        experiment,
        summary,
        pd.read_parquet(study / "manifest.parquet"),
        opened.config,
        versions={name: str(number) for name, number in versions.items() if isinstance(number, str)},
        gate=verdict,
    )
    return Candidate(
        checkpoint=study / "final",
        model_code=Path(__file__).with_name("served_model.py"),
        code_paths=(Path(neurobolt.__file__).parent,),
        example_BCT=example_BCT,
        expected_BR=opened.model.predict(example_BCT, opened.ch_names),
        ch_names=opened.ch_names,
        card=card,
        tags=_score_tags(summary["rows"], experiment) | _fold_tags(study, experiment) | _gate_tags(gate, forced),
    )


def example_windows(ch_names: Sequence[str], n_times: int, n_windows: int = 4) -> NDArray[np.float32]:
    """Seeded synthetic EEG (alpha rhythm in noise, microvolt): an example must not carry a subject's own data."""
    rng = np.random.default_rng(0)
    t = np.arange(n_times) / 200.0
    phase_BC1 = rng.uniform(0, 2 * np.pi, (n_windows, len(ch_names), 1))
    eeg_BCT = rng.normal(0, 8, (n_windows, len(ch_names), n_times)) + 15 * np.sin(2 * np.pi * 10 * t + phase_BC1)
    eeg_BCT -= eeg_BCT.mean(axis=1, keepdims=True)
    return np.asarray(eeg_BCT, dtype=np.float32)


def _score_tags(rows: Sequence[dict[str, Any]], experiment: Experiment) -> dict[str, str]:
    own = [r for r in rows if r["model"] == experiment.deployed and not r["control"]]
    tags = {f"r_{r['site']}": "none" if r["r_mean"] is None else f"{r['r_mean']:.4f}" for r in own}
    measured = [r["r_mean"] or 0.0 for r in own]
    facts = {"scores": "leave-one-site-out, measured on the fold models", "held_out_site": "none"}
    facts |= {"fingerprint": experiment.fingerprint, "selection_rule": experiment.select_on}
    return tags | facts | {"r_mean": f"{sum(measured) / max(len(measured), 1):.4f}"}


def _fold_tags(study: Path, experiment: Experiment) -> dict[str, str]:
    """SHA-256 of the fold models' weights, of every seed: the very models that the scores were measured on."""
    path = study / "plan.json"
    if not path.is_file():  # a study of the time before plans: none of its trainings can be named
        return {}
    plan = Plan.from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    tags = {}
    for run in plan.of("fold"):
        manifest = study / "folds" / run.label / "manifest.json"
        if run.variant == experiment.deployed and manifest.is_file():
            place = run.label.split("/")[0] + ("" if run.seed == experiment.training_seeds[0] else f"-seed{run.seed}")
            files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
            place = re.sub(r"[^\w.-]", "_", place)  # MLflow takes no "=" in a key: field_strength=3
            tags[f"fold_sha256_{place}"] = str(files["model.safetensors"]["sha256"])
    return tags


def _gate_tags(gate: GateReport, forced: bool) -> dict[str, str]:
    tags = {"gate.status": gate.status, "gate.report": "\n".join(gate.lines)}
    tags["collapsed"] = ", ".join(gate.collapsed) or "no"
    return tags | {"gate.forced": str(forced and not gate.passed).lower()}


if __name__ == "__main__":
    sys.exit(run_job(main))
