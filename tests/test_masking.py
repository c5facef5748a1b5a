from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from msg_deploy.errors import UsageError
from msg_deploy.masking import MaskedSurrogateGradient
from msg_deploy.options import Where
from tests.helpers import random_network, samples

N = 200_000


def trained_weights(
    p: float | None, where: Where = "weight", seed: int = 0, optimizer: Any = torch.optim.AdamW
) -> list[Tensor]:
    network = random_network(hidden=(16,)).train()
    updates = optimizer(network.parameters(), lr=0.01)
    if p is not None:
        MaskedSurrogateGradient(p, where, seed=seed).attach(network, updates)
    x = torch.from_numpy(samples(8))
    for _ in range(3):
        updates.zero_grad()
        nn.functional.cross_entropy(network(x.expand(5, *x.shape)), torch.arange(8) % 10).backward()
        updates.step()
    return [w.detach().clone() for w in network.parameters()]


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_of_zeros(p: float) -> None:
    mask = MaskedSurrogateGradient(p).draw(torch.empty(N))
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    # five standard deviations of a binomial share
    assert (mask == 0).double().mean().item() == pytest.approx(p, abs=5 * (p * (1 - p) / N) ** 0.5)


def test_rescaling_keeps_the_mean() -> None:
    p = 0.6
    mask = MaskedSurrogateGradient(p, rescale=True).draw(torch.empty(N))
    assert mask.max().item() == pytest.approx(1 / (1 - p))
    # Variance of the rescaled mask: p / (1 - p), as in the paper's analysis with mu = 1.
    assert mask.double().mean().item() == pytest.approx(1, abs=5 * (p / (1 - p) / N) ** 0.5)
    assert mask.double().var().item() == pytest.approx(p / (1 - p), rel=0.02)


def test_masks_are_new_each_time_and_independent() -> None:
    masking = MaskedSurrogateGradient(0.5)
    a, b = masking.draw(torch.empty(N)), masking.draw(torch.empty(N))
    agreement = (a == b).double().mean().item()
    assert agreement == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("where", ["weight", "surrogate"])
def test_p_zero_is_plain_training_bit_for_bit(where: Where) -> None:
    for plain, masked in zip(trained_weights(None), trained_weights(0, where), strict=True):
        assert torch.equal(plain, masked)


@pytest.mark.parametrize("where", ["weight", "surrogate"])
def test_the_seed_decides(where: Where) -> None:
    first, again = trained_weights(0.5, where), trained_weights(0.5, where)
    other = trained_weights(0.5, where, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_any_optimizer(optimizer: Any) -> None:
    plain = trained_weights(None, optimizer=optimizer)
    masked = trained_weights(0.5, optimizer=optimizer)
    assert not torch.equal(plain[0], masked[0])


def test_weight_masks_zero_the_update_of_sgd() -> None:
    layer = nn.Linear(300, 300)
    before = layer.weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    MaskedSurrogateGradient(0.4).attach(layer, optimizer)
    layer(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    step = before - layer.weight
    assert set(step.round(decimals=3).unique().tolist()) == {0.0, 1.0}
    assert (step.abs() < 0.5).double().mean().item() == pytest.approx(0.4, abs=0.02)


def test_surrogate_masks_leave_evaluation_alone() -> None:
    network = random_network(hidden=(16,))
    MaskedSurrogateGradient(0.5, "surrogate").attach(
        network, torch.optim.SGD(network.parameters(), lr=0.1)
    )
    x = torch.from_numpy(samples(4)).expand(5, 4, 1, 8, 8)

    def gradient() -> Tensor:
        network.zero_grad()
        network(x).sum().backward()
        found = network.body.get_parameter("fc1.weight").grad
        assert found is not None
        return found.clone()

    assert torch.equal(gradient(), gradient())
    network.train()
    assert not torch.equal(gradient(), gradient())


def test_the_global_random_state_is_untouched() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    MaskedSurrogateGradient(0.5).draw(torch.empty(10))
    assert torch.equal(torch.rand(3), expected)


def test_state_continues() -> None:
    masking = MaskedSurrogateGradient(0.5)
    masking.draw(torch.empty(10))
    resumed = MaskedSurrogateGradient(0.5, seed=9)
    resumed.load_state_dict(masking.state_dict())
    assert torch.equal(masking.draw(torch.empty(50)), resumed.draw(torch.empty(50)))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_p_is_checked(p: float) -> None:
    with pytest.raises(UsageError, match="must be in"):
        MaskedSurrogateGradient(p)


def test_where_is_checked() -> None:
    with pytest.raises(UsageError, match="weight or surrogate"):
        MaskedSurrogateGradient(0.5, "bias")  # type: ignore[arg-type]
