"""Arithmetic over the sites of one batch, the same on one rank and on several.

Every sum runs over the windows of *all* ranks, and its gradient reaches the windows of this rank only; a loss built
from such sums and passed through :func:`averaged_over_ranks` leaves, after DDP's averaging, exactly the gradient of one
process with the whole batch. Parameters must therefore act on this rank's windows, before anything is summed.
Shapes: ``B`` windows of this rank, ``N`` of all ranks, ``S`` sites, ``D`` features, ``R`` parcels, ``C`` channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from xsite.errors import RecipeError
from xsite.learning.algorithms.erm import squared_error


def n_ranks() -> int:
    """Processes that share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


def sum_over_ranks(local: Tensor) -> Tensor:
    """Sum over all ranks; each rank differentiates its own part."""
    return cast("Tensor", _Sum.apply(local)) if n_ranks() > 1 else local  # type: ignore[no-untyped-call]


def gathered(local_B: Tensor) -> Tensor:
    """Rows of all ranks (N, ...), in the order of the ranks; each rank differentiates its own rows."""
    if n_ranks() == 1:
        return local_B
    length = torch.tensor([len(local_B)], device=local_B.device)
    lengths = [torch.empty_like(length) for _ in range(n_ranks())]
    dist.all_gather(lengths, length)  # an epoch smaller than one batch is dealt unevenly
    longest = int(torch.stack(lengths).max())
    padded = torch.cat([local_B.detach(), local_B.new_zeros(longest - len(local_B), *local_B.shape[1:])])
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    rows = [part[: int(n)] for part, n in zip(parts, lengths, strict=True)]
    rows[dist.get_rank()] = local_B
    return torch.cat(rows)


def averaged_over_ranks(loss: Tensor) -> Tensor:
    """The same value, its gradient times the number of ranks, by which DDP will divide."""
    n = n_ranks()
    return loss if n == 1 else loss * n - loss.detach() * (n - 1)


def pooled_risk(predicted_BR: Tensor, target_BR: Tensor, mask_BR: Tensor) -> Tensor:
    """Mean squared error over the entries that count, of all ranks: the risk of ERM."""
    total, count = squared_error(predicted_BR, target_BR, mask_BR)
    return sum_over_ranks(total) / sum_over_ranks(count.double()).clamp(min=1).float()


class SiteRisks(NamedTuple):
    """Mean squared error of each site in the batch.

    Attributes
    ----------
    risk_S : Tensor
        0 where the site is absent.
    slope_S : Tensor
        Mean of (predicted - target) * predicted: half the slope of the risk in a factor on the prediction, at 1.
    present_S : Tensor
        1 where the site has an entry that counts, else 0.
    pooled : Tensor
        Over all entries, whatever their site.
    """

    risk_S: Tensor
    slope_S: Tensor
    present_S: Tensor
    pooled: Tensor

    def mean(self) -> Tensor:
        """Each site present counts once."""
        return self.risk_S.sum() / self.present_S.sum().clamp(min=1)

    def several(self) -> Tensor:
        """1 where at least two sites are present, else 0: with fewer there is nothing to compare."""
        return (self.present_S.sum() > 1).float()


def site_risks(predicted_BR: Tensor, target_BR: Tensor, mask_BR: Tensor, site_B: Tensor, n_sites: int) -> SiteRisks:
    """Risks of all sites, over the windows of all ranks."""
    predicted_BR = torch.where(mask_BR, predicted_BR.float(), 0.0)
    error_BR = predicted_BR - torch.where(mask_BR, target_BR, 0.0)  # a masked target may be NaN
    facts = (error_BR.square().sum(1), (error_BR * predicted_BR).sum(1), mask_BR.sum(1).float())
    own_BS = one_hot(site_B, n_sites)
    total_S, slope_S, count_S = sum_over_ranks(torch.stack([(own_BS * f_B[:, None]).sum(0) for f_B in facts]))
    least_S = count_S.detach().clamp(min=1)
    pooled = total_S.sum() / count_S.detach().sum().clamp(min=1)
    return SiteRisks(total_S / least_S, slope_S / least_S, (count_S.detach() > 0).float(), pooled)


class SiteMoments(NamedTuple):
    """Number of windows, mean and covariance of each site's features; absent sites are 0."""

    n_S: Tensor
    mean_SD: Tensor
    cov_SDD: Tensor


def site_moments(z_BD: Tensor, site_B: Tensor, n_sites: int) -> SiteMoments:
    """Moments over the windows of all ranks, in float32 whatever the precision of the model."""
    with torch.autocast(z_BD.device.type, enabled=False):
        z_BD, own_BS = z_BD.float(), one_hot(site_B, n_sites)
        n_S = sum_over_ranks(own_BS.sum(0))
        mean_SD = sum_over_ranks(own_BS.T @ z_BD) / n_S.clamp(min=1)[:, None]
        # the mean is held: a covariance does not change with it, and summed rank by rank its gradient would not cancel
        centred_BD = z_BD - own_BS @ mean_SD.detach()
        local_SDD = torch.einsum("bs,bd,be->sde", own_BS, centred_BD, centred_BD)
        cov_SDD = sum_over_ranks(local_SDD) / (n_S - 1).clamp(min=1)[:, None, None]
    return SiteMoments(n_S, mean_SD, cov_SDD)


def spread(x_SK: Tensor, present_S: Tensor) -> Tensor:
    """Squared distance between the rows of two sites, averaged over all pairs present; 0 for fewer than two sites."""
    n = present_S.sum()
    mean_K = (x_SK * present_S[:, None]).sum(0) / n.clamp(min=1)
    away_S = (x_SK - mean_K).square().sum(1) * present_S
    return 2 * away_S.sum() / (n - 1).clamp(min=1)


def one_hot(site_B: Tensor, n_sites: int) -> Tensor:
    """Float (B, S)."""
    return (site_B[:, None] == torch.arange(n_sites, device=site_B.device)).float()


def partners(site_B: Tensor, ch_index_BC: Tensor) -> Tensor:
    """A random window of another site with the same channels for each window; itself where there is none."""
    other_BB = site_B[:, None] != site_B[None]
    alike_BB = (ch_index_BC[:, None] == ch_index_BC[None]).all(-1)
    draw_BB = torch.rand(other_BB.shape, device=site_B.device) + 1
    itself_BB = torch.eye(len(site_B), device=site_B.device)
    return torch.where(other_BB & alike_BB, draw_BB, itself_BB).argmax(1)


def two_part(model: nn.Module, name: str) -> Any:
    """``model``, if it has ``features`` and ``head``.

    Raises
    ------
    RecipeError
        It has not.
    """
    if not (callable(getattr(model, "features", None)) and callable(getattr(model, "head", None))):
        raise RecipeError(
            f"algorithm.name {name!r} needs a model with features(batch) and head(z_BD), which {type(model).__name__} "
            "lacks; choose erm, or another model"
        )
    return model


def n_features(model: Any, batch: Any) -> int:
    """Width of the model's representation."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        width = int(model.features(batch).shape[1])
    model.train(was_training)
    return width


def number(name: str, value: Any, low: float = 0.0, high: float = float("inf")) -> float:
    """An option that must be a number from ``low`` to ``high``.

    Raises
    ------
    RecipeError
        It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        bounds = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise RecipeError(f"algorithm.options.{name} is {value!r}, expected a number {bounds}")
    return float(value)


def whole(name: str, value: Any, low: int = 0) -> int:
    """An option that must be a whole number of at least ``low``.

    Raises
    ------
    RecipeError
        It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise RecipeError(f"algorithm.options.{name} is {value!r}, expected a whole number of at least {low}")
    return value
