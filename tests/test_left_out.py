"""What pairing leaves out stays in the store; two readings of one data set are no study; the page names all sites."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from published import write_eeg, write_image

from jobs import cli, phantom
from jobs.ingest import find_sites
from site_adapters import LIKES, SITES
from xsite.data.bids import find_recordings
from xsite.data.left_out import gathered, note_left_out, read_left_out
from xsite.data.store import check_distinct_images
from xsite.errors import SiteError, StoreError
from xsite.phantom.like import expected_bytes, write_like
from xsite.site import Site

SITE = Site("generic", 1000.0, 2.0, 50.0, "R128", bold_space="template")
DOCS = Path(__file__).parents[1] / "docs"


def test_reasons_reach_the_store_and_names_of_people_do_not(tmp_path: Path) -> None:
    root, store = tmp_path / "bids", str(tmp_path / "store")
    write_eeg(root / "sub-01/eeg/sub-01_task-rest_eeg.vhdr", ("Response/R128",) * 8)
    write_image(root / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    write_eeg(root / "sub-02/eeg/sub-02_task-rest_eeg.vhdr", ("Comment/Mr Smith",))
    write_image(root / "sub-02/func/sub-02_task-rest_bold.nii.gz")
    write_eeg(root / "sub-03/eeg/sub-03_task-rest_desc-Miller_eeg.vhdr")
    with gathered() as left_out:
        assert len(find_recordings(root, SITE)) == 1
    note_left_out(store, "generic", left_out, root)
    found = read_left_out(store)["generic"]
    assert found["sub-02_task-rest_eeg.vhdr"].startswith("nothing shows that they are simultaneous: no 'R128'")
    assert any("no BOLD with the same entities" in reason for reason in found.values())
    written = (tmp_path / "store/left_out/generic.json").read_text()
    assert "Smith" not in written
    assert str(root) not in written
    with gathered() as nothing:
        logging.getLogger("xsite.data.bids").warning("something else")
    assert nothing == {}


def test_a_damaged_list_is_named(tmp_path: Path) -> None:
    (tmp_path / "left_out").mkdir()
    (tmp_path / "left_out" / "a.json").write_text("[")
    with pytest.raises(StoreError, match=r"left_out/a\.json: damaged"):
        read_left_out(str(tmp_path))


def test_two_readings_of_one_data_set_are_refused() -> None:
    """ds002336 and ds002336_pp: the same people, so that the held-out site would have been trained on."""
    rows = [("ds002336", "a.zarr", "1"), ("ds002336", "b.zarr", "2"), ("other", "c.zarr", "3"), ("tables", "d", "")]
    manifest = pd.DataFrame([*rows, ("more", "e", "")], columns=["site", "path", "image_sha256"])
    check_distinct_images(manifest)
    check_distinct_images(manifest.drop(columns="image_sha256"))  # of an older store
    twice = pd.concat([manifest, pd.DataFrame([("ds002336_pp", "f.zarr", "1")], columns=manifest.columns)])
    with pytest.raises(StoreError, match=r"ds002336 and ds002336_pp were made of the same images .*data\.sites"):
        check_distinct_images(twice)


def test_all_takes_the_folders_of_known_sites_and_the_atlas_of_phantoms(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="there is none; name the site"):
        find_sites("all", tmp_path, None)
    for name in ("noddi", "ds002336", "unknown"):
        (tmp_path / name).mkdir()
    chosen, atlas = find_sites("all", tmp_path, None)
    assert [(site.name, root.name) for site, root in chosen] == [("ds002336",) * 2, ("noddi",) * 2]
    assert atlas is None  # real data beside a folder called atlas: nothing is guessed
    (tmp_path / "atlas").mkdir()
    (tmp_path / "atlas" / "a.nii.gz").touch()
    assert find_sites("noddi", tmp_path / "noddi", None)[1] is None
    (tmp_path / "noddi.truth.json").touch()
    assert find_sites("noddi", tmp_path / "noddi", None)[1] == tmp_path / "atlas" / "a.nii.gz"
    assert find_sites("all", tmp_path, "difumo64")[1] == "difumo64"


def test_size_is_known_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    like = LIKES["noddi"]
    write_like(like, tmp_path, subjects=1, max_volumes=20)
    written = sum(path.stat().st_size for path in tmp_path.rglob("*.dat"))
    assert written == pytest.approx(expected_bytes(like, subjects=1, max_volumes=20), rel=0.01)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    assert cli.run_job(phantom.main, ["--like", "ds002336,ds002158", str(tmp_path / "large")]) == 2
    said = capsys.readouterr()
    assert "GB will be written" in said.out
    assert "GB are needed and" in said.err
    assert not (tmp_path / "large").exists()


def test_the_page_of_sites_names_them_all() -> None:
    page = (DOCS / "sites.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert rows == set(SITES)
    for name, site in SITES.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert ("not for training" in row or "every recording" in row) == bool(site.unusable), name
