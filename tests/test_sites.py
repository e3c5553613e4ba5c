"""Every adapter on the phantom of its site: channels, units, alignment, volumes kept, and the site's own faults.

A new site is one line in ``site_adapters.LIKES`` and one row of ``EXPECTED``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from site_adapters import LIKES, SITES
from xsite.data.bids import find_recordings, pair_files
from xsite.data.prepare import prepare_recording
from xsite.errors import RecordingError, SiteError
from xsite.phantom.like import LikeTruth, write_like
from xsite.recording import Recording
from xsite.signals.parcels import Atlas, load_atlas
from xsite.site import RecordingFiles


@dataclass(frozen=True)
class Expected:
    """What the adapter must make of a site, written down apart from its facts.

    ``folder`` is the site's name under ``../shared/sites``; ``subjects`` and ``runs`` limit the phantom.
    """

    n_eeg: int
    first: tuple[str, ...]
    last: str
    folder: str = ""
    subjects: int | None = None
    runs: int | None = 1
    volumes: int = 40
    slow: bool = False


EXPECTED: dict[str, Expected] = {
    "ds002336": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "ds002336", volumes=24),
    "ds002336_pp": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "ds002336", runs=2),
    "ds002338": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "ds002338", subjects=4),
    "ds002338_pp": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "ds002338", subjects=1),
    "ds002158": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "ds002158", subjects=3, volumes=22),
    "ds002725": Expected(31, ("Fp1", "Fp2", "F3"), "POz", "ds002725", subjects=2, runs=2),
    "ds003768": Expected(31, ("Fp1", "Fp2", "F3"), "POz", "ds003768", subjects=2, volumes=24),
    "ds006040": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "ds006040", subjects=2, volumes=20),
    "natview": Expected(61, ("Fp1", "Fp2", "F3"), "CPz", runs=2, volumes=24),
    "ds003574": Expected(64, ("Fp1", "AFz", "AF3"), "O10", "ds003574", subjects=2, runs=2),
    "noddi": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "noddi-osf-94c5t", subjects=2, runs=2),
    "noddi_raw": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "noddi-osf-94c5t", subjects=1, volumes=10),
    "ds004478": Expected(1, ("occipital",), "occipital", "ds004478", subjects=2, runs=2, volumes=100),
    "ds005127": Expected(63, ("Fp1", "Fp2", "F3"), "CPz", "ds005127", subjects=1, volumes=20),
    "ds000116": Expected(43, ("pair01", "pair02", "pair03"), "pair43", volumes=30),
    "ds002734": Expected(63, ("el01", "el02", "el03"), "el63", "ds002734", subjects=1, volumes=20),
    "ds002739": Expected(61, ("el01", "el02", "el03"), "el63", "ds002739", subjects=1, volumes=20),
    "unam_egi": Expected(32, ("E1", "E2", "E3"), "E32", runs=1, volumes=10),
    "unam_egi_at_scan": Expected(32, ("E1", "E2", "E3"), "E32", runs=1, volumes=24),
}
CASES = [
    pytest.param((name, real), id=f"{name}-{'sidecars' if real else 'facts'}", marks=[pytest.mark.slow] * row.slow)
    for name, row in EXPECTED.items()
    for real in (False, True)
    if row.folder or not real
]


@dataclass(frozen=True, eq=False)
class Phantom:
    """A written phantom, what is true of it, and what the adapter made of it."""

    name: str
    root: Path
    atlas: Atlas
    truths: dict[str, LikeTruth]
    found: dict[str, RecordingFiles]
    refused: str

    @cache  # noqa: B019  # one instance per test
    def prepared(self, key: str) -> Recording | RecordingError:
        try:
            return prepare_recording(site=SITES[self.name], files=self.found[key], atlas=self.atlas)
        except RecordingError as error:
            return error


@pytest.fixture(scope="module")
def phantom(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    name, real = request.param
    row, like = EXPECTED[name], LIKES[name]
    sidecars = Path(__file__).parents[2] / "shared" / "sites" / row.folder if real else None
    if sidecars is not None and not sidecars.is_dir():
        pytest.skip(f"shared/sites/{row.folder} not found")
    out = tmp_path_factory.mktemp(name)
    written = write_like(
        like, out, sidecars=sidecars, subjects=row.subjects, max_volumes=row.volumes, max_runs=row.runs, seed=1
    )
    root, refused, found = out / name, "", []
    try:
        found = (like.site.find_recordings or find_recordings)(root, like.site)
    except SiteError as error:
        refused = str(error)
    atlas = load_atlas(out / "atlas" / "phantom-16.nii.gz")
    truths = {str(truth.run.key): truth for truth in written}
    return Phantom(name, root, atlas, truths, {str(files.key): files for files in found}, refused)


sites = pytest.mark.parametrize("phantom", CASES, indirect=True)


def test_every_site_has_an_expectation() -> None:
    assert set(EXPECTED) == set(LIKES)
    assert set(LIKES) <= set(SITES)
    assert all(LIKES[name].site is SITES[name] for name in LIKES)


@sites
def test_site(phantom: Phantom) -> None:
    row, like = EXPECTED[phantom.name], LIKES[phantom.name]
    paired = {key for key, truth in phantom.truths.items() if truth.run.paired}
    usable = {key for key in paired if "rejected" not in phantom.truths[key].run.verdicts}
    assert usable <= set(phantom.found) <= paired
    for key in phantom.found:
        truth, got = phantom.truths[key], phantom.prepared(key)
        if key not in usable:
            assert isinstance(got, RecordingError), f"{key} was taken although {truth.run.triggers}"
            assert truth.run.reason in str(got)
            continue
        assert isinstance(got, Recording), str(got)
        check_recording(got, truth, like.rate)
        assert len(got.ch_names) == row.n_eeg
        assert (got.ch_names[:3], got.ch_names[-1]) == (row.first, row.last)
        if like.site.ch_names:  # else the names stand in the headers only
            assert got.ch_names == (like.site.ch_names or tuple(n for n in like.ch_names if like.kind(n) == "eeg"))
        assert not like.site.unusable or got.provenance["excluded"] == like.site.unusable
    check_left_out(phantom, paired - set(phantom.found))


def check_recording(got: Recording, truth: LikeTruth, rate: float) -> None:
    """Units, alignment to within one sample of the published EEG, number of volumes, verdict."""
    facts = got.provenance["alignment"]
    first, beyond = truth.kept
    kept = np.zeros(truth.run.n_volumes, bool)
    kept[first:beyond] = True
    assert facts["verdict"] in truth.run.verdicts, facts["evidence"]
    np.testing.assert_array_equal(got.volume_valid, kept)
    error_s = got.volume_onsets[kept] - facts["start_time"] - truth.triggers_V[kept]
    assert np.abs(error_s).max() * rate < 1.0, facts["evidence"]
    assert 2.0 < np.median(got.eeg.std(1)) < 100.0  # microvolt, artifacts gone
    assert abs(got.eeg.shape[1] / got.sfreq - truth.duration_s) < 0.1
    assert got.bold.shape == (truth.run.n_volumes, 16)
    assert 0.1 < np.nanmedian(got.bold.std(0)) < 10.0  # percent signal change


def check_left_out(phantom: Phantom, refused: set[str]) -> None:
    """Runs without a partner, or not usable, are left out with their reason."""
    unpaired = [truth.run for key, truth in phantom.truths.items() if not truth.run.paired or key in refused]
    if not unpaired:
        return
    site = SITES[phantom.name]
    reasons = phantom.refused
    if site.find_recordings is None:
        left_out = pair_files(phantom.root, site).unpaired
        reasons += " ".join(f"{path.name}: {reason}" for path, reason in left_out.items())
    for run in unpaired:
        assert str(run.key) not in phantom.found
        if site.find_recordings is None:
            assert run.reason in reasons, f"{run.key}: {reasons}"


@sites
def test_truth_file_holds_what_was_written(phantom: Phantom) -> None:
    content = json.loads((phantom.root.parent / f"{phantom.name}.truth.json").read_text())
    assert set(content) == set(phantom.truths)
    for key, truth in phantom.truths.items():
        np.testing.assert_allclose(content[key]["triggers"], truth.triggers_V, atol=1e-6)
        for path in (truth.run.eeg, truth.run.bold):
            assert path is None or (phantom.root / path).is_file()


def test_real_sidecars_are_copied_as_they_are(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    real = shared_data("sites/ds003574")
    write_like(LIKES["ds003574"], tmp_path, sidecars=real, subjects=1, max_volumes=20)
    for name in ("README", "task-rest_bold.json", "sub-05/eeg/sub-05_task-rest_channels.tsv"):
        assert (tmp_path / "ds003574" / name).read_bytes() == (real / name).read_bytes()
    # two keys stand twice in this one, and nothing was mended
    assert (tmp_path / "ds003574/sub-05/eeg/sub-05_task-rest_eeg.json").read_text().count("ECGChannelCount") == 2
