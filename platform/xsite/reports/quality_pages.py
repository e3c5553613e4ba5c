"""Every quality page of a store, written into one folder: ``index.html``, ``<site>/index.html``, one per recording."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from xsite.data.attributes import Attributes, read_attributes
from xsite.data.left_out import read_left_out
from xsite.data.manifest import read_manifest
from xsite.data.refused import read_refused
from xsite.data.store import read_recording
from xsite.errors import StoreError
from xsite.reports.consortium_page import consortium_page
from xsite.reports.recording_page import recording_page
from xsite.reports.site_page import file_name, site_page

Progress = Callable[[int, int, str], None]


def write_pages(
    store: str,
    out: str | Path,
    *,
    sites: Sequence[str] = (),
    recordings: Sequence[str] = (),
    progress: Progress = lambda finished, total, text: None,
) -> Path:
    """Write the pages of a store, each all or nothing; nothing but the store is read.

    Parameters
    ----------
    store : str
        Folder or URL.
    out : str or Path
        Folder for the pages.
    sites : sequence of str
        Sites whose pages are written; empty means all. The consortium's page always shows the whole store.
    recordings : sequence of str
        Patterns such as ``siteA/sub-01*`` of recordings whose own pages are written; empty means all.
    progress : callable
        Called as ``progress(finished, total, text)`` after every page of a recording.

    Returns
    -------
    Path
        The consortium's page.

    Raises
    ------
    StoreError
        There is no such store, site or recording, a recording is damaged, or a page cannot be written.
    """
    every = read_attributes(store, read_manifest(store))
    by_site: dict[str, list[Attributes]] = {}
    for item in every:
        by_site.setdefault(item.key.site, []).append(item)
    unknown = sorted(set(sites) - set(by_site))
    if unknown:
        raise StoreError(f"{store}: no site {', '.join(unknown)}; it holds {', '.join(by_site)}")
    chosen = [site for site in by_site if not sites or site in sites]
    wanted = [item for site in chosen for item in by_site[site] if _matches(item, recordings)]
    if not wanted:
        raise StoreError(f"{store}: no recording matches {list(recordings)}; one is called {every[0].key}")
    folder = Path(out)
    refused, left_out = read_refused(store), read_left_out(store)
    for finished, item in enumerate(wanted, start=1):
        content = recording_page(read_recording(store, item.key), item)
        _write(folder / item.key.site / file_name(item), content)
        progress(finished, len(wanted), str(item.key))
    linked = {site: _pages(folder / site, items) for site, items in by_site.items()}
    for site in chosen:
        content = site_page(site, by_site[site], refused.get(site, {}), left_out.get(site, {}), linked[site])
        _write(folder / site / "index.html", content)
    linked = {site: names for site, names in linked.items() if (folder / site / "index.html").is_file()}
    index = folder / "index.html"
    _write(index, consortium_page(by_site, refused, linked))
    return index


def _pages(folder: Path, items: Sequence[Attributes]) -> set[str]:
    return {item.key.entities for item in items if (folder / file_name(item)).is_file()}


def _matches(item: Attributes, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(str(item.key), pattern) for pattern in patterns)


def _write(path: Path, content: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(content, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error}); free some space or choose another folder") from error
    finally:
        if partial.is_file():
            partial.unlink()
