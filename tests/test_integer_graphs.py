"""Graphs in integers: the reference's spikes and membranes to the bit, or a reason why not."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import event, given, settings

from msg_deploy import api, trace
from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.options import Precision
from msg_deploy.sim.integer import Integer
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import Trace, simulator
from tests.helpers import chain, lif, random_network
from tests.strategies import deployments
from tests.test_fast import integral, on_a_grid

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.")


def assert_bits(found: Trace, expected: Trace) -> None:
    assert set(found.spikes) == set(expected.spikes)
    for name, spikes in expected.spikes.items():
        assert np.array_equal(found.spikes[name], spikes), name
        assert np.array_equal(found.membranes[name], expected.membranes[name]), name
    for what in ("outputs", "currents", "scores"):
        one, other = getattr(found, what), getattr(expected, what)
        assert one.dtype == other.dtype
        assert np.array_equal(one, other), what


@settings(deadline=None, max_examples=100)
@given(deployment=deployments())
def test_any_graph(deployment: Deployment) -> None:
    deployment = integral(deployment)
    shape = (deployment.timing.steps, 2, *deployment.input.shape)
    inputs = np.random.default_rng(0).integers(-1, 2, shape).astype(np.float64)
    problems = Integer().unsupported(deployment)
    event("refused" if problems else "run")
    if problems:
        assert all("53 " in text or "beforehand" in text for text in problems)
        with pytest.raises(GraphError, match="node "):
            Integer().run(deployment, inputs)
        return
    assert_bits(Integer().run(deployment, inputs), Reference().run(deployment, inputs))


def test_a_cycle_without_a_neuron_inside_one_with_a_neuron() -> None:
    around = nir.Delay(np.full(2, 1e-3))
    nodes = {
        "input": nir.Input({"input": np.array([2])}),
        "before": nir.Scale(np.ones(2)),
        "around": around,
        "neuron": nir.IF(np.ones(2), np.ones(2), np.zeros(2)),
        "output": nir.Output({"output": np.array([2])}),
    }
    order = [*nodes]
    edges = [*pairwise(order), ("neuron", "before"), ("around", "around")]
    deployment = Deployment(
        nir.NIRGraph(nodes, edges), Timing(1e-3, 4), InputSpec((2,), "frames", 0.0, 1.0), None
    )
    (problem,) = Integer().unsupported(deployment)
    assert problem.startswith("node 'around': no neuron with a threshold is on its cycle")


@pytest.mark.parametrize("name", ["mlp", "convnet", "sew_resnet34"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_networks(name: str, precision: Precision) -> None:
    options = {"width": 4} if name == "sew_resnet34" else {}
    network = random_network(name, shape=(1, 16, 16), **options)
    deployment = on_a_grid(trace(network), 2.0**-7)
    inputs = np.random.default_rng(0).integers(0, 2, (5, 2, 1, 16, 16)).astype(precision)
    deployment = replace(deployment, readout=None)
    integer = simulator("integer")
    assert integer.unsupported(deployment, precision) == []
    expected = Reference().run(deployment, inputs, precision)
    assert any(spikes.any() for spikes in list(expected.spikes.values())[1:])
    assert_bits(integer.run(deployment, inputs, precision), expected)
    # Made ready once.
    assert_bits(integer.run(deployment, inputs, precision), expected)


def test_inputs_by_levels_and_beyond_their_range() -> None:
    spec = InputSpec((2,), "frames", 0.0, 1.0, levels=15)
    deployment = replace(
        chain(nir.Linear(np.array([[1.0, -2.0]])), lif(v_threshold=7.5), inputs=[2], outputs=[1]),
        input=spec,
    )
    integer = Integer()
    for largest in (15, 300):
        inputs = np.random.default_rng(0).integers(0, largest, (8, 4, 2)).astype(float)
        assert_bits(integer.run(deployment, inputs), Reference().run(deployment, inputs))
    with pytest.raises(UsageError, match="whole numbers"):
        integer.run(deployment, inputs + 0.5)
    with pytest.raises(UsageError, match="whole numbers"):
        integer.run(deployment, inputs + np.inf)
    with pytest.raises(UsageError, match="wrong input shape"):
        integer.run(deployment, inputs[:, :, :1])


def test_a_threshold_on_no_grid() -> None:
    deployment = chain(lif(tau=4e-3, v_threshold=1 / 3), inputs=[1], outputs=[1], dt=1e-3)
    inputs = np.random.default_rng(0).integers(0, 3, (8, 5, 1)).astype(float)
    assert_bits(Integer().run(deployment, inputs), Reference().run(deployment, inputs))


def single(node: nir.NIRNode, shape: tuple[int, ...] = (1,), **timing: Any) -> Deployment:
    return chain(node, inputs=shape, outputs=shape, **timing)


REASONS: dict[str, Deployment] = {
    r"node 'n0' \(Linear\): weight is not in integers": single(nir.Linear(np.array([[0.1]]))),
    r"\(Affine\): bias is not in integers": single(nir.Affine(np.eye(1), np.array([0.3]))),
    r"\(LIF\): dt/tau is not 1, 1/2, 1/4": single(lif(tau=3e-3)),
    r"\(IF\): r is not in integers": single(nir.IF(*np.array([[0.1], [1.0], [0.0]]))),
    r"\(LIF\): v_threshold is not": single(lif(v_threshold=1 / 3), reset="subtract"),
    r"\(AvgPool2d\): divides by 9": chain(
        nir.AvgPool2d(np.array([3, 3]), np.array([3, 3]), np.array([0, 0])),
        inputs=[1, 3, 3], outputs=[1, 1, 1],
    ),
    r"\(LI\): its values may need 55 bits, of which up to 51 behind the point": replace(
        single(nir.LI(*np.array([[2e-3], [1.0], [0.0]])), steps=51),
        input=InputSpec((1,), "frames", 0.0, 15.0),
    ),
    r"\(LIF\): .*53 bits do not hold it": single(lif(v_leak=1.0), steps=99),
    "no neuron with a threshold is on its cycle": chain(
        nir.Linear(np.eye(1)), nir.I(np.ones(1)), inputs=[1], outputs=[1], edges=[("n1", "n0")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REASONS)
def test_why_a_graph_is_not_in_integers(reason: str) -> None:
    deployment = REASONS[reason]
    problem, *_ = Integer().unsupported(deployment)
    assert re.search(reason, problem), problem
    inputs = np.zeros((deployment.timing.steps, 1, *deployment.input.shape))
    with pytest.raises(GraphError, match=reason):
        Integer().run(deployment, inputs)


def test_every_reason_is_told() -> None:
    deployment = chain(nir.Linear(np.array([[0.1]])), lif(tau=3e-3), inputs=[1], outputs=[1])
    assert len(Integer().unsupported(deployment)) == 2


def test_a_check_with_it(tmp_path: Path) -> None:
    deployment = on_a_grid(trace(random_network()), 1.0)
    deployment = replace(deployment, input=replace(deployment.input, levels=3))
    nir_file.write(deployment, tmp_path / "whole.nir")
    verdict = api.check(tmp_path / "whole.nir", tmp_path / "whole.nir", simulators=["integer"])
    assert verdict.kind == "PROVEN", verdict
    nir_file.write(trace(random_network()), tmp_path / "float.nir")
    verdict = api.check(tmp_path / "float.nir", tmp_path / "float.nir", simulators=["integer"])
    assert verdict.kind == "INCOMPARABLE"
    assert "weight is not in integers" in str(verdict)
