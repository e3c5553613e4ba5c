"""LaBraM-base from scratch: NeuroBOLT's spatiotemporal branch and a linear head.

Source: Jiang, Zhao and Lu, Large brain model for learning generic representations with tremendous EEG data in BCI,
ICLR 2024. The branch is :class:`neurobolt.spatiotemporal.Spatiotemporal`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurobolt.batch import Batch
from neurobolt.cards import ModelCard
from neurobolt.config import NeuroBOLTConfig
from neurobolt.rivals.base import Rival, may_be_padded
from neurobolt.rivals.config import RivalConfig
from neurobolt.spatiotemporal import Spatiotemporal


@dataclass(frozen=True)
class LaBraMConfig(RivalConfig):
    """Sizes of LaBraM; the defaults are LaBraM-base. For the meaning see :class:`neurobolt.NeuroBOLTConfig`."""

    model: ClassVar[str] = "labram"

    dim: int = 200
    patch_size: int = 200
    conv_channels: int = 8
    conv_groups: int = 4
    conv_kernel: int = 15
    conv_stride: int = 8
    depth: int = 12
    n_heads: int = 10
    mlp_ratio: int = 4
    dropout: float = 0.0
    drop_path: float = 0.1
    layer_scale: float = 0.1
    init_std: float = 0.02
    head_scale: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        self.branch()  # its own checks name sizes that do not fit and electrodes without a row

    def branch(self) -> NeuroBOLTConfig:
        """The same sizes as a NeuroBOLT configuration, whose spectral part is not built."""
        values = self.to_dict()
        for key in ("model", "head_scale"):
            del values[key]
        return NeuroBOLTConfig(**values, spectral_heads=1, scales_s=(self.window_s,))


class LaBraM(Rival):
    """Patches of every channel as tokens of one transformer; their mean, normalised, goes to the linear head."""

    config_class = LaBraMConfig
    undecayed = ("cls_token", "_embedding")

    def __init__(self, config: LaBraMConfig) -> None:
        super().__init__(config)
        self.spatiotemporal = Spatiotemporal(config.branch())
        self.output = nn.Linear(config.dim, config.n_outputs)
        self._initialise(config)

    def _initialise(self, config: LaBraMConfig) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=config.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        space = self.spatiotemporal
        for embedding in (space.cls_token, space.spatial_embedding, space.temporal_embedding):
            nn.init.trunc_normal_(embedding, std=0.02)
        with torch.no_grad():
            for name, weight in space.named_parameters():
                if name.endswith(("attention.proj.weight", "mlp.fc2.weight")):
                    weight.div_(math.sqrt(2 * (int(name.split(".")[1]) + 1)))
            self.output.weight.mul_(config.head_scale)  # type: ignore[operator]  # nn.Module's attributes are a union

    def features(self, batch: Batch) -> Tensor:
        """r_st (B, D); no masks at all where the batch says that nothing is padded."""
        eeg_BCT, ch_index_BC, valid_BC = self.scaled(batch)
        return self.encode(eeg_BCT, ch_index_BC, valid_BC if may_be_padded(batch) else None)

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor | None) -> Tensor:
        """r_st (B, D)."""
        z_BD: Tensor = self.spatiotemporal(eeg_BCT, ch_index_BC, valid_BC)
        return z_BD

    def layers_above(self, name: str) -> int:
        """The last block has one layer above it, the patch encoder and the embeddings ``depth + 1``."""
        _, part, *rest = name.split(".")
        if name.startswith("output") or part == "norm":
            return 0
        depth: int = self.config.depth
        return depth - int(rest[0]) if part == "blocks" else depth + 1


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {
        "dim": 96,
        "conv_channels": 6,
        "conv_groups": 3,
        "mlp_ratio": 2,
        "depth": 2,
        "n_heads": 2,
        "patch_size": 800,
        "conv_stride": 50,
        "conv_kernel": 51,
        "dropout": 0.1,
        "drop_path": 0.0,
        "layer_scale": 1.0,
        "init_std": 0.1,
        "head_scale": 0.02,
    },
}

CARD = ModelCard(
    name="LaBraM-base",
    paper="Jiang, Zhao and Lu, Large brain model for learning generic representations with tremendous EEG data in "
    "BCI, ICLR 2024",
    year=2024,
    licence_of_the_idea="MIT",
    differs=(
        "starts from random weights: the pre-training is not repeated (published weights enter through "
        "neurobolt.load_labram where they are at hand)",
        "a linear head for regression in place of the classifier; GroupNorm, attention and pooling leave padding out",
        "`small`: patches of 4 s, stride 50, width 96, two blocks, larger initial weights",
    ),
)
