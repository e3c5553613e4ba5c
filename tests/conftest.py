"""Fixtures shared by all tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from xsite.recording import Montage, Parcellation, Recording, RecordingKey

SHARED = Path(__file__).parents[2] / "shared"
CH_NAMES = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Fz", "Cz", "Pz")


def pytest_configure() -> None:
    """Let Ctrl-C reach the programs that tests interrupt: what a shell starts in the background inherits deaf ears."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Path of a file under ``../shared``; skips with the path when it is absent."""

    def locate(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"shared/{relative} not found")
        return path

    return locate


@pytest.fixture
def make_recording(rng: np.random.Generator) -> Callable[..., Recording]:
    """Build a small recording in memory; its first parcel follows the alpha power of the last channels with a lag."""

    def build(
        site: str = "alpha",
        subject: str = "01",
        *,
        ch_names: tuple[str, ...] = CH_NAMES,
        n_volumes: int = 60,
        t_r: float = 2.0,
        n_parcels: int = 3,
        sfreq: float = 200.0,
    ) -> Recording:
        lead_in = 18.0  # seconds of EEG before the first volume, so that every 16 s window exists
        n_times = int((lead_in + n_volumes * t_r + 2) * sfreq)
        t = np.arange(n_times) / sfreq
        power = np.interp(t, np.arange(0, t[-1] + 4, 4.0), rng.uniform(0.2, 1.0, int(t[-1] / 4) + 2))
        eeg = rng.normal(0, 8, (len(ch_names), n_times))
        eeg[-4:] += 30 * power * np.sin(2 * np.pi * 10 * t)
        onsets = lead_in + np.arange(n_volumes) * t_r
        lagged = np.interp(onsets - 5.0, t, power)
        bold = rng.normal(0, 0.3, (n_volumes, n_parcels))
        bold += np.outer((lagged - lagged.mean()) / lagged.std(), np.linspace(1, 0.4, n_parcels))
        positions = rng.normal(0, 1, (len(ch_names), 3))
        positions *= 0.095 / np.linalg.norm(positions, axis=1, keepdims=True)
        return Recording(
            key=RecordingKey(site=site, subject=subject, task="rest"),
            montage=Montage(ch_names, positions),
            parcellation=Parcellation("test-3", tuple(f"parcel{i}" for i in range(n_parcels)), "MNI", "0" * 64),
            eeg=eeg.astype(np.float32),
            eeg_valid=np.ones(n_times, dtype=bool),
            bold=bold.astype(np.float32),
            global_signal=bold.mean(1).astype(np.float32),
            confounds=np.zeros((n_volumes, 1), np.float32),
            confound_names=("framewise_displacement",),
            volume_onsets=onsets,
            volume_valid=np.ones(n_volumes, dtype=bool),
            sfreq=sfreq,
            t_r=t_r,
        )

    return build


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One private two-core Ray cluster for all tests that need one; jobs that connect join it and leave it running."""
    from xsite.runtime import cluster

    with cluster.connected(num_cpus=2):
        yield
