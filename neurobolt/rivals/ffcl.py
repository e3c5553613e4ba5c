"""FFCL: a residual CNN on spectrograms beside an LSTM on the signal, joined before the head.

Shape letters: ``B`` windows, ``V`` channels of the vocabulary, ``T`` samples, ``S`` steps, ``K`` feature maps.
Source: Li, Ding, Zhang and Xiu, Motor imagery EEG classification algorithm based on CNN-LSTM feature fusion network,
Biomedical Signal Processing and Control 72, 2022; sizes as in the comparisons of BIOT (2023) and NeuroBOLT (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from neurobolt.cards import ModelCard
from neurobolt.rivals.base import Rival, in_slots
from neurobolt.rivals.config import RivalConfig
from neurobolt.rivals.frames import SpectrogramCNN


@dataclass(frozen=True)
class FFCLConfig(RivalConfig):
    """Sizes of FFCL.

    Parameters
    ----------
    widths : tuple of int
        Feature maps of the residual blocks.
    n_fft, hop : int
        Samples of a frame and between frames.
    phases : int
        The signal is dealt into so many interleaved, slower signals per channel; the LSTM reads them one by one.
    hidden, lstm_layers : int
        Width and layers of the LSTM.
    dropout : float
        After every residual block.
    """

    model: ClassVar[str] = "ffcl"

    widths: tuple[int, ...] = (32, 64, 128, 256)
    n_fft: int = 200
    hop: int = 20
    phases: int = 20
    hidden: int = 256
    lstm_layers: int = 2
    dropout: float = 0.5

    def checks(self) -> dict[str, bool]:
        """Phases divide the window; a frame fits into it."""
        return {
            f"a window of {self.n_times} samples cannot be dealt into {self.phases} phases": self.phases > 0
            and self.n_times % self.phases == 0,
            f"a frame of {self.n_fft} samples, hop {self.hop}, does not fit into {self.n_times}": self.hop > 0
            and self.n_fft <= self.n_times,
            "widths is empty": len(self.widths) > 0,
        }


class FFCL(Rival):
    """Channels sit in fixed slots of the vocabulary, absent ones zero."""

    config_class = FFCLConfig

    def __init__(self, config: FFCLConfig) -> None:
        super().__init__(config)
        self.cnn = SpectrogramCNN(len(config.ch_names), config.widths, config.n_fft, config.hop, config.dropout)
        self.lstm = nn.LSTM(config.n_times // config.phases, config.hidden, config.lstm_layers, batch_first=True)
        self.output = nn.Linear(config.widths[-1] + config.hidden, config.n_outputs)

    def steps(self, eeg_BVT: Tensor) -> Tensor:
        """Signal in fixed slots to the LSTM's input (B, phases x V, T / phases), channel by channel within a phase."""
        b, v, t = eeg_BVT.shape
        phases: int = self.config.phases
        return eeg_BVT.reshape(b, v, t // phases, phases).permute(0, 3, 1, 2).reshape(b, phases * v, t // phases)

    def encode(self, eeg_BCT: Tensor, ch_index_BC: Tensor, valid_BC: Tensor) -> Tensor:
        """CNN features and the LSTM's last state, side by side."""
        del valid_BC
        eeg_BVT = in_slots(eeg_BCT, ch_index_BC, len(self.ch_names))
        state_BSD, _ = self.lstm(self.steps(eeg_BVT))
        return torch.cat((self.cnn(eeg_BVT), state_BSD[:, -1]), 1)

    def head(self, z_BD: Tensor) -> Tensor:
        """ELU and linear."""
        bold_BR: Tensor = self.output(nn.functional.elu(z_BD))
        return bold_BR


PRESETS: dict[str, dict[str, Any]] = {
    "published": {},
    "small": {"widths": (16, 32, 64), "hop": 100, "phases": 4, "hidden": 64, "lstm_layers": 1, "dropout": 0.2},
}

CARD = ModelCard(
    name="FFCL",
    paper="Li, Ding, Zhang and Xiu, Motor imagery EEG classification algorithm based on CNN-LSTM feature fusion "
    "network, Biomedical Signal Processing and Control 72, 2022",
    year=2022,
    licence_of_the_idea="MIT (as a baseline of BIOT)",
    differs=(
        "channels sit in fixed slots of the vocabulary, absent ones zero",
        "details that no description gives (activation, shortcut, order of the LSTM's steps) were chosen; they meet "
        "the published number of parameters within 1 %",
        "hop of 20 samples (the divisor 20 of the comparison cannot run at 3,200 samples)",
        "`small`: three narrower blocks, hop 100, one LSTM layer of 64 on 4 phases, dropout 0.2",
    ),
)
