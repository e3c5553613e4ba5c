"""Whole studies in seconds: leave-one-site-out ridge in this process, EEG features computed once per recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from neurobolt.band_power import EegRecording
from neurobolt.ridge import Ridge
from xsite.data.harmonize import common_channels, harmonize_eeg, target_scale
from xsite.data.windows import window_starts
from xsite.evaluation.folds import ENTITIES, Fold
from xsite.evaluation.nulls import surrogate_p
from xsite.evaluation.scoring import Prediction, score_predictions
from xsite.evaluation.splits import make_folds
from xsite.evaluation.subjects import subject_scores
from xsite.evaluation.surrogates import study_nulls
from xsite.experiment_parts import Folds
from xsite.learning.targets import TargetSpec, fold_targets, median_scale, unseen_target
from xsite.recording import Recording, RecordingKey


class Study:
    """Recordings whose EEG is read once; their BOLD may be exchanged as often as a test likes."""

    def __init__(self, recordings: Sequence[Recording], seed: int = 0) -> None:
        self.recordings = {r.key: r for r in recordings}
        ch_names = common_channels([r.ch_names for r in recordings])
        self.eeg = {r.key: _input(r, ch_names) for r in recordings}
        self.valid = {r.key: _has_window(r) for r in recordings}
        self.known: dict[int, Any] = {}
        table = pd.DataFrame([{name: getattr(key, name) for name in ENTITIES} for key in self.recordings])
        self.folds = make_folds(table, Folds(), seed=seed)
        self.parcels = recordings[0].parcellation.labels

    def predictions(
        self, bold: Mapping[RecordingKey, Recording] | None = None, *, seen: bool = False, control: int | None = None
    ) -> list[Prediction]:
        """Ridge of every fold on its held-out site; ``seen`` for its validation recordings (whose site trains).

        ``bold``: recordings that lend their BOLD. ``control``: seed of targets of other subjects for training.
        """
        bold = bold or self.recordings
        found = []
        for fold in self.folds:
            spec = TargetSpec(
                "strict", 0.15, median_scale([target_scale(bold[k].bold, bold[k].t_r) for k in fold.train])
            )
            model = self._fitted(fold, spec, bold, control)
            for key in fold.val if seen else fold.test:
                target_VR, predicted_VR = unseen_target(bold[key], spec), model.predict(self.eeg[key])
                found.append(
                    Prediction(key, fold.held_out if seen else "ridge", False, predicted_VR, target_VR, self.valid[key])
                )
        return found

    def _fitted(
        self, fold: Fold, spec: TargetSpec, bold: Mapping[RecordingKey, Recording], control: int | None
    ) -> Ridge:
        train, val = ([bold[key] for key in keys] for keys in (fold.train, fold.val))
        targets = fold_targets(train, val, spec, control_seed=control)
        model = _Remembering(self.known)
        return model.fit(
            [self.eeg[key] for key in fold.train], [targets[r.key] for r in train],
            val_recordings=[self.eeg[key] for key in fold.val], val_targets=[targets[r.key] for r in val],
        )  # fmt: skip

    def oracle(self) -> list[Prediction]:
        """The noise-free BOLD as a prediction."""
        found = []
        for r in self.recordings.values():
            spec = TargetSpec("strict", 0.15, tuple(target_scale(r.bold, r.t_r)))
            truth_VR, target_VR = unseen_target(r, spec, r.truth), unseen_target(r, spec)
            found.append(Prediction(r.key, "oracle", False, truth_VR, target_VR, self.valid[r.key]))
        return found

    def scores(self, predictions: Sequence[Prediction]) -> pd.DataFrame:
        return score_predictions(predictions, parcels=self.parcels)

    def p_overall(self, predictions: Sequence[Prediction], *, surrogates: int = 199, seed: int = 0) -> float:
        """One-sided p of the mean over sites, as a study's table has it."""
        means = subject_scores(self.scores(predictions)).groupby("site")["r"].mean()
        nulls = study_nulls(predictions, surrogates=surrogates, seed=seed).means
        return surrogate_p(float(means.mean()), np.mean(list(nulls.values()), axis=0))


class _Remembering(Ridge):
    """Four lags of 4 s and four strengths: half of the features, an order of magnitude faster to solve."""

    def __init__(self, known: dict[int, Any]) -> None:
        super().__init__(bin_s=4.0, alphas=(0.1, 1.0, 10.0, 100.0), refit=False)
        self.known = known

    def features(self, recording: Any) -> Any:
        if id(recording) not in self.known:
            self.known[id(recording)] = super().features(recording)
        return self.known[id(recording)]


def _input(r: Recording, ch_names: Sequence[str]) -> EegRecording:
    return EegRecording(harmonize_eeg(r, ch_names, "average"), r.eeg_valid, r.volume_onsets, r.volume_valid, r.sfreq)


def _has_window(r: Recording) -> Any:
    valid_V = np.zeros(r.n_volumes, bool)
    valid_V[window_starts(r)[0]] = True
    return valid_V
