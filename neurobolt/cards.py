"""What a reader should know of a model before comparing it: origin, licence of the idea, what differs, size and cost.

Parameters and operations are counted on the built model, never written down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from neurobolt.batch import Batch, EegBatch


@dataclass(frozen=True)
class ModelCard:
    """Where a model comes from and how ours differs.

    Parameters
    ----------
    name : str
        As a person would write it.
    paper : str
        Authors, title, venue.
    year : int
    licence_of_the_idea : str
        Licence of the authors' own code, or "none published"; ours is written from the description.
    differs : tuple of str
        What is not as published, one sentence each; sizes that no source gives belong here too.
    """

    name: str
    paper: str
    year: int
    licence_of_the_idea: str
    differs: tuple[str, ...]

    def to_markdown(self) -> str:
        """One paragraph and a list."""
        head = f"**{self.name}** ({self.year}). {self.paper}. Licence of the idea: {self.licence_of_the_idea}."
        return "\n".join([head, "", *(f"* {text}" for text in self.differs)]).rstrip()


def count_parameters(model: nn.Module) -> int:
    """Numbers that training may change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_flops(model: nn.Module, batch: Batch) -> int:
    """Floating-point operations of one forward pass, as torch counts matrix products and convolutions.

    Fourier transforms, norms and activations are not counted. The model is left in the mode in which it came.
    """
    was_training = model.training
    model.eval()
    try:
        # the fused attention of a CPU is not in torch's table; written out, it is made of products that are
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(batch)
    finally:
        model.train(was_training)
    return int(counter.get_total_flops())


def one_window(n_chans: int, n_times: int) -> EegBatch:
    """A window of seeded noise (15 microvolt) of the model's first channels, to count on."""
    noise = torch.randn(1, n_chans, n_times, generator=torch.Generator().manual_seed(0))
    return EegBatch(15 * noise, torch.arange(n_chans).expand(1, -1))
