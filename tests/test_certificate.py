"""The certificate under attack: no certified decision may ever differ, in any engine."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings

from msg_deploy.api import check
from msg_deploy.deployment import Deployment, InputSpec, Timing
from msg_deploy.errors import GraphError
from msg_deploy.primitives import registry
from msg_deploy.sim.certificate import Certificate, certify
from msg_deploy.sim.certificate.neurons import FOLLOWERS
from msg_deploy.sim.certificate.rules import RULES
from msg_deploy.sim.fast import Fast
from msg_deploy.sim.norse import Norse
from msg_deploy.sim.onnxruntime import OnnxRuntime
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.verdict import Kind
from tests.engines import ENGINES
from tests.helpers import chain, lif
from tests.strategies import deployments
from tests.test_properties import stimulus

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.")


def first_differences(certificate: Certificate, found: Trace) -> dict[str, np.ndarray]:
    """Decisions that differ from exact arithmetic in the first layer of the first such step.

    Nothing in their past differs, so each of them for itself must be uncertified.
    """
    expected = certificate.spikes
    assert set(expected) == set(found.spikes)
    if not expected:
        return {}
    steps, batch = next(iter(expected.values())).shape[:2]
    differing = np.stack(
        [
            (found.spikes[name] != spikes).reshape(steps, batch, -1).any(axis=2)
            for name, spikes in expected.items()
        ],
        axis=1,
    ).reshape(-1, batch)
    first = np.cumsum(differing, axis=0) == 1
    first = (first & differing).reshape(steps, len(expected), batch)
    return {
        name: (found.spikes[name] != spikes)
        & first[:, i].reshape(steps, batch, *[1] * (spikes.ndim - 2))
        for i, (name, spikes) in enumerate(expected.items())
    }


def broken(certificate: Certificate, found: Trace, shrink: float = 1.0) -> int:
    """First differences on certified decisions, also if all bounds were smaller."""
    count = 0
    for name, where in first_differences(certificate, found).items():
        bound = certificate.bounds[name] / shrink
        certified = (np.abs(certificate.margins[name]) > bound) | (bound == 0)
        if shrink == 1:
            assert np.array_equal(certified, certificate.certified[name])
        count += int((where & certified).sum())
    return count


def uniform(deployment: Deployment, batch: int, seed: int = 0) -> FloatArray:
    shape = (deployment.timing.steps, batch, *deployment.input.shape)
    random = np.random.default_rng(seed)
    return random.uniform(deployment.input.low, deployment.input.high, shape).astype(np.float32)


def with_thresholds(deployment: Deployment, thresholds: dict[str, np.ndarray]) -> Deployment:
    nodes = dict(deployment.graph.nodes)
    for name, threshold in thresholds.items():
        node = copy.copy(nodes[name])
        node.v_threshold = threshold
        nodes[name] = node
    edges = deployment.graph.edges
    return deployment.with_graph(nir.NIRGraph(nodes, edges, metadata={}, type_check=False))


def at_thresholds(deployment: Deployment, inputs: FloatArray, seed: int) -> Deployment:
    """Each threshold by a fraction of the bound beside a membrane of the first step."""
    random = np.random.default_rng(seed)
    for name in certify(deployment, inputs[:, :1]).certified:
        found = certify(deployment, inputs)
        node: Any = deployment.graph.nodes[name]
        shape = node.v_threshold.shape
        membranes = Fast().run(deployment, inputs).membranes[name][0]
        sample = random.integers(0, len(membranes), shape)[None]
        chosen = np.take_along_axis(membranes, sample, axis=0)[0]
        bound = np.take_along_axis(found.bounds[name][0], sample, axis=0)[0]
        beside = bound * 10 ** random.uniform(-4, 0.3, shape) * random.choice([-1, 1], shape)
        threshold = np.where(chosen > 0.05, chosen + beside, node.v_threshold)
        deployment = with_thresholds(deployment, {name: threshold})
    return deployment


def matrix(random: np.random.Generator, outputs: int, inputs: int) -> nir.Affine:
    weight = random.normal(0.05, 2 / np.sqrt(inputs), (outputs, inputs)).astype(np.float32)
    return nir.Affine(weight, random.normal(0, 0.1, outputs).astype(np.float32))


def mlp(random: np.random.Generator) -> Deployment:
    return chain(
        matrix(random, 128, 48), lif((128,)), matrix(random, 96, 128), lif((96,), tau=3.7e-3),
        inputs=(48,), outputs=(96,), dt=1e-3, steps=6,
    )  # fmt: skip


def subtracting(random: np.random.Generator) -> Deployment:
    return chain(
        matrix(random, 96, 40), lif((96,), r=0.7, v_leak=0.03, tau=5e-3), matrix(random, 64, 96),
        nir.IF(np.full(64, 1.1), np.full(64, 0.6), np.zeros(64)),
        inputs=(40,), outputs=(64,), dt=1e-3, steps=6, reset="subtract",
    )  # fmt: skip


def convolutional(random: np.random.Generator) -> Deployment:
    def kernel(outputs: int, inputs: int) -> nir.Conv2d:
        weight = random.normal(0.05, 0.5, (outputs, inputs, 3, 3)).astype(np.float32)
        bias = random.normal(0, 0.1, outputs).astype(np.float32)
        return nir.Conv2d(None, weight, 1, 1, 1, 1, bias)

    three = np.array([3, 3])
    return chain(
        kernel(8, 2), lif((8, 9, 9)), nir.AvgPool2d(three, three, np.array([0, 0])), kernel(8, 8),
        lif((8, 3, 3), tau=2.7e-3, v_reset=-0.1),
        inputs=(2, 9, 9), outputs=(8, 3, 3), dt=1e-3, steps=5,
    )  # fmt: skip


def recurrent(random: np.random.Generator) -> Deployment:
    """A matrix back, a residual edge, and a leaky integrator between the layers."""
    return chain(
        matrix(random, 48, 32), lif((48,)), matrix(random, 48, 48), lif((48,), tau=3e-3),
        nir.LI(*np.full((3, 48), [[4e-3], [1.3], [0.02]])), matrix(random, 48, 48),
        lif((48,), v_threshold=0.4),
        inputs=(32,), outputs=(48,), edges=[("n1", "n5"), ("n3", "n2")], dt=1e-3, steps=6,
    )  # fmt: skip


def current_based(random: np.random.Generator) -> Deployment:
    def neurons(count: int) -> nir.CubaLIF:
        def each(low: float, high: float) -> np.ndarray:
            return random.uniform(low, high, count)

        return nir.CubaLIF(
            each(1e-3, 4e-3), each(2e-3, 9e-3), each(0.5, 3), each(-0.1, 0.1), each(0.2, 0.6),
            each(-0.1, 0.1), each(0.5, 2),
        )  # fmt: skip

    return chain(
        matrix(random, 96, 32), neurons(96), matrix(random, 64, 96), neurons(64),
        inputs=(32,), outputs=(64,), dt=1e-3, steps=6,
    )  # fmt: skip


def cancelling(random: np.random.Generator) -> Deployment:
    """Weights in pairs that cancel but for a millionth: sums far smaller than what is summed."""
    half = random.normal(0, 1, (64, 24))
    weight = np.concatenate([half, -half * (1 + random.normal(0, 1e-6, half.shape))], axis=1)
    bias = np.full(64, 0.9) + random.normal(0, 1e-6, 64)
    first = nir.Affine(np.concatenate([np.eye(24), np.eye(24)]), np.full(48, 0.3))
    return chain(
        first, lif((48,), v_threshold=0.4), nir.Affine(weight, bias), lif((64,), tau=2.3e-3),
        inputs=(24,), outputs=(64,), dt=1e-3, steps=6,
    )  # fmt: skip


def whole_numbers(random: np.random.Generator) -> Deployment:
    """Sums that are exact, and mostly cancel, onto membranes that are not."""
    half = random.integers(2**13, 2**17, (64, 24)) / 2**6
    other = half + random.integers(-40, 41, half.shape) / 2**6
    weight = np.concatenate([half, -other], axis=1)
    first = nir.Linear(np.concatenate([np.eye(24), np.eye(24)]))
    return chain(
        first, lif((48,), tau=1e-3, v_threshold=0.25), nir.Linear(weight), lif((64,), tau=2.3e-3),
        inputs=(24,), outputs=(64,), dt=1e-3, steps=6,
    )  # fmt: skip


def tiny(random: np.random.Generator) -> Deployment:
    """Near the smallest normal number, where some engines flush to zero."""
    weight = random.normal(0, 1e-37, (64, 24)).astype(np.float32)
    return chain(
        nir.Linear(weight), lif((64,), v_threshold=1e-38),
        inputs=(24,), outputs=(64,), dt=1e-3, steps=4,
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[np.random.Generator], Deployment], int]] = {
    "mlp": (mlp, 24),
    "subtracting": (subtracting, 24),
    "convolutional": (convolutional, 12),
    "recurrent": (recurrent, 24),
    "current_based": (current_based, 24),
    "cancelling": (cancelling, 24),
}
"""Each with the size of a batch."""


@pytest.mark.parametrize("name", NETWORKS)
def test_no_certified_decision_differs(name: str) -> None:
    build, batch = NETWORKS[name]
    decisions = differing = reduced = 0
    for seed in range(6):
        deployment = build(np.random.default_rng(seed))
        inputs = uniform(deployment, batch, seed)
        deployment = at_thresholds(deployment, inputs, seed)
        certificate = certify(deployment, inputs)
        assert 0.9 < certificate.share < 1
        for engine in ENGINES.values():
            found = engine.run(deployment, inputs)
            decisions += certificate.decisions
            differing += sum(int(d.sum()) for d in first_differences(certificate, found).values())
            assert broken(certificate, found) == 0
            reduced += broken(certificate, found, shrink=1000)
    # The attack can fail: engines do differ, and a bound that is too small is caught.
    assert differing > 0
    assert reduced > 0


def test_every_primitive_can_be_certified() -> None:
    assert {nir.Input, *RULES, *FOLLOWERS} == set(registry())
    deployment = chain(Unknown(np.ones(1)), inputs=(1,), outputs=(1,))
    with pytest.raises(GraphError, match="Unknown is not supported"):
        certify(deployment, np.ones((8, 1, 1)))


@dataclass(eq=False)
class Unknown(nir.NIRNode):  # type: ignore[misc]
    value: np.ndarray


def test_numbers_that_engines_flush_to_zero() -> None:
    deployment = tiny(np.random.default_rng(0))
    inputs = uniform(deployment, 16)
    certificate = certify(deployment, inputs)
    for engine in ENGINES.values():
        assert broken(certificate, engine.run(deployment, inputs)) == 0


def test_numbers_that_overflow_are_not_certified() -> None:
    deployment = chain(nir.Linear(np.full((1, 2), 1e37)), lif(), inputs=(2,), outputs=(1,), steps=1)
    inputs = np.full((1, 1, 2), 0.9, np.float32)
    assert certify(deployment, inputs).share == 1
    assert certify(deployment, inputs * 9).share == 0


def on_grid(random: np.random.Generator, reset: str, shift: float) -> Deployment:
    """8-bit weights, time constants that halve; `shift` grid steps between thresholds and grid."""

    def layer(outputs: int, inputs: int) -> nir.Affine:
        weight = random.integers(-127, 128, (outputs, inputs)) / 64
        return nir.Affine(weight, random.integers(-127, 128, outputs) / 64)

    return chain(
        layer(48, 32), lif((48,), v_threshold=0.5 + shift / 128),
        layer(48, 48), nir.IF(*np.full((3, 48), [[1.0], [0.5 + shift / 64], [0.0]])),
        layer(32, 48), lif((32,), tau=4e-3, v_threshold=0.25 + shift / 256, v_reset=-0.25),
        inputs=(32,), outputs=(32,), edges=[("n1", "n3")], dt=1e-3, steps=6, reset=reset,
    )  # fmt: skip


def test_exact_sums_that_go_on_with_a_membrane() -> None:
    """Engines may add product by product to a membrane that is not on the sums' grid."""
    for seed in range(4):
        deployment = whole_numbers(np.random.default_rng(seed))
        inputs = uniform(deployment, 200, seed)
        certificate = certify(deployment, inputs)
        assert 0.95 < certificate.share < 1
        for engine in ENGINES.values():
            assert broken(certificate, engine.run(deployment, inputs)) == 0


MANY = np.full((1, 4000), np.float32(2e-5))


@pytest.mark.parametrize("through", ["nothing", "flatten", "scale", "pool", "matrix", "cancelling"])
def test_edges_that_are_summed_in_one_go(through: str) -> None:
    """What one edge brings stands in the partial sums while the terms of the other come."""
    big = 1024.0
    beside: dict[str, tuple[nir.NIRNode, list[float]]] = {
        "nothing": (nir.Scale(np.ones(1)), [big]),
        "flatten": (nir.Flatten({"input": np.array([1, 1])}, 0, -1), [big]),
        "scale": (nir.Scale(np.full(1, 0.5)), [2 * big]),
        "pool": (nir.Linear(np.ones((1, 2))), [big, 0.0]),
        "matrix": (nir.Linear(np.ones((1, 1))), [big]),
        "cancelling": (nir.Linear(np.array([[1.0, -1.0]])), [big, big]),
    }
    node, values = beside[through]
    shape = (1, 1) if through == "flatten" else (len(values),)
    total = sum(values) * (0.5 if through == "scale" else 1) * (through != "cancelling")
    threshold = total + MANY.size * float(MANY[0, 0]) - 0.03
    nodes = {
        "a": nir.Input({"input": np.array(shape)}),
        "b": nir.Input({"input": np.array([MANY.size])}),
        "beside": node,
        "many": nir.Linear(MANY),
        "if": nir.IF(np.ones(1), np.array([threshold]), np.zeros(1)),
        "output": nir.Output({"output": np.array([1])}),
    }
    edges = [("a", "beside"), ("beside", "if"), ("b", "many"), ("many", "if"), ("if", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    given = InputSpec((len(values) + MANY.size,), "frames", 0.0, 4096.0)
    deployment = Deployment(graph, Timing(1e-3, 1), given)
    inputs = np.array([*values, *np.ones(MANY.size)], np.float32)[None, None]
    certificate = certify(deployment, inputs)
    membrane = np.float32(big)
    for weight in MANY[0]:
        membrane = np.float32(membrane + weight)
    if through == "cancelling":
        membrane -= np.float32(big)
    # This engine is in the class and decides otherwise than exact arithmetic.
    assert certificate.spikes["if"].all()
    assert not membrane > np.float32(threshold)
    assert not certificate.certified["if"].any()


def test_a_cycle_that_a_side_branch_feeds() -> None:
    """Around cycles the order of the graph's nodes is not that of the simulator."""
    random, two = np.random.default_rng(0), np.array([2])
    nodes = {name: nir.Linear(random.normal(size=(2, 2))) for name in ("s", "a", "x", "m")}
    nodes |= {"input": nir.Input({"input": two}), "output": nir.Output({"output": two})}
    edges = [("input", "n"), ("input", "s"), ("n", "m"), ("m", "n"), ("n", "output"), ("s", "a")]
    edges += [("s", "x"), ("x", "m"), ("a", "output")]
    graph = nir.NIRGraph(nodes | {"n": lif((2,))}, edges, metadata={}, type_check=False)
    deployment = Deployment(graph, Timing(1e-3, 4), InputSpec((2,), "frames"))
    inputs = uniform(deployment, 3)
    certificate = certify(deployment, inputs)
    assert broken(certificate, Reference().run(deployment, inputs, "float32")) == 0


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_on_a_grid_everything_is_certified(reset: str, shift: float) -> None:
    """Also ties: without any error all engines see them, and all spike strictly above."""
    deployment = on_grid(np.random.default_rng(0), reset, shift)
    inputs = np.random.default_rng(1).integers(0, 2, (6, 40, 32)).astype(np.float32)
    certificate = certify(deployment, inputs)
    assert certificate.share == 1
    assert all((bounds == 0).all() for bounds in certificate.bounds.values())
    ties = sum(int((margin == 0).sum()) for margin in certificate.margins.values())
    assert ties > 0 or shift
    for engine in ENGINES.values():
        assert broken(certificate, engine.run(deployment, inputs)) == 0


def test_integers_are_proven_in_every_simulator() -> None:
    deployment = on_grid(np.random.default_rng(0), "zero", 0.5)
    data = np.random.default_rng(1).integers(0, 2, (40, 6, 32)).astype(np.float32)
    verdict = check(
        deployment,
        deployment,
        data=data,
        random=0,
        precision="float32",
        simulators=["reference", "fast", "norse", "onnxruntime"],
    )
    assert verdict.kind is Kind.PROVEN
    assert verdict.certified_share == 1


def test_a_current_without_memory_keeps_the_grid() -> None:
    """CubaLIF with tau_syn = dt, as the dialect `portable` writes LIF."""
    ones, random = np.ones(16), np.random.default_rng(0)
    neurons = nir.CubaLIF(
        1e-3 * ones, 2e-3 * ones, 2 * ones, 0 * ones, (1 + 2**-7) * ones, 0 * ones, ones
    )
    layer = nir.Linear(random.integers(-127, 128, (16, 12)) / 64)
    deployment = chain(layer, neurons, inputs=(12,), outputs=(16,), dt=1e-3, steps=6)
    inputs = random.integers(0, 2, (6, 40, 12)).astype(np.float32)
    certificate = certify(deployment, inputs)
    assert (certificate.bounds["n1"] == 0).all()
    for engine in (Reference(), Norse(), OnnxRuntime(threads=1)):
        assert broken(certificate, engine.run(deployment, inputs, "float32")) == 0


def test_no_grid_is_fine_enough_for_ever() -> None:
    """Halving a membrane takes a bit each step; beyond 24 of them engines round."""
    shape = {"inputs": (8,), "outputs": (4,), "dt": 1e-3}
    weight = np.random.default_rng(0).integers(-9, 10, (4, 8)) / 8
    inputs = np.random.default_rng(1).integers(0, 2, (40, 9, 8)).astype(np.float32)
    for steps in (8, 40):
        deployment = chain(nir.Linear(weight), lif((4,), v_threshold=3.0), steps=steps, **shape)
        bounds = certify(deployment, inputs[:steps]).bounds["n1"]
        assert (bounds == 0).all() == (steps == 8)
        assert (bounds[:8] == 0).all()


def test_ties_of_rounded_numbers_are_not_certified() -> None:
    """0.1 + 0.2 + ... against a threshold that only exact arithmetic reaches."""
    weight, neuron = np.array([[0.1, 0.2, 0.3]]), nir.IF(*np.array([[1.0], [0.6], [0.0]]))
    deployment = chain(nir.Linear(weight), neuron, inputs=(3,), outputs=(1,), steps=1)
    assert certify(deployment, np.ones((1, 1, 3), np.float32)).share == 0
    shifted = with_thresholds(deployment, {"n1": np.array([0.6 + 1e-5])})
    assert certify(shifted, np.ones((1, 1, 3), np.float32)).share == 1


@settings(deadline=None, max_examples=80)
@given(deployment=deployments())
def test_any_graph(deployment: Deployment) -> None:
    inputs = stimulus(deployment).astype(np.float32)
    certificate = certify(deployment, inputs)
    for engine in (Reference(), Fast(), Norse()):
        assert broken(certificate, engine.run(deployment, inputs, "float32")) == 0
        assert broken(certificate, engine.run(deployment, inputs, "float64")) == 0
    runtime = OnnxRuntime(threads=1)
    if not runtime.unsupported(deployment, "float32"):
        assert broken(certificate, runtime.run(deployment, inputs, "float32")) == 0


@settings(deadline=None, max_examples=80)
@given(deployment=deployments())
def test_any_graph_in_float64(deployment: Deployment) -> None:
    inputs = stimulus(deployment)
    certificate = certify(deployment, inputs, "float64")
    for engine in (Reference(), Fast(), Norse()):
        assert broken(certificate, engine.run(deployment, inputs)) == 0


@settings(deadline=None, max_examples=40)
@given(deployment=deployments())
def test_memory_changes_nothing(deployment: Deployment) -> None:
    """Chunks of samples and steps, however small."""
    inputs = stimulus(deployment)
    whole, parts = certify(deployment, inputs), certify(deployment, inputs, memory=500)
    for name, bounds in whole.bounds.items():
        np.testing.assert_allclose(parts.bounds[name], bounds, rtol=1e-5)
        assert np.mean(parts.certified[name] == whole.certified[name]) > 0.99


def test_more_roundings_than_can_be_bounded() -> None:
    """Two ways meet twenty-five times: more terms than gamma is defined for."""
    one, nodes, edges = np.array([1]), {}, []
    nodes["input"], last = nir.Input({"input": one}), "input"
    for i in range(25):
        ways = [f"{way}{i}" for way in "ab"]
        nodes |= {name: nir.Scale(np.full(1, 0.3)) for name in (*ways, f"c{i}")}
        edges += [(last, name) for name in ways] + [(name, f"c{i}") for name in ways]
        last = f"c{i}"
    nodes |= {"if": nir.IF(np.ones(1), np.full(1, 1e-9), np.zeros(1))}
    nodes["output"] = nir.Output({"output": one})
    edges += [(last, "if"), ("if", "output")]
    graph = nir.NIRGraph(nodes, edges, metadata={}, type_check=False)
    deployment = Deployment(graph, Timing(1e-3, 2), InputSpec((1,), "frames"))
    certificate = certify(deployment, np.ones((2, 1, 1), np.float32))
    assert not certificate.certified["if"].any()
