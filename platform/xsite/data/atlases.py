"""Atlases by name, through nilearn's cache, or by file.

``difumo64`` to ``difumo1024`` and ``schaefer100`` to ``schaefer1000`` are fetched by nilearn where its data folder
(``NILEARN_DATA``, else ``~/nilearn_data``) lacks them; ``power264`` comes with nilearn. The download is nilearn's
own and was not exercised here (no network); folders of the layout that it writes are.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nilearn import datasets

from xsite.errors import ParcellationError
from xsite.signals.atlas import Atlas, atlas_from_image, load_atlas, sphere_atlas

DIFUMO = (64, 128, 256, 512, 1024)
SCHAEFER = tuple(range(100, 1001, 100))
NAMES = (*(f"difumo{n}" for n in DIFUMO), *(f"schaefer{n}" for n in SCHAEFER), "power264")
POWER_RADIUS = 5.0  # mm: the regions of Power et al. 2011 are spheres of 10 mm diameter
FILE = re.compile(r"\.(nii|nii\.gz|tsv)$")


def get_atlas(name: str | Path, data_dir: str | Path | None = None) -> Atlas:
    """Atlas by its name or from a file.

    Parameters
    ----------
    name : str or Path
        One of :data:`NAMES`, or a file that :func:`xsite.signals.atlas.load_atlas` reads.
    data_dir : str or Path, optional
        nilearn's data folder, if it is not the usual one.

    Raises
    ------
    ParcellationError
        No such name or file, a damaged file, or an atlas that is neither in the cache nor to be downloaded.
    """
    reference = atlas_reference(name)
    if FILE.search(reference):
        return load_atlas(reference)
    if reference == "power264":
        return _power()
    size = int(re.sub(r"\D", "", reference))
    return _difumo(size, data_dir) if reference.startswith("difumo") else _schaefer(size, data_dir)


def atlas_reference(name: str | Path) -> str:
    """What names the atlas on every machine: a known name, or the absolute path of a file.

    Raises
    ------
    ParcellationError
        Neither a known name nor the name of an atlas file (with "did you mean").
    """
    text = str(name)
    if FILE.search(text) or Path(text).is_file():
        return str(Path(text).resolve())
    plain = re.sub(r"[\s_-]", "", text.lower())
    if plain in NAMES:
        return plain
    near = difflib.get_close_matches(plain, NAMES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ParcellationError(
        f"no atlas {text!r}{hint} Known names: {', '.join(NAMES)}; or a file NAME.nii.gz with NAME.tsv"
    )


def _difumo(size: int, data_dir: str | Path | None) -> Atlas:
    found = _fetched(f"difumo{size}", datasets.fetch_atlas_difumo, data_dir, dimension=size, resolution_mm=2)
    column = next((name for name in ("difumo_names", "name") if name in found.labels), None)
    if column is None:
        raise ParcellationError(f"{found.maps}: its table of labels has the columns {list(found.labels)}, no names")
    names = unique([str(label) for label in found.labels[column]])
    rows = list(enumerate(names, start=1))
    return atlas_from_image(
        Path(found.maps), rows, name=f"DiFuMo-{size}", space=str(found.template), table="the labels beside it"
    )


def _schaefer(size: int, data_dir: str | Path | None) -> Atlas:
    found = _fetched(f"schaefer{size}", datasets.fetch_atlas_schaefer_2018, data_dir, n_rois=size, resolution_mm=2)
    table = found.lut[found.lut["index"] > 0]
    rows = [(int(index), str(name)) for index, name in zip(table["index"], table["name"], strict=True)]
    return atlas_from_image(
        Path(found.maps), rows, name=f"Schaefer2018-{size}", space=str(found.template), table="the labels beside it"
    )


def _power() -> Atlas:
    rois = datasets.fetch_coords_power_2011().rois
    centres_R3 = rois[["x", "y", "z"]].to_numpy(dtype=np.float64)
    labels = tuple(f"Power {int(roi):03d}" for roi in rois["roi"])
    digest = hashlib.sha256(centres_R3.tobytes() + str(POWER_RADIUS).encode()).hexdigest()
    return sphere_atlas("Power-264", labels, centres_R3, POWER_RADIUS, space="MNI152", sha256=digest)


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Names with a number where one stands more than once: larger atlases name several parcels alike."""
    counts, seen, result = Counter(names), Counter[str](), []
    for name in names:
        seen[name] += 1
        result.append(f"{name} ({seen[name]})" if counts[name] > 1 else name)
    return tuple(result)


def _fetched(name: str, fetch: Any, data_dir: str | Path | None, **options: Any) -> Any:
    folder = str(datasets.get_data_dirs(None if data_dir is None else str(data_dir))[0])
    try:
        return fetch(**options, data_dir=None if data_dir is None else str(data_dir), verbose=0)
    except Exception as error:  # requests, zipfile, tarfile and nilearn each have their own ways to say "no"
        arguments = ", ".join(f"{key}={value}" for key, value in options.items())
        why = next(iter(str(error).splitlines()), "no reason given")[:200]
        raise ParcellationError(
            f"atlas {name!r}: neither whole in nilearn's data folder {folder} nor to be downloaded "
            f"({type(error).__name__}: {why}). On a machine with network run: "
            f'python -c "from nilearn import datasets; datasets.{fetch.__name__}({arguments})", '
            "copy its data folder here and name it in NILEARN_DATA (delete a damaged one); or give the atlas as a file"
        ) from error
