"""Score a registered model, run or checkpoint on any store, without training.

neurobolt evaluate models:/neurobolt@challenger --store store
neurobolt evaluate studies/demo/final --store s3://bucket/store --sites newsite --out evaluation
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jobs.cli import run_job, write_output
from jobs.opened import Opened, open_model
from xsite.data.manifest import check_one_parcellation, read_manifest
from xsite.data.store import read_recording
from xsite.data.windows import window_starts
from xsite.errors import ParcellationError, StoreError
from xsite.evaluation.folds import ENTITIES
from xsite.evaluation.scoring import ORACLE, Prediction, save_predictions, score_predictions
from xsite.evaluation.tables import study_summary
from xsite.learning.adaptation import UNLABELLED, access_level, reads_whole_recording
from xsite.learning.predict import predict_recording
from xsite.learning.targets import TargetSpec, select_parcels, unseen_global_signal, unseen_target
from xsite.recording import Float, RecordingKey


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        prog="neurobolt evaluate",
        description=(__doc__ or "").splitlines()[0],
        epilog="Example: neurobolt evaluate models:/neurobolt@challenger --store store --sites newsite --out scores",
    )
    p.add_argument("model", help="models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID or a checkpoint folder")
    p.add_argument("--store", required=True, help="shared-format store: folder or URL (neurobolt ingest)")
    p.add_argument("--sites", nargs="+", default=[], help="sites to score (default: all)")
    p.add_argument("--out", help="folder for scores.parquet, summary.json and predictions.npz")
    p.add_argument("--tracking", help="MLflow URI or folder (default: MLFLOW_TRACKING_URI, else studies/mlflow)")
    p.add_argument("--surrogates", type=int, default=1000, help="phase-randomised surrogates (default: 1000)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Predict every recording, score it like a study does, print one line per site."""
    args = parser().parse_args(argv)
    opened = open_model(args.model, args.tracking)
    manifest = chosen(read_manifest(args.store), args.sites, args.store)
    check_parcels(manifest, opened, args.store)
    name = str(opened.config["model"]["name"])
    predictions, signals = predict_all(args.store, manifest, opened, name)
    scores = score_predictions(predictions, parcels=opened.config["parcels"], global_signals=signals)
    summary = study_summary(scores, predictions, model=name, surrogates=args.surrogates)
    seen = seen_sites(opened, manifest)
    summary |= {"evaluated": args.model, "weights_sha256": opened.weights_sha256, "seen_in_training": seen}
    adapt = opened.config["experiment"]["data"].get("adapt", "none")
    level = "none known" if adapt == "none" else access_level(adapt)
    level = UNLABELLED if reads_whole_recording(opened.model) else level
    summary["test_site_access"] = "trained on" if seen else level
    print_rows(summary["rows"], seen)
    if args.out:
        out, table = Path(args.out), io.BytesIO()
        scores.to_parquet(table, index=False)
        write_output(out / "scores.parquet", table.getvalue())
        save_predictions(out / "predictions.npz", predictions)
        write_output(out / "summary.json", json.dumps(summary, indent=1).encode())
        print(f"scores in {out}")
    return 0


def chosen(manifest: pd.DataFrame, sites: Sequence[str], store: str) -> pd.DataFrame:
    """Recordings of the asked sites that are not excluded."""
    unknown = sorted(set(sites) - set(manifest["site"]))
    if unknown:
        raise StoreError(f"{store}: no site {', '.join(unknown)}; it holds {', '.join(sorted(set(manifest['site'])))}")
    kept = manifest[~manifest["excluded"].astype(bool)]
    kept = kept[kept["site"].isin(sites)] if sites else kept
    if kept.empty:
        raise StoreError(
            f"{store}: every recording that was asked for is excluded (see the manifest's column 'reason')"
        )
    return kept


def check_parcels(manifest: pd.DataFrame, opened: Opened, store: str) -> None:
    """Refuse a store whose parcels are not the model's."""
    check_one_parcellation(manifest)
    row, own = manifest.iloc[0], opened.config.get("parcellation", {})
    absent = [parcel for parcel in opened.config["parcels"] if parcel not in json.loads(row["parcels"])]
    found = str(row["parcellation_sha256"])
    if absent or own.get("sha256", found) != found:
        raise ParcellationError(
            f"{store}: parcellation {row['parcellation_name']} (sha256 {found[:12]}) is not the model's"
            f" {own.get('name')} (sha256 {str(own.get('sha256'))[:12]}); ingest the store with the model's atlas"
        )


def predict_all(
    store: str, manifest: pd.DataFrame, opened: Opened, name: str
) -> tuple[list[Prediction], dict[RecordingKey, Float]]:
    """The model's prediction of every recording, and the oracle's where the truth is known."""
    spec = TargetSpec.from_dict(opened.config["target"])
    predictions: list[Prediction] = []
    signals: dict[RecordingKey, Float] = {}
    for number, row in enumerate(manifest.itertuples(index=False), start=1):
        key = RecordingKey(*(str(getattr(row, entity)) for entity in ENTITIES))
        recording = select_parcels(read_recording(store, key), opened.config["parcels"])
        predicted_VR = predict_recording(opened.model, recording, config=opened.config)
        target_VR = unseen_target(recording, spec)
        valid_V = np.zeros(recording.n_volumes, dtype=bool)  # every model, the oracle too, is judged on the same ones
        valid_V[window_starts(recording, opened.model.window_s)[0]] = True
        predictions.append(Prediction(key, name, False, predicted_VR, target_VR, valid_V))
        if recording.truth is not None:
            oracle_VR = unseen_target(recording, spec, recording.truth)
            predictions.append(Prediction(key, ORACLE, False, oracle_VR, target_VR, valid_V))
        signals[key] = unseen_global_signal(recording, spec)
        print(f"[{number}/{len(manifest)}] {key}", file=sys.stderr, flush=True)
    return predictions, signals


def seen_sites(opened: Opened, manifest: pd.DataFrame) -> list[str]:
    """Sites of the store that the model was, as far as its checkpoint tells, trained on."""
    trained = set(opened.config.get("trained_on") or opened.config["experiment"]["data"]["sites"])
    return sorted((trained - {opened.config.get("held_out")}) & set(manifest["site"]))


def print_rows(rows: Sequence[dict[str, Any]], seen: Sequence[str]) -> None:
    """One line per site."""
    print(f"{'site':<16}{'subjects':>9}{'volumes':>9}{'R':>8}{'oracle':>8}{'MSE':>8}{'p (null)':>10}")
    for row in rows:
        figures = [(row["r_mean"], 8), (row["oracle_r_mean"], 8), (row["mse_mean"], 8), (row["p_null"], 10)]
        cells = "".join(f"{'-' if value is None else format(value, '.3f'):>{width}}" for value, width in figures)
        mark = "  (trained on this site: not a test)" if row["site"] in seen else ""
        print(f"{row['site']:<16}{row['n_subjects']:>9}{row['n_volumes']:>9}{cells}{mark}")


if __name__ == "__main__":
    sys.exit(run_job(main))
