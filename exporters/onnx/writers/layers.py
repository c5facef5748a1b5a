"""Layers without state: terminals, products, convolutions, pooling, Flatten."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
import onnx_ir as ir

from msg_deploy.exporters.onnx import integers
from msg_deploy.exporters.onnx.builder import Builder
from msg_deploy.exporters.onnx.writers import Cell, Place, stateless, writes
from msg_deploy.integers import quantize
from msg_deploy.primitives import integers as numbers
from msg_deploy.primitives import pair
from msg_deploy.primitives.convolution import Padding, conv_padding


@writes(nir.Input, nir.Output)
def _identity(node: nir.NIRNode, place: Place) -> Cell:
    return stateless(lambda build, x, name: x)


@writes(nir.Linear, nir.Affine)
def _product(node: Any, place: Place) -> Cell:
    """One matrix product; with 8-bit integers where the place allows."""
    bias = np.asarray(node.bias) if isinstance(node, nir.Affine) else None
    if place.bound is not None:
        quantized = quantize(place.name, node.weight, bias)
        return stateless(lambda build, x, name: integers.product(build, x, quantized, name))

    def product(build: Builder, x: ir.Value, name: str) -> ir.Value:
        weight = build.model.constant(node.weight, f"{place.name}.weight")
        terms = [build.model.constant(bias, f"{place.name}.bias")] if bias is not None else []
        return build("Gemm", x, weight, *terms, transB=1, name=name)

    return stateless(product)


@writes(nir.Scale)
def _scale(node: nir.Scale, place: Place) -> Cell:
    def scale(build: Builder, x: ir.Value, name: str) -> ir.Value:
        return build("Mul", x, build.model.constant(node.scale, f"{place.name}.scale"), name=name)

    return stateless(scale)


@writes(nir.Conv1d)
def _conv1d(node: nir.Conv1d, place: Place) -> Cell:
    return _convolution(node, place, 1)


@writes(nir.Conv2d)
def _conv2d(node: nir.Conv2d, place: Place) -> Cell:
    return _convolution(node, place, 2)


def _convolution(node: Any, place: Place, axes: int) -> Cell:
    attributes = {
        "kernel_shape": list(node.weight.shape[2:]),
        "strides": list(numbers(node, "stride", 1, axes)),
        "dilations": list(numbers(node, "dilation", 1, axes)),
        "pads": _pads(conv_padding(node, axes)),
        "group": int(node.groups),
    }
    if place.bound is not None:
        quantized = quantize(place.name, node.weight, node.bias)
        return stateless(
            lambda build, x, name: integers.convolution(build, x, quantized, attributes, name)
        )

    def convolve(build: Builder, x: ir.Value, name: str) -> ir.Value:
        weight = build.model.constant(node.weight, f"{place.name}.weight")
        bias = [build.model.constant(node.bias, f"{place.name}.bias")] if np.any(node.bias) else []
        return build("Conv", x, weight, *bias, name=name, **attributes)

    return stateless(convolve)


def _pads(padding: Padding) -> list[int]:
    """As ONNX orders them: all beginnings, then all ends."""
    return [before for before, after in padding] + [after for before, after in padding]


@writes(nir.SumPool2d)
def _sum_pool(node: nir.SumPool2d, place: Place) -> Cell:
    """A convolution of each channel with ones: integers stay exact."""
    kernel = pair(node, "kernel_size", 1)
    height, width = pair(node, "padding", 0)
    channels = place.shape[0]

    def pool(build: Builder, x: ir.Value, name: str) -> ir.Value:
        ones = build.model.constant(np.ones((channels, 1, *kernel)), f"{place.name}.ones")
        return build(
            "Conv",
            x,
            ones,
            name=name,
            kernel_shape=list(kernel),
            strides=list(pair(node, "stride", 1)),
            pads=_pads(((height, height), (width, width))),
            group=channels,
        )

    return stateless(pool)


@writes(nir.AvgPool2d)
def _avg_pool(node: nir.AvgPool2d, place: Place) -> Cell:
    """The mean over windows of what was padded before: runtimes limit the operator's own pads."""
    height, width = pair(node, "padding", 0)

    def pool(build: Builder, x: ir.Value, name: str) -> ir.Value:
        if height or width:
            pads = build.model.integers([0, 0, height, width] * 2, f"{place.name}.pads")
            x = build("Pad", x, pads, name=f"{name}.padded")
        return build(
            "AveragePool",
            x,
            name=name,
            kernel_shape=list(pair(node, "kernel_size", 1)),
            strides=list(pair(node, "stride", 1)),
        )

    return stateless(pool)


@writes(nir.Flatten)
def _flatten(node: nir.Flatten, place: Place) -> Cell:
    def flatten(build: Builder, x: ir.Value, name: str) -> ir.Value:
        return build("Reshape", x, build.model.integers([0, *place.output_shape]), name=name)

    return stateless(flatten)
