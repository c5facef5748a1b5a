from __future__ import annotations

import math
from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msg_deploy.deployment import InputSpec
from msg_deploy.errors import TraceError
from msg_deploy.exporters.trace import trace
from msg_deploy.networks import Residual, SpikingNetwork
from msg_deploy.neuron import LIF
from msg_deploy.readout import TWO
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.torch_core import TorchCore
from tests.helpers import random_network

FLAT = InputSpec((3,))


def agree(module: nn.Module, spec: InputSpec, steps: int) -> None:
    """The traced graph gives the module's own scores."""
    network = SpikingNetwork(module, TWO(steps), spec).eval()
    deployment = trace(network)
    inputs = np.random.default_rng(0).uniform(0, 2, (steps, 3, *spec.shape))
    expected, found = (s.run(deployment, inputs) for s in (TorchCore(network), Reference()))
    assert set(expected.spikes) == set(found.spikes)
    for node in expected.spikes:
        assert np.array_equal(expected.spikes[node], found.spikes[node])
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-12)


def test_plain_sequential_with_two() -> None:
    body = nn.Sequential(nn.Linear(3, 4), LIF(5), nn.Linear(4, 2, bias=False), TWO(5))
    deployment = trace(body, FLAT, dt=1e-4)
    kinds = {name: type(node) for name, node in deployment.graph.nodes.items()}
    assert kinds == {
        "input": nir.Input,
        "0": nir.Affine,
        "1": nir.LIF,
        "2": nir.Linear,
        "output": nir.Output,
    }
    assert deployment.readout is not None
    assert deployment.readout.source == "2"
    assert deployment.readout.weights == pytest.approx([0.2] * 5)
    assert (deployment.timing.steps, deployment.timing.dt) == (5, 1e-4)


def test_weights_are_exact_and_bias_is_kept() -> None:
    layer = nn.Linear(3, 4)
    node = trace(nn.Sequential(layer, LIF(2)), FLAT).graph.nodes["0"]
    assert node.weight.dtype == np.float32
    assert np.array_equal(node.weight, layer.weight.detach().numpy())
    assert np.array_equal(node.bias, layer.bias.detach().numpy())


def test_lif_parameters() -> None:
    body = nn.Sequential(LIF(2, tau=4.0, v_threshold=0.7, v_reset=-0.1))
    node = trace(body, FLAT, dt=1e-3).graph.nodes["0"]
    assert node.tau.tolist() == [4e-3] * 3
    assert (node.r.tolist(), node.v_leak.tolist()) == ([1.0] * 3, [0.0] * 3)
    assert (node.v_threshold.tolist(), node.v_reset.tolist()) == ([0.7] * 3, [-0.1] * 3)


def test_infinite_tau_is_if() -> None:
    node = trace(nn.Sequential(LIF(2, tau=math.inf)), FLAT).graph.nodes["0"]
    assert isinstance(node, nir.IF)


def test_batch_norm_by_hand() -> None:
    linear, norm = nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0)
    with torch.no_grad():
        linear.weight.fill_(3)
        linear.bias.fill_(1)
        norm.running_mean.fill_(2)  # type: ignore[union-attr]
        norm.running_var.fill_(4)  # type: ignore[union-attr]
        norm.weight.fill_(6)
        norm.bias.fill_(0.5)
    graph = trace(nn.Sequential(linear, norm, LIF(2)), InputSpec((1,))).graph
    assert list(graph.nodes) == ["input", "0", "2", "output"]
    # gain 6/2 = 3: weight 9, bias (1 - 2) 3 + 0.5
    assert graph.nodes["0"].weight.tolist() == [[9.0]]
    assert graph.nodes["0"].bias.tolist() == [-2.5]


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_after_conv(affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, affine=affine)
    body = nn.Sequential(
        nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=1, groups=2, bias=False),
        norm,
        LIF(3),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(2),
    )
    body(torch.rand(12, 2, 6, 5) * 3)  # moves the statistics, sizes the last layer
    agree(body, InputSpec((2, 6, 5)), 3)


def test_residual_and_identities() -> None:
    torch.manual_seed(0)
    block = Residual(nn.Sequential(nn.Linear(3, 3), LIF(4), nn.Dropout(0.5)))
    agree(nn.Sequential(nn.Linear(3, 3), LIF(4), block, nn.Linear(3, 2)), FLAT, 4)


def test_residual_straight_into_the_readout() -> None:
    torch.manual_seed(0)
    body = nn.Sequential(Residual(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), LIF(4))))
    agree(body, FLAT, 4)
    readout = trace(SpikingNetwork(body, TWO(4), FLAT)).readout
    assert readout is not None
    assert readout.source == "readout.current"


class Supported(nn.Module):
    """Addition and flatten as operations, and layers with names that are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Linear(4, 4)
        self.spike = LIF(3)
        self.output = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        y = self.spike(self.input(x))
        y += x
        return self.output(y.flatten(1))


def test_handwritten_forward() -> None:
    torch.manual_seed(0)
    agree(Supported(), InputSpec((2, 2)), 3)


def test_names_of_ours_are_kept_free() -> None:
    nodes = trace(Supported(), InputSpec((2, 2))).graph.nodes
    assert isinstance(nodes["input"], nir.Input)
    assert isinstance(nodes["layer.input"], nir.Affine)
    assert isinstance(nodes["layer.output"], nir.Affine)


def test_flatten_keeps_time_and_batch() -> None:
    node = trace(nn.Sequential(nn.Flatten(), LIF(2)), InputSpec((2, 3, 4))).graph.nodes["0"]
    assert (node.start_dim, node.end_dim) == (-3, -1)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = LIF(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = LIF(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = LIF(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y + y


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.layer = nn.Linear(3, 3), nn.BatchNorm1d(3), LIF(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.layer(self.norm(y)) + y


class Multiplying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = LIF(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * 2


class Calling(nn.Module):
    """Calls a layer in a way of its own."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.fc, self.layer, self.call = nn.Linear(3, 3), LIF(2), call

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.call(self, x))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (Calling(lambda m, x: m.fc(input=x)), "layer 'fc': its first argument must be one tensor"),
        (Calling(lambda m, x: m.fc((x, x))), "layer 'fc': its first argument must be one tensor"),
        (Calling(lambda m, x: torch.flatten(m.fc(x))), "operation 'flatten': start_dim 0"),
        (Calling(lambda m, x: m.fc(x) + x + x), "operation 'add_1': .* added to itself"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(4), LIF(2)),
            r"layer '1' \(BatchNorm1d\): normalizes 4 channels, but '0' gives 3",
        ),
        (nn.Sequential(LIF(2), nn.ReLU()), r"layer '1' \(ReLU\): has no counterpart"),
        (nn.Sequential(LIF(2), nn.BatchNorm1d(3)), "must directly follow"),
        (nn.Sequential(nn.Linear(5, 3), LIF(2)), r"layer '0' \(Linear\): weight takes 5"),
        (nn.Sequential(LIF(2), TWO(2), nn.Linear(3, 3)), "must come last"),
        (nn.Sequential(nn.Flatten(0), LIF(2)), "start_dim 0"),
        (
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3, track_running_stats=False), LIF(2)),
            "no running statistics",
        ),
        (Reused(), "'layer' is used twice"),
        (Branching(), "cannot be traced"),
        (Doubling(), "added to itself"),
        (Shared(), "cannot be folded into 'linear'"),
        (Multiplying(), "'mul'.* has no counterpart"),
    ],
)
def test_what_has_no_counterpart_is_named(body: Any, problem: str) -> None:
    with pytest.raises(TraceError, match=problem):
        trace(body, FLAT)


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), "padding_mode"),
        (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "count_include_pad"),
    ],
)
def test_image_layers_with_other_meaning(layer: nn.Module, problem: str) -> None:
    with pytest.raises(TraceError, match=problem):
        trace(nn.Sequential(layer, LIF(2)), InputSpec((1, 8, 8)))


def test_a_plain_module_needs_its_input() -> None:
    with pytest.raises(TraceError, match="input_spec"):
        trace(nn.Sequential(LIF(2)))


@pytest.mark.parametrize(("given", "own"), [({"steps": 7}, 5), ({"dt": 2.0}, 1e-3)])
def test_timing_that_is_not_the_networks_own_is_refused(given: dict[str, Any], own: float) -> None:
    with pytest.raises(TraceError, match=f"is given, but the module has {own}"):
        trace(random_network(), **given)
    assert trace(random_network(), steps=5, dt=1e-3).timing.steps == 5


def test_tracing_leaves_the_network_as_it_is() -> None:
    network = random_network("convnet")
    before = {k: v.clone() for k, v in network.state_dict().items()}
    trace(network)
    after = network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
