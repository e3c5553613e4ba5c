"""Many models of one architecture as rows of one matrix: one forward, one backward and one AdamW step for all of them.

Parameters lie flat, so that the optimiser is a dozen operations however many layers there are; the model sees views.
Shapes: ``K`` models, ``P`` trained parameters of one model, ``B`` batch, ``R`` parcels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from xsite.experiment_parts import Optim
from xsite.learning.algorithms.erm import squared_error
from xsite.learning.alike import UnstackableError, check_alike, fixed_names, flattened, tensor_of
from xsite.learning.lane_random import LaneRandom
from xsite.learning.schedule import build_optimizer

Rows = Sequence[int]
_SLOTS = ("exp_avg", "exp_avg_sq")


class ParameterStack:
    """Parameters, buffers and AdamW moments of K algorithms of one architecture.

    Every step is elementwise or per model, so that a row is what a separate run would hold.

    Parameters
    ----------
    algorithms : sequence of nn.Module
        Each holds its ``model``; row ``k`` starts from, and :meth:`write_back` returns to, ``algorithms[k]``.
    optim : Optim
        Groups, rates and decay are those of :func:`~xsite.learning.schedule.build_optimizer`.

    Raises
    ------
    RecipeError
        The modules are not of one architecture.
    """

    def __init__(self, algorithms: Sequence[nn.Module], optim: Optim, device: torch.device) -> None:
        self.modules = [algorithm.to(device) for algorithm in algorithms]
        check_alike(self.modules)
        self.optim, self.device, self.template = optim, device, self.modules[0]
        trained = [(name, p) for name, p in self.template.named_parameters() if p.requires_grad]
        self.names = [name for name, _ in trained]
        self.shapes = [p.shape for _, p in trained]
        self.sizes = [p.numel() for _, p in trained]
        self.flat_KP = torch.stack([flattened(module, self.names) for module in self.modules])
        self.moments = {slot: torch.zeros_like(self.flat_KP) for slot in _SLOTS}
        self.step_K = [0] * len(self.modules)
        self.generators = [torch.Generator(device) for _ in self.modules]
        self.buffers = {name: self._stacked(name) for name in fixed_names(self.template)}
        self._read_optimizer()

    def _stacked(self, name: str) -> Tensor:
        return torch.stack([tensor_of(module, name).detach().clone() for module in self.modules])

    def _read_optimizer(self) -> None:
        """Learning-rate factor and decay of every column, and the place of each parameter in the optimiser's order."""
        optimizer = build_optimizer(cast("nn.Module", self.template.model), self.optim)
        place = {id(p): name for name, p in self.template.named_parameters()}
        facts: dict[str, tuple[float, float]] = {}
        for group in optimizer.param_groups:
            facts |= {place[id(p)]: (group["lr_scale"], group["weight_decay"]) for p in group["params"]}
        self.order = list(facts)  # an optimiser's state is keyed by this position
        self.betas, self.eps = optimizer.defaults["betas"], optimizer.defaults["eps"]
        columns = [facts.get(name, (0.0, 0.0)) for name in self.names]  # what the optimiser was not given stays
        scale_P, decay_P = (torch.tensor([column[i] for column in columns]) for i in (0, 1))
        sizes = torch.tensor(self.sizes)
        self.scale_P = scale_P.repeat_interleave(sizes).to(self.device)
        self.decay_P = decay_P.repeat_interleave(sizes).to(self.device)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.modules)

    def train_step(self, rows: Rows, batch: Any, target_KBR: Tensor, mask_KBR: Tensor, lr_K: Sequence[float]) -> Tensor:
        """One optimiser step of the models ``rows``, each on its own batch; their losses (K,), still on the device.

        Parameters
        ----------
        batch : tuple of tensors (K, B, ...)
            Of the type that the model reads.
        lr_K : sequence of float
            Learning rate of each model, before the groups' factors.
        """
        self.template.train()
        leaves = [view.requires_grad_() for view in self._views(self._take(self.flat_KP, rows).detach())]
        fixed = {name: self._take(value, rows) for name, value in self.buffers.items()}
        with _autocast(self.optim, self.device), _vmap_may_loop():
            views = dict(zip(self.names, leaves, strict=True))
            loss_K = _mapped(self._lane_loss(rows), views, fixed, batch, target_KBR, mask_KBR, self._lanes(rows))
        grads = torch.autograd.grad(loss_K.sum(), leaves, allow_unused=True)  # outside autocast, as a separate run does
        if not self._is_all(rows):
            for name, value in fixed.items():
                self.buffers[name][list(rows)] = value
        unused = [grad is None for grad in grads]
        full = [torch.zeros_like(p) if grad is None else grad for p, grad in zip(leaves, grads, strict=True)]
        grad_KP = torch.cat([grad.flatten(1) for grad in full], 1)
        self._adamw(rows, self._clipped(grad_KP), lr_K, self._scale(unused))
        return loss_K.detach()

    @torch.no_grad()
    def squared_errors(self, rows: Rows, batch: Any, target_KBR: Tensor, mask_KBR: Tensor) -> Tensor:
        """Sum of squared errors of each model on its own batch, and the entries behind it: float64 (K, 2)."""
        self.template.eval()
        views = dict(zip(self.names, self._views(self._take(self.flat_KP, rows)), strict=True))
        fixed = {name: self._take(value, rows) for name, value in self.buffers.items()}
        with _autocast(self.optim, self.device), _vmap_may_loop():
            errors_K2: Tensor = _mapped(self._errors, views, fixed, batch, target_KBR, mask_KBR)
        return errors_K2

    def seed(self, row: int, seed: int) -> None:
        """What a model draws from here on (dropout) follows from this alone, not from the models beside it."""
        self.generators[row].manual_seed(seed)

    def _lanes(self, rows: Rows) -> Tensor:
        return torch.arange(len(rows), device=self.device)

    def _lane_loss(self, rows: Rows) -> Callable[..., Tensor]:
        generators = [self.generators[row] for row in rows]

        def loss_of(
            parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor], batch: Any, target: Tensor, mask: Tensor,
            lane: Tensor,
        ) -> Tensor:  # fmt: skip
            with LaneRandom(lane, generators):
                loss: Tensor = functional_call(self.template, {**parameters, **fixed}, (batch, target, mask))["loss"]
            return loss

        return loss_of

    def _errors(
        self, parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor], batch: Any, target: Tensor, mask: Tensor
    ) -> Tensor:
        model = cast("nn.Module", self.template.model)
        state = {**parameters, **fixed}
        own = {name.removeprefix("model."): state[name] for name in state if name.startswith("model.")}
        total, count = squared_error(functional_call(model, own, (batch,)), target, mask)
        return torch.stack((total.double(), count.double()))

    def _clipped(self, grad_KP: Tensor) -> Tensor:
        if self.optim.clip is None:
            return grad_KP
        norm_K1 = torch.linalg.vector_norm(grad_KP, dim=1, keepdim=True)
        factor_K1: Tensor = (self.optim.clip / (norm_K1 + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_, model by model
        return grad_KP * factor_K1

    def _scale(self, unused: Sequence[bool]) -> Tensor:
        """A parameter that the loss does not reach is left alone, decay included, as torch's optimisers do."""
        if not any(unused):
            return self.scale_P
        reached = torch.tensor([0.0 if one else 1.0 for one in unused])
        return self.scale_P * reached.repeat_interleave(torch.tensor(self.sizes)).to(self.device)

    def _adamw(self, rows: Rows, grad_KP: Tensor, lr_K: Sequence[float], scale_P: Tensor) -> None:
        """``torch.optim.AdamW`` element by element; step count and rate belong to the model."""
        first, second = self.betas
        steps = [self.step_K[row] + 1 for row in rows]
        for row, step in zip(rows, steps, strict=True):
            self.step_K[row] = step
        p_KP, mean_KP, square_KP = (self._take(t, rows) for t in (self.flat_KP, *self.moments.values()))
        size_K = [lr / (1 - first**step) for lr, step in zip(lr_K, steps, strict=True)]
        root_K = [(1 - second**step) ** 0.5 for step in steps]
        lr_K1, size_K1, root_K1 = (self._column(values) for values in (lr_K, size_K, root_K))
        p_KP.mul_(1 - lr_K1 * (scale_P * self.decay_P))
        mean_KP.lerp_(grad_KP, 1 - first)
        square_KP.mul_(second).addcmul_(grad_KP, grad_KP, value=1 - second)
        p_KP.sub_(size_K1 * scale_P * mean_KP / (square_KP.sqrt().div_(root_K1).add_(self.eps)))
        if not self._is_all(rows):
            for whole, part in zip((self.flat_KP, *self.moments.values()), (p_KP, mean_KP, square_KP), strict=True):
                whole[list(rows)] = part

    def _column(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32).unsqueeze(1).to(self.device, non_blocking=True)

    def _is_all(self, rows: Rows) -> bool:
        return list(rows) == list(range(len(self)))

    def _take(self, tensor: Tensor, rows: Rows) -> Tensor:
        return tensor if self._is_all(rows) else tensor[list(rows)]

    def _views(self, flat_KP: Tensor) -> list[Tensor]:
        parts = flat_KP.split_with_sizes(self.sizes, 1)
        return [part.view(len(flat_KP), *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    @torch.no_grad()
    def write_back(self, row: int) -> nn.Module:
        """Copy a row into its own module and return that."""
        module = self.modules[row]
        for name, part, shape in zip(
            self.names, self.flat_KP[row].split_with_sizes(self.sizes), self.shapes, strict=True
        ):
            tensor_of(module, name).copy_(part.view(shape))
        for name, value in self.buffers.items():
            tensor_of(module, name).copy_(value[row])
        return module

    @torch.no_grad()
    def read(self, row: int, optimizer: Mapping[str, Tensor]) -> None:
        """Inverse of :meth:`write_back`, with the moments of a separate run's optimiser."""
        self.flat_KP[row] = flattened(self.modules[row], self.names)
        for name, value in self.buffers.items():
            value[row] = tensor_of(self.modules[row], name)
        for slot, moment in self.moments.items():
            moment[row] = self._row_from(optimizer, slot)
        self.step_K[row] = max((int(value) for key, value in optimizer.items() if key.endswith(".step")), default=0)

    def _row_from(self, optimizer: Mapping[str, Tensor], slot: str) -> Tensor:
        place = {name: f"{index}.{slot}" for index, name in enumerate(self.order)}
        parts = [
            optimizer.get(place.get(name, ""), torch.zeros(size)).reshape(-1)
            for name, size in zip(self.names, self.sizes, strict=True)
        ]
        return torch.cat(parts).to(self.device)

    def optimizer_tensors(self, row: int) -> dict[str, Tensor]:
        """Moments of one model as :func:`xsite.learning.state.optimizer_tensors` gives them for a separate run."""
        place = {name: index for index, name in enumerate(self.order)}
        tensors: dict[str, Tensor] = {}
        for slot, moment in self.moments.items():
            parts = moment[row].cpu().split_with_sizes(self.sizes)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True):
                if name in place:
                    tensors[f"{place[name]}.{slot}"] = part.view(shape).clone()
        steps = {f"{index}.step": torch.tensor(float(self.step_K[row])) for index in place.values()}
        return tensors | steps if self.step_K[row] else {}

    def drop(self, row: int) -> None:
        """Take a model out: the rows behind it move up."""
        self.write_back(row)
        keep = [other for other in range(len(self)) if other != row]
        self.modules = [self.modules[other] for other in keep]
        self.step_K = [self.step_K[other] for other in keep]
        self.generators = [self.generators[other] for other in keep]
        self.flat_KP = self.flat_KP[keep]
        self.moments = {slot: moment[keep] for slot, moment in self.moments.items()}
        self.buffers = {name: value[keep] for name, value in self.buffers.items()}


def _mapped(
    function: Callable[..., Tensor],
    parameters: Mapping[str, Tensor],
    fixed: Mapping[str, Tensor],
    batch: Any,
    *lanes_K: Tensor,
) -> Tensor:
    """``function`` of every model at once; parts of the batch that are no tensors are the same for all."""
    in_batch = type(batch)(*(0 if isinstance(part, Tensor) else None for part in batch))
    every = torch.vmap(function, in_dims=(0, 0, in_batch, *(0 for _ in lanes_K)), randomness="error")
    try:
        result: Tensor = every(dict(parameters), dict(fixed), batch, *lanes_K)
    except RuntimeError as error:
        if "vmap" not in str(error) and "Batching rule" not in str(error):
            raise
        raise UnstackableError(f"this model or algorithm cannot be stacked, set scale.stack to 1: {error}") from error
    return result


def _autocast(optim: Optim, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=optim.precision == "bfloat16")


@contextmanager
def _vmap_may_loop() -> Iterator[None]:
    """Torch 2.13 has no batching rule for CPU attention: it runs model by model there, which costs nothing extra."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield
