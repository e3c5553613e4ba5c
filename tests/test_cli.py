"""The console script: every verb is there, shows an example, and turns errors into one line and an exit code."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli import VERBS, main
from xsite.errors import StoreError


def test_no_verb_lists_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(verb in printed for verb in VERBS)


def test_unknown_verb_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["traim"]) == 2
    assert "unknown verb 'traim'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb_shows_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = importlib.import_module(f"jobs.{verb}")
    with pytest.raises(SystemExit) as caught:
        job.main(["--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert f"neurobolt {verb}" in printed
    assert "xample" in printed


def test_jobs_are_short() -> None:
    folder = Path(importlib.import_module("jobs").__file__ or "").parent
    long = {p.name: n for p in folder.glob("*.py") if (n := len(p.read_text().splitlines())) > 160}
    assert not long


def test_our_errors_become_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: object) -> int:
        raise StoreError("/data/store: no space left")

    monkeypatch.setattr("jobs.doctor.main", fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "neurobolt: StoreError: /data/store: no space left\n"


def test_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("neurobolt")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "loso" in done.stdout
