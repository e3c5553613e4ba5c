"""The console script: every verb is there, shows an example, and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from study_folder import build_study

from jobs import demo, loso, study_log
from jobs.cli import VERBS, main, run_job, write_output
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
    long = {p.name: n for p in folder.glob("*.py") if (n := len(p.read_text().splitlines())) > 200}
    assert not long


def test_our_errors_become_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(argv: object) -> int:
        raise StoreError("/data/store: no space left")

    monkeypatch.setattr("jobs.doctor.main", fail)
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "neurobolt: StoreError: /data/store: no space left\n"


def test_a_full_disk_is_one_line_and_a_bug_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")

    assert run_job(fail) == 2
    assert "No space left on device: '/data/x'; free some space" in capsys.readouterr().err

    def broken(argv: object) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file"):
        run_job(broken)


def test_outputs_are_whole_or_refused(tmp_path: Path) -> None:
    assert write_output(tmp_path / "new" / "a.json", b"{}").read_bytes() == b"{}"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.json"]
    with pytest.raises(StoreError, match=r"a\.json/b: cannot be written"):
        write_output(tmp_path / "new" / "a.json" / "b", b"")


def test_the_demo_shows_its_results_when_the_gate_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_study(tmp_path, skill=0.0)
    assert demo.finish(tmp_path, 1, 60.0) == 1
    printed = capsys.readouterr()
    assert (tmp_path / "summary.json").is_file()
    for expected in ("alpha", "report.html", "MLflow UI", "not registered as challenger"):
        assert expected in printed.out
    assert "THE GATE REFUSED" in printed.err


def test_scores_that_do_not_exist_are_no_crash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"site": "a", "model": "m", "control": False, "r_mean": None, "mse_mean": None, "p_null": None}
    summary = {"model": "m", "rows": [row], "overall": [row]}
    loso.print_scores(SimpleNamespace(summary=summary))  # type: ignore[arg-type]
    assert "MSE -  p -" in capsys.readouterr().out
    assert study_log.study_metrics(summary)["ood/mse_mean"] is None


def test_console_script_is_installed() -> None:
    script = Path(sys.executable).with_name("neurobolt")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    assert "loso" in done.stdout
