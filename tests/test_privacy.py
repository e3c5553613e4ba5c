"""Names, birth dates, recording dates and free text of headers: planted everywhere, sought in every stored byte."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import zarr
from scipy.io import loadmat, savemat
from small_site import LEAD_IN, N_VOLUMES, T_R, small_atlas, small_site, write_recording_files

from site_adapters import ds002734, ds002739, ds003768
from xsite.data.bids import find_recordings
from xsite.data.fingerprint import input_fingerprint, source_files
from xsite.data.left_out import gathered, note_left_out, read_left_out
from xsite.data.manifest import rebuild_manifest
from xsite.data.privacy import Names, file_name, public_words
from xsite.data.refused import note_refused, read_refused
from xsite.data.site_file import site_yaml
from xsite.data.site_guess import guess_site
from xsite.errors import FormatError, SiteError
from xsite.recording import RecordingKey
from xsite.reports.quality_pages import write_pages
from xsite.runtime.ingest import IngestReport, _files, ingest_recording
from xsite.site import RecordingFiles, Site

NAME = "Quastenflosser"
BORN = ("14.02.1963", "1963-02-14", "19630214", "14-FEB-1963")
DAY = ("17.05.2019", "2019-05-17", "20190517", "17-MAY-2019")
PLANTED = (NAME, "Annegret", "Dr Hagenmeister", *BORN, *DAY, "17.05.19")
WORDS = f"Annegret {NAME}, *{BORN[0]}, {DAY[0]}, Dr Hagenmeister"
SITE = {"volume_marker": "R128", "ch_types": {"ECG": "ecg"}}


def stored_texts(store: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of everything in a store: files as they are, arrays decompressed, tables as text."""
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        yield str(path.relative_to(store)), path.read_bytes()
        if path.suffix == ".parquet":
            yield f"{path.name} as text", pd.read_parquet(path).to_csv().encode()
    for folder in sorted(store.rglob("*.zarr")):
        group = zarr.open_group(folder, mode="r")
        for name, array in group.arrays():
            yield f"{folder.name}/{name}", np.ascontiguousarray(array[:]).tobytes()
        yield f"{folder.name} attributes", json.dumps(dict(group.attrs), ensure_ascii=False).encode()


def found_in(store: Path, planted: tuple[str, ...]) -> list[str]:
    leaks = []
    for name, content in stored_texts(store):
        lower = content.lower()
        for word in planted:
            forms = [word.lower().encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")]
            if any(form in lower for form in forms) or word.lower() in name.lower():
                leaks.append(f"{word!r} in {name}")
    return leaks


def rewrite(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, f"{old!r} is not in {path.name}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def plant_brainvision(header: Path) -> None:
    """Comment section, date of the segment, free-text markers that keep the TR, a channel and the data file's name."""
    markers, data = header.with_suffix(".vmrk"), header.with_suffix(".eeg")
    renamed = header.with_name(f"{NAME}_{DAY[2]}.eeg")
    data.rename(renamed)
    rewrite(header, (f"DataFile={data.name}", f"DataFile={renamed.name}"), ("PZ", NAME))
    text = header.read_text(encoding="utf-8")
    comment = f"\n{WORDS}\nAmplifier of Dr Hagenmeister\n"
    header.write_text(text + (comment if "[Comment]" in text else f"\n[Comment]{comment}"), encoding="utf-8")
    rewrite(markers, (data.name, renamed.name), ("Sync On", f"Puls {NAME}"))
    text = markers.read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(Mk1=New Segment,,1,1,0).*$", rf"\g<1>,{DAY[2]}123456000000", text)
    puls = re.compile(rf"(?m)^Mk\d+=Comment,Puls {NAME},.*\n")  # keeps the TR and counts right, with another phase
    text = puls.sub("", text)
    onsets = [round((LEAD_IN + T_R * volume + 0.7) * 500) for volume in range(N_VOLUMES)]
    text += "".join(f"Mk{500 + k}=Comment,Puls {NAME},{onset},1,0\n" for k, onset in enumerate(onsets))
    text += f"Mk9999=Comment,{WORDS.replace(',', ';')},900,1,0\n"
    markers.write_text(text, encoding="utf-8")
    places = [
        "name\tx\ty\tz",
        f"{NAME}\t0\t-0.06\t0.07",
        "CZ\t0\t0\t0.095",
        "FZ\t0\t0.06\t0.07",
        "O1\t-0.03\t-0.085\t0",
    ]
    header.with_name(header.name.replace("_eeg.vhdr", "_electrodes.tsv")).write_text("\n".join(places) + "\n")


def plant_edf(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8:88] = f"X F {BORN[3]} {NAME}_Annegret".ljust(80).encode()
    content[88:168] = f"Startdate {DAY[3]} X Dr Hagenmeister X".ljust(80).encode()
    content[168:176] = b"17.05.19"
    path.write_bytes(bytes(content))


def plant_eeglab(path: Path) -> None:
    content = loadmat(path, squeeze_me=False)
    plain = {name: value for name, value in content.items() if not name.startswith("__")}
    words = {"comments": WORDS, "subject": NAME, "filename": f"{NAME}.set", "setname": WORDS, "history": WORDS}
    if "EEG" in plain:
        eeg = plain["EEG"]
        fields = {name: eeg[name][0, 0] for name in eeg.dtype.names} | words
        plain = {"EEG": fields}
    else:
        plain |= words
    savemat(path, plain, appendmat=False)


PLANT = {"vhdr": plant_brainvision, "edf": plant_edf, "set": plant_eeglab}


def plant_everything(root: Path, eeg_format: str) -> None:
    """One subject whose every header, sidecar and table tells who and when."""
    paths = write_recording_files(root, eeg_format=eeg_format)
    PLANT[eeg_format](paths["eeg"])
    sidecar = paths["eeg"].with_name(paths["eeg"].name.replace(f"_eeg.{eeg_format}", "_eeg.json"))
    told = {"SamplingFrequency": 500, "InstitutionName": WORDS, "EEGReference": f"FCz by {NAME}", "Notes": WORDS}
    twice = f', "{WORDS}": 1, "{WORDS}": 2}}'
    sidecar.write_text(json.dumps(told)[:-1] + twice)
    (root / "participants.tsv").write_text(f"participant_id\tname\tborn\nsub-01\t{NAME}\t{BORN[1]}\n")
    scans = root / "sub-01" / "sub-01_scans.tsv"
    scans.write_text(f"filename\tacq_time\noperator\neeg/{paths['eeg'].name}\t{DAY[1]}T10:00:00\tDr Hagenmeister\n")
    (root / "dataset_description.json").write_text(
        json.dumps({"Name": WORDS, "BIDSVersion": "1.8.0", "License": f"ask {NAME}", "DatasetDOI": f"none ({NAME})"})
    )
    image = nib.load(paths["bold"])
    kept = nib.Nifti1Image(image.get_fdata(dtype=np.float32), image.affine, image.header)
    kept.header["descrip"] = f"{NAME} {BORN[0]} {DAY[1]}".encode()
    kept.header["aux_file"] = f"{NAME}.dcm".encode()
    kept.header["intent_name"] = NAME.encode()
    kept.header.extensions.append(nib.nifti1.Nifti1Extension("comment", WORDS.encode()))
    nib.save(kept, paths["bold"])
    beside = paths["bold"].with_name(paths["bold"].name.replace(".nii.gz", ".json"))
    facts = json.loads(beside.read_text()) | {
        "PatientName": NAME,
        "AcquisitionDateTime": DAY[1],
        "SeriesDescription": WORDS,
    }
    beside.write_text(json.dumps(facts))


@pytest.fixture
def secret_root(tmp_path: Path) -> Path:
    """The folder tells as well."""
    root = tmp_path / f"study of {NAME} {DAY[1]}"
    root.mkdir()
    return root


def ingested(root: Path, store: Path, site: Site) -> tuple[str, str]:
    small_atlas(root.parent)
    files = find_recordings(root, site)[0]
    result = ingest_recording(site, files, str(store), str(root.parent / "atlas.nii.gz"))
    rebuild_manifest(str(store))
    return result


@pytest.mark.parametrize("eeg_format", PLANT)
def test_nothing_planted_reaches_the_store(eeg_format: str, secret_root: Path, tmp_path: Path) -> None:
    plant_everything(secret_root, eeg_format)
    store = tmp_path / "store"
    state, message = ingested(secret_root, store, small_site(**SITE))
    assert state == "done", message
    assert found_in(store, PLANTED) == []
    attributes = json.loads(next(store.rglob("sub-01*.zarr/zarr.json")).read_text())["attributes"]
    assert str(tmp_path) not in json.dumps(attributes)
    assert attributes["key"]["subject"] == "01"


def test_nothing_planted_reaches_the_quality_pages(secret_root: Path, tmp_path: Path) -> None:
    plant_everything(secret_root, "vhdr")
    store, pages = tmp_path / "store", tmp_path / "pages"
    ingested(secret_root, store, small_site(**SITE))
    write_pages(str(store), pages)
    assert list(pages.rglob("*.html"))
    assert found_in(pages, PLANTED) == []


def test_the_search_finds_what_is_there(tmp_path: Path) -> None:
    """A search that finds nothing proves nothing unless it can find something."""
    (tmp_path / "a.json").write_bytes(NAME.encode("utf-16-le"))
    pd.DataFrame({"reason": [NAME]}).to_parquet(tmp_path / "manifest.parquet")
    group = zarr.create_group(tmp_path / "x.zarr", attributes={"note": BORN[0]})
    group.create_array("codes", data=np.frombuffer(DAY[2].encode() * 64, np.uint8))
    found = " ".join(found_in(tmp_path, PLANTED))
    assert "a.json" in found
    assert "manifest.parquet as text" in found
    assert "x.zarr attributes" in found
    assert "x.zarr/codes" in found


def test_evidence_about_a_named_marker_stays_without_the_name(secret_root: Path, tmp_path: Path) -> None:
    """A free-text marker that keeps the TR casts doubt on the volumes: the doubt is kept, its words are not."""
    plant_everything(secret_root, "vhdr")
    store = tmp_path / "store"
    ingested(secret_root, store, small_site(**SITE))
    text = next(store.rglob("sub-01*.zarr/zarr.json")).read_text()
    assert re.search(r"markers 'marker_\d+' keep the TR with another phase", text)
    assert '"channel_13"' in text  # an EEG channel with a position, called after a person
    assert '"sub-01_task-rest_eeg.vhdr"' in text
    assert re.search(r'"file-[0-9a-f]{8}\.eeg"', text)


def test_columns_of_a_motion_table_get_numbers(secret_root: Path, tmp_path: Path) -> None:
    paths = write_recording_files(secret_root)
    table = pd.read_csv(paths["confounds"], sep="\t")
    table.columns = [f"{NAME}_{place}" for place in range(table.shape[1])]
    table.fillna(0).to_csv(paths["confounds"], sep="\t", index=False)
    store = tmp_path / "store"
    state, message = ingested(secret_root, store, small_site(**SITE))
    assert state == "done", message
    assert found_in(store, PLANTED) == []
    attributes = json.loads(next(store.rglob("sub-01*.zarr/zarr.json")).read_text())["attributes"]
    assert attributes["confound_names"] == [f"regressor_{place}" for place in range(1, table.shape[1] + 1)]


def test_a_failed_recording_leaves_no_words_behind(secret_root: Path, tmp_path: Path) -> None:
    plant_everything(secret_root, "vhdr")
    write_recording_files(secret_root, "02")
    next(secret_root.glob(f"sub-01/eeg/{NAME}*.eeg")).write_bytes(b"\0" * 28001)
    store = tmp_path / "store"
    site = small_site(**SITE)
    small_atlas(tmp_path)
    states = {
        files.key.subject: ingest_recording(site, files, str(store), str(tmp_path / "atlas.nii.gz"))[0]
        for files in find_recordings(secret_root, site)
    }
    rebuild_manifest(str(store))
    assert "02" in states
    assert states.get("01", "failed") == "failed"
    assert found_in(store, PLANTED) == []


def test_a_drafted_facts_file_copies_no_free_text(secret_root: Path) -> None:
    """Facts go to the store with every recording: what is drafted from sidecars must not carry their free text."""
    plant_everything(secret_root, "vhdr")
    rewrite(secret_root / "sub-01/eeg/sub-01_task-rest_eeg.vhdr", (NAME, "PZ"))
    secret_root.joinpath("sub-01/eeg/sub-01_task-rest_eeg.eeg").write_bytes(
        next(secret_root.glob("sub-01/eeg/*.eeg")).read_bytes()
    )
    rewrite(secret_root / "sub-01/eeg/sub-01_task-rest_eeg.vhdr", (f"PZ_{DAY[2]}.eeg", "sub-01_task-rest_eeg.eeg"))
    facts = {fact.name: fact.value for fact in guess_site(secret_root, "mine").facts}
    assert facts["reference"] == "FCz"
    assert facts["license"] == facts["doi"] == ""
    text = site_yaml([fact for fact in guess_site(secret_root, "mine").facts if fact.name != "decoys"], "one pair")
    assert not [word for word in PLANTED if word in text.replace(f"Puls {NAME}", "")]


def test_what_is_left_out_is_told_without_names(secret_root: Path, tmp_path: Path) -> None:
    """Reasons list markers and name files; the store keeps the reason."""
    plant_everything(secret_root, "vhdr")
    store, folder = tmp_path / "store", secret_root / "sub-01" / "eeg"
    with gathered() as left_out, pytest.raises(SiteError):
        find_recordings(secret_root, small_site(**SITE | {"volume_marker": "S999"}))
    note_left_out(str(store), "small", left_out, secret_root)
    next(folder.glob(f"{NAME}*.eeg")).unlink()
    with gathered() as more, pytest.raises(SiteError):
        find_recordings(secret_root, small_site(**SITE))
    note_left_out(str(store), "other", more, secret_root)
    assert "no 'S999' among" in str(left_out.values())
    assert NAME in str(more.values())
    assert found_in(store, PLANTED) == []
    assert "complete the download" in next(store.rglob("other.json")).read_text()


@pytest.mark.parametrize("marker", [f"{NAME} (1963)", f"{NAME}) (1963", f"1963) it's {NAME} ((", f'"{NAME}" isn\'t'])
def test_markers_that_a_reason_lists_stay_out_of_the_store(marker: str, tmp_path: Path) -> None:
    root, store = tmp_path / "bids", tmp_path / "store"
    paths = write_recording_files(root)
    rewrite(paths["eeg"].with_suffix(".vmrk"), ("R128", marker))
    for events in root.rglob("*_events.tsv"):
        events.unlink()
    with gathered() as left_out, pytest.raises(SiteError):
        find_recordings(root, small_site(**SITE))
    assert f"{f'Response/{marker}'!r} x " in str(next(iter(left_out.values())))  # the dry run prints it
    note_left_out(str(store), "small", left_out, root)
    assert found_in(store, (*PLANTED, "1963")) == []
    (reason,) = set(read_left_out(str(store))["small"].values())
    assert reason == "nothing shows that they are simultaneous: no 'R128' among the EEG's markers"


@pytest.mark.parametrize("words", [f"no marker (a (b {NAME}) c", f"no marker (a) b ({NAME} x 3", f"no marker ({NAME}"])
def test_brackets_that_are_nested_or_not_closed(words: str, tmp_path: Path) -> None:
    note_left_out(str(tmp_path), "a", {tmp_path / "sub-01_eeg.edf": words}, tmp_path)
    (reason,) = read_left_out(str(tmp_path))["a"].values()
    assert reason.startswith("no marker")
    assert NAME not in reason


@pytest.mark.parametrize(
    ("words", "stored"),
    [
        (f"found b'{NAME}' and r\"Dr '{NAME}' H\"; expected 'Fz'", "found '…' and '…'; expected 'Fz'"),
        (f"found '{NAME}\\' (1963)'; expected 'Fz'", "found '…'; expected 'Fz'"),
        (f"the volumes' marker 'R128', then '{NAME}, cut", "the volumes' marker 'R128', then '…'"),
        (f"cannot be read (ValueError: bad (x) {NAME} y) z); fetch it", "cannot be read (ValueError); fetch it"),
        (f"cannot be read (BadZipFile: {NAME}", "cannot be read (BadZipFile)"),
        (f"/mnt/study of {NAME}/1963 b/sub-01_eeg.vhdr: empty", "sub-01_eeg.vhdr: empty"),
    ],
)
def test_words_that_may_be_stored(words: str, stored: str) -> None:
    assert public_words(words, []) == stored


def refuse(words: str, cause: Exception | None) -> FormatError:
    try:
        raise FormatError(words) from cause
    except FormatError as error:
        return error


def test_refused_notes_name_no_place_and_no_words_of_libraries(
    secret_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, atlas = tmp_path / f"{NAME} home", tmp_path / f"of {NAME}, 1963" / f"atlas by {NAME}.nii.gz"
    monkeypatch.setenv("HOME", str(home))
    store = tmp_path / "store"
    files = RecordingFiles(RecordingKey("small", "01"), secret_root / "a.vhdr", secret_root / "b.nii.gz")
    library = ValueError(f"line of {NAME}; {DAY[0]}\nsecond")
    for subject, words, cause in (
        ("01", f"{atlas}: not the atlas of {home}, see {home}/cache", None),
        ("02", f"{files.eeg}: no table: {library}; fetch it again", library),
        ("03", f"{files.eeg}: cannot be read (ValueError: line of {NAME}; {DAY[0]}); fetch it again", library),
        ("04", f"{store}/small/y: {atlas.name} is gone, s3://bucket/{NAME} x/y too", None),
    ):
        own = replace(files, key=RecordingKey("small", subject))
        places = (str(atlas), f"s3://bucket/{NAME} x")
        note_refused(str(store), small_site(), own, refuse(words, cause), places)
    assert found_in(store, (*PLANTED, "1963", str(tmp_path))) == []
    told = read_refused(str(store))["small"]
    assert told["sub-01"] == "FormatError: file.nii.gz: not the atlas of the folder, see cache"
    assert told["sub-02"].endswith("no table: ValueError; fetch it again")
    assert told["sub-03"].endswith("cannot be read (ValueError); fetch it again")


def test_a_failed_recording_does_not_tell_where_the_atlas_lies(secret_root: Path, tmp_path: Path) -> None:
    paths = write_recording_files(secret_root)
    atlas = tmp_path / f"of {NAME} (1963)" / f"{NAME} atlas.nii.gz"
    (files,) = find_recordings(secret_root, small_site(**SITE))
    state, message = ingest_recording(small_site(**SITE), files, str(tmp_path / "store"), str(atlas))
    assert (state, NAME in message) == ("failed", True)
    assert paths["eeg"].is_file()
    assert read_refused(str(tmp_path / "store"))["small"]
    assert found_in(tmp_path / "store", (*PLANTED, "1963")) == []


def test_labels_that_look_like_a_date_give_way_to_their_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = [
        RecordingKey("small", "01", session="20190312"),
        RecordingKey("small", "01", session="20180101"),
        RecordingKey("small", "02", session="2019"),
        RecordingKey("small", "19630204", run="20200101"),
    ]
    found = [RecordingFiles(key, tmp_path / "a.vhdr", tmp_path / "b.nii.gz") for key in keys]

    def ingested(files: list[RecordingFiles]) -> list[RecordingKey]:
        caplog.clear()
        site = small_site(find_recordings=lambda root, site: files)
        with caplog.at_level(logging.WARNING, logger="xsite.runtime.ingest"):
            return [f.key for f in _files(site, tmp_path, str(tmp_path / "store"), IngestReport())]

    assert ingested(found) == [
        RecordingKey("small", "01", session="day2"),
        RecordingKey("small", "01", session="day1"),
        keys[2],
        RecordingKey("small", "p1", run="day1"),
    ]
    told = "site small: labels that look like a date are replaced by their order: "
    assert caplog.messages == [told + "19630204, 20180101, 20190312, 20200101"]
    assert ingested(found[2:3]) == [keys[2]]
    assert caplog.messages == []


def test_a_day_in_labels_does_not_reach_the_store(tmp_path: Path) -> None:
    small_atlas(tmp_path)
    root, store = tmp_path / "bids", str(tmp_path / "store")
    day = "20190517"
    write_recording_files(root, day)
    (root / "sub-03" / "eeg").mkdir(parents=True)
    (root / "sub-03" / "eeg" / f"sub-03_ses-{day}_task-rest_eeg.vhdr").write_text("no image beside it")
    (files,) = _files(small_site(**SITE), root, store, IngestReport())
    state, message = ingest_recording(small_site(**SITE), files, store, str(tmp_path / "atlas.nii.gz"))
    assert state == "done", message
    assert found_in(tmp_path / "store", (day,)) == []
    assert rebuild_manifest(store)["subject"].tolist() == ["p1"]


def like_ds002734(folder: Path) -> RecordingFiles:
    files = RecordingFiles(RecordingKey("ds002734", "02", task="main", run="01"), folder / "EEG/x.mat", Path())
    return replace(files, others=ds002734.events_files(files))


def like_ds002739(folder: Path) -> RecordingFiles:
    key = RecordingKey("ds002739", "01", task="main", run="01")
    files = RecordingFiles(key, folder / "EEG/EEG_data_sub-01_run-01.mat", Path())
    return replace(files, others=(ds002739.eeg_events(files), ds002739.events_table(files)))


def like_ds003768(folder: Path) -> RecordingFiles:
    key = RecordingKey("ds003768", "01", task="rest", run="1")
    return RecordingFiles(key, folder / "eeg/x.vhdr", Path(), others=(ds003768.stages_file(folder, key),))


@pytest.mark.parametrize("made", [like_ds002734, like_ds002739, like_ds003768])
def test_files_that_adapters_read_are_part_of_the_fingerprint(
    made: Callable[[Path], RecordingFiles], tmp_path: Path
) -> None:
    paths = write_recording_files(tmp_path)
    others = made(tmp_path / "sub-01").others
    files = RecordingFiles(RecordingKey("small", "01", task="rest"), paths["eeg"], paths["bold"], others=others)
    prints = {input_fingerprint(small_site(), files, None)}  # they need not be there
    for number, path in enumerate(others, start=1):
        path.parent.mkdir(parents=True, exist_ok=True)
        for content in ("a\tb\n1\t2\n", "a\tb\n1\t3\n"):
            path.write_text(content)
            assert source_files(files).count(path) == 1
            prints.add(input_fingerprint(small_site(), files, None))
        assert len(prints) == 1 + 2 * number


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("sub-01_ses-2_task-rest_run-01_eeg.vhdr", True),
        ("sub-01_task-rest_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz", True),
        ("task-rest_bold.json", True),
        ("sub-02_task-rest_eeg.vhdr", False),  # of somebody else
        ("sub-01_task-rest_run-20190517_eeg.eeg", False),
        ("Quastenflosser_eeg.eeg", False),
        ("sub-01_Quastenflosser.eeg", False),
    ],
)
def test_file_names(name: str, stays: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    shown = file_name(path, RecordingKey("a", "01", task="rest"))
    assert (shown == name) is stays
    assert stays or re.fullmatch(r"file-[0-9a-f]{8}(\.\w+)+", shown)


def test_codes_and_electrodes_keep_their_names() -> None:
    key = RecordingKey("small", "01")
    names = Names(
        small_site(decoys=("Herzschlag",)),
        key,
        [],
        markers=("Response/R128", "Stimulus/S  2", "47", "SyncStatus/Sync On", "boundary", "Herzschlag", NAME),
        channels=("Fp1", "E12", "EEG 004", "HEOG", "F3-T3", NAME),
        confounds=("trans_x", "a_comp_cor_03", "trans_y_derivative1_power2", "cosine00", NAME),
    )
    for kind, replaced in (("marker", names.markers), ("channel", names.channels), ("regressor", names.confounds)):
        changed = {old: new for old, new in replaced.items() if old != new}
        assert changed == {NAME: f"{kind}_{list(replaced).index(NAME) + 1}"}
    assert names.clean({"step": "pick", "words": [f"the 30 markers {NAME!r} keep 47 things"]}) == {
        "step": "pick",
        "words": ["the 30 markers 'regressor_5' keep 47 things"],
    }
