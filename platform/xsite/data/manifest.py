"""One row per recording of a store, rebuilt from the recordings themselves: the manifest can always be thrown away."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from xsite.data import storage
from xsite.data.exclusion import exclusion_reasons
from xsite.data.notes import noted_reasons
from xsite.errors import StoreError

SEAL = "zarr.json"
FILE = "manifest.parquet"
KEYS = ["site", "subject", "session", "task", "run"]
COLUMNS = [
    *KEYS,
    "n_chans",
    "ch_names",
    "n_times",
    "sfreq",
    "n_volumes",
    "n_valid",
    "t_r",
    "manufacturer",
    "field_strength",
    "population",
    "parcellation_name",
    "parcellation_sha256",
    "parcels",
    "verdict",
    "own_reason",
    "excluded",
    "reason",
    "path",
    "sha256",
    "fingerprint",
    "has_truth",
    "image_sha256",
]
IMAGES = (".nii", ".nii.gz")
QUALITY = "quality_"  # before a figure's name, in its column


def rebuild_manifest(store: str) -> pd.DataFrame:
    """Read every complete recording's attributes and write ``manifest.parquet`` anew, atomically.

    What must not train is marked (:mod:`xsite.data.exclusion`, :mod:`xsite.data.notes`), with every reason.

    Returns
    -------
    DataFrame
        As :func:`read_manifest` gives it.

    Raises
    ------
    StoreError
        A recording's attributes are damaged, or the manifest cannot be written.
    """
    fs, root = storage.open_filesystem(store)
    manifest = _scan(fs, root)
    buffer = io.BytesIO()
    manifest.to_parquet(buffer, index=False)
    storage.write_file(fs, f"{root}/{FILE}", buffer.getvalue())
    return manifest


def read_manifest(store: str) -> pd.DataFrame:
    """One row per recording, sorted by key.

    Columns: the key's labels; ``n_chans, ch_names`` (JSON list)``, n_times, sfreq, n_volumes, n_valid, t_r,
    manufacturer`` (lower case)``, field_strength`` (tesla, NaN where unknown)``, population, parcellation_name,
    parcellation_sha256, parcels`` (JSON list)``, verdict, own_reason`` (of preparation)``, excluded, reason`` (by
    today's rules and notes, whenever the file was written)``, path`` (below the store)``, sha256, fingerprint,
    has_truth, image_sha256`` (of the BOLD image; empty for tables), and one column per quality figure, named
    ``quality_...``.

    Raises
    ------
    StoreError
        There is no store, it is empty, or its manifest is damaged.
    """
    fs, root = storage.open_filesystem(store)
    path = f"{root}/{FILE}"
    if not fs.exists(path):
        return _not_empty(_scan(fs, root), store)  # an ingest that was cut short: the recordings are there all the same
    try:
        manifest = pd.read_parquet(io.BytesIO(fs.cat_file(path)))
    except Exception as error:  # pyarrow raises its own kinds on a damaged file
        raise StoreError(f"{path}: damaged manifest ({error}); delete it: it is rebuilt from the recordings") from error
    known = "own_reason" in manifest  # else written by an earlier version: the recordings themselves know
    return _not_empty(_marked(manifest, fs, root) if known else _scan(fs, root), store)


def _not_empty(manifest: pd.DataFrame, store: str) -> pd.DataFrame:
    if manifest.empty:
        raise StoreError(
            f"{store}: no recording in this store; run `neurobolt ingest SITE --bids ROOT --store {store}`"
        )
    return manifest


def data_hash(manifest: pd.DataFrame) -> str:
    """First 12 hexadecimal digits of a SHA-256 over all recordings' keys and hashes, whatever the row order."""
    rows = sorted("/".join(map(str, row)) for row in manifest[[*KEYS, "sha256"]].itertuples(index=False))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()[:12]


def check_one_parcellation(manifest: pd.DataFrame) -> None:
    """Refuse recordings whose targets are different parcels.

    Raises
    ------
    StoreError
        Two or more parcellations, each named with its recordings.
    """
    groups = manifest.groupby(["parcellation_name", "parcellation_sha256", "parcels"], sort=True)
    if groups.ngroups <= 1:
        return
    found = []
    for identity, rows in groups:
        name, sha256, labels = (str(part) for part in identity)
        sites = sorted(set(rows["site"]))
        found.append(
            f"{name} ({len(json.loads(labels))} parcels, {sha256[:12]}) at {', '.join(sites)}, {rows['path'].iloc[0]}"
        )
    raise StoreError(
        f"the store holds {groups.ngroups} parcellations: "
        + "; ".join(found)
        + ". Ingest all sites with the same atlas"
    )


def check_distinct_images(manifest: pd.DataFrame) -> None:
    """Refuse what was made of the same images twice: two sites (raw and corrected EEG, say), or two keys of one site.

    Raises
    ------
    StoreError
        Two sites would train and test on the same people; of two keys one is a former name, or a copy.
    """
    if "image_sha256" not in manifest:  # written before this was known
        return
    images = manifest[manifest["image_sha256"] != ""]
    for _, rows in images.groupby("image_sha256", sort=True):
        sites = sorted(set(rows["site"]))
        if len(sites) > 1:
            raise StoreError(
                f"sites {' and '.join(sites)} were made of the same images ({', '.join(sorted(rows['path']))}): a "
                "study of both would train and test on the same people; name those to use in data.sites"
            )
        if len(rows) > 1:
            raise StoreError(
                f"recordings {' and '.join(sorted(rows['path']))} were made of the same image: one is a copy, or has "
                "the name of an earlier ingest; delete it from the store, or leave its files out with left_out of the "
                "site, and ingest again"
            )


def _scan(fs: Any, root: str) -> pd.DataFrame:
    paths = sorted(str(path) for path in fs.glob(f"{root}/*/*.zarr/{SEAL}"))
    rows = [_row(path, fs.cat_file(path)) for path in paths]
    manifest = pd.DataFrame(rows, columns=None if rows else COLUMNS)
    return _marked(manifest.sort_values(KEYS, ignore_index=True), fs, root)


def _marked(manifest: pd.DataFrame, fs: Any, root: str) -> pd.DataFrame:
    """The manifest with ``excluded`` and ``reason`` by the rules as they are now, and by the notes of the store."""
    noted = noted_reasons(fs, root)
    reasons = []
    for row in manifest.to_dict("records"):
        provenance = {"excluded": row["own_reason"], "alignment": {"verdict": row["verdict"]}}
        quality = {
            str(name).removeprefix(QUALITY): value for name, value in row.items() if str(name).startswith(QUALITY)
        }
        found = exclusion_reasons(provenance, quality, int(row["n_chans"]))
        reasons.append("; ".join(found + noted.get(str(row["path"]), [])))
    return manifest.assign(excluded=[bool(reason) for reason in reasons], reason=reasons)


def _row(path: str, content: bytes) -> dict[str, Any]:
    try:
        attributes = json.loads(content)["attributes"]
        return _facts(attributes) | _quality(attributes["quality"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: damaged attributes ({error!r}); delete this recording and ingest it again"
        ) from error


def _quality(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{QUALITY}{name}": math.nan if value is None else value for name, value in figures.items()}


def _facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    scanner = attributes["provenance"].get("scanner") or {}
    key, provenance, atlas = attributes["key"], attributes["provenance"], attributes["parcellation"]
    entities = (("sub", "subject"), ("ses", "session"), ("task", "task"), ("run", "run"))
    name = "_".join(f"{short}-{key[label]}" for short, label in entities if key[label])
    return {
        **key,
        "n_chans": len(attributes["ch_names"]),
        "ch_names": json.dumps(attributes["ch_names"]),
        "n_times": attributes["n_times"],
        "sfreq": attributes["sfreq"],
        "n_volumes": attributes["n_volumes"],
        "n_valid": attributes["n_valid"],
        "t_r": attributes["t_r"],
        # "Siemens" and "SIEMENS" are one maker; recordings of earlier versions know neither
        "manufacturer": str(scanner.get("manufacturer") or "").strip().lower(),
        "field_strength": float(scanner.get("field_strength") or math.nan),
        "population": str(provenance.get("population") or ""),
        "parcellation_name": atlas["name"],
        "parcellation_sha256": atlas["sha256"],
        "parcels": json.dumps(atlas["labels"]),
        "verdict": (provenance.get("alignment") or {}).get("verdict", "unverified"),
        "own_reason": str(provenance.get("excluded") or ""),
        "excluded": False,  # marked when all are known
        "reason": "",
        "path": f"{key['site']}/{name}.zarr",
        "sha256": attributes["sha256"],
        "fingerprint": attributes["fingerprint"],
        "has_truth": "truth" in attributes["arrays"],
        "image_sha256": next(
            (str(source["sha256"]) for source in provenance.get("sources", ()) if source["file"].endswith(IMAGES)), ""
        ),
    }
