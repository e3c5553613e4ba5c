"""One pass, bounded memory, and sums that add up across processes."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest

from neurobolt import EegRecording, Mean, Ridge, Vigilance, Zero
from neurobolt.linear_sums import TRAIN, VAL, ParcelSums, deal


@pytest.fixture
def consortium(make_recording):
    def build(n: int = 5, n_volumes: int = 24):
        names = ("Fz", "Pz", "O1", "O2")
        recordings = [make_recording(subject=f"{i:02d}", n_volumes=n_volumes, ch_names=names) for i in range(n)]
        eegs = [
            EegRecording(r.eeg, r.eeg_valid, r.volume_onsets, r.volume_valid, r.sfreq, r.ch_names) for r in recordings
        ]
        targets = [r.bold.copy() for r in recordings]
        targets[2][:, 1] = np.nan  # no coverage in one recording
        targets[-1][5:20, 2] = np.nan
        return eegs, targets

    return build


class Once:
    """A loader that can be read once, and that sees whether its recordings are let go."""

    def __init__(self, eegs):
        self.eegs, self.alive, self.most, self.read = eegs, [], 0, 0

    def __iter__(self):
        assert self.read == 0, "read twice"
        for e in self.eegs:
            self.read += 1
            loaded = replace(e, eeg_CT=e.eeg_CT.copy())
            self.alive.append(weakref.ref(loaded))
            gc.collect()
            self.most = max(self.most, sum(ref() is not None for ref in self.alive))
            yield loaded
            del loaded


@pytest.mark.parametrize("make", [Zero, Mean, Ridge, lambda: Ridge(alphas=(0.3,)), Vigilance])
def test_a_stream_that_cannot_be_read_twice_gives_the_same_model(consortium, make):
    eegs, targets = consortium()
    whole = make().fit(eegs, targets).state()
    loader = Once(eegs)
    streamed = make().fit(iter(loader), (t for t in targets)).state()
    for name, value in whole.items():
        np.testing.assert_array_equal(streamed[name], value)
    assert loader.read in (1, len(eegs))  # zero needs one, to learn the number of parcels
    assert loader.most <= 2  # the one at work and the one being loaded, however many there are


def test_validation_may_be_a_stream_too(consortium):
    eegs, targets = consortium()
    whole = Ridge().fit(eegs[:4], targets[:4], val_recordings=eegs[4:], val_targets=targets[4:])
    streamed = Ridge().fit(
        iter(eegs[:4]), iter(targets[:4]), val_recordings=iter(eegs[4:]), val_targets=iter(targets[4:])
    )
    np.testing.assert_array_equal(streamed.weight_PR, whole.weight_PR)
    assert streamed.alpha == whole.alpha


@pytest.mark.parametrize("kind", [Ridge, Vigilance])
def test_sums_of_several_processes_add_up(consortium, kind):
    eegs, targets = consortium()
    folds = [TRAIN, TRAIN, TRAIN, VAL, VAL]
    cuts = [slice(0, 1), slice(1, 3), slice(3, 5)]
    parts = [kind().sums(eegs[cut], targets[cut], folds[cut]) for cut in cuts]
    one = kind().fit_sums(kind().sums(eegs, targets, folds))
    for order in ((0, 1, 2), (2, 0, 1)):
        whole = parts[order[0]]
        for i in order[1:]:
            whole = whole.merged(parts[i])
        many = kind().fit_sums(whole)
        np.testing.assert_allclose(many.weight_PR, one.weight_PR, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(many.bias_R, one.bias_R, atol=1e-6)
    assert len(parts[0].kinds) == 1  # merging leaves the parts as they were


def test_parcels_split_where_they_miss_different_values(rng):
    sums = ParcelSums(4)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(30, 4))
    sums.add(x, y, 0)
    assert len(sums.kinds) == 1
    holed = y.copy()
    holed[:10, [1, 3]] = np.nan
    sums.add(x, holed, 0)
    assert [columns.tolist() for columns, _ in sums.kinds] == [[0, 2], [1, 3]]
    weight = {int(c): s[0].solve(0.1)[0][:, i] for columns, s in sums.kinds for i, c in enumerate(columns)}
    for r in range(4):
        kept = np.isfinite(holed[:, r])
        xs, ys = np.concatenate([x, x[kept]]), np.concatenate([y[:, r], holed[kept, r]])
        xc = xs - xs.mean(0)
        expected = np.linalg.solve(xc.T @ xc + 0.1 * len(xs) * np.eye(3), xc.T @ (ys - ys.mean()))
        np.testing.assert_allclose(weight[r], expected, atol=1e-10)


def test_streams_that_do_not_fit_are_refused(consortium):
    eegs, targets = consortium(3)
    with pytest.raises(ValueError, match="more than 2 recordings and 2 targets"):
        Ridge().fit(iter(eegs), iter(targets[:2]))
    with pytest.raises(ValueError, match="2 recordings and more than 2 targets"):
        Mean().fit(iter(eegs[:2]), iter(targets))
    with pytest.raises(ValueError, match="0 recordings and 0 targets"):
        Vigilance().fit(iter(()), iter(()))
    fewer = replace(eegs[0], eeg_CT=eegs[0].eeg_CT[:3])
    with pytest.raises(ValueError, match="cannot be added"):
        Ridge().fit(eegs, targets, val_recordings=[fewer], val_targets=targets[:1])


def test_groups_are_dealt_in_the_order_of_their_first_recording():
    assert list(deal("aabcab")) == [0, 0, 1, 2, 0, 1]
    assert list(deal(range(7))) == [0, 1, 2, 3, 4, 0, 1]
