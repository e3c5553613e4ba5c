"""Gradient artifact: average artifact subtraction by MNE, and an honest mark on what it leaves uncorrected.

``mne.preprocessing.remove_fmri_gradient_artifact`` (MNE 1.13.2) forms the template of a volume from four volumes
before and four after it. The first and last four get no template and keep the whole artifact: they are marked unusable.
"""

from __future__ import annotations

from typing import Any

import mne
import numpy as np

from xsite.errors import AlignmentError
from xsite.recording import Bool, Float
from xsite.signals.montage import type_from_name

WINDOW = (4, 4)
_CHANNELS_AT_ONCE = 8  # MNE copies what it corrects twice in float64: 5 kHz x 20 min is 48 MB per channel and copy


def remove_gradient(
    raw: Any, triggers: Float, t_r: float, *, window: tuple[int, int] = WINDOW, tolerance_samples: int = 2, source: str
) -> tuple[Any, Bool, list[dict[str, Any]]]:
    """Subtract average artifact templates from the EEG and ECG channels.

    Parameters
    ----------
    raw : mne.io.BaseRaw
        At its own rate. Loaded into memory if it is not, and corrected in place.
    triggers : array
        Volume triggers in seconds from the first sample, in order, of the volumes that were really acquired.
    t_r : float
        Repetition time in seconds.
    window : tuple of int
        Volumes before and after that form a template.
    tolerance_samples : int
        Largest deviation of a volume's length from the median, in samples of ``raw``.
    source : str
        File name for messages.

    Returns
    -------
    raw : mne.io.BaseRaw
        The same object.
    valid_T : bool array
        At the rate of ``raw``; False in volumes without template and after the last volume.
    steps : list of dict

    Raises
    ------
    AlignmentError
        Too few volumes for a template, or triggers that jitter by more than the tolerance.
    """
    sfreq = float(raw.info["sfreq"])
    events, spacing = _events(triggers, sfreq, raw.n_times, sum(window) + 1, tolerance_samples, t_r, source)
    if not raw.preload:
        raw.load_data(verbose="error")
    picks = _artifact_channels(raw)
    inside = slice(int(events[window[0]]), int(events[-1 - window[1]]) + spacing)
    before_C = _rms(raw, picks, inside)
    for start in range(0, len(picks), _CHANNELS_AT_ONCE):
        mne.preprocessing.remove_fmri_gradient_artifact(
            raw,
            events,
            window=window,
            tr_tol=tolerance_samples,
            picks=picks[start : start + _CHANNELS_AT_ONCE],
            copy=False,
            verbose="error",
        )
    after_C = _rms(raw, picks, inside)
    valid_T = np.ones(raw.n_times, dtype=bool)
    valid_T[events[0] : inside.start] = False
    valid_T[inside.stop :] = False
    step = {
        "step": "gradient removal",
        "method": f"AAS, mne {mne.__version__}",
        "window": list(window),
        "n_volumes": len(events),
        "samples_per_volume": spacing,
        "n_channels": len(picks),
        "rms_before_uv": float(np.median(before_C) * 1e6),
        "rms_after_uv": float(np.median(after_C) * 1e6),
        "uncorrected_s": float((~valid_T).sum() / sfreq),
    }
    return raw, valid_T, [step]


def _events(
    triggers: Float, sfreq: float, n_times: int, n_least: int, tolerance: int, t_r: float, source: str
) -> tuple[Any, int]:
    """Sample numbers of the volumes that lie wholly inside the EEG, and their common length in samples."""
    onsets = np.rint(np.asarray(triggers, dtype=np.float64) * sfreq).astype(np.int64)
    spacing = int(np.rint(np.median(np.diff(onsets)))) if len(onsets) > 1 else int(np.rint(t_r * sfreq))
    events = onsets[(onsets >= 0) & (onsets + spacing <= n_times)]
    if len(events) < n_least:
        raise AlignmentError(
            f"{source}: gradient removal needs at least {n_least} whole volumes, the EEG holds {len(events)}"
        )
    worst = int(np.abs(np.diff(events) - np.median(np.diff(events))).max())
    if worst > tolerance:
        raise AlignmentError(
            f"{source}: volume triggers deviate by up to {worst} samples at {sfreq:g} Hz; gradient removal "
            f"takes {tolerance}. The EEG clock was not synchronised with the scanner, or markers were set by software"
        )
    return events, spacing


def _artifact_channels(raw: Any) -> Any:
    kinds = [type_from_name(name) or kind for name, kind in zip(raw.ch_names, raw.get_channel_types(), strict=True)]
    return np.flatnonzero(np.isin(kinds, ("eeg", "ecg")))


def _rms(raw: Any, picks: Any, inside: slice) -> Float:
    """Root mean square of each channel around its mean, in volt, channel by channel to save memory."""
    return np.array([float(np.std(raw.get_data(picks=[pick], start=inside.start, stop=inside.stop))) for pick in picks])
