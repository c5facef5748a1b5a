"""Independent evidence: the reference against Norse, torch, and other people's traces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy.deployment import Deployment
from msg_deploy.errors import UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.fold import fold_two
from msg_deploy.exporters.trace import trace
from msg_deploy.sim.norse import BUILDERS, Norse
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray, Trace, simulator, simulators
from msg_deploy.sim.torch_core import TorchCore
from tests.helpers import chain, lif, random_network, samples


def assert_same(a: Trace, b: Trace) -> None:
    assert list(a.spikes) == list(b.spikes)
    for node in a.spikes:
        assert a.spikes[node].dtype == b.spikes[node].dtype == np.uint8
        np.testing.assert_array_equal(a.spikes[node], b.spikes[node])
        np.testing.assert_allclose(a.membranes[node], b.membranes[node], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a.currents, b.currents, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-12, atol=1e-12)


def norse_agrees(deployment: Deployment, inputs: FloatArray) -> Trace:
    assert Norse().unsupported(deployment) == []
    found = Reference().run(deployment, inputs)
    assert_same(found, Norse().run(deployment, inputs))
    return found


def test_registry() -> None:
    known = "fast, integer, norse, onnx_reference, onnxruntime, reference"
    assert ", ".join(simulators()) == known
    with pytest.raises(UsageError, match=f"unknown simulator 'magic'; there are {known}"):
        simulator("magic")


@pytest.mark.parametrize("fold", ["host", "delay"])
@pytest.mark.parametrize("name", ["mlp", "convnet"])
@pytest.mark.parametrize(
    "neuron",
    [
        {},
        {"tau": 1.0},
        {"tau": 3.7, "v_reset": 0.1, "v_threshold": 0.25},
        {"reset": "subtract"},
        {"tau": float("inf")},
        {"tau": float("inf"), "reset": "subtract", "v_threshold": 0.8},
    ],
)
def test_torch_reference_and_norse(name: str, neuron: dict[str, Any], fold: Any) -> None:
    network = random_network(name, **neuron)
    deployment = fold_two(trace(network), fold)
    inputs = np.broadcast_to(samples(6), (5, 6, 1, 8, 8))
    found = norse_agrees(deployment, inputs)
    assert_same(TorchCore(network).run(deployment, inputs), found)
    rates = [s.mean() for s in found.spikes.values()]
    assert all(0 < rate < 1 for rate in rates), "a silent or saturated layer shows nothing"


values = st.floats(-1, 1)


@settings(deadline=None, max_examples=60)
@given(
    tau=st.floats(1e-3, 0.1),
    r=st.floats(0.2, 3),
    v_leak=values,
    v_reset=values,
    v_threshold=st.floats(0.2, 1),
    reset=st.sampled_from(["zero", "subtract"]),
    seed=st.integers(0, 10**6),
)
def test_norse_on_every_parameter(
    tau: float,
    r: float,
    v_leak: float,
    v_reset: float,
    v_threshold: float,
    reset: Any,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    neuron = lif((4,), tau=tau, r=r, v_leak=v_leak, v_reset=v_reset, v_threshold=v_threshold)
    weight, back = random.normal(size=(4, 3)), nir.Affine(random.normal(size=(4, 4)), np.ones(4))
    deployment = chain(
        nir.Linear(weight),
        neuron,
        back,
        nir.IF(r=np.full(4, r), v_threshold=np.full(4, v_threshold), v_reset=np.full(4, v_reset)),
        nir.Delay(random.uniform(0, 4e-3, 4)),
        nir.LI(tau=np.full(4, tau), r=np.full(4, r), v_leak=np.full(4, v_leak)),
        inputs=[3],
        outputs=[4],
        edges=[("n2", "n1"), ("n1", "n5")],  # recurrence, and a skip edge
        steps=12,
        reset=reset,
    )
    norse_agrees(deployment, random.normal(size=(12, 5, 3)))


@settings(deadline=None, max_examples=40)
@given(
    tau=st.floats(1e-3, 0.1),
    tau_syn=st.floats(1e-3, 0.1),
    v_leak=values,
    v_reset=values,
    reset=st.sampled_from(["zero", "subtract"]),
    seed=st.integers(0, 10**6),
)
def test_norse_on_currents_and_feedback(
    tau: float, tau_syn: float, v_leak: float, v_reset: float, reset: Any, seed: int
) -> None:
    random = np.random.default_rng(seed)
    neuron = nir.CubaLIF(
        tau_syn=np.full(4, tau_syn),
        tau_mem=np.full(4, tau),
        r=random.uniform(1, 9, 4),
        v_leak=np.full(4, v_leak),
        v_threshold=random.uniform(0.2, 1, 4),
        v_reset=np.full(4, v_reset),
        w_in=random.uniform(1, 9, 4),
    )
    deployment = chain(
        nir.Linear(random.normal(size=(4, 3))),
        neuron,
        nir.Affine(random.normal(size=(4, 4)), np.ones(4)),
        nir.I(random.normal(size=4)),
        nir.Threshold(random.normal(size=4)),
        nir.Scale(-random.uniform(0, 1, 4)),
        nir.CubaLI(*random.uniform(2e-3, 9e-3, (2, 4)), *random.normal(size=(3, 4))),
        inputs=[3],
        outputs=[4],
        edges=[("n2", "n1"), ("n5", "n3")],
        steps=12,
        reset=reset,
    )
    norse_agrees(deployment, random.normal(size=(12, 5, 3)))


def test_norse_on_pooling_and_convolution() -> None:
    random = np.random.default_rng(0)
    two = np.array([2, 2])
    deployment = chain(
        nir.Conv2d(None, random.normal(size=(4, 1, 3, 2)), two, "valid", two // 2, 2, np.ones(4)),
        lif((4, 4, 5)),
        nir.AvgPool2d(two, two, two // 2),
        nir.SumPool2d(two, two // 2, two * 0),
        nir.Flatten({"input": np.array([4, 2, 2])}, 1, 2),
        inputs=[2, 9, 11],
        outputs=[4, 4],
        steps=3,
    )
    norse_agrees(deployment, random.normal(size=(3, 2, 2, 9, 11)))


def test_recurrent_bias_is_not_applied_at_the_first_step() -> None:
    # The cycle carries the previous step's value, 0 at t = 0: V = 0, then the bias 1 each step.
    deployment = chain(
        lif(tau=1e-3),
        nir.Affine(np.zeros((1, 1)), np.ones(1)),
        inputs=[1],
        outputs=[1],
        edges=[("n1", "n0")],
        steps=3,
    )
    found = norse_agrees(deployment, np.zeros((3, 1, 1)))
    assert found.membranes["n0"].ravel().tolist() == [0, 1, 1]


def test_membrane_starts_at_v_leak() -> None:
    deployment = chain(lif(v_leak=0.3), inputs=[1], outputs=[1], steps=2)
    found = norse_agrees(deployment, np.zeros((2, 1, 1)))
    assert found.membranes["n0"].ravel() == pytest.approx([0.3, 0.3])


def test_scores_without_readout_are_sums() -> None:
    deployment = chain(nir.Linear(np.eye(2)), inputs=[2], outputs=[2], steps=3)
    inputs = np.arange(6, dtype=float).reshape(3, 1, 2)
    assert Reference().run(deployment, inputs).scores.tolist() == [[6, 9]]


@pytest.mark.parametrize("engine", [Reference(), Norse()])
def test_paper_neuron(paper_lif: Path, engine: Any) -> None:
    """NIR paper, 01_lif: the graph that every platform imports, against what Norse recorded."""
    deployment = nir_file.read(
        paper_lif / "lif_norse.nir", nir_file.ForeignTiming(dt=1e-4, steps=1000, reset="zero")
    )
    table = np.loadtxt(paper_lif / "lif_norse.csv", delimiter=",")
    found = engine.run(deployment, table[:, 0].reshape(-1, 1, 1))
    (node,) = found.spikes
    assert np.flatnonzero(found.spikes[node]).tolist() == [460, 510, 710, 760]
    assert np.array_equal(found.spikes[node].ravel(), table[:, 2])
    after_reset = np.where(found.spikes[node] == 1, 0.0, found.membranes[node]).ravel()
    assert np.abs(after_reset - table[:, 1]).max() < 1e-6


def test_float32_is_float32() -> None:
    deployment = trace(random_network())
    inputs = np.broadcast_to(samples(2), (5, 2, 1, 8, 8))
    for engine in (Reference(), Norse(), TorchCore(random_network())):
        assert engine.run(deployment, inputs, "float32").scores.dtype == np.float32


def test_wrong_input_shape() -> None:
    deployment = trace(random_network())
    for shape in ((5, 2, 8, 8), (4, 2, 1, 8, 8), (5,)):
        with pytest.raises(UsageError, match=r"wrong input shape.*T = 5 steps of \(1, 8, 8\)"):
            Reference().run(deployment, np.zeros(shape))


def test_unmapped_nodes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BUILDERS, nir.Threshold)
    deployment = chain(nir.Threshold(np.ones(1)), inputs=[1], outputs=[1])
    assert Norse().unsupported(deployment) == ["node 'n0': Threshold is not mapped to Norse"]


def test_the_trained_module_is_not_changed() -> None:
    network = random_network()
    TorchCore(network).run(trace(network), np.zeros((5, 1, 1, 8, 8)))
    assert next(network.parameters()).dtype.itemsize == 4
    assert all(m.observer is None for m in network.modules() if hasattr(m, "observer"))


def test_deployments_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        trace(random_network()).timing.dt = 1.0  # type: ignore[misc]
