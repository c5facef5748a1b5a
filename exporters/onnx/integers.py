"""Products of spikes with weights on a grid, in 8-bit integers: exact, whatever the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from msg_deploy.deployment import Deployment
from msg_deploy.errors import GraphError
from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.graph import Plan
from msg_deploy.integers import Quantized
from msg_deploy.primitives import primitive_of


def product(build: Builder, x: ir.Value, weights: Quantized, name: str) -> ir.Value:
    """W x + b for integers x (N, in)."""
    weight = build.model.raw(weights.weight.T, f"{weights.name}.weight")
    whole = build("MatMulInteger", _bytes(build, x), weight, name=f"{name}.whole")
    return _scaled(build, whole, weights, 0, name)


def convolution(
    build: Builder,
    x: ir.Value,
    weights: Quantized,
    attributes: Mapping[str, Any],
    name: str,
) -> ir.Value:
    """A convolution of integers x (N, C, ...)."""
    weight = build.model.raw(weights.weight, f"{weights.name}.weight")
    whole = build("ConvInteger", _bytes(build, x), weight, name=f"{name}.whole", **attributes)
    return _scaled(build, whole, weights, weights.weight.ndim - 2, name)


def _bytes(build: Builder, x: ir.Value) -> ir.Value:
    return build("Cast", x, to=int(ir.DataType.UINT8), name=f"{x.name}.bytes")


def _scaled(build: Builder, whole: ir.Value, weights: Quantized, axes: int, name: str) -> ir.Value:
    """The sums in int32 plus the bias, times the scale; channels stand before `axes` others."""

    def channels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return values.reshape(*values.shape, *[1] * axes) if values.ndim else values

    bias, scale = weights.bias, weights.scale
    integral = bias is not None and bias.dtype.kind == "i"
    if bias is not None and integral:
        term = build.model.raw(channels(bias), f"{weights.name}.bias")
        whole = build("Add", whole, term, name=f"{name}.biased")
    exact = bias is None or integral
    scaled = np.any(scale != 1)
    element = int(build.model.element)
    value = build("Cast", whole, to=element, name=f"{name}.cast" if scaled or not exact else name)
    if scaled:
        factor = build.model.constant(channels(scale), f"{weights.name}.scale")
        value = build("Mul", value, factor, name=name if exact else f"{name}.scaled")
    if bias is not None and not integral:
        term = build.model.constant(channels(bias), f"{weights.name}.bias")
        value = build("Add", value, term, name=name)
    return value


def check_some(deployment: Deployment, arriving: Mapping[str, int | None], known: Plan) -> None:
    """Refuse a graph of which nothing would be computed in integers.

    Raises:
        GraphError: no product takes integers.
    """
    products = [n for n in known.order if primitive_of(deployment.graph.nodes[n]).weighted]
    if not any(arriving[name] is not None for name in products):
        raise GraphError(
            f"int8: none of the nodes {', '.join(map(repr, products))} takes spikes or sums of "
            "spikes; export without int8."
        )
