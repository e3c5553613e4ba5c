"""EEGNet: temporal filters, spatial filters for each of them, separable convolution, a linear read-out of all times.

Shape letters: ``B`` windows, ``V`` channels of the vocabulary, ``T`` samples, ``K`` feature maps.
Source: Lawhern et al., EEGNet: a compact convolutional neural network for EEG-based brain-computer interfaces,
Journal of Neural Engineering 15, 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurobolt.cards import ModelCard
from neurobolt.rivals.base import Rival, in_slots
from neurobolt.rivals.config import RivalConfig


@dataclass(frozen=True)
class EEGNetConfig(RivalConfig):
    """Sizes of EEGNet-8,2.

    Parameters
    ----------
    decimate : int
        Average so many samples before anything else (the publication worked at 128 Hz).
    n_filters, n_spatial, n_maps : int
        Temporal filters (F1), spatial filters of each (D), maps of the separable convolution (F2).
    kernel, separable_kernel : int
        Samples of the temporal filters, half a second in the publication; of the separable convolution.
    pool1, pool2 : int
        Samples averaged after each of the two blocks.
    max_norm : float
        Largest Euclidean norm of a spatial filter.
    dropout : float
        After each block.
    """

    model: ClassVar[str] = "eegnet"

    decimate: int = 1
    n_filters: int = 8
    n_spatial: int = 2
    n_maps: int = 16
    kernel: int = 100
    separable_kernel: int = 16
    pool1: int = 4
    pool2: int = 8
    max_norm: float = 1.0
    dropout: float = 0.5

    def checks(self) -> dict[str, bool]:
        """Pools divide the window."""
        return {
            f"a window of {self.n_times} samples cannot be divided by {self.decimate} x {self.pool1} x {self.pool2}": (
                self.decimate * self.pool1 * self.pool2 > 0
                and self.n_times % (self.decimate * self.pool1 * self.pool2) == 0
            ),
            f"max_norm is {self.max_norm}": self.max_norm > 0,
        }

    @property
    def n_steps(self) -> int:
        """Time steps that the head reads."""
        return self.n_times // (self.decimate * self.pool1 * self.pool2)


class EEGNet(Rival):
    """Channels sit in fixed slots of the vocabulary, absent ones zero."""

    config_class = EEGNetConfig

    def __init__(self, config: EEGNetConfig) -> None:
        super().__init__(config)
        k1, k2 = config.n_filters, config.n_filters * config.n_spatial
        self.temporal = nn.Conv2d(1, k1, (1, config.kernel), bias=False)
        self.norm1 = nn.BatchNorm2d(k1)
        self.spatial = nn.Conv2d(k1, k2, (len(config.ch_names), 1), groups=k1, bias=False)
        self.norm2 = nn.BatchNorm2d(k2)
        self.depthwise = nn.Conv2d(k2, k2, (1, config.separable_kernel), groups=k2, bias=False)
        self.pointwise = nn.Conv2d(k2, config.n_maps, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(config.n_maps)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.n_maps * config.n_steps, config.n_outputs)

    def spatial_weight(self) -> Tensor:
        """Spatial filters, those above ``max_norm`` shortened to it."""
        weight: Tensor = self.spatial.weight
        limit: float = self.config.max_norm
        norm: Tensor = torch.linalg.vector_norm(weight, dim=2, keepdim=True)
        return weight * (limit / norm.clamp(min=limit))

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """Maps at all remaining time steps, side by side."""
        del valid_BC
        pool = nn.functional.avg_pool2d
        x_BKVT = in_slots(eeg_BCT, ch_index_BC, len(self.ch_names)).unsqueeze(1)
        x_BKVT = self.norm1(self.temporal(_padded(pool(x_BKVT, (1, self.config.decimate)), self.config.kernel)))
        x_BKVT = nn.functional.conv2d(x_BKVT, self.spatial_weight(), groups=self.spatial.groups)
        x_BKVT = self.dropout(pool(nn.functional.elu(self.norm2(x_BKVT)), (1, self.config.pool1)))
        x_BKVT = self.depthwise(_padded(x_BKVT, self.config.separable_kernel))
        x_BKVT = nn.functional.elu(self.norm3(self.pointwise(x_BKVT)))
        z_BD: Tensor = self.dropout(pool(x_BKVT, (1, self.config.pool2))).flatten(1)
        return z_BD


def _padded(x_BKVT: Tensor, kernel: int) -> Tensor:
    """Zeros at both ends so that a convolution keeps the length; an even kernel gets one more at the end."""
    return nn.functional.pad(x_BKVT, ((kernel - 1) // 2, kernel // 2))


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"decimate": 2, "kernel": 50, "pool2": 20, "dropout": 0.25},
}

CARD = ModelCard(
    name="EEGNet-8,2",
    paper="Lawhern et al., EEGNet: a compact convolutional neural network for EEG-based brain-computer interfaces, "
    "Journal of Neural Engineering 15, 2018",
    year=2018,
    licence_of_the_idea="CC0 and Apache-2.0",
    differs=(
        "a linear head for regression, without the norm limit of the classifier",
        "16 s at 200 Hz instead of 1 s at 128 Hz",
        "temporal filters of 100 samples (half a second); pools of 4 and 8 samples as published, though at 200 Hz",
        "channels sit in fixed slots of the vocabulary, absent ones zero",
        "`small`: averaged to 100 Hz, filters of 50 samples, second pool 20 (0.8 s steps), dropout 0.25",
    ),
)
