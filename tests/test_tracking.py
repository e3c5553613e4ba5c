"""Studies in MLflow: runs, metrics, re-runs, and an outage of a real server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from xsite.errors import TrackingError
from xsite.experiment import Experiment
from xsite.tracking import StudyTracker, connect, default_tracking_uri, resolve_tracking_uri
from xsite.tracking.server import server_command, server_environment
from xsite.tracking.spool import Spool

EXPERIMENT = Experiment(name="tiny")


def track(uri: str, spool: Path, *, epochs: int = 3, loss: float = 2.0) -> str:
    with StudyTracker(uri, "tiny", spool=spool) as tracker:
        run_id = tracker.start(
            EXPERIMENT.flat(), fingerprint=EXPERIMENT.fingerprint, tags={"data_hash": "d1", "algorithm": "erm"}
        )
        for site in ("alpha", "beta", None):
            fold = tracker.fold(site, tags={"selection_rule": "train-site-val"})
            for epoch in range(epochs):
                tracker.log_epoch(
                    fold, epoch, {"train_loss": 1 / (epoch + 1), "val_loss": loss / (epoch + 1), "x": None}
                )
            tracker.end_fold(fold, {"r_mean": 0.25})
        tracker.log_final({"ood/r_mean": 0.25, "ood/r_alpha": 0.2, "zero/r_mean": None, "oracle/r_mean": float("nan")})
        tracker.log_dataset("store", digest="d1", source="store")
    return run_id


def stopped_study(uri: str, spool: Path, error: BaseException) -> None:
    with StudyTracker(uri, "tiny", spool=spool) as tracker:
        tracker.start({}, fingerprint="f")
        tracker.log_epoch(tracker.fold("alpha"), 0, {"val_loss": 2.0})
        raise error


def runs_of(uri: str) -> dict[str, object]:
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name("tiny")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_parent_and_children_hold_parameters_tags_and_curves(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "mlflow")
    parent_id = track(uri, tmp_path / "spool.jsonl")
    runs = runs_of(uri)
    assert sorted(runs) == ["final model", "held-out alpha", "held-out beta", "leave-one-site-out"]
    parent, child = runs["leave-one-site-out"], runs["held-out alpha"]
    assert parent.data.params == {key: str(value) for key, value in EXPERIMENT.flat().items()}
    assert parent.data.metrics == {"ood/r_mean": 0.25, "ood/r_alpha": 0.2}
    assert parent.inputs.dataset_inputs[0].dataset.digest == "d1"
    assert child.data.tags["mlflow.parentRunId"] == parent_id
    assert child.data.tags["held_out_site"] == "alpha"
    assert child.data.tags["algorithm"] == "erm"
    assert runs["final model"].data.tags["held_out_site"] == "none"
    curve = MlflowClient(uri, uri).get_metric_history(child.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in curve] == [(0, 2.0), (1, 1.0), (2, 2 / 3)]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert not (tmp_path / "spool.jsonl").exists()


def test_database_and_artifacts_lie_in_one_folder(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "mlflow")
    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    with StudyTracker(uri, "tiny", spool=tmp_path / "spool") as tracker:
        run_id = tracker.start({}, fingerprint="f")
        tracker.log_artifact(report)
    assert [file.path for file in MlflowClient(uri, uri).list_artifacts(run_id)] == ["report.html"]
    (kept,) = (tmp_path / "mlflow" / "artifacts").rglob("report.html")
    assert kept.read_text() == "<p>report</p>"
    assert (tmp_path / "mlflow" / "mlflow.db").is_file()


def test_the_same_plan_goes_into_the_same_runs(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "mlflow")
    first = track(uri, tmp_path / "spool")
    before = {name: run.info.run_id for name, run in runs_of(uri).items()}
    assert track(uri, tmp_path / "spool", epochs=0) == first  # every fold was finished: only its figures come again
    assert track(uri, tmp_path / "spool", epochs=3) == first  # the same curves once more
    runs = runs_of(uri)
    assert {name: run.info.run_id for name, run in runs.items()} == before
    client = MlflowClient(uri, uri)
    assert len(client.get_metric_history(runs["held-out beta"].info.run_id, "val_loss")) == 3


def test_a_fold_trained_anew_starts_its_curves_anew(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "mlflow")
    track(uri, tmp_path / "spool", epochs=3)
    track(uri, tmp_path / "spool", epochs=2, loss=5.0)
    runs = runs_of(uri)
    assert len(runs) == 4
    client = MlflowClient(uri, uri)
    assert [p.step for p in client.get_metric_history(runs["held-out alpha"].info.run_id, "val_loss")] == [0, 1]


def test_a_fold_that_goes_on_keeps_its_curves(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "mlflow")
    with pytest.raises(KeyboardInterrupt):
        stopped_study(uri, tmp_path / "spool", KeyboardInterrupt())
    assert {run.info.status for run in runs_of(uri).values()} == {"KILLED"}
    with StudyTracker(uri, "tiny", spool=tmp_path / "spool") as tracker:
        tracker.start({}, fingerprint="f")
        tracker.log_epoch(tracker.fold("alpha"), 1, {"val_loss": 1.0})
    runs = runs_of(uri)
    curve = MlflowClient(uri, uri).get_metric_history(runs["held-out alpha"].info.run_id, "val_loss")
    assert [point.step for point in curve] == [0, 1]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_a_failed_study_is_marked(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "mlflow")
    with pytest.raises(ValueError, match="broken"):
        stopped_study(uri, tmp_path / "spool", ValueError("broken"))
    assert {run.info.status for run in runs_of(uri).values()} == {"FAILED"}


def test_long_parameters_are_cut_to_what_mlflow_takes(tmp_path: Path) -> None:
    uri = default_tracking_uri(tmp_path / "mlflow")
    with StudyTracker(uri, "tiny", spool=tmp_path / "spool") as tracker:
        tracker.start({"long": "x" * 7000}, fingerprint="f")
    assert len(runs_of(uri)["leave-one-site-out"].data.params["long"]) == 6000


def test_an_unknown_kind_of_store_and_a_silent_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="give a folder, sqlite"):
        resolve_tracking_uri("redis://somewhere")
    with pytest.raises(TrackingError, match="does not answer"):
        connect(f"http://127.0.0.1:{free_port()}")
    assert resolve_tracking_uri(str(tmp_path)) == f"sqlite:///{tmp_path}/mlflow.db"


def test_spool_survives_a_line_that_was_cut(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "spool.jsonl")
    spool.append({"do": "log", "run": "alpha"})
    with spool.path.open("a") as file:
        file.write('{"do": "lo')
    assert spool.read() == [{"do": "log", "run": "alpha"}]
    spool.keep([])
    assert not spool.path.exists()


def test_writes_that_can_never_be_sent_do_not_block_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri, spool = default_tracking_uri(tmp_path / "mlflow"), Spool(tmp_path / "spool.jsonl")
    run_id = track(uri, spool.path)
    with StudyTracker(uri, "tiny", spool=spool.path) as tracker:
        tracker.start(EXPERIMENT.flat(), fingerprint=EXPERIMENT.fingerprint, tags={"data_hash": "d1"})
        plan = MlflowClient(uri, uri).get_run(run_id).data.tags["plan_hash"]
    first = {"plan": plan, "run": "study"}
    spool.append({**first, "do": "artifact", "path": str(tmp_path / "gone.html"), "folder": None})
    spool.append({"plan": "of nobody", "run": "alpha", "do": "end", "status": "FINISHED", "time": 1})
    spool.append({**first, "do": "log"} | {"metrics": [["a b;c", 1.0, 1, 0]]})  # no metric may be called so
    with spool.path.open("a") as file:
        file.write('{"do": "lo\n["not a write"]\n')
    spool.append({**first, "do": "log", "metrics": [["late", 1.5, 1, 0]]})
    with StudyTracker(uri, "tiny", spool=spool.path) as tracker:
        assert tracker.start(EXPERIMENT.flat(), fingerprint=EXPERIMENT.fingerprint, tags={"data_hash": "d1"}) == run_id
    assert not spool.path.exists()
    assert MlflowClient(uri, uri).get_run(run_id).data.metrics["late"] == 1.5
    for expected in ("gone.html", "plan of nobody", "a b;c", "line 4 is no complete write", "line 5"):
        assert expected in caplog.text


def test_mlflow_sends_nothing_anywhere() -> None:
    script = "import jobs.register; from mlflow.telemetry import get_telemetry_client; print(get_telemetry_client())"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW", "DO_NOT", "CI", "PYTEST"))}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A real MLflow server that can be killed and started again on the same port and database."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.store = default_tracking_uri(folder)
        self.command = server_command(self.store, port=self.port)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, env=server_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError("the MLflow server did not start within 90 s")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own session: workers go with it
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "mlflow")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_an_outage_loses_no_metric(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spool = tmp_path / "spool.jsonl"
    with StudyTracker(server.uri, "tiny", spool=spool) as tracker:
        run_id = tracker.start(EXPERIMENT.flat(), fingerprint=EXPERIMENT.fingerprint)
        tracker.log_epoch(tracker.fold("alpha"), 0, {"val_loss": 4.0})
        server.kill()
        tracker.log_epoch("alpha", 1, {"val_loss": 3.0})
        tracker.end_fold("alpha")
        tracker.log_epoch(tracker.fold("beta"), 0, {"val_loss": 2.0})  # a fold that begins while the server is away
        assert len(Spool(spool)) == 4
        server.start()
        assert tracker.flush() == 0
        assert not spool.exists()
        runs = runs_of(server.uri)
        server.kill()
        tracker.end_fold("beta")
        tracker.log_final({"ood/r_mean": 0.5})
    client = MlflowClient(server.store, server.store)
    curve = client.get_metric_history(runs["held-out alpha"].info.run_id, "val_loss")
    assert [(point.step, point.value) for point in curve] == [(0, 4.0), (1, 3.0)]
    assert runs["held-out beta"].data.metrics == {"val_loss": 2.0}
    assert runs["held-out beta"].data.tags["mlflow.parentRunId"] == run_id

    assert "run the same command again" in caplog.text
    assert len(Spool(spool)) == 3  # end of the fold, the figure, end of the study
    with StudyTracker(server.store, "tiny", spool=spool) as tracker:  # the server's own database
        assert tracker.start(EXPERIMENT.flat(), fingerprint=EXPERIMENT.fingerprint) == run_id
    assert not spool.exists()
    assert client.get_run(run_id).data.metrics == {"ood/r_mean": 0.5}
    assert len(runs_of(server.store)) == 3
    assert {run.info.status for run in runs_of(server.store).values()} == {"FINISHED"}
