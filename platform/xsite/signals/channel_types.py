"""What each channel of a file is: the site's facts first, then its name, then what it holds, last what the file claims.

Type columns are wrong in many published sets: ECG typed MISC, behaviour and skin conductance typed EEG. A name settles
most; channels whose name says nothing are judged by a minute of their signal, with the evidence kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import butter, find_peaks, sosfiltfilt

from xsite.recording import Float
from xsite.signals.channel_names import (
    bipolar_pair,
    canonical_name,
    egi_net,
    egi_number,
    is_electrode,
    shared_cathode,
    tidy_name,
    type_from_name,
)
from xsite.site import Site

LOOK_S = 60.0  # seconds from the middle of the file: 40 heartbeats, a few skin responses
MIN_S = 10.0
RATE = 250.0  # Hz, about: fine enough for an R wave
SPECIFIC = ("ecg", "eog", "emg", "gsr", "resp", "stim", "bio", "eyegaze", "pupil", "temperature")


@dataclass(frozen=True)
class ChannelType:
    """One channel's verdict.

    Parameters
    ----------
    file_name, name : str
        As in the file, and canonical (after the site's ``rename``).
    file_type, kind : str
        MNE types: what the file claims and what is taken.
    evidence : str
        Why, in words.
    """

    file_name: str
    name: str
    file_type: str
    kind: str
    evidence: str

    @property
    def corrected(self) -> bool:
        """Whether the file's claim was overruled."""
        return self.kind != self.file_type

    def step(self) -> dict[str, str]:
        """The correction as part of a processing step."""
        return {"channel": self.file_name, "from": self.file_type, "to": self.kind, "evidence": self.evidence}


def decide_types(raw: Any, site: Site) -> list[ChannelType]:
    """Judge every channel of a file; signals are read only where neither facts nor names settle it."""
    names = [_name(file_name, site) for file_name in raw.ch_names]
    if cathode := shared_cathode(names):  # Fp1-Cz, F3-Cz, ...: one reference written into every name
        names = [pair[0] if (pair := bipolar_pair(name)) and pair[1] == cathode else name for name in names]
    net = egi_net(names)
    found: list[ChannelType | None] = []
    for file_name, name, file_type in zip(raw.ch_names, names, raw.get_channel_types(), strict=True):
        kind, evidence = _by_name(raw, file_name, name, file_type, net, site)
        found.append(ChannelType(file_name, name, file_type, kind, evidence) if kind else None)
    open_ones = [index for index, verdict in enumerate(found) if verdict is None]
    if open_ones:
        certain = [i for i, verdict in enumerate(found) if verdict is not None and verdict.kind == "eeg"]
        signals = _look(raw, [*open_ones, *certain[:: max(1, len(certain) // 8)]])
        typical = _typical([signals[i] for i in certain if i in signals])
        for index in open_ones:
            found[index] = _by_content(raw.ch_names[index], names[index], raw, index, signals[index], typical)
    return [verdict for verdict in found if verdict is not None]


def _name(file_name: str, site: Site) -> str:
    for spelling in (file_name, file_name.strip(), tidy_name(file_name)):
        if spelling in site.rename:
            return canonical_name(site.rename[spelling])
    return canonical_name(file_name)


def _by_name(
    raw: Any, file_name: str, name: str, file_type: str, net: int | None, site: Site
) -> tuple[str | None, str]:
    """Type and evidence by facts and name; ``None`` where only the signal can tell."""
    spellings = (name, file_name, file_name.strip(), tidy_name(file_name))
    for spelling in spellings:
        if spelling in site.ch_types:
            return site.ch_types[spelling], "fact of the site (ch_types)"
    if any(spelling in site.loops for spelling in spellings):
        return "misc", "fact of the site (loops)"
    if name in site.ch_names:
        return "eeg", "fact of the site (ch_names)"
    by_name = type_from_name(name) or type_from_name(file_name)
    if by_name is not None:
        if by_name == "misc" and file_type in SPECIFIC:
            return file_type, "type in the file"
        return by_name, f"name {tidy_name(file_name)!r}"
    known = is_electrode(name) or bipolar_pair(name) is not None or (net is not None and egi_number(name) is not None)
    if file_type == "eeg" and (known or has_location(raw, file_name)):
        return "eeg", "name of an electrode" if known else "type and position in the file"
    if file_type in SPECIFIC or (file_type not in ("eeg", "misc")):
        return file_type, "type in the file"
    return None, ""


def has_location(raw: Any, file_name: str) -> bool:
    """Whether the file gives the channel a position (the origin counts as none)."""
    position = np.asarray(raw.info["chs"][raw.ch_names.index(file_name)]["loc"][:3], dtype=np.float64)
    return bool(np.isfinite(position).all() and np.any(position != 0))


def _look(raw: Any, picks: list[int]) -> dict[int, Float]:
    """A minute from the middle of the file at about 250 Hz, microvolt; by plain striding, values held stay held."""
    sfreq = float(raw.info["sfreq"])
    n = min(raw.n_times, round(LOOK_S * sfreq))
    start = (raw.n_times - n) // 2
    stride = max(1, round(sfreq / RATE))
    data = raw.get_data(picks=picks, start=start, stop=start + n)[:, ::stride] * 1e6
    step_s = stride / sfreq  # goes along as the last value
    return {index: np.append(row, step_s) for index, row in zip(picks, data, strict=True)}


def _typical(signals: list[Float]) -> float | None:
    """99th percentile of certain EEG channels between 5 and 25 Hz, microvolt; the yardstick of "large"."""
    long = [row for row in signals if len(row) * row[-1] >= MIN_S and np.isfinite(row).all()]
    sizes = [float(np.percentile(np.abs(_band(row[:-1], row[-1], 5, 25)), 99)) for row in long]
    return float(np.median(sizes)) if sizes else None


def _by_content(file_name: str, name: str, raw: Any, index: int, signal: Float, typical: float | None) -> ChannelType:
    file_type = raw.get_channel_types(picks=[index])[0]
    kind, evidence = content_type(signal[:-1], 1 / float(signal[-1]), typical)
    if kind is None and is_electrode(name):  # typed MISC, named Cz, and nothing speaks against it
        return ChannelType(file_name, name, file_type, "eeg", "name of an electrode; its signal is no other kind")
    if kind is None or (kind == "misc" and file_type == "misc"):
        return ChannelType(file_name, name, file_type, file_type, "type in the file")
    return ChannelType(file_name, name, file_type, kind, f"signal: {evidence}")


def content_type(signal_T: Float, sfreq: float, typical: float | None = None) -> tuple[str | None, str]:
    """Type of a channel by its signal, with the evidence in words.

    Parameters
    ----------
    signal_T : array, shape (T,)
        Microvolt (whatever the file calls a volt, times 1e6), some ten seconds or more.
    sfreq : float
        In Hz, 50 at least.
    typical : float, optional
        99th percentile of ordinary EEG channels between 5 and 25 Hz in microvolt.

    Returns
    -------
    kind : str or None
        ``stim`` (a value is held for many samples), ``ecg`` (tall regular peaks, 0.7 to 2 Hz), ``gsr`` (nothing but
        slow change), ``emg`` (mostly above 25 Hz), ``misc`` (never changes); ``None`` where it could be EEG.
    evidence : str
    """
    signal_T = np.asarray(signal_T, dtype=np.float64)
    if not np.isfinite(signal_T).all() or len(signal_T) < MIN_S * sfreq:
        return None, "too short to tell, or not a number"
    if np.ptp(signal_T) == 0:
        return "misc", "never changes"
    held = float(np.mean(np.diff(signal_T) == 0))
    if held > 0.9:
        return "stim", f"{len(np.unique(signal_T))} levels, held over {100 * held:.0f} % of the steps"
    if evidence := _heartbeat(signal_T, sfreq, typical):
        return "ecg", evidence
    slow = signal_T - _band(signal_T, 1 / sfreq, 1.0, None)
    share = float(np.std(signal_T - slow) / np.std(signal_T))
    fast_T = _band(signal_T, 1 / sfreq, 1.0, 40.0)
    quiet = typical is None or np.percentile(np.abs(fast_T), 99) < 0.3 * typical
    if share < 0.03 and quiet:
        return "gsr", f"only {100 * share:.1f} % of its standard deviation is faster than 1 Hz"
    if sfreq >= 150:
        total, high = np.var(_band(signal_T, 1 / sfreq, 2.0, None)), np.var(_band(signal_T, 1 / sfreq, 25.0, None))
        if high > 0.7 * total:
            return "emg", f"{100 * high / total:.0f} % of its power lies above 25 Hz"
    return None, "could be EEG"


def _heartbeat(signal_T: Float, sfreq: float, typical: float | None) -> str:
    """Evidence for R waves, or nothing."""
    size_T = np.abs(_band(signal_T, 1 / sfreq, 5.0, 25.0))
    top = float(np.percentile(size_T, 99))
    if top < 6 * np.median(size_T) or top < (100.0 if typical is None else 2 * typical):
        return ""
    peaks, _ = find_peaks(size_T, height=0.5 * top, distance=max(1, round(0.4 * sfreq)))
    if len(peaks) < 8:
        return ""
    gaps = np.diff(peaks) / sfreq
    beat = float(np.median(gaps))
    spread = 1.4826 * float(np.median(np.abs(gaps - beat))) / beat
    if not 0.5 <= beat <= 1 / 0.7 or spread > 0.2 or len(peaks) * beat < 0.7 * len(signal_T) / sfreq:
        return ""
    times = "" if typical is None else f" = {top / typical:.0f} times an EEG channel's"
    return (
        f"peaks of {np.median(size_T[peaks]):.0f} µV{times}, {60 / beat:.0f} per minute, intervals within {spread:.0%}"
    )


def _band(signal_T: Float, step_s: float, low: float, high: float | None) -> Float:
    sfreq = 1 / float(step_s)
    if high is not None and high < 0.45 * sfreq:
        sos = butter(2, (low, high), "bandpass", fs=sfreq, output="sos")
    else:
        sos = butter(2, low, "highpass", fs=sfreq, output="sos")
    return np.asarray(sosfiltfilt(sos, signal_T - np.mean(signal_T)))
