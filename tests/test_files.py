"""Sidecars that do not parse as they should (sites.md, catalogue 7 to 10) are read, and every fault is told."""

from __future__ import annotations

import json
import logging
import re
import shutil

import numpy as np
import pytest

from xsite.data.files import faults, known, numbers, read_json, read_tsv, sidecar_faults
from xsite.errors import FormatError


def told(caplog) -> str:
    assert all(record.name == "xsite.data.files" for record in caplog.records)
    return caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name\ttype\nFz\tEEG\n".encode("utf-8-sig"), "byte order mark"),  # fault 7
        ("name\ttype\nFz\tEEG\n".encode("utf-16"), "UTF-16"),  # fault 7
        (b"\xfe\xff" + "name\ttype\nFz\tEEG\n".encode("utf-16-be"), "UTF-16"),
        ("name\ttype\nFz\tEEG\n".encode("utf-16-le"), "UTF-16 text without a mark"),
        ("name\ttype\nFz\tEEG\nµ\tEEG\n".encode("cp1252"), "cp1252"),
        (b"name\ttype\n\nFz\tEEG\n\n", "1 blank lines"),  # fault 9; an empty last line is none
        (b"name\ttype\nFz\tEEG\t\t\n", "tabs too many in 1 lines"),  # fault 9
        (b"name\ttype\t\nFz\tEEG\t\n", "tabs too many"),
        (b"name\ttype\tunits\nFz\tEEG\n", "1 rows are shorter"),
        (b"name\ttype\ttype\nFz\tEEG\tEEG\n", "column 'type' is there more than once"),
        ("name   type\n'Fz'   EEG\n'ECG’   ECG\n".encode(), "separated by blanks instead of tabs, 2 fields in quotes"),
    ],
)
def test_fault_7_and_9_tables_are_read_and_the_fault_names_the_file(tmp_path, caplog, content, words):
    path = tmp_path / "sub-01_channels.tsv"
    path.write_bytes(content)
    table = read_tsv(path)
    assert list(table.columns[:2]) == ["name", "type"]
    assert list(table.iloc[0, :2]) == ["Fz", "EEG"]
    assert f"{path}: " in told(caplog)
    assert words in caplog.text
    assert any(words in fault for fault in faults(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": 1,\n "b": [1, 2,],\n}', "a comma too many at line 2"),  # fault 8, ds004478
        (b'{"a": 1, "b": "x\\amri"}', r"bad escape '\\\\a' at line 1"),  # fault 8, ds005127
        (b'{"a": 1, "b": "filter \x10"}', "control character 0x10 in a string at line 1"),  # fault 8, ds005127
        (b'{"a": 1, "b": 2, "a": 0}', r"key 'a' is given twice \(1, then 0\); the first is kept"),  # fault 8, ds003574
        ('{"a": 1, "b": "5\u201310 µV"}'.encode("cp1252"), "cp1252"),  # fault 7
        ('{"a": 1}'.encode("utf-8-sig"), "byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    ],
)
def test_fault_7_and_8_json_is_read_and_the_fault_names_the_file(tmp_path, caplog, content, words):
    path = tmp_path / "sub-01_eeg.json"
    path.write_bytes(content)
    assert read_json(path)["a"] == 1
    assert f"{path}: " in told(caplog)
    assert any(re.search(words, fault) for fault in faults(path))
    read_json(path)
    assert len(caplog.records) == len(faults(path))  # told once a process, however often it is read


def test_a_repeated_key_with_the_same_value_is_no_fault_and_texts_are_not_repeated(tmp_path):
    path = tmp_path / "eeg.json"
    path.write_text('{"a": 1, "a": 1, "Name": "Jane Doe", "Name": "John Doe"}')
    assert read_json(path) == {"a": 1, "Name": "Jane Doe"}
    (fault,) = faults(path)
    assert "key 'Name' is given twice (a str, then a str)" in fault
    assert "Doe" not in fault


def test_repairs_touch_strings_and_commas_only(tmp_path):
    path = tmp_path / "eeg.json"
    path.write_bytes(rb'{"path": "C:\data\u00b5\new", "list": "a,]", "quote": "\"a\",}", "last": [1 ,' b"\n ]}")
    assert read_json(path) == {"path": "C:\\dataµ\new", "list": "a,]", "quote": '"a",}', "last": [1]}
    good = {"a": [1, 2.5, None, True], "b": {"c": "µV\n\t\\"}}
    path.write_text(json.dumps(good))
    assert read_json(path) == good
    assert faults(path) == []


@pytest.mark.parametrize(
    "text", ['{"a": 1', '{"a" 1}', "{'a': 1}", "a: 1", "[1, 2]", '{"a": 1} {"b": 2}', "", '{"a": ,}']
)
def test_what_cannot_be_read_even_so_is_an_error(tmp_path, text):
    path = tmp_path / "eeg.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"eeg\.json"):
        read_json(path)
    assert faults(path) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", bytes(range(256)), b"name\ttype\nFz\tEEG\tuV\n", b"\xff\xfen", b"\x89PNG\r\n\x1a\n" + bytes(40)],
)
def test_what_is_no_table_is_an_error(tmp_path, content):
    path = tmp_path / "sub-01_events.tsv"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"events\.tsv"):
        read_tsv(path)


def test_tables_keep_blanks_no_break_spaces_and_stray_quotes(tmp_path):
    path = tmp_path / "channels.tsv"
    path.write_text('name\tnote\nCP5\xa0\t12" cap\n"Fz"\tn/a\nFree text\t \n', "utf-8")
    table = read_tsv(path)
    assert list(table["name"]) == ["CP5\xa0", "Fz", "Free text"]
    assert table["note"][0] == '12" cap'
    assert table["note"][1:].isna().all()
    assert faults(path) == []


def test_fault_9_and_27_tables_without_header(tmp_path):
    path = tmp_path / "sub-01_eeg.tsv"
    path.write_text("0.00\t0.01\n0.01\t0.01\n")
    table = read_tsv(path, header=False)
    np.testing.assert_array_equal(numbers(table, ["0", "1"], path), [[0, 0.01], [0.01, 0.01]])


def test_one_column_is_a_table_and_text_is_not_split(tmp_path):
    path = tmp_path / "stages.tsv"
    path.write_text("sleep stage\nN2\nW\n")
    assert list(read_tsv(path)["sleep stage"]) == ["N2", "W"]


@pytest.mark.parametrize(
    "value",
    [None, "n/a", " N/A ", "Unknown", "", "[]", [], -1, -1.0, float("nan"), "1970-01-01", "1970-01-01T00:00:00"],
)
def test_fault_10_sentinels_are_not_known(value):
    assert known(value) is None


def test_fault_10_zero_is_unknown_only_where_it_cannot_be(tmp_path):
    assert known(0, positive=True) is None
    assert known(0.0) == 0.0
    assert known(2.1, positive=True) == 2.1
    assert known("FCz") == "FCz"
    assert known(False) is False


def test_fault_7_to_10_real_sidecars(shared_data, tmp_path, caplog):
    def copy(relative: str):
        return shutil.copy(shared_data(f"sites/{relative}"), tmp_path / relative.replace("/", "."))

    channels = read_tsv(copy("ds002336/task-motorloc_channels.tsv"))  # blanks, quotes, one of them curly
    assert (channels["name"][31], channels["type"][31], len(channels)) == ("ECG", "ECG", 64)
    assert "curly quotation mark at line 33" in caplog.text
    facts = read_json(copy("ds003574/sub-05/eeg/sub-05_task-rest_eeg.json"))
    assert (facts["ECGChannelCount"], facts["EMGChannelCount"]) == (2, 1)
    assert "ECGChannelCount' is given twice (2, then 0)" in caplog.text
    assert read_json(copy("ds004478/sub-01/func/sub-01_task-checker_run-01_eeg.json"))["SamplingFrequency"] == 200
    stem = "ds005127/sub-00002/ses-1/{}/sub-00002_ses-1_task-sleep_run-20160531_2257.json"
    facts = read_json(copy(stem.format("eeg")))
    assert (known(facts["EEGChannelCount"]), known(facts["EEGReference"])) == (None, None)
    facts = read_json(copy(stem.format("func")))
    assert facts["PulseSequenceDetails"].endswith(r"dezwart\amri_ep2d_bold")
    assert (known(facts["SliceTiming"], positive=True), known(facts["VolumeTiming"])) == (None, None)
    assert len(read_json(copy("ds003574/derivatives/task-rest_hypnograh-powerpsectrum.json"))) > 0
    assert "cp1252" in caplog.text
    states = read_tsv(copy("ds003574/derivatives/sub-08_task-rest_decoding-states.tsv"))
    assert not any(name.startswith("\ufeff") for name in states.columns)
    assert "UTF-16" in caplog.text
    assert len(sidecar_faults(sorted(tmp_path.iterdir()))) == 7


def test_every_real_sidecar_is_read(shared_data):
    found = [path for path in shared_data("sites").rglob("*") if path.suffix in (".json", ".tsv")]
    assert len(found) > 300
    for path in found:
        (read_json if path.suffix == ".json" else read_tsv)(path)


def test_faults_are_told_by_the_logger_of_the_module(tmp_path, caplog):
    path = tmp_path / "eeg.json"
    path.write_text('{"a": 1,}')
    with caplog.at_level(logging.WARNING, logger="xsite.data.files"):
        read_json(path)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
