"""Quantization: whole numbers, that mean what they were, in which nothing is rounded."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import nir
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from msg_deploy import certify, check, checkpoint, quantize, to_integers, to_torch, trace
from msg_deploy.data import load_dataset
from msg_deploy.deployment import Deployment, InputSpec
from msg_deploy.errors import GraphError, MsgDeployError, UsageError
from msg_deploy.exporters import nir as nir_file
from msg_deploy.exporters.dialects import in_dialect
from msg_deploy.exporters.onnx.build import build as build_onnx
from msg_deploy.exporters.onnx.file import in_memory
from msg_deploy.exporters.quantize.apply import with_scales
from msg_deploy.exporters.quantize.finetune import Whole, finetuned
from msg_deploy.exporters.quantize.layers import layers_of
from msg_deploy.exporters.quantize.nodes import by_input, by_output, spiking, weighted
from msg_deploy.exporters.quantize.options import QuantizeOptions
from msg_deploy.exporters.quantize.prepare import input_spec, prepared
from msg_deploy.exporters.quantize.scales import chosen, fixed
from msg_deploy.exporters.quantize.statistics import measured, worst
from msg_deploy.graph import plan
from msg_deploy.masking import MaskedSurrogateGradient
from msg_deploy.networks import Graph, SpikingNetwork, encode
from msg_deploy.neuron import LIF
from msg_deploy.options import Calibration, Granularity
from msg_deploy.sim.fast import Fast
from msg_deploy.sim.onnxruntime import OnnxRuntime
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.verdict import Kind
from msg_deploy.stimulus import encoded
from msg_deploy.train import TrainingOptions
from tests.helpers import chain, lif, random_network, samples
from tests.test_cli import refused, run

GRAPHS = ("reference", "fast", "norse")
NETWORKS: dict[str, tuple[Sequence[int], dict[str, Any]]] = {
    "mlp": ((1, 8, 8), {"hidden": (24, 16)}),
    "convnet": ((1, 8, 8), {}),
    "vggsnn": ((2, 16, 16), {"width": 2}),
    "resnet18": ((3, 8, 8), {"width": 2, "steps": 3}),
    "sew_resnet34": ((3, 16, 16), {"width": 2, "steps": 3}),
}


def firing(name: str, seed: int = 0, **options: Any) -> SpikingNetwork:
    """A random network, each layer of which fires."""
    shape, own = NETWORKS[name]
    network = random_network(name, seed, shape, **own | options)
    steps = network.timing.steps

    def let_fire(layer: nn.Module, arriving: tuple[torch.Tensor]) -> None:
        assert isinstance(layer, LIF)
        layer.v_threshold = max(0.01, float(arriving[0].quantile(0.8)) / 2)

    hooks = [
        module.register_forward_pre_hook(let_fire)
        for module in network.modules()
        if isinstance(module, LIF)
    ]
    with torch.no_grad():
        inputs = encode(torch.from_numpy(samples(2, 9, shape)), network.input_spec, steps)
        network(inputs)
    for hook in hooks:
        hook.remove()
    return network


def frames(deployment: Deployment, count: int, seed: int = 0) -> np.ndarray:
    spec = deployment.input
    return samples(count, seed, (deployment.timing.steps, *spec.shape))


def neurons(deployment: Deployment) -> dict[str, Any]:
    return {n: node for n, node in deployment.graph.nodes.items() if hasattr(node, "v_threshold")}


def layers(deployment: Deployment) -> dict[str, Any]:
    return {n: node for n, node in deployment.graph.nodes.items() if weighted(node)}


def closest(deployment: Deployment, data: np.ndarray) -> float:
    """The smallest distance of a membrane to its threshold; all decisions are certified."""
    certificate = certify(deployment, encoded(deployment, data))
    assert certificate.share == 1
    return min(float(np.abs(margins).min()) for margins in certificate.margins.values())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_rounded_in_any_engine(name: str, bits: int) -> None:
    network, (shape, _) = firing(name), NETWORKS[name]
    quantized = to_integers(trace(network), samples(12, 1, shape), QuantizeOptions(bits))
    module, data = to_torch(quantized), samples(2, 2, shape)
    for precision in ("float64", "float32"):
        verdict = check(
            module,
            quantized,
            data,
            simulators=GRAPHS,
            random=2,
            random_float=1,
            precision=precision,  # type: ignore[arg-type]
        )
        assert verdict.kind is Kind.PROVEN
    fired = [layer.fired for layer in verdict.comparisons[0].layers]
    assert np.count_nonzero(fired) > 0.8 * len(fired)
    inputs = encoded(quantized, data)
    assert closest(quantized, data) > 0
    model = in_memory(build_onnx(quantized))
    expected, found = Reference().run(quantized, inputs), OnnxRuntime(1).run_model(model, inputs)
    assert all(np.array_equal(found.spikes[n], expected.spikes[n]) for n in expected.spikes)
    assert np.array_equal(found.scores, expected.scores)


def test_onnx_models_hold_bytes() -> None:
    quantized = to_integers(trace(firing("mlp")), samples(8))
    model = in_memory(build_onnx(quantized))
    stored = {t.name: t.data_type for t in model.proto.graph.initializer}
    assert model.contract.int8
    assert stored["fc2.weight"] == stored["fc3.weight"] == onnx.TensorProto.INT8


OPTIONS = list(itertools.product(get_args(Granularity), get_args(Calibration)))


@pytest.mark.parametrize(("granularity", "calibration"), OPTIONS)
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_weights_are_the_nearest_whole_numbers(
    name: str, granularity: Any, calibration: Any
) -> None:
    original = trace(firing(name))
    options = QuantizeOptions(5, granularity, calibration, percentile=99)
    quantized = to_integers(original, samples(8), options)
    form = quantized.integers
    assert form is not None
    assert form.bits == 5
    for layer, node in layers(quantized).items():
        scale = np.array(form.scales[layer])
        (edge,) = plan(quantized.graph).incoming[layer]
        before = quantized.graph.nodes[edge.source]
        unit = 1.0 if spiking(before) else form.scales[edge.source]
        weight = np.asarray(original.graph.nodes[layer].weight, np.float64) * by_input(node, unit)
        step = by_output(node, scale)
        assert np.array_equal(node.weight, np.rint(node.weight))
        assert np.array_equal(node.bias, np.rint(node.bias))
        assert np.abs(node.weight).max() <= 15
        inside = np.abs(weight / step) <= 15
        far = np.abs(weight - step * node.weight) > step / 2 * (1 + 1e-9)
        assert not np.any(inside & far)
        assert np.all(np.abs(node.weight)[~inside] == 15)
        if calibration == "max" and granularity != "power-of-two":
            assert np.all(inside | (np.abs(weight / step) < 15 * (1 + 1e-9)))
        if granularity != "channel" or layer == list(layers(quantized))[-1]:
            assert len(scale) == 1
        if granularity == "power-of-two":
            assert np.all(np.log2(scale) == np.rint(np.log2(scale)))


def test_the_pass_changes_nothing_it_is_given() -> None:
    original = trace(firing("convnet"))
    kept = {n: np.array(node.weight) for n, node in layers(original).items()}
    to_integers(original, samples(4))
    assert original.integers is None
    assert original.input.levels is None
    assert all(np.array_equal(original.graph.nodes[n].weight, w) for n, w in kept.items())


def test_poolings_become_sums() -> None:
    quantized = to_integers(trace(firing("vggsnn")), samples(4, 0, NETWORKS["vggsnn"][0]))
    kinds = {type(node) for node in quantized.graph.nodes.values()}
    assert nir.SumPool2d in kinds
    assert nir.AvgPool2d not in kinds


def test_branches_with_weights_share_a_grid() -> None:
    quantized = to_integers(trace(firing("resnet18")), samples(4, 0, NETWORKS["resnet18"][0]))
    form, known = quantized.integers, plan(quantized.graph)
    assert form is not None
    meeting = [
        [e.source for e in known.incoming[n] if e.source in layers(quantized)] for n in known.order
    ]
    pairs = [sources for sources in meeting if len(sources) > 1]
    assert pairs
    assert all(form.scales[a] == form.scales[b] for a, b in pairs)


def test_what_is_added_to_a_layer_becomes_a_whole_number_of_its_steps() -> None:
    random = np.random.default_rng(0)
    deployment = chain(
        lif((6,)),
        nir.Affine(random.normal(size=(6, 6)), random.normal(size=6)),
        lif((6,), v_threshold=0.7),
        nir.Linear(random.normal(size=(3, 6))),
        inputs=[6],
        outputs=[3],
        edges=[("n0", "n2")],
        steps=5,
    )
    quantized = to_integers(deployment, frames(deployment, 8))
    (scale,) = (n for n in quantized.graph.nodes.values() if isinstance(n, nir.Scale))
    form = quantized.integers
    assert form is not None
    np.testing.assert_allclose(scale.scale * form.scales["n1"], 1, rtol=1e-6)
    assert np.array_equal(scale.scale, np.rint(scale.scale))
    assert check(quantized, quantized, frames(deployment, 4), GRAPHS).kind is Kind.PROVEN


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_no_state_is_ever_at_its_threshold(name: str, reset: str) -> None:
    # Few levels and weights of 2 bits: states stand on a coarse grid, where ties would be frequent.
    original = trace(firing(name, steps=6, reset=reset))
    quantized = to_integers(original, samples(8), QuantizeOptions(2, levels=2))
    assert closest(quantized, samples(16, 3)) > 0
    assert check(quantized, quantized, samples(4, 3), GRAPHS).kind is Kind.PROVEN


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    reset=st.sampled_from(["zero", "subtract"]),
    integrates=st.booleans(),
    bits=st.integers(2, 8),
    steps=st.integers(1, 9),
)
def test_moved_thresholds_decide_as_those_they_were(
    seed: int, reset: Any, integrates: bool, bits: int, steps: int
) -> None:
    random = np.random.default_rng(seed)
    shape = (5,)
    node: Any = lif(shape, tau=float(random.choice([1e-3, 2e-3, 4e-3])))
    if integrates:
        node = nir.IF(np.ones(5), np.full(5, 0.5), np.zeros(5))
    node = replace(node, v_threshold=random.uniform(0.1, 2, 5))
    weights = random.normal(size=(5, 4)), random.normal(size=5) / 4
    deployment = chain(
        nir.Affine(*weights),
        node,
        nir.Linear(np.eye(5)),
        inputs=[4],
        outputs=[5],
        reset=reset,
        steps=steps,
    )
    data = frames(deployment, 6, seed)
    quantized = to_integers(deployment, data, QuantizeOptions(bits))
    assert closest(quantized, data) > 0
    if reset == "zero":
        # The same integers with the threshold as it was, in steps: nothing is moved across it.
        form = quantized.integers
        assert form is not None
        unit = np.broadcast_to(form.scales["n1"], 5)
        changed = replace(quantized.graph.nodes["n1"], v_threshold=node.v_threshold / unit)
        nodes = quantized.graph.nodes | {"n1": changed}
        graph = nir.NIRGraph(nodes, quantized.graph.edges, metadata={}, type_check=False)
        inputs = encoded(quantized, data)
        one, other = (Reference().run(d, inputs) for d in (quantized, quantized.with_graph(graph)))
        assert np.array_equal(one.spikes["n1"], other.spikes["n1"])


def test_sums_that_fit_no_accumulator_name_the_layer() -> None:
    with pytest.raises(GraphError, match=r"node 'fc1': its sums do not fit an accumulator of 6 bi"):
        to_integers(trace(firing("mlp")), samples(4), QuantizeOptions(accumulator_bits=6))


@pytest.mark.parametrize("bits", [12, 14, 20])
def test_sums_fit_the_accumulator(bits: int) -> None:
    options = QuantizeOptions(accumulator_bits=bits, levels=15)
    quantized = to_integers(trace(firing("mlp")), samples(8), options)
    most = 2 ** (bits - 1) - 1
    found = layers_of(quantized, samples(4))
    assert all(layer.largest_sum <= most for layer in found)
    # The claim itself, on the inputs and spikes that cause most.
    node: Any = quantized.graph.nodes["fc1"]
    reach = np.abs(node.weight).sum(axis=1) * 15 + np.abs(node.bias)
    assert reach.max() <= most


def test_fine_tuned_weights_that_overflow_are_refused() -> None:
    original, options = trace(firing("mlp")), QuantizeOptions(accumulator_bits=12, levels=15)
    ready = prepared(original, input_spec(original.input, None, options), options)
    scales = chosen(ready, measured(ready, samples(4)), options)
    found = {name: scales.output(name) for name in layers(ready)}
    node: Any = ready.graph.nodes["fc2"]
    ready.graph.nodes["fc2"] = replace(node, weight=np.sign(node.weight) * 1e3)
    with pytest.raises(GraphError, match=r"node 'fc2': its sums reach \d+, but 2047"):
        with_scales(fixed(ready, found), options)


def test_scores_turn_back_into_what_they_were(trained: SpikingNetwork) -> None:
    original, data = trace(trained), load_dataset("digits").test.samples[:200]
    quantized = to_integers(original, load_dataset("digits").train.samples[:64])
    before = Reference().run(original, encoded(original, data))
    after = Reference().run(quantized, encoded(quantized, data))
    same = np.all(
        [
            (before.spikes[n] == after.spikes[n]).reshape(len(after.spikes[n]), 200, -1).all((0, 2))
            for n in before.spikes
        ],
        axis=0,
    )
    assert same.sum() >= 5
    assert quantized.integers is not None
    scores = after.scores * quantized.integers.scores
    np.testing.assert_allclose(
        scores[same], before.scores[same], atol=0.02 * np.abs(before.scores).max()
    )


def test_two_has_whole_weights_and_a_shift() -> None:
    readout = to_integers(trace(firing("mlp")), samples(4)).readout
    assert readout is not None
    weights = np.array(readout.weights)
    exponent = np.log2(weights.max()).__floor__() + 1 - 8
    assert np.array_equal(weights * 2.0**-exponent, np.rint(weights * 2.0**-exponent))


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpoints_keep_every_number(name: str, tmp_path: Path) -> None:
    shape = NETWORKS[name][0]
    quantized = to_integers(trace(firing(name)), samples(4, 0, shape))
    checkpoint.save(to_torch(quantized), tmp_path / "q.pt")
    loaded = trace(checkpoint.load(tmp_path / "q.pt"))
    assert loaded.integers == quantized.integers
    assert loaded.input == quantized.input
    assert set(loaded.graph.nodes) == set(quantized.graph.nodes)
    for node, theirs in layers(quantized).items():
        assert np.array_equal(loaded.graph.nodes[node].weight, theirs.weight)
    for node, theirs in neurons(quantized).items():
        assert np.array_equal(loaded.graph.nodes[node].v_threshold, theirs.v_threshold)
        assert np.array_equal(loaded.graph.nodes[node].v_reset, theirs.v_reset)


# Inputs


def test_samples_become_whole_numbers() -> None:
    spec = InputSpec((4,), levels=4)
    found = encode(torch.tensor([[0.1, 0.125, 0.375, 1.5]]), spec, 3)
    assert found.tolist() == [[[0, 0, 2, 4]]] * 3
    spec = InputSpec((4,), "frames", low=-1.0, high=1.0, levels=4)
    assert (spec.step, spec.entering) == (0.5, (-2.0, 2.0))
    assert encode(torch.tensor([[[-1, -0.3, 0.26, 2]]]), spec, 1).tolist() == [[[-2, -1, 1, 2]]]


def test_samples_of_a_file(tmp_path: Path) -> None:
    network, path = random_network(), tmp_path / "samples.npz"
    np.savez(path, samples=samples(9))
    found, given = (quantize(network, data=data, samples=5) for data in (str(path), samples(9)))
    first, second = (q.deployment.graph.nodes["fc1"].weight for q in (found, given))
    np.testing.assert_array_equal(first, second)


def test_levels_need_a_range() -> None:
    with pytest.raises(ValueError, match="levels need a range"):
        InputSpec((1,), low=1.0, high=1.0, levels=3)


def test_the_input_takes_the_samples_own_grid() -> None:
    spec, options = InputSpec((4,)), QuantizeOptions()
    images = np.arange(256).reshape(-1, 4).astype(np.float32) / 255
    assert input_spec(spec, images, options).levels == 255
    assert input_spec(spec, images[:, :1] * 0 + 0.0625 * np.arange(4), options).levels == 16
    assert input_spec(spec, np.random.default_rng(0).random((9, 4)), options).levels == 255
    assert input_spec(spec, images, replace(options, levels=15)).levels == 15
    counts = input_spec(InputSpec((4,), high=6.0), np.array([[0, 1, 6, 2]]), options)
    assert (counts.levels, counts.step) == (6, 1.0)


def test_counts_enter_as_they_are() -> None:
    network = firing("mlp")
    network.input_spec = replace(network.input_spec, high=5.0)
    data = np.random.default_rng(0).integers(0, 6, (8, 1, 8, 8)).astype(np.float32)
    quantized = to_integers(trace(network), data, QuantizeOptions(inputs="counts"))
    assert quantized.input.step == 1
    assert np.array_equal(encoded(quantized, data)[0], data)
    with pytest.raises(UsageError, match="the samples are not whole numbers"):
        to_integers(trace(network), data + 0.5, QuantizeOptions(inputs="counts"))


def test_a_range_below_zero() -> None:
    network = firing("mlp")
    network.input_spec = replace(network.input_spec, low=-1.0)
    data = samples(8) * 2 - 1
    quantized = to_integers(trace(network), data)
    assert encoded(quantized, data).min() < -20
    assert check(to_torch(quantized), quantized, data, GRAPHS).kind is Kind.PROVEN


def test_float_and_quantized_networks_do_not_take_the_same() -> None:
    network = firing("mlp")
    verdict = check(network, to_integers(trace(network), samples(4)))
    assert not verdict
    assert "inputs enter as they are against" in verdict.problems[0]


# States


def test_a_leak_that_is_no_power_of_two_is_kept_or_rounded() -> None:
    network = firing("mlp", tau=3.0)
    result = quantize(network, data=samples(16), samples=8)
    (warning,) = result.warnings
    assert "fc1, fc2 stand on no grid, since dt/tau is no power of two" in warning
    assert check(result.network, result.deployment, samples(4), GRAPHS)
    rounded = to_integers(trace(network), samples(8), QuantizeOptions(leak="power-of-two"))
    assert {float(t) for n in neurons(rounded).values() for t in np.ravel(n.tau)} == {4e-3}
    assert check(rounded, rounded, samples(4), GRAPHS).kind is Kind.PROVEN


def test_many_steps_need_float64_and_say_so() -> None:
    network = firing("mlp", steps=24)
    result = quantize(network, data=samples(8), samples=4)
    assert any("more than the 24 digits of float32" in warning for warning in result.warnings)
    assert check(result.network, result.deployment, samples(2), GRAPHS).kind is Kind.PROVEN


def recurrent(node: Any) -> Deployment:
    random = np.random.default_rng(3)
    return chain(
        nir.Affine(random.normal(size=(5, 4)), random.normal(size=5) / 9),
        node,
        nir.Affine(random.normal(size=(5, 5)) / 2, random.normal(size=5) / 9),
        inputs=[4],
        outputs=[5],
        edges=[("n2", "n1")],
        steps=6,
    )


def test_recurrent_layers(tmp_path: Path) -> None:
    deployment = recurrent(lif((5,), v_threshold=0.3))
    result = quantize(deployment, tmp_path / "q.nir", data=frames(deployment, 8))
    form = result.deployment.integers
    assert form is not None
    assert form.scales["n0"] == form.scales["n2"]
    found = check(result.deployment, tmp_path / "q.nir", frames(deployment, 4, 1), GRAPHS)
    assert found.kind is Kind.PROVEN
    with pytest.raises(GraphError, match=r"torch: a network needs a TWO readout"):
        quantize(deployment, tmp_path / "q.pt", data=frames(deployment, 8))
    assert not (tmp_path / "q.pt").exists()


def test_currents_that_decay_are_quantized_but_on_no_grid() -> None:
    full = {"tau_mem": 2e-3, "tau_syn": 3e-3, "r": 1.5, "v_leak": 0.0, "v_threshold": 0.3}
    node = nir.CubaLIF(**{k: np.full(5, v) for k, v in full.items()}, v_reset=np.zeros(5))
    result = quantize(recurrent(node), data=frames(recurrent(node), 8))
    assert any("a current decays" in warning for warning in result.warnings)
    assert all(
        np.array_equal(n.weight, np.rint(n.weight)) for n in layers(result.deployment).values()
    )
    assert check(result.deployment, result.deployment, frames(recurrent(node), 4), GRAPHS)


def integrator(size: int, v_leak: float = 0.0) -> nir.LI:
    return nir.LI(np.full(size, 2e-3), np.ones(size), np.full(size, v_leak))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([lif((2,), r=-1.0)], r"node 'n1': r and w_in must be above 0"),
        ([nir.Scale(np.array([-1.0, 1.0])), lif((2,))], r"node 'n1' \(Scale\): factors must be"),
        ([integrator(2)], "the cycle through it has no spiking neuron"),
    ],
)
def test_what_cannot_be_quantized_is_named(nodes: list[Any], words: str) -> None:
    deployment = chain(
        nir.Linear(np.eye(2)), *nodes, nir.Linear(np.eye(2)), inputs=[2], outputs=[2], steps=3
    )
    if isinstance(nodes[0], nir.LI):
        deployment.graph.nodes["back"] = nir.Scale(np.full(2, 0.5))
        deployment.graph.edges += [("n1", "back"), ("back", "n1")]
    with pytest.raises(GraphError, match=words):
        to_integers(deployment, frames(deployment, 4))


def test_a_quantized_network_is_in_no_dialect(tmp_path: Path) -> None:
    node = nir.CubaLIF(
        **{k: np.full(5, v) for k, v in {"tau_mem": 2e-3, "tau_syn": 2e-3, "r": 1.0}.items()},
        v_leak=np.zeros(5), v_threshold=np.full(5, 9.0), v_reset=np.zeros(5), w_in=np.ones(5),
    )  # fmt: skip
    plain = chain(
        nir.Affine(np.eye(5), np.zeros(5)), node,
        inputs=[5], outputs=[5], dt=1e-3, reset="subtract", steps=3,
    )  # fmt: skip
    quantized = to_integers(in_dialect(plain, "rockpool"), frames(plain, 4))
    assert (quantized.provenance.dialect, quantized.provenance.latency) == ("nir", 0)
    nir_file.write(quantized, tmp_path / "q.nir")
    found: Any = nir_file.read(tmp_path / "q.nir").graph.nodes["n1"]
    assert found.r.tolist() == quantized.graph.nodes["n1"].r.tolist() == [1.0] * 5


def heads(*sizes: int) -> Deployment:
    """One hidden layer, and matrices from it to as many Outputs."""
    deployment = chain(
        nir.Linear(np.eye(3)), lif((3,)), nir.Linear(np.ones((sizes[0], 3))),
        inputs=[3], outputs=[sizes[0]], steps=3,
    )  # fmt: skip
    for i, size in enumerate(sizes[1:]):
        deployment.graph.nodes[f"head{i}"] = nir.Linear(np.full((size, 3), 9.0))
        deployment.graph.nodes[f"output{i}"] = nir.Output({"output": np.array([size])})
        deployment.graph.edges += [("n1", f"head{i}"), (f"head{i}", f"output{i}")]
    return deployment


def test_classes_of_several_outputs_have_one_unit() -> None:
    form = to_integers(heads(2, 2), frames(heads(2, 2), 4)).integers
    assert form is not None
    assert form.scales["n2"] == form.scales["head0"] == (form.scores,)
    with pytest.raises(GraphError, match=r"nodes 'output', 'output0': .* no common unit"):
        to_integers(heads(2, 4), frames(heads(2, 4), 4))


def test_the_most_that_is_put_out_counts_what_membranes_leak_to() -> None:
    deployment = chain(integrator(2, v_leak=-1000.0), inputs=[2], outputs=[2], dt=1e-3)
    assert worst(deployment)["n0"].tolist() == [1001.0, 1001.0]


@pytest.mark.filterwarnings("error")
def test_layers_that_no_sample_reaches_are_quantized() -> None:
    deployment = chain(
        nir.Linear(np.eye(2)), lif((2,), v_threshold=1e3, tau=2e-3 * 2**12), nir.Linear(np.eye(2)),
        lif((2,), v_threshold=0.5, tau=2e-3 * 2**12), inputs=[2], outputs=[2], steps=3,
    )  # fmt: skip
    quantized = to_integers(deployment, frames(deployment, 4), QuantizeOptions(exact="float32"))
    assert all(np.all(np.isfinite(node.weight)) for node in layers(quantized).values())


def test_fewer_levels_rather_than_a_layer_that_is_not_exact() -> None:
    # Ten of the digits are the leak's; 255 levels would leave too few to the weights.
    network = firing("convnet", steps=10)
    quantized = to_integers(trace(network), samples(12, 1), QuantizeOptions())
    assert quantized.input.levels in (31, 63, 127)
    found = {layer.name: layer.exact for layer in layers_of(quantized, samples(4, 2))}
    assert found["conv1"] == "float32"


# Fine-tuning


def test_fine_tuning_brings_accuracy_back_and_is_deterministic(trained: SpikingNetwork) -> None:
    options, training = QuantizeOptions(3), TrainingOptions(epochs=3, learning_rate=2e-3)
    first, second = (
        quantize(trained, options=options, finetune=training, samples=64) for _ in range(2)
    )
    assert first.finetuned is not None
    assert first.finetuned == second.finetuned
    assert first.finetuned.accuracy is not None
    assert first.plain.accuracy is not None
    assert first.finetuned.accuracy > first.plain.accuracy
    for name, node in layers(first.deployment).items():
        assert np.array_equal(node.weight, second.deployment.graph.nodes[name].weight)
    verdict = check(first.network, first.deployment, simulators=GRAPHS, samples=8, random=4)
    assert verdict.kind is Kind.PROVEN


def test_the_integers_are_those_of_the_last_forward_pass(trained: SpikingNetwork) -> None:
    data, options = load_dataset("digits"), QuantizeOptions(4)
    original = trace(trained)
    ready = prepared(original, input_spec(original.input, data.train.samples, options), options)
    scales = chosen(ready, measured(ready, data.train.samples[:64]), options)
    found = {name: scales.output(name) for name in layers(ready)}
    tuned = finetuned(scales, options, data, TrainingOptions(epochs=1))
    quantized = with_scales(fixed(tuned, found), options)
    for name, node in layers(tuned).items():
        whole = quantized.graph.nodes[name]
        arriving = scales.arriving(name)
        step = by_output(node, found[name]) / by_input(node, arriving)
        np.testing.assert_allclose(node.weight, whole.weight * step, rtol=1e-6)
        np.testing.assert_allclose(node.bias, whole.bias * found[name], rtol=1e-6)
        assert not np.array_equal(node.weight, ready.graph.nodes[name].weight)
    # The network that was trained, its weights on the grid, spikes as its integers do.
    inputs = encoded(quantized, data.test.samples[:64])
    trained_spikes, spikes = (Fast().run(d, inputs, "float64").spikes for d in (tuned, quantized))
    differing = sum(int((spikes[n] != trained_spikes[n]).sum()) for n in spikes)
    # Bar those that floats leave at a threshold.
    assert differing <= 1e-4 * sum(s.size for s in spikes.values())


def test_weights_are_rounded_and_gradients_pass() -> None:
    rounding = Whole(np.array([[0.5], [0.25]]), 3)
    values = torch.tensor([[0.6, 1.9], [-0.1, -5.0]], requires_grad=True)
    rounded = rounding(values)
    assert rounded.tolist() == [[0.5, 1.5], [0.0, -0.75]]
    rounded.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[1, 0], [1, 0]]


def test_msg_masks_what_fine_tuning_trains() -> None:
    layer = nn.Linear(200, 50)
    parametrize.register_parametrization(layer, "weight", Whole(np.array(1e-3), 127))
    model = nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    MaskedSurrogateGradient(0.5).attach(model, optimizer)
    (trained,) = (p for n, p in model.named_parameters() if n.endswith("weight.original"))
    before = trained.detach().clone()
    model(torch.ones(3, 200)).sum().backward()
    optimizer.step()
    kept = (trained.detach() == before).float().mean()
    assert 0.45 < float(kept) < 0.55


# Modules


def test_graphs_refuse_what_cannot_run() -> None:
    with pytest.raises(UsageError, match="what leads into 'b' must come before it"):
        Graph({"b": nn.Identity(), "a": nn.Identity()}, [("a", "b"), ("b", "output")])
    with pytest.raises(UsageError, match="an edge leads to a layer that is not there"):
        Graph({"a": nn.Identity()}, [("input", "a"), ("a", "output"), ("a", "c")])
    for name in ("forward", "a.weight.b", "."):
        with pytest.raises(UsageError, match="a layer cannot be called"):
            Graph(
                {"a": nn.Linear(1, 1), name: nn.Identity()},
                [("input", "a"), ("a", name), (name, "output")],
            )


def test_to_torch_says_what_has_no_layer() -> None:
    with pytest.raises(GraphError, match="torch: a network needs a TWO readout"):
        to_torch(chain(lif(), inputs=[1], outputs=[1]))
    named = trace(firing("mlp"))
    renamed = {"input": "x", "lif1": "input"}
    nodes = {renamed.get(n, n): node for n, node in named.graph.nodes.items()}
    edges = [(renamed.get(a, a), renamed.get(b, b)) for a, b in named.graph.edges]
    with pytest.raises(GraphError, match="node 'input': torch keeps this name"):
        to_torch(named.with_graph(nir.NIRGraph(nodes, edges, type_check=False)))
    deployment = trace(firing("mlp"))
    node: Any = deployment.graph.nodes["lif1"]
    deployment.graph.nodes["lif1"] = replace(node, v_leak=node.v_leak + 1)
    with pytest.raises(GraphError, match=r"node 'lif1' \(LIF\): v_leak must be 0"):
        to_torch(deployment)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 9}, "bits must be 2 to 8, not 9"),
        ({"granularity": "row"}, "granularity must be channel or layer or power-of-two"),
        ({"percentile": 30.0}, "percentile must be above 50"),
        ({"levels": 256}, "levels must be 1 to 255"),
        ({"levels": 3, "inputs": "counts"}, "levels are not for inputs that are counts"),
        ({"accumulator_bits": 1}, "accumulator_bits must be 2 to 54"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        QuantizeOptions(**options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"samples": -1}, "samples must not be negative"),
        ({"output": "q.onnx"}, "unknown kind of file '.onnx'; .pt and .nir are written"),
        ({"output": "missing/q.pt"}, "missing"),
        ({"finetune": TrainingOptions(), "data": samples(4)}, "fine-tuning needs a data set"),
        ({"data": samples(4) * np.nan}, "NaN or infinite"),
        ({"data": samples(4, 0, (1, 9, 8))}, "wrong input shape"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(MsgDeployError, match=words):
        quantize(firing("mlp"), **arguments)


# The program


@pytest.mark.slow
def test_quantize_export_check(trained_file: Path, tmp_path: Path) -> None:
    result = run("msg-deploy", "quantize", trained_file, "-o", "q.pt", "--json", cwd=tmp_path)
    assert result.returncode == 0, result
    told = json.loads(result.stdout)
    assert told["file"] == "q.pt"
    assert told["quantized"]["accuracy"] == pytest.approx(told["accuracy"], abs=0.03)
    assert told["quantized"]["certified"] == 1
    assert [layer["bits"] for layer in told["layers"]] == [8, 8, 8]
    assert told["input"]["levels"] == 16
    for kind in ("nir", "onnx"):
        assert run("msg-deploy", "export", "q.pt", "--to", kind, cwd=tmp_path).returncode == 0
        few = ("--samples", 8, "--random", 4)
        found = run("equivalence-check", "q.pt", f"q.{kind}", *few, cwd=tmp_path)
        assert found.returncode == 0, found
        assert found.stdout.strip().splitlines()[-1].startswith("PROVEN: 0 mismatching")
    again = run("msg-deploy", "quantize", "q.pt", cwd=tmp_path)
    refused(again, "q.pt: is quantized already")


@pytest.mark.slow
def test_quantize_refuses(trained_file: Path, tmp_path: Path) -> None:
    def refuses(*arguments: Any, words: str) -> None:
        refused(run("msg-deploy", "quantize", trained_file, *arguments, cwd=tmp_path), words)

    refuses("-o", "q.pt", "--accumulator-bits", 6, words="node 'fc1': its sums do not fit")
    refuses("-o", "q.txt", words="unknown kind of file '.txt'")
    refuses("-o", "q.pt", "--data", "nothing", words="unknown data set 'nothing'")
    assert not list(tmp_path.iterdir())
