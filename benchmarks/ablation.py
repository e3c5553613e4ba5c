"""What each part of neurobolt-x is worth: ``python -m benchmarks.ablation easy --seeds 0 1 --out easy.json``.

One held-out site, looked at once per training: weights are kept at the epoch with the lowest error on validation
subjects of the training sites. Every row is scored on the same volumes, those with 24 s of EEG before them, so that
longer windows can be compared (``--options '{"window_s": 24}'``).
Data: ``easy`` and ``realistic`` phantoms, or ``real-bold`` (real targets, simulated EEG). Shapes: ``V`` volumes,
``R`` parcels.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.real_bold import simulate_around_bold
from neurobolt import NeuroBOLT, NeuroBOLTConfig, Ridge
from neurobolt.baselines import EegRecording
from neurobolt.x import NeuroBOLTX, NeuroBOLTXConfig
from xsite.data.harmonize import harmonize_eeg, target_scale
from xsite.data.montages import common_channels
from xsite.data.window_source import WindowSource
from xsite.data.windows import build_source, window_starts
from xsite.experiment_parts import Channels, Optim
from xsite.learning.algorithms.erm import ERM
from xsite.learning.loop import fit
from xsite.learning.seeds import seed_everything
from xsite.learning.targets import TargetSpec, median_scale, training_target, unseen_target
from xsite.phantom.in_memory import simulate_recordings
from xsite.recording import Recording

Sides = dict[str, list[Recording]]

# what is switched off in turn, and what the plain model is without; one at a time is added to the plain model
SWITCHES: dict[str, dict[str, Any]] = {
    "positions": {"positions": False},
    "haemodynamic kernel": {"haemodynamic": False},
    "log power": {"log_power": False},
    "recording norm": {"recording_norm": False},
    "spatial filters": {"n_filters": 0},
}
OPTIM = Optim(lr=3e-3, weight_decay=3.0, batch_size=64, epochs=8, warmup_epochs=0.5, clip=1.0, patience=4)
NEUROBOLT_OPTIM = Optim(
    lr=3e-3, weight_decay=0.3, batch_size=16, epochs=7, warmup_epochs=1, windows_per_epoch=1536, patience=4, clip=1.0
)


def dealt(name: str, seed: int, shared: Path) -> Sides:
    """Training, validation and held-out recordings: the last subject of each training site validates."""
    if name == "real-bold":
        recordings = simulate_around_bold(shared / "data/vu_rest_roi/train_val.npz", seed=seed, max_subjects=9)
    else:
        recordings = simulate_recordings(3, 4, name, seed, n_volumes=150)
    sites = sorted({r.key.site for r in recordings})
    held_out = sites[seed % len(sites)]
    last = {site: max(r.key.subject for r in recordings if r.key.site == site) for site in sites}
    sides: Sides = {"train": [], "val": [], "test": []}
    for r in recordings:
        side = "test" if r.key.site == held_out else "val" if r.key.subject == last[r.key.site] else "train"
        sides[side].append(r)
    return sides


class Cached(NamedTuple):
    """A batch whose EEG has become cross-spectra."""

    cross_BFLCC: Tensor
    ch_index_BC: Tensor
    position_BC3: Tensor
    t_r_B: Tensor
    statistics_BCS: Tensor


class CachedWindows:
    """All windows of a source as cross-spectra in float16: nothing in them is learned, so they are made once."""

    def __init__(self, source: WindowSource, cross_WFLCC: Tensor) -> None:
        self.source, self.cross_WFLCC = source, cross_WFLCC

    def __len__(self) -> int:
        return len(self.source)

    def gather(self, index_B: Any) -> tuple[Cached, Tensor, Tensor]:
        """Batch, target and mask of the windows ``index_B``."""
        source, index_B = self.source, torch.as_tensor(index_B)
        n, row_B = source.recording_W[index_B], source.row_W[index_B]
        facts = (source.ch_index_NC[n], source.position_NC3[n], source.t_r_N[n], source.statistics_NCS[n])
        batch = Cached(self.cross_WFLCC[index_B].float(), *facts)
        return batch, source.target_VR[row_B], source.mask_VR[row_B]


class OnBins(nn.Module):
    """neurobolt-x from cached cross-spectra."""

    def __init__(self, model: NeuroBOLTX) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Cached) -> Tensor:
        """BOLD (B, R)."""
        return self.model.head(self.model.represent(batch.cross_BFLCC, batch))

    def param_groups(self, *args: Any) -> list[dict[str, Any]]:
        """Those of the model."""
        return self.model.param_groups(*args)


class Study:
    """One data set: targets, channels and sources, made once for all rows that share a window's length."""

    def __init__(self, sides: Sides, channels: Channels, n_chans: int) -> None:
        self.sides, self.channels = sides, channels
        scale_R = median_scale([target_scale(r.bold, r.t_r, valid_V=r.volume_valid) for r in sides["train"]])
        self.spec = TargetSpec("strict", 0.15, scale_R)
        common = common_channels([r.ch_names for side in sides.values() for r in side])
        spread = np.linspace(0, len(common) - 1, min(n_chans, len(common))).round().astype(int)
        self.common = tuple(common[i] for i in spread)
        self.own = tuple(dict.fromkeys(n for r in sides["train"] + sides["val"] for n in r.ch_names))
        self.cross: dict[Any, Tensor] = {}

    def target(self, side: str, r: Recording) -> NDArray[np.float32]:
        """Target of a recording; volumes without 24 s of EEG before them never count."""
        target_VR = training_target(r, self.spec) if side == "train" else unseen_target(r, self.spec)
        counted_V = np.zeros(r.n_volumes, bool)
        counted_V[window_starts(r, 24.0)[0]] = True
        return np.where(counted_V[:, None], target_VR, np.nan).astype(np.float32)

    def source(self, side: str, model: Any) -> WindowSource:
        """Windows of one side."""
        names = {r.key: self._names(r, model) for r in self.sides[side]}
        recordings = [_only(r, names[r.key]) for r in self.sides[side]]
        return build_source(
            recordings,
            ch_names=None if self.channels == "native" else self.common,
            ch_index=model.channel_index,
            targets=[self.target(side, r) for r in recordings],
            window_s=model.window_s,
            channels=self.channels,
            statistics=getattr(model, "recording_statistics", None),
        )

    def _names(self, r: Recording, model: Any) -> tuple[str, ...]:
        if self.channels != "native":
            return r.ch_names
        anywhere = isinstance(model, NeuroBOLTX) and model.config.positions
        return tuple(n for n in r.ch_names if anywhere or n in model.ch_names)

    def cached(self, model: NeuroBOLTX) -> dict[str, CachedWindows]:
        """Sources of all sides as cross-spectra; these depend on the window's length and the channels only."""
        found = {}
        for side in self.sides:
            source = self.source(side, model)
            key = (side, model.window_s, model.config.positions and self.channels == "native")
            if key not in self.cross:
                pieces = np.array_split(np.arange(len(source)), max(1, len(source) // 64))
                self.cross[key] = torch.cat([model.bins(source.gather(index)[0]).half() for index in pieces])
            found[side] = CachedWindows(source, self.cross[key])
        return found

    def mean_r(self, side: str, predicted: Sequence[NDArray[np.floating[Any]]]) -> float:
        """R per recording and parcel, averaged over parcels, recordings in turn."""
        rows = [_r(p, self.target(side, r)) for p, r in zip(predicted, self.sides[side], strict=True)]
        return float(np.mean([np.nanmean(row) for row in rows]))


def _only(r: Recording, names: Sequence[str]) -> Recording:
    if tuple(names) == r.ch_names:
        return r
    rows = [r.ch_names.index(n) for n in names]
    return replace(
        r, montage=replace(r.montage, ch_names=tuple(names), positions=r.montage.positions[rows]), eeg=r.eeg[rows]
    )


def _r(predicted_VR: NDArray[np.floating[Any]], target_VR: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        both = np.isfinite(predicted_VR) & np.isfinite(target_VR)
        rows = []
        for p, t, ok in zip(predicted_VR.T, target_VR.T, both.T, strict=True):
            rows.append(np.corrcoef(p[ok], t[ok])[0, 1] if ok.sum() > 2 else np.nan)
    return np.array(rows)


def train_x(study: Study, options: dict[str, Any], seed: int, optim: Optim = OPTIM) -> dict[str, float]:
    """Train neurobolt-x with some options; mean R on validation subjects and at the held-out site."""
    n_outputs = study.sides["train"][0].bold.shape[1]
    seed_everything(seed)
    ch_names = study.own if study.channels == "native" else study.common
    model = NeuroBOLTX(NeuroBOLTXConfig(ch_names=ch_names, n_outputs=n_outputs, **options))
    windows, started = study.cached(model), time.process_time()
    on_bins = OnBins(model)
    result = fit(ERM(on_bins), windows["train"], windows["val"], optim, seed=seed)
    on_bins.load_state_dict(dict(result.best_state))
    on_bins.eval()
    row = {side: study.mean_r(side, _predict(study, side, on_bins, windows[side])) for side in ("val", "test")}
    row |= {"best_epoch": result.best_epoch, "val_loss": min(h["val_loss"] for h in result.history)}
    return row | {"cpu_s": time.process_time() - started}


@torch.no_grad()
def _predict(study: Study, side: str, model: nn.Module, windows: Any) -> list[NDArray[np.float32]]:
    source = getattr(windows, "source", windows)
    table = source.windows
    whole = [np.full(r.bold.shape, np.nan, np.float32) for r in study.sides[side]]
    for index in np.array_split(np.arange(len(source)), max(1, len(source) // 64)):
        predicted_BR = model(windows.gather(index)[0]).numpy()
        for n, volume, row in zip(
            table["recording"].iloc[index], table["volume"].iloc[index], predicted_BR, strict=True
        ):
            whole[n][volume] = row
    return whole


def train_neurobolt(study: Study, seed: int) -> dict[str, float]:
    """The published architecture at its small size, with the demo recipe's settings."""
    seed_everything(seed)
    n_outputs = study.sides["train"][0].bold.shape[1]
    model = NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=study.common, n_outputs=n_outputs))
    sources, started = {side: study.source(side, model) for side in study.sides}, time.process_time()
    result = fit(ERM(model), sources["train"], sources["val"], NEUROBOLT_OPTIM, seed=seed)
    model.load_state_dict(dict(result.best_state))
    model.eval()
    row = {side: study.mean_r(side, _predict(study, side, model, sources[side])) for side in ("val", "test")}
    return row | {"best_epoch": result.best_epoch, "cpu_s": time.process_time() - started}


def fit_ridge(study: Study, window_s: float) -> dict[str, float]:
    """Ridge on lagged log band power, strength chosen on the validation subjects."""
    inputs = {side: [_baseline_input(r, study.common) for r in rows] for side, rows in study.sides.items()}
    targets = {side: [study.target(side, r) for r in rows] for side, rows in study.sides.items()}
    ridge = Ridge(window_s=window_s, refit=False)
    ridge.fit(inputs["train"], targets["train"], val_recordings=inputs["val"], val_targets=targets["val"])
    return {side: study.mean_r(side, [ridge.predict(r) for r in inputs[side]]) for side in ("val", "test")}


def _baseline_input(r: Recording, ch_names: tuple[str, ...]) -> EegRecording:
    return EegRecording(harmonize_eeg(r, ch_names), r.eeg_valid, r.volume_onsets, r.volume_valid, r.sfreq)


def oracle(study: Study) -> dict[str, float]:
    """The noise-free BOLD itself."""
    sides = {side: [unseen_target(r, study.spec, r.truth) for r in study.sides[side]] for side in ("val", "test")}
    return {side: study.mean_r(side, rows) for side, rows in sides.items()}


def rows_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Label -> options of every row that is asked for."""
    plain = {key: value for off in SWITCHES.values() for key, value in off.items()}
    rows: dict[str, dict[str, Any]] = {"full": {}}
    rows |= {f"without {name}": off for name, off in SWITCHES.items()}
    rows["plain"] = plain
    for name, off in SWITCHES.items():
        rows[f"plain + {name}"] = {key: value for key, value in plain.items() if key not in off}
    return {label: options for label, options in rows.items() if not names or label in names}


def jobs_of(study: Study, args: argparse.Namespace, seed: int) -> dict[str, Callable[[], dict[str, float]]]:
    """Label -> what computes the row."""
    optim = OPTIM.model_copy(update=args.optim)
    rows = {} if args.rows == ["none"] else rows_of(args.rows)
    jobs: dict[str, Callable[[], dict[str, float]]] = {
        label: partial(train_x, study, options | args.options, seed, optim) for label, options in rows.items()
    }
    rivals = {
        "oracle": partial(oracle, study),
        "ridge": partial(fit_ridge, study, 16.0),
        "ridge24": partial(fit_ridge, study, 24.0),
        "neurobolt": partial(train_neurobolt, study, seed),
    }
    return jobs | {name: rivals[name] for name in args.rivals}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", choices=["easy", "realistic", "real-bold"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--channels", choices=["common", "native"], default="common")
    parser.add_argument("--chans", type=int, default=12, help="most channels of a common montage")
    parser.add_argument("--blind", action="store_true", help="hide the held-out site: for choosing hyper-parameters")
    parser.add_argument("--rows", nargs="*", default=[], help="labels; all by default")
    parser.add_argument("--rivals", nargs="*", default=["oracle", "ridge", "neurobolt"])
    parser.add_argument("--options", type=json.loads, default={}, help="JSON of options for every row")
    parser.add_argument("--optim", type=json.loads, default={}, help="JSON of optimiser settings")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--out", type=Path, help="file to which one JSON line per row is added")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.data == "real-bold" and not (args.shared / "data/vu_rest_roi/train_val.npz").exists():
        sys.exit(f"{args.shared}/data/vu_rest_roi/train_val.npz not found: real-bold needs the published parcel series")
    for seed in args.seeds:
        study = Study(dealt(args.data, seed, args.shared), args.channels, args.chans)
        for label, job in jobs_of(study, args, seed).items():
            row = {"data": args.data, "channels": args.channels, "seed": seed, "row": label, **job()}
            if args.blind:
                row.pop("test", None)
            line = json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()})
            print(line, flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
