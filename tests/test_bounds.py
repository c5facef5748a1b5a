"""No simulated value ever leaves the bounds."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings

from msg_deploy.bounds import bounds
from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.reference import Reference
from tests.helpers import chain, lif
from tests.strategies import deployments

EYE = nir.Affine(np.eye(1), np.zeros(1))


def inside(values: Any, interval: Any) -> bool:
    slack = 1e-9 * (1 + np.abs(values))
    return bool(np.all(values >= interval.low - slack) and np.all(values <= interval.high + slack))


def watched(deployment: Deployment, name: str) -> Deployment:
    """The same, with the output of one node as an Output of the graph."""
    graph = deployment.graph
    shape = np.array(plan(graph).shapes[name])
    nodes = dict(graph.nodes) | {"seen": nir.Output({"output": shape})}
    edges = [*graph.edges, (name, "seen")]
    return deployment.with_graph(nir.NIRGraph(nodes, edges, metadata={}, type_check=False))


@settings(deadline=None, max_examples=150)
@given(deployment=deployments())
def test_nothing_leaves_its_bounds(deployment: Deployment) -> None:
    found = bounds(deployment)
    known = plan(deployment.graph)
    assert set(found) == set(known.order)
    spec, steps = deployment.input, deployment.timing.steps
    random = np.random.default_rng(0)
    shape = (steps, 8, *spec.shape)
    inputs = random.choice([spec.low, spec.high, 0.5 * (spec.low + spec.high)], shape)
    trace = Reference().run(deployment, inputs)
    assert all(inside(trace.membranes[n], found[n].membrane) for n in trace.membranes)
    if len(known.outputs) == 1:
        assert inside(trace.outputs, found[known.output].output)
    for name, node in deployment.graph.nodes.items():
        if isinstance(node, nir.Output) or primitive_of(node).spiking:
            continue
        own = watched(deployment, name)
        width = int(np.prod(known.shapes[name]))
        # Outputs stand in the order of their names, flattened.
        at = int(
            np.cumsum([0, *(np.prod(known.shapes[o]) for o in known.outputs if o < "seen")])[-1]
        )
        values = Reference().run(own, inputs).outputs.reshape(steps, 8, -1)[..., at : at + width]
        assert inside(
            values,
            type(found[name].output)(
                found[name].output.low.ravel(), found[name].output.high.ravel()
            ),
        ), name


@pytest.mark.parametrize(
    ("node", "reset", "high"),
    [
        # v <= 0.5 * 1 + 0.5 * 1
        (lif(tau=2e-3, v_threshold=1.0), "zero", 1.0),
        (lif(tau=2e-3, v_threshold=0.5), "zero", 0.75),
        (lif(tau=2e-3, v_threshold=0.5), "subtract", 0.75),
        # 0.5 -> 0.5 + 1, minus 0.5 -> 1 + 1, ... : half a threshold more a step
        (nir.IF(np.ones(1), np.full(1, 0.5), np.zeros(1)), "subtract", 0.5 + 3 * 0.5 + 1),
    ],
)
def test_by_hand(node: Any, reset: Any, high: float) -> None:
    deployment = chain(EYE, node, inputs=[1], outputs=[1], steps=3, dt=1e-3, reset=reset)
    membrane = bounds(deployment)["n1"].membrane
    assert membrane is not None
    assert membrane.high.tolist() == [pytest.approx(high)]
    assert membrane.low.tolist() == [0.0]


def test_what_is_not_known_is_infinite() -> None:
    leaky = nir.LI(np.full(1, 2e-3), np.ones(1), np.zeros(1))
    loop = chain(leaky, EYE, inputs=[1], outputs=[1], dt=1e-3, edges=[("n1", "n0")])
    assert bounds(loop)["n0"].output.high.tolist() == [np.inf]
    unstable = chain(lif(tau=1e-4), inputs=[1], outputs=[1], dt=1e-3)
    membrane = bounds(unstable)["n0"].membrane
    assert membrane is not None
    assert membrane.high.tolist() == [np.inf]
    assert bounds(unstable)["n0"].output.high.tolist() == [1.0]


def test_recurrent_spikes_are_bounded() -> None:
    back = nir.Linear(np.full((1, 1), -3.0))
    deployment = chain(EYE, lif(tau=1e-3, v_threshold=0.5), inputs=[1], outputs=[1], dt=1e-3)
    deployment.graph.nodes["back"] = back
    deployment.graph.edges += [("n1", "back"), ("back", "n1")]
    found = bounds(deployment)["n1"]
    assert (found.arriving.low.tolist(), found.arriving.high.tolist()) == ([-3.0], [1.0])
