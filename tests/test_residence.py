"""Where recordings lie changes the speed, never the windows."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from xsite.data.residence import Residence, available_memory, choose_residence, residence_for
from xsite.data.windows import build_source
from xsite.errors import RecipeError

GIB = 1024**3
NAMES = ("Fp1", "Cz", "O1")


def source_of(recordings, **where):
    return build_source(recordings, ch_names=NAMES, ch_index=[4, 0, 2], targets=[r.bold for r in recordings], **where)


def test_all_residences_give_the_same_windows(make_recording):
    recordings = [make_recording("alpha", "01"), make_recording("beta", "02", n_volumes=40)]
    index = np.array([0, 41, 99, 7, 60])
    batch, target, mask = source_of(recordings).gather(index)
    for place in ("device", "memory", "file"):
        for dtype in (torch.float32, torch.float16):
            source = source_of(recordings, residence=Residence(place, dtype), device="cpu")
            assert source.eeg_CT.dtype == dtype
            other, other_target, other_mask = source.gather(index)
            assert other.eeg_BCT.dtype == torch.float32
            allowed = 0 if dtype == torch.float32 else 2.0**-11 * batch.eeg_BCT.abs() + 1e-6
            assert ((other.eeg_BCT - batch.eeg_BCT).abs() <= allowed).all()
            assert torch.equal(other_target, target)
            assert torch.equal(other_mask, mask)
            assert torch.equal(other.ch_index_BC, batch.ch_index_BC)


def test_a_value_beyond_float16_stays_finite(make_recording):
    recording = make_recording()
    recording.eeg[recording.ch_names.index("Cz"), 5000] = 1e6
    source = source_of([recording], residence=Residence("memory", torch.float16))
    assert torch.isfinite(source.eeg_CT).all()
    assert source.eeg_CT.float().abs().max() > 6e4


@pytest.mark.parametrize(
    ("device_gib", "memory_gib", "expected"),
    [
        (10.0, 100.0, Residence("device", torch.float32)),  # 4 GiB of 4
        (5.1, 100.0, Residence("device", torch.float16)),
        (4.0, 100.0, Residence("memory", torch.float32)),
        (None, 8.0, Residence("memory", torch.float32)),
        (None, 7.9, Residence("memory", torch.float16)),
        (None, 3.9, Residence("file", torch.float16)),
        (1.0, 3.9, Residence("file", torch.float16)),
    ],
)
def test_the_place_follows_the_size(device_gib, memory_gib, expected):
    free = None if device_gib is None else int(device_gib * GIB)
    assert choose_residence(32, GIB // 32, device_free=free, memory_free=int(memory_gib * GIB)) == expected


def test_the_choice_is_in_the_log(caplog):
    with caplog.at_level(logging.INFO, logger="xsite.data.residence"):
        assert residence_for(26, 240_000, "cpu") == Residence("memory", torch.float32)
    assert "0.02 GiB as float32 in memory" in caplog.text
    assert available_memory() > 10**8


def test_a_training_that_goes_on_keeps_its_type_and_takes_another_place():
    free = {"device_free": None, "memory_free": 3 * GIB}
    assert choose_residence(32, GIB // 32, **free).dtype == torch.float16
    assert choose_residence(32, GIB // 32, **free, dtype=torch.float32) == Residence("file", torch.float32)
    roomy = choose_residence(32, GIB // 32, device_free=None, memory_free=100 * GIB, dtype=torch.float16)
    assert roomy == Residence("memory", torch.float16)
    assert roomy.to_dict() == {"place": "memory", "dtype": "float16"}


def test_workers_of_one_node_share_its_memory(caplog):
    n_times = int(0.4 * available_memory() / 4)  # a single one would take float32 in memory
    with caplog.at_level(logging.INFO, logger="xsite.data.residence"):
        assert residence_for(1, n_times, "cpu", sharing=(3, 1)).dtype == torch.float16
    assert "for each of 3 workers" in caplog.text


def test_a_full_disk_is_an_error_and_not_a_crash():
    with pytest.raises(RecipeError, match="set TMPDIR"):
        Residence("file", torch.float16).allocate(10**6, 10**9)


def test_padding_is_a_fact_of_the_source(make_recording):
    few, many = make_recording("alpha", "01", ch_names=("Cz", "Oz")), make_recording("beta", "02")
    names = [*many.ch_names, "Oz"]

    def ch_index(own):
        return torch.tensor([names.index(name) for name in own])

    targets = [r.bold for r in (few, many)]
    padded = build_source([few, many], ch_names=None, ch_index=ch_index, targets=targets, reference="native")
    shapes = {padded.gather([row])[0].eeg_BCT.shape for row in (0, len(padded) - 1)}
    assert shapes == {(1, 13, 3200)}
    assert all(padded.gather([row])[0].padded for row in (0, len(padded) - 1))
    assert not source_of([many]).gather([0])[0].padded
