"""One file per site; ``SITES`` names them. A private site needs no code: write a YAML file with its facts."""

from __future__ import annotations

import difflib
from pathlib import Path

from site_adapters import vanderbilt
from site_adapters.phantom_sites import phantom_sites
from xsite.errors import SiteError
from xsite.site import Site, load_site

__all__ = ["SITES", "get_site"]

SITES: dict[str, Site] = {
    "vanderbilt": vanderbilt.SITE,
}


def get_site(name: str | Path, bids_root: str | Path | None = None) -> Site:
    """Site by its name, or from a YAML file of its facts.

    Parameters
    ----------
    name : str or Path
    bids_root : str or Path, optional
        Where its files lie; inside a phantom consortium this makes the consortium's own sites known.

    Raises
    ------
    SiteError
        No such site (with "did you mean"), or :func:`xsite.site.load_site` refuses the file.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        return load_site(text)
    known = SITES | _phantoms(bids_root)
    if text in known:
        return known[text]
    near = difflib.get_close_matches(text, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SiteError(f"no site named {text!r}; {hint}Known: {', '.join(known)}; or pass a YAML file of the site's facts")


def _phantoms(bids_root: str | Path | None) -> dict[str, Site]:
    folders = () if bids_root is None else (Path(bids_root), Path(bids_root).resolve().parent)
    consortium = next((folder for folder in folders if (folder / "consortium.json").is_file()), None)
    return {} if consortium is None else phantom_sites(consortium)
