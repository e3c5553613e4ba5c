"""The global-signal oracle and closed-form fits over Ray tasks, against the same fits in one process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import ray

from jobs.models import BASELINES
from xsite.data.harmonize import target_scale
from xsite.errors import RecipeError
from xsite.learning.targets import TargetSpec, median_scale, side_targets, unseen_global_signal, unseen_target
from xsite.runtime.closed_form import BaselineInput, fit_baseline

NAMES = ("Pz", "O1", "O2")


@pytest.fixture
def study(make_recording, rng):
    """Ten training, two validation and two test recordings; parcels are 0, 1 and -0.5 of the global signal."""

    def build(number: int):
        r = make_recording(subject=f"{number:02d}", n_volumes=40, ch_names=NAMES)
        shared_V = np.cumsum(rng.normal(size=40))
        shared_V -= shared_V.mean()
        own_VR = rng.normal(size=(40, 3)) * shared_V.std() * 0.2
        bold = (own_VR + np.outer(shared_V, (0.0, 1.0, -0.5))).astype(np.float32)
        return replace(r, bold=bold, global_signal=shared_V.astype(np.float32))

    recordings = [build(number) for number in range(14)]
    spec = TargetSpec("strict", 0.15, median_scale([target_scale(r.bold, r.t_r) for r in recordings[:10]]))
    return recordings[:10], recordings[10:12], recordings[12:], spec


def fitted(name, study, *, control_seed=None, spec=None):
    *sides, own = study
    refs = [[ray.put(r) for r in side] for side in sides]
    return fit_baseline(
        BASELINES[name], *refs, spec=spec or own, ch_names=NAMES, channels="common", reference="average",
        control_seed=control_seed,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["strict", "paper"])
def test_the_global_signal_explains_what_is_global(study, ray_local, kind):
    *_, test, spec = study
    spec = replace(spec, kind=kind)
    predicted = fitted("global-signal", study, spec=spec)
    for r in test:
        target_VR, said_VR = unseen_target(r, spec), predicted[r.key]
        seen_V = np.isfinite(said_VR[:, 1])
        assert 0 < seen_V.sum() <= r.n_volumes
        assert np.corrcoef(said_VR[seen_V, 1], target_VR[seen_V, 1])[0, 1] > 0.9
        assert np.corrcoef(said_VR[seen_V, 2], target_VR[seen_V, 2])[0, 1] > 0.8
        assert np.nanstd(said_VR[:, 0]) < 0.2 * np.nanstd(said_VR[:, 1])
        error_V = said_VR[seen_V, 1] - target_VR[seen_V, 1]
        assert np.square(error_V).mean() < 0.3 * np.square(target_VR[seen_V, 1]).mean()
        assert abs(np.corrcoef(said_VR[seen_V, 2], unseen_global_signal(r, spec)[seen_V])[0, 1]) > 0.999


def test_the_shares_come_from_training_recordings_only(study, ray_local):
    train, val, test, spec = study
    before = fitted("global-signal", study)
    turned = [replace(r, bold=-r.bold) for r in test]  # BOLD of the held-out site, its global signal left alone
    after = fitted("global-signal", (train, [replace(r, bold=-r.bold) for r in val], turned, spec))
    for r in test:
        np.testing.assert_array_equal(before[r.key], after[r.key])


def test_an_oracle_has_no_control(study, ray_local):
    with pytest.raises(RecipeError, match="no control"):
        fitted("global-signal", study, control_seed=1)


@pytest.mark.parametrize("name", ["ridge", "alpha", "mean", "zero"])
@pytest.mark.parametrize("control_seed", [None, 3])
def test_ray_tasks_give_the_fit_of_one_process(study, ray_local, name, control_seed):
    train, val, test, spec = study
    predicted = fitted(name, study, control_seed=control_seed)
    targets = side_targets(train, val, spec, control_seed=control_seed)

    def read(r):
        eeg = r.eeg - r.eeg.mean(0)
        return BaselineInput(eeg, r.eeg_valid, r.volume_onsets, r.volume_valid, r.sfreq, NAMES)

    model = BASELINES[name]()
    model.fit([read(r) for r in train], targets[0], val_recordings=[read(r) for r in val], val_targets=targets[1])
    for r in test:
        np.testing.assert_allclose(predicted[r.key], model.predict(read(r)), rtol=1e-3, atol=1e-4)
