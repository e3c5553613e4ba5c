"""``neurobolt ingest --dry-run``: the pairing table, without store, cluster or signals."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from published import write_image
from small_site import write_recording_files

from jobs import ingest
from xsite.runtime import cluster

FACTS = "name: small\nsfreq: 500\nt_r: 2\nline_freq: 50\nvolume_marker: R128\nexpected: {subjects: 3, recordings: 3}\n"


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(FACTS)
    return path


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    write_recording_files(root, "01")
    write_recording_files(root, "02", eeg_format="edf")
    silent = write_recording_files(root, "03", markers_in_file=False)
    silent["eeg"].with_name("sub-03_task-rest_events.tsv").unlink()
    write_image(root / "sub-04" / "func" / "sub-04_task-rest_bold.nii.gz")
    return root


def run(*words: object) -> int:
    return ingest.main([str(word) for word in words])


def test_the_table_needs_neither_store_nor_cluster(bids, site_file, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "connected", lambda *_: pytest.fail("a dry run started a cluster"))
    assert run(site_file, "--bids", bids, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["recording", "status", "EEG", "s", "volumes", "EEG", "BOLD", "why"]
    assert lines[1].split()[:6] == [
        "sub-01_task-rest",
        "paired",
        "81.0",
        "30",
        "sub-01_task-rest_eeg.vhdr",
        lines[1].split()[5],
    ]
    assert lines[1].endswith("30 x R128")
    assert lines[2].split()[:4] == ["sub-02_task-rest", "paired", "81.0", "30"]
    assert "sub-03_task-rest  left out  81.0   30" in lines[3]
    assert "no 'R128' among the EEG's markers ('Comment/Sync On'" in lines[3]
    assert "no EEG with the same entities" in lines[4]
    assert (
        lines[5]
        == "small: 2 recordings of 2 subjects paired, 2 left out (a complete download: 3 recordings, 3 subjects)"
    )
    assert len(lines) == 6
    assert not list(bids.parent.glob("store*"))


def test_nothing_paired_is_exit_code_1(tmp_path, site_file, capsys):
    assert run(site_file, "--bids", tmp_path, "--dry-run") == 1
    assert "small: 0 recordings of 0 subjects paired, 0 left out" in capsys.readouterr().out


def test_an_adapters_own_reasons_are_in_the_table(tmp_path, capsys):
    for name in (
        "EEG_set/sub01-scan01_eeg.set",
        "fMRI_difumo64/sub01-scan01_difumo64_roi.pkl",
        "EEG_set/sub02-scan01_eeg.set",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert run("vanderbilt", "--bids", tmp_path, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "paired by the site's own adapter" in out
    assert "parcel table is missing" in out
    assert (
        "vanderbilt: 1 recording of 1 subject paired, 1 left out (a complete download: 29 recordings, 22 subjects)"
        in out
    )


def test_without_a_store_only_a_dry_run_is_possible(bids, site_file, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(site_file, "--bids", bids)
    assert stopped.value.code == 2
    assert "--store is needed (or --dry-run" in capsys.readouterr().err


def test_a_terminal_gets_a_table(bids, site_file):
    outer, inner = pty.openpty()
    root = Path(__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'platform'}", "COLUMNS": "200", "TERM": "xterm"}
    command = [sys.executable, "-m", "jobs.ingest", str(site_file), "--bids", str(bids), "--dry-run"]
    process = subprocess.Popen(command, stdout=inner, stderr=subprocess.PIPE, env=env)
    os.close(inner)
    text = b""
    while True:
        try:
            block = os.read(outer, 4096)
        except OSError:
            break
        if not block:
            break
        text += block
    assert process.wait() == 0, process.stderr.read() if process.stderr else ""
    shown = text.decode()
    assert "dry run, nothing is written" in shown
    assert "sub-03_task-rest" in shown
    assert "┃" in shown
