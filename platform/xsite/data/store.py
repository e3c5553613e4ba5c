"""The shared format: one Zarr v3 group per recording, ``<store>/<site>/<BIDS entities>.zarr``.

The group's own ``zarr.json`` holds the attributes and a SHA-256 over arrays and attributes; it is written last, so a
group without it is no recording, for this reader and for any other. ``zarr.open_group`` reads the same files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore

from xsite.data import storage
from xsite.data.manifest import (
    SEAL,
    check_distinct_images,
    check_one_parcellation,
    data_hash,
    read_manifest,
    rebuild_manifest,
)
from xsite.data.versions import software_versions
from xsite.errors import StoreError
from xsite.recording import Float, Montage, Parcellation, Recording, RecordingKey

__all__ = [
    "FORMAT_VERSION",
    "check_distinct_images",
    "check_one_parcellation",
    "data_hash",
    "has_recording",
    "read_manifest",
    "read_recording",
    "rebuild_manifest",
    "recording_path",
    "write_recording",
]

FORMAT_VERSION = 1
CHUNK_S = 20.0
MAX_ROUNDING = 0.05  # microvolt; float16 resolves that below 128 microvolt
BITS = {"eeg_valid", "volume_valid"}


def recording_path(store: str, key: RecordingKey) -> str:
    """Where a recording lies, as a path or URL."""
    return f"{str(store).rstrip('/')}/{key.site}/{key.entities}.zarr"


def write_recording(store: str, recording: Recording, *, fingerprint: str) -> str:
    """Write one recording, all or nothing; a former version of it is replaced.

    Parameters
    ----------
    store : str
        Folder, or any fsspec URL.
    recording : Recording
    fingerprint : str
        Of its sources and settings (``prepare.input_fingerprint``): :func:`has_recording` compares it.

    Returns
    -------
    str
        Path or URL of the group.

    Raises
    ------
    StoreError
        No space left, or the store cannot be written to; nothing half-written stays behind.
    """
    fs, root = storage.open_filesystem(store)
    _describe_store(fs, root)
    arrays = _arrays(recording)
    attributes = _attributes(recording, fingerprint, arrays)
    attributes["sha256"] = _digest(arrays, attributes)
    buffers: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(buffers), zarr_format=3, attributes=attributes)
    for name, array in arrays.items():
        chunks = (len(array), round(CHUNK_S * recording.sfreq)) if name == "eeg" else array.shape
        group.create_array(
            name,
            data=array,
            chunks=tuple(max(1, n) for n in chunks),
            compressors=BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle"),
            attributes={"units": _units(name, recording)} if _units(name, recording) else {},
        )
    tree = {name: buffer.to_bytes() for name, buffer in buffers.items()}
    storage.write_tree(fs, f"{root}/{recording.key.site}/{recording.key.entities}.zarr", tree, seal=SEAL)
    return recording_path(store, recording.key)


def read_recording(store: str, key: RecordingKey, *, verify: bool = True) -> Recording:
    """Read one recording; EEG comes back as float32.

    Parameters
    ----------
    store : str
    key : RecordingKey
    verify : bool
        Compare the SHA-256 of what was read with the one that was written (about 3 ms per MB).

    Raises
    ------
    StoreError
        There is no such recording, a file of it is damaged or missing, or its hash differs.
    """
    path = recording_path(store, key)
    fs, root = storage.open_filesystem(store)
    tree = storage.read_tree(fs, f"{root}/{key.site}/{key.entities}.zarr", seal=SEAL)
    if tree is None:
        raise StoreError(f"{path}: no such recording in the store; run `neurobolt ingest` for site {key.site!r}")
    try:
        buffers = {name: cpu.Buffer.from_bytes(content) for name, content in tree.items()}
        group = zarr.open_group(MemoryStore(cast("Any", buffers), read_only=True), mode="r", zarr_format=3)
        attributes = cast("dict[str, Any]", dict(group.attrs))
        arrays = {name: np.asarray(cast("Any", group[name])[:]) for name in attributes["arrays"]}
    except Exception as error:  # zarr, its codecs and JSON raise all sorts on a damaged file
        raise StoreError(f"{path}: damaged ({type(error).__name__}: {error}); ingest this recording again") from error
    _check_format(path, attributes)
    if verify and _digest(arrays, attributes) != attributes["sha256"]:
        raise StoreError(f"{path}: its SHA-256 differs from the one written; ingest this recording again")
    return _recording(attributes, arrays)


def has_recording(store: str, key: RecordingKey, fingerprint: str) -> bool:
    """Tell whether a complete recording made from the same sources and settings is there."""
    fs, root = storage.open_filesystem(store)
    path = f"{root}/{key.site}/{key.entities}.zarr/{SEAL}"
    try:
        attributes = json.loads(fs.cat_file(path))["attributes"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(attributes.get("fingerprint") == fingerprint and attributes.get("format_version") == FORMAT_VERSION)


def _arrays(recording: Recording) -> dict[str, NDArray[Any]]:
    arrays = {
        "eeg": _smallest(recording.eeg),
        "eeg_valid": recording.eeg_valid.astype(bool),
        "bold": recording.bold.astype(np.float32),
        "global_signal": recording.global_signal.astype(np.float32),
        "confounds": recording.confounds.astype(np.float32),
        "volume_onsets": recording.volume_onsets.astype(np.float64),
        "volume_valid": recording.volume_valid.astype(bool),
    }
    if recording.truth is not None:
        arrays["truth"] = recording.truth.astype(np.float32)
    return arrays


def _smallest(eeg_CT: Float) -> NDArray[Any]:
    """Half precision where its rounding stays below 0.05 microvolt, else single."""
    single_CT = eeg_CT.astype(np.float32)
    if single_CT.size == 0 or np.abs(single_CT).max() < 65000:  # float16 ends at 65504
        half_CT = single_CT.astype(np.float16)
        if np.abs(half_CT.astype(np.float32) - single_CT).max(initial=0.0) < MAX_ROUNDING:
            return half_CT
    return single_CT


def _units(name: str, recording: Recording) -> str:
    bold = recording.bold_units
    return {"eeg": "uV", "bold": bold, "truth": bold, "global_signal": bold, "volume_onsets": "s"}.get(name, "")


def _attributes(recording: Recording, fingerprint: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    key, atlas = recording.key, recording.parcellation
    content = {
        "format_version": FORMAT_VERSION,
        "fingerprint": fingerprint,
        "key": {n: getattr(key, n) for n in ("site", "subject", "session", "task", "run")},
        "ch_names": recording.ch_names,
        "positions": recording.montage.positions,
        "parcellation": {"name": atlas.name, "labels": atlas.labels, "space": atlas.space, "sha256": atlas.sha256},
        "confound_names": recording.confound_names,
        "sfreq": recording.sfreq,
        "t_r": recording.t_r,
        "bold_units": recording.bold_units,
        "n_times": recording.eeg.shape[1],
        "n_volumes": recording.n_volumes,
        "n_valid": int(recording.volume_valid.sum()),
        "provenance": recording.provenance,
        "quality": recording.quality,
        "arrays": sorted(arrays),
    }
    return cast("dict[str, Any]", _plain(content))


def _plain(value: Any) -> Any:
    """JSON without NaN: strict parsers refuse it, and the hash must survive a round trip."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _digest(arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> str:
    content = {name: item for name, item in attributes.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def _check_format(path: str, attributes: Mapping[str, Any]) -> None:
    found = attributes.get("format_version")
    if found != FORMAT_VERSION:
        raise StoreError(f"{path}: shared format version {found}, this program reads {FORMAT_VERSION}: ingest it again")


def _recording(attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Recording:
    names = tuple(attributes["ch_names"])
    positions = np.array(attributes["positions"], dtype=float).reshape(len(names), 3)
    atlas = attributes["parcellation"]
    return Recording(
        key=RecordingKey(**attributes["key"]),
        montage=Montage(names, positions),
        parcellation=Parcellation(atlas["name"], tuple(atlas["labels"]), atlas["space"], atlas["sha256"]),
        eeg=arrays["eeg"].astype(np.float32),
        eeg_valid=arrays["eeg_valid"],
        bold=arrays["bold"],
        global_signal=arrays["global_signal"],
        confounds=arrays["confounds"],
        confound_names=tuple(attributes["confound_names"]),
        volume_onsets=arrays["volume_onsets"],
        volume_valid=arrays["volume_valid"],
        sfreq=attributes["sfreq"],
        t_r=attributes["t_r"],
        bold_units=attributes["bold_units"],
        truth=arrays.get("truth"),
        provenance=attributes["provenance"],
        quality=attributes["quality"],
    )


def _describe_store(fs: Any, root: str) -> None:
    path = f"{root}/dataset_description.json"
    if fs.exists(path):
        return
    description = {
        "Name": "Simultaneous EEG-fMRI in the shared format of neurobolt-xsite",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "neurobolt-xsite", "Version": software_versions()["neurobolt-xsite"]}],
    }
    storage.write_file(fs, path, json.dumps(description, indent=2).encode())
