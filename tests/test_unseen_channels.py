"""A native recording with electrodes that the model was never trained with: what it can read, it is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.models import build_model
from jobs.opened import Opened, check_channels
from xsite.errors import ChannelError
from xsite.experiment import Experiment
from xsite.learning.finetune import finetune
from xsite.learning.predict import input_channels, predict_recording
from xsite.learning.targets import TargetSpec
from xsite.runtime.fold_job import FoldJob
from xsite.runtime.job_windows import watched_source

TRAINED = ("Fp1", "Cz", "O1", "O2", "T7")
FOREIGN = ("Fp1", "Iz", "Cz", "E77", "O1", "O2")
"""Of these, Iz has a place by its name, E77 by the file's positions only."""
CONFIG = {
    "ch_names": list(TRAINED),
    "parcels": ["a", "b"],
    "reference": "native",
    "experiment": {"data": {"channels": "native"}},
}


def built(name, **options):
    torch.manual_seed(2)
    model = build_model(name, "small", options, ch_names=TRAINED, n_outputs=2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def recording(make_recording):
    return make_recording(ch_names=FOREIGN, n_volumes=12)


def unplaced(recording):
    return replace(recording, montage=replace(recording.montage, positions=np.full((len(FOREIGN), 3), np.nan)))


def silenced(recording, name):
    eeg = recording.eeg.copy()
    eeg[FOREIGN.index(name)] *= 0.1
    return replace(recording, eeg=eeg)


@pytest.mark.parametrize(
    ("name", "options", "heard"),
    [
        ("neurobolt-x", {}, FOREIGN),
        ("neurobolt-x", {"positions": False}, ("Fp1", "Cz", "O1", "O2")),
        ("neurobolt-x", {"unseen_channels": "nearest"}, ("Fp1", "Iz", "Cz", "O1", "O2")),
        ("eegnet", {}, ("Fp1", "Cz", "O1", "O2")),
        ("eegnet", {"unseen_channels": "nearest"}, ("Fp1", "Iz", "Cz", "O1", "O2")),
        ("neurobolt", {"unseen_channels": "nearest"}, ("Fp1", "Iz", "Cz", "O1", "O2")),
    ],
)
def test_the_model_decides_what_it_is_given(recording, name, options, heard):
    model = built(name, **options)
    assert input_channels(recording, CONFIG, model) == heard
    said = predict_recording(model, recording, config=CONFIG)
    assert np.isfinite(said).any()
    for foreign in ("Iz", "E77"):
        other = predict_recording(model, silenced(recording, foreign), config=CONFIG)
        assert np.allclose(said, other, atol=1e-6, equal_nan=True) == (foreign not in heard), foreign


def test_without_positions_only_names_speak(recording):
    assert input_channels(unplaced(recording), CONFIG, built("neurobolt-x")) == ("Fp1", "Iz", "Cz", "O1", "O2")


def test_one_electrode_under_two_names_speaks_once(make_recording):
    twice = make_recording(ch_names=("T3", "Cz", "T7", "O1"), n_volumes=12)
    assert input_channels(twice, CONFIG, built("neurobolt")) == ("Cz", "T7", "O1")
    old = make_recording(ch_names=("T3", "Cz", "Fp1", "O1"), n_volumes=12)
    assert input_channels(old, CONFIG, built("neurobolt")) == ("T3", "Cz", "Fp1", "O1")


def test_a_file_of_foreign_electrodes_only(make_recording):
    foreign = make_recording(ch_names=("Iz", "Oz", "P3", "P4"), n_volumes=12)
    check_channels(foreign, Opened(built("neurobolt-x"), CONFIG, ""), "cap.edf")
    check_channels(foreign, Opened(built("siren", unseen_channels="nearest"), CONFIG, ""), "cap.edf")
    with pytest.raises(ChannelError, match=r"cap.edf: lacks 5 of the model's 5 channels.*the file has Iz, Oz"):
        check_channels(foreign, Opened(built("siren"), CONFIG, ""), "cap.edf")
    with pytest.raises(ChannelError, match="the model knows none of its channels Iz, Oz"):
        input_channels(foreign, CONFIG, built("siren"))


@pytest.mark.parametrize("name", ["neurobolt", "eegnet", "neurobolt-x"])
def test_a_watched_recording_is_read_as_a_prediction_reads_it(recording, name):
    """An inner run of nested selection watches sites whose caps no training recording has."""
    model, device = built(name), torch.device("cpu")
    experiment = Experiment.model_validate({"data": {"channels": "native", "reference": "native"}})
    spec = TargetSpec("strict", 0.15, (1.0,) * recording.bold.shape[1])
    config = {**CONFIG, "experiment": experiment.model_dump(mode="json")}
    job = FoldJob("inner", "siteA", name, False, (0, 0), "0", "nowhere", config, spec, (), ())
    source = watched_source(recording, job=job, model=model, device=device)
    with torch.no_grad():
        said = model(source.gather(range(len(source)))[0]).numpy()
    predicted = predict_recording(model, recording, config=CONFIG)[source.windows["volume"]]
    np.testing.assert_allclose(said, predicted, rtol=1e-4, atol=1e-5)


def test_fine_tuning_takes_recordings_of_one_cap_with_other_bad_electrodes(make_recording):
    caps = (("Cz", "O1", "O2", "T7"), ("Fp1", "Cz", "O1", "O2"))
    site = [make_recording(subject=f"{n:02d}", ch_names=cap, n_volumes=16) for n, cap in enumerate(caps)]
    experiment = Experiment.model_validate({"data": {"channels": "native"}}).model_dump(mode="json")
    spec = TargetSpec("strict", 0.15, (1.0,) * site[0].bold.shape[1])
    config = {**CONFIG, "experiment": experiment, "target": spec.to_dict(), "reference": "average"}
    model = build_model("lag-tokens", "small", {}, ch_names=TRAINED, n_outputs=site[0].bold.shape[1])
    assert finetune(model, config, site, part="head", seed=0).n_trained > 0
