"""What the doctor says, and that it finds what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_folder import build_recording, build_store

from jobs import doctor, loso
from xsite.data.manifest import rebuild_manifest
from xsite.data.store import write_recording


def test_a_healthy_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_store(tmp_path / "store")
    words = ["--store", str(tmp_path / "store"), "--tracking", str(tmp_path / "mlflow"), "--folder", str(tmp_path)]
    assert doctor.main(words) == 0
    text = capsys.readouterr().out
    for expected in ("torch 2.", "4 recordings, parcellation test-3", "GB free", "the first study makes it"):
        assert expected in text
    assert "what is wrong: nothing found" in text
    assert not (tmp_path / "mlflow").exists()  # looking makes nothing


def test_everything_wrong_is_listed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recording(str(tmp_path / "store"), build_recording("alpha", "01"), fingerprint="f")
    rebuild_manifest(str(tmp_path / "store"))
    words = ["--store", str(tmp_path / "store"), "--tracking", "http://127.0.0.1:9", "--folder", str(tmp_path)]
    assert doctor.main(words) == 1
    wrong = capsys.readouterr().out.split("what is wrong:")[1]
    assert "tracking: MLflow at http://127.0.0.1:9 does not answer" in wrong
    assert "one site only; leave-one-site-out needs two" in wrong


def test_a_damaged_tracking_database_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").write_bytes(b"no database at all " * 200)
    assert doctor.main(["--tracking", str(tmp_path / "mlflow")]) == 1
    assert "tracking: MLflow at sqlite:///" in capsys.readouterr().out.split("what is wrong:")[1]


def test_an_absent_store_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--store", str(tmp_path / "none"), "--tracking", str(tmp_path / "mlflow")]) == 1
    assert "no recording in this store" in capsys.readouterr().out


def test_an_unreachable_cluster_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--address", "127.0.0.1:9", "--tracking", str(tmp_path / "mlflow")]) == 1
    assert "cluster: nothing answers at 127.0.0.1:9" in capsys.readouterr().out


def test_the_cluster_of_the_environment_is_the_one_that_studies_would_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    for verb in (doctor, loso):
        words = ["r.yaml", "--store", "s"] if verb is loso else []
        assert verb.parser().parse_args(words).address == "127.0.0.1:1"
    assert doctor.cluster(None) == ["none named (--address); a study starts a private one"]
