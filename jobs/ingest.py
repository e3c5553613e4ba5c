"""Bring one site's raw recordings into the shared-format store.

Phantom:  python -m jobs.ingest all --bids demo/bids --store demo/store
Own site: python -m jobs.ingest mysite.yaml --bids /data/mysite --store /data/store --atlas difumo64.nii.gz
Cluster:  add --address auto (or submit it: python -m jobs.submit ingest ...)

A second run skips what is there. A recording that cannot be used is listed at the end, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.cli import run_job
from site_adapters import SITES, get_site
from site_adapters.phantom_sites import phantom_sites
from xsite.errors import SiteError
from xsite.runtime import cluster
from xsite.runtime.ingest import IngestReport, Progress, ingest_sites
from xsite.site import Site

EXAMPLE = """example:
  neurobolt ingest all --bids demo/bids --store demo/store
  neurobolt ingest mysite.yaml --bids /data/mysite --store /data/store --atlas /data/difumo64.nii.gz"""


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        "neurobolt ingest", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(SITES)
    p.add_argument(
        "site", metavar="SITE", help=f"{known}; a YAML file of a site's facts; or, of a phantom, a name or all"
    )
    p.add_argument("--bids", required=True, type=Path, metavar="ROOT", help="the site's BIDS folder (or the phantom's)")
    p.add_argument("--store", required=True, metavar="URL", help="folder or fsspec URL of the shared-format store")
    p.add_argument("--atlas", type=Path, metavar="FILE", help="NIfTI atlas with its .tsv (default: the phantom's own)")
    p.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Ray cluster (default: a private one)")
    p.add_argument("--cpus", type=int, help="cores of a private cluster (default: all)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 1 when recordings failed."""
    args = parser().parse_args(argv)
    sites, atlas = find_sites(args.site, args.bids, args.atlas)
    with cluster.connected(args.address, args.cpus) as info, progress_lines() as progress:
        print(info, flush=True)
        report = ingest_sites(sites, args.store, atlas, progress=progress)
    return _tell(report, args.store)


def find_sites(name: str, root: Path, atlas: Path | None) -> tuple[list[tuple[Site, Path]], Path | None]:
    """Sites with their BIDS roots, and the atlas.

    Raises
    ------
    SiteError
        No such site or folder.
    """
    if not root.is_dir():
        raise SiteError(f"--bids {root}: no such folder")
    if not (root / "consortium.json").is_file():
        if name == "all":
            raise SiteError(
                f"--bids {root}: 'all' is for a phantom consortium (no consortium.json here); name the site"
            )
        return [(get_site(name), root)], atlas
    sites = phantom_sites(root)
    if name != "all" and name not in sites:
        raise SiteError(f"{root}: no phantom site {name!r}; there are {', '.join(sites)}, or all")
    chosen = [(site, root / site.name) for site in sites.values() if name in ("all", site.name)]
    return chosen, atlas or next(iter(sorted((root / "atlas").glob("*.nii.gz"))), None)


@contextmanager
def progress_lines() -> Iterator[Progress]:
    """A bar on a terminal, one plain line per recording elsewhere."""
    if not sys.stdout.isatty():
        yield lambda finished, total, text: print(f"[{finished}/{total}] {text}", flush=True)
        return
    from rich.progress import Progress as Bar

    with Bar() as bar:
        row = bar.add_task("ingest", total=None)
        yield lambda finished, total, text: bar.update(row, completed=finished, total=total, description=text)


def _tell(report: IngestReport, store: str) -> int:
    print(f"{store}: {len(report.done)} recordings written, {len(report.skipped)} were there", flush=True)
    if report.failed:
        print(f"{len(report.failed)} recordings failed:", file=sys.stderr)
        for key, message in sorted(report.failed.items()):
            print(f"  {key}: {message}", file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(run_job(main))
