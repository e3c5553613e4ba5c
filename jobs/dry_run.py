"""``neurobolt ingest --dry-run``: which files belong together, which do not and why, before anything is read."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from xsite.data.bids import pair_files
from xsite.data.left_out import gathered
from xsite.data.pairing import Pairing
from xsite.data.pairing_table import PAIRED, PairRow, pairing_table, summary
from xsite.errors import SiteError
from xsite.site import Site

COLUMNS = ("recording", "status", "EEG s", "volumes", "EEG", "BOLD", "why")


def dry_run(sites: Sequence[tuple[Site, Path]]) -> int:
    """Print the pairing table of some sites; needs neither store nor cluster.

    Returns
    -------
    int
        0 when every site has a pair, else 1.
    """
    complete = True
    for site, root in sites:
        rows = pairing_table(_pairing(site, root), root, site)
        _print(rows, site)
        print(summary(rows, site), flush=True)
        complete &= any(row.status == PAIRED for row in rows)
    return 0 if complete else 1


def _pairing(site: Site, root: Path) -> Pairing:
    """Pairs of the site's own function, with what it logs as left out; or of the BIDS default."""
    if site.find_recordings is None:
        return pair_files(root, site)
    with gathered() as left_out:
        try:
            recordings = site.find_recordings(root, site)
        except SiteError as error:
            print(f"{site.name}: {error}", file=sys.stderr)
            recordings = []
    return Pairing(recordings, left_out)


def _print(rows: Sequence[PairRow], site: Site) -> None:
    cells = [_cells(row) for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(*COLUMNS, title=f"{site.name}: dry run, nothing is written")
        for row, texts in zip(rows, cells, strict=True):
            table.add_row(*texts, style="" if row.status == PAIRED else "dim")
        Console().print(table, markup=False)
        return
    widths = [max(len(text) for text in column) for column in zip(COLUMNS, *cells, strict=True)]
    for texts in (COLUMNS, *cells):
        print("  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True)).rstrip())


def _cells(row: PairRow) -> tuple[str, ...]:
    seconds = "" if row.eeg_seconds is None else f"{row.eeg_seconds:.1f}"
    volumes = "" if row.n_volumes is None else str(row.n_volumes)
    names = (row.eeg.rpartition("/")[2], row.bold.rpartition("/")[2])
    return row.recording, row.status, seconds, volumes, *(name or "-" for name in names), row.reason
