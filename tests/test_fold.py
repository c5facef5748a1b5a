from __future__ import annotations

import dataclasses

import nir
import numpy as np
import pytest

from msg_deploy.errors import UsageError
from msg_deploy.exporters.fold import fold_two, realized_weights
from msg_deploy.exporters.trace import trace
from msg_deploy.graph import plan
from msg_deploy.sim.reference import Reference
from tests.helpers import chain, random_network, samples


@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize("steps", [1, 4, 11])
def test_delay_gives_the_hosts_scores_at_the_last_step(name: str, steps: int) -> None:
    per_step = trace(random_network(name, steps=steps))
    folded = fold_two(per_step, "delay")
    inputs = np.broadcast_to(samples(4), (steps, 4, 1, 8, 8))
    host, delay = (Reference().run(d, inputs) for d in (per_step, folded))
    np.testing.assert_allclose(delay.outputs[-1], host.scores, atol=1e-13)
    assert np.array_equal(delay.decisions, host.decisions)


def test_delay_realizes_the_weights_exactly() -> None:
    folded = fold_two(trace(random_network(steps=7)), "delay")
    assert folded.readout is not None
    assert folded.readout.error == 0
    assert realized_weights(folded).tolist() == list(folded.readout.weights)


def test_delay_nodes_by_hand() -> None:
    folded = fold_two(trace(random_network(steps=3)), "delay")
    assert folded.readout is not None
    nodes, f = folded.graph.nodes, folded.readout.weights
    assert nodes["readout.scale_0"].scale.tolist() == [f[2]] * 10
    assert nodes["readout.scale_2"].scale.tolist() == [f[0]] * 10
    assert nodes["readout.delay_2"].delay.tolist() == [2e-3] * 10
    assert "readout.delay_0" not in nodes
    plan(folded.graph)


def test_a_changed_branch_changes_the_realized_weights() -> None:
    folded = fold_two(trace(random_network(steps=3)), "delay")
    folded.graph.nodes["readout.scale_1"] = nir.Scale(np.full(10, 9.0))
    assert realized_weights(folded)[1] == 9


def test_the_input_is_not_changed() -> None:
    per_step = trace(random_network())
    nodes, edges = set(per_step.graph.nodes), list(per_step.graph.edges)
    fold_two(per_step, "delay")
    assert (set(per_step.graph.nodes), list(per_step.graph.edges)) == (nodes, edges)


def test_host_changes_nothing() -> None:
    per_step = trace(random_network())
    assert fold_two(per_step, "host") is per_step
    assert per_step.readout is not None
    assert realized_weights(per_step).tolist() == list(per_step.readout.weights)


def test_refusals() -> None:
    per_step = trace(random_network())
    with pytest.raises(UsageError, match="unknown folding 'magic'"):
        fold_two(per_step, "magic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="already folded by 'delay'"):
        fold_two(fold_two(per_step, "delay"), "delay")
    with pytest.raises(UsageError, match="no TWO readout"):
        fold_two(dataclasses.replace(per_step, readout=None), "delay")
    with pytest.raises(UsageError, match="no TWO readout"):
        realized_weights(chain(nir.Scale(np.ones(1)), inputs=[1], outputs=[1]))
