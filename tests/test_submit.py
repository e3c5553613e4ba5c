"""Submission through the Jobs API to a cluster that ``ray start --head`` has started with token authentication."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from jobs import loso, submit
from xsite.data.store import read_manifest
from xsite.errors import ClusterError, RecipeError
from xsite.phantom.consortium import generate_consortium
from xsite.runtime.shipping import package_folders
from xsite.runtime.submission import check_address, connect_jobs, find_token, require_absolute

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Head:
    url: str
    token: str


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head node of its own, in a process group of its own: `ray stop` would stop every Ray on this machine."""
    token, folder = secrets.token_hex(32), tempfile.mkdtemp(prefix="xh", dir="/tmp")
    ports = free_ports(4)
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--num-cpus=2"]
    command += [f"--port={ports[0]}", f"--dashboard-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}"]
    command += ["--dashboard-host=127.0.0.1", f"--ray-client-server-port={ports[3]}", f"--temp-dir={folder}"]
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0"}
    env.pop("PYTHONPATH", None)
    with (Path(folder) / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{ports[1]}"
        wait_for(url, token, process, Path(folder) / "head.log")
        yield Head(url, token)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def status_of(url: str, token: str | None) -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def wait_for(url: str, token: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert process.poll() is None, log.read_text()
        try:
            if status_of(f"{url}/api/jobs/", token) == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.ray
def test_without_the_token_nothing_is_submitted(head: Head, no_token: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_of(f"{head.url}/api/jobs/", None) == 401
    words = ["--address", head.url, "ingest", "all", "--bids", "/data", "--store", "/store"]
    with pytest.raises(ClusterError, match="refuses a submission without a token: put its token into RAY_AUTH_TOKEN"):
        submit.main(words)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong" * 8)
    with pytest.raises(ClusterError, match="refuses this token"):
        submit.main(words)
    assert json.loads(urllib.request.urlopen(authorised(head)).read()) == []


def authorised(head: Head) -> urllib.request.Request:
    return urllib.request.Request(f"{head.url}/api/jobs/", headers={"Authorization": f"Bearer {head.token}"})


@pytest.fixture
def elsewhere(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A consortium, the token in a file, and a working folder far from the packages."""
    generate_consortium(tmp_path / "bids", n_sites=2, n_subjects=2, preset="easy", seed=1, minutes=1.0)
    (tmp_path / "token").write_text(head.token + "\n")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ingest_words(folder: Path) -> list[str]:
    return ["ingest", "all", "--bids", str(folder / "bids"), "--store", str(folder / "store")]


@pytest.mark.ray
def test_ingest_runs_on_the_cluster(head: Head, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["--address", head.url, *ingest_words(elsewhere)]) == 0
    out = capsys.readouterr().out
    assert "(existing)" in out
    assert "4 recordings written" in out
    assert len(read_manifest(str(elsewhere / "store"))) == 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_study_runs_on_the_cluster(head: Head, elsewhere: Path) -> None:
    assert submit.main(["--address", head.url, *ingest_words(elsewhere)]) == 0
    (elsewhere / "my.yaml").write_text(yaml.safe_dump({"name": "sent", "optim": {"batch_size": 16}, "surrogates": 20}))
    study = elsewhere / "study"
    words = ["loso", "my.yaml", "--store", str(elsewhere / "store"), "--study", str(study), "--smoke"]
    words += ["--tracking", f"sqlite:///{elsewhere}/mlflow.db", "--set", "optim.lr=1e-3"]
    assert submit.main(["--address", head.url, *words]) == 0
    assert json.loads((study / "status.json").read_text())["state"] == "done"
    assert (study / "report.html").is_file()
    assert yaml.safe_load((study / "experiment.yaml").read_text())["optim"]["lr"] == 1e-3


@pytest.mark.ray
def test_a_failing_job_is_a_failing_submission(
    head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    words = ["ingest", "all", "--bids", str(tmp_path / "nowhere"), "--store", str(tmp_path / "store")]
    assert submit.main(["--address", head.url, *words]) == 1
    out = capsys.readouterr().out
    assert "SiteError" in out
    assert "nowhere: no such folder" in out
    assert "FAILED" in out


def test_a_dashboard_on_another_machine_is_not_spoken_to_without_a_token(no_token: None) -> None:
    with pytest.raises(ClusterError, match="no token, and this dashboard is on another machine"):
        connect_jobs("http://192.0.2.1:8265")
    check_address("http://127.0.0.1:8265", None)
    check_address("http://[::1]:8265", None)
    check_address("https://ray.example.org", "secret")
    with pytest.raises(ClusterError, match="give the dashboard's URL"):
        check_address("127.0.0.1:8265", "secret")


def test_an_absent_dashboard_is_named(no_token: None) -> None:
    (port,) = free_ports(1)
    with pytest.raises(ClusterError, match=f"no Ray dashboard answers at http://127.0.0.1:{port}"):
        connect_jobs(f"http://127.0.0.1:{port}")


def test_the_token_is_found_where_ray_looks(no_token: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_token() is None
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("home\n")
    assert find_token() == "home"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
    with pytest.raises(ClusterError, match="absent, which is no file"):
        find_token()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "direct")
    assert find_token() == "direct"


def test_relative_and_missing_places_are_refused_all_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--store store is relative .*; --study is missing; --tracking is missing"):
        submit.resolve("loso", [str(tmp_path / "my.yaml"), "--store=store"])
    with pytest.raises(RecipeError, match=r"sqlite:///mlflow\.db is relative"):
        require_absolute({"--tracking": "sqlite:///mlflow.db"})
    require_absolute({"a": "/data", "b": "s3://lab/store", "c": "sqlite:////data/mlflow.db", "d": "http://m:5000"})


def test_the_recipe_travels_as_json_with_its_overrides(tmp_path: Path) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text("name: mine\noptim: {epochs: 7}\n")
    words = submit.resolve(
        "train",
        [str(recipe), "--store", "/s", "--out", "/o", "--tracking", "/m", "--set", "optim.lr=1e-2", "--set", "seed=3"],
    )
    sent = json.loads(words[0])
    assert (sent["optim"]["epochs"], sent["optim"]["lr"], sent["seed"]) == (7, 1e-2, 3)
    assert words[1:] == ["--store", "/s", "--out", "/o", "--tracking", "/m"]
    with pytest.raises(RecipeError, match="did you mean 'optim'"):
        submit.resolve("loso", [str(recipe), "--store=/s", "--study=/t", "--tracking=/m", "--set", "optin.lr=1"])


@pytest.mark.parametrize("spelling", [["--set=optim.lr=0.5"], ["--set", "optim.lr=0.5"], ["--se=optim.lr=0.5"]])
def test_every_spelling_of_an_override_travels(tmp_path: Path, spelling: list[str]) -> None:
    recipe = tmp_path / "my.yaml"
    recipe.write_text("name: mine\n")
    places = ["--store=/s", "--study=/t", "--tracking=/m"]
    words = submit.resolve("loso", [*spelling, str(recipe), *places])
    assert json.loads(words[0])["optim"]["lr"] == 0.5
    assert words[1:] == places
    again = loso.parser().parse_args(words)
    assert loso.read_recipe(again).optim.lr == 0.5  # what the job will train with
    with pytest.raises(RecipeError, match="a recipe given as JSON takes no --set"):
        loso.read_recipe(loso.parser().parse_args([*words, "--set=optim.lr=0.1"]))


@pytest.mark.parametrize(
    ("verb", "words", "place"),
    [
        ("register", ["studies/x", "--tracking", "/m"], "study studies/x"),
        ("predict", ["models:/m@a", "out", "--eeg", "/e.vhdr", "--tracking", "/m"], "out out"),
        ("predict", ["final", "/out", "--eeg", "/e.vhdr", "--tracking", "/m"], "model final"),
        ("evaluate", ["final", "--store", "/s", "--tracking", "/m"], "model final"),
        ("phantom", ["demo/bids"], "OUT demo/bids"),
        ("ingest", ["my.yaml", "--bids", "/b", "--store", "/s"], "SITE my.yaml"),
        ("doctor", ["--stor", "s"], "--store s"),
    ],
)
def test_positional_places_must_be_absolute_as_well(verb: str, words: list[str], place: str) -> None:
    with pytest.raises(RecipeError, match=rf"positional words alike.*: {place} is relative"):
        submit.resolve(verb, words)


def test_absolute_words_travel_as_they_are() -> None:
    for verb, words in {
        "predict": ["runs:/1234", "/out", "--eeg=/e.vhdr", "--tracking", "http://m:5000"],
        "phantom": ["/bids", "--sites", "2"],
        "doctor": [],
    }.items():
        assert submit.resolve(verb, words) == words


def test_what_is_shipped_holds_our_packages_and_shadows_nothing() -> None:
    folders = package_folders()
    assert [folder.name for folder in folders] == ["neurobolt", "xsite", "site_adapters", "jobs"]
    assert all(folder.is_absolute() and (folder / "__init__.py").is_file() for folder in folders)
    assert ROOT not in folders


def test_names_of_atlases_and_dry_runs_are_no_places() -> None:
    words = ["ds002336", "--bids", "/data/bids", "--store", "/data/store", "--atlas", "difumo64"]
    assert submit.resolve("ingest", words) == words
    listing = ["ds002336", "--bids", "/data/bids", "--dry-run"]
    assert submit.resolve("ingest", listing) == listing
    with pytest.raises(RecipeError, match="sidecars"):
        submit.resolve("phantom", ["/data/out", "--like", "ds002336", "--sidecars", "here/ds002336"])


def test_what_looks_at_local_files_is_not_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        submit.parser().parse_args(["site", "check", "mysite.yaml"])
    assert "invalid choice: 'site'" in capsys.readouterr().err
