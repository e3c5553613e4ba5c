"""Write quality pages of a store: one per recording, one per site, one for the consortium.

neurobolt quality --store store quality
neurobolt quality --store s3://bucket/store quality --sites ds002336 --recordings 'ds002336/sub-xp101*'

The pages are made from the store alone and need neither a server nor each other. OUT/index.html is the consortium's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import run_job
from xsite.data.manifest import read_manifest
from xsite.reports.quality_pages import write_pages


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        prog="neurobolt quality",
        description=(__doc__ or "").splitlines()[0],
        epilog="Example: neurobolt quality --store store quality --sites siteA",
    )
    p.add_argument("out", type=Path, metavar="OUT", help="folder for the pages")
    p.add_argument("--store", required=True, metavar="URL", help="shared-format store: folder or URL")
    p.add_argument("--sites", nargs="+", default=[], metavar="SITE", help="sites to write pages of (default: all)")
    p.add_argument(
        "--recordings",
        nargs="+",
        default=[],
        metavar="PATTERN",
        help="recordings, such as 'siteA/sub-01*' (default: all)",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, print what is excluded and where the first page is."""
    args = parser().parse_args(argv)
    index = write_pages(args.store, args.out, sites=args.sites, recordings=args.recordings, progress=_line)
    manifest = read_manifest(args.store)
    excluded = manifest[manifest["excluded"].astype(bool)]
    for row in excluded.itertuples(index=False):
        print(f"excluded {row.path}: {row.reason}")
    print(f"{len(manifest) - len(excluded)} of {len(manifest)} recordings may train\npages {index}")
    return 0


def _line(finished: int, total: int, text: str) -> None:
    print(f"[{finished}/{total}] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(run_job(main))
