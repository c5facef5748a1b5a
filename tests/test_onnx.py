"""The ONNX models do what the trained module and the reference do, in two runtimes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from msg_deploy.deployment import Deployment, Readout
from msg_deploy.errors import GraphError, UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.fold import fold_two
from msg_deploy.exporters.onnx.build import NEWEST_OPSET, OLDEST_OPSET, OnnxOptions, build
from msg_deploy.exporters.onnx.file import OnnxModel, in_memory, inlined
from msg_deploy.exporters.onnx.writers import writers
from msg_deploy.exporters.trace import trace
from msg_deploy.primitives import registry
from msg_deploy.sim.compare import TOLERANCE, compare, layout
from msg_deploy.sim.onnx_engine import OnnxEngine
from msg_deploy.sim.onnx_reference import OnnxReference
from msg_deploy.sim.onnxruntime import OnnxRuntime
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray, Trace
from msg_deploy.sim.torch_core import TorchCore
from msg_deploy.sim.verdict import Kind
from tests.helpers import chain, lif, random_network, samples

LAYOUTS = ("sequence", "unrolled", "step")
ENGINES = (OnnxRuntime, OnnxReference)


def model_of(deployment: Deployment, inline: bool = False, **options: Any) -> OnnxModel:
    """A checked model in memory."""
    made = build(deployment, OnnxOptions(**options))
    made = inlined(made) if inline else made
    onnx.checker.check_model(ir.to_proto(made), full_check=True)
    return in_memory(made)


def operators(model: OnnxModel) -> set[tuple[str, str]]:
    """(domain, name) of all operators, those in the bodies of Scans included."""

    def of(graph: onnx.GraphProto) -> set[tuple[str, str]]:
        found = {(node.domain, node.op_type) for node in graph.node}
        for node in graph.node:
            for attribute in node.attribute:
                found |= of(attribute.g)
        return found

    return of(model.proto.graph)


def assert_identical(deployment: Deployment, expected: Trace, found: Trace) -> None:
    compared = compare(expected, found, layout(deployment), TOLERANCE["float32"])
    assert compared.kind is Kind.IDENTICAL, compared
    active = [0 < spikes.mean() < 1 for spikes in expected.spikes.values()]
    assert np.mean(active) > 0.5, "nothing is shown"


def repeated(deployment: Deployment, shape: tuple[int, ...], count: int = 3) -> FloatArray:
    drawn = samples(count, shape=shape)
    return np.broadcast_to(drawn, (deployment.timing.steps, *drawn.shape))


@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {}),
        ("mlp", {"reset": "subtract", "tau": 3.7, "v_threshold": 0.3}),
        ("mlp", {"tau": float("inf"), "v_reset": 0.1}),
        ("convnet", {}),
        ("vggsnn", {"width": 2, "v_threshold": 0.1}),
        ("resnet18", {"width": 2, "v_threshold": 0.1}),
        ("sew_resnet34", {"width": 2, "v_threshold": 0.1, "reset": "subtract"}),
    ],
)
def test_networks(name: str, options: dict[str, Any], written: Any) -> None:
    deep = "width" in options
    shape = (1, 16, 16) if deep else (1, 8, 8)
    network = random_network(name, steps=3 if deep else 5, shape=shape, **options)
    deployment = trace(network)
    inputs = repeated(deployment, shape)
    expected = TorchCore(network).run(deployment, inputs, "float32")
    model = model_of(deployment, layout=written)
    for engine in ENGINES:
        assert_identical(deployment, expected, engine().run_model(model, inputs))


# v += 0.5 (x - v) with x = 1, threshold 0.5, worked by hand; 0.5 itself does not spike.
TABLE = {"zero": [0, 1, 0, 1, 0, 1], "subtract": [0, 1, 1, 1, 1, 1]}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize("reset", TABLE)
def test_a_neuron_worked_by_hand(reset: str, written: Any, engine: Any) -> None:
    deployment = chain(lif(tau=2e-3), inputs=[1], outputs=[1], steps=6, dt=1e-3, reset=reset)
    found = engine().run_model(model_of(deployment, layout=written), np.ones((6, 1, 1)))
    assert found.spikes["n0"].ravel().tolist() == TABLE[reset]
    assert found.scores.tolist() == [[sum(TABLE[reset])]]


@pytest.mark.parametrize("written", LAYOUTS)
def test_a_recurrent_cuba_lif(written: Any) -> None:
    random = np.random.default_rng(0)
    neuron = nir.CubaLIF(
        tau_syn=random.uniform(2e-3, 9e-3, 6),
        tau_mem=random.uniform(2e-3, 9e-3, 6),
        r=random.uniform(1, 9, 6),
        v_leak=random.uniform(-0.2, 0.2, 6),
        v_threshold=random.uniform(0.2, 1, 6),
        v_reset=random.uniform(-0.2, 0.2, 6),
        w_in=random.uniform(1, 9, 6),
    )
    deployment = chain(
        nir.Linear(random.normal(size=(6, 4))),
        neuron,
        nir.Affine(random.normal(size=(6, 6)), random.normal(size=6)),
        inputs=[4],
        outputs=[6],
        edges=[("n2", "n1")],
        steps=20,
        dt=1e-3,
    )
    inputs = random.normal(size=(20, 5, 4))
    expected = Reference().run(deployment, inputs, "float32")
    model = model_of(deployment, layout=written)
    assert (("", "Scan") in operators(model)) is (written == "sequence")
    for engine in ENGINES:
        assert_identical(deployment, expected, engine().run_model(model, inputs))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_neuron_of_the_nir_paper(paper_lif: Path, engine: Any) -> None:
    timing = nir_file.ForeignTiming(dt=1e-4, steps=1000, reset="zero")
    deployment = nir_file.read(paper_lif / "lif_norse.nir", timing)
    table = np.loadtxt(paper_lif / "lif_norse.csv", delimiter=",")
    found = engine().run_model(model_of(deployment), table[:, 0].reshape(-1, 1, 1))
    (spikes,) = found.spikes.values()
    assert np.flatnonzero(spikes).tolist() == [460, 510, 710, 760]
    assert np.array_equal(spikes.ravel(), table[:, 2])


def test_numbers_too_large_for_float32_are_named() -> None:
    deployment = chain(nir.Scale(np.array([1e300])), inputs=[1], outputs=[1])
    with pytest.raises(GraphError, match=r"n0\.scale: .* too large for float32"):
        build(deployment)


def test_every_primitive_has_a_writer() -> None:
    assert set(writers()) == set(registry())


def test_a_missing_writer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(writers(), nir.Threshold)
    deployment = chain(nir.Threshold(np.ones(1)), inputs=[1], outputs=[1])
    with pytest.raises(GraphError, match="node 'n0': Threshold is not written to ONNX; Affine"):
        build(deployment)


@pytest.mark.parametrize("written", LAYOUTS)
def test_inlined_models_have_standard_operators_only(written: Any) -> None:
    network = random_network("convnet", reset="subtract")
    deployment = trace(network)
    whole = model_of(deployment, layout=written)
    assert ("msg_deploy", "LIF_subtract") in operators(whole)
    model = model_of(deployment, inline=True, layout=written)
    assert {domain for domain, _ in operators(model)} == {""}
    assert not model.proto.functions
    assert [entry.domain for entry in model.proto.opset_import] == [""]
    for kind in ("input", "output"):
        names = [[v.name for v in getattr(m.proto.graph, kind)] for m in (whole, model)]
        assert names[0] == names[1]
    inputs = repeated(deployment, (1, 8, 8))
    expected = TorchCore(network).run(deployment, inputs, "float32")
    for engine in ENGINES:
        assert_identical(deployment, expected, engine().run_model(model, inputs))


@pytest.mark.parametrize("opset", [OLDEST_OPSET, 21, NEWEST_OPSET])
@pytest.mark.parametrize("written", LAYOUTS)
def test_opsets(opset: int, written: Any) -> None:
    network = random_network("convnet")
    deployment = trace(network)
    model = model_of(deployment, layout=written, opset=opset)
    assert {e.domain: e.version for e in model.proto.opset_import} == {"": opset, "msg_deploy": 1}
    inputs = repeated(deployment, (1, 8, 8))
    expected = TorchCore(network).run(deployment, inputs, "float32")
    for engine in ENGINES:
        assert_identical(deployment, expected, engine().run_model(model, inputs))


@pytest.mark.parametrize("opset", [OLDEST_OPSET - 1, NEWEST_OPSET + 1])
def test_other_opsets_are_refused(opset: int) -> None:
    with pytest.raises(UsageError, match=f"opset must be 18 to 24, not {opset}"):
        OnnxOptions(opset=opset)


def test_one_model_takes_any_batch() -> None:
    deployment = trace(random_network())
    model, engine = model_of(deployment), OnnxRuntime(threads=1)
    together = engine.run_model(model, repeated(deployment, (1, 8, 8), 7))
    for i in range(7):
        alone = engine.run_model(model, repeated(deployment, (1, 8, 8), 7)[:, i : i + 1])
        np.testing.assert_allclose(alone.scores[0], together.scores[i], rtol=1e-5)


def test_two_is_one_product_of_the_weighted_spikes() -> None:
    deployment = trace(random_network())
    model = model_of(deployment, step_outputs=False)
    names = [node.op_type for node in model.proto.graph.node]
    # fc1, fc2 and the readout; sum_t f_t s_t
    assert (names.count("Gemm"), names.count("MatMul")) == (3, 1)
    assert [v.name for v in model.proto.graph.output] == ["scores", "decision"]
    shapes = {v.name: v for v in onnx.shape_inference.infer_shapes(model.proto).graph.output}
    assert shapes["scores"].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize("fold", ["delay", "bank", "leak"])
def test_foldings_in_the_graph_are_written_as_they_are(fold: Any, written: Any) -> None:
    deployment = fold_two(trace(random_network()), fold)
    inputs = repeated(deployment, (1, 8, 8))
    expected = Reference().run(deployment, inputs, "float32")
    model = model_of(deployment, layout=written)
    for engine in ENGINES:
        assert_identical(deployment, expected, engine().run_model(model, inputs))


def test_recorded_layers_are_not_in_the_model() -> None:
    model = model_of(trace(random_network()))
    before = model.proto.SerializeToString()
    OnnxRuntime().run_model(model, repeated(trace(random_network()), (1, 8, 8)))
    assert model.proto.SerializeToString() == before
    assert [v.name for v in model.proto.graph.output] == ["scores", "decision", "outputs"]


def test_without_step_outputs_spikes_and_scores_are_compared() -> None:
    network = random_network()
    deployment = trace(network)
    inputs = repeated(deployment, (1, 8, 8))
    expected = TorchCore(network).run(deployment, inputs, "float32")
    found = OnnxRuntime().run_model(model_of(deployment, step_outputs=False), inputs)
    assert len(found.outputs) == len(found.currents) == 0
    assert_identical(deployment, expected, found)


@pytest.mark.parametrize("engine", ENGINES)
def test_samples_that_do_not_repeat(engine: type[OnnxEngine]) -> None:
    deployment = trace(random_network())
    inputs = np.random.default_rng(0).uniform(size=(5, 3, 1, 8, 8))
    assert engine().unsupported(deployment) == []
    expected = Reference().run(deployment, inputs)
    assert_identical(deployment, expected, engine().run(deployment, inputs))
    with pytest.raises(UsageError, match="differ from step to step"):
        engine().run_model(model_of(deployment), inputs)
    with pytest.raises(UsageError, match="wrong input shape"):
        engine().run(deployment, inputs[1:])


def test_an_engine_runs_one_deployment_after_the_other() -> None:
    engine = OnnxRuntime()
    first, second = (trace(random_network(seed=seed)) for seed in (1, 2))
    inputs = repeated(first, (1, 8, 8))
    for deployment in (first, second, first):
        for precision in ("float32", "float64"):
            expected = Reference().run(deployment, inputs, precision)  # type: ignore[arg-type]
            found = engine.run(deployment, inputs, precision)  # type: ignore[arg-type]
            assert found.scores.dtype == precision
            assert_identical(deployment, expected, found)


def test_what_onnxruntime_cannot_run_in_float64_is_said() -> None:
    deployment = trace(random_network("convnet"))
    (gap,) = OnnxRuntime().unsupported(deployment)
    assert "Conv" in gap
    assert "--precision float32" in gap
    assert OnnxRuntime().unsupported(deployment, "float32") == []


def test_unknown_providers_are_refused() -> None:
    with pytest.raises(UsageError, match=r"no provider 'Magic' here; it has .*CPUExecution"):
        OnnxRuntime(providers=["Magic"])


@pytest.mark.parametrize("written", LAYOUTS)
def test_names_of_nodes_that_are_taken(written: Any) -> None:
    """Names of ours and names that differ only by our endings do not collide."""
    neurons = [lif(v_threshold=0.2) for _ in range(3)]
    deployment = chain(*neurons, inputs=[1], outputs=[1], steps=4)
    new = {"n0": "scores", "n1": "a", "n2": "a.membrane"}
    graph = deployment.graph
    nodes = {new.get(name, name): node for name, node in graph.nodes.items()}
    edges = [(new.get(a, a), new.get(b, b)) for a, b in graph.edges]
    renamed = deployment.with_graph(nir.NIRGraph(nodes, edges, metadata={}, type_check=False))
    inputs = np.random.default_rng(0).uniform(0, 1, (4, 5, 1))
    expected = Reference().run(renamed, inputs, "float32")
    found = OnnxRuntime().run_model(model_of(renamed, layout=written), inputs)
    assert_identical(renamed, expected, found)


def test_a_weight_for_every_step_is_used_in_the_right_order() -> None:
    deployment = chain(nir.Scale(np.ones(2)), inputs=[2], outputs=[2], steps=3)
    readout = Readout((1.0, 10.0, 100.0), "n0")
    deployment = dataclasses.replace(deployment, readout=readout)
    inputs = np.array([[[1.0, 5.0]], [[2.0, 6.0]], [[3.0, 7.0]]])
    for written in LAYOUTS:
        found = OnnxRuntime().run_model(model_of(deployment, layout=written), inputs)
        assert found.scores.tolist() == [[321.0, 765.0]]
        assert np.array_equal(found.outputs, inputs)


@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize("inside", [lif((3,)), nir.LI(*np.full((3, 3), 0.01))])
def test_a_readout_that_feeds_back(inside: nir.NIRNode, written: Any) -> None:
    """The product of the readout lies on a cycle, whose neuron may not leave its Scan."""
    random = np.random.default_rng(0)
    deployment = chain(
        inside,
        nir.Affine(random.normal(size=(3, 3)), random.normal(size=3)),
        inputs=[3],
        outputs=[3],
        edges=[("n1", "n0")],
        steps=6,
    )
    inputs = random.normal(size=(6, 2, 3))
    expected = Reference().run(deployment, inputs, "float32")
    for engine in ENGINES:
        found = engine().run_model(model_of(deployment, layout=written), inputs)
        np.testing.assert_allclose(found.outputs, expected.outputs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
