"""Which software made a file: for provenance, so that a figure can be traced to its code."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("neurobolt-xsite", "numpy", "scipy", "mne", "mne-bids", "nibabel", "nilearn", "zarr")


@cache
def software_versions() -> dict[str, str]:
    """Version of every package that touches the signals; ``uninstalled`` for a source tree on the path."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "uninstalled"
