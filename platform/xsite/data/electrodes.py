"""Electrode positions from a BIDS ``electrodes.tsv``: the numbers go to the channels, what they mean is found later.

Neither ``coordsystem.json`` nor the column's unit is believed: published ones say mm of a unit sphere, or CapTrak of
scanner coordinates (:mod:`xsite.signals.positions` recognises unit, axes and origin from the numbers).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from xsite.data.files import read_tsv
from xsite.data.inheritance import electrodes_path
from xsite.errors import FormatError
from xsite.recording import Float
from xsite.signals.channel_names import canonical_name, tidy_name

AXES = ("x", "y", "z")
MIN_ROWS = 3  # a table of fewer electrodes says nothing about a cap


def attach_electrodes(raw: Any, eeg: Path) -> int:
    """Give channels the positions of the nearest ``electrodes.tsv``, in the table's own unit and frame.

    A channel without a row has none afterwards: positions of the file's header would be in another frame.

    Returns
    -------
    int
        Channels that were given one; 0 where there is no table, and the header's positions stay.

    Raises
    ------
    FormatError
        The table has no columns ``name``, ``x``, ``y`` and ``z``.
    """
    path = electrodes_path(eeg)
    if path is None:
        return 0
    places = read_electrodes(path)
    found = {name: places[key] for name in raw.ch_names for key in (_key(name),) if key in places}
    if len(found) < MIN_ROWS:
        return 0
    for channel in raw.info["chs"]:
        channel["loc"][:3] = found.get(channel["ch_name"], np.full(3, np.nan))
    return len(found)


def read_electrodes(path: Path) -> dict[str, Float]:
    """Position of every electrode that has one, by its canonical name in lower case; extra columns do not matter.

    Raises
    ------
    FormatError
        The table has no columns ``name``, ``x``, ``y`` and ``z``.
    """
    table = read_tsv(path)
    table.columns = [str(column).strip().lower() for column in table.columns]
    missing = [column for column in ("name", *AXES) if column not in table]
    if missing:
        raise FormatError(f"{path}: no columns {missing} (found {list(table.columns)})")
    numbers = table[list(AXES)].apply(lambda column: pd.to_numeric(column.str.strip(), errors="coerce"))
    pairs = zip(table["name"].fillna(""), numbers.to_numpy(dtype=np.float64), strict=True)
    return {_key(str(name)): place for name, place in pairs if tidy_name(str(name)) and np.isfinite(place).all()}


def _key(name: str) -> str:
    return canonical_name(name).lower()
