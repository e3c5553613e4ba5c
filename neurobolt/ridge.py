"""Ridge regression on lagged band power, from sums over rows.

Shape letters: ``V`` volumes, ``W`` volumes with a window, ``R`` parcels, ``P`` features, ``A`` ridge strengths.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobolt.band_power import BaselineRecording, Bool, Float, lagged_band_power, standardise
from neurobolt.linear_sums import TRAIN, VAL, ParcelSums, added, deal, is_empty, sum_up

ALPHAS = tuple(float(a) for a in np.logspace(-2, 2, 9))


class Ridge:
    """Ridge regression on log band power, channel x band x lag: the honest rival of any network.

    Features are z-scored within each recording, over its own windows. At test this uses the recording's own EEG (never
    its BOLD), which removes gain and impedance differences between sites and needs the whole recording at hand. With
    ``per_recording=False`` they stay log power as it is: a window is read by itself, as a network reads it.
    The strength is chosen on held-out recordings by mean squared error; one strength serves all parcels.

    Parameters
    ----------
    window_s, bin_s : float
        Seconds of EEG before the volume; length of the bins, whose ends are the lags.
    alphas : sequence of float
        Ridge strengths to try, per training row.
    refit : bool
        After the choice, fit on training and validation recordings together.
    per_recording : bool
        Z-score features over the whole recording.
    """

    def __init__(
        self,
        *,
        window_s: float = 16.0,
        bin_s: float = 2.0,
        alphas: Sequence[float] = ALPHAS,
        refit: bool = True,
        per_recording: bool = True,
    ) -> None:
        self.window_s, self.bin_s, self.per_recording = window_s, bin_s, per_recording
        self.alphas, self.refit = tuple(alphas), refit
        self.alpha = float("nan")
        self.error_A: Float = np.empty(0)
        self.weight_PR: Float = np.empty((0, 0), np.float32)
        self.bias_R: Float = np.empty(0, np.float32)

    @property
    def reads_whole_recording(self) -> bool:
        """Whether the features of one window depend on the whole recording's EEG: tables call that unlabelled EEG."""
        return self.per_recording

    def features(self, recording: BaselineRecording) -> tuple[Float, Bool]:
        """Features (W, P) of volumes with a window, and which volumes these are, (V,)."""
        features_WP, seen_V = lagged_band_power(recording, window_s=self.window_s, bin_s=self.bin_s)
        return standardise(features_WP) if self.per_recording else features_WP, seen_V

    def fit(
        self,
        recordings: Iterable[BaselineRecording],
        targets: Iterable[Float],
        *,
        val_recordings: Iterable[BaselineRecording] | None = None,
        val_targets: Iterable[Float] | None = None,
        groups: Iterable[Hashable] | None = None,
    ) -> Ridge:
        """Choose the strength, then solve. Each recording is read once and let go; only sums over rows are kept.

        Parameters
        ----------
        recordings : iterable of BaselineRecording
            A generator that loads them one by one will do.
        targets : iterable of array, shape (V, R)
            NaN where a value is missing.
        val_recordings, val_targets : iterables, optional
            Select the strength. Without them, up to five groups of training recordings are left out in turn.
        groups : iterable of hashable, optional
            Recordings of one group (a subject, say) are left out together; by default each is its own group.

        Raises
        ------
        ValueError
            Recordings and targets do not fit together, or a single group has nothing to choose a strength on.
        """
        if val_recordings is not None and not is_empty(val_recordings):
            sums = self.sums(recordings, targets, itertools.repeat(TRAIN))
            return self.fit_sums(sums.merged(self.sums(val_recordings, val_targets or (), itertools.repeat(VAL))))
        return self.fit_sums(self.sums(recordings, targets, deal(itertools.count() if groups is None else groups)))

    def sums(
        self, recordings: Iterable[BaselineRecording], targets: Iterable[Float], folds: Iterable[int]
    ) -> ParcelSums:
        """Everything that a fit needs of some recordings: the map step; :meth:`ParcelSums.merged` is the reduce step.

        Parameters
        ----------
        folds : iterable of int
            For each recording: ``TRAIN`` or ``VAL``, or, without validation, the number of its fold (:func:`deal`).
        """
        return sum_up(self.features, recordings, targets, folds)

    def fit_sums(self, sums: ParcelSums) -> Ridge:
        """Choose and solve from :meth:`sums`, wherever they were made."""
        if len(sums.folds) < 2 and len(self.alphas) > 1:
            raise ValueError("ridge: one group of recordings leaves none to choose the strength on; give alphas=(1.0,)")
        held_out = [VAL] if VAL in sums.folds else sums.folds
        self._choose(sums, held_out)
        use = [fold for fold in sums.folds if self.refit or fold != VAL]
        self.weight_PR, self.bias_R = self._solve(sums, use)
        return self

    def _choose(self, sums: ParcelSums, held_out: list[int]) -> None:
        error_A = np.zeros(len(self.alphas))
        for _, by_fold in sums.kinds:
            whole = added(by_fold.values())
            for fold in held_out:
                rest = whole.combined(by_fold[fold], -1)
                if rest.n < 2 or by_fold[fold].n == 0 or len(self.alphas) == 1:
                    continue
                for i, alpha in enumerate(self.alphas):
                    error_A[i] += by_fold[fold].squared_error(*rest.solve(alpha)).sum()
        self.error_A = error_A
        self.alpha = self.alphas[int(np.argmin(error_A))]

    def _solve(self, sums: ParcelSums, use: list[int]) -> tuple[Float, Float]:
        n_features = len(next(iter(sums.kinds[0][1].values())).x_P)
        weight_PR, bias_R = np.zeros((n_features, sums.n_parcels)), np.zeros(sums.n_parcels)
        for parcels, by_fold in sums.kinds:
            whole = added(by_fold[fold] for fold in use)
            if whole.n >= 2:  # a parcel that no recording covers stays at 0
                weight_PR[:, parcels], bias_R[parcels] = whole.solve(self.alpha)
        return weight_PR.astype(np.float32), bias_R.astype(np.float32)

    def predict(self, recording: BaselineRecording) -> Float:
        """(V, R), NaN for volumes without a window.

        Raises
        ------
        ValueError
            Not fitted, or another number of channels than at the fit.
        """
        x_WP, seen_V = self.features(recording)
        if x_WP.shape[1] != len(self.weight_PR):
            raise ValueError(
                f"recording gives {x_WP.shape[1]} features ({recording.eeg_CT.shape[0]} channels), "
                f"the fit has {len(self.weight_PR)}: use the channels of the fit"
            )
        bold_VR = np.full((len(seen_V), len(self.bias_R)), np.nan, np.float32)
        bold_VR[seen_V] = x_WP @ self.weight_PR + self.bias_R
        return bold_VR

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that :meth:`from_state` needs."""
        settings = {"window_s": self.window_s, "bin_s": self.bin_s, "alpha": self.alpha}
        settings["per_recording"] = float(self.per_recording)
        return {"weight_PR": self.weight_PR, "bias_R": self.bias_R, **{k: np.array(v) for k, v in settings.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Ridge:
        """Inverse of :meth:`state`."""
        per_recording = bool(state.get("per_recording", True))  # absent where a state was written before the choice
        model = cls(window_s=float(state["window_s"]), bin_s=float(state["bin_s"]), per_recording=per_recording)
        model.weight_PR, model.bias_R = np.asarray(state["weight_PR"]), np.asarray(state["bias_R"])
        model.alpha = float(state["alpha"])
        return model
