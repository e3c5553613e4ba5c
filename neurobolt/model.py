"""NeuroBOLT: 16 s of multi-channel EEG to the BOLD signal of parcels at the end of the window.

Shape letters: ``B`` windows, ``C`` channels, ``T`` samples, ``D`` width, ``R`` parcels.
Source: Li et al., NeuroBOLT: Resting-state EEG-to-fMRI synthesis with
multi-dimensional feature mapping, NeurIPS 2024 (arXiv 2410.05341).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neurobolt.batch import Batch
from neurobolt.channels import Unseen, vocabulary_index
from neurobolt.config import NeuroBOLTConfig
from neurobolt.inference import ArrayOrTensor, predict_windows
from neurobolt.spatiotemporal import Spatiotemporal
from neurobolt.spectral import Spectral


class NeuroBOLT(nn.Module):
    """Spatiotemporal and spectral representation of a window, summed, then a linear head.

    Parameters
    ----------
    config : NeuroBOLTConfig

    Examples
    --------
    >>> model = NeuroBOLT(NeuroBOLTConfig.preset("small", n_outputs=16))
    >>> model.predict(np.zeros((2, 3, 3200), np.float32), ["Cz", "O1", "O2"]).shape
    (2, 16)
    """

    def __init__(self, config: NeuroBOLTConfig) -> None:
        super().__init__()
        self.config = config
        self.spatiotemporal = Spatiotemporal(config)
        self.spectral = Spectral(config)
        self.output = nn.Linear(config.dim, config.n_outputs)
        _initialise(self)

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Vocabulary into which ``ch_index`` points."""
        return self.config.ch_names

    @property
    def window_s(self) -> float:
        """Length of the EEG window that ends at the volume, in seconds."""
        return self.config.window_s

    @property
    def sfreq(self) -> float:
        """Sampling frequency of the input, in Hz."""
        return self.config.sfreq

    def channel_index(self, ch_names: Sequence[str], unseen: Unseen | None = None) -> Tensor:
        """Index of each channel in ``ch_names`` of the model, shape (C,), int64; names in any case.

        Parameters
        ----------
        ch_names : sequence of str
        unseen : {"error", "nearest"}, optional
            What becomes of unknown electrodes (:func:`neurobolt.channels.vocabulary_index`); the configuration's
            ``unseen_channels`` by default.

        Raises
        ------
        ValueError
            Channels that the model does not know, or one electrode under two names.
        """
        index = vocabulary_index(ch_names, self.ch_names, unseen or self.config.unseen_channels)
        return torch.tensor(index, dtype=torch.int64)

    def branches(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Representations of both branches, (r_st, r_sp), each (B, D)."""
        ch_index_BC = batch.ch_index_BC.long()
        eeg_BCT, valid_BC = self._scaled(batch.eeg_BCT, ch_index_BC, getattr(batch, "padded", None))
        return self.spatiotemporal(eeg_BCT, ch_index_BC, valid_BC), self.spectral(eeg_BCT, ch_index_BC, valid_BC)

    def _scaled(self, eeg_BCT: Tensor, ch_index_BC: Tensor, padded: bool | None = None) -> tuple[Tensor, Tensor | None]:
        if eeg_BCT.ndim != 3 or eeg_BCT.shape[2] != self.config.n_times or eeg_BCT.shape[:2] != ch_index_BC.shape:
            raise ValueError(
                f"eeg has shape {tuple(eeg_BCT.shape)} and ch_index {tuple(ch_index_BC.shape)}; expected "
                f"(windows, channels, {self.config.n_times}) and (windows, channels)"
            )
        valid_BC = ch_index_BC >= 0
        # without padding no masks at all: plain GroupNorm and unmasked attention. A batch that says so itself spares
        # the question, which on a GPU would wait for all that was asked before
        full = bool(valid_BC.all()) if padded is None else not padded
        x_BCT = eeg_BCT.float() if full else eeg_BCT.float().masked_fill(~valid_BC.unsqueeze(-1), 0.0)
        if self.config.remove_mean:
            x_BCT = x_BCT - x_BCT.mean(-1, keepdim=True)
        return x_BCT / self.config.eeg_unit, None if full else valid_BC

    def features(self, batch: Batch) -> Tensor:
        """Representation (B, D) that the head reads: the sum of both branches."""
        r_st_BD, r_sp_BD = self.branches(batch)
        return r_st_BD + r_sp_BD

    def head(self, z_BD: Tensor) -> Tensor:
        """Representation (B, D) to BOLD (B, R)."""
        bold_BR: Tensor = self.output(nn.functional.gelu(z_BD) if self.config.gelu_head else z_BD)
        return bold_BR

    def forward(self, batch: Batch) -> Tensor:
        """BOLD (B, R) at the end of each window, in units of the training target."""
        return self.head(self.features(batch))

    def predict(
        self, eeg_BCT: ArrayOrTensor, ch_names: Sequence[str], *, unseen: Unseen | None = None
    ) -> ArrayOrTensor:
        """BOLD of windows of named channels, in evaluation mode.

        Parameters
        ----------
        eeg_BCT : float32 array or tensor, shape (B, C, T)
            Microvolt at ``sfreq``; T is ``window_s`` x ``sfreq`` samples.
        ch_names : sequence of str, length C
            Any subset of the model's channels, in any order.
        unseen : {"error", "nearest"}, optional
            As in :meth:`channel_index`.

        Returns
        -------
        float32 array or tensor, shape (B, R)
            The kind of ``eeg_BCT``.

        Raises
        ------
        ValueError
            Wrong shape, unknown channels, values that are not finite, or values that look like volt.
        """
        return predict_windows(self, eeg_BCT, self.channel_index(ch_names, unseen))

    def param_groups(self, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Parameter groups for AdamW with layer-wise learning rates.

        The patch encoder and the embeddings learn at ``lr x layer_decay ** (depth + 1)``, the last block at
        ``lr x layer_decay``; the final norm, the spectral branch and the head at ``lr``. Vectors, biases and embeddings
        of the spatiotemporal branch are not decayed. Each group names its factor in ``lr_scale``.
        """
        groups: dict[tuple[float, bool], dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            scale = layer_decay ** (self.config.depth + 1 - self._layer(name))
            decays = parameter.ndim > 1 and not name.endswith(("cls_token", "_embedding"))
            group = {"params": [], "lr": lr * scale, "lr_scale": scale, "weight_decay": weight_decay if decays else 0.0}
            groups.setdefault((scale, decays), group)["params"].append(parameter)
        return list(groups.values())

    def _layer(self, name: str) -> int:
        last = self.config.depth + 1
        branch, part, *rest = name.split(".")
        if branch != "spatiotemporal" or part == "norm":
            return last
        if part == "temporal_embedding" and not self.config.decay_temporal_embedding:
            return last
        return int(rest[0]) + 1 if part == "blocks" else 0


def _initialise(model: NeuroBOLT) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=model.config.init_std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    space = model.spatiotemporal
    for embedding in (space.cls_token, space.spatial_embedding, space.temporal_embedding, model.spectral.cls_token):
        if embedding is not None:
            nn.init.trunc_normal_(embedding, std=0.02)
    nn.init.normal_(model.spectral.channel_tokens.weight)
    with torch.no_grad():
        for i, block in enumerate(space.blocks, start=1):
            for linear in (block.attention.proj, block.mlp.fc2):  # type: ignore[union-attr]  # ModuleList forgets its type
                linear.weight.div_(math.sqrt(2 * i))  # type: ignore[union-attr, operator]
        model.output.weight.mul_(model.config.head_scale)
