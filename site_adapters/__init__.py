"""One file per site; ``SITES`` names them. A private site needs no code: write a YAML file with its facts."""

from __future__ import annotations

import difflib
from pathlib import Path

from site_adapters import (
    ds000116,
    ds002158,
    ds002336,
    ds002338,
    ds002725,
    ds002734,
    ds002739,
    ds003574,
    ds003768,
    ds004478,
    ds005127,
    ds006040,
    natview,
    noddi,
    unam_egi,
    vanderbilt,
)
from site_adapters.phantom_sites import phantom_sites
from xsite.data.site_file import load_site
from xsite.errors import SiteError
from xsite.phantom.like import LikeSite
from xsite.site import Site

__all__ = ["LIKES", "SIDECAR_FOLDERS", "SITES", "get_like", "get_site"]

SITES: dict[str, Site] = {
    "vanderbilt": vanderbilt.SITE,
    "ds002336": ds002336.SITE,
    "ds002336_pp": ds002336.SITE_PP,
    "ds002338": ds002338.SITE,
    "ds002338_pp": ds002338.SITE_PP,
    "ds002158": ds002158.SITE,
    "ds002725": ds002725.SITE,
    "ds003768": ds003768.SITE,
    "ds006040": ds006040.SITE,
    "natview": natview.SITE,
    "ds003574": ds003574.SITE,
    "noddi": noddi.SITE,
    "noddi_raw": noddi.SITE_RAW,
    "ds004478": ds004478.SITE,
    "ds005127": ds005127.SITE,
    "ds000116": ds000116.SITE,
    "ds002734": ds002734.SITE,
    "ds002739": ds002739.SITE,
    "unam_egi": unam_egi.SITE,
    "unam_egi_at_scan": unam_egi.SITE_AT_SCAN,
}
LIKES: dict[str, LikeSite] = {
    "ds002336": ds002336.LIKE,
    "ds002336_pp": ds002336.LIKE_PP,
    "ds002338": ds002338.LIKE,
    "ds002338_pp": ds002338.LIKE_PP,
    "ds002158": ds002158.LIKE,
    "ds002725": ds002725.LIKE,
    "ds003768": ds003768.LIKE,
    "ds006040": ds006040.LIKE,
    "natview": natview.LIKE,
    "ds003574": ds003574.LIKE,
    "noddi": noddi.LIKE,
    "noddi_raw": noddi.LIKE_RAW,
    "ds004478": ds004478.LIKE,
    "ds005127": ds005127.LIKE,
    "ds000116": ds000116.LIKE,
    "ds002734": ds002734.LIKE,
    "ds002739": ds002739.LIKE,
    "unam_egi": unam_egi.LIKE,
    "unam_egi_at_scan": unam_egi.LIKE_AT_SCAN,
}
"""Phantoms of real sites (``neurobolt phantom --like SITE OUT``)."""

SIDECAR_FOLDERS: dict[str, str] = {
    "ds002336_pp": "ds002336",
    "ds002338_pp": "ds002338",
    "noddi": "noddi-osf-94c5t",
    "noddi_raw": "noddi-osf-94c5t",
}
"""Folder of a site's real sidecars where it is not called like the site."""


def get_like(name: str) -> LikeSite:
    """Phantom of a site by the site's name.

    Raises
    ------
    SiteError
        No such site, or none of which a phantom is known (with "did you mean").
    """
    if name in LIKES:
        return LIKES[name]
    near = difflib.get_close_matches(name, LIKES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SiteError(
        f"no phantom of a site named {name!r}; {hint}Known: {', '.join(LIKES)}; or pass a folder of sidecars"
    )


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
        No such site (with "did you mean"), or :func:`xsite.data.site_file.load_site` refuses the file.
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
