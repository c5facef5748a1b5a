from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from msg_deploy.errors import UsageError
from msg_deploy.neuron import LIF, integrate, reset_membrane
from msg_deploy.surrogate import SURROGATES, spike


def run(current: list[float], **parameters: Any) -> tuple[list[float], list[float]]:
    layer = LIF(len(current), **parameters)
    seen: list[tuple[Tensor, Tensor]] = []
    layer.observer = lambda s, v: seen.append((s, v))
    layer(torch.tensor(current, dtype=torch.float64).reshape(-1, 1))
    return seen[0][0].ravel().tolist(), seen[0][1].ravel().tolist()


def test_table_reset_to_zero() -> None:
    # tau 2, threshold 0.5; V <- V + (I - V)/2, worked by hand:
    # I  .8   .8            .25            2                 0
    # V  .4   .6 (spike,0)  .125           1.0625 (spike,0)  0
    spikes, membranes = run([0.8, 0.8, 0.25, 2.0, 0.0])
    assert spikes == [0, 1, 0, 1, 0]
    assert membranes == pytest.approx([0.4, 0.6, 0.125, 1.0625, 0.0], abs=1e-15)


def test_table_reset_by_subtraction() -> None:
    # V  .4   .6 -> .1   .175   1.0875 -> .5875   .29375
    spikes, membranes = run([0.8, 0.8, 0.25, 2.0, 0.0], reset="subtract")
    assert spikes == [0, 1, 0, 1, 0]
    assert membranes == pytest.approx([0.4, 0.6, 0.175, 1.0875, 0.29375], abs=1e-15)


def test_table_reset_to_another_value() -> None:
    # V  .4   .6 -> -.2   .025   1.0125 -> -.2   -.1
    spikes, membranes = run([0.8, 0.8, 0.25, 2.0, 0.0], v_reset=-0.2)
    assert spikes == [0, 1, 0, 1, 0]
    assert membranes == pytest.approx([0.4, 0.6, 0.025, 1.0125, -0.1], abs=1e-15)


def test_table_integrate_and_fire() -> None:
    # tau infinite: V <- V + I; exactly at the threshold is no spike.
    spikes, membranes = run([0.25, 0.25, 0.25, -1.0, 2.0], tau=math.inf)
    assert spikes == [0, 0, 1, 0, 1]
    assert membranes == [0.25, 0.5, 0.75, -1.0, 1.0]


def test_time_and_batch_are_time_major() -> None:
    layer = LIF(2, tau=1.0)  # no memory: spike where the input is above 0.5
    current = torch.tensor([[1.0], [0.0], [0.0], [1.0]])  # (t0 b0), (t0 b1), (t1 b0), (t1 b1)
    assert layer(current).ravel().tolist() == [1, 0, 0, 1]


def test_gradient_by_hand() -> None:
    # One step, tau 2: dS/dI = dS/dV * 1/2 with V - V_th = 0.6/2 - 0.5 = -0.2.
    current = torch.tensor([[0.6]], dtype=torch.float64, requires_grad=True)
    LIF(1)(current).sum().backward()
    assert current.grad is not None
    expected = 0.5 / (1 + (math.pi * 0.2) ** 2)
    assert current.grad.item() == pytest.approx(expected, rel=1e-12)


def test_detach_reset_stops_the_gradient_through_the_reset() -> None:
    def gradient(detach: bool) -> float:
        current = torch.tensor([[2.0], [0.1]], dtype=torch.float64, requires_grad=True)
        LIF(2, detach_reset=detach)(current)[1].sum().backward()
        assert current.grad is not None
        return current.grad[0].item()

    assert gradient(True) == 0  # the spike cleared the membrane, nothing is left to carry
    assert gradient(False) != 0


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 1, "tau": 0.5}, "tau"),
        ({"steps": 1, "tau": math.nan}, "tau"),
        ({"steps": 1, "v_threshold": math.nan}, "v_threshold"),
        ({"steps": 1, "v_reset": math.inf}, "v_reset"),
        ({"steps": 1, "reset": "soft"}, "reset"),
        ({"steps": 1, "surrogate": "sigmoid"}, "surrogate"),
        ({"steps": 1, "alpha": 0}, "alpha"),
    ],
)
def test_parameters_are_checked(parameters: dict[str, Any], name: str) -> None:
    with pytest.raises(UsageError, match=name):
        LIF(**parameters)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("tau", [1.7, math.inf])
@pytest.mark.parametrize("surrogate", list(SURROGATES))
def test_the_written_backward_is_that_of_autograd(
    masked: bool, detach_reset: bool, reset: Any, tau: float, surrogate: Any
) -> None:
    steps, batch = 6, 50
    torch.manual_seed(4)
    currents = torch.randn(steps, batch, dtype=torch.float64)
    masks = (torch.rand(steps, batch) < 0.5).double() if masked else None
    weights = torch.randn(steps, batch, dtype=torch.float64)

    layer = LIF(steps, tau, 0.4, -0.1, reset, surrogate, 1.5, detach_reset).train()
    layer.mask_source = lambda c: masks
    ours = currents.clone().requires_grad_()
    (layer(ours.flatten(0, 1)).unflatten(0, (steps, -1)) * weights).sum().backward()

    plain = currents.clone().requires_grad_()
    membrane = torch.zeros(batch, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(steps):
        membrane = integrate(plain[t], membrane, tau)
        mask = None if masks is None else masks[t]
        emitted = spike(membrane - 0.4, SURROGATES[surrogate], 1.5, mask)
        total = total + (emitted * weights[t]).sum()
        given = emitted.detach() if detach_reset else emitted
        membrane = reset_membrane(membrane, given, 0.4, -0.1, reset)
    total.backward()
    assert ours.grad is not None
    assert plain.grad is not None
    assert torch.allclose(ours.grad, plain.grad, rtol=1e-12, atol=1e-14)
    assert plain.grad.abs().min() < plain.grad.abs().max()
