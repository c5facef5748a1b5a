"""What holds for every valid graph."""

from __future__ import annotations

from pathlib import Path

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from msg_deploy.deployment import Deployment
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.inline import inline
from msg_deploy.graph import plan
from msg_deploy.sim.norse import Norse
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray, Trace
from tests.strategies import deployments

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.")
many = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def stimulus(deployment: Deployment) -> FloatArray:
    shape = (deployment.timing.steps, 3, *deployment.input.shape)
    return np.random.default_rng(0).normal(size=shape)


def assert_same(a: Trace, b: Trace, tolerance: float = 0.0) -> None:
    assert set(a.spikes) == set(b.spikes)
    for name in a.spikes:
        assert np.array_equal(a.spikes[name], b.spikes[name]), name
    np.testing.assert_allclose(a.outputs, b.outputs, rtol=tolerance, atol=tolerance)


@many
@given(deployment=deployments())
def test_writing_and_reading_change_nothing(deployment: Deployment, tmp_path: Path) -> None:
    nir_file.write(deployment, tmp_path / "model.nir")
    found = nir_file.read(tmp_path / "model.nir")
    assert (found.timing, found.input) == (deployment.timing, deployment.input)
    inputs = stimulus(deployment)
    assert_same(*(Reference().run(d, inputs) for d in (deployment, found)))


@many
@given(deployment=deployments())
def test_norse_gives_what_the_laws_say(deployment: Deployment) -> None:
    assert Norse().unsupported(deployment) == []
    inputs = stimulus(deployment)
    assert_same(*(s.run(deployment, inputs) for s in (Reference(), Norse())), tolerance=1e-9)


def alone(deployment: Deployment) -> bool:
    known = plan(deployment.graph)
    return len(known.inputs) == len(known.outputs) == 1


@many
@given(deployment=deployments().filter(alone))
def test_a_graph_in_a_graph_is_that_graph(deployment: Deployment) -> None:
    graph = deployment.graph
    outer = {"input": graph.nodes["input"], "g": graph, "output": graph.nodes["output"]}
    edges = [("input", "g"), ("g", "output")]
    flat = inline(nir.NIRGraph(outer, edges, metadata={}, type_check=False))
    inputs = stimulus(deployment)
    expected = Reference().run(deployment, inputs)
    found = Reference().run(deployment.with_graph(flat), inputs)
    assert {f"g.{name}" for name in expected.spikes} == set(found.spikes)
    assert np.array_equal(expected.outputs, found.outputs)
