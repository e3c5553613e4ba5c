"""Which folders hold our code: what a cluster needs, found from the imported packages.

Works from any folder and from an installed wheel. Never a ``working_dir``: it would put a repository's root first on
every worker's path, where the folder ``platform`` shadows a standard module and a second copy of our code waits.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from xsite.errors import ClusterError

PACKAGES = ("neurobolt", "xsite", "site_adapters", "jobs")


def package_folders() -> list[Path]:
    """Absolute folder of each of our packages.

    Raises
    ------
    ClusterError
        One of them cannot be imported here.
    """
    folders = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)  # found, not imported: xsite itself never loads the model
        if spec is None or not spec.submodule_search_locations:
            raise ClusterError(f"package {name!r} is not importable here, so it cannot be shipped to the cluster")
        folders.append(Path(next(iter(spec.submodule_search_locations))).resolve())
    return folders
