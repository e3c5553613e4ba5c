"""Time of ``neurobolt site check`` on 20 minutes of 64 channels at 5 kHz: ``python -m benchmarks.site_check``."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.gradient import SFREQ, T_R, write_scan
from xsite.data.site_check import check_site
from xsite.phantom.atlas import LABELS, NAME, SPACE, atlas_image
from xsite.recording import Parcellation
from xsite.reports.site_check_page import site_check_page
from xsite.signals.parcels import Atlas
from xsite.site import Site

REPEATS = 3


def lines() -> Iterator[str]:
    """Seconds from the facts to the finished page."""
    site = Site("bench", SFREQ, T_R, 50, "R128", eeg_state="raw", bold_space="template")
    atlas = Atlas(Parcellation(NAME, tuple(LABELS), SPACE, "0" * 64), atlas_image())
    with tempfile.TemporaryDirectory() as name:
        write_subject(Path(name))
        yield "site check of a 20-minute scan, 64 channels x 5000 Hz, page included"
        for _ in range(REPEATS):
            start, cpu = time.perf_counter(), time.process_time()
            check = check_site(site, Path(name), atlas)
            site_check_page(check)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            failed = sum(one.state == "fail" for one in check.checks)
            yield f"  {seconds:.1f} s ({cpu_seconds:.1f} s of CPU), peak {peak:.2f} GiB, {failed} checks failed"


def write_subject(root: Path) -> None:
    """The benchmark's scan under BIDS names."""
    eeg, func = root / "sub-01" / "eeg", root / "sub-01" / "func"
    eeg.mkdir(parents=True)
    func.mkdir()
    write_scan(eeg)
    (eeg / "scan.vhdr").rename(eeg / "sub-01_task-rest_eeg.vhdr")
    (eeg / "scan_bold.nii.gz").rename(func / "sub-01_task-rest_bold.nii.gz")


if __name__ == "__main__":
    for line in lines():
        print(line, flush=True)
