"""The MLflow UI in a real browser: the study, its curves, and the registered version with its card.

Run with ``pytest -m browser tests/test_ui_browser.py``; screenshots are left in pytest's temporary folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from study_folder import SITES, build_study

from jobs import register
from xsite.data.manifest import data_hash
from xsite.experiment import load_experiment
from xsite.tracking import StudyTracker, default_tracking_uri

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WAIT = 60_000  # ms; the first page compiles a lot of JavaScript on two busy cores


def tracked_study(folder: Path) -> tuple[str, str]:
    """A study with curves and a registered version; returns the store's URI and the parent run's id."""
    study, uri = build_study(folder), default_tracking_uri(folder / "mlflow")
    experiment = load_experiment(study / "experiment.yaml")
    with StudyTracker(uri, experiment.name, spool=folder / "spool.jsonl") as tracker:
        # with the hash of its data, as `loso` gives it: `register` finds the study by it
        tags = {"algorithm": "erm", "data_hash": data_hash(pd.read_parquet(study / "manifest.parquet"))}
        run_id = tracker.start(experiment.flat(), fingerprint=experiment.fingerprint, tags=tags)
        for site in (*SITES, None):
            fold = tracker.fold(site)
            for epoch in range(6):
                tracker.log_epoch(fold, epoch, {"train_loss": 1 / (epoch + 1), "val_loss": 1.2 / (epoch + 1)})
            tracker.end_fold(fold)
        tracker.log_final({"ood/r_mean": 0.5, **{f"ood/r_{site}": 0.5 for site in SITES}})
        tracker.log_artifact(study / "summary.json")
    assert register.main([str(study), "--tracking", uri]) == 0
    return uri, run_id


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address of ``neurobolt ui`` on a real study, and the parent run's id."""
    folder = tmp_path_factory.mktemp("ui")
    uri, run_id = tracked_study(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jobs.ui", "--tracking", uri, "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}", run_id
    finally:
        server.terminate()
        server.wait(timeout=30)
        with pytest.raises(ProcessLookupError):  # the server went with the job: nothing of the session is left
            os.killpg(server.pid, 0)


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError(f"{url} did not answer; server's exit code {server.poll()}")


@pytest.fixture
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.set_default_timeout(WAIT)
        elsewhere: list[str] = []
        page.on(
            "request",
            lambda r: elsewhere.append(r.url) if not r.url.startswith(("http://127.0.0.1", "data:", "blob:")) else None,
        )
        yield page
        browser.close()
        assert elsewhere == [], f"the UI asked other machines for {elsewhere}"


def test_study_with_children_and_curves(site: tuple[str, str], page: Any, tmp_path: Path) -> None:
    address, run_id = site
    page.goto(f"{address}/#/experiments")
    page.get_by_text("tiny").first.click()
    page.goto(f"{address}/#/experiments/1/runs")
    page.get_by_text("leave-one-site-out").first.wait_for()
    unfold = page.locator(".ag-cell-value:has-text('leave-one-site-out') button")
    assert unfold.count() == 1, "training and registration are one study, not two"
    unfold.click()
    for name in ("held-out alpha", "held-out beta", "final model"):
        page.get_by_text(name).first.wait_for()
    page.screenshot(path=str(tmp_path / "runs.png"), full_page=True)
    page.goto(f"{address}/#/experiments/1/runs/{run_id}")
    page.get_by_text("ood/r_mean").first.wait_for()
    page.screenshot(path=str(tmp_path / "study.png"), full_page=True)
    page.get_by_text("held-out alpha").first.click()
    page.get_by_text("Model metrics").first.click()
    for name in ("train_loss", "val_loss"):
        page.get_by_text(name).first.wait_for()
    page.locator("svg .scatterlayer .trace path.js-line").nth(1).wait_for(state="attached")
    page.screenshot(path=str(tmp_path / "curves.png"), full_page=True)


def test_registered_version_with_its_card(site: tuple[str, str], page: Any, tmp_path: Path) -> None:
    address, _ = site
    page.goto(f"{address}/#/models/neurobolt")
    page.get_by_text("challenger").first.wait_for()
    page.screenshot(path=str(tmp_path / "model.png"), full_page=True)
    page.goto(f"{address}/#/models/neurobolt/versions/1")
    page.get_by_text("it has no held-out site").first.wait_for()
    page.screenshot(path=str(tmp_path / "version.png"), full_page=True)
    assert "challenger" in page.inner_text("body")
