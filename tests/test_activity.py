"""Spikes and synaptic operations, counted."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings

from msg_deploy.deployment import Deployment
from msg_deploy.graph import plan
from msg_deploy.primitives import primitive_of
from msg_deploy.sim.activity import joined
from msg_deploy.sim.fast import Fast
from msg_deploy.sim.reference import Reference
from tests.helpers import chain, lif
from tests.strategies import deployments
from tests.test_properties import stimulus


def test_a_hand_worked_example() -> None:
    deployment = chain(
        nir.Linear(np.array([[1.0, 0.0], [2.0, 3.0]])),
        nir.IF(np.ones(2), np.ones(2), np.zeros(2)),
        nir.Linear(np.array([[1.0, 1.0]])),
        inputs=[2],
        outputs=[1],
        steps=2,
    )
    inputs = np.array([[[1.0, 0.0]], [[0.5, 1.0]]])
    activity = Fast().activity(deployment, inputs, "float64")
    # Step 0: 1 and 2 arrive: the second fires. Step 1: 1 + 0.5 and 0 + 4: both fire.
    (layer,) = activity.spikes
    assert layer.counts.tolist() == [1, 2]
    assert activity.rate(layer) == 3 / 4
    first, second = activity.synapses
    # x0 meets two weights that are not 0, x1 one.
    assert (first.effective.tolist(), first.operation, first.dense) == ([2, 3], "MAC", 4)
    assert (second.effective.tolist(), second.operation, second.dense) == ([1, 2], "AC", 2)
    assert (activity.operations("MAC"), activity.operations("AC"), activity.dense) == (5, 3, 12)


def test_the_rim_of_an_image() -> None:
    kernel = np.ones((2, 1, 3, 3))
    kernel[1, 0, 0, 0] = 0
    deployment = chain(
        nir.Conv2d(None, kernel, 1, 1, 1, 1, np.zeros(2)), inputs=[1, 3, 3], outputs=[2, 3, 3]
    )
    inputs = np.zeros((8, 1, 1, 3, 3))
    inputs[0, 0, 0, 0, 0] = 1
    inputs[1, 0, 0, 1, 1] = 1
    (layer,) = Fast().activity(deployment, inputs).synapses
    # In the corner 4 of 9 places of each kernel are met; the weight that is 0 is met in the middle,
    # and in the corner by the output one down and to the right.
    assert layer.effective[:3].tolist() == [7, 17, 0]
    assert layer.dense == 2 * 9 * 9


@settings(deadline=None, max_examples=40)
@given(deployment=deployments())
def test_what_the_reference_does(deployment: Deployment) -> None:
    """Products counted one by one, with factors of 0 and 1, on the values of the reference."""
    inputs = stimulus(deployment)
    known, nodes = plan(deployment.graph), deployment.graph.nodes
    activity = Fast(memory=2000).activity(deployment, inputs, "float64")
    expected = Reference().run(deployment, inputs)
    assert {s.node: s.counts.tolist() for s in activity.spikes} == {
        name: spikes.reshape(len(spikes), -1).sum(axis=1, dtype=int).tolist()
        for name, spikes in expected.spikes.items()
    }
    for layer in activity.synapses:
        node: Any = nodes[layer.node]
        (source, *others) = [e.source for e in known.incoming[layer.node]]
        if others or source not in expected.spikes or known.incoming[layer.node][0].previous:
            continue
        ones = type(node)(**{**vars_of(node), "weight": (node.weight != 0).astype(float)})
        if hasattr(ones, "bias"):
            ones.bias = np.zeros_like(ones.bias)
        law = primitive_of(ones).law(
            ones, deployment.timing, known.input_shapes[layer.node], np.float64
        )
        products = [
            int(law.step((x != 0).astype(float), None).output.sum())
            for x in expected.spikes[source]
        ]
        assert layer.effective.tolist() == products
        assert layer.operation == "AC"


def vars_of(node: Any) -> dict[str, Any]:
    hidden = ("input_type", "output_type", "metadata")
    return {k: v for k, v in vars(node).items() if k not in hidden}


def test_parts_are_joined() -> None:
    deployment = chain(
        nir.Linear(np.ones((3, 2))), lif((3,)), inputs=[2], outputs=[3], steps=4, dt=1e-3
    )
    inputs = np.random.default_rng(0).integers(0, 3, (4, 10, 2)).astype(float)
    whole = Fast().activity(deployment, inputs)
    parts = joined([Fast().activity(deployment, inputs[:, s]) for s in (slice(3), slice(3, 10))])
    assert parts.samples == whole.samples == 10
    for a, b in zip(parts.spikes, whole.spikes, strict=True):
        assert np.array_equal(a.counts, b.counts)
    for x, y in zip(parts.synapses, whole.synapses, strict=True):
        assert np.array_equal(x.effective, y.effective)
        assert x.operation == y.operation == "MAC"


@pytest.mark.parametrize("steps", [1, 6])
def test_a_constant_input_counts_at_every_step(steps: int) -> None:
    from dataclasses import replace

    deployment = chain(nir.Linear(np.ones((3, 2))), inputs=[2], outputs=[3], steps=steps)
    direct = replace(deployment, input=replace(deployment.input, encoding="direct"))
    (layer,) = Fast().activity(direct, np.ones((steps, 2, 2))).synapses
    assert layer.effective.tolist() == [12] * steps
