"""Each algorithm does what its name says, reduces to ERM where it should, and is the same on two ranks as on one."""

from __future__ import annotations

import importlib
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from planted_sites import IS_ERM, OWN_DRAWS, Planted, TwoPart, built, features_of, gradients, risks_of, trained
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from jobs.models import MODELS
from xsite.data.window_source import Batch
from xsite.errors import RecipeError
from xsite.learning.algorithms import ALGORITHMS, GroupDRO, SiteNorm, build_algorithm
from xsite.learning.algorithms.mmd import mean_discrepancy
from xsite.learning.algorithms.sites import partners, site_moments, spread
from xsite.learning.hooks import KnowsSites, Timed, has_hooks

ROOT = Path(__file__).parents[1]
CH_NAMES = ("Fz", "Cz", "Pz", "Oz", "C3", "C4", "O1", "O2")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_loss_is_finite_and_reaches_every_weight(name: str) -> None:
    algorithm, source = built(name), Planted()
    result = algorithm(*source.everything())
    assert all(value.ndim == 0 and torch.isfinite(value) for value in result.values())
    grads = gradients(algorithm, source.everything())
    assert len(grads) == len(list(algorithm.model.parameters()))
    assert all(torch.isfinite(grad).all() and grad.abs().sum() > 0 for grad in grads.values())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_batch_of_one_site_one_window_or_no_target_is_no_accident(name: str) -> None:
    source = Planted()
    batch, target_BR, mask_BR = source.gather(np.arange(8))  # all of site a
    same_site = built(name)(batch, target_BR, mask_BR)
    assert all(torch.isfinite(value) for value in same_site.values())
    assert float(same_site.get("penalty", torch.zeros(())).detach()) == pytest.approx(0, abs=1e-6)
    if name not in ("mixstyle", "mixup"):
        expected = gradients(built("erm"), (batch, target_BR, mask_BR))
        for parameter, grad in gradients(built(name), (batch, target_BR, mask_BR)).items():
            torch.testing.assert_close(grad, expected[parameter], atol=1e-5, rtol=1e-4)
    for arrays in (source.gather([40]), (batch, target_BR, torch.zeros_like(mask_BR))):
        algorithm = built(name)
        assert torch.isfinite(algorithm(*arrays)["loss"])
        assert all(torch.isfinite(grad).all() for grad in gradients(algorithm, arrays).values())


@pytest.mark.parametrize("name", IS_ERM)
def test_without_its_penalty_it_is_erm(name: str) -> None:
    arrays = Planted().everything()
    expected = gradients(built("erm"), arrays)
    for parameter, grad in gradients(built(name, IS_ERM[name]), arrays).items():
        torch.testing.assert_close(grad, expected[parameter], atol=1e-6, rtol=1e-5)


def test_site_balanced_does_not_see_how_many_windows_a_site_has() -> None:
    source = Planted()
    once, thrice = np.arange(64), np.r_[np.arange(64), np.repeat(np.arange(54, 64), 2)]
    losses = {
        name: [float(built(name)(*source.gather(i))["loss"].detach()) for i in (once, thrice)]
        for name in ("site-balanced", "erm")
    }
    assert losses["site-balanced"][0] == pytest.approx(losses["site-balanced"][1], rel=1e-5)
    assert losses["erm"][0] != pytest.approx(losses["erm"][1], rel=1e-3)
    balanced, uniform = (
        gradients(built(n, o), source.everything()) for n, o in (("site-balanced", {}), ("group-dro", {"step_size": 0}))
    )
    assert all(torch.allclose(balanced[name], uniform[name], atol=1e-6) for name in balanced)


def test_coral_brings_the_covariances_of_the_sites_together() -> None:
    def distance(algorithm: Any) -> float:
        z_BD = features_of(algorithm)
        cov_SDD = site_moments(z_BD, Planted().site_W, 3).cov_SDD
        by_hand = [torch.cov(z_BD[Planted().site_W == site].T) for site in range(3)]
        torch.testing.assert_close(cov_SDD, torch.stack(by_hand), atol=1e-4, rtol=1e-4)
        pairs = [(by_hand[i] - by_hand[j]).square().sum() for i, j in ((0, 1), (0, 2), (1, 2))]
        assert float(spread(cov_SDD.flatten(1), torch.ones(3))) == pytest.approx(float(sum(pairs)) / 3, rel=1e-3)
        return float(sum(pairs) / 3 / z_BD.var(0).mean().square())

    assert distance(trained("coral", {"weight": 100.0})) < 0.5 * distance(trained("erm"))


def test_mmd_brings_the_distributions_of_the_sites_together() -> None:
    def discrepancy(algorithm: Any) -> float:
        return float(mean_discrepancy(features_of(algorithm), Planted().site_W, 3))

    assert discrepancy(trained("mmd", {"weight": 10.0})) < 0.5 * discrepancy(trained("erm"))


def test_group_dro_weighs_the_worst_site_most() -> None:
    first = built("group-dro", {"step_size": 0.5})
    worst = int(risks_of(first).risk_S.argmax())
    for _ in range(5):
        first(*Planted().everything())
    assert int(first.log_weight_S.argmax()) == worst
    assert float(first.log_weight_S.exp().sum()) == pytest.approx(1, rel=1e-5)


class _Constant(nn.Module):
    """Predicts one number: what helps one site costs another, and no capacity gets around it."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Any) -> Tensor:
        return self.level.expand(len(batch.eeg_BCT), 2)


def test_what_cannot_suit_all_sites_is_settled_as_each_algorithm_says() -> None:
    """Targets are 0 at two sites (54 windows) and 1 at the third (10 windows)."""
    source = Planted()
    source.target_WR[:] = (source.site_W == 2).float()[:, None]
    source.mask_WR[:] = True
    settled = {}
    cases: dict[str, dict[str, Any]] = {
        "erm": {},
        "site-balanced": {},
        "group-dro": {"step_size": 0.1},
        "vrex": {"weight": 100.0, "from_epoch": 0},
    }
    for name, options in cases.items():
        algorithm: Any = build_algorithm(name, options, _Constant())
        if isinstance(algorithm, KnowsSites):
            algorithm.prepare(3, source.gather([0])[0])
        optimizer = torch.optim.Adam(algorithm.parameters(), lr=0.03)
        for _ in range(300):
            optimizer.zero_grad()
            algorithm(*source.everything())["loss"].backward()
            optimizer.step()
        settled[name] = float(algorithm.model.level.detach())
    assert settled["erm"] == pytest.approx(10 / 64, abs=0.01)
    assert settled["site-balanced"] == pytest.approx(1 / 3, abs=0.01)
    assert settled["group-dro"] == pytest.approx(1 / 2, abs=0.03)  # the worst site is as good as it can be
    assert settled["vrex"] == pytest.approx(1 / 2, abs=0.03)  # all sites are equally bad


def test_vrex_lowers_the_variance_of_the_sites_errors() -> None:
    algorithm = built("vrex")
    risk_S = risks_of(algorithm).risk_S
    assert float(algorithm(*Planted().everything())["penalty"].detach()) == pytest.approx(
        float(risk_S.var(correction=0)), rel=1e-4
    )
    calm, plain = (risks_of(trained(n, steps=60)).risk_S.var() for n in ("vrex", "erm"))
    assert float(calm) < 0.5 * float(plain)


def test_irm_penalty_is_the_papers_and_falls() -> None:
    algorithm, (batch, target_BR, mask_BR) = built("irm"), Planted().everything()
    slopes = []
    for site in range(3):
        factor, mine_B = torch.ones((), requires_grad=True), batch.site_B == site
        error_R = (algorithm.model(batch) * factor - target_BR)[mine_B][mask_BR[mine_B]]
        slopes.append(torch.autograd.grad(error_R.square().mean(), factor)[0].square())
    assert float(algorithm(batch, target_BR, mask_BR)["penalty"].detach()) == pytest.approx(
        float(sum(slopes)) / 3, rel=1e-4
    )
    after = {
        n: (2 * risks_of(trained(n, o, steps=60)).slope_S).square().mean()
        for n, o in (("irm", {"weight": 20.0}), ("erm", {}))
    }
    assert float(after["irm"]) < 0.5 * float(after["erm"])


def test_penalties_wait_for_their_epoch() -> None:
    for name in ("irm", "vrex"):
        arrays = Planted().everything()
        early, late = built(name, {"from_epoch": 2}, epoch=1)(*arrays), built(name, {"from_epoch": 2}, epoch=2)(*arrays)
        assert early["loss"].item() == early["risk"].item() < late["loss"].item()
    strengths = [float(built("dann", {"weight": 1.0}, epoch=epoch).strength) for epoch in (0, 1, 9)]
    assert strengths[0] == 0 < strengths[1] < strengths[2] < 1


def test_dann_hides_the_site_from_its_discriminator() -> None:
    def accuracy(weight: float) -> float:
        return float(trained("dann", {"weight": weight}, steps=300)(*Planted().everything())["accuracy"])

    assert accuracy(0.0) > 0.9
    assert accuracy(1.0) < 0.75


def test_partners_are_of_another_site_with_the_same_channels() -> None:
    torch.manual_seed(0)
    site_B, ch_index_BC = torch.tensor([0, 0, 1, 1, 2, 2]), torch.arange(4).repeat(6, 1)
    ch_index_BC[4:] += 1  # site 2 has other channels: nobody to mix with
    draws = torch.stack([partners(site_B, ch_index_BC) for _ in range(100)])
    assert [sorted(set(column.tolist())) for column in draws.T] == [[2, 3], [2, 3], [0, 1], [0, 1], [4], [5]]


class _Seen(TwoPart):
    def forward(self, batch: Any) -> Tensor:
        self.seen = batch.eeg_BCT
        return super().forward(batch)


def test_mixup_lies_between_two_sites_in_eeg_and_target() -> None:
    source = Planted()
    source.eeg_WCT[:] = source.site_W[:, None, None].float()
    source.target_WR[:] = source.site_W[:, None].float()
    source.mask_WR[:] = True
    model = _Seen()
    nn.init.zeros_(model.readout.weight)
    nn.init.zeros_(model.readout.bias)
    result = build_algorithm("mixup", {"alpha": 1.0}, model)(*source.gather([0, 60]))  # sites 0 and 2, predicted: 0
    level_B = model.seen[:, 0, 0]
    assert 0 < float(level_B.min()) <= float(level_B.max()) < 2
    assert float(result["mixed"]) == 1
    assert float(result["loss"]) == pytest.approx(float(level_B.square().mean()), rel=1e-5)  # targets were mixed alike


def test_mixstyle_changes_amplitudes_only() -> None:
    source, model = Planted(), _Seen()
    batch, target_BR, mask_BR = source.everything()
    result = build_algorithm("mixstyle", {"p": 1.0, "alpha": 1.0}, model)(batch, target_BR, mask_BR)
    assert float(result["mixed"]) == 1
    before, after = (
        torch.nn.functional.normalize(x - x.mean(-1, keepdim=True), dim=-1) for x in (batch.eeg_BCT, model.seen)
    )
    torch.testing.assert_close(before, after, atol=1e-3, rtol=0)
    ratio_B = model.seen.std(-1).mean(1) / batch.eeg_BCT.std(-1).mean(1)
    quiet, loud = ratio_B[source.site_W == 2], ratio_B[source.site_W == 1]
    assert float(quiet.mean()) > 1.1 > 0.95 > float(loud.mean())


def test_site_norm_gives_every_site_the_pooled_moments() -> None:
    algorithm: SiteNorm = built("site-norm", {"momentum": 1.0})
    batch, target_BR, mask_BR = Planted().everything()
    seen: list[Tensor] = []
    algorithm.model.readout.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    algorithm(batch, target_BR, mask_BR)
    mean_D, square_D = algorithm.pooled()
    for site in range(3):
        own = seen[0][batch.site_B == site]
        torch.testing.assert_close(own.mean(0), mean_D, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(own.var(0), square_D, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("corall", {}, r"'corall' \(did you mean 'coral'\?\)"),
        ("coral", {"weigth": 1}, "'weigth'"),
        ("coral", {"weight": -1}, "algorithm.options.weight is -1, expected a number at least 0"),
        ("irm", {"from_epoch": 1.5}, "from_epoch is 1.5, expected a whole number"),
        ("mixstyle", {"p": 2}, "p is 2, expected a number from 0 to 1"),
        ("swad", {"tolerance": "high"}, "tolerance is 'high', expected a number at least 1"),
        ("dann", {"hidden": 0}, "hidden is 0, expected a whole number of at least 1"),
    ],
)
def test_wrong_names_and_options_are_recipe_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_algorithm(name, options, TwoPart())


def test_a_model_in_one_piece_is_refused_where_features_are_needed() -> None:
    for name in ("coral", "mmd", "dann", "site-norm"):
        with pytest.raises(RecipeError, match=f"'{name}' needs a model with features"):
            build_algorithm(name, {}, nn.Linear(2, 2))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_cited_and_documented(name: str) -> None:
    module = importlib.import_module(ALGORITHMS[name].__module__)
    docs = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert f"`{name}`" in docs
    if name != "erm":
        assert "Source: " in (module.__doc__ or "")
        assert has_hooks(built(name)) or name in (*OWN_DRAWS,)
    lines = [line for line in Path(module.__file__ or "").read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) < 100


SHARES = (np.r_[np.arange(0, 20), np.arange(56, 60)], np.r_[np.arange(20, 56), np.arange(60, 64)])
"""Windows of two ranks, of unequal number and sites."""


def _on_rank(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    for name in ALGORITHMS:
        algorithm = built(name, IS_ERM["mixup"] if name == "mixup" else {"p": 0} if name == "mixstyle" else None)
        wrapped = DistributedDataParallel(algorithm)
        for _ in range(2):  # the second step meets what the first left in the buffers
            algorithm.zero_grad()
            result = wrapped(*Planted().gather(SHARES[rank]))
            result["loss"].backward()
        loss = result["loss"].detach().clone()
        dist.all_reduce(loss)
        grads = {key: p.grad for key, p in algorithm.named_parameters() if p.grad is not None}
        found[name] = {"loss": loss / 2, "grads": grads}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_have_the_gradient_of_one_process_with_the_whole_batch(tmp_path: Path) -> None:
    """Mixup and MixStyle without mixing: their pairs are drawn rank by rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_on_rank, args=(port, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    whole = Planted().gather(np.concatenate(SHARES))
    for name in ALGORITHMS:
        algorithm = built(name, IS_ERM[name] if name in OWN_DRAWS else None)
        for _ in range(2):
            algorithm.zero_grad()
            loss = algorithm(*whole)["loss"]
            loss.backward()
        for rank in ranks:
            assert float(rank[name]["loss"]) == pytest.approx(float(loss.detach()), abs=1e-5), name
        for key, parameter in algorithm.named_parameters():
            if parameter.grad is not None:
                for rank in ranks:
                    torch.testing.assert_close(rank[name]["grads"][key], parameter.grad, atol=1e-5, rtol=1e-4)


def test_group_dro_remembers_in_a_buffer() -> None:
    algorithm: GroupDRO = built("group-dro")
    assert "log_weight_S" in algorithm.state_dict()
    algorithm.eval()
    algorithm(*Planted().everything())
    assert torch.equal(algorithm.log_weight_S, torch.zeros(3))  # looking changes nothing


@pytest.mark.slow
@pytest.mark.parametrize("model_name", MODELS)
def test_every_model_goes_with_every_algorithm(model_name: str) -> None:
    model = MODELS[model_name]("small", {}, ch_names=CH_NAMES, n_outputs=3)
    batch = _batch_for(model)
    target_BR, mask_BR = torch.randn(6, 3), torch.ones(6, 3, dtype=torch.bool)
    for name in ALGORITHMS:
        algorithm: Any = build_algorithm(name, {}, model)
        if isinstance(algorithm, KnowsSites):
            algorithm.prepare(3, batch)
        if isinstance(algorithm, Timed):
            algorithm.start_epoch(5, 10)
        model.zero_grad()
        loss = algorithm.train()(batch, target_BR, mask_BR)["loss"]
        loss.backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        assert torch.isfinite(loss), name
        assert all(torch.isfinite(grad).all() for grad in grads), name
        assert any(grad.abs().sum() > 0 for grad in grads), name


def _batch_for(model: Any) -> Batch:
    """Two windows of each of three sites."""
    eeg_BCT = 20 * torch.randn(6, len(CH_NAMES), round(model.window_s * model.sfreq))
    index_C = model.channel_index(CH_NAMES)
    statistics = getattr(model, "recording_statistics", lambda eeg_CT, index, valid: torch.zeros(len(eeg_CT), 0))
    every_T = torch.ones(eeg_BCT.shape[2], dtype=torch.bool)
    return Batch(
        eeg_BCT, index_C.expand(6, -1), torch.tensor([0, 0, 1, 1, 2, 2]),
        nn.functional.normalize(torch.randn(6, len(CH_NAMES), 3), dim=-1), torch.full((6,), 2.0),
        torch.stack([statistics(eeg_CT, index_C, every_T) for eeg_CT in eeg_BCT]), padded=False,
    )  # fmt: skip
