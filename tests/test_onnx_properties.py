"""Every valid graph means in ONNX what it means to the reference, in every layout."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msg_deploy.deployment import Deployment
from msg_deploy.exporters.onnx.build import OnnxOptions, build
from msg_deploy.exporters.onnx.file import in_memory, inlined
from msg_deploy.sim.onnx_reference import OnnxReference
from msg_deploy.sim.onnxruntime import OnnxRuntime
from msg_deploy.sim.reference import Reference
from msg_deploy.sim.simulator import FloatArray, Trace
from tests.strategies import deployments
from tests.test_properties import stimulus

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.")
some = settings(deadline=None, max_examples=40)
LAYOUTS = ("sequence", "unrolled", "step")
FLOAT32_ONLY = ("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d")


def assert_same(a: Trace, b: Trace) -> None:
    assert list(a.spikes) == list(b.spikes)
    for name in a.spikes:
        assert np.array_equal(a.spikes[name], b.spikes[name]), name
    for x, y in ((a.outputs, b.outputs), (a.currents, b.currents), (a.scores, b.scores)):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9)


def runs_in_float64(deployment: Deployment) -> bool:
    return not any(type(n).__name__ in FLOAT32_ONLY for n in deployment.graph.nodes.values())


@st.composite
def cases(draw: st.DrawFn) -> tuple[Deployment, FloatArray]:
    """A network and inputs, which are the same at every step for the encoding "direct"."""
    deployment = draw(deployments())
    inputs = stimulus(deployment)
    if draw(st.booleans()):
        spec = dataclasses.replace(deployment.input, encoding="direct")
        deployment = dataclasses.replace(deployment, input=spec)
        inputs = np.broadcast_to(inputs[0], inputs.shape)
    return deployment, inputs


@some
@given(case=cases(), layout=st.sampled_from(LAYOUTS), whole=st.booleans())
def test_the_reference_evaluator_agrees(
    case: tuple[Deployment, FloatArray], layout: Any, whole: bool
) -> None:
    deployment, inputs = case
    model = build(deployment, OnnxOptions(layout=layout, precision="float64"))
    model = inlined(model) if whole else model
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = OnnxReference().run_model(in_memory(model), inputs)
    assert_same(Reference().run(deployment, inputs), found)


@some
@given(
    case=cases().filter(lambda case: runs_in_float64(case[0])),
    layout=st.sampled_from(LAYOUTS),
    whole=st.booleans(),
)
def test_onnxruntime_agrees(case: tuple[Deployment, FloatArray], layout: Any, whole: bool) -> None:
    deployment, inputs = case
    model = build(deployment, OnnxOptions(layout=layout, precision="float64"))
    found = OnnxRuntime(threads=1).run_model(in_memory(inlined(model) if whole else model), inputs)
    assert_same(Reference().run(deployment, inputs), found)
