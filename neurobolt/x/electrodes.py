"""Which electrode a channel is, and weights that depend on it: by name, by place on the head, or both.

An index below the vocabulary's length is a trained name; the next ones are the other names of the 10-20 and 10-10
systems, known by their place only; the one after that is any electrode whose place the batch gives. Shape
letters: ``B`` windows, ``C`` channels, ``N`` indices, ``P`` features of a place, ``O`` weights of a channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neurobolt.channels import LABRAM_NAMES, other_name, vocabulary_index
from neurobolt.positions import OLD_NAMES, has_position, unit_positions

# old names are found under the new ones
_PLACES = tuple(name for name in LABRAM_NAMES if has_position(name) and "-" not in name and name not in OLD_NAMES)


def names_with_places(vocabulary: Sequence[str]) -> tuple[str, ...]:
    """The vocabulary, then all other 10-20 and 10-10 names, then a nameless electrode (an empty string)."""
    own = {spelt for name in vocabulary for spelt in (name.upper(), other_name(name.upper()))}
    return (*vocabulary, *(name for name in _PLACES if name not in own), "")


def electrode_index(ch_names: Sequence[str], vocabulary: Sequence[str], *, placed: Sequence[str] = ()) -> list[int]:
    """Index of each channel; names in ``placed`` need not be known, because the batch says where they are.

    Raises
    ------
    ValueError
        Names without a place, or two names of one electrode; all of them are listed.
    """
    known = names_with_places(vocabulary)
    upper = {spelt for name in known for spelt in (name.upper(), other_name(name.upper()))}
    nameless = [n in placed and n.strip().upper() not in upper for n in ch_names]
    named = iter(vocabulary_index([n for n, lost in zip(ch_names, nameless, strict=True) if not lost], known[:-1]))
    return [len(known) - 1 if lost else next(named) for lost in nameless]


def place_features(position_BC3: Tensor) -> Tensor:
    """Sines and cosines of a direction along 13 axes at two wavelengths, and a constant, shape (B, C, 53)."""
    axes = [(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) > (0, 0, 0)]
    axis_3A = position_BC3.new_tensor(axes).T
    phase = position_BC3 @ (axis_3A / axis_3A.norm(dim=0)) * (torch.pi / 2)
    waves = [torch.sin(phase), torch.cos(phase), torch.sin(2 * phase), torch.cos(2 * phase)]
    return torch.cat([*waves, torch.ones_like(phase[..., :1])], -1)


N_PLACE_FEATURES = 53


class Electrodes(nn.Module):
    """Places of a batch's channels: the batch's own where it gives them, else those of their names.

    Parameters
    ----------
    ch_names : sequence of str
        The model's vocabulary.
    """

    position_N3: Tensor

    def __init__(self, ch_names: Sequence[str]) -> None:
        super().__init__()
        self.n_names = len(ch_names)
        table = torch.tensor(unit_positions(names_with_places(ch_names)), dtype=torch.float32)
        self.register_buffer("position_N3", table, persistent=False)

    def forward(self, ch_index_BC: Tensor, given_BC3: Tensor | None) -> Tensor:
        """Unit vectors (B, C, 3); zeros where neither the batch nor the name knows the place."""
        named_BC3 = self.position_N3[ch_index_BC.clamp(min=0)]
        if given_BC3 is None:
            return named_BC3
        return torch.where((given_BC3 != 0).any(-1, keepdim=True), given_BC3.to(named_BC3), named_BC3)


class ElectrodeWeights(nn.Module):
    """Weights (B, C, O) of each channel: a row per trained name, plus a smooth function of the place.

    Parameters
    ----------
    n_names, n_weights : int
    positions : bool
        Off: names only.
    std : float
        Spread of the weights at the start.
    """

    def __init__(self, n_names: int, n_weights: int, *, positions: bool, std: float) -> None:
        super().__init__()
        share = 0.5**0.5 if positions else 1.0
        self.name_weight = nn.Parameter(torch.randn(n_names, n_weights) * std * share)
        self.place = (
            nn.Parameter(torch.randn(N_PLACE_FEATURES, n_weights) * std * share / 27**0.5) if positions else None
        )

    def forward(self, ch_index_BC: Tensor, position_BC3: Tensor) -> Tensor:
        """Weights of each channel; those of padding mean nothing and are masked by the caller."""
        n_names = len(self.name_weight)
        trained_BC1 = ((ch_index_BC >= 0) & (ch_index_BC < n_names)).unsqueeze(-1)
        weight_BCO = self.name_weight[ch_index_BC.clamp(0, n_names - 1)] * trained_BC1
        if self.place is not None:
            seen_BC1 = (position_BC3 != 0).any(-1, keepdim=True)
            weight_BCO = weight_BCO + (place_features(position_BC3) @ self.place) * seen_BC1
        return weight_BCO
