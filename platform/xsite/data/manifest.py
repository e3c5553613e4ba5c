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
    "parcellation_name",
    "parcellation_sha256",
    "parcels",
    "verdict",
    "excluded",
    "reason",
    "path",
    "sha256",
    "fingerprint",
    "has_truth",
    "image_sha256",
]
IMAGES = (".nii", ".nii.gz")


def rebuild_manifest(store: str) -> pd.DataFrame:
    """Read every complete recording's attributes and write ``manifest.parquet`` anew, atomically.

    What must not train is marked here (:mod:`xsite.data.exclusion`), with every reason.

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
    parcellation_name, parcellation_sha256, parcels`` (JSON list)``, verdict, excluded, reason, path`` (below the
    store)``, sha256, fingerprint, has_truth, image_sha256`` (of the BOLD image; empty for tables), and one column per
    quality figure, named ``quality_...``.

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
    return _not_empty(manifest, store)


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
    """Refuse two sites that were made of the same images: two readings of one data set, such as raw and corrected EEG.

    Raises
    ------
    StoreError
        They would train and test on the same people.
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


def _scan(fs: Any, root: str) -> pd.DataFrame:
    paths = sorted(str(path) for path in fs.glob(f"{root}/*/*.zarr/{SEAL}"))
    rows = [_row(path, fs.cat_file(path)) for path in paths]
    manifest = pd.DataFrame(rows, columns=None if rows else COLUMNS)
    return manifest.sort_values(KEYS, ignore_index=True)


def _row(path: str, content: bytes) -> dict[str, Any]:
    try:
        attributes = json.loads(content)["attributes"]
        return _facts(attributes) | _quality(attributes["quality"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: damaged attributes ({error!r}); delete this recording and ingest it again"
        ) from error


def _quality(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"quality_{name}": math.nan if value is None else value for name, value in figures.items()}


def _facts(attributes: Mapping[str, Any]) -> dict[str, Any]:
    key, provenance, atlas = attributes["key"], attributes["provenance"], attributes["parcellation"]
    reason = "; ".join(exclusion_reasons(provenance, attributes["quality"], len(attributes["ch_names"])))
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
        "parcellation_name": atlas["name"],
        "parcellation_sha256": atlas["sha256"],
        "parcels": json.dumps(atlas["labels"]),
        "verdict": (provenance.get("alignment") or {}).get("verdict", "unverified"),
        "excluded": bool(reason),
        "reason": reason,
        "path": f"{key['site']}/{name}.zarr",
        "sha256": attributes["sha256"],
        "fingerprint": attributes["fingerprint"],
        "has_truth": "truth" in attributes["arrays"],
        "image_sha256": next(
            (str(source["sha256"]) for source in provenance.get("sources", ()) if source["file"].endswith(IMAGES)), ""
        ),
    }
