"""Ridge regression on lagged band power, from sums over rows.

Shape letters: ``V`` volumes, ``W`` volumes with a window, ``R`` parcels, ``P`` features, ``A`` ridge strengths.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurobolt.band_power import BANDS, BaselineRecording, Bool, Float, check_pairs, lagged_band_power, standardise

ALPHAS = tuple(float(a) for a in np.logspace(-2, 2, 9))
_N_FOLDS = 5


@dataclass
class _Sums:
    """Sufficient statistics of a linear fit: counts, sums and products over rows."""

    n: float
    x_P: Float
    y_R: Float
    xx_PP: Float
    xy_PR: Float
    yy_R: Float

    @classmethod
    def zero(cls, n_features: int, n_parcels: int) -> _Sums:
        p, r = n_features, n_parcels
        return cls(0.0, np.zeros(p), np.zeros(r), np.zeros((p, p)), np.zeros((p, r)), np.zeros(r))

    def add(self, x_WP: Float, y_WR: Float) -> None:
        self.n += len(x_WP)
        self.x_P += x_WP.sum(0, dtype=np.float64)
        self.y_R += y_WR.sum(0, dtype=np.float64)
        self.xx_PP += x_WP.T @ x_WP
        self.xy_PR += x_WP.T @ y_WR.astype(x_WP.dtype)
        self.yy_R += np.square(y_WR, dtype=np.float64).sum(0)

    def combined(self, other: _Sums, sign: int) -> _Sums:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Sums(*(a + sign * b for a, b in pairs))

    def solve(self, alpha: float) -> tuple[Float, Float]:
        """Weights (P, R) and intercept (R,) at a ridge strength of ``alpha`` per row."""
        x, y = self.x_P / self.n, self.y_R / self.n
        gram = self.xx_PP - self.n * np.outer(x, x)
        gram[np.diag_indices_from(gram)] += alpha * self.n
        weight_PR = np.linalg.solve(gram, self.xy_PR - self.n * np.outer(x, y))
        return weight_PR, y - x @ weight_PR

    def squared_error(self, weight_PR: Float, bias_R: Float) -> Float:
        """Sum of squared errors (R,) of a linear prediction of these rows, without seeing the rows again."""
        explained = np.einsum("pr,pr->r", weight_PR, self.xx_PP @ weight_PR)
        offset = 2 * bias_R * (self.x_P @ weight_PR - self.y_R) + self.n * bias_R**2
        error_R: Float = self.yy_R - 2 * np.einsum("pr,pr->r", weight_PR, self.xy_PR) + explained + offset
        return error_R


class Ridge:
    """Ridge regression on log band power, channel x band x lag: the honest rival of any network.

    Features are z-scored within each recording, over its own windows. At test this uses the recording's own EEG (never
    its BOLD), which removes gain and impedance differences between sites and needs the whole recording at hand.
    The strength is chosen on held-out recordings by mean squared error; one strength serves all parcels.

    Parameters
    ----------
    window_s, bin_s : float
        Seconds of EEG before the volume; length of the bins, whose ends are the lags.
    alphas : sequence of float
        Ridge strengths to try, per training row.
    refit : bool
        After the choice, fit on training and validation recordings together.
    """

    def __init__(
        self,
        *,
        window_s: float = 16.0,
        bin_s: float = 2.0,
        alphas: Sequence[float] = ALPHAS,
        refit: bool = True,
    ) -> None:
        self.window_s, self.bin_s = window_s, bin_s
        self.alphas, self.refit = tuple(alphas), refit
        self.alpha = float("nan")
        self.error_A: Float = np.empty(0)
        self.weight_PR: Float = np.empty((0, 0), np.float32)
        self.bias_R: Float = np.empty(0, np.float32)

    def features(self, recording: BaselineRecording) -> tuple[Float, Bool]:
        """Standardised features (W, P) of volumes with a window, and which volumes these are, (V,)."""
        features_WP, seen_V = lagged_band_power(recording, window_s=self.window_s, bin_s=self.bin_s)
        return standardise(features_WP), seen_V

    def fit(
        self,
        recordings: Sequence[BaselineRecording],
        targets: Sequence[Float],
        *,
        val_recordings: Sequence[BaselineRecording] | None = None,
        val_targets: Sequence[Float] | None = None,
        groups: Sequence[Hashable] | None = None,
    ) -> Ridge:
        """Choose the strength, then solve. Each recording is read once; only sums over rows are kept.

        Parameters
        ----------
        recordings : sequence of BaselineRecording
        targets : sequence of array, shape (V, R)
            NaN where a value is missing.
        val_recordings, val_targets : sequences, optional
            Select the strength. Without them, up to five groups of training recordings are left out in turn.
        groups : sequence of hashable, optional
            Recordings of one group (a subject, say) are left out together; by default each is its own group.

        Raises
        ------
        ValueError
            Recordings and targets do not fit together, or a single group has nothing to choose a strength on.
        """
        check_pairs(recordings, targets)
        if val_recordings:
            check_pairs(val_recordings, val_targets or ())
            fold_of = [0] * len(recordings) + [1] * len(val_recordings)
            recordings, targets = [*recordings, *val_recordings], [*targets, *(val_targets or ())]
            check_pairs(recordings, targets)
            held_out = [1]
        else:
            fold_of = _deal(groups if groups is not None else list(range(len(recordings))))
            held_out = sorted(set(fold_of))
        if len(set(fold_of)) < 2 and len(self.alphas) > 1:
            raise ValueError("ridge: one group of recordings leaves none to choose the strength on; give alphas=(1.0,)")
        kinds = _parcels_by_mask(targets)
        sums = self._accumulate(recordings, targets, fold_of, kinds)
        self._choose(sums, held_out)
        use = [f for f in sums[0] if self.refit or not val_recordings or f == 0]
        self.weight_PR, self.bias_R = self._solve(sums, use, kinds, targets[0].shape[1])
        return self

    def _accumulate(
        self,
        recordings: Sequence[BaselineRecording],
        targets: Sequence[Float],
        fold_of: Sequence[int],
        kinds: list[NDArray[np.int64]],
    ) -> list[dict[int, _Sums]]:
        n_features = recordings[0].eeg_CT.shape[0] * len(BANDS) * round(self.window_s / self.bin_s)
        sums = [{f: _Sums.zero(n_features, len(parcels)) for f in sorted(set(fold_of))} for parcels in kinds]
        for recording, target_VR, fold in zip(recordings, targets, fold_of, strict=True):
            x_WP, seen_V = self.features(recording)
            for parcels, by_fold in zip(kinds, sums, strict=True):
                y_WR = target_VR[seen_V][:, parcels]
                here_W = np.isfinite(y_WR[:, 0])  # equal for all parcels of a kind
                by_fold[fold].add(x_WP[here_W], y_WR[here_W])
        return sums

    def _choose(self, sums: list[dict[int, _Sums]], held_out: list[int]) -> None:
        error_A = np.zeros(len(self.alphas))
        for by_fold in sums:
            whole = _added(list(by_fold.values()))
            for fold in held_out:
                rest = whole.combined(by_fold[fold], -1)
                if rest.n < 2 or by_fold[fold].n == 0 or len(self.alphas) == 1:
                    continue
                for i, alpha in enumerate(self.alphas):
                    error_A[i] += by_fold[fold].squared_error(*rest.solve(alpha)).sum()
        self.error_A = error_A
        self.alpha = self.alphas[int(np.argmin(error_A))]

    def _solve(
        self, sums: list[dict[int, _Sums]], use: list[int], kinds: list[NDArray[np.int64]], n_parcels: int
    ) -> tuple[Float, Float]:
        weight_PR = np.zeros((len(next(iter(sums[0].values())).x_P), n_parcels))
        bias_R = np.zeros(n_parcels)
        for parcels, by_fold in zip(kinds, sums, strict=True):
            whole = _added([by_fold[f] for f in use])
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
        return {"weight_PR": self.weight_PR, "bias_R": self.bias_R, **{k: np.array(v) for k, v in settings.items()}}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Ridge:
        """Inverse of :meth:`state`."""
        model = cls(window_s=float(state["window_s"]), bin_s=float(state["bin_s"]))
        model.weight_PR, model.bias_R = np.asarray(state["weight_PR"]), np.asarray(state["bias_R"])
        model.alpha = float(state["alpha"])
        return model


def _added(parts: list[_Sums]) -> _Sums:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.combined(part, 1)
    return whole


def _deal(groups: Sequence[Hashable]) -> list[int]:
    """Deal groups to at most five folds, in the order of their first recording."""
    order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return [order[group] % _N_FOLDS for group in groups]


def _parcels_by_mask(targets: Sequence[Float]) -> list[NDArray[np.int64]]:
    """Parcels that miss the same values share their sums; usually all of them do."""
    kinds: dict[bytes, list[int]] = {}
    for parcel in range(targets[0].shape[1]):
        mask = b"".join(np.packbits(np.isfinite(t[:, parcel])).tobytes() for t in targets)
        kinds.setdefault(mask, []).append(parcel)
    return [np.array(parcels) for parcels in kinds.values()]
