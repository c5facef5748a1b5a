"""The fast simulator gives what the reference gives, whatever it does at once."""

from __future__ import annotations

from typing import Any

import nir
import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy import trace
from msg_deploy.deployment import Deployment, Timing
from msg_deploy.errors import UsageError
from msg_deploy.exporters.fold import FOLDS, fold_two
from msg_deploy.graph import plan
from msg_deploy.options import Precision
from msg_deploy.sim.fast import Fast, events, int8, kernels, packed
from msg_deploy.sim.fast.chunks import chunks
from msg_deploy.sim.fast.engine import Engine
from msg_deploy.sim.integer import kernels as integer_kernels
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.torch_core import TorchCore
from msg_deploy.sim.torch_layers import LAYERS, Context
from tests.helpers import chain, lif, random_network, samples
from tests.strategies import deployments
from tests.test_properties import assert_same, stimulus

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.")
SMALL = 500
"""Bytes that hold a step or two of one sample."""


@settings(deadline=None, max_examples=100)
@given(deployment=deployments(), memory=st.sampled_from([SMALL, 2**31]))
def test_any_graph(deployment: Deployment, memory: int) -> None:
    inputs = stimulus(deployment)
    expected = Reference().run(deployment, inputs)
    fast = Fast(memory)
    found = fast.run(deployment, inputs)
    assert_same(expected, found, 1e-9)
    for name, membranes in expected.membranes.items():
        np.testing.assert_allclose(found.membranes[name], membranes, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-9, atol=1e-9)
    alone = fast.scores(deployment, inputs, "float64")
    np.testing.assert_allclose(alone, expected.scores, rtol=1e-9, atol=1e-9)


def integral(deployment: Deployment) -> Deployment:
    """The same structure with weights in eighths, and time constants that halve: no rounding."""
    for node in deployment.graph.nodes.values():
        for field in ("weight", "bias", "scale", "r", "w_in", "v_threshold", "v_reset", "v_leak"):
            if hasattr(node, field):
                setattr(node, field, np.rint(np.asarray(getattr(node, field)) * 8) / 8)
        for field in ("tau", "tau_mem", "tau_syn"):
            if hasattr(node, field):
                setattr(node, field, np.full_like(getattr(node, field), 2 * deployment.timing.dt))
    return deployment


@settings(deadline=None, max_examples=60)
@given(deployment=deployments(), memory=st.sampled_from([SMALL, 2**31]))
def test_graphs_that_round_nothing_to_the_bit(deployment: Deployment, memory: int) -> None:
    deployment = integral(deployment)
    shape = (deployment.timing.steps, 3, *deployment.input.shape)
    inputs = np.random.default_rng(0).integers(0, 2, shape).astype(np.float64)
    expected = Reference().run(deployment, inputs)
    found = Fast(memory).run(deployment, inputs)
    assert_same(expected, found)
    for name, membranes in expected.membranes.items():
        assert np.array_equal(found.membranes[name], membranes), name


@pytest.mark.parametrize("name", ["mlp", "convnet", "vggsnn", "resnet18", "sew_resnet34"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_networks(name: str, precision: Precision) -> None:
    small = name in ("mlp", "convnet")
    shape = (1, 8, 8) if small else (1, 16, 16)
    options = {} if small else {"width": 4, "v_threshold": 0.05}
    network = random_network(name, shape=shape, **options)
    deployment = trace(network)
    inputs = np.random.default_rng(0).uniform(0, 1, (1, 6, *shape)).repeat(5, axis=0)
    core = TorchCore(network).run(deployment, inputs, precision)
    found = Fast().run(deployment, inputs, precision)
    assert all(spikes.any() for spikes in list(found.spikes.values())[:2])
    assert_same(core, found, 1e-4 if precision == "float32" else 1e-9)


@pytest.mark.parametrize("fold", FOLDS)
def test_every_folding(fold: str) -> None:
    deployment = fold_two(trace(random_network()), fold)  # type: ignore[arg-type]
    inputs = np.random.default_rng(0).uniform(0, 1, (5, 6, 1, 8, 8))
    expected = Reference().run(deployment, inputs).scores
    np.testing.assert_allclose(Fast().scores(deployment, inputs, "float64"), expected, rtol=1e-9)


def test_the_last_matrix_is_not_run_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = trace(random_network())
    rows: list[int] = []
    linear = torch.nn.functional.linear

    def counting(x: torch.Tensor, *others: torch.Tensor | None) -> torch.Tensor:
        rows.append(len(x))
        return linear(x, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(packed, "available", lambda: False)
    monkeypatch.setattr(torch.nn.functional, "linear", counting)
    sample = np.random.default_rng(0).uniform(0, 1, (1, 20, 1, 8, 8)).repeat(5, axis=0)
    Fast().scores(deployment, sample)
    # The first layer's input is constant: once for each sample. The second's is not. The third is
    # run on what its input adds up to.
    assert rows == [20, 100, 20]


def test_wrong_inputs() -> None:
    with pytest.raises(UsageError, match="wrong input shape"):
        Fast().run(chain(lif((2,)), inputs=[2], outputs=[2]), np.zeros((8, 1, 3)))


def test_threads_are_as_before() -> None:
    before = torch.get_num_threads(), numba.get_num_threads()
    deployment = chain(lif((2,)), inputs=[2], outputs=[2])
    Fast(threads=1).run(deployment, np.zeros((8, 1, 2)))
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def test_per_neuron_parameters_of_images() -> None:
    """Images lie in memory with their channels last; parameters must follow."""
    random = np.random.default_rng(0)

    def each(low: float, high: float) -> np.ndarray:
        return random.uniform(low, high, (3, 4, 5))

    node = nir.LIF(each(1e-3, 9e-3), each(1, 3), each(-1, 0), each(0.1, 0.6), each(-0.5, 0))
    deployment = chain(node, inputs=[3, 4, 5], outputs=[3, 4, 5])
    inputs = random.uniform(0, 1, (8, 2, 3, 4, 5))
    expected = Reference().run(deployment, inputs)
    assert_same(expected, Fast().run(deployment, inputs))
    assert np.array_equal(expected.membranes["n0"], Fast().run(deployment, inputs).membranes["n0"])


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 10_000), st.integers(1, 2_000_000))
def test_chunks_hold_everything_once_and_fit(
    samples: int, steps: int, each: int, budget: int
) -> None:
    seen = np.zeros((samples, steps), int)
    begun: dict[int, int] = {}
    for batch, times in chunks(samples, steps, each, budget):
        part = seen[batch, times]
        assert part.size == 1 or part.size * each <= budget
        # The steps of a sample come in their order, and its states are handed on at once.
        assert begun.setdefault(batch.start, 0) == times.start
        begun[batch.start] = min(times.stop, steps)
        seen[batch, times] += 1
    assert np.all(seen == 1)


def on_a_grid(deployment: Deployment, step: float) -> Deployment:
    """Weights as int8 multiples of a step, biases too: an integer network, scaled."""
    for node in deployment.graph.nodes.values():
        if hasattr(node, "weight"):
            size = 127 / np.abs(node.weight).max()
            node.weight = np.rint(node.weight * size) * step
            node.bias = np.rint(np.asarray(node.bias) * size) * step
        if isinstance(node, nir.LIF):
            node.v_threshold = np.full_like(node.v_threshold, 40.5 * step)
    return deployment


@pytest.mark.parametrize(
    ("name", "whole"), [("mlp", 2), ("convnet", 0), ("resnet18", 19), ("sew_resnet34", 35)]
)
@pytest.mark.parametrize("step", [1.0, 2.0**-7])
def test_integers_to_the_bit(name: str, whole: int, step: float) -> None:
    options = {} if name in ("mlp", "convnet") else {"width": 4}
    network = random_network(name, shape=(1, 16, 16), **options)
    deployment = on_a_grid(trace(network), step)
    inputs = np.random.default_rng(0).integers(0, 2, (5, 3, 1, 16, 16)).astype(np.float32)
    fast = Fast()
    found = fast.run(deployment, inputs, "float32")
    engine = Engine(deployment, plan(deployment.graph), torch.float32)
    if int8.available():
        # The first layer's input is not known to be whole; what follows AvgPool2d is not.
        assert len(engine.whole) == whole
    expected = Reference().run(deployment, inputs, "float32")
    assert any(spikes.any() for spikes in list(expected.spikes.values())[1:])
    assert_same(expected, found)
    alone = fast.scores(deployment, inputs)
    np.testing.assert_allclose(alone, expected.scores, rtol=1e-5, atol=1e-5 * abs(alone).max())
    for layer, membranes in expected.membranes.items():
        assert np.array_equal(found.membranes[layer], membranes), layer


def test_what_would_round_stays_float() -> None:
    weight = np.array([[3.0, -1.0]])

    def taken(node: nir.NIRNode, largest: int | None = 1) -> bool:
        return int8.layer("n", node, largest) is not None

    if not int8.available():
        pytest.skip("no int8 operators here")
    assert taken(nir.Linear(weight))
    assert not taken(nir.Linear(weight), largest=None)
    assert not taken(nir.Linear(weight * 0.3))
    assert not taken(nir.Linear(np.array([[3.0, 1000.0]])))
    assert not taken(nir.Affine(weight, np.array([0.3])))
    # 2^24 steps: float32 would round, and so would the cast from int32.
    wide = np.full((1, 2**18), 127.0)
    wide[0, 0] = 1
    assert not taken(nir.Linear(wide))
    assert taken(nir.Linear(wide[:, : 2**17]))


def test_without_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "available", lambda: False)
    deployment = on_a_grid(trace(random_network()), 1.0)
    assert not Engine(deployment, plan(deployment.graph), torch.float32).whole


@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
)
@settings(deadline=None, max_examples=40)
def test_a_convolution_by_events(
    seed: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
) -> None:
    random = np.random.default_rng(seed)
    inputs, outputs = channels
    node = nir.Conv2d(
        None,
        random.normal(size=(outputs, inputs, *kernel)),
        stride,
        padding,
        dilation,
        1,
        random.normal(size=outputs),
    )
    x = torch.from_numpy((random.random((3, inputs, 7, 6)) < 0.2) * random.normal())
    context = Context(Timing(), (inputs, 7, 6), torch.float64)
    dense = LAYERS[nir.Conv2d](node, context)
    shape = tuple(dense(x).shape[1:])
    found = events._convolution(node, shape, torch.float64)(x)
    torch.testing.assert_close(found, dense(x), rtol=1e-12, atol=1e-12)


def test_few_events_are_added_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    node = nir.Affine(np.random.default_rng(0).normal(size=(5, 100)), np.arange(5.0))
    used: list[str] = []
    for way, name in (("_matrix", "events"), ("dense", "dense")):
        monkeypatch.setattr(
            events,
            way,
            lambda *_, name=name: lambda x: used.append(name) or x.new_zeros(len(x), 5),
        )
    layer = events.by_density(node, (5,), Context(Timing(), (100,), torch.float32))
    for rows, arriving in ((17, 0), (17, 8), (17, 9), (16, 20), (16, 21)):
        x = torch.zeros(rows, 100)
        x[:, :arriving] = 1
        layer(x)
    assert used == ["events", "events", "dense", "events", "dense"]


GEOMETRIES = {
    "one channel": (1, 4, 3, 1, 1, 1, 1),
    "stride": (3, 6, (3, 2), (2, 1), (1, 0), 1, 3),
    "dilation": (2, 6, 3, 1, 2, 2, 2),
    "by channel": (8, 8, 5, 2, (2, 1), 1, 8),
    "same": (4, 5, 3, 1, "same", 1, 1),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_convolution_laid_out_once(geometry: tuple[Any, ...], channels_last: bool) -> None:
    inputs, outputs, kernel, stride, padding, dilation, groups = geometry
    random = np.random.default_rng(0)
    kernels = np.broadcast_to(kernel, 2)
    weight = random.normal(size=(outputs, inputs // groups, *kernels))
    bias = random.normal(size=outputs)
    node = nir.Conv2d((9, 8), weight, stride, padding, dilation, groups, bias)
    x = torch.from_numpy(random.normal(size=(3, inputs, 9, 8)).astype(np.float32))
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    found = packed.dense(node, Context(Timing(), (inputs, 9, 8), torch.float32))(x)
    expected = LAYERS[nir.Conv2d](node, Context(Timing(), (inputs, 9, 8), torch.float64))(
        x.double()
    )
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 300])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_matrix_laid_out_once(rows: int, with_bias: bool) -> None:
    random = np.random.default_rng(0)
    weight, bias = random.normal(size=(200, 200)), random.normal(size=200)
    assert weight.size >= packed.SMALL
    node = nir.Affine(weight, bias) if with_bias else nir.Linear(weight)
    x = torch.from_numpy(random.normal(size=(rows, 200)).astype(np.float32))
    found = packed.dense(node, Context(Timing(), (200,), torch.float32))(x)
    expected = x.double() @ torch.from_numpy(weight).T + (torch.from_numpy(bias) * with_bias)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-4)


def test_without_the_operators_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "available", lambda: False)
    monkeypatch.setattr(packed, "_matrix", lambda *_: pytest.fail("there is no such operator"))
    node = nir.Linear(np.ones((200, 200)))
    x = torch.ones(2, 200)
    found = packed.dense(node, Context(Timing(), (200,), torch.float32))(x)
    assert torch.equal(found, torch.full((2, 200), 200.0))


def test_a_matrix_by_events() -> None:
    random = np.random.default_rng(0)
    node = nir.Affine(random.normal(size=(5, 40)), random.normal(size=5))
    x = torch.from_numpy((random.random((6, 40)) < 0.1) * 0.7)
    expected = LAYERS[nir.Affine](node, Context(Timing(), (40,), torch.float64))(x)
    found = events._matrix(node, torch.float64)(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("bias", [0.0, 0.2])
@pytest.mark.parametrize("memory", [300, 2**31])
def test_a_neuron_that_feeds_back(kind: str, reset: str, bias: float, memory: int) -> None:
    random = np.random.default_rng(0)
    one, some = np.ones(6), random.uniform(0.5, 1.5, 6)
    neurons = {
        "LIF": nir.LIF(3e-3 * some, 2 * one, 0.1 * one, 0.5 * some, -0.1 * one),
        "IF": nir.IF(some, one, 0.1 * one),
        "CubaLIF": nir.CubaLIF(2e-3 * some, 3e-3 * one, 2 * one, 0 * one, 0.3 * some, 0 * one, one),
    }
    deployment = chain(
        nir.Linear(random.normal(size=(6, 4))),
        neurons[kind],
        nir.Affine(random.normal(size=(6, 6)), bias * one),
        inputs=[4],
        outputs=[6],
        steps=12,
        dt=1e-3,
        reset=reset,
    )
    edges = [e for e in deployment.graph.edges if e != ("n2", "output")]
    deployment.graph.edges[:] = [*edges, ("n1", "output"), ("n2", "n1")]
    assert Engine(deployment, plan(deployment.graph), torch.float64).loops
    inputs = random.normal(size=(12, 5, 4))
    expected = Reference().run(deployment, inputs)
    found = Fast(memory).run(deployment, inputs)
    assert 0.05 < expected.spikes["n1"].mean() < 0.95
    assert_same(expected, found, 1e-12)
    np.testing.assert_allclose(found.membranes["n1"], expected.membranes["n1"], atol=1e-12)
    counted = {s.node: s for s in Fast(memory).activity(deployment, inputs, "float64").synapses}
    assert counted["n2"].effective.sum() == 6 * expected.spikes["n1"].sum()


@pytest.mark.parametrize("shape", [(40, 30), (9, 16, 20, 20), (7, 1, 5, 5), (0, 3)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_density(shape: tuple[int, ...], share: float) -> None:
    x = torch.from_numpy(np.random.default_rng(0).random(shape) < share).float()
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = float(x.mean()) if x.numel() else 0.0
    assert events.density(x) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("work", [0, 2**40])
def test_kernels_for_one_thread_and_several_agree(
    work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the work: all samples by the one, all by the other."""
    deployment = trace(random_network("convnet", steps=4))
    inputs = np.repeat(samples(3)[None], 4, axis=0)
    expected = Fast().run(deployment, inputs, "float32")
    monkeypatch.setattr(kernels, "SERIAL", work)
    found = Fast().run(deployment, inputs, "float32")
    assert all(np.array_equal(found.spikes[n], expected.spikes[n]) for n in expected.spikes)
    assert np.array_equal(found.scores, expected.scores)


def test_kernels_for_several_threads_have_machine_code_of_their_own() -> None:
    """Numba keeps machine code by name; one name for both would give one for both."""
    found = [k for k in vars(kernels).values() if isinstance(k, kernels.Kernel)]
    found.append(integer_kernels.advance)
    assert len(found) == 7
    for made in found:
        serial, parallel = made.serial.py_func, made.parallel.py_func  # type: ignore[attr-defined]
        assert parallel.__qualname__ == f"{serial.__qualname__}_parallel"
        assert made.parallel.targetoptions["parallel"]  # type: ignore[attr-defined]


def test_a_loop_beside_an_edge_of_a_neuron_to_itself() -> None:
    random = np.random.default_rng(0)
    back = nir.Affine(random.normal(size=(3, 3)), np.full(3, 0.1))
    edges = [("n1", "n0"), ("n0", "n0"), ("n0", "output")]
    deployment = chain(
        lif((3,), v_threshold=0.3), back, inputs=(3,), outputs=(3,), edges=edges, steps=8
    )
    kept = [e for e in deployment.graph.edges if e != ("n1", "output")]
    graph = nir.NIRGraph(deployment.graph.nodes, kept, metadata={}, type_check=False)
    deployment = deployment.with_graph(graph)
    inputs = random.uniform(0, 1, (8, 4, 3))
    expected, found = (s.run(deployment, inputs).spikes["n0"] for s in (Reference(), Fast()))
    assert np.array_equal(found, expected)
    assert 0 < expected.mean() < 1


def test_scores_after_an_interruption() -> None:
    deployment = trace(random_network(steps=4))
    inputs = np.array(np.broadcast_to(samples(6), (4, 6, 1, 8, 8)))
    engine = Fast()
    expected = engine.scores(deployment, inputs)
    watcher = engine._ready(deployment, "float32").scores
    # What a run leaves behind that ends between two chunks of steps.
    watcher.totals = {name: torch.ones(6, 10) for name in watcher.names}
    assert np.array_equal(engine.scores(deployment, inputs), expected)
