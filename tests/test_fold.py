from __future__ import annotations

import dataclasses
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy import api
from msg_deploy.deployment import Deployment, Readout
from msg_deploy.errors import UsageError
from msg_deploy.exporters.fold import (
    _decays,
    cheapest,
    decode,
    fold_effect,
    fold_two,
    realized_weights,
)
from msg_deploy.exporters.trace import trace
from msg_deploy.graph import plan
from msg_deploy.sim.norse import Norse
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


def with_weights(*weights: float) -> Deployment:
    """A random network whose TWO has these weights."""
    per_step = trace(random_network(steps=len(weights)))
    assert per_step.readout is not None
    return dataclasses.replace(
        per_step, readout=dataclasses.replace(per_step.readout, weights=weights)
    )


def error_of(deployment: Deployment) -> float:
    assert deployment.readout is not None
    return deployment.readout.error


@given(
    f=st.lists(st.floats(0.01, 1), min_size=1, max_size=9),
    fold=st.sampled_from(["delay", "bank", "leak"]),
)
@settings(deadline=None, max_examples=25)
def test_every_folding_states_its_error(f: list[float], fold: Any) -> None:
    folded = fold_two(with_weights(*f), fold)
    for precision in ("float64", "float32"):
        realized = realized_weights(folded, precision)  # type: ignore[arg-type]
        assert np.abs(realized - f).max() <= error_of(folded) + 1e-7
    currents = np.random.default_rng(0).normal(size=(len(f), 20, 10))
    effect = fold_effect(folded, currents, "float64")
    assert effect.error <= np.abs(currents).sum(axis=0).max() * error_of(folded) + 1e-12
    assert effect.samples == 20


def test_leak_by_hand() -> None:
    # f = g a^(T-1-t) exactly, with a = 1/2: one LI with dt/tau = 1/2
    folded = fold_two(with_weights(0.1, 0.2, 0.4), "leak")
    node = folded.graph.nodes["readout.leak"]
    assert 1e-3 / node.tau == pytest.approx(0.5, abs=1e-3)
    assert node.r == pytest.approx(0.8, abs=3e-3)
    assert error_of(folded) < 1e-3
    assert folded.graph.edges[-1] == ("readout.leak", "output")


def test_bank_is_exact_for_four_steps() -> None:
    folded = fold_two(with_weights(0.1, 0.5, 0.2, 0.3), "bank")
    assert error_of(folded) < 1e-6
    added = [type(n) for name, n in folded.graph.nodes.items() if name.startswith("readout.")]
    assert added == [nir.Linear, nir.LI, nir.Linear]
    assert np.all(folded.graph.nodes["readout.decay"].tau >= 1e-3)


def test_auto_takes_the_cheapest_within_the_tolerance() -> None:
    deployment = with_weights(0.1, 0.5, 0.2, 0.3)
    chosen = [cheapest(deployment, t).readout for t in (0.9, 1e-3, 0.0)]
    assert [r and r.fold for r in chosen] == ["leak", "bank", "delay"]


def test_norse_runs_every_folding() -> None:
    inputs = np.broadcast_to(samples(4), (4, 4, 1, 8, 8))
    for fold in ("bank", "leak"):
        folded = fold_two(with_weights(0.1, 0.5, 0.2, 0.3), fold)  # type: ignore[arg-type]
        expected, found = (s.run(folded, inputs) for s in (Reference(), Norse()))
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-10)


def test_a_check_allows_what_the_folding_states_and_no_flip() -> None:
    deployment = with_weights(0.1, 0.5, 0.2, 0.3)
    folded = fold_two(deployment, "leak")
    verdict = api.check(deployment, folded, samples(64))
    comparison = verdict.comparisons[0]
    assert comparison.mismatches == 0
    assert comparison.score_difference > 1e-3
    if comparison.flips:
        assert comparison.first is not None
        assert comparison.first.quantity == "decision"
    assert bool(verdict) == (comparison.flips == 0)
    assert folded.readout is not None
    lying = dataclasses.replace(folded, readout=dataclasses.replace(folded.readout, error=1e-9))
    first = api.check(deployment, lying, samples(64)).comparisons[0].first
    assert first is not None
    assert first.quantity == "score"


def test_flips_are_counted() -> None:
    folded = fold_two(with_weights(0.0, 1.0), "delay")
    folded.graph.nodes["readout.scale_0"] = nir.Scale(np.full(10, -1.0))
    currents = np.random.default_rng(0).normal(size=(2, 50, 10))
    assert fold_effect(folded, currents).flips > 40


@pytest.mark.parametrize("fold", ["host", "delay", "bank", "leak"])
def test_a_readout_alone_decodes_currents(fold: Any) -> None:
    folded = fold_two(with_weights(0.1, 0.2, 0.4), fold)
    currents = np.random.default_rng(0).normal(size=(3, 7, 10))
    written = 0.1 * currents[0] + 0.2 * currents[1] + 0.4 * currents[2]
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-6)):
        found = decode(folded, currents, precision)  # type: ignore[arg-type]
        assert (found.shape, found.dtype) == ((7, 10), precision)
        most = np.abs(currents).sum(axis=0).max() * error_of(folded)
        np.testing.assert_allclose(found, written, atol=most + tolerance)
    assert not np.array_equal(decode(folded, currents, "float32"), decode(folded, currents))


def test_the_effect_of_a_folding_by_hand() -> None:
    folded = fold_two(with_weights(0.3, 0.1, 0.4), "leak")
    currents = np.random.default_rng(0).normal(size=(3, 40, 10))
    written = 0.3 * currents[0] + 0.1 * currents[1] + 0.4 * currents[2]
    found = decode(folded, currents, "float32")
    effect = fold_effect(folded, currents)
    assert effect.samples == 40
    assert effect.flips == sum(
        w.argmax() != f.argmax() for w, f in zip(written, found, strict=True)
    )
    assert effect.flips > 0
    assert effect.error == pytest.approx(np.abs(written - found).max(), rel=1e-12)
    assert effect.scale == pytest.approx(np.abs(written).max(), rel=1e-12)


def test_the_tolerance_is_a_share_of_the_largest_weight() -> None:
    deployment = with_weights(0.1, 0.5, 0.2, 0.3)
    share = error_of(fold_two(deployment, "leak")) / 0.5
    chosen = [cheapest(deployment, t).readout for t in (share, 0.99 * share)]
    assert [r and r.fold for r in chosen] == ["leak", "bank"]


def test_candidates_of_the_bank_by_hand() -> None:
    found = _decays(2)
    assert [len(decays) for decays in found] == [1, 1, 1, 2, 2, 2]
    assert [d[0] for d in found[:3]] == pytest.approx([0.4, 0.45, 0.475])
    # limit (1 - cos(pi/4))/2 and limit (1 + cos(pi/4))/2
    assert found[3] == pytest.approx([0.1171573, 0.6828427])


def test_messages_of_refusals() -> None:
    unfolded = chain(nir.Scale(np.ones(1)), inputs=[1], outputs=[1])
    for refused in (
        lambda: fold_two(unfolded, "delay"),
        lambda: realized_weights(unfolded),
        lambda: decode(unfolded, np.zeros((8, 1, 1))),
    ):
        with pytest.raises(UsageError, match=r"^there is no TWO readout"):
            refused()
    with pytest.raises(UsageError, match=r"there are delay, bank, leak, host\.$"):
        fold_two(unfolded, "magic")  # type: ignore[arg-type]
    image = chain(nir.Scale(np.ones((2, 1))), inputs=[2, 1], outputs=[2, 1], steps=2)
    two = Readout(weights=(0.5, 0.5), source="n0", fold="host", error=0.0)
    with pytest.raises(
        UsageError, match=r"needs class scores \(C,\), not outputs of shape \(2, 1\)"
    ):
        fold_two(dataclasses.replace(image, readout=two), "bank")


def test_names_of_foldings_are_not_taken() -> None:
    """A nested graph called "readout" has nodes that are called like a folding's."""
    per_step = with_weights(0.5, 0.5)
    nodes = {("readout.fc" if n == "fc1" else n): node for n, node in per_step.graph.nodes.items()}
    renamed = {"fc1": "readout.fc"}
    edges = [(renamed.get(a, a), renamed.get(b, b)) for a, b in per_step.graph.edges]
    assert "readout.fc" in nodes
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    clashing = per_step.with_graph(graph)
    with pytest.raises(
        UsageError, match=r"^node 'readout\.fc': .* leave TWO to the host \(fold 'host'\)\.$"
    ):
        fold_two(clashing, "delay")
    assert fold_two(clashing, "host") is clashing


def test_what_others_wrote_into_the_graph_stays() -> None:
    per_step = with_weights(0.5, 0.5)
    noted = per_step.with_graph(
        nir.NIRGraph(
            per_step.graph.nodes, per_step.graph.edges, metadata={"by": "us"}, type_check=False
        )
    )
    for fold in ("delay", "bank", "leak"):
        assert fold_two(noted, fold).graph.metadata == {"by": "us"}  # type: ignore[arg-type]


def test_realized_weights_are_those_of_a_precision() -> None:
    folded = fold_two(with_weights(0.1, 0.5, 0.2, 0.3), "bank")
    in_float32, in_float64 = realized_weights(folded, "float32"), realized_weights(folded)
    assert in_float32.dtype == in_float64.dtype == np.float64
    assert np.array_equal(in_float32, in_float32.astype(np.float32))
    assert not np.array_equal(in_float64, in_float64.astype(np.float32))


def test_rounding_the_weights_is_no_error_of_a_folding() -> None:
    assert error_of(fold_two(with_weights(0.1, 0.3), "delay")) == 0
