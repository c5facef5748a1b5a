from __future__ import annotations

import math

import pytest
import torch

from msg_deploy.surrogate import SURROGATES, arctan, piecewise_linear, spike


def test_arctan_by_hand() -> None:
    # alpha = 2: 1 at the threshold; at distance 1/pi it is 1 / (1 + 1) = 1/2.
    found = arctan(torch.tensor([0.0, 1 / math.pi, -1 / math.pi], dtype=torch.float64), 2.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64))


def test_piecewise_linear_by_hand() -> None:
    found = piecewise_linear(torch.tensor([0.0, 0.25, -0.25, 0.5, 3.0]), 2.0)
    torch.testing.assert_close(found, torch.tensor([2.0, 1.0, 1.0, 0.0, 0.0]))


@pytest.mark.parametrize("name", SURROGATES)
def test_derivatives_integrate_to_one(name: str) -> None:
    grid = torch.linspace(-2000, 2000, 4_000_001, dtype=torch.float64)
    integral = torch.trapezoid(SURROGATES[name](grid, 2.0), grid)
    assert integral.item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", SURROGATES)
def test_spike_is_strict_forward_and_smooth_backward(name: str) -> None:
    distance = torch.tensor([-0.1, 0.0, 0.1], requires_grad=True)
    emitted = spike(distance, SURROGATES[name], 2.0)
    assert emitted.tolist() == [0, 0, 1]
    emitted.backward(torch.tensor([1.0, 2.0, 3.0]))
    expected = SURROGATES[name](distance.detach(), 2.0) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(distance.grad, expected)


def test_mask_multiplies_the_derivative() -> None:
    distance = torch.zeros(3, requires_grad=True)
    spike(distance, arctan, 2.0, torch.tensor([0.0, 1.0, 2.0])).sum().backward()
    assert distance.grad is not None
    assert distance.grad.tolist() == [0, 1, 2]
