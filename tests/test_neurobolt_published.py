"""Published checkpoints: golden numbers, names and shapes, round trip, and what is refused."""

from __future__ import annotations

import argparse
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neurobolt import (
    VU_NAMES,
    EegBatch,
    NeuroBOLT,
    NeuroBOLTConfig,
    load,
    load_labram,
    load_published,
    save,
    to_published,
)

GOLDEN = Path(__file__).parent / "golden"
KEYS = {name: tuple(shape) for name, shape in json.loads((GOLDEN / "checkpoint_keys.json").read_text())["keys"]}
BUFFERS = ("mss_module.index", "mss_module.positional_encoding.pe")


def golden_state() -> dict[str, torch.Tensor]:
    """Weights as described in golden/README.md."""
    state = {}
    for name, shape in KEYS.items():
        seed = zlib.crc32(("A" + name).encode())
        z = np.random.RandomState(seed).standard_normal(shape).astype("float32")
        if "gamma_" in name:
            z = 0.1 + 0.02 * z
        elif len(shape) == 1:
            z = 1 + 0.1 * z if name.endswith("weight") else 0.02 * z
        else:
            z = 0.05 * z
        state[name] = torch.from_numpy(z)
    buffers = to_published(NeuroBOLT(NeuroBOLTConfig.preset("released", depth=1, spectral_depth=1)))
    return state | {name: buffers[name] for name in BUFFERS}


def golden_eeg() -> np.ndarray:
    """Input as described in golden/README.md, in microvolt."""
    x = np.random.RandomState(1).standard_normal((2, 26, 3200)) * 0.1
    t = np.arange(3200) / 200
    for b in range(2):
        for c in range(26):
            x[b, c] += 0.2 * np.sin(2 * np.pi * (4 + c % 12) * t + b)
    return ((x - x.mean(-1, keepdims=True)) * 100).astype(np.float32)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return golden_state()


@pytest.fixture(scope="module")
def model(state) -> NeuroBOLT:
    return load_published(state)


def test_golden_case(model):
    golden = np.load(GOLDEN / "case_a.npz")
    eeg = golden_eeg()
    batch = EegBatch(torch.from_numpy(eeg), torch.arange(26).expand(2, -1))
    with torch.no_grad():
        r_st, r_sp = model.branches(batch)
    for name, ours in {"r_st": r_st.numpy(), "r_sp": r_sp.numpy(), "y": model.predict(eeg, VU_NAMES)}.items():
        assert ours.shape == golden[name].shape
        assert np.abs(ours - golden[name]).max() / np.abs(golden[name]).max() < 1e-4, name


def test_exported_names_and_shapes_are_the_published_ones(model):
    exported = to_published(model)
    assert {name: tuple(tensor.shape) for name, tensor in exported.items()} == KEYS
    assert sum(t.numel() for t in exported.values()) == 8_107_011
    assert exported["mss_module.index"].tolist() == list(range(26))


def test_round_trip_is_exact(model, state):
    exported = to_published(model)
    assert all(torch.equal(exported[name], state[name]) for name in KEYS)
    again = load_published(exported)
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))


def test_file_with_namespace_beside_the_weights(tmp_path, model, state):
    path = tmp_path / "checkpoint-best.pth"
    torch.save({"model": state, "args": argparse.Namespace(lr=3e-4, roi="Thalamus"), "epoch": 7}, path)
    eeg = golden_eeg()[:1]
    np.testing.assert_array_equal(load_published(path).predict(eeg, VU_NAMES), model.predict(eeg, VU_NAMES))
    old = load_published(path, gelu_head=False)
    assert not old.config.gelu_head
    assert not np.allclose(old.predict(eeg, VU_NAMES), model.predict(eeg, VU_NAMES))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "c.safetensors")
    assert load_published(tmp_path / "c.safetensors").config == model.config


def test_several_outputs_and_other_channels():
    config = NeuroBOLTConfig.preset("released", ch_names=("Cz", "Pz", "Oz"), n_outputs=5)
    source = NeuroBOLT(config)
    again = load_published(to_published(source), ch_names=("Cz", "Pz", "Oz"))
    assert again.config == config
    with pytest.raises(ValueError, match=r"26 channels.*channel_tokens\.weight \(3, 200\) instead of \(26, 200\)"):
        load_published(to_published(source))


def test_channel_tokens_are_written_in_the_order_that_is_asked_for():
    config = NeuroBOLTConfig.preset("released", ch_names=VU_NAMES[::-1], depth=1)
    source = NeuroBOLT(config).eval()
    ours, theirs = to_published(source), to_published(source, ch_names=VU_NAMES)
    tokens = "mss_module.channel_tokens.weight"
    assert torch.equal(theirs[tokens], ours[tokens].flip(0))
    assert all(torch.equal(theirs[name], ours[name]) for name in ours if name != tokens)
    with pytest.raises(ValueError, match="25 names for the 26 channels"):
        to_published(source, ch_names=VU_NAMES[1:])


class Bomb:
    """A pickle that would run a command when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, state):
    path = tmp_path / "bad.pth"
    torch.save({"model": {"head.bias": state["head.bias"]}, "args": Bomb(tmp_path / "ran")}, path)
    with pytest.raises(ValueError, match=r"bad\.pth: refused"):
        load_published(path)
    assert not (tmp_path / "ran").exists()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()  # the allow-list ends with the call


def test_wrong_files_are_refused_with_what_differs(tmp_path, state):
    with pytest.raises(FileNotFoundError, match=r"no\.pth"):
        load_published(tmp_path / "no.pth")
    (tmp_path / "pointer.pth").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"pointer\.pth"):
        load_published(tmp_path / "pointer.pth")
    for name in ("text.pth", "text.safetensors"):  # of bytes that are no pickle, torch's reader says "KeyError 101"
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match=rf"{name}: not a checkpoint that torch or safetensors can read"):
            load_published(tmp_path / name)
    with pytest.raises(ValueError, match=r"a folder; give a \.pth or \.safetensors file"):
        load_published(tmp_path)
    lacking = {k: v for k, v in state.items() if k != "fc_norm.weight"} | {"extra.weight": torch.zeros(2)}
    lacking["head.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"1 missing: fc_norm.weight.*1 not expected: extra.weight.*head.bias \(3,\)"):
        load_published(lacking)
    with pytest.raises(ValueError, match=r"head\.weight \(\) instead of \(1, 200\)"):
        load_published(state | {"head.weight": torch.tensor(0.0)})
    with pytest.raises(ValueError, match=r"other values in mss_module\.index: .* another order"):
        load_published(state | {"mss_module.index": torch.arange(26).flip(0)})
    with pytest.raises(ValueError, match=r"other values in mss_module\.positional_encoding\.pe"):
        load_published(state | {"mss_module.positional_encoding.pe": torch.zeros(1, 1000, 200)})
    with pytest.raises(ValueError, match="not tensors"):
        load_published({"model": {"epoch": 3}})
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(ValueError, match="holds a Tensor"):
        load_published(tmp_path / "tensor.pth")


def test_labram_checkpoint_fills_the_spatiotemporal_branch(tmp_path, state):
    labram = {"student." + k: v for k, v in state.items() if not k.startswith(("mss_module", "fc_norm", "head"))}
    labram |= {"student.mask_token": torch.zeros(1, 1, 200), "student.lm_head.weight": torch.zeros(8192, 200)}
    labram |= {"student.norm.weight": torch.ones(200), "logit_scale": torch.ones(())}
    torch.save({"model": labram}, tmp_path / "labram-base.pth")
    model = load_published(tmp_path / "labram-base.pth", ch_names=("Cz", "Oz"))
    theirs = to_published(model)
    assert torch.equal(theirs["blocks.11.attn.qkv.weight"], state["blocks.11.attn.qkv.weight"])
    assert torch.equal(theirs["pos_embed"], state["pos_embed"])
    assert torch.equal(theirs["fc_norm.weight"], torch.ones(200))  # starts fresh
    assert model.ch_names == ("Cz", "Oz")
    del labram["student.blocks.4.gamma_1"]
    with pytest.raises(ValueError, match=r"not a LaBraM checkpoint.*student\.blocks\.4\.gamma_1"):
        load_labram(model, labram)
    with pytest.raises(ValueError, match="of another shape"):
        load_labram(NeuroBOLT(NeuroBOLTConfig.preset("small", depth=12)), labram)


def test_save_and_load(tmp_path):
    torch.manual_seed(1)
    model = NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=VU_NAMES[:4], n_outputs=2, spectral_cls=True))
    folder = save(model, tmp_path / "a" / "b")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    again = load(folder)
    assert again.config == model.config
    assert not again.training
    eeg = golden_eeg()[:, :4]
    np.testing.assert_array_equal(again.predict(eeg, VU_NAMES[:4]), model.predict(eeg, VU_NAMES[:4]))


def test_damaged_saves_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json and model\.safetensors not found"):
        load(tmp_path)
    folder = save(NeuroBOLT(NeuroBOLTConfig.preset("small", ch_names=("Cz",))), tmp_path / "m")
    weights, config = folder / "model.safetensors", folder / "config.json"
    text = config.read_text()
    state = {name: tensor.clone() for name, tensor in load_file(weights).items()}  # load_file maps the file
    config.write_text(text.replace('"spectral_depth": 2', '"spectral_depth": 1'))
    with pytest.raises(ValueError, match=r"not expected: .*spectral\.blocks\.1"):
        load(folder)
    config.write_text(text.replace('"depth"', '"dept"'))
    with pytest.raises(ValueError, match="did you mean 'depth'"):
        load(folder)
    config.write_text(text[:40])
    with pytest.raises(ValueError, match="damaged checkpoint"):
        load(folder)
    config.write_text(json.dumps({"format": "neurobolt/1", "model": "neurobolt"}))
    with pytest.raises(ValueError, match="no configuration under 'config'"):
        load(folder)
    config.write_text("[]")
    with pytest.raises(ValueError, match="format 'neurobolt/1'"):
        load(folder)
    config.write_text(text)
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged checkpoint"):
        load(folder)
    save_file({k: v for k, v in state.items() if k != "output.bias"}, weights)
    with pytest.raises(ValueError, match=r"1 missing: output\.bias"):
        load(folder)
