"""Bring one site's raw recordings into the shared-format store.

Look:     python -m jobs.ingest mysite.yaml --bids /data/mysite --dry-run
Phantom:  python -m jobs.ingest all --bids demo/bids --store demo/store
Own site: python -m jobs.ingest mysite.yaml --bids /data/mysite --store /data/store --atlas difumo64
Sites:    python -m jobs.ingest all --bids /data --store /data/store    (folders of /data named like known sites)
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
from jobs.dry_run import dry_run
from site_adapters import SITES, get_site
from site_adapters.phantom_sites import phantom_sites
from xsite.errors import SiteError
from xsite.runtime import cluster
from xsite.runtime.ingest import IngestReport, Progress, ingest_sites
from xsite.site import Site
from xsite.spelling import counted

EXAMPLE = """example:
  neurobolt ingest mysite.yaml --bids /data/mysite --dry-run
  neurobolt ingest all --bids demo/bids --store demo/store
  neurobolt ingest mysite.yaml --bids /data/mysite --store /data/store --atlas /data/difumo64.nii.gz"""


def parser() -> argparse.ArgumentParser:
    """Options of the verb."""
    p = argparse.ArgumentParser(
        "neurobolt ingest", description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(SITES)
    p.add_argument(
        "site",
        metavar="SITE",
        help=f"{known}; a YAML file of a site's facts; or all: those with a folder of their name",
    )
    p.add_argument("--bids", required=True, type=Path, metavar="ROOT", help="the site's BIDS folder (or the phantom's)")
    p.add_argument("--store", metavar="URL", help="folder or fsspec URL of the shared-format store")
    p.add_argument(
        "--dry-run", action="store_true", help="only print which files belong together, and why others do not"
    )
    p.add_argument(
        "--atlas",
        metavar="NAME|FILE",
        help="difumo64, schaefer100, power264, ... (fetched by nilearn), or a NIfTI atlas with its .tsv; default: that "
        "of a phantom",
    )
    p.add_argument("--address", default=os.environ.get("RAY_ADDRESS"), help="Ray cluster (default: a private one)")
    p.add_argument("--cpus", type=int, help="cores of a private cluster (default: all)")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; 1 when recordings failed, or when a dry run finds no pair."""
    args = parser().parse_args(argv)
    if not args.dry_run and args.store is None:
        parser().error("--store is needed (or --dry-run, to look only)")
    sites, atlas = find_sites(args.site, args.bids, args.atlas)
    if args.dry_run:
        return dry_run(sites)
    with cluster.connected(args.address, args.cpus) as info, progress_lines() as progress:
        print(info, flush=True)
        report = ingest_sites(sites, args.store, atlas, progress=progress)
    return _tell(report, args.store)


def find_sites(name: str, root: Path, atlas: str | None) -> tuple[list[tuple[Site, Path]], str | Path | None]:
    """Sites with their BIDS roots, and the atlas.

    Raises
    ------
    SiteError
        No such site or folder.
    """
    if not root.is_dir():
        raise SiteError(f"--bids {root}: no such folder")
    if (root / "consortium.json").is_file():
        sites = phantom_sites(root)
        if name != "all" and name not in sites:
            raise SiteError(f"{root}: no phantom site {name!r}; there are {', '.join(sites)}, or all")
        chosen = [(site, root / site.name) for site in sites.values() if name in ("all", site.name)]
        return chosen, atlas or _atlas_in(root)
    if name == "all":
        chosen = [(site, root / known) for known, site in SITES.items() if (root / known).is_dir()]
        if not chosen:
            raise SiteError(
                f"--bids {root}: 'all' takes the folders named like a known site ({', '.join(SITES)}) or those of a "
                "phantom consortium (no consortium.json here), and there is none; name the site"
            )
    else:
        chosen = [(get_site(name, root), root)]
    return chosen, atlas or next(filter(None, (_phantom_atlas(site, folder) for site, folder in chosen)), None)


def _phantom_atlas(site: Site, folder: Path) -> Path | None:
    """The atlas of a phantom of a real site, which its truth beside it betrays."""
    beside = folder.resolve().parent
    return _atlas_in(beside) if (beside / f"{site.name}.truth.json").is_file() else None


def _atlas_in(folder: Path) -> Path | None:
    return next(iter(sorted((folder / "atlas").glob("*.nii.gz"))), None)


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
    print(f"{store}: {counted(len(report.done), 'recording')} written, {len(report.skipped)} were there", flush=True)
    if report.failed:
        n_sites = sum("/" not in key for key in report.failed)  # without a single recording
        words = f"{counted(len(report.failed) - n_sites, 'recording')} failed" + (
            f", {counted(n_sites, 'site has', 'sites have')} none" if n_sites else ""
        )
        print(f"{words}:", file=sys.stderr)
        for key, message in sorted(report.failed.items()):
            print(f"  {key}: {message}", file=sys.stderr)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(run_job(main))
