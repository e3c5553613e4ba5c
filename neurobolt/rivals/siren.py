"""Sinusoidal front end and convolutional encoder, after Li et al. 2024.

No code is public; widths and the frequency factor are not stated, so both are ours.
Shape letters: ``B`` windows, ``C`` channels, ``V`` channels of the vocabulary, ``T`` samples, ``K`` feature maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurobolt.cards import ModelCard
from neurobolt.rivals.base import Rival, in_slots
from neurobolt.rivals.config import RivalConfig


@dataclass(frozen=True)
class SirenConfig(RivalConfig):
    """Sizes of the front end and of the encoder.

    Parameters
    ----------
    width : int
        Units of a sinusoidal layer.
    n_layers : int
        Sinusoidal layers.
    omega : float
        Factor inside the first sine; 30 in the SIREN paper. The later ones have 1.
    filter_length, hop : int
        Samples that the first sinusoidal layer sees at once, and samples between its outputs.
    channels : tuple of int
        Widths of the encoder's convolutions, each of stride ``stride``.
    kernel, stride : int
    dropout : float
    """

    model: ClassVar[str] = "siren"

    width: int = 64
    n_layers: int = 2
    omega: float = 30.0
    filter_length: int = 51
    hop: int = 4
    channels: tuple[int, ...] = (64, 128, 128)
    kernel: int = 7
    stride: int = 4
    dropout: float = 0.1

    def checks(self) -> dict[str, bool]:
        """The window survives the strides; filters have a middle."""
        return {
            f"n_layers is {self.n_layers}": self.n_layers >= 1,
            f"omega is {self.omega}": self.omega > 0,
            f"filter_length {self.filter_length} and kernel {self.kernel} are not both odd": self.filter_length % 2 == 1
            and self.kernel % 2 == 1,
            f"nothing is left of {self.n_times} samples": self.n_codes >= 1,
        }

    @property
    def n_codes(self) -> int:
        """Time steps of the code."""
        left = -(-self.n_times // self.hop)
        for _ in self.channels:
            left = -(-left // self.stride)
        return left


class SineLayer(nn.Module):
    """sin(omega (W x + b)) over a stretch of the signal, with SIREN's initialisation (Sitzmann et al. 2020, 3.2)."""

    def __init__(self, n_in: int, n_out: int, length: int, hop: int, omega: float, *, first: bool) -> None:
        super().__init__()
        self.omega = omega
        self.conv = nn.Conv1d(n_in, n_out, length, stride=hop, padding=length // 2)
        fan_in = n_in * length
        bound = 1 / fan_in if first else math.sqrt(6 / fan_in) / omega
        nn.init.uniform_(self.conv.weight, -bound, bound)
        if self.conv.bias is not None:  # phases all over the circle
            nn.init.uniform_(self.conv.bias, -math.pi / omega, math.pi / omega)

    def forward(self, x_BKT: Tensor) -> Tensor:
        """(B, K, T) to (B, K', T / hop), within [-1, 1]."""
        return torch.sin(self.omega * self.conv(x_BKT))


class Siren(Rival):
    """Sinusoidal layers over the EEG, strided convolutions, flattened code, linear head."""

    config_class = SirenConfig

    def __init__(self, config: SirenConfig) -> None:
        super().__init__(config)
        n_slots, width = len(config.ch_names), config.width
        sines = [SineLayer(n_slots, width, config.filter_length, config.hop, config.omega, first=True)]
        sines += [SineLayer(width, width, 1, 1, 1.0, first=False) for _ in range(config.n_layers - 1)]
        self.siren = nn.Sequential(*sines)
        sizes = [width, *config.channels]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [
                nn.Conv1d(n_in, n_out, config.kernel, stride=config.stride, padding=config.kernel // 2),
                nn.GroupNorm(1, n_out),
                nn.GELU(),
                nn.Dropout(config.dropout),
            ]
        self.encoder = nn.Sequential(*layers)
        self.output = nn.Linear(sizes[-1] * config.n_codes, config.n_outputs)

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """Flattened code (B, channels x time steps); absent channels are zero in their slots."""
        code: Tensor = self.encoder(self.siren(in_slots(eeg_BCT, ch_index_BC, len(self.ch_names))))
        return code.flatten(1)

    def param_groups(self, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """As for every rival, but the first layer learns at ``lr / omega``.

        Its weights are omega times smaller than what they do to the phase, and a step of Adam does not shrink with
        them: at the full rate one step moves every phase by more than it was, and nothing is learned.
        """
        first = {id(p) for p in self.siren[0].parameters()}
        groups = []
        for group in super().param_groups(lr, weight_decay, layer_decay):
            for inside in (True, False):
                if params := [p for p in group["params"] if (id(p) in first) is inside]:
                    share = 1 / self.config.omega if inside else 1.0
                    slower = {"lr": group["lr"] * share, "lr_scale": group["lr_scale"] * share}
                    groups.append({**group, **slower, "params": params})
        return groups


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"width": 32, "channels": (32, 32), "hop": 8, "omega": 30.0, "stride": 8},
}

CARD = ModelCard(
    name="SIREN encoder",
    paper="Li et al., Leveraging sinusoidal representation networks to predict fMRI signals"
    " from EEG, SPIE Medical Imaging 2024, 12926:795-800 (arXiv 2311.04234)",
    year=2024,
    licence_of_the_idea="no code published",
    differs=(
        "widths, frequency factor and filter lengths are not stated anywhere: all are ours (omega 30 is the default of"
        " the SIREN paper), so `published` means the described structure, not published sizes",
        "the sinusoidal layer sees 51 samples of all channels at once; what it sees in the original is not described",
        "the first layer learns at the rate / omega: at the full rate Adam's steps outgrow its weights and nothing is"
        " learned",
        "encoder and linear head instead of the encoder-decoder, as in NeuroBOLT's comparison; all parcels at once",
        "`small`: 32 sinusoidal units every 8 samples, two convolutions of width 32 and stride 8",
    ),
)
