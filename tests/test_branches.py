"""Parallel branches as one row: the same spikes, layer by layer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import msg_deploy
from msg_deploy import api
from msg_deploy.deployment import Deployment, InputSpec, Readout, Shape, Timing
from msg_deploy.errors import GraphError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.branches import fused
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.graph import plan
from msg_deploy.networks import SpikingNetwork
from msg_deploy.parts import PARTS_KEY, parts, unfused
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray
from tests.helpers import lif, random_network

DT = 1e-3
Branch = Sequence[nir.NIRNode]


class Numbers:
    """Random nodes whose neurons fire now and then."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)

    def affine(self, outputs: int, inputs: int) -> nir.Affine:
        normal = self.random.normal
        weight = normal(size=(outputs, inputs)) * 2 / inputs**0.5
        return nir.Affine(weight, normal(size=outputs) * 0.3)

    def conv(self, outputs: int, inputs: int, kernel: int = 3, stride: int = 1) -> nir.Conv2d:
        """The image's size divided by the stride."""
        normal = self.random.normal
        weight = normal(size=(outputs, inputs, kernel, kernel)) * 2 / (inputs * kernel**2) ** 0.5
        bias = normal(size=outputs) * 0.3
        return nir.Conv2d(None, weight, stride, kernel // 2, 1, 1, bias)


def made_of(row: Branch, shape: Shape) -> Shape:
    """The shape that a row of nodes makes of another."""
    for node in row:
        shape = primitive_of(node).output_shape(node, shape)
    return shape


def network(
    before: Branch,
    branches: Sequence[Branch],
    behind: Branch,
    shape: Shape,
    skip: bool = False,
    **timing: Any,
) -> Deployment:
    """input -> before -> each of the branches -> behind -> output; `b1.0` is in branch 1."""
    nodes: dict[str, nir.NIRNode] = {"input": nir.Input({"input": np.array(shape)})}
    edges: list[tuple[str, str]] = []

    def add(row: Branch, prefix: str, start: list[str]) -> list[str]:
        for i, node in enumerate(row):
            name = f"{prefix}{i}"
            nodes[name] = node
            edges.extend((s, name) for s in start)
            start = [name]
        return start

    fork = add(before, "a", ["input"])
    ends = [n for i, row in enumerate(branches) for n in add(row, f"b{i}.", fork)]
    last = add(behind, "c", ends + fork * skip)
    size = made_of(behind, made_of(branches[0], made_of(before, shape)))
    nodes["output"] = nir.Output({"output": np.array(size)})
    edges += [(n, "output") for n in last]
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    return Deployment(
        graph, Timing(**({"dt": DT, "steps": 12} | timing)), InputSpec(shape, "frames")
    )


def stimuli(deployment: Deployment, batch: int = 6) -> list[FloatArray]:
    """Binary, and any numbers."""
    random = np.random.default_rng(0)
    shape = (deployment.timing.steps, batch, *deployment.input.shape)
    return [(random.random(shape) < 0.4).astype(float), random.normal(size=shape)]


def assert_the_same(deployment: Deployment, silent: bool = False) -> Deployment:
    """One row of layers, in which every original layer gives its spikes."""
    result = fused(deployment)
    before = [e for edges in plan(deployment.graph).incoming.values() for e in edges]
    assert len([e for edges in plan(result.graph).incoming.values() for e in edges]) < len(before)
    for inputs in stimuli(deployment):
        expected, found = (Reference().run(d, inputs) for d in (deployment, result))
        found = unfused(found, result.graph)
        assert set(expected.spikes) == set(found.spikes)
        for name, spikes in expected.spikes.items():
            assert np.array_equal(spikes, found.spikes[name]), name
            assert silent or 0 < spikes.mean() < 1, name
            np.testing.assert_allclose(expected.membranes[name], found.membranes[name], atol=1e-12)
        np.testing.assert_allclose(expected.outputs, found.outputs, atol=1e-12)
    return result


def is_a_row(deployment: Deployment) -> bool:
    return all(len(edges) < 2 for edges in plan(deployment.graph).incoming.values())


def kinds(deployment: Deployment) -> list[str]:
    nodes = deployment.graph.nodes
    return [type(nodes[name]).__name__ for name in plan(deployment.graph).order]


def test_two_matrices_are_added() -> None:
    make = Numbers()
    one, other = make.affine(5, 4), nir.Linear(make.affine(5, 4).weight)
    deployment = network([], [[one], [other]], [lif((5,))], (4,))
    result = assert_the_same(deployment)
    assert kinds(result) == ["Input", "Affine", "LIF", "Output"]
    assert np.array_equal(result.graph.nodes["b0.0.fused"].weight, one.weight + other.weight)
    assert PARTS_KEY not in result.graph.metadata


def test_float32_weights_are_added_without_rounding() -> None:
    make = Numbers()
    nodes = [make.affine(5, 4) for _ in range(2)]
    for node in nodes:
        node.weight, node.bias = (v.astype(np.float32) for v in (node.weight, node.bias))
    assert_the_same(network([], [[n] for n in nodes], [lif((5,))], (4,)))


def test_convolutions_are_added_where_their_places_are() -> None:
    make = Numbers()
    wide, one = make.conv(3, 2, 3, stride=2), make.conv(3, 2, 1, stride=2)
    result = assert_the_same(network([], [[one], [wide]], [lif((3, 4, 4))], (2, 8, 8)))
    node = result.graph.nodes["b0.0.fused"]
    expected = wide.weight.copy()
    expected[:, :, 1, 1] += one.weight[:, :, 0, 0]
    assert np.array_equal(node.weight, expected)
    assert (node.padding.tolist(), node.stride.tolist()) == ([1, 1], [2, 2])


def test_all_kinds_of_convolutions() -> None:
    """Groups, dilation, even kernels, 'same', poolings and scales: 6 x 6 to 3 x 3."""
    make = Numbers()
    two = np.array([2, 2])
    weight = make.random.normal
    branches: list[Branch] = [
        [nir.Conv2d(None, weight(size=(2, 1, 3, 3)), 2, 2, 2, 2, weight(size=2))],
        [nir.Conv2d(None, weight(size=(2, 2, 2, 2)), 2, "valid", 1, 1, np.zeros(2))],
        [nir.SumPool2d(np.array([3, 2]), two, np.array([1, 0]))],
        [nir.AvgPool2d(two, two, np.array([0, 0]))],
        [nir.AvgPool2d(np.array([4, 4]), two, np.array([1, 1]))],
    ]
    result = assert_the_same(network([], branches, [lif((2, 3, 3))], (2, 6, 6)))
    assert is_a_row(result)
    same = nir.Conv2d(None, weight(size=(2, 2, 2, 4)), 1, "same", 1, 1, weight(size=2))
    scale = nir.Scale(np.full((2, 6, 5), [[[0.7]], [[-1.2]]]))
    assert is_a_row(assert_the_same(network([], [[same], [scale]], [lif((2, 6, 5))], (2, 6, 5))))


@pytest.mark.parametrize(
    "neuron",
    [
        lif((6,)),
        lif((6,), tau=DT),
        nir.IF(np.full(6, 1.5), np.full(6, 0.7)),
        nir.CubaLIF(*(np.full(6, v) for v in (DT, 3e-3, 2.0, 0.0, 0.4, 0.0, 1.5))),
    ],
)
def test_a_projected_shortcut_passes_spikes_on(neuron: nir.NIRNode) -> None:
    """Spikes of the first layer reach the last one past a hidden layer, at the same step."""
    make = Numbers()
    main = [make.affine(6, 5), neuron, make.affine(4, 6)]
    branches: list[Branch] = [main, [make.affine(4, 5)]]
    deployment = network([make.affine(5, 3), lif((5,))], branches, [lif((4,))], (3,))
    result = assert_the_same(deployment)
    assert kinds(result)[3:6] == ["Affine", type(neuron).__name__, "Affine"]
    assert parts(result.graph) == {"b0.1.fused": {"b0.1": (0, 6)}}
    layer = result.graph.nodes["b0.1.fused"]
    assert len(layer.v_threshold) == 6 + 5
    for field in ("v_threshold", "r"):
        assert len(set(getattr(layer, field))) == 1
    inputs = stimuli(deployment)[0]
    trace = Reference().run(result, inputs)
    assert np.array_equal(trace.spikes["b0.1.fused"][..., 6:], trace.spikes["a1"])


def test_what_is_passed_on_stands_on_the_grid_of_the_weights() -> None:
    make = Numbers()
    main = [make.affine(6, 5), lif((6,)), make.affine(4, 6)]
    for node in (main[0], main[2]):
        node.weight, node.bias = (np.rint(v * 8) / 8 for v in (node.weight, node.bias))
    branches: list[Branch] = [main, [make.affine(4, 5)]]
    result = fused(network([make.affine(5, 3), lif((5,))], branches, [lif((4,))], (3,)))
    weight = result.graph.nodes["b0.0.fused"].weight
    assert np.array_equal(weight * 8, np.rint(weight * 8))
    # Two thresholds, in units where a step adds dt/tau = 1/2 of the input.
    assert np.all(np.diag(weight[6:]) >= 2)


def test_a_block_with_a_strided_shortcut() -> None:
    result = assert_the_same(strided_block())
    assert is_a_row(result)
    shapes = plan(result.graph).shapes
    assert shapes["b0.1.fused"] == (4 + 3, 4, 4)
    assert shapes["b0.2.fused"] == (5, 4, 4)


def test_blocks_in_a_row_with_odd_sizes() -> None:
    make = Numbers()

    def block(size: int, stride: int) -> list[Branch]:
        hidden = -(-size // stride)
        main = [make.conv(3, 3, 3, stride), lif((3, hidden, hidden)), make.conv(3, 3)]
        return [main, [make.conv(3, 3, 1, stride)]]

    first = network([make.conv(3, 2), lif((3, 7, 7))], block(7, 2), [lif((3, 4, 4))], (2, 7, 7))
    second = network([lif((3, 4, 4))], block(4, 3), [lif((3, 2, 2))], (3, 4, 4))
    joined = dict(first.graph.nodes) | {f"z{n}": v for n, v in second.graph.nodes.items()}
    del joined["output"], joined["zinput"], joined["za0"]
    edges = [e for e in first.graph.edges if e[1] != "output"]
    names = {"za0": "c0"}
    edges += [(names.get(f"z{a}", f"z{a}"), f"z{b}") for a, b in second.graph.edges if b != "a0"]
    graph = nir.NIRGraph(joined, edges, metadata={}, type_check=False)
    assert is_a_row(assert_the_same(first.with_graph(graph)))


def test_spikes_are_summed_behind_their_neurons() -> None:
    """SEW: the shortcut has its own neurons, and what enters is a sum of spikes."""
    make = Numbers()
    main = [make.conv(4, 3, 3, 2), lif((4, 3, 3)), make.conv(4, 4), lif((4, 3, 3))]
    branches: list[Branch] = [main, [make.conv(4, 3, 1, 2), lif((4, 3, 3))]]
    before = [nir.Scale(np.full((3, 6, 6), 3.0))]
    result = assert_the_same(
        network(before, branches, [make.conv(2, 4), lif((2, 3, 3))], (3, 6, 6))
    )
    assert is_a_row(result)
    assert parts(result.graph) == {
        "b0.1.fused": {"b0.1": (0, 4), "b1.1": (4, 8)},
        "b0.3.fused": {"b0.3": (0, 4)},
    }
    last = result.graph.nodes["b0.3.fused.sum"]
    assert np.array_equal(last.weight[:, :, 0, 0], np.hstack([np.eye(4), np.eye(4)]))


def test_several_targets_and_a_bare_skip_remain() -> None:
    make = Numbers()
    branches: list[Branch] = [[make.affine(5, 5), lif((5,))], [lif((5,), v_threshold=0.3)]]
    before = [make.affine(5, 3), lif((5,))]
    deployment = network(before, branches, [lif((5,))], (3,), skip=True)
    deployment.graph.nodes["second"] = lif((5,), tau=3e-3)
    ends = ["b0.1", "b1.0"]
    deployment.graph.edges += [*((e, "second") for e in ends), ("second", "output")]
    result = assert_the_same(deployment)
    incoming = plan(result.graph).incoming
    assert [e.source for e in incoming["c0"]] == ["b0.1.fused.sum", "a1"]
    assert [e.source for e in incoming["second"]] == ["b0.1.fused.sum"]


def test_a_branch_in_a_branch() -> None:
    """The inner ones are fused first, and layers are found through both."""
    make = Numbers()
    inner: list[Branch] = [[make.affine(4, 4), lif((4,))], [make.affine(4, 4), lif((4,))]]
    deployment = network([lif((4,), v_threshold=0.2)], inner, [lif((4,))], (4,))
    graph = deployment.graph
    graph.nodes |= {"outer": make.affine(4, 4), "neuron": lif((4,)), "end": lif((4,))}
    graph.edges[:] = [e for e in graph.edges if e != ("c0", "output")]
    graph.edges += [("a0", "outer"), ("outer", "neuron"), ("neuron", "end"), ("c0", "end")]
    graph.edges += [("end", "output")]
    result = assert_the_same(deployment)
    assert is_a_row(result)
    assert parts(result.graph) == {
        "b0.1.fused.fused": {"b0.1": (0, 4), "b1.1": (4, 8), "neuron": (8, 12)},
        "c0.fused": {"c0": (0, 4)},
    }


def test_memoryless_neurons_pass_spikes_on_with_any_reset() -> None:
    make = Numbers()
    one, zero = np.ones(6), np.zeros(6)
    for neuron in (lif((6,), tau=DT), nir.CubaLIF(DT * one, DT * one, one, zero, one, zero, one)):
        main = [make.affine(6, 5), neuron, make.affine(4, 6)]
        deployment = network(
            [make.affine(5, 3), lif((5,))],
            [main, [make.affine(4, 5)]],
            [lif((4,))],
            (3,),
            reset="subtract",
        )
        assert is_a_row(assert_the_same(deployment))


def test_a_flattened_spike_is_a_spike() -> None:
    make = Numbers()
    before = [lif((2, 2, 2)), nir.Flatten({"input": np.array([2, 2, 2])}, 0, 2)]
    main = [make.affine(6, 8), lif((6,)), make.affine(4, 6)]
    assert is_a_row(
        assert_the_same(network(before, [main, [make.affine(4, 8)]], [lif((4,))], (2, 2, 2)))
    )


def shortcut(neuron: nir.NIRNode, spikes: bool = True, **timing: Any) -> Deployment:
    make = Numbers()
    main = [make.affine(6, 5), neuron, make.affine(4, 6)]
    before = [lif((5,))] if spikes else []
    return network(before, [main, [make.affine(4, 5)]], [lif((4,))], (5,), **timing)


def images(main: Branch, side: Branch, shape: Shape = (2, 6, 6)) -> Deployment:
    return network([lif(shape)], [main, side], [lif(made_of(side, shape))], shape)


def cuba(tau_syn: float) -> nir.CubaLIF:
    return nir.CubaLIF(*(np.full(6, v) for v in (tau_syn, 3e-3, 2.0, 0.0, 0.4, 0.0, 1.5)))


def moved(kernel: int, padding: int, stride: int = 1) -> nir.Conv2d:
    return nir.Conv2d(None, np.ones((2, 2, kernel, kernel)), stride, padding, 1, 1, np.zeros(2))


REFUSALS = {
    "real numbers": (
        shortcut(lif((6,)), spikes=False),
        "'c0': the parallel branches b0.2, b1.0 meet, and are not fused: what enters is not 0 or 1",
    ),
    "a sum of spikes": (
        network(
            [lif((5,)), Numbers().affine(5, 5), lif((5,)), nir.Scale(np.ones(5))],
            [[Numbers().affine(6, 5), lif((6,)), Numbers().affine(4, 6)], [Numbers().affine(4, 5)]],
            [lif((4,))],
            (5,),
        ),
        "what enters is not 0 or 1",
    ),
    "a current with memory": (shortcut(cuba(2e-3)), r"'b0.1' \(CubaLIF\).*tau_syn is not dt"),
    "a rest of a leaky membrane": (shortcut(lif((6,)), reset="subtract"), "reset 'subtract'"),
    "a rest of a membrane": (
        shortcut(nir.IF(np.ones(6), np.ones(6)), reset="subtract"),
        "reset 'subtract'",
    ),
    "no gain": (shortcut(lif((6,), r=-1.0)), r"'b0.1' \(LIF\).* no gain or threshold above 0"),
    "no threshold": (shortcut(lif((6,), v_threshold=0.0)), "no gain or threshold above 0"),
    "different neurons": (
        network(
            [],
            [
                [Numbers().affine(4, 5), lif((4,))],
                [Numbers().affine(4, 5), nir.IF(np.ones(4), np.ones(4))],
            ],
            [lif((4,))],
            (5,),
        ),
        r"'b0.1', 'b1.1' are neurons of different types \(IF, LIF\)",
    ),
    "different strides": (
        images(
            [moved(3, 1, 2), lif((2, 3, 3)), moved(3, 1)],
            [moved(3, 1), lif((2, 6, 6)), moved(3, 1, 2)],
        ),
        r"different strides \[\(2, 2\), \(1, 1\)\] \('b0.0' and 'b1.0'\)",
    ),
    "different output sizes": (
        images(
            [moved(3, 0), lif((2, 4, 4)), moved(3, 2)],
            [moved(3, 1), lif((2, 6, 6)), moved(3, 1)],
        ),
        r"different output sizes \[\(4, 4\), \(6, 6\)\]",
    ),
    "a wide strided shortcut": (
        images([moved(3, 1, 2), lif((2, 3, 3)), moved(3, 1)], [moved(3, 1, 2)]),
        "'b1.0' takes more of its input than the stride 2 beside it leaves",
    ),
    "a hidden layer without border": (
        images([moved(3, 0), lif((2, 4, 4)), moved(3, 2)], [moved(1, 0)]),
        r"'b0.0' makes \(4, 4\) of \(6, 6\), which no spike can pass unmoved",
    ),
    "scales of places": (
        images([nir.Scale(np.arange(72.0).reshape(2, 6, 6))], [moved(1, 0)]),
        r"'b0.0' \(Scale\) scales the places of an image differently",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case: str) -> None:
    deployment, problem = REFUSALS[case]
    plan(deployment.graph)
    with pytest.raises(GraphError, match=problem):
        fused(deployment)


def test_what_is_left_as_it_is() -> None:
    make = Numbers()
    hidden = [make.affine(5, 5), lif((5,))]
    plain: dict[str, Deployment] = {
        "a bare skip": network([lif((5,))], [hidden], [lif((5,))], (5,), skip=True),
        "an unknown layer": network([], [[nir.Delay(np.ones(5))], hidden], [lif((5,))], (5,)),
        "two linear layers in a row": network(
            [], [[make.affine(5, 5), make.affine(5, 5)], hidden], [lif((5,))], (5,)
        ),
        "a series": network(
            [], [[nir.Scale(np.ones((2, 5)))], [nir.Scale(np.ones((2, 5)))]], [lif((2, 5))], (2, 5)
        ),
    }
    looped = network([], [hidden, [make.affine(5, 5), lif((5,))]], [lif((5,))], (5,))
    looped.graph.nodes["back"] = nir.Linear(np.eye(5))
    looped.graph.edges += [("b0.1", "back"), ("back", "b0.1")]
    plain["recurrence inside"] = looped
    around = network([lif((5,))], [[make.affine(5, 5)]], [], (5,))
    around.graph.nodes |= {"back": nir.Linear(np.eye(5)), "again": nir.Linear(np.eye(5))}
    around.graph.edges += [("a0", "back"), ("a0", "again"), ("back", "a0"), ("again", "a0")]
    plain["recurrence by two ways"] = around
    tapped = network([], [hidden, [make.affine(5, 5)]], [lif((5,))], (5,))
    tapped.graph.edges.append(("b0.0", "output"))
    plain["a way out of a branch"] = tapped
    read = network([], [[make.affine(5, 5)], [make.affine(5, 5)]], [lif((5,))], (5,), steps=1)
    plain["a readout"] = replace(read, readout=Readout((1.0,), "b0.0"))
    for case, deployment in plain.items():
        assert fused(deployment) is deployment, case


def test_the_input_is_not_changed() -> None:
    deployment = shortcut(lif((6,)))
    nodes, edges = dict(deployment.graph.nodes), list(deployment.graph.edges)
    weight = nodes["b0.0"].weight.copy()
    fused(deployment)
    assert deployment.graph.nodes == nodes
    assert deployment.graph.edges == edges
    assert deployment.graph.metadata == {}
    assert np.array_equal(nodes["b0.0"].weight, weight)


def test_names_are_not_taken_twice() -> None:
    deployment = shortcut(lif((6,)))
    deployment.graph.nodes["b0.1.fused"] = lif((4,))
    deployment.graph.edges += [("c0", "b0.1.fused"), ("b0.1.fused", "output")]
    assert parts(assert_the_same(deployment).graph) == {"b0.1.fused_": {"b0.1": (0, 6)}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "Invalid JSON"),
        ('{"a0": 1}', "a0: Input should be"),
        ('{"a0": {"x": [0, 9]}}', "no such neurons in a layer 'a0'"),
        ('{"a0": {"x": [3, 3]}}', "no such neurons"),
        ('{"nowhere": {"x": [0, 1]}}', "no such neurons in a layer 'nowhere'"),
        ('{"a0": {"c0": [0, 1]}}', "found in two places"),
    ],
)
def test_parts_of_a_stranger_are_checked(text: str, problem: str) -> None:
    deployment = shortcut(lif((6,)))
    deployment.graph.metadata[PARTS_KEY] = text
    with pytest.raises(GraphError, match=f"'{PARTS_KEY}'.*{problem}"):
        parts(deployment.graph)


def test_the_check_compares_original_layers(tmp_path: Path) -> None:
    deployment = shortcut(lif((6,)))
    result = fused(deployment)
    nir_file.write(result, tmp_path / "x.nir")
    for right in (result, tmp_path / "x.nir"):
        verdict = msg_deploy.check(deployment, right, random=20)
        assert verdict, verdict
        assert [layer.node for layer in verdict.comparisons[0].layers] == ["a0", "b0.1", "c0"]
        assert msg_deploy.check(right, deployment, random=20)
    spikes = Reference().run(deployment, stimuli(deployment)[0]).spikes["b0.1"]
    neuron = int(spikes.sum(axis=(0, 1)).argmax())
    result.graph.nodes["b0.1.fused"].v_threshold[neuron] *= 2
    verdict = msg_deploy.check(deployment, result, random=20)
    first = verdict.comparisons[0].first
    assert first is not None
    assert (first.node, first.neuron) == ("b0.1", (neuron,))


def calibrated(name: str) -> SpikingNetwork:
    """An untrained network whose normalisation fits what arrives, so that all layers fire."""
    network = random_network(name, width=4, v_threshold=0.3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        network.train()(torch.rand(5, 64, 1, 8, 8))
    return network.eval()


@pytest.mark.parametrize("name", ["resnet18", "sew_resnet34"])
def test_residual_networks_are_portable(name: str, tmp_path: Path) -> None:
    model = calibrated(name)
    api.export(model, tmp_path / "x.nir", "host", dialect="portable")
    for left in (model, msg_deploy.trace(model)):
        verdict = msg_deploy.check(left, tmp_path / "x.nir", random=8)
        assert verdict, verdict
        assert {c.b for c in verdict.comparisons} == {"reference", "norse"}
        layers = verdict.comparisons[0].layers
        assert len(layers) == {"resnet18": 17, "sew_resnet34": 36}[name]
        assert all(0 < layer.fired < layer.spikes for layer in layers)


WORKER = """
import contextlib, io, sys, warnings
import nir, numpy as np, torch
warnings.simplefilter("ignore")
def load(framework, path):
    if framework == "norse":
        import norse.torch
        return norse.torch.from_nir(nir.read(path), dt=1e-4)  # noqa: TID251
    if framework == "snntorch":
        from snntorch.import_nir import import_from_nir
        return import_from_nir(nir.read(path))
    from spikingjelly.activation_based.nir_exchange import import_from_nir
    return import_from_nir(path, dt=1e-4)
for path in sys.argv[2:]:
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        model, state, outputs = load(sys.argv[1], path + ".nir"), None, []
        for x in torch.from_numpy(np.load(path + ".inputs.npy")):
            y, state = model(x, state)
            outputs.append(y[0] if isinstance(y, tuple) else y)
    np.save(path + ".found.npy", torch.stack(outputs).numpy())
"""


def strided_block() -> Deployment:
    make = Numbers()
    main = [make.conv(4, 3, 3, stride=2), lif((4, 4, 4)), make.conv(5, 4)]
    branches: list[Branch] = [main, [make.conv(5, 3, 1, stride=2)]]
    before = [make.conv(3, 2), lif((3, 8, 8))]
    return network(before, branches, [lif((5, 4, 4))], (2, 8, 8))


def summed_block() -> Deployment:
    make = Numbers()
    main = [make.affine(6, 5), lif((6,)), make.affine(4, 6), lif((4,))]
    branches: list[Branch] = [main, [make.affine(4, 5), lif((4,))]]
    return network([make.affine(5, 3)], branches, [make.affine(3, 4), lif((3,))], (3,))


def two_matrices() -> Deployment:
    branches = [[Numbers(i).affine(5, 4)] for i in range(2)]
    return network([], branches, [lif((5,))], (4,))


def on_a_grid(deployment: Deployment) -> Deployment:
    """Weights in eighths, so that membranes reach thresholds exactly."""
    for node in deployment.graph.nodes.values():
        if isinstance(node, (nir.Affine, nir.Conv2d)):
            node.weight, node.bias = (np.rint(v * 8) / 8 for v in (node.weight, node.bias))
    return deployment


@pytest.mark.parametrize("framework", ["norse", "snntorch", "spikingjelly"])
def test_their_importers_give_the_same(framework: str, tmp_path: Path) -> None:
    """Spikes of the blocks, and the currents behind all layers of the residual networks."""
    pytest.importorskip("norse" if framework == "norse" else framework)
    blocks = [two_matrices(), shortcut(lif((6,))), strided_block(), summed_block()]
    blocks += [on_a_grid(make()) for make in (strided_block, summed_block)]
    whole = [msg_deploy.trace(calibrated(name)) for name in ("resnet18", "sew_resnet34")]
    expected = []
    for i, deployment in enumerate((*blocks, *whole)):
        inputs = stimuli(deployment)[0].astype(np.float32)
        expected.append(Reference().run(deployment, inputs).outputs)
        nir_file.write(in_dialect(deployment, "portable"), tmp_path / f"{i}.nir")
        np.save(tmp_path / f"{i}.inputs.npy", inputs)
    paths = [str(tmp_path / str(i)) for i in range(len(expected))]
    command = [sys.executable, "-c", WORKER, framework, *paths]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for i, outputs in enumerate(expected):
        found = np.load(tmp_path / f"{i}.found.npy")
        if i < len(blocks):
            assert 0 < outputs.mean() < 1
            assert np.array_equal(found, outputs), i
        else:
            assert outputs.std(axis=(0, 1)).min() > 0.1
            np.testing.assert_allclose(found, outputs, atol=1e-4)


@st.composite
def blocks(draw: st.DrawFn) -> Deployment:
    """Two or three branches of random lengths and layers between a fork and a LIF."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    depth = draw(st.integers(0, 3))
    axes = draw(st.sampled_from([0, 2]))
    strides = [draw(st.integers(1, 2)) if axes else 1 for _ in range(depth + 1)]
    size = draw(st.integers(3, 6))
    sizes = [size]
    for stride in strides:
        sizes.append(-(-sizes[-1] // stride))
    channels, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    lengths = [depth, *draw(st.lists(st.integers(0, depth), min_size=1, max_size=2))]
    even = set(lengths) == {depth}
    reset = draw(st.sampled_from(["zero", "subtract"]))
    kind = (
        draw(st.sampled_from(["LIF", "IF", "CubaLIF"])) if even or reset == "zero" else "memoryless"
    )

    def shape(n: int, stage: int) -> Shape:
        return (n, *[sizes[stage]] * axes)

    def linear(outputs: int, inputs: int, stride: int, small: bool) -> nir.NIRNode:
        bias = random.normal(size=outputs) * 0.3
        if not axes:
            return nir.Affine(random.normal(size=(outputs, inputs)) * 2, bias)
        kernel = 1 if small else draw(st.sampled_from([1, 3, 5]))
        dilation = draw(st.integers(1, 2))
        groups = inputs if outputs % inputs == 0 and draw(st.booleans()) else 1
        weight = random.normal(size=(outputs, inputs // groups, kernel, kernel)) * 3 / kernel
        padding = dilation * (kernel // 2)
        return nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)

    def neuron(where: Shape) -> nir.NIRNode:
        def each(low: float, high: float) -> FloatArray:
            return random.uniform(low, high, where)

        zero, one = np.zeros(where), np.full(where, DT)
        if kind == "memoryless":
            return nir.LIF(one, each(0.5, 2), zero, each(0.2, 1), zero)
        if kind == "LIF":
            return nir.LIF(
                each(DT, 5e-3), each(0.5, 2), each(-0.1, 0.1), each(0.2, 1), each(0, 0.1)
            )
        if kind == "IF":
            return nir.IF(each(0.5, 2), each(0.2, 1), each(0, 0.1))
        return nir.CubaLIF(
            one, each(DT, 5e-3), each(0.5, 2), zero, each(0.2, 1), zero, each(0.5, 2)
        )

    def branch(length: int) -> Branch:
        row: list[nir.NIRNode] = []
        inputs, stage = channels, 0
        while stage < length:
            last = stage == length - 1
            outputs = width if last else draw(st.integers(1, 3))
            row += [
                linear(outputs, inputs, strides[stage], False),
                neuron(shape(outputs, stage + 1)),
            ]
            inputs, stage = outputs, stage + 1
        rest = int(np.prod(strides[length:]))
        if length == 0 or rest > 1 or draw(st.booleans()):
            row.append(linear(width, inputs, rest, small=rest > 1 and length < depth))
        return row

    binary = (0 in lengths and depth > 0) or draw(st.booleans())
    before = [lif(shape(channels, 0), v_threshold=0.2)] if binary else []
    behind = [lif(shape(width, depth + 1))]
    branches = [branch(n) for n in draw(st.permutations(lengths))]
    return network(before, branches, behind, shape(channels, 0), steps=8, reset=reset)


@settings(deadline=None, max_examples=150)
@given(deployment=blocks())
def test_random_branches(deployment: Deployment) -> None:
    assert is_a_row(assert_the_same(deployment, silent=True))
