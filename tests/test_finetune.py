"""Fine-tuning on labelled subjects of an unseen site, in plain Python; the study around it is in test_calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from jobs.models import build_model
from xsite.data.windows import build_source, window_starts
from xsite.errors import RecipeError
from xsite.experiment import Experiment
from xsite.learning.finetune import finetune, finetuning_optim, part_parameters, stopping_split
from xsite.learning.targets import TargetSpec
from xsite.recording import Recording

MakeRecording = Callable[..., Recording]
SPEC = TargetSpec("strict", 0.15, (1.0, 1.0, 1.0))


def config_of(recording: Recording, name: str = "eegnet") -> dict[str, Any]:
    content = {"model": {"name": name}, "optim": {"lr": 3e-3, "batch_size": 16}}
    experiment = Experiment.model_validate(content).model_dump(mode="json")
    config = {"experiment": experiment, "reference": "average", "target": SPEC.to_dict()}
    return {**config, "ch_names": list(recording.ch_names), "parcels": ["a", "b", "c"], "model": {"name": name}}


def new_model(recording: Recording, name: str = "eegnet") -> nn.Module:
    torch.manual_seed(1)
    return build_model(name, "small", {}, ch_names=recording.ch_names, n_outputs=3).eval()


def test_one_subject_is_cut_in_time_and_no_sample_serves_both_sides(make_recording: MakeRecording) -> None:
    recording = make_recording(n_volumes=60)
    (train,), (val,) = stopping_split([recording], [recording.bold], window_s=16.0)
    assert train[0] is val[0] is recording
    volumes, starts = window_starts(recording, 16.0)
    stops = starts + round(16.0 * recording.sfreq)
    of = {side: np.flatnonzero(np.isfinite(pair[1]).all(1)) for side, pair in (("train", train), ("val", val))}
    assert len(of["val"]) == 15
    assert len(of["train"]) == 60 - 15 - 11
    last_used = stops[np.isin(volumes, of["train"])].max() / recording.sfreq
    first_used = starts[np.isin(volumes, of["val"])].min() / recording.sfreq
    assert first_used - last_used >= 6.0 - 1e-9


def test_of_several_subjects_the_last_one_stops(make_recording: MakeRecording) -> None:
    recordings = [make_recording("beta", subject, n_volumes=20) for subject in ("03", "01", "02")]
    train, val = stopping_split(recordings, [r.bold for r in recordings], window_s=16.0)
    assert [r.key.subject for r, _ in train] == ["03", "01"]
    assert [r.key.subject for r, _ in val] == ["02"]


@pytest.mark.parametrize("name", ["eegnet", "neurobolt", "lag-tokens", "biot"])
def test_parts_of_any_model(name: str, make_recording: MakeRecording) -> None:
    recording = make_recording(n_volumes=20)
    model = new_model(recording, name)
    source = build_source(
        [recording], ch_names=recording.ch_names, ch_index=model.channel_index, targets=None,  # type: ignore[arg-type]
        window_s=float(model.window_s), statistics=getattr(model, "recording_statistics", None),  # type: ignore[arg-type]
    )  # fmt: skip
    head, norms, everything = (part_parameters(model, part, source) for part in ("head", "norms", "all"))
    sizes = [sum(p.numel() for p in parameters) for parameters in (head, norms, everything)]
    assert 0 < sizes[0] <= sizes[1] < sizes[2]
    assert {id(p) for p in head} <= {id(p) for p in norms}


def test_only_the_part_moves_and_the_given_model_does_not(make_recording: MakeRecording) -> None:
    recordings = [make_recording("beta", subject, n_volumes=30) for subject in ("01", "02")]
    model = new_model(recordings[0])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = finetune(model, config_of(recordings[0]), recordings, part="head", seed=0)
    assert found.best_epoch > 0
    assert min(found.errors) == found.errors[found.best_epoch] < found.errors[0]
    after = found.model.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    source = build_source(recordings, ch_names=recordings[0].ch_names, ch_index=model.channel_index, targets=None)  # type: ignore[arg-type]
    head = {id(p) for p in part_parameters(model, "head", source)}
    assert moved == {name for name, parameter in model.named_parameters() if id(parameter) in head}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = finetune(model, config_of(recordings[0]), recordings, part="head", seed=0)
    assert all(torch.equal(value, after[name]) for name, value in again.model.state_dict().items())


def test_a_model_that_cannot_be_bettered_stays_as_it_is(make_recording: MakeRecording) -> None:
    recordings = [make_recording("beta", subject, n_volumes=30) for subject in ("01", "02")]
    silent = [recordings[0], replace(recordings[1], bold=np.zeros_like(recordings[1].bold))]
    model = new_model(recordings[0])
    with torch.no_grad():
        for parameter in part_parameters(
            model,
            "head",
            build_source(  # predicts zero, and zero is the truth
                recordings, ch_names=recordings[0].ch_names, ch_index=model.channel_index, targets=None
            ),
        ):  # type: ignore[arg-type]
            parameter.zero_()
    found = finetune(model, config_of(recordings[0]), silent, part="all", seed=0)
    assert found.best_epoch == 0
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.model.state_dict().items())


def test_a_scan_that_is_too_short_is_named(make_recording: MakeRecording) -> None:
    recording = make_recording(n_volumes=12)
    with pytest.raises(RecipeError, match=r"alpha/sub-01.* too short"):
        finetune(new_model(recording), config_of(recording), [recording], part="head", seed=0)


def test_all_of_a_model_moves_slowly() -> None:
    optim = Experiment().optim
    slow, fast = finetuning_optim(optim, "all", 80), finetuning_optim(optim, "head", 8000)
    assert slow.lr == pytest.approx(0.1 * fast.lr)
    assert (slow.batch_size, fast.batch_size) == (10, optim.batch_size)
    assert finetuning_optim(optim, "head", 6).batch_size == 4
    assert slow.patience == 5
