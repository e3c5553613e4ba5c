"""Which recordings stand out among those of their site, and which settings changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xsite.data.attributes import Attributes
from xsite.recording import Float

LIMIT_Z = 3.5  # Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers
FEWEST = 5  # a median of fewer recordings says little about what is usual


@dataclass(frozen=True)
class Column:
    """A quality figure in the tables of pages.

    Parameters
    ----------
    figure, label : str
    digits : int
    grain : float
        Differences below it are nothing to write about, however alike the other recordings are.
    """

    figure: str
    label: str
    digits: int
    grain: float


COLUMNS: tuple[Column, ...] = (
    Column("mean_fd_mm", "Mean FD, mm", 2, 0.02),
    Column("bold_mean_dvars_percent", "DVARS, %", 2, 0.05),
    Column("bold_tsnr", "tSNR", 0, 2.0),
    Column("bold_valid_fraction", "Volumes valid", 2, 0.01),
    Column("bold_parcel_coverage_fraction", "Parcels covered", 2, 0.01),
    Column("eeg_valid_fraction", "EEG valid", 2, 0.01),
    Column("eeg_robust_sd_uv", "EEG SD, µV", 1, 0.5),
    Column("eeg_worst_sd_ratio", "Worst channel", 1, 0.2),
    Column("eeg_line_noise_ratio", "Line noise", 2, 0.1),
    Column("eeg_flat_channels", "Flat", 0, 0.5),
    Column("alignment_jitter_ms", "Jitter, ms", 2, 0.2),
    Column("gradient_harmonics_after_db", "Gradient left, dB", 1, 0.5),
)


@dataclass(frozen=True)
class Outlier:
    """One figure of one recording that stands out; ``z`` is robust."""

    attributes: Attributes
    column: Column
    value: float
    z: float


def figure_values(recordings: Sequence[Attributes], column: Column) -> Float:
    """One figure of some recordings, NaN where not known, shape (N,)."""
    values = [item.quality.get(column.figure) for item in recordings]
    return np.array([np.nan if value is None else float(value) for value in values], float)


def robust_z(values_N: Float, grain: float) -> Float:
    """Distance from the median in units of the scaled median absolute deviation, or of ``grain`` where that is larger.

    NaN throughout where fewer than five values are known.
    """
    known = np.isfinite(values_N)
    if known.sum() < FEWEST:
        return np.full(len(values_N), np.nan)
    centre = float(np.median(values_N[known]))
    spread = 1.4826 * float(np.median(np.abs(values_N[known] - centre)))
    return np.asarray((values_N - centre) / max(spread, grain))


def outliers(recordings: Sequence[Attributes]) -> list[Outlier]:
    """Figures beyond 3.5 robust standard deviations of the site, the farthest first."""
    found = []
    for column in COLUMNS:
        values_N = figure_values(recordings, column)
        for item, value, z in zip(recordings, values_N, robust_z(values_N, column.grain), strict=True):
            if abs(z) > LIMIT_Z:
                found.append(Outlier(item, column, float(value), float(z)))
    return sorted(found, key=lambda outlier: -abs(outlier.z))


def _step(item: Attributes, name: str, key: str) -> Any:
    return next((s.get(key) for s in item.provenance.get("steps") or [] if s.get("step") == name), None)


def _markers(item: Attributes) -> str | None:
    markers = (item.provenance.get("summaries") or {}).get("markers")
    if not markers:
        return None
    if not markers["n"]:
        return "none"
    surplus = int(markers["n"]) - int(item.row["n_volumes"])
    return f"{markers.get('name')}, {'as many as volumes' if not surplus else f'{surplus:+d} to the volumes'}"


def _reference(item: Attributes) -> str | None:
    in_names = _step(item, "pick", "reference_in_names")
    return _step(item, "pick", "reference") if not in_names else f"{_plain(in_names)} (in channel names)"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _rate(item: Attributes) -> str | None:
    rate = _step(item, "resample", "from_hz")
    return None if rate is None else f"{float(rate):g} Hz"


SETTINGS: dict[str, Callable[[Attributes], str | None]] = {
    "EEG sampling frequency": _rate,
    "EEG channels": lambda item: ", ".join(item.ch_names),
    "Channels in the file": lambda item: _known((item.provenance.get("summaries") or {}).get("n_file_channels")),
    "Reference": _reference,
    "Electrode positions": lambda item: _known(_step(item, "pick", "positions")),
    "Repetition time": lambda item: f"{float(item.row['t_r']):g} s",
    "Volumes": lambda item: f"{int(item.row['n_volumes'])}",
    "Volume markers": _markers,
    "EEG state": lambda item: _known((item.provenance.get("site") or {}).get("eeg_state")),
    "Slice-timing reference": lambda item: _known((item.provenance.get("alignment") or {}).get("start_time"), " s"),
}
"""What should not change from session to session, and how to read it from a recording."""


def _known(value: Any, unit: str = "") -> str | None:
    return None if value in (None, "") else f"{value}{unit}"


def settings_of(recordings: Sequence[Attributes]) -> dict[str, dict[str, list[Attributes]]]:
    """Setting to value to recordings, the most frequent value first; what is not known is left out."""
    found: dict[str, dict[str, list[Attributes]]] = {}
    for name, read in SETTINGS.items():
        values: dict[str, list[Attributes]] = {}
        for item in recordings:
            value = read(item)
            if value is not None:
                values.setdefault(value, []).append(item)
        found[name] = dict(sorted(values.items(), key=lambda pair: -len(pair[1])))
    return found


def difference(value: str, usual: str) -> str:
    """Write a list of channels as what it has more and less than the usual one; anything else as it is."""
    if ", " not in value or ", " not in usual:
        return value
    own, other = value.split(", "), usual.split(", ")
    more, less = [x for x in own if x not in other], [x for x in other if x not in own]
    if not more and not less:
        return f"{len(own)} channels in another order"
    parts = [f"with {', '.join(more)}"] * bool(more) + [f"without {', '.join(less)}"] * bool(less)
    return f"{len(own)} channels: " + "; ".join(parts)


def by_session(recordings: Mapping[str, list[Attributes]]) -> bool:
    """Whether each session of the site has one value only, and sessions differ: a drift, not an accident."""
    sessions: dict[str, set[str]] = {}
    for value, items in recordings.items():
        for item in items:
            sessions.setdefault(item.key.session, set()).add(value)
    return len(recordings) > 1 and len(sessions) > 1 and all(len(values) == 1 for values in sessions.values())
