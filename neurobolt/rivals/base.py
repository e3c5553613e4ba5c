"""What every rival shares: channel names, scaling, prediction; a rival adds its architecture only.

Shape letters: ``B`` windows, ``C`` channels of the batch, ``V`` channels of the vocabulary, ``T`` samples, ``D`` width,
``R`` parcels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from neurobolt.batch import Batch
from neurobolt.cards import ModelCard
from neurobolt.channels import VU_NAMES, Unseen, vocabulary_index
from neurobolt.inference import ArrayOrTensor, predict_windows
from neurobolt.rivals.config import RivalConfig
from neurobolt.spelling import did_you_mean


class Rival(nn.Module):
    """A model behind the interface of :class:`neurobolt.NeuroBOLT`.

    A rival sets ``config_class``, builds its parts and :attr:`output` in ``__init__`` and implements :meth:`encode`.

    Parameters
    ----------
    config : RivalConfig
    """

    config_class: ClassVar[type[RivalConfig]] = RivalConfig
    undecayed: ClassVar[tuple[str, ...]] = ()
    """Ends of the names of matrices that weight decay leaves alone (embeddings); vectors it never touches."""

    output: nn.Module

    def __init__(self, config: RivalConfig) -> None:
        super().__init__()
        self.config: Any = config

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Vocabulary into which ``ch_index`` points."""
        names: tuple[str, ...] = self.config.ch_names
        return names

    @property
    def window_s(self) -> float:
        """Length of the EEG window that ends at the volume, in seconds."""
        return float(self.config.window_s)

    @property
    def sfreq(self) -> float:
        """Sampling frequency of the input, in Hz."""
        return float(self.config.sfreq)

    def channel_index(self, ch_names: Sequence[str], unseen: Unseen | None = None) -> Tensor:
        """Index of each channel in ``ch_names`` of the model, shape (C,), int64; names in any case.

        ``unseen`` says what becomes of unknown electrodes (:func:`neurobolt.channels.vocabulary_index`); the
        configuration's ``unseen_channels`` by default.

        Raises
        ------
        ValueError
            Channels that the model does not know, or one electrode under two names.
        """
        index = vocabulary_index(ch_names, self.ch_names, unseen or self.config.unseen_channels)
        return torch.tensor(index, dtype=torch.int64)

    def scaled(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Input in the model's unit with padding set to zero (B, C, T), channel index (B, C), and what is no padding.

        Nothing here looks at values on the host, so that CUDA need not wait and ``torch.func.vmap`` can pass.
        """
        eeg_BCT, ch_index_BC = batch.eeg_BCT, batch.ch_index_BC.long()
        if eeg_BCT.ndim != 3 or eeg_BCT.shape[2] != self.config.n_times or eeg_BCT.shape[:2] != ch_index_BC.shape:
            raise ValueError(
                f"eeg has shape {tuple(eeg_BCT.shape)} and ch_index {tuple(ch_index_BC.shape)}; expected "
                f"(windows, channels, {self.config.n_times}) and (windows, channels)"
            )
        valid_BC = ch_index_BC >= 0
        x_BCT = eeg_BCT.float().masked_fill(~valid_BC.unsqueeze(-1), 0.0)
        if self.config.remove_mean:
            x_BCT = x_BCT - x_BCT.mean(-1, keepdim=True)
        return x_BCT / self.config.eeg_unit, ch_index_BC, valid_BC

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """Scaled EEG to the representation (B, D); channels that are not valid are zero and must change nothing."""
        raise NotImplementedError

    def features(self, batch: Batch) -> Tensor:
        """Representation (B, D) that the head reads."""
        return self.encode(*self.scaled(batch))

    def head(self, z_BD: Tensor) -> Tensor:
        """Representation (B, D) to BOLD (B, R)."""
        bold_BR: Tensor = self.output(z_BD)
        return bold_BR

    def forward(self, batch: Batch) -> Tensor:
        """BOLD (B, R) at the end of each window, in units of the training target."""
        return self.head(self.features(batch))

    def predict(
        self, eeg_BCT: ArrayOrTensor, ch_names: Sequence[str], *, unseen: Unseen | None = None
    ) -> ArrayOrTensor:
        """BOLD (B, R) of windows of named channels; see :func:`neurobolt.inference.predict_windows`."""
        return predict_windows(self, eeg_BCT, self.channel_index(ch_names, unseen))

    def layers_above(self, name: str) -> int:
        """Layers between a parameter and the head, for layer-wise learning rates; 0 where a rival knows no layers."""
        del name
        return 0

    def param_groups(self, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Parameter groups for AdamW: ``lr x layer_decay ** layers_above``; each names its factor in ``lr_scale``."""
        groups: dict[tuple[float, bool], dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            scale = layer_decay ** self.layers_above(name)
            decays = parameter.ndim > 1 and not name.endswith(self.undecayed or ("\0",))
            group = {"params": [], "lr": lr * scale, "lr_scale": scale, "weight_decay": weight_decay if decays else 0.0}
            groups.setdefault((scale, decays), group)["params"].append(parameter)
        return list(groups.values())


class RivalEntry(NamedTuple):
    """One line of the table of rivals.

    Parameters
    ----------
    model : type of Rival
    presets : dict of name to options
        At least ``published`` and ``small``.
    card : ModelCard
    """

    model: type[Rival]
    presets: dict[str, dict[str, Any]]
    card: ModelCard

    def build(self, preset: str, *, ch_names: Sequence[str] = VU_NAMES, n_outputs: int = 1, **options: Any) -> Rival:
        """A model with a preset's sizes and single options replaced.

        Raises
        ------
        ValueError
            Unknown preset or option, or sizes that do not fit together.
        """
        if preset not in self.presets:
            raise ValueError(
                f"unknown preset {preset!r}{did_you_mean(preset, self.presets)}; presets are {', '.join(self.presets)}"
            )
        values = {**self.presets[preset], **options, "ch_names": tuple(ch_names), "n_outputs": n_outputs}
        return self.model(self.model.config_class.from_dict(values))


def may_be_padded(batch: Batch) -> bool:
    """Whether a batch may hold padding; False only where the batch itself says so, so that no device is asked."""
    return bool(getattr(batch, "padded", True))


def in_slots(x_BCT: Tensor, ch_index_BC: Tensor, n_slots: int) -> Tensor:
    """Channels at their places in the vocabulary (B, V, T), absent ones zero: order and padding change nothing.

    Electrodes that speak for the same place (``unseen="nearest"``) are averaged.

    Examples
    --------
    >>> in_slots(torch.tensor([[[1.0], [2.0], [9.0]]]), torch.tensor([[2, 0, -1]]), 3)[0, :, 0].tolist()
    [2.0, 0.0, 1.0]
    """
    slot_BC = torch.where(ch_index_BC >= 0, ch_index_BC, n_slots)  # one slot more takes what is padding
    empty_BVT = x_BCT.new_zeros(x_BCT.shape[0], n_slots + 1, x_BCT.shape[2])
    total_BVT = empty_BVT.scatter_add(1, slot_BC.unsqueeze(-1).expand_as(x_BCT), x_BCT)[:, :n_slots]
    count_BV = empty_BVT[..., 0].scatter_add(1, slot_BC, torch.ones_like(x_BCT[..., 0]))[:, :n_slots]
    return total_BVT / count_BV.clamp(min=1).unsqueeze(-1)
