"""Alpha power and the vigilance ratio through the canonical response."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neurobolt import EegRecording, Vigilance
from neurobolt.band_power import window_stops
from neurobolt.vigilance import canonical_hrf, posterior, vigilance_frames

NAMES = ("Fp1", "Cz", "Pz", "O1", "O2")
SFREQ = 200.0


def recording(rng, *, n_volumes=150, t_r=2.0, level=1.0, names=NAMES):
    """EEG whose posterior alpha follows a slow drive; BOLD is the drive through the response, computed by hand."""
    onsets = 20 + t_r * np.arange(n_volumes)
    seconds = np.arange(int(onsets[-1]) + 4)
    drive = np.convolve(rng.normal(size=len(seconds) + 8), np.ones(9) / 3, mode="valid")
    t = np.arange(len(seconds) * int(SFREQ)) / SFREQ
    amplitude = 20 * np.exp(0.5 * np.interp(t, seconds, drive))
    eeg = rng.normal(0, 4, (len(names), len(t)))
    for i, name in enumerate(names):
        if name[0] in "PO":
            eeg[i] += amplitude * np.sin(2 * np.pi * 10 * t + i)
    lags = np.arange(0, 33)
    response = canonical_hrf(lags.astype(float))
    bold = np.convolve(drive, response)[: len(drive)]
    bold_V = np.interp(onsets, seconds, bold)
    noise = rng.normal(0, 0.2 * bold_V.std(), (n_volumes, 2))
    target_VR = np.stack([-2 * bold_V, np.zeros(n_volumes)], 1) + noise + 1.0  # alpha up, BOLD down; nothing to find
    whole = np.ones(len(t), bool), onsets, np.ones(n_volumes, bool)
    return EegRecording((level * eeg).astype(np.float32), *whole, SFREQ, names), target_VR.astype(np.float32)


def correlation(a, b):
    kept = np.isfinite(a)
    return np.corrcoef(a[kept], b[kept])[0, 1]


def test_response_is_the_canonical_one():
    t = np.arange(-2, 40, 0.01)
    h = canonical_hrf(t)
    assert t[h.argmax()] == pytest.approx(5.0, abs=0.03)
    assert t[h.argmin()] == pytest.approx(15.7, abs=0.3)
    assert (h[t <= 0] == 0).all()
    assert h.sum() * 0.01 == pytest.approx(1 - 1 / 6, abs=1e-3)  # two unit gammas, ratio 6


@pytest.mark.parametrize("index", ["alpha", "alpha/theta"])
def test_a_planted_alpha_drive_is_found_at_an_unseen_recording(rng, index):
    train = [recording(rng) for _ in range(3)]
    model = Vigilance(index).fit([e for e, _ in train], [y for _, y in train])
    eeg, target_VR = recording(rng, level=3.0)  # another gain
    predicted_VR = model.predict(eeg)
    assert correlation(predicted_VR[:, 0], target_VR[:, 0]) > 0.85
    assert model.weight_PR[0, 0] < 0
    assert predicted_VR.dtype == np.float32
    spread = np.nanstd(predicted_VR, axis=0)
    assert spread[1] < 0.1 * spread[0]
    np.testing.assert_allclose(np.nanmean(predicted_VR, 0), 1.0, atol=0.15)


def test_the_whole_past_counts_and_the_future_does_not(rng):
    eeg, target_VR = recording(rng)
    model = Vigilance().fit([eeg], [target_VR])
    index_K, stop_K = vigilance_frames(eeg, "alpha")
    volume = 100
    onset = eeg.volume_onsets_V[volume]
    base = model.predict(eeg)[volume, 0]

    def without(from_s, to_s):  # a change that the z-score cannot notice: two frames' worth of samples swapped
        changed = eeg.eeg_CT.copy()
        a, b = (round(s * SFREQ) for s in (from_s, to_s))
        changed[:, a:b] = changed[:, a:b] * 2
        return abs(model.predict(replace(eeg, eeg_CT=changed))[volume, 0] - base)

    assert without(onset - 24, onset - 20) > 3 * without(onset + 4, onset + 8)  # earlier than the 16 s window
    assert len(index_K) == len(stop_K)
    assert index_K.mean() == pytest.approx(0, abs=1e-6)
    assert index_K.std() == pytest.approx(1, abs=1e-6)


def test_volumes_and_samples_that_do_not_count(rng):
    eeg, target_VR = recording(rng, n_volumes=60)
    valid_T = eeg.eeg_valid_T.copy()
    valid_T[6000:6100] = False
    loud = eeg.eeg_CT.copy()
    loud[:, 6000:6100] = 1e5
    marked = replace(eeg, eeg_CT=loud, eeg_valid_T=valid_T)
    model = Vigilance().fit([eeg], [target_VR])
    predicted = model.predict(marked)
    _, seen_V = window_stops(marked, 16.0)
    np.testing.assert_array_equal(np.isfinite(predicted).all(1), seen_V)
    assert correlation(predicted[:, 0], np.where(seen_V, model.predict(eeg)[:, 0], np.nan)) > 0.95
    silent = replace(eeg, eeg_CT=np.zeros_like(eeg.eeg_CT))
    assert np.isfinite(model.predict(silent)[20]).all()
    holed = target_VR.copy()
    holed[:, 1] = np.nan
    assert (Vigilance().fit([eeg], [holed]).predict(eeg)[20:, 1] == 0).all()


def test_posterior_channels_are_named(rng):
    assert posterior(("Fp1", "FPz", "P7", "POz", "Oz", "T5", "CP1", "PO10")) == [2, 3, 4, 5, 7]
    eeg, target_VR = recording(rng, n_volumes=20)
    with pytest.raises(ValueError, match=r"no posterior channel .* among Fp1, Cz"):
        Vigilance().fit([replace(eeg, eeg_CT=eeg.eeg_CT[:2], ch_names=NAMES[:2])], [target_VR])
    with pytest.raises(ValueError, match="unnamed channels"):
        Vigilance().fit([replace(eeg, ch_names=())], [target_VR])
    with pytest.raises(ValueError, match="did you mean 'alpha/theta'"):
        Vigilance("alpha-theta")  # type: ignore[arg-type]


def test_state_round_trip(rng):
    eeg, target_VR = recording(rng, n_volumes=40)
    model = Vigilance("alpha/theta").fit([eeg], [target_VR])
    again = Vigilance.from_state(model.state())
    assert again.index == "alpha/theta"
    np.testing.assert_array_equal(again.predict(eeg), model.predict(eeg))
