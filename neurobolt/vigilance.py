"""The classical rival: occipital alpha power, or the alpha/theta ratio, through the canonical haemodynamic response.

Shape letters: ``C`` channels, ``T`` samples, ``V`` volumes, ``W`` volumes with a window, ``K`` frames, ``R`` parcels.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from neurobolt.band_power import BANDS, BaselineRecording, Bool, Float, window_stops
from neurobolt.linear_sums import TRAIN, ParcelSums, sum_up
from neurobolt.spelling import did_you_mean

Index = Literal["alpha", "alpha/theta"]

HRF_S = 32.0
FRAME_S, HOP_S = 2.0, 1.0
_POSTERIOR = re.compile(r"(O|PO|P)(\d+|z)", re.IGNORECASE)
_OLD_NAMES = ("T5", "T6")  # P7 and P8 of older caps
_FLOOR = 1e-6  # square microvolt, as in band_power
_RIDGE = 1e-6  # per row: an index that never moves gets weight 0 instead of a singular matrix


def canonical_hrf(t: Float) -> Float:
    """Double-gamma haemodynamic response at ``t`` seconds after an event; 0 before it.

    ``g(t; 6) - g(t; 16) / 6`` with ``g(t; a) = t^(a-1) exp(-t) / Gamma(a)``: peak near 5 s, undershoot near 15 s.

    References
    ----------
    Friston et al., NeuroImage 7:30 (1998); Glover, NeuroImage 9:416 (1999) for the two-gamma form.
    """
    seconds = np.maximum(np.asarray(t, np.float64), 0.0)

    def gamma(shape: int) -> Float:
        return np.asarray(seconds ** (shape - 1) * np.exp(-seconds - math.lgamma(shape)))

    return np.where(np.asarray(t) > 0, gamma(6) - gamma(16) / 6, 0.0)


class Vigilance:
    """One index of the EEG, convolved with the canonical response and scaled per parcel by regression.

    The index is read from the whole past of the recording (up to 32 s before the volume), not from the window only: a
    16 s window holds less than the response. Before the recording starts, and where samples are invalid, it counts as
    average. It is z-scored over the whole recording's EEG (as :class:`neurobolt.Ridge` does), never over its BOLD, so
    that gain and impedance play no part. Volumes without a whole window are not predicted, so that every model is
    scored on the same volumes; no frame that ends after the volume's time is used.

    Parameters
    ----------
    index : {"alpha", "alpha/theta"}
        Log alpha power, or log ratio of alpha to theta power, mean over posterior channels (O, PO, P; T5 and T6).
    window_s : float
        Seconds of valid EEG that a volume needs before it.

    References
    ----------
    Goldman et al., NeuroReport 13:2487 (2002) and Laufs et al., PNAS 100:11053 (2003) for alpha power and BOLD;
    Falahpour et al., NeuroImage 174:317 (2018) for the vigilance ratio (there over delta and theta).
    """

    reads_whole_recording = True
    """Unlabelled EEG of a test recording, as for ridge."""

    def __init__(self, index: Index = "alpha", *, window_s: float = 16.0) -> None:
        if index not in get_args(Index):
            raise ValueError(
                f"vigilance index {index!r}{did_you_mean(index, get_args(Index))} is none of {get_args(Index)}"
            )
        self.index: Index = index
        self.window_s = window_s
        self.weight_PR: Float = np.empty((0, 0), np.float32)
        self.bias_R: Float = np.empty(0, np.float32)

    def check_channels(self, ch_names: Sequence[str]) -> None:
        """Ask before any recording is read whether these channels will do.

        Raises
        ------
        ValueError
            None of them is posterior.
        """
        posterior(ch_names)

    def features(self, recording: BaselineRecording) -> tuple[Float, Bool]:
        """Convolved index (W, 1) of volumes with a window, and which volumes these are, (V,).

        Raises
        ------
        ValueError
            The recording has no posterior channel.
        """
        _, seen_V = window_stops(recording, self.window_s)
        index_K, stop_K = vigilance_frames(recording, self.index)
        behind_VK = np.asarray(recording.volume_onsets_V)[seen_V][:, None] - (stop_K - FRAME_S / 2)
        weight_VK = np.where((behind_VK >= FRAME_S / 2) & (behind_VK <= HRF_S), canonical_hrf(behind_VK), 0.0)
        return (weight_VK @ index_K)[:, None], seen_V

    def fit(
        self,
        recordings: Iterable[BaselineRecording],
        targets: Iterable[Float],
        *,
        val_recordings: Iterable[BaselineRecording] | None = None,
        val_targets: Iterable[Float] | None = None,
        groups: Iterable[Hashable] | None = None,
    ) -> Vigilance:
        """Least squares of the targets (V, R) on the index, NaN left out; each recording is read once.

        There is nothing to select: validation recordings and groups are accepted and not used.
        """
        del val_recordings, val_targets, groups
        return self.fit_sums(self.sums(recordings, targets, itertools.repeat(TRAIN)))

    def sums(
        self, recordings: Iterable[BaselineRecording], targets: Iterable[Float], folds: Iterable[int]
    ) -> ParcelSums:
        """Everything that a fit needs of some recordings, as :meth:`neurobolt.Ridge.sums`."""
        return sum_up(self.features, recordings, targets, folds)

    def fit_sums(self, sums: ParcelSums) -> Vigilance:
        """Solve from :meth:`sums` of training recordings."""
        weight_1R, bias_R = np.zeros((1, sums.n_parcels)), np.zeros(sums.n_parcels)
        for parcels, by_fold in sums.kinds:
            if TRAIN in by_fold and by_fold[TRAIN].n >= 2:
                weight_1R[:, parcels], bias_R[parcels] = by_fold[TRAIN].solve(_RIDGE)
        self.weight_PR, self.bias_R = weight_1R.astype(np.float32), bias_R.astype(np.float32)
        return self

    def predict(self, recording: BaselineRecording) -> Float:
        """(V, R), NaN for volumes without a window."""
        x_W1, seen_V = self.features(recording)
        bold_VR = np.full((len(seen_V), len(self.bias_R)), np.nan, np.float32)
        bold_VR[seen_V] = x_W1 @ self.weight_PR + self.bias_R
        return bold_VR

    def state(self) -> dict[str, NDArray[Any]]:
        """Everything that :meth:`from_state` needs."""
        settings = {"window_s": np.array(self.window_s), "index": np.array(self.index)}
        return {"weight_PR": self.weight_PR, "bias_R": self.bias_R, **settings}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Vigilance:
        """Inverse of :meth:`state`."""
        index: Any = str(state["index"])
        model = cls(index, window_s=float(state["window_s"]))
        model.weight_PR, model.bias_R = np.asarray(state["weight_PR"]), np.asarray(state["bias_R"])
        return model


def posterior(ch_names: Sequence[str]) -> list[int]:
    """Places of the posterior channels.

    Raises
    ------
    ValueError
        There is none.
    """
    found = [i for i, name in enumerate(ch_names) if _POSTERIOR.fullmatch(name) or name.upper() in _OLD_NAMES]
    if not found:
        raise ValueError(
            f"no posterior channel (O, PO, P, T5, T6) among {', '.join(ch_names) or 'the unnamed channels'}: the "
            "vigilance index needs one; give ch_names, or leave this baseline out"
        )
    return found


def vigilance_frames(recording: BaselineRecording, index: Index) -> tuple[Float, Float]:
    """Z-scored index in frames of 2 s every second, shape (K,), 0 where invalid, and their ends in seconds, (K,)."""
    picks = posterior(recording.ch_names)
    n_frame, hop = round(FRAME_S * recording.sfreq), round(HOP_S * recording.sfreq)
    starts_K = np.arange(0, recording.eeg_CT.shape[1] - n_frame + 1, hop)
    taper = np.hanning(n_frame + 1)[:-1].astype(np.float32)
    freqs = np.fft.rfftfreq(n_frame, 1 / recording.sfreq)
    log_K: dict[str, Float] = {name: np.zeros(len(starts_K)) for name in ("alpha", "theta")}
    for pick in picks:  # channel by channel: no second copy of the whole recording
        channel_T = np.asarray(recording.eeg_CT[pick], np.float32)
        frames_KT = np.lib.stride_tricks.sliding_window_view(channel_T, n_frame)[::hop]
        frames_KT = (frames_KT - frames_KT.mean(1, keepdims=True)) * taper
        power_KF = np.abs(np.fft.rfft(frames_KT)) ** 2 / n_frame
        for name, sum_K in log_K.items():
            band = (freqs >= BANDS[name][0]) & (freqs < BANDS[name][1])
            sum_K += np.log(power_KF[:, band].mean(1) + _FLOOR) / len(picks)
    index_K = log_K["alpha"] if index == "alpha" else log_K["alpha"] - log_K["theta"]
    bad_before_T = np.concatenate(([0], np.cumsum(~recording.eeg_valid_T)))
    good_K = bad_before_T[starts_K + n_frame] == bad_before_T[starts_K]
    return _standardised(index_K, good_K), (starts_K + n_frame) / recording.sfreq


def _standardised(index_K: Float, good_K: Bool) -> Float:
    """Zero mean and unit variance over the good frames; the others, and an index that never moves, are 0."""
    if not good_K.any():
        return np.zeros_like(index_K)
    centred_K = np.where(good_K, index_K - index_K[good_K].mean(), 0.0)
    spread = float(centred_K[good_K].std())
    return np.asarray(centred_K / spread if spread > 1e-6 else np.zeros_like(centred_K))
