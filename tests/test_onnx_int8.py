"""int8: integers in, integers out, exactly what float32 gives on a grid of powers of two."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.onnx.build import OnnxOptions, build
from msg_deploy.exporters.onnx.file import in_memory
from msg_deploy.exporters.trace import trace
from msg_deploy.integers import arriving_integers, quantize
from msg_deploy.sim.onnx_reference import OnnxReference
from msg_deploy.sim.onnxruntime import OnnxRuntime
from msg_deploy.sim.reference import Reference
from tests.helpers import chain, lif, random_network

TWO = np.array([2, 2])


def on_grid(random: np.random.Generator, *shape: int, exponent: int = -7) -> np.ndarray:
    return random.integers(-127, 128, shape) * 2.0**exponent


def images(random: np.random.Generator) -> Deployment:
    """Spikes, a convolution, sums of spikes, and two products; scales by layer and by channel."""
    by_channel = 2.0 ** np.arange(6).reshape(-1, 1)
    return chain(
        nir.Threshold(np.zeros((2, 9, 11))),
        nir.Conv2d(
            None, on_grid(random, 4, 1, 3, 2), TWO, "valid", TWO // 2, 2, on_grid(random, 4)
        ),
        lif((4, 4, 5)),
        nir.SumPool2d(TWO, TWO, TWO * 0),
        nir.Flatten({"input": np.array([4, 2, 2])}, 0, -1),
        nir.Affine(on_grid(random, 6, 16) * by_channel, random.normal(size=6)),
        lif((6,)),
        nir.Linear(on_grid(random, 3, 6, exponent=0)),
        inputs=[2, 9, 11],
        outputs=[3],
        steps=4,
    )


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10**6), layout=st.sampled_from(["sequence", "unrolled", "step"]))
def test_exactly_what_float32_gives(seed: int, layout: Any) -> None:
    random = np.random.default_rng(seed)
    deployment = images(random)
    inputs = random.normal(size=(4, 3, 2, 9, 11))
    expected = Reference().run(deployment, inputs, "float32")
    model = in_memory(build(deployment, OnnxOptions(layout=layout, int8=True)))
    onnx.checker.check_model(model.proto, full_check=True)
    for engine in (OnnxRuntime(threads=1), OnnxReference()):
        found = engine.run_model(model, inputs)
        assert all(np.array_equal(found.spikes[n], expected.spikes[n]) for n in expected.spikes)
        assert np.array_equal(found.outputs, expected.outputs)


def test_weights_are_stored_as_bytes() -> None:
    model = in_memory(build(images(np.random.default_rng(0)), OnnxOptions(int8=True)))
    stored = {t.name: t.data_type for t in model.proto.graph.initializer}
    kinds = {stored[f"n{i}.weight"] for i in (1, 5, 7)}
    assert kinds == {onnx.TensorProto.INT8}
    assert model.contract.int8


def test_a_recurrent_layer_in_integers() -> None:
    random = np.random.default_rng(3)
    deployment = chain(
        lif((5,)),
        nir.Affine(on_grid(random, 5, 5), on_grid(random, 5)),
        lif((5,)),
        nir.Linear(on_grid(random, 5, 5)),
        inputs=[5],
        outputs=[5],
        edges=[("n3", "n2")],
        steps=9,
    )
    inputs = random.uniform(0, 2, (9, 4, 5))
    expected = Reference().run(deployment, inputs, "float32")
    for layout in ("sequence", "unrolled", "step"):
        options = OnnxOptions(layout=layout, int8=True)  # type: ignore[arg-type]
        found = OnnxRuntime().run_model(in_memory(build(deployment, options)), inputs)
        assert np.array_equal(found.outputs, expected.outputs)


def test_where_integers_arrive() -> None:
    deployment = chain(
        lif((1, 8, 8)),
        nir.SumPool2d(TWO, TWO, TWO * 0),
        nir.SumPool2d(TWO * 2, TWO * 2, TWO * 0),
        nir.SumPool2d(TWO // 2, TWO // 2, TWO * 0),
        nir.AvgPool2d(TWO // 2, TWO // 2, TWO * 0),
        nir.Flatten({"input": np.array([1, 1, 1])}, 0, -1),
        inputs=[1, 8, 8],
        outputs=[1],
    )
    known = arriving_integers(deployment)
    assert [known[f"n{i}"] for i in range(6)] == [None, 1, 4, 64, 64, None]
    assert arriving_integers(chain(lif(), lif(), inputs=[1], outputs=[1]))["n1"] == 1


def test_a_sum_of_edges_counts_them() -> None:
    deployment = chain(lif(), lif(), lif(), inputs=[1], outputs=[1], edges=[("n0", "n2")])
    assert arriving_integers(deployment)["n2"] == 2


def test_weights_off_the_grid_are_refused() -> None:
    with pytest.raises(GraphError, match=r"node 'fc2': the weights of output 0 are not .* quant"):
        build(trace(random_network()), OnnxOptions(int8=True))


def test_nothing_to_compute_in_integers_is_refused() -> None:
    deployment = chain(nir.Linear(np.ones((2, 2))), lif((2,)), inputs=[2], outputs=[2])
    with pytest.raises(GraphError, match="none of the nodes 'n0' takes spikes"):
        build(deployment, OnnxOptions(int8=True))


def test_quantized_weights_mean_what_they_were() -> None:
    weight = np.array([[0.5, -1.5], [0.0, 0.0], [100.0, 25.0]])
    found = quantize("n", weight, np.array([0.5, 3.0, 50.0]))
    assert found.weight.tolist() == [[1, -3], [0, 0], [4, 1]]
    assert found.scale.tolist() == [0.5, 1.0, 25.0]
    assert found.bias is not None
    assert found.bias.tolist() == [1, 3, 2]
    off = quantize("n", weight, np.array([0.3, 3.0, 50.0])).bias
    assert off is not None
    assert off.dtype == np.float64
    assert quantize("n", weight, None).bias is None
