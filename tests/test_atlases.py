"""Atlases by name: folders of the layout that nilearn's fetchers write, built here; nothing is downloaded."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from small_site import AFFINE, SHAPE, small_site, write_recording_files

from jobs.ingest import find_sites, parser
from xsite.data.atlases import NAMES, atlas_reference, get_atlas, unique
from xsite.data.bids import find_recordings
from xsite.data.store import read_recording
from xsite.errors import ParcellationError
from xsite.runtime.ingest import ingest_recording
from xsite.signals.parcels import load_atlas, parcel_coordinates


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Whatever is not in the folder cannot be fetched, wherever the tests run."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")


def difumo_folder(data_dir: Path, size: int) -> Path:
    """``difumo_atlases/SIZE/2mm/maps.nii.gz`` with blobs on the small site's grid, labels and README."""
    folder = data_dir / "difumo_atlases" / str(size)
    (folder / "2mm").mkdir(parents=True)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij"), axis=-1)
    centres = np.random.default_rng(size).uniform([3, 3, 2], [8, 8, 7], (size, 3))
    maps = np.exp(-((grid[..., None, :] - centres) ** 2).sum(-1) / 2).astype(np.float32)
    nib.save(nib.Nifti1Image(np.where(maps > 0.05, maps, 0), AFFINE), folder / "2mm" / "maps.nii.gz")
    header = "Component,Difumo_names,Yeo_networks7,Yeo_networks17,GM,WM,CSF"
    names = ["Cingulate gyrus", "Cingulate gyrus", *(f"Region {n}" for n in range(2, size))]
    rows = [f"{n},{name},DefaultB,DefaultB,0.7,0.2,0.1" for n, name in enumerate(names, start=1)]
    (folder / f"labels_{size}_dictionary.csv").write_text("\n".join([header, *rows]) + "\n")
    (folder.parent / "README.md").write_text("DiFuMo\n")
    return folder


def schaefer_folder(data_dir: Path, size: int) -> Path:
    """``schaefer_2018/Schaefer2018_SIZEParcels_7Networks_order*``: a label image and a table without header."""
    folder = data_dir / "schaefer_2018"
    folder.mkdir(parents=True)
    labels = np.zeros((20, 20, 20), np.uint8)
    labels.reshape(-1)[np.random.default_rng(0).permutation(8000)[: 20 * size]] = np.repeat(np.arange(1, size + 1), 20)
    stem = f"Schaefer2018_{size}Parcels_7Networks_order"
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 2, 2, 1])), folder / f"{stem}_FSLMNI152_2mm.nii.gz")
    rows = [f"{n}\t7Networks_LH_Vis_{n}\t{n % 256}\t18\t128\t0" for n in range(1, size + 1)]
    (folder / f"{stem}.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_difumo_from_a_folder_as_nilearn_writes_it(tmp_path):
    difumo_folder(tmp_path, 64)
    atlas = get_atlas("difumo64", tmp_path)
    assert (atlas.kind, atlas.parcellation.name, atlas.parcellation.space) == ("soft", "DiFuMo-64", "MNI152NLin6Asym")
    assert atlas.parcellation.labels[:3] == ("Cingulate gyrus (1)", "Cingulate gyrus (2)", "Region 2")
    assert atlas.maps.shape == (*SHAPE, 64)
    assert get_atlas("DiFuMo-64", tmp_path).parcellation == atlas.parcellation


def test_schaefer_from_a_folder_as_nilearn_writes_it(tmp_path):
    schaefer_folder(tmp_path, 100)
    atlas = get_atlas("schaefer100", tmp_path)
    assert (atlas.kind, atlas.parcellation.name) == ("labels", "Schaefer2018-100")
    assert atlas.label_values == tuple(range(1, 101))
    assert atlas.parcellation.labels[0] == "7Networks_LH_Vis_1"  # the background that nilearn adds is no parcel


def test_power_comes_with_nilearn():
    atlas = get_atlas("power264")
    assert (atlas.kind, len(atlas.parcellation.labels), atlas.radius) == ("spheres", 264, 5.0)
    np.testing.assert_array_equal(parcel_coordinates(atlas)[0], [-25, -98, -12])
    assert atlas.parcellation.labels[263] == "Power 264"
    assert get_atlas("power264").parcellation == atlas.parcellation


def test_an_atlas_that_is_nowhere_says_what_to_do(tmp_path):
    with pytest.raises(
        ParcellationError, match=r"'difumo64'.*fetch_atlas_difumo\(dimension=64.*NILEARN_DATA"
    ) as caught:
        get_atlas("difumo64", tmp_path)
    assert str(tmp_path) in str(caught.value)
    folder = difumo_folder(tmp_path / "half", 64)
    (folder / "2mm" / "maps.nii.gz").unlink()
    with pytest.raises(ParcellationError, match="neither whole in nilearn's data folder"):
        get_atlas("difumo64", tmp_path / "half")
    schaefer = schaefer_folder(tmp_path / "cut", 100) / "Schaefer2018_100Parcels_7Networks_order_FSLMNI152_2mm.nii.gz"
    schaefer.write_bytes(schaefer.read_bytes()[:500])
    with pytest.raises(ParcellationError, match=r"neither whole.*EOFError.*delete a damaged one"):
        get_atlas("schaefer100", tmp_path / "cut")


def test_names_are_checked():
    assert atlas_reference("Schaefer-1000") == "schaefer1000"
    assert len(NAMES) == 16
    with pytest.raises(ParcellationError, match=r"no atlas 'schafer100'; did you mean 'schaefer100'\?"):
        get_atlas("schafer100")
    with pytest.raises(ParcellationError, match=r"Known names: difumo64"):
        get_atlas("aal")
    with pytest.raises(ParcellationError, match=r"/own\.nii\.gz not found"):
        get_atlas("own.nii.gz")
    assert unique(["a", "b", "a"]) == ("a (1)", "b", "a (2)")


def test_spheres_by_file(tmp_path):
    path = tmp_path / "seeds.tsv"
    path.write_text("index\tname\tx\ty\tz\n1\tleft\t-30\t0\t10.5\n2\tright\t30\t0\t10\n")
    with pytest.raises(ParcellationError, match=r"seeds\.json with 'Radius'"):
        get_atlas(path)
    path.with_suffix(".json").write_text(json.dumps({"Radius": 6, "Name": "two", "Space": "MNI152NLin6Asym"}))
    atlas = get_atlas(path)
    assert (atlas.kind, atlas.radius, atlas.parcellation.labels) == ("spheres", 6, ("left", "right"))
    assert (atlas.parcellation.name, atlas.parcellation.space) == ("two", "MNI152NLin6Asym")
    np.testing.assert_array_equal(parcel_coordinates(atlas)[0], [-30, 0, 10.5])
    before = atlas.parcellation.sha256
    path.with_suffix(".json").write_text(json.dumps({"Radius": 8}))
    assert load_atlas(path).parcellation.sha256 != before
    path.with_suffix(".json").write_text(json.dumps({"Radius": 0}))
    with pytest.raises(ParcellationError, match="positive radius"):
        get_atlas(path)
    path.write_text("index\tname\tx\ty\n1\tleft\t-30\t0\n")
    with pytest.raises(ParcellationError, match="columns x, y, z"):
        get_atlas(path)


def test_ingest_takes_an_atlas_by_name(tmp_path, monkeypatch):
    difumo_folder(tmp_path / "nilearn", 64)
    monkeypatch.setenv("NILEARN_DATA", str(tmp_path / "nilearn"))
    monkeypatch.delenv("NILEARN_SHARED_DATA", raising=False)
    write_recording_files(tmp_path / "bids")["truth"].unlink()
    words = ["--bids", str(tmp_path / "bids"), "--store", str(tmp_path / "store"), "--atlas", "difumo64"]
    args = parser().parse_args(["vanderbilt", *words])
    _, atlas = find_sites(args.site, args.bids, args.atlas)
    assert atlas_reference(atlas) == "difumo64"
    (files,) = find_recordings(tmp_path / "bids", small_site())
    state, message = ingest_recording(small_site(), files, args.store, atlas)
    assert state == "done", message
    assert read_recording(args.store, files.key).parcellation.name == "DiFuMo-64"
    state, message = ingest_recording(small_site(), files, args.store, "power263")
    assert state == "failed"
    assert "did you mean 'power264'" in message
