"""neurobolt-x keeps the contract, removes a recording's gain, reads any montage, and starts from the response."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import csd
from scipy.stats import gamma
from torch import nn

import neurobolt
from jobs.models import build_model
from neurobolt.batch import EegBatch
from neurobolt.x import NeuroBOLTX, NeuroBOLTXConfig, PlacedBatch
from neurobolt.x.heads import double_gamma
from xsite.data.windows import build_source
from xsite.learning.predict import predict_recording

NAMES = ("Fp1", "Cz", "O1", "O2", "T7")


@pytest.fixture
def make_model():
    """Build a small model whose every path is awake: no weight is left at zero."""

    def build(**options):
        torch.manual_seed(3)
        model = NeuroBOLTX(NeuroBOLTXConfig(**({"ch_names": NAMES, "n_outputs": 3} | options)))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return model.eval()

    return build


@pytest.fixture
def eeg(rng):
    return torch.from_numpy(rng.normal(0, 12, (4, 5, 3200)).astype(np.float32))


def batch_of(model, eeg_BCT, names=NAMES):
    return EegBatch(eeg_BCT, model.channel_index(names).expand(len(eeg_BCT), -1))


def test_head_of_features_is_the_model_and_lags_stay_apart(make_model, eeg):
    model = make_model()
    batch = batch_of(model, eeg)
    z_BD = model.features(batch)
    assert z_BD.shape == (4, 15 * 16)
    assert torch.equal(model.head(z_BD), model(batch))
    assert model(batch).shape == (4, 3)
    with pytest.raises(ValueError, match=r"\(windows, channels, 3200\)"):
        model(EegBatch(eeg[..., :2400], batch.ch_index_BC))


@pytest.mark.parametrize("together", [False, True])
def test_order_and_padding_change_nothing(make_model, eeg, together):
    model = make_model()
    whole = batch_of(model, eeg)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = EegBatch(eeg[:, order], whole.ch_index_BC[:, order])
    padded = EegBatch(
        torch.cat([eeg, torch.full((4, 2, 3200), 1e3)], 1), torch.nn.functional.pad(whole.ch_index_BC, (0, 2), value=-1)
    )
    if together:  # the statistics of a recording are turned and padded with it
        whole, turned, padded = (
            PlacedBatch(b.eeg_BCT, b.ch_index_BC, torch.zeros(*b.ch_index_BC.shape, 3), model.statistics_of_windows(*b))
            for b in (whole, turned, padded)
        )
    expected = model(whole)
    torch.testing.assert_close(model(turned), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(padded), expected, atol=1e-4, rtol=1e-4)


def test_predict_takes_any_order_and_either_kind(make_model, eeg):
    model = make_model().train()
    expected = model.predict(eeg, NAMES)
    turned = model.predict(eeg.numpy()[:, ::-1].copy(), NAMES[::-1])
    assert isinstance(turned, np.ndarray)
    np.testing.assert_allclose(turned, expected.numpy(), atol=1e-4)
    assert model.training
    with pytest.raises(ValueError, match="not finite"):
        model.predict(eeg * torch.nan, NAMES)
    with pytest.raises(ValueError, match="microvolt"):
        model.predict(eeg * 1e-6, NAMES)


def test_what_is_padded_may_be_anything(make_model, eeg):
    model = make_model()
    batch = batch_of(model, eeg)
    padded = EegBatch(
        torch.cat([torch.full_like(eeg[:, :1], torch.nan), eeg], 1),
        nn.functional.pad(batch.ch_index_BC, (1, 0), value=-1),
    )
    torch.testing.assert_close(model(padded), model(batch), rtol=1e-4, atol=1e-5)


def test_names_outside_the_vocabulary(make_model, eeg):
    model = make_model()
    iz = model.predict(eeg, ("Fp1", "Cz", "O1", "O2", "Iz"))  # an untrained name with a place
    assert not np.allclose(iz, model.predict(eeg[:, :4], NAMES[:4]), atol=1e-4)
    with pytest.raises(ValueError, match="E129"):
        model.channel_index(["Cz", "E129"])
    place = np.zeros((5, 3), np.float32)
    place[4] = model.electrodes.position_N3[model.channel_index(["Iz"])[0]]
    given = model.predict(eeg, ("Fp1", "Cz", "O1", "O2", "E129"), position_C3=place)
    np.testing.assert_allclose(given, iz, atol=1e-5)
    names_only = make_model(positions=False)
    with pytest.raises(ValueError, match="Iz"):
        names_only.channel_index(["Cz", "Iz"])


def test_nearby_electrodes_count_alike(make_model, eeg):
    model = make_model()
    place = np.zeros((5, 3), np.float32)
    names = ("Fp1", "Cz", "O1", "O2", "E1")
    answers = []
    for tilt in (0.0, 0.02, 1.5):
        place[4] = [np.sin(tilt), 0, np.cos(tilt)]
        answers.append(model.predict(eeg, names, position_C3=place))
    near, far = (float((answers[i] - answers[0]).abs().max()) for i in (1, 2))
    assert 0 < near < 0.2 * far


def test_kernel_starts_as_the_canonical_response():
    lags = np.arange(1.0, 16.0)
    expected = gamma.pdf(lags, 6) - gamma.pdf(lags, 16) / 6
    np.testing.assert_allclose(double_gamma(lags), expected / np.linalg.norm(expected), rtol=1e-5)
    model = NeuroBOLTX(NeuroBOLTXConfig(ch_names=NAMES, n_outputs=7))
    assert model.config.lags_s[0] == 15.0
    assert model.config.lags_s[-1] == 1.0  # the middle of the 2 s before the volume
    assert double_gamma(model.config.lags_s).argmax() == 10  # 5 s back
    torch.testing.assert_close(model.output.kernel(), double_gamma(model.config.lags_s).expand(7, -1))


def test_only_the_new_parcels_rows_are_new(make_model, eeg):
    model = make_model()
    other = model.with_parcellation(11).eval()
    batch = batch_of(model, eeg)
    assert torch.equal(other.features(batch), model.features(batch))
    assert other(batch).shape == (4, 11)
    fresh = {n: p.shape for n, p in other.named_parameters() if p.shape != dict(model.named_parameters())[n].shape}
    assert fresh == {"output.parcel_embedding": (11, 16), "output.deviation_RL": (11, 15), "output.bias_R": (11,)}


def test_gradients_reach_every_weight(make_model, eeg):
    model = make_model().train()
    model(batch_of(model, eeg)).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_cross_spectra_agree_with_scipy(make_model, rng):
    model = make_model(eeg_unit=1.0)
    x_CT = rng.normal(0, 5, (3, 4800)) + 40.0  # an offset must not leak into the bands
    found = model.spectra(torch.from_numpy(x_CT.astype(np.float32))[None])[0].mean(1)
    for i, j in ((0, 0), (1, 2)):
        hz, density = csd(x_CT[i], x_CT[j], fs=200, window="hann", nperseg=400, noverlap=200, detrend="constant")
        density = density.real * 200 * 0.375 / 2  # one-sided density per window power (Hann: 3/8) to a bin's power
        for band, (low, high) in enumerate(((1, 4), (4, 8), (8, 13), (13, 30), (30, 45))):
            expected = density[(hz >= low) & (hz < high)].mean()
            assert found[band, i, j] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def source_of(model, recordings, **options):
    given = {"ch_names": NAMES, "targets": None, "window_s": model.window_s, "statistics": model.recording_statistics}
    return build_source(recordings, ch_index=model.channel_index, **(given | options))


def test_a_gain_of_a_whole_recording_is_removed(make_model, make_recording):
    model = make_model()
    recording = make_recording(ch_names=NAMES, n_volumes=40)
    electrode = np.ones((5, 1), np.float32)
    electrode[2] = 3.0
    sources = [
        source_of(model, [replace(recording, eeg=recording.eeg * gain)], reference="native")
        for gain in (np.float32(1), np.float32(4), electrode)
    ]
    plain, loud = (model(sources[k].gather(range(20))[0]) for k in (0, 1))
    assert plain.std() > 0.01
    torch.testing.assert_close(loud, plain, atol=1e-3, rtol=1e-3)
    # one electrode alone: the linear path does not see it either, only spatial filters do
    linear = make_model(n_filters=0)
    plain, uneven = (linear(sources[k].gather(range(20))[0]) for k in (0, 2))
    torch.testing.assert_close(uneven, plain, atol=1e-3, rtol=1e-3)
    unnormed = make_model(recording_norm=False)
    answers = [unnormed(sources[k].gather(range(20))[0]) for k in (0, 1)]
    assert (answers[0] - answers[1]).abs().max() > 0.1


def test_statistics_skip_invalid_samples_and_padding(make_model, rng):
    model = make_model()
    eeg_CT = torch.from_numpy(rng.normal(0, 10, (3, 40000)).astype(np.float32))
    valid_T, index_C = torch.ones(40000, dtype=torch.bool), torch.tensor([0, 1, -1])
    clean = model.recording_statistics(eeg_CT, index_C, valid_T)
    broken_CT, valid_T = eeg_CT.clone(), valid_T.clone()
    broken_CT[:, 8000:8400] = 1e4
    valid_T[7800:8600] = False
    mended = model.recording_statistics(broken_CT, index_C, valid_T)
    assert (mended[:2, :5] - clean[:2, :5]).abs().max() < 0.05  # mean log power, scale of one bin
    assert clean[2, 10:].abs().max() == 0  # padding has no power, whatever stands in it
    short = model.recording_statistics(eeg_CT[:, :300], index_C, torch.ones(300, dtype=torch.bool))
    assert short.shape == clean.shape
    assert torch.isfinite(short).all()


def test_bare_windows_stand_in_for_their_recording(make_model, make_recording):
    model = make_model()
    recording = make_recording(ch_names=NAMES, n_volumes=120)
    source = source_of(
        model, [replace(recording, montage=replace(recording.montage, positions=np.full((5, 3), np.nan)))]
    )
    batch, _, _ = source.gather(range(len(source)))
    told = model(batch).detach().numpy()
    pooled = model.predict(batch.eeg_BCT.numpy(), NAMES)
    alone = model(EegBatch(batch.eeg_BCT, batch.ch_index_BC)).detach().numpy()
    r = [np.corrcoef(told[:, 0], other[:, 0])[0, 1] for other in (pooled, alone)]
    assert r[0] > 0.98
    assert r[0] > r[1]


def test_the_platform_trains_saves_and_predicts_it(make_model, make_recording, tmp_path):
    model = build_model("neurobolt-x", "small", {}, ch_names=NAMES, n_outputs=3)
    recording = make_recording(ch_names=NAMES, n_volumes=60)
    source = source_of(model, [recording], targets=[recording.bold])
    batch, target, _ = source.gather(range(len(source)))
    optimizer = torch.optim.AdamW(model.param_groups(1e-2, 0.0))
    losses = []
    for _ in range(30):
        loss = (model(batch) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    back = neurobolt.load(neurobolt.save(model, tmp_path / "kept"))
    config = {
        "ch_names": NAMES,
        "parcels": "abc",
        "reference": "average",
        "experiment": {"data": {"channels": "common"}},
    }
    predicted = predict_recording(back, recording, config=config)
    expected = model.eval()(batch).detach().numpy()
    np.testing.assert_allclose(predicted[source.windows["volume"]], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"remove_mean": False}, "remove_mean is False"),
        ({"unseen_channels": "closest"}, "none of"),
        ({"band_edges_hz": (8.0, 4.0)}, "not ascending"),
        ({"band_edges_hz": (0.5, 4.0)}, "begin at 0.5 Hz"),
        ({"band_edges_hz": (30.0, 120.0)}, "half of sfreq is 100"),
        ({"window_s": 1.0}, "holds no bin"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        NeuroBOLTXConfig(ch_names=NAMES, **options)
